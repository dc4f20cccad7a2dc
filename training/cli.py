"""motorvae-train: parse, check what was asked, train, and say what to do next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING

import tyro
from rich.console import Console

from ..runtime.command import INTERRUPTED, run_command, stderr_console
from ..runtime.errors import ConfigError, missing_dependency
from .options import TrainOptions, spec_from_train_options

if TYPE_CHECKING:
    from .train import Outcome

_PROG = "motorvae-train"
_DESCRIPTION = (
    "Train a VAE on a folder of images, a video, or built-in vehicles. Everything a run needs "
    "is kept in its folder; runs/latest leads to the newest."
)


def main(args: Sequence[str] | None = None) -> int:
    """Run `motorvae-train` and return its exit code (130 after Ctrl-C)."""
    given = list(sys.argv[1:] if args is None else args)
    return run_command(
        TrainOptions, partial(_train, given), prog=_PROG, description=_DESCRIPTION, args=given
    )


def _train(args: Sequence[str], options: TrainOptions) -> int:
    spec_from_train_options(options)  # refuses before the seconds that loading torch takes
    try:
        from .train import options_to_resume, train  # noqa: PLC0415  # the rest works without torch
    except ModuleNotFoundError as error:
        package = (error.name or "torch").partition(".")[0]
        raise missing_dependency("training", package, extra="train") from error
    if options.resume is not None:
        _refuse_contradictions(args, options_to_resume(options.resume))
    outcome = train(options)
    if not outcome.leads:
        return 0
    console = stderr_console()
    if outcome.finished:
        _report(console, outcome)
        return 0
    console.print(
        f"{_PROG}: interrupted; continue with: {_PROG} --resume {outcome.folder}",
        markup=False,
        soft_wrap=True,
    )
    return INTERRUPTED


def _refuse_contradictions(args: Sequence[str], saved: TrainOptions) -> None:
    """Compare what was given beside `--resume` with what the run was started with.

    Raises:
        ConfigError: They differ.
    """
    given = tyro.cli(TrainOptions, args=args, default=saved, prog=_PROG)
    for field in fields(TrainOptions):
        asked, before = getattr(given, field.name), getattr(saved, field.name)
        if field.name != "resume" and asked != before:
            flag = f"--{field.name.replace('_', '-')}"
            raise ConfigError(
                f"{flag}={asked} contradicts the run to resume, which has {before}: "
                f"leave {flag} out, or start a new run"
            )


def _report(console: Console, outcome: Outcome) -> None:
    row = outcome.last
    if row is not None:
        console.print(
            f"trained {row.epoch} epochs, {row.steps} steps in {row.elapsed_s:.0f} s: held-out "
            f"reconstruction {row.held_out_reconstruction:.5g}, KL {row.held_out_kl:.4g}, "
            f"{row.active_units} active units",
            soft_wrap=True,
        )
    console.print(f"wrote {outcome.folder}", markup=False, soft_wrap=True)
    latest = outcome.folder.parent / "latest"
    console.print(
        f"next: motorvae-export --checkpoint {latest} --fp16", markup=False, soft_wrap=True
    )
