"""motorvae-export."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from ..runtime.bundle import STATISTICS, GraphReport, load_bundle
from ..runtime.command import run_command, stderr_console
from ..runtime.errors import ConfigError, MissingDependencyError, missing_dependency
from ..runtime.files import sha256_of
from .table import verification_table

DEFAULT_CHECKPOINT = Path("runs/latest")
DEFAULT_OUTPUT = Path("bundle")


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


def main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-export; return its exit code."""
    return run_command(
        ExportOptions,
        _export,
        prog="motorvae-export",
        description="Export a training run as split, verified ONNX graphs.",
        args=args,
    )


def _export(options: ExportOptions) -> None:
    console = stderr_console()
    if options.bundle is None:
        _export_checkpoint(options, console)
        return
    if options.checkpoint or options.output:
        raise ConfigError(
            f"--bundle {options.bundle} changes that bundle in place: leave out --checkpoint "
            "and --output, or leave out --bundle"
        )
    if not options.fp16:
        raise ConfigError(f"nothing to add to {options.bundle}: name a precision, such as --fp16")
    _extend_bundle(options.bundle, console)


def _export_checkpoint(options: ExportOptions, console: Console) -> None:
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
    console.print(f"next: motorvae-stream --camera 0 --model {output}")


def _extend_bundle(path: Path, console: Console) -> None:
    try:
        from .bundle import add_fp16_to_bundle  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise _missing(error, "deriving a precision", extra="export,cpu") from error

    bundle = load_bundle(path)
    with console.status("deriving and verifying FP16 graphs"):
        added = add_fp16_to_bundle(bundle, on_reports=_printer(console))
    console.print(f"FP16 graphs added to {path}" if added else f"{path} has FP16 graphs already")


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
