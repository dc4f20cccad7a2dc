"""motorvae-export."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..runtime.bundle import STATISTICS, Bundle, GraphReport, Precision, load_bundle
from ..runtime.command import run_command, stderr_console
from ..runtime.errors import ConfigError, MissingDependencyError, missing_dependency
from ..runtime.files import sha256_of
from .engine_bundle import (
    EngineChoice,
    EngineOrder,
    NoBuilder,
    add_engines_to_bundle,
    find_builder,
    profile_from_text,
)
from .table import engine_table, verification_table

DEFAULT_CHECKPOINT = Path("runs/latest")
DEFAULT_OUTPUT = Path("bundle")
MOST_WORKSPACE_MIB = 1 << 20


@dataclass(frozen=True)
class ExportOptions:
    """Options of motorvae-export."""

    checkpoint: Path | None = None
    """A finished training run; by default runs/latest. Needs torch."""
    output: Path | None = None
    """The bundle to write; by default bundle. An earlier bundle there is replaced in one step."""
    bundle: Path | None = None
    """Add precisions to this bundle instead of exporting a checkpoint. Needs no torch."""
    fp16: bool = False
    """Add graphs whose weights and arithmetic are FP16; their inputs and outputs stay float32."""
    engine: EngineChoice = "auto"
    """Who builds TensorRT engines. auto: with --fp16, whichever this machine has, TensorRT on its
    GPU first, then TensorRT-RTX, which needs no GPU; where there is neither, the graphs alone.
    One by name: it or exit code 1; without --fp16 it builds float32 engines."""
    batch: str = "1,1,8"
    """Images per run that engines are built for: fewest, best, most."""
    workspace_mib: int | None = None
    """Most scratch memory that an engine may take, in MiB; by default up to 1024, less where the
    GPU shares the computer's memory."""


def main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-export; return its exit code."""
    return run_command(
        ExportOptions,
        _export,
        prog="motorvae-export",
        description="Export a training run as verified ONNX graphs and TensorRT engines.",
        args=args,
    )


def _export(options: ExportOptions) -> None:
    console = stderr_console()
    precision: Precision = "fp16" if options.fp16 else "fp32"
    wants_engine = options.fp16 if options.engine == "auto" else options.engine != "none"
    _check_options(options, wants_engine=wants_engine)
    profile = profile_from_text(options.batch)
    # Before any work: a builder asked for by name must be there.
    builder, gpu = find_builder(options.engine if wants_engine else "none")
    if options.bundle is None:
        path = _export_checkpoint(options, console)
    else:
        path = options.bundle
        _extend_bundle(options, load_bundle(path), console)
    if isinstance(builder, NoBuilder):
        if wants_engine:
            console.print(
                f"no engine was built: {builder.reason}; on the machine that will run it: "
                f"motorvae-export --bundle {path} --fp16"
            )
    else:
        order = EngineOrder(builder, gpu, precision, profile, options.workspace_mib)
        passports = add_engines_to_bundle(
            load_bundle(path), order, console, on_reports=_printer(console)
        )
        console.print(engine_table(passports))
        for reason in sorted({p.verification.reason for p in passports if p.verification.reason}):
            console.print(f"not verified: {reason}")
    if options.bundle is None:
        console.print(f"next: motorvae-stream --camera 0 --model {path}")


def _check_options(options: ExportOptions, *, wants_engine: bool) -> None:
    if options.workspace_mib is not None and not 1 <= options.workspace_mib <= MOST_WORKSPACE_MIB:
        raise ConfigError(
            f"workspace_mib={options.workspace_mib} is out of range: take 1 to {MOST_WORKSPACE_MIB}"
        )
    if options.bundle is None:
        return
    if options.checkpoint or options.output:
        raise ConfigError(
            f"--bundle {options.bundle} changes that bundle in place: leave out --checkpoint "
            "and --output, or leave out --bundle"
        )
    if not (options.fp16 or wants_engine):
        raise ConfigError(
            f"nothing to add to {options.bundle}: name a precision, such as --fp16, or an --engine"
        )


def _export_checkpoint(options: ExportOptions, console: Console) -> Path:
    try:
        from ..training.checkpoint import WEIGHTS_NAME, model_from_checkpoint  # noqa: PLC0415
        from .bundle import GRAPHS, check_replaceable, write_bundle  # noqa: PLC0415
        from .graphs import onnx_from_model  # noqa: PLC0415
        from .reference import held_out_from_run  # noqa: PLC0415
        from .torch_reference import reference_from_model  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(
            error,
            "exporting a checkpoint",
            extra="train,export,cpu",
            instead="export elsewhere and add precisions here with --bundle",
        ) from error

    run = options.checkpoint or DEFAULT_CHECKPOINT
    output = options.output or DEFAULT_OUTPUT
    check_replaceable(output)
    model, config = model_from_checkpoint(run)
    folder = run if run.is_dir() else run.parent
    spec = config.model
    held_out = held_out_from_run(folder, image_size=spec.image_size, latent_size=spec.latent_size)
    with console.status("exporting the graphs"):
        graphs = {graph: onnx_from_model(model, spec, graph) for graph in GRAPHS}
    with console.status(f"verifying on {len(held_out.images)} held-out images"):
        write_bundle(
            output,
            graphs=graphs,
            spec=spec,
            weights_sha256=sha256_of(folder / WEIGHTS_NAME),
            statistics=folder / STATISTICS,
            reference=reference_from_model(model, held_out),
            fp16=options.fp16,
            on_reports=_printer(console),
        )
    console.print(f"bundle of {folder.resolve().name} in {output}")
    return output


def _extend_bundle(options: ExportOptions, bundle: Bundle, console: Console) -> None:
    """Add FP16 graphs if they are asked for and not there; only that needs the ONNX packages."""
    if not options.fp16:
        return
    if any(entry.precision == "fp16" for entry in bundle.manifest.graphs):
        console.print(f"{bundle.folder} has FP16 graphs already")
        return
    try:
        from .bundle import add_fp16_to_bundle  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error, "deriving a precision", extra="export,cpu") from error

    with console.status("deriving and verifying FP16 graphs"):
        add_fp16_to_bundle(bundle, on_reports=_printer(console))
    console.print(f"FP16 graphs added to {bundle.folder}")


def _printer(console: Console) -> Callable[[Sequence[GraphReport]], None]:
    def show(reports: Sequence[GraphReport]) -> None:
        console.print(verification_table(reports))
        for engine in sorted({report.engine for report in reports}):
            console.print(engine)
        console.print(f"against {reports[0].reference} on {reports[0].images} held-out images")

    return show


def _missing(
    error: ModuleNotFoundError, feature: str, *, extra: str, instead: str | None = None
) -> MissingDependencyError:
    package = (error.name or "a package").partition(".")[0].replace("_", "-")
    return missing_dependency(feature, package, extra=extra, instead=instead)


if __name__ == "__main__":
    sys.exit(main())
