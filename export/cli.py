"""motorvae-export: a checkpoint to a bundle, or more precisions and engines into one."""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..runtime.bundle.frame_format import frame_format_from_text
from ..runtime.bundle.graph_key import PARTS, TARGETS, GraphKey, Part, Precision
from ..runtime.bundle.load import Bundle, load_bundle
from ..runtime.bundle.manifest import HELD_OUT, SIGNATURE, GraphReport
from ..runtime.core.atomic_files import sha256_of
from ..runtime.core.command import Command, stderr_console
from ..runtime.core.errors import (
    BundleError,
    CheckpointError,
    ConfigError,
    OutputError,
    VerificationError,
    needed_for,
    next_command,
    sentence_list,
)
from ..runtime.core.lifecycle import loading
from ..runtime.core.system.locks import output_locked
from ..runtime.signing.bundle_signature import still_signed
from .options import DEFAULT_CHECKPOINT, DEFAULT_OUTPUT, ExportOptions
from .steps import steps_shown
from .tables import engine_table, frame_table, search_table, verification_table
from .tensorrt.add_engines import add_engines_to_bundle, find_builder, profile_from_text
from .tensorrt.build import EngineBuildRequest

if TYPE_CHECKING:
    import onnx_ir as ir

    from ..runtime.engines.gpu_info import Gpu, NoGpu
    from ..runtime.engines.tensorrt.engine_manifest import BatchProfile
    from ..runtime.engines.tensorrt.package import TensorRTPackage
    from .int8.graphs import Searched

NAMES: dict[Precision, str] = {"fp16": "FP16", "bf16": "bf16", "int8": "INT8"}


def _export(options: ExportOptions, *_: object) -> None:
    run_export(options, stderr_console())


def run_export(options: ExportOptions, console: Console) -> Path:
    """Export a checkpoint, or add to a bundle, as `motorvae-export` does; return its folder.

    Raises:
        VerificationError: A graph drifted past its limit. Where only INT8 graphs did, the bundle
            is there without them.
        MotorVAEError: An option contradicts another, or something cannot be read, built or written.
    """
    path = options.model or options.output or DEFAULT_OUTPUT
    was_signed = (path / SIGNATURE).exists()
    try:
        return _run_export(options, console, path)
    finally:
        if was_signed and not still_signed(path):
            again = next_command("motorvae", "sign", path)
            console.print(f"the signature of {path} no longer holds: {again}")


def _run_export(options: ExportOptions, console: Console, path: Path) -> Path:
    options.check()
    if options.model is not None:
        load_bundle(path, hash_all=False)  # a wrong name is no reason to make folders for it
    if options.whole_frame is not None:
        return _add_frames(options, console, path)
    engines, profile = options.engine_precisions, profile_from_text(options.batch)
    # Before any work: a builder asked for by name must be there.
    found = find_builder(options.engine if engines else "none")
    if options.model is None:
        tempfile.gettempdir()  # where there is none, torch's exporter fails for another reason
        elsewhere = "export elsewhere and add precisions here with --model"
        needed = needed_for("exporting a checkpoint", extra="train,export,cpu", instead=elsewhere)
        with needed, loading(), steps_shown(console, "loading torch"):
            from ..training import learned  # noqa: F401, PLC0415  # while nothing is held yet
            from . import bundle, onnx_export  # noqa: F401, PLC0415
            from .verify import torch_reference  # noqa: F401, PLC0415
    with output_locked(path.resolve()):  # nobody adds to it, or replaces it, meanwhile
        return _run_locked(options, console, path, profile, found)


def _run_locked(
    options: ExportOptions,
    console: Console,
    path: Path,
    profile: BatchProfile,
    found: tuple[TensorRTPackage | str, Gpu | NoGpu],
) -> Path:
    engines, (builder, gpu) = options.engine_precisions, found
    if options.model is None:
        made = {f"{name} graphs" for name in options.precisions if name != "int8"}
        made |= {f"int8 graphs for {target}" for target in options.targets}
        if not isinstance(builder, str):
            made |= {f"{name} engines of {builder.name}" for name in engines}
        left_out = _export_checkpoint(options, console, path, made)
    else:
        left_out = _extend(options, console, load_bundle(path))
    if any((one.key.target, one.key.part) == ("tensorrt", "encoder") for one in left_out):
        engines = tuple(name for name in engines if name != "int8")
    if isinstance(builder, str) and engines:
        flags = [f"--{name}" for name in engines]
        if options.targets != TARGETS and "int8" in engines:
            flags.append("tensorrt")  # of --int8, which comes last
        command = next_command("motorvae-export", "--model", path, *flags)
        console.print(f"no engine was built: {builder}; on the machine that will run it: {command}")
    elif not isinstance(builder, str):
        for precision in engines:
            request = EngineBuildRequest(builder, gpu, precision, profile, options.workspace_mib)
            built = add_engines_to_bundle(
                load_bundle(path), request, console, on_reports=partial(_show_reports, console)
            )
            console.print(engine_table(built))
            reasons = {one.verification.reason for one in built}
            for reason in sorted(reason for reason in reasons if reason):
                console.print(f"not verified: {reason}")
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


