"""motorvae-stream, and what it shows on a terminal."""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from .bundle.load import Bundle, load_bundle
from .core.command import Command, print_remarks, print_sentence, stderr_console
from .core.errors import UsageError
from .core.lifecycle import loading, stopping_on_signals
from .sinks.base import STANDARD_OUTPUT
from .stream.options import StreamOptions, check_stream_options

if TYPE_CHECKING:
    from rich.table import Table

    from .engines.select import Rebuild
    from .stream.run import Stream
    from .stream.stats import Percentiles, StreamSummary


def _stream(options: StreamOptions, *_: object, rebuild: Rebuild | None = None) -> None:
    if not options.camera:
        raise UsageError("no camera: name one such as 0, a file, a URL, or synthetic")
    check_stream_options(options)
    console = stderr_console()
    bundle = load_bundle(options.model, hash_all=False)
    # Building an engine again says itself what it does.
    waiting = console.status("opening the encoder and the camera")
    with contextlib.nullcontext() if options.engine.rebuild else waiting:
        opened = _opened_stream(bundle, options, rebuild)
    with opened as stream, stopping_on_signals(stream.stop):
        parts = (", ".join(stream.cameras), stream.engine, ", ".join(stream.outputs))
        print_sentence(console, "; ".join([" -> ".join(parts), *stream.notes]))
        print_remarks(console, bundle.folder, bundle.manifest.remarks)
        for name, kept in stream.set_aside:
            console.print(f"the earlier {name} is kept as {kept}")
        # Everything that stays is there by now: no collection needs to look at it.
        gc.freeze()
        gc.enable()  # the script begins without it
        try:
            with _live_status(console, stream, options):
                while stream.summary is None:
                    next(stream)
            _print_summary(console, stream, stream.summary)
            next(stream, None)  # raises what failed for good
        finally:
            gc.unfreeze()


def _opened_stream(bundle: Bundle, options: StreamOptions, rebuild: Rebuild | None) -> Stream:
    """Open a stream; an encoder that needs no GPU is opened while the rest is still loaded."""
    with loading():
        from .stream.opening import EncoderOpening, opens_beside  # noqa: PLC0415  # not for --help
    with contextlib.ExitStack() as stack:
        opening = None
        if opens_beside(options):
            specs = [options.source_spec(text) for text in options.camera]
            opening = stack.enter_context(EncoderOpening(bundle, options, specs, rebuild))
        with loading():
            from .stream.run import Stream  # noqa: PLC0415  # as above, beside the encoder
        stream = Stream(bundle, options, outputs=options.outputs, rebuild=rebuild, opening=opening)
        stack.pop_all()  # it is the stream's by now
    return stream


class StatusLine:
    """What a stream does now, in a line of at most 80 characters; made in a thread of its own."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._began_s = time.monotonic()
        # At each refresh; the rate is taken over six.
        self._counted: deque[tuple[float, int]] = deque(maxlen=6)

    def __rich__(self) -> Text:
        stats, now_s = self._stream.stats, time.monotonic()
        total, expected = stats.total, self._stream.expected
        self._counted.append((now_s, total.frames))
        seconds = now_s - self._began_s
        if stats.age_ms is None and not stats.handled:
            return Text(f"{seconds:.0f} s: waiting for the first frame; Ctrl-C ends it")
        since_s, frames = self._counted[0]
        rate = (total.frames - frames) / (now_s - since_s) if now_s > since_s else 0.0
        of = "" if expected is None else f" of {expected}"
        if expected is not None and rate:
            of += f" ({max(0, expected - stats.handled) / rate:.0f} s left)"
        parts = [
            f"{seconds:.0f} s: {total.frames}{of} latents",
            f"{rate:.1f} fps",
            *([] if stats.age_ms is None else [f"age {stats.age_ms:.1f} ms"]),
            f"{total.dropped} dropped",
            f"{total.lost} lost",
            *([f"{total.stale} stale"] if total.stale else []),
        ]
        return Text(", ".join(parts), style="yellow" if len(self._counted) > 1 and not rate else "")


def _live_status(
    console: Console, stream: Stream, options: StreamOptions
) -> contextlib.AbstractContextManager[object]:
    """Show the status line within a block, where a person looks and no row would meet it."""
    rows_on_screen = STANDARD_OUTPUT in options.outputs and sys.stdout.isatty()
    if not console.is_terminal or rows_on_screen:
        return contextlib.nullcontext()
    from rich.live import Live  # noqa: PLC0415  # on a terminal alone

    return Live(
        get_renderable=StatusLine(stream).__rich__,
        console=console,
        refresh_per_second=2,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _print_summary(console: Console, stream: Stream, summary: StreamSummary) -> None:
    """Print counts, outputs and the table of stages of a stream that has ended."""
    unusual = {
        "stale": summary.stale,
        "unread at the end": summary.unread,
        "duplicates": summary.duplicates,
        "out of distribution": summary.ood,
    }
    counts = [
        f"{summary.frames} latents",
        f"{summary.dropped} dropped",
        f"{summary.lost} lost",
        *(f"{count} {what}" for what, count in unusual.items() if count),
        f"{summary.fps:.1f} fps" if summary.fps else "no rate",
    ]
    console.print(", ".join(counts))
    for line in stream.remarks:
        console.print(line, style="yellow")
    for report in stream.reports:
        unwritten = f", {report.dropped} not taken" if report.dropped else ""
        console.print(f"{report.rows} rows in {report.name}{unwritten}")
    if summary.stages:
        console.print(latency_table(summary.stages))


def latency_table(stages: Mapping[str, Percentiles]) -> Table:
    """Return a table of stages in milliseconds."""
    from rich.table import Table  # noqa: PLC0415  # at the end of a stream

    table = Table("stage")
    figures = ("p50", "p95", "p99", "max")
    for figure in figures:
        table.add_column(f"{figure} ms", justify="right")
    for stage, found in stages.items():
        table.add_row(stage, *(f"{getattr(found, figure):.2f}" for figure in figures))
    return table


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
"""It cannot `--rebuild` an engine; `motorvae.commands` gives it the function that does."""
