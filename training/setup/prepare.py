"""What the first process does before training: makes a run with its images, or checks one."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import platform
from dataclasses import fields, replace
from pathlib import Path

from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from rich.console import Console
from rich.progress import TimeRemainingColumn

from ...runtime.core.documents import save_document
from ...runtime.core.errors import writing_output
from ...runtime.core.packages import OPENCV_PACKAGES, versions_of
from ...runtime.core.spec import ModelSpec
from ...runtime.core.system.locks import output_locked
from ...runtime.core.system.renames import rename_new
from ...runtime.core.system.temporaries import temporary_beside
from ..checkpoint import CONFIG_NAME, DataSummary, RunConfig, config_from_run, save_weights
from ..dataset import DataRequest, DataSet, data_from_cache, kind_of_data, prepare_data
from ..hardware import precision_from_options
from ..loop.callbacks import progress_bar
from ..loop.recipes import check_recipe
from ..loop.resume_file import steps_saved
from ..loop.schedule import Plan
from ..options import GOAL, TrainOptions
from ..pretrained.folder import START_NAME, Pretrained, pretrained_for
from ..run_folder import CACHE_NAME, new_run_folder, point_latest_at
from ..shards.prepare import check_shards
from .ranks import RUN_VARIABLE

_PACKAGES = ("motorvae", "torch", "lightning", "numpy", *OPENCV_PACKAGES, "safetensors")


def leading_run(
    options: TrainOptions,
    spec: ModelSpec,
    machine: Trainer,
    *,
    console: Console,
    stack: contextlib.ExitStack,
) -> Path:
    """Make a new run, or check the one to resume; its folder is nobody else's until `stack` ends.

    What would be refused later, in every process, is refused here.
    """
    if options.resume is not None:
        folder = options.resume.resolve()
        stack.enter_context(output_locked(folder))
        config = config_from_run(folder)
        changed = replace(config.options, **{name: getattr(options, name) for name in GOAL})
        if changed != config.options:
            config = config.model_copy(update={"options": changed})
            save_document(folder / CONFIG_NAME, config, indent=2)
        if config.data.kind == "shards":
            check_shards(folder / CACHE_NAME, lambda line: console.print(f"warning: {line}"))
        plan_of(config, data_from_cache(folder / CACHE_NAME), machine)
        if machine.world_size > 1:
            steps_saved(folder)
    else:
        check_recipe(options)
        kind_of_data(options.data)
        start = pretrained_for(options)
        folder = stack.enter_context(new_run_folder(options))
        _prepare_run(folder, options, spec, machine=machine, console=console, start=start)
    point_latest_at(folder)
    os.environ[RUN_VARIABLE] = str(folder.resolve())
    return folder


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
            options=options,
            data=DataSummary.of(options.data, data),
            precision=precision_from_options(
                options.precision,
                on_cuda=isinstance(machine.accelerator, CUDAAccelerator),
                on_cpu=isinstance(machine.accelerator, CPUAccelerator),
            ),
            versions={"python": platform.python_version()} | versions_of(_PACKAGES),
            origin=start and start.origin,
            started_on=machine.world_size,
        )
        batch_size = plan_of(config, data, machine).batch_size
        config = config.model_copy(update={"options": replace(options, batch_size=batch_size)})
        if start is not None:
            save_weights(made / CACHE_NAME, start.weights, START_NAME)
        save_document(made / CONFIG_NAME, config, indent=2)
        rename_new(made, folder)


def _request_of(options: TrainOptions) -> DataRequest:
    """Return what the options say of the images."""
    names = [one.name for one in fields(DataRequest) if one.name != "option"]
    return DataRequest(**{name: getattr(options, name) for name in names})


def plan_of(config: RunConfig, data: DataSet, machine: Trainer) -> Plan:
    """Return a run's plan on this machine; DataError where it cannot be made there."""
    plan = Plan(
        config.options,
        len(data.train),
        len(data.held_out),
        machine.world_size,
        least=2 if config.model.feature_shape == (1, 1) else 1,
        started_on=config.started_on,
    )
    plan.check()
    return plan
