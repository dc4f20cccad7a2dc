"""From options to a finished run: prepare, hand over to Lightning's Trainer, complete."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.callbacks import Callback, LambdaCallback
from rich.console import Console
from rich.progress import TimeRemainingColumn

from ..runtime.core.command import print_sentence, stderr_console
from ..runtime.core.documents import save_document
from ..runtime.core.errors import (
    CheckpointError,
    ConfigError,
    MotorVAEError,
    OutputError,
    UserCodeError,
    writing_output,
)
from ..runtime.core.lifecycle import interrupts_deferred
from ..runtime.core.packages import OPENCV_PACKAGES, versions_of
from ..runtime.core.spec import ModelSpec
from ..runtime.core.system.locks import output_locked
from ..runtime.core.system.renames import rename_new
from ..runtime.core.system.temporaries import sweep, temporary_beside
from .checkpoint import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    DataSummary,
    RunConfig,
    config_from_run,
    save_weights,
)
from .dataset import DataRequest, DataSet, data_from_cache, kind_of_data, prepare_data
from .hardware import (
    ThreadTrials,
    keep_freed_memory,
    layout_of,
    precision_from_options,
    release_freed_memory,
    threads_by_trial,
    threads_restored,
)
from .interrupt import StopRequest
from .loop.callbacks import EpochReport, progress_bar
from .loop.module import EpochRow, Interrupted, VAETraining
from .loop.recipes import check_recipe
from .loop.resume_file import RESUME_NAME, steps_saved, unusable
from .loop.schedule import Plan, Schedule
from .options import GOAL, TrainOptions, resume_command, spec_from_train_options
from .pretrained.folder import START_NAME, Pretrained, begin_from, pretrained_for
from .run_folder import (
    CACHE_NAME,
    Finished,
    complete_run,
    finish_run,
    new_run_folder,
    point_latest_at,
    remove_needed_until_then,
)
from .setup.loggers import LoggerDuties, Make, loggers_for_run, makers_of_loggers
from .setup.trainer import trainer_from_options
from .setup.user_callbacks import callbacks_from_names

RUN_VARIABLE = "MOTORVAE_RUN"
"""Names the run for the processes that Lightning starts for further devices."""
_PACKAGES = ("motorvae", "torch", "lightning", "numpy", *OPENCV_PACKAGES, "safetensors")
_WAIT_S = 3600.0


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
    """
    console = stderr_console()
    spec = spec_from_train_options(options)
    for name in ("lightning.pytorch", "lightning.fabric"):  # tips and inventories; warnings stay
        logging.getLogger(name).setLevel(logging.WARNING)
    user = FromUser(makers_of_loggers(options.logger), callbacks_from_names(options.callback))
    machine = trainer_from_options(options)
    leads = machine.global_rank == 0
    with contextlib.ExitStack() as stack:
        if options.resume is not None:
            folder = options.resume.resolve()
            if leads:
                stack.enter_context(output_locked(folder))
                config = config_from_run(folder)
                changed = replace(config.options, **{name: getattr(options, name) for name in GOAL})
                if changed != config.options:
                    config = config.model_copy(update={"options": changed})
                    save_document(folder / CONFIG_NAME, config, indent=2)
        else:
            check_recipe(options)
            kind_of_data(options.data)
            if leads:
                start = pretrained_for(options)
                folder = stack.enter_context(new_run_folder(options))
                _prepare_run(folder, options, spec, machine=machine, console=console, start=start)
            else:
                folder = _joined_run(options)
        if leads:
            point_latest_at(folder)
            os.environ[RUN_VARIABLE] = str(folder.resolve())
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


def _prepare_run(
    folder: Path,
    options: TrainOptions,
    spec: ModelSpec,
    *,
    machine: Trainer,
    console: Console,
    start: Pretrained | None,
) -> None:
    """Make a new run's folder with its images and config, or leave nothing."""
    with writing_output(folder), temporary_beside(folder) as made:
        made.mkdir()
        with progress_bar(console, TimeRemainingColumn()) as bar:
            task = bar.add_task("preparing images", total=None)
            prepare_data(
                _request_of(options),
                spec,
                made / CACHE_NAME,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
                warn=lambda line: console.print(f"warning: {line}"),
            )
        data = data_from_cache(made / CACHE_NAME)
        config = RunConfig(
            started=dt.datetime.now().astimezone().isoformat(timespec="seconds"),
            model=spec,
            options=replace(options, batch_size=_plan(options, spec, data, machine).batch_size),
            data=DataSummary.of(options.data, data),
            precision=precision_from_options(
                options.precision,
                on_cuda=isinstance(machine.accelerator, CUDAAccelerator),
                on_cpu=isinstance(machine.accelerator, CPUAccelerator),
            ),
            versions={"python": platform.python_version()} | versions_of(_PACKAGES),
            origin=start and start.origin,
        )
        if start is not None:
            save_weights(made / CACHE_NAME, start.weights, START_NAME)
        save_document(made / CONFIG_NAME, config, indent=2)
        rename_new(made, folder)


