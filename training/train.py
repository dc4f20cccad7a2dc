"""From options to a finished run: prepare, hand over to Lightning's Trainer, complete."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import os
import platform
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from rich.console import Console

from ..runtime.core.command import print_sentence, stderr_console
from ..runtime.core.errors import CheckpointError, ConfigError, OutputError
from ..runtime.core.lifecycle import interrupts_deferred
from ..runtime.core.packages import OPENCV_PACKAGES, versions_of
from ..runtime.core.spec import ModelSpec
from .autotune_threads import ThreadTrials
from .checkpoint import WEIGHTS_NAME, DataSummary, RunConfig, config_from_run, save_config
from .data.batches import check_enough, least_batch
from .data.dataset import data_from_cache, kind_of_data, prepare_data
from .hardware import (
    keep_freed_memory,
    precision_from_options,
    prefers_channels_last,
    release_freed_memory,
    threads_restored,
)
from .interrupt import RESUME_NAME, StopRequest, WholeFileIO, steps_saved
from .loop.module import EpochRow, Interrupted, VAETraining
from .loop.progress import EpochBar, preparing
from .options import CARD_BATCH_SIZE, GOAL, TrainOptions, resume_command, spec_from_train_options
from .plan import Plan, batch_size_for
from .run_folder import (
    CACHE_NAME,
    Finished,
    RunFiles,
    complete_run,
    finish_run,
    new_run_folder,
    point_latest_at,
    remove_run_folder,
)

RUN_VARIABLE = "MOTORVAE_RUN"
"""Tells the processes that Lightning starts for further devices which run they belong to."""
_PACKAGES = ("motorvae", "torch", "lightning", "numpy", *OPENCV_PACKAGES, "safetensors")
_WAIT_S = 3600.0


@dataclass(frozen=True)
class Outcome:
    """What became of a run.

    Attributes:
        folder: The run's folder.
        finished: False where the user stopped it; it can be resumed.
        leads: This process is the one that writes and reports.
        steps: Optimizer steps in all; of a stopped run, those that its files have.
        plan: What was to be done.
        last: The last epoch that was completed, if any was.
        result: What the run keeps, where this process finished it.
        early: It was finished before its goal, as `--finish` asks for.
    """

    folder: Path
    finished: bool
    leads: bool
    steps: int
    plan: Plan
    last: EpochRow | None
    result: Finished | None
    early: bool


@threads_restored()
def train(options: TrainOptions, *, new_goal: bool = False) -> Outcome:
    """Train a new run, or go on with an interrupted one where `options.resume` is set.

    Args:
        options: All options; of a run to resume only `resume`, `finish` and maybe its goal count.
        new_goal: A run to resume takes its goal (`options.GOAL`) from `options`, too.

    Raises:
        ConfigError: An option is out of range, or the hardware asked for is not here.
        SourceError: The data cannot be opened.
        DataError: There is nothing to learn from.
        CheckpointError: The run to resume cannot be.
        OutputError: The output cannot be written.
    """
    console = stderr_console()
    folder = options.resume and options.resume.resolve()
    if folder is not None:
        goal = {name: getattr(options, name) for name in GOAL} if new_goal else {}
        goal |= {"resume": options.resume, "finish": options.finish}
        options = replace(options_to_resume(folder), **goal)
    spec = spec_from_train_options(options)
    _quiet_lightning()
    machine = _checked_trainer(options)
    leads = machine.global_rank == 0
    if folder is None:
        kind_of_data(options.data)
        folder = _prepared_run(options, spec, machine, console) if leads else _joined_run(options)
    elif leads:
        _check_finishable(folder, options)
        _save_goal(folder, options)
    if leads:
        point_latest_at(folder)
        os.environ[RUN_VARIABLE] = str(folder.resolve())
    return _fit(folder, options, machine, console)


def options_to_resume(folder: Path) -> TrainOptions:
    """Return the options of an interrupted run.

    Raises:
        CheckpointError: There is no such run, it is finished, or its images are gone.
    """
    config = config_from_run(folder)
    if (folder / WEIGHTS_NAME).exists():
        raise CheckpointError(f"{folder} is finished, nothing is left to resume: export it")
    if not (folder / CACHE_NAME).is_dir():
        raise CheckpointError(f"{folder} has lost its {CACHE_NAME} folder: start a new run")
    return config.options


def _check_finishable(folder: Path, options: TrainOptions) -> None:
    if options.finish and not (folder / RESUME_NAME).is_file():
        raise CheckpointError(
            f"{folder} has learned nothing that could be kept, it was stopped before its first "
            f"step was saved: go on with {resume_command(folder)}"
        )


def _save_goal(folder: Path, options: TrainOptions) -> None:
    """Let the run's config have the goal that it is resumed with."""
    config = config_from_run(folder)
    goal = {name: getattr(options, name) for name in GOAL}
    changed = replace(config.options, **goal)
    if changed != config.options:
        save_config(folder, config.model_copy(update={"options": changed}))


