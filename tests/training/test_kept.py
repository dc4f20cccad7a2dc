"""Which weights a run keeps, when it is finished early, and with which goal it goes on."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from motorvae.runtime.core.errors import CheckpointError
from motorvae.training.checkpoint import (
    KeptEpoch,
    KeptWeights,
    config_from_run,
    model_from_checkpoint,
)
from motorvae.training.cli import lines_of, overfitting
from motorvae.training.dataset import data_from_cache
from motorvae.training.latent_statistics import latent_statistics
from motorvae.training.loop.module import VAETraining
from motorvae.training.options import TrainOptions
from motorvae.training.train import Outcome, options_to_resume, train

Change = Callable[[int, Callable[[], object]], None]


def _ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def _kept(folder: Path) -> KeptWeights:
    return KeptWeights.model_validate_json((folder / "weights.json").read_text())


def _rows(folder: Path) -> list[dict[str, float]]:
    head, *lines = (folder / "metrics.csv").read_text().splitlines()
    return [dict(zip(head.split(","), map(float, line.split(",")), strict=True)) for line in lines]


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
    rows, kept = _rows(folder), _kept(folder)
    assert (kept.best.epoch, kept.last.epoch) == (3, 4)
    for epoch in (kept.best, kept.last):
        row = rows[epoch.epoch - 1]
        assert (epoch.steps, epoch.held_out_total) == (row["steps"], row["held_out_total"])
    data = data_from_cache(folder / "cache")
    found = {}
    for choice, statistics in (("best", "latents.npz"), ("last", "latents.last.npz")):
        model, _ = model_from_checkpoint(folder, choice)  # type: ignore[arg-type]  # one of two
        with np.load(folder / statistics) as saved:
            for name, values in latent_statistics(model, data).items():
                np.testing.assert_allclose(saved[name], values, rtol=1e-4, atol=1e-6)
            found[choice] = saved["mean"]
    assert not np.allclose(found["best"], found["last"], rtol=1e-3)


def test_best_is_the_smallest_held_out_total_of_the_last_stage(overfitted: Outcome) -> None:
    second = [row for row in _rows(overfitted.folder) if row["stage"] == 2]
    best = min(second, key=lambda row: row["held_out_total"])
    assert _kept(overfitted.folder).best.epoch == best["epoch"]
    # An epoch of the first stage may well have a smaller total: its beta is smaller.
    assert _kept(overfitted.folder).best.stage == 2


def _epoch(number: int, train_total: float, held_out_total: float) -> KeptEpoch:
    return KeptEpoch(
        file="x",
        epoch=number,
        stage=2,
        steps=1,
        train_total=train_total,
        held_out_total=held_out_total,
    )


@pytest.mark.parametrize(
    ("last", "said"),
    [((80, 105), True), ((80, 100.5), False), ((120, 105), False), ((100, 105), False)],
)
def test_overfitting_is_said_with_both_epochs_and_the_difference(
    last: tuple[float, float], *, said: bool
) -> None:
    sentence = overfitting(KeptWeights(best=_epoch(7, 100, 100), last=_epoch(9, *last)))
    assert (sentence is not None) is said
    if sentence:
        assert (
            "from epoch 7 to epoch 9 the held-out total rose by 5.0%, from 100 to 105" in sentence
        )
        assert "the training total fell from 100 to 80" in sentence


@pytest.mark.parametrize("number", [3, 10])
def test_a_stopped_run_can_be_finished(
    options: TrainOptions, on_loss: Change, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    on_loss(number, _ctrl_c)
    stopped = train(replace(options, epochs=(50, 50), name="stopped"))
    assert not stopped.finished
    with pytest.raises(CheckpointError, match=r"--resume .*stopped, or keep .* --finish"):
        model_from_checkpoint(stopped.folder)
    done = train(options_to_resume(stopped.folder, finish=True))
    assert done.finished
    assert done.early
    assert done.steps <= stopped.steps + 1
    model_from_checkpoint(stopped.folder)
    model_from_checkpoint(stopped.folder, "last")
    assert _kept(stopped.folder).last.steps == done.steps
    assert not (stopped.folder / "resume.ckpt").exists()
    assert "finishing with what was learned so far" in capfd.readouterr().err
    (line,) = (line for line in lines_of(done) if line.startswith("trained"))
    assert f"{done.steps} steps of {done.plan.steps}, finished early, in" in line


def test_a_run_without_a_saved_step_cannot_be_finished(
    options: TrainOptions, on_loss: Change
) -> None:
    def power_cut() -> None:
        raise RuntimeError("power cut")

    on_loss(2, power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(replace(options, name="cut"))
    with pytest.raises(CheckpointError, match="has learned nothing that could be kept"):
        train(options_to_resume(options.output / "cut", finish=True))
    assert train(options_to_resume(options.output / "cut")).finished


def test_a_second_ctrl_c_loses_nothing(options: TrainOptions, on_loss: Change) -> None:
    def twice() -> None:
        _ctrl_c()
        _ctrl_c()

    on_loss(3, twice)
    stopped = train(replace(options, name="twice"))
    assert stopped.steps == 3
    assert (stopped.folder / "resume.ckpt").is_file()


@pytest.mark.parametrize(
    ("goal", "steps"),
    [({"steps": 8}, 8), ({"epochs": (1, 1)}, 10), ({"epochs": (1, 1), "minutes": 600.0}, 10)],
)
def test_a_resumed_run_may_have_another_goal(
    options: TrainOptions, on_loss: Change, goal: dict[str, Any], steps: int
) -> None:
    on_loss(3, _ctrl_c)
    stopped = train(replace(options, name="stopped"))
    saved = config_from_run(stopped.folder).options
    done = train(replace(options_to_resume(stopped.folder), **goal))
    assert done.finished
    assert done.steps == steps
    changed = config_from_run(stopped.folder).options
    assert {name: getattr(changed, name) for name in goal} == goal
    assert replace(changed, **{name: getattr(saved, name) for name in goal}) == saved


def test_steps_are_made_exactly_and_resumed_exactly(options: TrainOptions, on_loss: Change) -> None:
    budget = replace(options, steps=13, epochs=(2, 1))
    whole = train(replace(budget, name="whole"))
    on_loss(4, _ctrl_c)
    stopped = train(replace(budget, name="stopped"))
    resumed = train(options_to_resume(stopped.folder))
    for outcome in (whole, resumed):
        assert outcome.steps == 13
        assert [row["steps"] for row in _rows(outcome.folder) if row["stage"] == 1][-1] == 9
    weights = [safetensors.torch.load_file(o.folder / "last.safetensors") for o in (whole, resumed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_ceiling_that_cuts_steps_short_is_told(options: TrainOptions) -> None:
    outcome = train(replace(options, steps=100000, minutes=0.01))
    assert outcome.finished
    (line,) = (line for line in lines_of(outcome) if line.startswith("trained"))
    assert f"{outcome.steps} steps of 100000, as --minutes 0.01 were over," in line


def test_too_little_learned_is_a_warning(options: TrainOptions) -> None:
    lines = list(lines_of(train(replace(options, steps=2))))
    assert any(
        line.startswith("warning: this model has learned too little") and "--anyway" in line
        for line in lines
    )
    assert lines[-1].startswith("wrote ")


def test_a_run_of_an_earlier_version_has_one_set_of_weights(
    finished_run: Path, tmp_path: Path
) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((finished_run / name).read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("steps", "threads", "finish"):
        del config["options"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    best, last = (
        model_from_checkpoint(tmp_path)[0],
        model_from_checkpoint(tmp_path, "last")[0],
    )
    assert torch.equal(best.encoder.mu.weight, last.encoder.mu.weight)
