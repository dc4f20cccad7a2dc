"""motorvae-train: parse, check what was asked, train, and say how it ended and what to do next."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.core.command import Command, stderr_console
from ..runtime.core.errors import ConfigError, needed_for, next_command
from ..runtime.core.lifecycle import INTERRUPTED, loading
from .loop.recipes import options_of_recipe
from .options import GOAL, PROCESSES, TrainOptions, resume_command, spec_from_train_options
from .setup.config_file import options_in_file, write_options

if TYPE_CHECKING:
    from .checkpoint import KeptWeights
    from .train import Outcome

OPENMP_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
"""Variables with which a user may have set how idle threads of OpenMP wait."""
_RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")
OVERFITTED = 0.01
"""Share by which the held-out total must have risen, and the training total fallen, to be called
overfitting; less is noise."""


def _train(options: TrainOptions, args: Sequence[str]) -> int:
    file = {} if options.config is None else options_in_file(options.config)
    again = _run_to_go_on_with(options)
    if again is not None:
        options = replace(options, resume=again)
    elif options.resume is None:
        options = _definite(args, file)
    elif options.config is not None or options.write_config is not None:
        raise ConfigError(
            "--config and --write-config are for a new run, and --resume goes on with the options "
            "of its own: leave them out"
        )
    spec_from_train_options(options)  # refuses before the seconds that loading torch takes
    if options.write_config is not None and options.pretrained is None:
        return _written(options, options.write_config)
    let_idle_threads_sleep()
    console = stderr_console()
    with needed_for("training", extra="train"), loading(), console.status("loading torch"):
        from .pretrained.folder import defaults_for_pretrained  # noqa: PLC0415  # as below
        from .setup.ranks import EndedElsewhereError, launch  # noqa: PLC0415  # as below
        from .train import options_to_resume, train  # noqa: PLC0415  # the rest works without
    if options.resume is not None:
        saved = options_to_resume(options.resume, finish=options.finish)
        options = _with_new_goal(args, saved, launched=launch() is not None)
    elif options.pretrained is not None:
        options = _definite(args, {**defaults_for_pretrained(options.pretrained), **file})
        if options.write_config is not None:
            return _written(options, options.write_config)
    try:
        outcome = train(options)
    except EndedElsewhereError as error:
        return error.exit_code
    if outcome.leads:
        for line in lines_of(outcome) if outcome.finished else lines_of_stopped(outcome):
            console.print(line)
    # The code of the first process is the run's.
    return 0 if outcome.finished or not outcome.leads else INTERRUPTED


def lines_of_stopped(outcome: Outcome) -> Iterator[str]:
    """Yield how a run was stopped and how to go on, in one line."""
    resume, steps = resume_command(outcome.folder), f"{outcome.steps} of {outcome.plan.steps} steps"
    if outcome.job is not None:
        yield (
            f"{main.prog}: saved after {steps}; SLURM was asked to run job {outcome.job} again, "
            f"which goes on; by hand: {resume}"
        )
        return
    keep = f", or keep what it has learned: {resume} --finish" if outcome.steps else ""
    yield f"{main.prog}: interrupted after {steps}; continue with: {resume}{keep}"


def _run_to_go_on_with(options: TrainOptions) -> Path | None:
    """Return the run of this command's name where it runs again; None where it is to begin.

    SLURM counts how often it has requeued a job (https://slurm.schedmd.com/sbatch.html,
    SLURM_RESTART_COUNT), and torchrun how often it has restarted its processes
    (https://docs.pytorch.org/docs/stable/elastic/run.html, TORCHELASTIC_RESTART_COUNT).
    """
    if options.name is None or options.resume is not None or options.write_config is not None:
        return None
    counts = [os.environ.get(name) or "0" for name in _RESTARTS]
    folder = options.output / options.name
    return folder if any(count != "0" for count in counts) and folder.is_dir() else None


def _definite(args: Sequence[str], given: Mapping[str, Any]) -> TrainOptions:
    """Return what a command line asks for; what it leaves out is as `given`, or as the recipe's."""
    asked: TrainOptions = main.parse(args, default=replace(TrainOptions(), **given))
    others = {name: value for name, value in given.items() if name != "recipe"}
    default = options_of_recipe(asked.recipe, **others)
    options: TrainOptions = main.parse(args, default=default)
    return replace(options, config=None)  # what was in it is in the options


def _written(options: TrainOptions, path: Path) -> int:
    write_options(replace(options, write_config=None), path)
    if str(path) != "-":
        again = next_command("motorvae-train", "--config", path)
        stderr_console().print(f"wrote {path}; train with it: {again}")
    return 0


def let_idle_threads_sleep() -> None:
    """Let OpenMP's idle threads sleep instead of spin; call this before torch is loaded.

    A spinning thread takes its core from the one that it waits for wherever other processes want
    the cores, too. Nothing is changed where the user has set how threads are to wait.
    """
    if not any(name in os.environ for name in OPENMP_WAITING):
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def _with_new_goal(
    args: Sequence[str], saved: TrainOptions, *, launched: bool = False
) -> TrainOptions:
    """Return the options of a run to resume, with the goal that was given beside `--resume`.

    Whatever else was given must be what the run was started with, or it is a ConfigError. Processes
    that are `launched` by torchrun or srun are as many as that says, not as the run had before.
    """
    if launched:
        saved = replace(saved, **{name: getattr(TrainOptions(), name) for name in PROCESSES})
    given: TrainOptions = main.parse(args, default=saved)
    for field in fields(TrainOptions):
        asked, before = getattr(given, field.name), getattr(saved, field.name)
        if field.name not in {"resume", "finish", "config", *GOAL} and asked != before:
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


def lines_of(outcome: Outcome) -> Iterator[str]:
    """Yield how a finished run ended and what to do next, a line each."""
    row, options = outcome.last, outcome.plan.options
    if row is not None:
        cut, stalled = "", _has_stalled(outcome)
        goal = outcome.plan.steps if outcome.early or stalled else options.steps or 0
        if row.steps < goal:
            why = "finished early" if outcome.early else f"as --minutes {options.minutes} were over"
            if stalled:
                why = f"as the held-out loss had not become smaller for {options.patience} epochs"
            cut = f" of {goal}, {why},"
        yield (
            f"trained {row.epoch} epochs, {row.steps} steps{cut} in {row.elapsed_s:.0f} s: "
            f"held-out reconstruction {row.held_out_reconstruction:.5g}, "
            f"KL {row.held_out_kl:.4g}, {row.active_units} active units"
        )
    if outcome.replaced:
        yield (
            f"warning: {outcome.replaced} images could not be read any more when it was their "
            "turn, and others took their place: metrics.csv says in which epochs"
        )
    export = next_command("motorvae-export", outcome.folder.parent / "latest", "--fp16")
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
                "warning: one held-out image cannot show whether this model has learned anything: "
                "give more images, or a larger --held-out"
            )
    yield f"wrote {outcome.folder}"
    if export:
        yield f"next: {export}"


def _has_stalled(outcome: Outcome) -> bool:
    """Return whether `--patience` ended a run."""
    patience, result = outcome.plan.options.patience, outcome.result
    if patience is None or result is None or outcome.early:
        return False
    return result.kept.last.epoch - result.kept.best.epoch >= patience


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


main = Command(
    TrainOptions,
    _train,
    "Train a VAE on a folder of images, a video, or built-in vehicles.",
    prog="motorvae-train",
    positional=("--data",),
    hints={"--device": "--accelerator (cpu, gpu) and --devices (0,1) choose where to train"},
)
"""The command; 130 after Ctrl-C."""