def _prepared_run(
    options: TrainOptions, spec: ModelSpec, machine: Trainer, console: Console
) -> Path:
    """Make a new run's folder with its images and config, or leave nothing."""
    folder = new_run_folder(options)
    try:
        with preparing(console) as progress:
            prepare_data(
                options,
                spec,
                folder / CACHE_NAME,
                progress=progress,
                warn=lambda line: console.print(f"warning: {line}", markup=False, soft_wrap=True),
            )
        data = data_from_cache(folder / CACHE_NAME)
        check_enough(len(data.train), machine.world_size, "training", least_batch(spec))
        check_enough(len(data.held_out), machine.world_size, "held-out")
        batch_size = options.batch_size or batch_size_for(len(data.train), machine.world_size)
        config = RunConfig(
            started=dt.datetime.now().astimezone().isoformat(timespec="seconds"),
            model=spec,
            options=replace(options, batch_size=batch_size),
            data=DataSummary(
                kind=kind_of_data(options.data),
                source=options.data,
                train=len(data.train),
                held_out=len(data.held_out),
                skipped=data.skipped,
            ),
            precision=_precision(options, machine),
            versions={"python": platform.python_version()} | versions_of(_PACKAGES),
        )
        save_config(folder, config)
    except BaseException:
        remove_run_folder(folder)
        raise
    return folder


def _joined_run(options: TrainOptions) -> Path:
    """Find the run that the first rank prepares.

    A process that Lightning started is told; one that a cluster started waits for it.
    """
    told = os.environ.get(RUN_VARIABLE)
    if told is not None:
        return Path(told)
    if options.name is None:
        raise ConfigError("with several nodes or torchrun, --name must say where all ranks meet")
    folder = options.output / options.name
    deadline = time.monotonic() + _WAIT_S
    while not (folder / "config.json").exists():
        if time.monotonic() > deadline:
            raise ConfigError(f"{folder} was not prepared by the first rank: look at its output")
        time.sleep(0.2)
    return folder


def _fit(folder: Path, options: TrainOptions, machine: Trainer, console: Console) -> Outcome:
    """Train until the goal is reached, time is up, or the user stops it.

    Args:
        folder: The run's folder.
        options: As given: the run's own, which its config has, may be more definite.
        machine: A trainer of the same hardware.
        console: For the user.
    """
    stop, bar, resume = StopRequest(console.print), EpochBar(console), folder / RESUME_NAME
    with stop.listening(), _expected_warnings():
        config = config_from_run(folder)
        trials = _thread_trials(config, options, machine, console)
        trainer = _trainer(
            options,
            precision=config.precision,
            logger=TensorBoardLogger(folder, name="", version="tensorboard"),
            callbacks=[bar, RunFiles(folder, console), stop, *filter(None, [trials])],
        )
        module = VAETraining(
            config.model,
            config.options,
            channels_last=prefers_channels_last(config.precision),
            stop_asked=lambda: stop.asked,
            save=lambda: trainer.save_checkpoint(resume),
            finish=options.finish,
        )
        module.data = data_from_cache(folder / CACHE_NAME)
        plan = Plan(
            config.options,
            train=len(module.data.train),
            held_out=len(module.data.held_out),
            ranks=machine.world_size,
            least=least_batch(config.model),
        )
        bar.goal = plan.goal
        keep_freed_memory()
        _announce(folder, plan, machine, trials, config=config, options=options, console=console)
        finished = False
        try:
            trainer.fit(module, ckpt_path=resume if resume.exists() else None, weights_only=True)
            finished = module.schedule.finished
        except Interrupted:
            pass
        except OutputError as error:
            raise OutputError(f"{error}, then go on with {resume_command(folder)}") from error
        except (SystemExit, KeyboardInterrupt) as stop:
            # A third Ctrl-C, which Lightning answers by leaving; the last epoch's file is there.
            if not resume.exists():
                raise KeyboardInterrupt from stop
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
        finished,
        trainer.is_global_zero,
        module.schedule.at.step if finished else steps_saved(folder),
        plan,
        module.history[-1] if module.history else None,
        result,
        early=options.finish,
    )


