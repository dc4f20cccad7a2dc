"""motorvae-export: a checkpoint to a bundle, or more precisions and engines into one."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ..runtime.bundle.frame_format import frame_format_from_text
from ..runtime.bundle.graph_key import PARTS, GraphKey, Part
from ..runtime.bundle.load import load_bundle
from ..runtime.bundle.manifest import GraphReport
from ..runtime.core.atomic_files import sha256_of
from ..runtime.core.command import Command, stderr_console
from ..runtime.core.errors import CheckpointError, ConfigError, needed_for, next_command
from ..runtime.core.lifecycle import loading
from ..runtime.core.system.locks import output_locked
from .bundle_job import BundleJob, Measured, NewBundle, extend_bundle, told_of_signature
from .options import DEFAULT_CHECKPOINT, DEFAULT_OUTPUT, ExportOptions
from .steps import steps_shown
from .tables import frame_table, models_table
from .triton.repository import check_place, write_repository

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import onnx_ir as ir

    from ..training.checkpoint import RunConfig
    from .verify.reference import Spread


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
    options.check()
    if options.model is not None:
        load_bundle(path, hash_all=False)  # a wrong name is no reason to make folders for it
    if options.triton is not None:
        check_place(options.triton, path, replace=options.replace)
    if options.whole_frame is not None:
        with told_of_signature(path, console):
            _add_frames(options, console, path)
    elif options.model is None:
        _export_run(options, console, path)
    elif options.adds or not options.external_data:
        BundleJob(options, console).run(
            path, lambda _: extend_bundle(options, console, load_bundle(path))
        )
    if options.triton is not None:
        _write_repository(options, options.triton, console, path)
    return path


def _export_run(options: ExportOptions, console: Console, path: Path) -> None:
    """Write the bundle of a training run, or of a model without one."""
    job = BundleJob(options, console)
    tempfile.gettempdir()  # where there is none, torch's exporter fails for another reason
    elsewhere = "export elsewhere and add precisions here with --model"
    needed = needed_for("exporting a checkpoint", extra="train,export,cpu", instead=elsewhere)
    with needed, loading(), steps_shown(console, "loading torch"):
        from ..training import learned  # noqa: F401, PLC0415  # while nothing is held yet
        from . import bundle, onnx_export  # noqa: F401, PLC0415
        from .verify import torch_reference  # noqa: F401, PLC0415
    job.run(path, lambda made: job.write(path, made, lambda: _bundle_of_run(options, console)))
    model = [] if path == DEFAULT_OUTPUT else ["--model", path]
    console.print(f"next: {next_command('motorvae-stream', '0', *model)}")


def _write_repository(options: ExportOptions, folder: Path, console: Console, path: Path) -> None:
    """Write a bundle as a model repository of Triton, and say what is in it."""
    with steps_shown(console, f"writing {folder}"):
        manifest = write_repository(load_bundle(path), folder, options, replace=options.replace)
    console.print(models_table(manifest.models))
    notes = [f"{one.name} {note}" for one in manifest.models for note in one.notes]
    for note in (*notes, *manifest.notes):
        console.print(f"note: {note}")
    served = f"{manifest.precision} for {manifest.platform}"
    console.print(f"model repository of {path} in {folder}, {served}")


def _add_frames(options: ExportOptions, console: Console, path: Path) -> None:
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
                external_data=options.external_data,
            )
    what = f"an encoder of {frame} frames"
    console.print(
        f"{what} added to {path}"
        if options.output is None
        else f"{what} in {options.output}, what it is in {options.output.with_suffix('.json').name}"
    )


def _bundle_of_run(options: ExportOptions, console: Console) -> NewBundle:
    """Return what a finished training run, or a model without one, becomes."""
    from ..training.checkpoint import model_from_checkpoint, weights_and_statistics  # noqa: PLC0415
    from ..training.pretrained.folder import pretrained_folder  # noqa: PLC0415
    from .onnx_export import onnx_from_model  # noqa: PLC0415
    from .verify.torch_reference import reference_from_model  # noqa: PLC0415

    run = options.checkpoint or DEFAULT_CHECKPOINT
    if options.pretrained is not None:
        run = pretrained_folder(options.pretrained)
    model, config = model_from_checkpoint(run, options.weights)
    folder = run if run.is_dir() else run.parent
    spec = config.model
    weights, statistics = weights_and_statistics(folder, options.weights)

    def graphs() -> dict[Part, ir.Model]:
        with steps_shown(console, "exporting the graphs"):
            return {part: onnx_from_model(model, spec, part) for part in PARTS}

    def measured() -> Measured:
        held_out, spread = _held_out(folder, config, statistics, is_run=options.pretrained is None)
        return Measured(reference_from_model(model, held_out, spread), held_out, statistics)

    name = folder.resolve().name
    return NewBundle(name, spec, sha256_of(weights), graphs, measured, config.origin)


def _held_out(
    folder: Path, config: RunConfig, statistics: Path, *, is_run: bool
) -> tuple[npt.NDArray[np.uint8], Spread]:
    """Return the images that judge a model, and its latents' spread."""
    from ..training.latent_statistics import HELD_OUT_NAME  # noqa: PLC0415
    from ..training.pretrained.held_out import drawn_held_out  # noqa: PLC0415
    from .verify.reference import held_out_from_run, spread_from_statistics  # noqa: PLC0415

    if is_run or (folder / HELD_OUT_NAME).exists():
        return held_out_from_run(folder, config.model, statistics.name)
    spread = spread_from_statistics(statistics, config.model, error=CheckpointError)
    return drawn_held_out(config, folder), spread


main = Command(
    ExportOptions,
    _export,
    "Export a training run as verified ONNX graphs and TensorRT engines.",
    prog="motorvae-export",
    positional=("--checkpoint",),
    hints={
        "--device": "--engine chooses what engines are built for",
        # As NVIDIA's trtexec spells them.
        "--useDLACore": "--use-dla-core names the core",
        "--allowGPUFallback": "--allow-gpu-fallback lets the GPU run the rest",
    },
)

if __name__ == "__main__":
    sys.exit(main())
