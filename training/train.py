"""From options to a finished run: prepare, hand over to Lightning's Trainer, complete."""

from __future__ import annotations

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.callbacks import Callback, LambdaCallback
from rich.console import Console

from ..runtime.core.command import print_sentence, stderr_console
from ..runtime.core.errors import (
    CheckpointError,
    MotorVAEError,
    OutputError,
    UserCodeError,
    writing_output,
)
from ..runtime.core.lifecycle import interrupts_deferred
from ..runtime.core.system.temporaries import sweep
from .checkpoint import (
    WEIGHTS_NAME,
    config_from_run,
)
from .dataset import data_from_cache
from .hardware import (
    ThreadTrials,
    keep_freed_memory,
    layout_of,
    release_freed_memory,
    threads_by_trial,
    threads_restored,
)
from .interrupt import Leaving
from .loop.callbacks import EpochReport
from .loop.module import EpochRow, Interrupted, VAETraining
from .loop.resume_file import RESUME_NAME, steps_saved, unusable
from .loop.schedule import Plan, Schedule
from .options import TrainOptions, resume_command, spec_from_train_options
from .pretrained.folder import START_NAME, begin_from
from .run_folder import (
    CACHE_NAME,
    Finished,
    complete_run,
    finish_run,
    remove_needed_until_then,
)
from .setup.loggers import LoggerDuties, Make, loggers_for_run, makers_of_loggers
from .setup.prepare import leading_run, plan_of
from .setup.ranks import LossOfRanks, Ranks, run_of_first, set_threads
from .setup.trainer import trainer_from_options
from .setup.user_callbacks import callbacks_from_names


@dataclass(frozen=True)
class Outcome:
    """What became of a run."""

    folder: Path  # the run's folder
    plan: Plan  # what was to be done
    finished: bool  # False where the user stopped it; it can be resumed
    steps: int  # optimizer steps in all; of a stopped run, those that its files have
    last: EpochRow | None  # the last epoch that was completed, if any was
    # what the run keeps; None on all ranks but the first, and where it has not finished
    result: Finished | None
    leads: bool  # this process is the one that writes and reports
    early: bool  # it was finished before its goal, as `--finish` asks for
    replaced: int = 0  # images that could not be read any more, over all epochs
    job: str | None = None  # of SLURM's, which runs it again


class FromUser(NamedTuple):
    """What was imported of the user's own, before anything is prepared."""

    loggers: Mapping[str, Make]
    callbacks: Sequence[Callback]


@threads_restored()
def train(options: TrainOptions) -> Outcome:
    """Train a new run, or go on with an interrupted one (see `options_to_resume`).

    Raises:
        ConfigError: An option is out of range, the hardware asked for is not here, or what was
            named of the user's own code cannot be imported.
        UserCodeError: A callback or a logger of the user's failed; the run can be resumed.
        SourceError: The data cannot be opened.
        DataError: There is nothing to learn from.
        CheckpointError: The run to resume cannot be.
        OutputError: The output cannot be written.
        EndedElsewhereError: Another process of the run has ended, or refused what is asked for.
    """
    console = stderr_console()
    spec = spec_from_train_options(options)
    for name in ("lightning.pytorch", "lightning.fabric"):  # tips and inventories; warnings stay
        logging.getLogger(name).setLevel(logging.WARNING)
    user = FromUser(makers_of_loggers(options.logger), callbacks_from_names(options.callback))
    machine = trainer_from_options(options)
    ranks = Ranks(machine)
    ranks.check_alike(options)
    with contextlib.ExitStack() as stack:
        if ranks.lead:
            found: list[Path] = []
            with ranks.told(found):
                folder = leading_run(options, spec, machine, console=console, stack=stack)
                found.append(folder.resolve())
        elif ranks.are_met:
            (folder,) = ranks.hear()
        else:
            folder = run_of_first(options) if options.resume is None else options.resume.resolve()
        ranks.check_seen(folder)
        return _fit(folder, options, machine, console, user)


def options_to_resume(run: Path, *, finish: bool = False) -> TrainOptions:
    """Return the options that continue an interrupted run; its goal (`options.GOAL`) may change.

    With `finish` it trains no further, and is completed with what it has learned so far.

    Raises:
        CheckpointError: There is no such run, it is finished, its images are gone, or it has
            learned nothing that could be kept.
    """
    folder = run.resolve()
    config = config_from_run(folder)
    if (folder / WEIGHTS_NAME).exists():
        with writing_output(folder):
            remove_needed_until_then(folder)
            sweep(folder)
        raise CheckpointError(f"{folder} is finished, nothing is left to resume: export it")
    if not (folder / CACHE_NAME).is_dir():
        raise CheckpointError(f"{folder} has lost its {CACHE_NAME} folder: start a new run")
    if finish and not (folder / RESUME_NAME).is_file():
        raise CheckpointError(
            f"{folder} has learned nothing that could be kept, it was stopped before its first "
            f"step was saved: go on with {resume_command(folder)}"
        )
    return replace(config.options, resume=run, finish=finish)