def _thread_trials(
    config: RunConfig, options: TrainOptions, machine: Trainer, console: Console
) -> ThreadTrials | None:
    """Return what chooses the number of threads: where one process trains on the CPU."""
    if not isinstance(machine.accelerator, CPUAccelerator) or machine.world_size > 1:
        return None
    return ThreadTrials(
        config.model,
        precision=config.precision,
        batch_size=config.options.batch_size or CARD_BATCH_SIZE,
        asked=options.threads,
        tell=console.print,
    )


def _announce(
    folder: Path,
    plan: Plan,
    machine: Trainer,
    trials: ThreadTrials | None,
    *,
    config: RunConfig,
    options: TrainOptions,
    console: Console,
) -> None:
    """Choose the number of threads, and say what is about to happen, before the first step."""
    step_s, how = None, f"on {machine.world_size} {machine.strategy.root_device.type} devices"
    if trials is not None:
        with console.status("trying how many threads train faster"):
            trial = trials.choose()
        step_s, how = trial.step_s, f"on {trial.note}"
    if machine.global_rank:
        return
    skipped = f", {config.data.skipped} skipped" if config.data.skipped else ""
    console.print(
        f"{plan.train} training and {plan.held_out} held-out images{skipped}; "
        f"{config.precision} {how}; {folder}"
    )
    if options.finish:
        console.print("finishing with what was learned so far")
        return
    reason = plan.reason_of_batch_size(given=options.batch_size is not None)
    if options.resume:
        reason = "as the run was started"
    print_sentence(console, plan.line(reason=reason, step_s=step_s, done=steps_saved(folder)))


def _trainer(
    options: TrainOptions,
    *,
    precision: str,
    logger: TensorBoardLogger | Literal[False] = False,
    callbacks: list[Callback] | None = None,
) -> Trainer:
    return Trainer(
        accelerator=options.accelerator,
        devices=options.devices,
        num_nodes=options.num_nodes,
        strategy=options.strategy,
        precision=cast("Literal['32-true', 'bf16-mixed', '16-mixed']", precision),
        max_epochs=-1,  # the schedule says when it is over
        logger=logger,
        callbacks=callbacks,
        plugins=[WholeFileIO()],
        enable_checkpointing=callbacks is not None,
        enable_progress_bar=callbacks is not None,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        use_distributed_sampler=False,
    )


def _checked_trainer(options: TrainOptions) -> Trainer:
    """Build a trainer only to learn whether this machine has what was asked for.

    Raises:
        ConfigError: It has not, or the strategy is one whose ranks we cannot keep in step.
    """
    asked = (
        f"--accelerator={options.accelerator} --devices={options.devices} "
        f"--num-nodes={options.num_nodes} --strategy={options.strategy}"
    )
    try:
        trainer = _trainer(options, precision="32-true")
    except (MisconfigurationException, ValueError, RuntimeError) as error:
        raise ConfigError(f"{asked}: {error}") from error
    if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ConfigError(f"{asked}: only one device or the strategy ddp is supported")
    return trainer


def _precision(options: TrainOptions, trainer: Trainer) -> str:
    return precision_from_options(
        options.precision,
        on_cuda=isinstance(trainer.accelerator, CUDAAccelerator),
        on_cpu=isinstance(trainer.accelerator, CPUAccelerator),
    )


def _quiet_lightning() -> None:
    """Keep Lightning's tips and inventories off the screen; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)


@contextlib.contextmanager
def _expected_warnings() -> Iterator[None]:
    """Hide what Lightning's own code triggers and no user can act on."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning
        )
        yield
