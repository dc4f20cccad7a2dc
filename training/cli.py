"""motorvae-train: parse, check what was asked, train, and say what to do next."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial

from ..runtime.core.command import (
    INTERRUPTED,
    parsed_options,
    positional_from_options,
    run_command,
    stderr_console,
)
from ..runtime.core.errors import ConfigError, missing_dependency
from .openmp import let_idle_threads_sleep
from .options import GOAL, TrainOptions, resume_command, spec_from_train_options

_PROG = "motorvae-train"
_DESCRIPTION = "Train a VAE on a folder of images, a video, or built-in vehicles."


def main(args: Sequence[str] | None = None) -> int:
    """Run `motorvae-train` and return its exit code (130 after Ctrl-C)."""
    given = list(sys.argv[1:] if args is None else args)
    return run_command(
        TrainOptions,
        partial(_train, given),
        prog=_PROG,
        description=_DESCRIPTION,
        args=given,
        positional=("--data",),
        hints={
            "--device": "--accelerator (cpu, gpu) and --devices (0,1) choose where to train",
        },
    )


def _train(args: Sequence[str], options: TrainOptions) -> int:
    spec_from_train_options(options)  # refuses before the seconds that loading torch takes
    let_idle_threads_sleep()
    console = stderr_console()
    try:
        with console.status("loading torch"):
            from .report import report  # noqa: PLC0415  # the rest works without torch
            from .train import options_to_resume, train  # noqa: PLC0415
    except ModuleNotFoundError as error:
        package = (error.name or "torch").partition(".")[0]
        raise missing_dependency("training", package, extra="train") from error
    if options.resume is not None:
        options = _with_new_goal(args, options_to_resume(options.resume))
    outcome = train(options, new_goal=True)
    if not outcome.leads:
        return 0
    if outcome.finished:
        report(console, outcome)
        return 0
    resume = resume_command(outcome.folder)
    keep = f", or keep what it has learned: {resume} --finish" if outcome.steps else ""
    console.print(
        f"{_PROG}: interrupted after {outcome.steps} of {outcome.plan.steps} steps; "
        f"continue with: {resume}{keep}"
    )
    return INTERRUPTED


def _with_new_goal(args: Sequence[str], saved: TrainOptions) -> TrainOptions:
    """Return the options of a run to resume, with the goal that was given beside `--resume`.

    Raises:
        ConfigError: Something else was given that differs from what the run was started with.
    """
    args = positional_from_options(args, ("--data",))
    given = parsed_options(TrainOptions, args, prog=_PROG, default=saved)
    for field in fields(TrainOptions):
        asked, before = getattr(given, field.name), getattr(saved, field.name)
        if field.name not in {"resume", "finish", *GOAL} and asked != before:
            flag = f"--{field.name.replace('_', '-')}"
            raise ConfigError(
                f"{flag}={asked} contradicts the run to resume, which has {before}: "
                f"leave {flag} out, or start a new run"
            )
    if given.epochs != saved.epochs and given.steps is not None and given.steps == saved.steps:
        raise ConfigError(
            f"--epochs={given.epochs} only shares out the --steps={given.steps} of this run "
            "between its stages: give --steps, too"
        )
    return given
