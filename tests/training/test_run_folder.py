from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from motorvae.runtime.core.errors import OutputError
from motorvae.training import run_folder as run_module
from motorvae.training.checkpoint import model_from_checkpoint
from motorvae.training.dataset import data_from_cache
from motorvae.training.latent_statistics import latent_statistics
from motorvae.training.loop.module import VAETraining
from motorvae.training.model import decoding_of, encoding_of
from motorvae.training.options import TrainOptions
from motorvae.training.train import Outcome, options_to_resume, train

from .runs import ctrl_c, kept_in, rows_of, tree_of, weights_of


@pytest.fixture
def overfitted(options: TrainOptions, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """A run whose weights are spoilt after the third of four epochs, with its images kept."""
    ended = VAETraining.on_train_epoch_end

    def then_spoil(self: VAETraining) -> None:
        ended(self)
        if len(self.history) == 3:
            with torch.no_grad():
                self.model.decoder.image.bias -= 4.0

    monkeypatch.setattr(VAETraining, "on_train_epoch_end", then_spoil)
    monkeypatch.setattr("motorvae.training.run_folder.shutil.rmtree", lambda *_, **__: None)
    return train(replace(options, name="spoilt"))


def test_best_and_last_are_kept_each_with_its_own_statistics(overfitted: Outcome) -> None:
    folder = overfitted.folder
    rows, kept = rows_of(folder), kept_in(folder)
    assert (kept.best.epoch, kept.last.epoch) == (3, 4)
    for epoch in (kept.best, kept.last):
        row = rows[epoch.epoch - 1]
        found_in = (int(row["steps"]), float(row["held_out_total"]))
        assert (epoch.steps, epoch.held_out_total) == found_in
    data = data_from_cache(folder / "cache")
    found = {}
    for choice, statistics in (("best", "latents.npz"), ("last", "latents.last.npz")):
        model, _ = model_from_checkpoint(folder, choice)  # type: ignore[arg-type]  # one of two
        with np.load(folder / statistics) as saved:
            for name, values in latent_statistics(
                data, model.spec, encoding_of(model), decoding_of(model)
            ).items():
                np.testing.assert_allclose(saved[name], values, rtol=1e-4, atol=1e-6)
            found[choice] = saved["mean"]
    assert not np.allclose(found["best"], found["last"], rtol=1e-3)


def test_best_is_the_smallest_held_out_total_of_the_last_stage(overfitted: Outcome) -> None:
    second = [row for row in rows_of(overfitted.folder) if row["stage"] == "2"]
    best = min(second, key=lambda row: float(row["held_out_total"]))
    assert kept_in(overfitted.folder).best.epoch == int(best["epoch"])
    # An epoch of the first stage may well have a smaller total: its beta is smaller.
    assert kept_in(overfitted.folder).best.stage == 2


def test_a_run_is_never_written_over(finished_run: Path, options: TrainOptions) -> None:
    before = json.dumps(sorted(tree_of(finished_run)))
    with pytest.raises(OutputError, match="exists: choose another --name"):
        train(replace(options, output=finished_run.parent, name=finished_run.name))
    assert json.dumps(sorted(tree_of(finished_run))) == before


def test_ctrl_c_while_finishing_can_be_resumed(
    options: TrainOptions, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("motorvae.training.run_folder.save_weights", interrupted)
        outcome = train(replace(options, name="late"))
    assert not outcome.finished
    assert train(options_to_resume(outcome.folder)).finished
    assert weights_of(outcome.folder) == weights_of(finished_run)


def test_ctrl_c_in_the_last_moment_leaves_a_finished_run(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = run_module.save_weights

    def then_interrupted(folder: Path, weights: dict[str, torch.Tensor], *name: str) -> None:
        save(folder, weights, *name)
        if not name:
            ctrl_c()

    monkeypatch.setattr(run_module, "save_weights", then_interrupted)
    outcome = train(options)
    assert outcome.finished
    assert outcome.result is not None
    assert not (outcome.folder / "cache").exists()
