"""What motorvae-export does: a checkpoint to a bundle, or more precisions and engines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import orjson
from rich.console import Console

from ..runtime.bundle.graph_key import ENGINES, PARTS, TARGETS, Precision, Target
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import HELD_OUT, MANIFEST, GraphReport
from ..runtime.core.atomic_files import sha256_of
from ..runtime.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    MissingDependencyError,
    OutputError,
    VerificationError,
    missing_dependency,
    next_command,
    sentence_list,
)
from ..runtime.core.packages import own_version
from .options import DEFAULT_CHECKPOINT, DEFAULT_OUTPUT, ExportOptions
from .tables import engine_table, search_table, verification_table
from .tensorrt.add_engines import (
    NoBuilder,
    add_engines_to_bundle,
    find_builder,
    profile_from_text,
)
from .tensorrt.build import EngineBuildRequest

if TYPE_CHECKING:
    from .int8.graphs import LeftOut, Searched

MOST_WORKSPACE_MIB = 1 << 20
PRECISIONS: tuple[Precision, ...] = ("fp16", "bf16", "int8")
NAMES: dict[Precision, str] = {"fp16": "FP16", "bf16": "bf16", "int8": "INT8"}


def run_export(options: ExportOptions, console: Console) -> Path:
    """Export a checkpoint, or add to a bundle, as `motorvae-export` does.

    Args:
        options: Its options.
        console: Where tables, notes and the next command go.

    Returns:
        The bundle's folder.

    Raises:
        VerificationError: A graph drifted past its limit. Where only INT8 graphs did, the bundle
            is there without them.
        MotorVAEError: An option contradicts another, or something cannot be read, built or written.
    """
    runners = _runners(options.int8)
    graphs = [name for name in PRECISIONS if getattr(options, name) not in {None, False}]
    engines: list[Precision] = [
        name for name in graphs if name == "fp16" or (name == "int8" and "tensorrt" in runners)
    ]
    wants_engine = bool(engines) if options.engine == "auto" else options.engine != "none"
    _check_options(options, asks_nothing=not graphs and not wants_engine)
    profile = profile_from_text(options.batch)
    # Before any work: a builder asked for by name must be there.
    builder, gpu = find_builder(options.engine if wants_engine else "none")
    if options.model is None:
        path = options.output or DEFAULT_OUTPUT
        packages = [builder.name] if wants_engine and not isinstance(builder, NoBuilder) else []
        made = {
            *(part_of_graphs(name) for name in graphs if name != "int8"),
            *(part_of_graphs("int8", runner) for runner in runners),
            *(part_of_engines(name, of) for of in packages for name in engines or ["fp32"]),
        }
        left_out = _export_checkpoint(options, graphs, runners, made, console)
    else:
        path = options.model
        left_out = _extend_bundle(options, graphs, runners, load_bundle(path), console)
    if any((one.key.target, one.key.part) == ("tensorrt", "encoder") for one in left_out):
        engines = [name for name in engines if name != "int8"]
        wants_engine = wants_engine and bool(engines)
    if isinstance(builder, NoBuilder):
        if wants_engine:
            flags = [f"--{name}" for name in engines]
            if runners != TARGETS and "int8" in engines:
                flags.append("tensorrt")  # of --int8, which comes last
            command = next_command("motorvae-export", "--model", path, *flags)
            console.print(
                f"no engine was built: {builder.reason}; on the machine that will run it: {command}"
            )
    elif wants_engine:
        for precision in engines or ["fp32"]:
            order = EngineBuildRequest(builder, gpu, precision, profile, options.workspace_mib)
            _build_engines(path, order, console)
    if left_out:
        clauses = dict.fromkeys(one.sentence for one in left_out)
        raise VerificationError(
            f"{path} is there, but not all of it: {'; '.join(clauses)}; calibrate on more of what "
            "the camera will see with --calibration, train for more steps, or use another precision"
        )
    if options.model is None:
        model = [] if path == DEFAULT_OUTPUT else ["--model", path]
        console.print(f"next: {next_command('motorvae-stream', '0', *model)}")
    return path


def parts_of_bundle(folder: Path) -> set[str]:
    """Return what a bundle holds beyond float32 graphs, as `part_of_graphs` and engines name it.

    Args:
        folder: The bundle, of any version; where there is none, it holds nothing.
    """
    if not (folder / MANIFEST).exists():
        return set()
    manifest = orjson.loads((folder / MANIFEST).read_bytes())
    graphs = {
        part_of_graphs(entry["precision"], entry.get("made_for")) for entry in manifest["graphs"]
    }
    engines = {
        part_of_engines(path.stem.split(".")[-2], path.stem.split(".")[-1])
        for path in (folder / ENGINES).glob("*.engine")
    }
    return (graphs | engines) - {part_of_graphs("fp32")}


def part_of_graphs(precision: str, target: str | None = None) -> str:
    """Return what graphs of a precision are called."""
    return f"{precision} graphs" + (f" for {target}" if target and precision == "int8" else "")


def part_of_engines(precision: str, package: str) -> str:
    """Return what engines of a precision and a package are called."""
    return f"{precision} engines of {package}"


def _runners(asked: Sequence[str] | None) -> tuple[Target, ...]:
    """Return the engines that `--int8` names, all where it names none.

    Raises:
        ConfigError: There is no such engine.
    """
    if asked is None:
        return ()
    names = [name for text in asked for name in text.split(",") if name]
    if unknown := [name for name in names if name not in TARGETS]:
        raise ConfigError(
            f"--int8 {unknown[0]}: no such engine, name some of {', '.join(TARGETS)}, or none for "
            "all"
        )
    return tuple(runner for runner in TARGETS if not names or runner in names)


def _check_options(options: ExportOptions, *, asks_nothing: bool) -> None:
    if options.workspace_mib is not None and not 1 <= options.workspace_mib <= MOST_WORKSPACE_MIB:
        raise ConfigError(
            f"workspace_mib={options.workspace_mib} is out of range: take 1 to {MOST_WORKSPACE_MIB}"
        )
    if options.calibration != HELD_OUT and options.int8 is None:
        raise ConfigError("--calibration is for INT8 graphs: add --int8, or leave it out")
    if options.model is None:
        return
    if options.weights != "best" or options.anyway:
        raise ConfigError(
            "--weights and --anyway are about a checkpoint: leave them out, or leave out --model"
        )
    if options.checkpoint or options.output:
        raise ConfigError(
            f"--model {options.model} changes that bundle in place: leave out --checkpoint "
            "and --output, or leave out --model"
        )
    if asks_nothing:
        raise ConfigError(
            f"nothing to add to {options.model}: name a precision, such as --fp16, or an --engine"
        )


def _export_checkpoint(
    options: ExportOptions,
    precisions: Sequence[Precision],
    runners: tuple[Target, ...],
    made: set[str],
    console: Console,
) -> tuple[LeftOut, ...]:
    """Write a bundle of a training run; `made` says what it will hold, engines included."""
    try:
        with console.status("loading torch"):
            from ..training.checkpoint import model_from_checkpoint, statistics_name, weights_name  # noqa: PLC0415
            from ..training.learned import learned_from_reconstructions  # noqa: PLC0415
            from .bundle import check_replaceable, write_bundle  # noqa: PLC0415
            from .int8.graphs import Int8Request  # noqa: PLC0415
            from .onnx_export import onnx_from_model  # noqa: PLC0415
            from .verify.reference import held_out_from_run  # noqa: PLC0415
            from .verify.torch_reference import reference_from_model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(
            error,
            "exporting a checkpoint",
            extra="train,export,cpu",
            instead="export elsewhere and add precisions here with --model",
        ) from error

    run = options.checkpoint or DEFAULT_CHECKPOINT
    output = options.output or DEFAULT_OUTPUT
    check_replaceable(output)
    model, config = model_from_checkpoint(run, options.weights)
    folder = run if run.is_dir() else run.parent
    spec = config.model
    weights_sha256 = sha256_of(folder / weights_name(folder, options.weights))
    held = parts_of_bundle(output)
    lost = sorted(held - made)
    # Engines of the same weights stay until new ones stand: a build can fail or be interrupted.
    has_engines = any("engines of" in part for part in held)
    if (lost or has_engines) and not options.replace:
        bundle = _same_model(output, weights_sha256)
        if bundle is not None:
            console.print(f"{output} is of the same weights, and what it holds is kept")
            return _extend_bundle(options, precisions, runners, bundle, console)
        if lost:
            raise OutputError(
                f"{output} holds {sentence_list(lost)}, which this export would not make again: "
                "ask for them as well, name another --output, or let them go with --replace"
            )
    statistics = statistics_name(folder, options.weights)
    with console.status("computing what the graphs are held against"):
        held_out, spread = held_out_from_run(
            folder,
            image_size=spec.image_size,
            latent_size=spec.latent_size,
            statistics=statistics,
        )
        reference = reference_from_model(model, held_out, spread)
        problem = learned_from_reconstructions(
            reference.images, reference.reconstruction[:], reference.mu, reference.log_var
        ).sentence()
    if problem and not options.anyway:
        raise CheckpointError(
            f"the model of {folder} has learned too little, no bundle was written: {problem}; or "
            "export it --anyway"
        )
    remarks = [f"learned too little: {problem}"] if problem else []
    if len(reference.images) == 1:
        remarks.append("one held-out image cannot tell whether its model has learned anything")
    for remark in remarks:
        console.print(f"warning: this model: {remark}")
    with console.status("exporting the graphs") as status:
        left_out = write_bundle(
            output,
            graphs={part: onnx_from_model(model, spec, part) for part in PARTS},
            spec=spec,
            weights_sha256=weights_sha256,
            statistics=folder / statistics,
            reference=reference,
            remarks=remarks,
            held_out=held_out,
            precisions=precisions,
            int8=Int8Request(runners, options.calibration),
            on_reports=_printer(console),
            tell=status.update,
        )
    console.print(f"bundle of {folder.resolve().name} in {output}")
    return left_out


def _same_model(folder: Path, weights_sha256: str) -> Bundle | None:
    """Return a bundle if this version wrote it from the same weights."""
    try:
        bundle = load_bundle(folder)
    except BundleError:
        return None
    is_ours = bundle.manifest.producer == f"motorvae {own_version()}"
    return bundle if is_ours and bundle.manifest.weights_sha256 == weights_sha256 else None


def _extend_bundle(
    options: ExportOptions,
    precisions: Sequence[Precision],
    runners: tuple[Target, ...],
    bundle: Bundle,
    console: Console,
) -> tuple[LeftOut, ...]:
    """Add what is asked for and not there; only that needs the ONNX packages."""
    there = {(entry.precision, entry.made_for) for entry in bundle.manifest.graphs}
    present = {precision for precision, _ in there}
    missing = tuple(runner for runner in runners if ("int8", runner) not in there)
    if runners and not missing and options.calibration != HELD_OUT:
        raise ConfigError(
            f"{bundle.folder} has INT8 graphs already, and --calibration would change nothing: "
            "export the checkpoint again with it and --replace, or leave it out"
        )
    lacking: list[Precision] = []
    for precision in precisions:
        if precision not in present or (precision == "int8" and missing):
            lacking.append(precision)
        if precision in present:
            # Of INT8, those for some engines may be there.
            old = [runner for runner in runners if runner not in missing]
            of = f" for {' and '.join(old)}" if precision == "int8" and missing else ""
            if precision != "int8" or old:
                console.print(f"{bundle.folder} has {NAMES[precision]} graphs{of} already")
    if not lacking:
        return ()
    try:
        from .bundle import add_to_bundle  # noqa: PLC0415
        from .int8.graphs import Int8Request  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error, "deriving a precision", extra="export,cpu") from error

    with console.status("reading the bundle") as status:
        left_out = add_to_bundle(
            bundle,
            lacking,
            int8=Int8Request(missing, options.calibration),
            on_reports=_printer(console),
            tell=status.update,
        )
    refused = {one.key.target for one in left_out if one.key.part == "encoder"}
    added = [name for name in lacking if name != "int8" or set(missing) - refused]
    if added:
        names = " and ".join(NAMES[precision] for precision in added)
        console.print(f"{names} graphs added to {bundle.folder}")
    return left_out


def _build_engines(path: Path, order: EngineBuildRequest, console: Console) -> None:
    engine_manifests = add_engines_to_bundle(
        load_bundle(path), order, console, on_reports=_printer(console)
    )
    console.print(engine_table(engine_manifests))
    for reason in sorted(
        {p.verification.reason for p in engine_manifests if p.verification.reason}
    ):
        console.print(f"not verified: {reason}")


def _printer(console: Console) -> Callable[..., None]:
    def show(reports: Sequence[GraphReport], searched: Sequence[Searched] = ()) -> None:
        if searched:
            console.print(search_table(searched))
        console.print(verification_table(reports))
        for engine in sorted({report.engine for report in reports}):
            console.print(engine)
        for reference, images in sorted({(r.reference, r.images) for r in reports}):
            of = dict.fromkeys(
                report.precision
                for report in reports
                if (report.reference, report.images) == (reference, images)
            )
            console.print(f"{', '.join(of)} against {reference} on {images} held-out images")
        for note in dict.fromkeys(note for report in reports for note in report.notes):
            console.print(f"note: {note}")

    return show


def _missing(
    error: ModuleNotFoundError, feature: str, *, extra: str, instead: str | None = None
) -> MissingDependencyError:
    package = (error.name or "a package").partition(".")[0].replace("_", "-")
    return missing_dependency(feature, package, extra=extra, instead=instead)
