"""motorvae-stream and motorvae-encode."""

from __future__ import annotations

import contextlib
import gc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress

from .bundle.load import load_bundle
from .core.command import Command, print_remarks, print_sentence, stderr_console
from .core.errors import SourceError, UsageError
from .core.lifecycle import stopping_on_signals
from .engines.open import EngineRequest
from .engines.select import Rebuild
from .stream.batch_encode import check_encoding, encode_source, opened_data
from .stream.options import StreamOptions


@dataclass(frozen=True)
class EncodeOptions:
    """Options of motorvae-encode."""

    data: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """A folder of images, searched recursively, one image, or a video."""
    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    output: Path = Path("latents.npz")
    """Where names, mu and log_var go; an earlier file is kept under a number."""
    batch_size: int = 16
    """Images per run of the encoder."""
    engine: EngineRequest = field(default_factory=EngineRequest)
    """Which engine runs."""


def _stream(options: StreamOptions, *_: object, rebuild: Rebuild | None = None) -> None:
    if not options.camera:
        raise UsageError("no camera: name one such as 0, a file, a URL, or synthetic")
    from .stream.run import Stream  # noqa: PLC0415  # --help needs none of it
    from .stream.screen import live_status, print_start, print_summary  # noqa: PLC0415  # as above

    console = stderr_console()
    bundle = load_bundle(options.model, hash_all=False)
    # Building an engine again says itself what it does.
    waiting = console.status("opening the encoder and the camera")
    with contextlib.nullcontext() if options.engine.rebuild else waiting:
        opened = Stream(bundle, options, outputs=options.outputs, rebuild=rebuild)
    with opened as stream, stopping_on_signals(stream.stop):
        print_start(console, bundle, stream)
        # Everything that stays is there by now: no later collection needs to look at it.
        gc.collect()
        gc.freeze()
        try:
            with live_status(console, stream, options):
                while next(stream).status != "end":
                    pass
            print_summary(console, stream)
            next(stream, None)  # raises what failed for good
        finally:
            gc.unfreeze()


def _encode(options: EncodeOptions, *_: object, rebuild: Rebuild | None = None) -> None:
    check_encoding(options.batch_size, options.output)
    console = stderr_console()
    bundle = load_bundle(options.model, hash_all=False)
    with opened_data(bundle, options.data, options.engine, rebuild) as (source, choice):
        backend, printed = choice.backend, len(choice.backend.notes)
        what = f"{source.name} -> {choice.chosen} -> {options.output}{choice.remarks}"
        print_sentence(console, what)
        print_remarks(console, bundle.folder, bundle.manifest.remarks)
        with Progress(console=console) as progress:
            task = progress.add_task("encoding", total=source.expected)
            encoded = encode_source(
                source,
                backend,
                bundle.spec,
                batch_size=options.batch_size,
                progress=lambda: progress.advance(task),
            )
    for note in backend.notes[printed:]:
        console.print(note)
    kept = encoded.save(options.output)
    console.print(f"{len(encoded.names)} latents of {source.name} in {options.output}")
    if kept is not None:
        console.print(f"the earlier {options.output} is kept as {kept}")
    for gap in encoded.gaps:
        console.print(f"skipped {gap.name or gap.index}: {gap.reason}", style="yellow")
    if encoded.gaps:
        raise SourceError(
            f"{len(encoded.gaps)} of {len(encoded.names) + len(encoded.gaps)} did not decode "
            f"and have no latent; the others are in {options.output}"
        )


stream_main = Command(
    StreamOptions,
    _stream,
    "Stream a camera, video or folder through the encoder to latent rows.",
    prog="motorvae-stream",
    positional=("--camera", "--source"),
    hints={
        "--bundle": "the bundle is named with --model",
        "--weights": "the bundle is named with --model",
        "--device": "a camera is named without an option or with --camera, and where the "
        "encoder runs with --backend or --provider",
        "--imgsz": "the model has one size; the camera's is asked for with --width, --height",
    },
)
encode_main = Command(
    EncodeOptions,
    _encode,
    "Encode a folder of images or a video to one .npz file.",
    prog="motorvae-encode",
    positional=("--data", "--source"),
    hints={
        "--bundle": "the bundle is named with --model",
        "--device": "where the encoder runs is chosen with --backend or --provider",
    },
)
"""These cannot `--rebuild` an engine; `motorvae.commands` gives both the function that does."""