def _add_frames(options: ExportOptions, console: Console, path: Path) -> Path:
    """Add encoders of whole frames to a bundle, or write one to the file that is named."""
    bundle = load_bundle(path)
    frame = frame_format_from_text(options.whole_frame or "")
    with needed_for("whole frames", extra="export,cpu"):
        from .frames.add_frames import frame_to_file, frames_to_bundle  # noqa: PLC0415

    def on_reports(reports: Sequence[GraphReport]) -> None:
        console.print(frame_table(reports))

    has_fp16 = any(entry.key == GraphKey("encoder", "fp16") for entry in bundle.manifest.graphs)
    if options.fp16 and not has_fp16:
        first = next_command("motorvae-export", "--model", path, "--fp16")
        raise ConfigError(f"{path} has no FP16 encoder for --whole-frame: run {first} first")
    with output_locked(path.resolve()), steps_shown(console, "reading the bundle") as show:
        if options.output is not None:
            frame_to_file(
                bundle,
                frame,
                "fp16" if options.fp16 else "fp32",
                options.output,
                on_reports=on_reports,
                on_step=show,
            )
        else:
            frames_to_bundle(
                bundle,
                frame,
                ("fp32", "fp16") if has_fp16 else ("fp32",),
                on_reports=on_reports,
                on_step=show,
                replace=options.replace,
            )
    what = f"an encoder of {frame} frames"
    console.print(
        f"{what} added to {path}"
        if options.output is None
        else f"{what} in {options.output}, what it is in {options.output.with_suffix('.json').name}"
    )
    return path


def _export_checkpoint(
    options: ExportOptions, console: Console, output: Path, made: set[str]
) -> tuple[Searched, ...]:
    """Write a bundle of a training run; `made` is what it will hold, engines included."""
    from ..training.checkpoint import model_from_checkpoint, weights_and_statistics  # noqa: PLC0415
    from ..training.learned import learned_from_reconstructions  # noqa: PLC0415
    from .bundle import check_replaceable, write_bundle  # noqa: PLC0415
    from .onnx_export import is_exported_as, onnx_from_model  # noqa: PLC0415
    from .verify.reference import held_out_from_run  # noqa: PLC0415
    from .verify.torch_reference import reference_from_model  # noqa: PLC0415

    run = options.checkpoint or DEFAULT_CHECKPOINT
    held = check_replaceable(output)
    model, config = model_from_checkpoint(run, options.weights)
    folder = run if run.is_dir() else run.parent
    spec = config.model
    weights, statistics = weights_and_statistics(folder, options.weights)
    weights_sha256 = sha256_of(weights)

    @cache
    def exported() -> dict[Part, ir.Model]:
        with steps_shown(console, "exporting the graphs"):
            return {part: onnx_from_model(model, spec, part) for part in PARTS}

    lost = sorted(held - made)
    # Engines of the same weights stay until new ones stand: a build can fail or be interrupted.
    has_engines = any("engines of" in part for part in held)
    if (lost or has_engines) and not options.replace:
        bundle = None
        with contextlib.suppress(BundleError):
            bundle = load_bundle(output)
        is_same = bundle is not None and bundle.manifest.weights_sha256 == weights_sha256
        if bundle and is_same and is_exported_as(bundle, exported()):
            console.print(f"{output} is of the same weights, and what it holds is kept")
            return _extend(options, console, bundle)
        if lost:
            raise OutputError(
                f"{output} holds {sentence_list(lost)}, which this export would not make "
                "again: ask for them as well, name another --output, or let them go with "
                "--replace"
            )

    with steps_shown(console, "computing what the graphs are compared with"):
        held_out, spread = held_out_from_run(folder, spec, statistics.name)
        reference = reference_from_model(model, held_out, spread)
        problem = learned_from_reconstructions(
            reference.images, reference.reconstruction, reference.mu, reference.log_var
        ).sentence()
    if problem and not options.anyway:
        raise CheckpointError(
            f"the model of {folder} has learned too little, no bundle was written: {problem}; "
            "or export it --anyway"
        )
    remarks = [f"learned too little: {problem}"] if problem else []
    if len(reference.images) == 1:
        remarks.append("one held-out image cannot tell whether its model has learned anything")
    for remark in remarks:
        console.print(f"warning: this model: {remark}")
    graphs = exported()
    with steps_shown(console, "float32 graphs") as show:
        left_out = write_bundle(
            output,
            graphs=graphs,
            spec=spec,
            weights_sha256=weights_sha256,
            statistics=statistics,
            reference=reference,
            remarks=remarks,
            held_out=held_out,
            precisions=options.precisions,
            keep_float32=options.kept,
            targets=options.targets,
            calibration=options.calibration,
            on_reports=partial(_show_reports, console),
            on_step=show,
            on_remark=lambda line: console.print(f"warning: {line}"),
        )
    console.print(f"bundle of {folder.resolve().name} in {output}")
    return left_out


