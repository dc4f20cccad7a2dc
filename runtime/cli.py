"""motorvae-stream and motorvae-encode."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro
from rich.progress import Progress

from .bundle.load import load_bundle
from .core.command import print_remarks, run_command, stderr_console
from .core.errors import SourceError
from .engines.request import EngineRequest
from .engines.select import Rebuild, select_engine
from .sources.base import CaptureRequest
from .sources.open import open_source
from .stream.batch_encode import check_batch_size, check_npz, encode_source
from .stream.options import StreamOptions


@dataclass(frozen=True)
class EncodeOptions:
    """Options of motorvae-encode."""

    data: Annotated[str, tyro.conf.Positional]
    """A folder of images, searched recursively, one image, or a video."""
    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    output: Path = Path("latents.npz")
    """Where names, mu and log_var go."""
    batch_size: int = 16
    """Images per run of the encoder."""
    engine: Annotated[EngineRequest, tyro.conf.arg(name="")] = field(default_factory=EngineRequest)
    """Which engine runs."""


def stream_main(args: Sequence[str] | None = None, rebuild: Rebuild | None = None) -> int:
    """Run motorvae-stream; return its exit code. `rebuild` is what `--rebuild` calls."""
    return run_command(
        StreamOptions,
        lambda options: _stream(options, rebuild),
        prog="motorvae-stream",
        description="Stream a camera, video or folder through the encoder to latent rows.",
        args=args,
    )


def encode_main(args: Sequence[str] | None = None, rebuild: Rebuild | None = None) -> int:
    """Run motorvae-encode; return its exit code. `rebuild` is what `--rebuild` calls."""
    return run_command(
        EncodeOptions,
        lambda options: _encode(options, rebuild),
        prog="motorvae-encode",
        description="Encode a folder of images or a video to one .npz file.",
        args=args,
    )


def _stream(options: StreamOptions, rebuild: Rebuild | None) -> None:
    if not options.camera:
        sys.stderr.write(
            "motorvae-stream: --camera is missing: name a camera such as 0, a file, a URL, or "
            "synthetic\n"
        )
        raise SystemExit(2)
    from .stream.run import stream  # noqa: PLC0415  # --help needs none of it

    stream(options, rebuild)


def _encode(options: EncodeOptions, rebuild: Rebuild | None) -> None:
    check_npz(options.output)
    check_batch_size(options.batch_size)
    console = stderr_console()
    bundle = load_bundle(options.model, hash_all=False)
    choice = select_engine(bundle, "encoder", options.engine, rebuild)
    with (
        choice.backend as backend,
        open_source(options.data, CaptureRequest(spec=bundle.spec)) as source,
        Progress(console=console) as progress,
    ):
        console.print(f"{source.name} -> {choice.chosen} -> {options.output}{choice.remarks}")
        print_remarks(console, bundle.folder, bundle.manifest.remarks)
        known = len(backend.notes)
        task = progress.add_task("encoding", total=source.expected)
        encoded = encode_source(
            source,
            backend,
            bundle.spec,
            batch_size=options.batch_size,
            progress=lambda: progress.advance(task),
        )
    for note in choice.backend.notes[known:]:
        console.print(note)
    encoded.save(options.output)
    console.print(f"{len(encoded.names)} latents of {source.name} in {options.output}")
    for gap in encoded.gaps:
        console.print(f"skipped {gap.name or gap.index}: {gap.reason}", style="yellow")
    if encoded.gaps:
        raise SourceError(
            f"{len(encoded.gaps)} of {len(encoded.names) + len(encoded.gaps)} did not decode "
            f"and have no latent; the others are in {options.output}"
        )
