"""What motorvae-stream shows on a terminal: the first lines, and what the run came to."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator

from rich.console import Console
from rich.live import Live
from rich.text import Text

from ..bundle.load import Bundle
from ..core.command import print_remarks, print_sentence
from ..core.latency import latency_table
from ..sinks.base import STANDARD_OUTPUT
from .options import StreamOptions
from .run import Stream
from .stats import StreamSummary

REFRESHES_PER_S = 2
_RATED = 6
"""Refreshes over which the rate is taken."""


class StatusLine:
    """What a stream does now, in a line of at most 80 characters.

    Args:
        stream: Whose counts are shown; read from another thread.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._began_s = time.monotonic()
        self._counted: deque[tuple[float, int]] = deque(maxlen=_RATED)

    def __rich__(self) -> Text:
        stats, now_s = self._stream.stats, time.monotonic()
        self._counted.append((now_s, stats.frames))
        seconds = now_s - self._began_s
        if stats.age_ms is None:
            return Text(f"{seconds:.0f} s: waiting for the first frame; Ctrl-C ends it")
        since_s, frames = self._counted[0]
        rate = (stats.frames - frames) / (now_s - since_s) if now_s > since_s else 0.0
        parts = [
            f"{seconds:.0f} s: {stats.frames}{self._of(rate)} latents",
            f"{rate:.1f} fps",
            f"age {stats.age_ms:.1f} ms",
            f"{stats.total('dropped')} dropped",
            f"{stats.total('lost')} lost",
            *(f"{stale} stale" for stale in [stats.total("stale")] if stale),
        ]
        return Text(", ".join(parts), style="yellow" if len(self._counted) > 1 and not rate else "")

    def _of(self, rate: float) -> str:
        expected = self._stream.expected
        if expected is None:
            return ""
        left = max(0, expected - self._stream.stats.frames)
        return f" of {expected} ({left / rate:.0f} s left)" if rate else f" of {expected}"


@contextlib.contextmanager
def live_status(console: Console, stream: Stream, options: StreamOptions) -> Iterator[None]:
    """Show the status line within the block, where a person looks and no row would meet it."""
    rows_on_screen = STANDARD_OUTPUT in options.outputs and sys.stdout.isatty()
    if not console.is_terminal or rows_on_screen:
        yield
        return
    line = StatusLine(stream)
    with Live(
        get_renderable=line.__rich__,
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def print_start(console: Console, bundle: Bundle, stream: Stream) -> None:
    """Print what goes where, and what to know of it."""
    targets = ", ".join(stream.outputs)
    notes = "".join(f"; {note}" for note in stream.notes)
    print_sentence(console, f"{', '.join(stream.cameras)} -> {stream.engine} -> {targets}{notes}")
    print_remarks(console, bundle.folder, bundle.manifest.remarks)
    for name, kept in stream.set_aside:
        console.print(f"the earlier {name} is kept as {kept}")


def print_summary(console: Console, stream: Stream) -> None:
    """Print counts, outputs and the table of stages of a stream that has ended."""
    summary = stream.summary
    assert summary is not None  # noqa: S101  # for the type checker
    rate = f"{summary.fps:.1f} fps" if summary.fps else "no rate"
    counts = [
        f"{summary.frames} latents",
        f"{summary.dropped} dropped",
        f"{summary.lost} lost",
        *(f"{count} {what}" for count, what in _unusual(summary) if count),
        rate,
    ]
    console.print(", ".join(counts))
    for report in stream.reports:
        unwritten = f", {report.dropped} not taken" if report.dropped else ""
        console.print(f"{report.rows} rows in {report.name}{unwritten}")
    if summary.stages:
        console.print(latency_table(summary.stages))


def _unusual(summary: StreamSummary) -> list[tuple[int, str]]:
    return [
        (summary.stale, "stale"),
        (summary.unread, "unread at the end"),
        (summary.duplicates, "duplicates"),
        (summary.ood, "out of distribution"),
    ]
