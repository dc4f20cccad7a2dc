"""What motorvae-stream shows on a terminal: the first lines, and what the run came to."""

from __future__ import annotations

from rich.console import Console

from ..bundle.load import Bundle
from ..core.command import print_remarks
from ..core.latency import table_of
from .run import Stream
from .stats import StreamSummary


def print_start(console: Console, bundle: Bundle, stream: Stream) -> None:
    """Print what goes where, and what to know of it."""
    targets = ", ".join(stream.outputs)
    notes = "".join(f"; {note}" for note in stream.notes)
    console.print(f"{', '.join(stream.cameras)} -> {stream.engine} -> {targets}{notes}")
    print_remarks(console, bundle.folder, bundle.manifest.remarks)
    for name, kept in stream.set_aside:
        console.print(f"the earlier {name} is kept as {kept}")


def print_summary(console: Console, stream: Stream, summary: StreamSummary) -> None:
    """Print counts, outputs and the table of stages."""
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
        console.print(table_of(summary.stages))


def _unusual(summary: StreamSummary) -> list[tuple[int, str]]:
    return [
        (summary.stale, "stale"),
        (summary.unread, "unread at the end"),
        (summary.duplicates, "duplicates"),
        (summary.ood, "out of distribution"),
    ]
