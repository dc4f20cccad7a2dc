"""What is said when a run has ended: its losses, overfitting, and having learned too little."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.console import Console

from ..runtime.core.errors import next_command
from .checkpoint import KeptWeights

if TYPE_CHECKING:
    from .train import Outcome

OVERFITTED = 0.01
"""Share by which the held-out total must have risen, and the training total fallen, to be called
overfitting; less is noise."""


def report(console: Console, outcome: Outcome) -> None:
    """Print how a finished run ended, and what to do next."""
    for line in lines_of(outcome):
        console.print(line)


def lines_of(outcome: Outcome) -> Iterator[str]:
    """Yield what is to be said of a finished run, a line each."""
    row, options = outcome.last, outcome.plan.options
    if row is not None:
        cut = ""
        goal = outcome.plan.steps if outcome.early else options.steps or 0
        if row.steps < goal:
            why = "finished early" if outcome.early else f"as --minutes {options.minutes} were over"
            cut = f" of {goal}, {why},"
        yield (
            f"trained {row.epoch} epochs, {row.steps} steps{cut} in {row.elapsed_s:.0f} s: "
            f"held-out reconstruction {row.held_out_reconstruction:.5g}, "
            f"KL {row.held_out_kl:.4g}, {row.active_units} active units"
        )
    latest = outcome.folder.parent / "latest"
    export = next_command("motorvae-export", latest, "--fp16")
    if outcome.result is not None:
        if overfitted := overfitting(outcome.result.kept):
            yield overfitted
        if problem := outcome.result.learned.sentence():
            yield (
                f"warning: this model has learned too little: {problem}; motorvae-export refuses "
                "it without --anyway"
            )
            export = ""
        elif outcome.plan.held_out == 1:
            yield (
                "warning: one held-out image cannot tell whether this model has learned anything: "
                "give more images, or a larger --held-out"
            )
    yield f"wrote {outcome.folder}"
    if export:
        yield f"next: {export}"


def overfitting(kept: KeptWeights) -> str | None:
    """Return that a run overfitted, with both epochs and the difference; None where it did not."""
    best, last = kept.best, kept.last
    rise = last.held_out_total / best.held_out_total - 1 if best.held_out_total > 0 else 0.0
    if rise < OVERFITTED or last.train_total > (1 - OVERFITTED) * best.train_total:
        return None
    return (
        f"overfitting: from epoch {best.epoch} to epoch {last.epoch} the held-out total rose by "
        f"{rise:.1%}, from {best.held_out_total:.5g} to {last.held_out_total:.5g}, while the "
        f"training total fell from {best.train_total:.5g} to {last.train_total:.5g}; "
        f"motorvae-export takes epoch {best.epoch}, or the last with --weights last"
    )