def _request_of(options: TrainOptions) -> DataRequest:
    """Return what the options say of the images."""
    names = [one.name for one in fields(DataRequest) if one.name != "option"]
    return DataRequest(**{name: getattr(options, name) for name in names})


def _plan(options: TrainOptions, spec: ModelSpec, data: DataSet, machine: Trainer) -> Plan:
    least = 2 if spec.feature_shape == (1, 1) else 1
    plan = Plan(options, len(data.train), len(data.held_out), machine.world_size, least)
    plan.check()
    return plan


def _joined_run(options: TrainOptions) -> Path:
    """Return the folder of the run that the first rank prepares.

    A process that Lightning started finds it in its environment; one that a cluster started waits.
    """
    if (folder := os.environ.get(RUN_VARIABLE)) is not None:
        return Path(folder)
    if options.name is None:
        raise ConfigError("with several nodes or torchrun, --name must say where all ranks meet")
    config = options.output / options.name / CONFIG_NAME
    deadline = time.monotonic() + _WAIT_S
    while not config.exists():
        if time.monotonic() > deadline:
            raise ConfigError(
                f"{config.parent} was not prepared by the first rank: look at its output"
            )
        time.sleep(0.2)
    return config.parent


def _fit(
    folder: Path, options: TrainOptions, machine: Trainer, console: Console, user: FromUser
) -> Outcome:
    """Train until the goal is reached, time is up, or the user stops it.

    `options` are those given: the run's own, in its config, have a definite batch size.
    """
    stop, resume = StopRequest(console.print), folder / RESUME_NAME
    with stop.listening(), warnings.catch_warnings():
        # Lightning's own code triggers it, and no user can act on it.
        warnings.filterwarnings(
            "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
        )
        # A CSVLogger's, of a resumed run; see `LoggerDuties`.
        warnings.filterwarnings("ignore", "Experiment logs directory .* exists and is not empty")
        config = config_from_run(folder)
        data = data_from_cache(folder / CACHE_NAME)
        plan = _plan(config.options, config.model, data, machine)
        callbacks: list[Callback] = [EpochReport(folder, console), stop]
        keep_freed_memory()
        ranks = machine.world_size
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
        if machine.global_rank == 0:
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
            options, folder=folder, run=config, loggers=[*loggers.values()], callbacks=callbacks
        )
        module = VAETraining(
            config.model,
            Schedule(plan, finish=options.finish),
            data,
            layout=layout_of(config.precision),
            stop_asked=lambda: stop.asked,
            save=lambda: trainer.save_checkpoint(resume),
        )
        begin_from(folder / CACHE_NAME / START_NAME, module.model, module.kept_model)
        finished = _trained(trainer, module, folder)
    result = None
    if finished and trainer.is_global_zero:
        release_freed_memory()
        try:
            with console.status("measuring the training latents"):
                module.to(trainer.strategy.root_device)  # Lightning took it back to the CPU
                result = finish_run(folder, module)
            with interrupts_deferred():
                complete_run(folder, result)
        except KeyboardInterrupt:
            finished = (folder / WEIGHTS_NAME).exists()
    return Outcome(
        folder,
        plan,
        finished,
        steps=module.schedule.at.step if finished else steps_saved(folder),
        last=module.history[-1] if module.history else None,
        result=result,
        leads=trainer.is_global_zero,
        early=options.finish,
    )


def _trained(trainer: Trainer, module: VAETraining, folder: Path) -> bool:
    """Train from where the resume file is, if there is one; whether the goal was reached."""
    resume = folder / RESUME_NAME
    try:
        with _resumable(folder):
            trainer.fit(module, ckpt_path=resume if resume.exists() else None, weights_only=True)
    except Interrupted:
        return False
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
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
