"""What the Trainer is given; the runs themselves are in the other tests of training."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from lightning.fabric.utilities.warnings import PossibleUserWarning
from lightning.pytorch import Trainer
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator

from motorvae.runtime.core.errors import ConfigError
from motorvae.training.loop import batches as batches_module
from motorvae.training.options import TrainOptions, spec_from_train_options
from motorvae.training.setup.trainer import trainer_from_options
from motorvae.training.train import options_to_resume, train

from ..runs import OnLoss, ctrl_c, rows_of, weights_of


def test_hardware_that_is_not_here_is_one_line(options: TrainOptions) -> None:
    with pytest.raises(ConfigError, match=r"--accelerator=tpu --devices=1 .*"):
        trainer_from_options(replace(options, accelerator="tpu"))


def test_the_cpu_is_taken_without_a_word_where_there_is_a_gpu(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning warns of a GPU that is not used, here an error as any warning is."""
    monkeypatch.setattr(CUDAAccelerator, "is_available", staticmethod(lambda: True))
    trainer = trainer_from_options(replace(options, accelerator="cpu"))
    assert isinstance(trainer.accelerator, CPUAccelerator)
    with pytest.raises(PossibleUserWarning, match="GPU available but not used"):
        Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)


def test_a_limit_of_steps_takes_other_images_each_epoch_and_resumes_exactly(
    options: TrainOptions, on_loss: OnLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[list[int]] = []
    prefetched = batches_module._prefetched

    def noted(data: Any, batches: Iterable[Any], *shared: int) -> object:
        rows = list(batches)
        taken.append([len(rows), *np.concatenate(rows).tolist()])
        return prefetched(data, rows, *shared)

    with monkeypatch.context() as patch:
        patch.setattr(batches_module, "_prefetched", noted)
        whole = train(replace(options, limit_steps=2, name="whole"))
    assert whole.steps == 2 * 4
    assert [row["steps"] for row in rows_of(whole.folder)] == ["2", "4", "6", "8"]
    epochs = [rows for count, *rows in taken if count == 2 and len(rows) <= 16]
    assert len({tuple(sorted(rows)) for rows in epochs}) > 2
    on_loss(7, ctrl_c)
    stopped = train(replace(options, limit_steps=2, name="cut"))
    assert not stopped.finished
    assert train(options_to_resume(stopped.folder)).finished
    assert weights_of(stopped.folder) == weights_of(whole.folder)
    with pytest.raises(ConfigError, match="--limit-steps=0: it must be at least 1"):
        spec_from_train_options(replace(options, limit_steps=0))