def _extend(options: ExportOptions, console: Console, bundle: Bundle) -> tuple[Searched, ...]:
    """Add what is asked for and not there; only that needs the ONNX packages."""
    targets = options.targets
    there = {(entry.precision, entry.made_for) for entry in bundle.manifest.graphs}
    missing = tuple(target for target in targets if ("int8", target) not in there)
    if targets and not missing and options.calibration != HELD_OUT:
        raise ConfigError(
            f"{bundle.folder} has INT8 graphs already, and --calibration would change nothing: "
            "export the checkpoint again with it and --replace, or leave it out"
        )
    precisions = {precision for precision, _ in there}
    if options.kept and "fp16" in precisions:
        raise ConfigError(
            f"{bundle.folder} has FP16 graphs already, and --keep-float32 would change nothing: "
            "export again with it and --replace, or leave it out"
        )
    lacking = [name for name in options.precisions if name not in precisions]
    if missing and "int8" in precisions:  # those for some engines are there
        lacking.append("int8")
    for name in options.precisions:
        present = [target for target in targets if target not in missing]
        of = f" for {' and '.join(present)}" if name == "int8" and missing else ""
        if name in precisions and (name != "int8" or present):
            console.print(f"{bundle.folder} has {NAMES[name]} graphs{of} already")
    if not lacking:
        return ()
    with needed_for("deriving a precision", extra="export,cpu"):
        from .bundle import add_to_bundle  # noqa: PLC0415

    with steps_shown(console, "reading the bundle") as show:
        left_out = add_to_bundle(
            bundle,
            lacking,
            keep_float32=options.kept,
            targets=missing,
            calibration=options.calibration,
            on_reports=partial(_show_reports, console),
            on_step=show,
            on_remark=lambda line: console.print(f"warning: {line}"),
        )
    refused = {one.key.target for one in left_out if one.key.part == "encoder"}
    added = [name for name in lacking if name != "int8" or set(missing) - refused]
    if added:
        names = " and ".join(NAMES[precision] for precision in added)
        console.print(f"{names} graphs added to {bundle.folder}")
    return left_out


def _show_reports(
    console: Console, reports: Sequence[GraphReport], searched: Sequence[Searched] = ()
) -> None:
    if tried := [one for one in searched if one.trials]:
        console.print(search_table(tried))
    console.print(verification_table(reports))
    for engine in sorted({report.engine for report in reports}):
        console.print(engine)
    precisions: dict[tuple[str, int], dict[str, None]] = {}
    for report in reports:
        precisions.setdefault((report.reference, report.images), {})[report.precision] = None
    for (reference, images), of in sorted(precisions.items()):
        console.print(f"{', '.join(of)} against {reference} on {images} held-out images")
    for note in dict.fromkeys(note for report in reports for note in report.notes):
        console.print(f"note: {note}")


main = Command(
    ExportOptions,
    _export,
    "Export a training run as verified ONNX graphs and TensorRT engines.",
    prog="motorvae-export",
    positional=("--checkpoint",),
    hints={"--device": "--engine chooses what engines are built for"},
)

if __name__ == "__main__":
    sys.exit(main())
