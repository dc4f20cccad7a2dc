"""What motorvae-stream shows on a terminal: the first lines, and what the run came to."""

from __future__ import annotations

import contextlib
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..bundle.load import Bundle
from ..core.command import print_remarks, print_sentence
from ..sinks.base import STANDARD_OUTPUT
from .options import StreamOptions
from .run import Stream
from .stats import Percentiles

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


@contextlib.contextmanager
def live_status(console: Console, stream: Stream, options: StreamOptions) -> Iterator[None]:
    """Show the status line within the block, where a person looks and no row would meet it."""
    rows_on_screen = STANDARD_OUTPUT in options.outputs and sys.stdout.isatty()
    if not console.is_terminal or rows_on_screen:
        yield
        return
    with Live(
        get_renderable=StatusLine(stream).__rich__,
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    ):
        yield


def print_start(console: Console, bundle: Bundle, stream: Stream) -> None:
    """Print what goes where, and what to know of it."""
    parts = (", ".join(stream.cameras), stream.engine, ", ".join(stream.outputs))
    print_sentence(console, "; ".join([" -> ".join(parts), *stream.notes]))
    print_remarks(console, bundle.folder, bundle.manifest.remarks)
    for name, kept in stream.set_aside:
        console.print(f"the earlier {name} is kept as {kept}")


def print_summary(console: Console, stream: Stream) -> None:
    """Print counts, outputs and the table of stages of a stream that has ended."""
    summary = stream.summary
    assert summary is not None  # noqa: S101  # for the type checker
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
    for report in stream.reports:
        unwritten = f", {report.dropped} not taken" if report.dropped else ""
        console.print(f"{report.rows} rows in {report.name}{unwritten}")
    if summary.stages:
        console.print(latency_table(summary.stages))


def latency_table(stages: Mapping[str, Percentiles]) -> Table:
    """Return a table of stages in milliseconds."""
    table = Table("stage")
    for heading in ("p50 ms", "p95 ms", "p99 ms", "max ms"):
        table.add_column(heading, justify="right")
    for stage, found in stages.items():
        figures = (found.p50, found.p95, found.p99, found.max)
        table.add_row(stage, *(f"{figure:.2f}" for figure in figures))
    return table