def _fit(
    folder: Path, options: TrainOptions, machine: Trainer, console: Console, user: FromUser
) -> Outcome:
    """Train until the goal is reached, time is up, or the user stops it.

    `options` are those given: the run's own, in its config, have a definite batch size.
    """
    ranks, leads, resume = machine.world_size, machine.global_rank == 0, folder / RESUME_NAME
    # The same command begins another run where it names none.
    requeues = options.name is not None or options.resume is not None
    leaving = Leaving(console.print, ranks=ranks, leads=leads, requeues=requeues)
    lost = LossOfRanks(folder, console, leads=leads)
    with leaving.stop.listening(), warnings.catch_warnings():
        # Lightning's own code triggers it, and no user can act on it.
        warnings.filterwarnings(
            "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
        )
        # A CSVLogger's, of a resumed run; see `LoggerDuties`.
        warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
        config = config_from_run(folder)
        whose = f"rank {machine.global_rank}: " if ranks > 1 else ""
        data = data_from_cache(
            folder / CACHE_NAME,
            workers=options.workers or max(1, (os.cpu_count() or 1) // machine.num_devices),
            warn=lambda line: console.print(f"warning: {whose}{line}"),
        )
        plan = plan_of(config, data, machine)
        callbacks: list[Callback] = [EpochReport(folder, console), leaving.stop, leaving.slurm]
        keep_freed_memory()
        how = f"on {ranks} {machine.strategy.root_device.type} device{'' if ranks == 1 else 's'}"
        if isinstance(machine.accelerator, CPUAccelerator) and ranks == 1:
            trial = partial(
                threads_by_trial,
                config.model,
                precision=config.precision,
                batch_size=plan.batch_size,
                asked=options.threads,
                optimizer=config.options.optimizer,
            )
            trials = ThreadTrials(trial, console.print)
            callbacks.append(LambdaCallback(on_train_batch_start=trials.try_again))
            with console.status("trying how many threads train faster"):
                chosen = trials.choose()
            plan, how = replace(plan, step_s=chosen.step_s), f"on {chosen.note}"
        elif ranks > 1:
            callbacks.append(LambdaCallback(on_fit_start=lambda *_: set_threads(options.threads)))
            if leads:
                lost.watch_children()
        if leads:
            skipped = f", {data.skipped} skipped" if data.skipped else ""
            console.print(
                f"{plan.train} training and {plan.held_out} held-out images{skipped}; "
                f"{config.precision} {how}; {folder}"
            )
            done, resumed = steps_saved(folder), options.resume is not None
            line = plan.announcement(asked=options.batch_size, done=done, resumed=resumed)
            finishing = "finishing with what was learned so far"
            print_sentence(console, finishing if options.finish else line)
        with _resumable(folder):
            loggers = loggers_for_run(user.loggers, folder, config)
        callbacks += [LoggerDuties(loggers, folder, config), *user.callbacks]
        trainer = trainer_from_options(
            options,
            folder=folder,
            run=config,
            loggers=[*loggers.values()],
            callbacks=callbacks,
            sync_batchnorm=ranks > 1 and isinstance(machine.accelerator, CUDAAccelerator),
        )
        module = VAETraining(
            config.model,
            Schedule(plan, finish=options.finish),
            data,
            layout=layout_of(config.precision, machine.strategy.root_device.type),
            stop_asked=lambda: leaving.asked,
            save=lambda: leaving.save(trainer, resume),
            requeue=lambda: leaving.requeue(trainer),
        )
        begin_from(folder / CACHE_NAME / START_NAME, module.model, module.kept_model)
        finished = _trained(trainer, module, folder, lost)
    result = None
    if finished and leads:
        with leaving.slurm.ignoring():
            result, finished = _completed(trainer, module, folder, console)
    return Outcome(
        folder,
        plan,
        finished,
        steps=module.schedule.at.step if finished else steps_saved(folder),
        last=module.history[-1] if module.history else None,
        result=result,
        leads=leads,
        early=options.finish,
        replaced=sum(row.replaced for row in module.history),
        job=leaving.job,
    )


def _completed(
    trainer: Trainer, module: VAETraining, folder: Path, console: Console
) -> tuple[Finished | None, bool]:
    """Write what a finished run keeps; whether that is done, or Ctrl-C came before."""
    release_freed_memory()
    result = None
    try:
        with console.status("measuring the training latents"):
            module.to(trainer.strategy.root_device)  # Lightning took it back to the CPU
            result = finish_run(folder, module)
        with interrupts_deferred():
            complete_run(folder, result)
    except KeyboardInterrupt:
        return result, (folder / WEIGHTS_NAME).exists()
    return result, True


def _trained(trainer: Trainer, module: VAETraining, folder: Path, lost: LossOfRanks) -> bool:
    """Train from where the resume file is, if there is one; whether the goal was reached."""
    resume = folder / RESUME_NAME
    try:
        with _resumable(folder):
            trainer.fit(module, ckpt_path=resume if resume.exists() else None, weights_only=True)
    except Interrupted:
        return False
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        if trainer.world_size > 1 and (ending := lost.error_for(error)):
            raise ending from error
        # What Lightning restores of a file is checked by nobody else.
        if isinstance(error, MotorVAEError) or module.has_begun or not resume.exists():
            raise
        raise unusable(resume, error) from error
    except (SystemExit, KeyboardInterrupt) as third:
        # A third Ctrl-C, which Lightning answers by leaving; the last epoch's file is there.
        if not resume.exists():
            raise KeyboardInterrupt from third
        return False
    return module.schedule.finished


@contextlib.contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say how to go on after what the user can mend."""
    try:
        yield
    except (OutputError, UserCodeError) as error:
        raise type(error)(f"{error}, then go on with {resume_command(folder)}") from error
