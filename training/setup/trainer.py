"""Lightning's Trainer, as the options ask for it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy

from ...runtime.core.errors import ConfigError
from ..checkpoint import RunConfig
from ..loop.resume_file import ResumeFileIO
from ..options import TrainOptions
from .ranks import launch


def trainer_from_options(
    options: TrainOptions,
    *,
    folder: Path | None = None,
    run: RunConfig | None = None,
    loggers: Sequence[Logger] = (),
    callbacks: list[Callback] | None = None,
    sync_batchnorm: bool = False,
) -> Trainer:
    """Build a trainer for a run in its folder, or only to learn what this machine has.

    With `sync_batchnorm` several GPUs share the statistics of a batch; on CPUs torch cannot. A
    ConfigError where the hardware that is asked for is not here, or torchrun or srun has started
    another number of processes.
    """
    asked = (
        f"--accelerator={options.accelerator} --devices={options.devices} "
        f"--num-nodes={options.num_nodes} --strategy={options.strategy}"
    )
    precision = "32-true" if run is None else run.precision
    devices, nodes, started = options.devices, options.num_nodes, launch()
    if started is not None and devices == "auto":  # as many as were started
        devices = str(started.here)
        nodes = started.ranks // started.here if nodes == 1 else nodes
    try:
        with warnings.catch_warnings():
            # --accelerator cpu on a machine with a GPU: the user has chosen.
            warnings.filterwarnings("ignore", "GPU available but not used", PossibleUserWarning)
            trainer = Trainer(
                accelerator=options.accelerator,
                devices=devices,
                num_nodes=nodes,
                strategy=options.strategy,
                precision=cast("Literal['32-true', 'bf16-mixed', '16-mixed']", precision),
                max_epochs=-1,  # the schedule says when it is over
                default_root_dir=folder,  # where callbacks write that have no other place
                logger=list(loggers),
                callbacks=callbacks,
                plugins=[ResumeFileIO(run)],
                enable_checkpointing=callbacks is not None,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                log_every_n_steps=1,
                use_distributed_sampler=False,
                sync_batchnorm=sync_batchnorm,
            )
    except (MisconfigurationException, ValueError, RuntimeError, ImportError) as error:
        raise ConfigError(f"{asked}: {error}") from error
    if not isinstance(trainer.strategy, (SingleDeviceStrategy, DDPStrategy)):
        raise ConfigError(f"{asked}: only one device or the strategy ddp is supported")
    # Not its world size, which is what was started.
    if started is not None and trainer.num_devices * trainer.num_nodes != started.ranks:
        raise ConfigError(
            f"{asked}: {started.by} has started {started.ranks} "
            f"process{'' if started.ranks == 1 else 'es'}, {started.here} on this machine: leave "
            "--devices and --num-nodes out"
        )
    return trainer
