"""motorvae-stream and motorvae-encode."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import tyro
from rich.console import Console
from rich.progress import Progress

from .bundle import Bundle, Precision, load_bundle
from .camera import open_source
from .choice import BackendName, Choice, Wish, choose_backend
from .command import run_command, stderr_console
from .encode import check_batch_size, check_npz, encode_source
from .errors import ConfigError, SourceError
from .pipeline import LatentStream, StreamSummary
from .sinks import JsonLinesSink, check_output
from .source import CaptureThread, FrameSource, Paced
from .timing import table_of

FRAMES_WAITING = 64
"""How many frames of a live source may wait under the policy `every`."""


@dataclass(frozen=True)
class StreamOptions:
    """Options of motorvae-stream."""

    camera: str
    """Where frames come from: a device index such as 0, a device path, a video file, an image
    folder, an http or rtsp URL, or synthetic."""
    model: Path = Path("bundle")
    """The bundle that motorvae-export wrote."""
    output: str = "latents.jsonl"
    """Where rows go: a .jsonl file (an earlier one is kept under a number), or - for stdout."""
    max_frames: int | None = None
    """Stop after this many latents."""
    policy: Literal["latest", "every"] | None = None
    """latest: encode the newest frame and drop those it overtook, so age stays low.
    every: encode all frames in order; behind a live source up to 64 wait and grow older, and
    those pushed out by newer ones count as dropped.
    By default latest for live sources and every for recordings."""
    realtime: bool = False
    """Play a recording at its own frame rate, as a camera would deliver it."""
    backend: BackendName = "auto"
    """auto: the first that fits of a TensorRT engine, a TensorRT-RTX engine, ONNX Runtime on the
    GPU, ONNX Runtime on the CPU; the first line says which, and why not those before it."""
    rebuild: bool = False
    """Build the engine again where it was built for another machine."""
    no_cuda_graph: bool = False
    """Start an engine's copies and kernels one by one. By default they are recorded once as a CUDA
    graph; a line says so where that is not possible."""
    precision: Precision | None = None
    """Which of the bundle's encoders to run; by default fp16 for engines and fp32 otherwise."""
    provider: str | None = None
    """Run ONNX Runtime on this provider: cpu, cuda, tensorrt, or a full name; it is never replaced
    silently."""
    threads: int | None = None
    """Threads of one run of ONNX Runtime; by default its choice."""


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
    backend: BackendName = "auto"
    """auto: the first that fits of a TensorRT engine, a TensorRT-RTX engine, ONNX Runtime on the
    GPU, ONNX Runtime on the CPU; the first line says which, and why not those before it."""
    rebuild: bool = False
    """Build the engine again where it was built for another machine."""
    no_cuda_graph: bool = False
    """Start an engine's copies and kernels one by one. By default they are recorded once as a CUDA
    graph; a line says so where that is not possible."""
    precision: Precision | None = None
    """Which of the bundle's encoders to run; by default fp16 for engines and fp32 otherwise."""
    provider: str | None = None
    """Run ONNX Runtime on this provider: cpu, cuda, tensorrt, or a full name; it is never replaced
    silently."""
    threads: int | None = None
    """Threads of one run of ONNX Runtime; by default its choice."""


def stream_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-stream; return its exit code."""
    return run_command(
        StreamOptions,
        _stream,
        prog="motorvae-stream",
        description="Stream a camera, video or folder through the encoder to latent rows.",
        args=args,
    )


def encode_main(args: Sequence[str] | None = None) -> int:
    """Run motorvae-encode; return its exit code."""
    return run_command(
        EncodeOptions,
        _encode,
        prog="motorvae-encode",
        description="Encode a folder of images or a video to one .npz file.",
        args=args,
    )


def _stream(options: StreamOptions) -> None:
    if options.max_frames is not None and options.max_frames < 1:
        raise ConfigError(f"max_frames={options.max_frames}: take 1 or more, or leave it out")
    check_output(options.output)
    console = stderr_console()
    bundle = load_bundle(options.model)
    choice = _chosen(options, bundle)
    with choice.backend as backend:
        stream = LatentStream(backend, bundle.spec)
        with _opened(options) as source, JsonLinesSink(options.output) as sink:
            console.print(f"{source.name} -> {choice.chosen} -> {sink.name}{choice.remarks}")
            if sink.set_aside_as:
                console.print(f"the earlier {sink.name} is kept as {sink.set_aside_as}")
            stop = threading.Event()
            _stop_on_signals(stop, source)
            summary = stream.run(source, sink, max_frames=options.max_frames, stop=stop)
            _print_summary(console, summary, sink)
            if not (summary.frames or summary.lost or stop.is_set()):
                raise SourceError(f"{source.name} holds no frame: name another source")
            if summary.failure:
                raise SourceError(summary.failure)
            if summary.lost:
                raise SourceError(
                    f"{source.name}: frames lost: {summary.lost}, each with its reason in a row of "
                    "status lost; the other rows are valid: repair the source and run again"
                )


def _chosen(options: StreamOptions | EncodeOptions, bundle: Bundle) -> Choice:
    """Open the encoder that the options wish for."""
    wish = Wish(
        backend=options.backend,
        precision=options.precision,
        provider=options.provider,
        threads=options.threads,
        cuda_graph=not options.no_cuda_graph,
        rebuild=options.rebuild,
    )
    return choose_backend(bundle, "encoder", wish)


def _opened(options: StreamOptions) -> FrameSource:
    """Open the source and give it the pace and policy asked for."""
    source = open_source(options.camera)
    if options.realtime and not source.live:
        source = Paced(source)
    policy = options.policy or ("latest" if source.live else "every")
    if policy == "every" and not source.live:
        return source
    return CaptureThread(source, keep=1 if policy == "latest" else FRAMES_WAITING)


def _stop_on_signals(stop: threading.Event, source: FrameSource) -> None:
    """End cleanly on the first SIGINT or SIGTERM, and at once on the second."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        source.interrupt()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, handle)
        signal.signal(signal.SIGTERM, handle)


def _print_summary(console: Console, summary: StreamSummary, sink: JsonLinesSink) -> None:
    rate = f"{summary.fps:.1f} fps" if summary.fps else "no rate"
    console.print(
        f"{summary.frames} latents, {summary.dropped} dropped, {summary.lost} lost, {rate}; "
        f"{sink.rows} rows in {sink.name}"
    )
    if summary.stages:
        console.print(table_of(summary.stages))


def _encode(options: EncodeOptions) -> None:
    check_npz(options.output)
    check_batch_size(options.batch_size)
    console = stderr_console()
    bundle = load_bundle(options.model)
    choice = _chosen(options, bundle)
    with (
        choice.backend as backend,
        open_source(options.data) as source,
        Progress(console=console) as progress,
    ):
        console.print(f"{source.name} -> {choice.chosen} -> {options.output}{choice.remarks}")
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
