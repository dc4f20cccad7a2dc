"""Callbacks for `--callback rank_callbacks:NAME` where tests start real processes.

`ON_RANK`, `AT_STEP` and `SIGNAL` in the environment say which process gets which signal, and when.
"""

from __future__ import annotations

import os
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import nn

_RESTARTS = ("SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT")


class FixedBatchNorm(Callback):
    """Normalises with the statistics that a fresh model has (mean 0, variance 1), which stay.

    Each image is then computed by itself, as nothing else of the model looks at a whole batch.
    """

    def on_train_batch_start(self, _: Trainer, pl_module: LightningModule, *__: Any) -> None:
        for module in pl_module.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


class Signalled(Callback):
    """Sends one process of the run a signal, once, before a step."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        ours, at, number = (int(os.environ[name]) for name in ("ON_RANK", "AT_STEP", "SIGNAL"))
        again = any(os.environ.get(name, "0") != "0" for name in _RESTARTS)
        if (pl_module.schedule.at.step, trainer.global_rank) == (at, ours) and not again:
            os.kill(os.getpid(), number)
