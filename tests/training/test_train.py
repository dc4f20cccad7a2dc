from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from motorvae.runtime.core.errors import CheckpointError, OutputError
from motorvae.training.checkpoint import config_from_run, model_from_checkpoint
from motorvae.training.cli import lines_of
from motorvae.training.loop import callbacks
from motorvae.training.loop.module import EpochRow
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

from .runs import OnLoss, ctrl_c, kept_in, power_cut, rows_of, tree_of, weights_of


def test_a_finished_run_is_complete_and_tidy(finished_run: Path) -> None:
    assert tree_of(finished_run) == {
        "config.json",
        "model.safetensors",
        "last.safetensors",
        "weights.json",
        "metrics.csv",
        "loss.png",
        "latents.npz",
        "latents.last.npz",
        "train_latents.npz",
        "held_out.npz",
        "reconstructions/best.png",
        "reconstructions/epoch-001.png",
        "reconstructions/epoch-002.png",
        "reconstructions/epoch-004.png",
    }
    assert list((finished_run / "tensorboard").glob("events.*"))
    link = finished_run.parent / "latest"
    assert link.is_symlink()
    assert link.resolve() == finished_run.resolve()
    assert {path.name for path in finished_run.parent.iterdir()} == {"whole", "latest"}


def test_config_tells_what_was_learned_from(finished_run: Path) -> None:
    config = config_from_run(finished_run)
    with np.load(finished_run / "held_out.npz", allow_pickle=False) as held_out:
        assert len(held_out["images"]) == config.data.held_out
    assert config.data.train + config.data.held_out == 48
    assert (config.data.kind, config.precision) == ("vehicles", "32-true")
    assert config.versions["torch"] == torch.__version__


def test_the_same_seed_gives_the_same_bytes(finished_run: Path, options: TrainOptions) -> None:
    again = train(options)
    assert again.finished
    assert weights_of(again.folder) == weights_of(finished_run)
    other = train(replace(options, seed=1, name="other"))
    assert weights_of(other.folder) != weights_of(finished_run)


def test_bf16_trains_and_stays_close_to_float32(finished_run: Path, options: TrainOptions) -> None:
    half = train(replace(options, precision="bf16-mixed"))
    assert half.last is not None
    whole = float(rows_of(finished_run)[-1]["held_out_reconstruction"])
    assert half.last.held_out_reconstruction == pytest.approx(whole, rel=0.05)


@pytest.mark.parametrize("number", [4, 10, 16, 22])
def test_after_a_power_cut_a_run_goes_on_from_its_last_epoch(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, number: int
) -> None:
    on_loss(number, power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(replace(options, name="cut"))
    folder = options.output / "cut"
    resumed = train(options_to_resume(folder))
    assert resumed.finished
    assert weights_of(folder) == weights_of(finished_run)
    assert rows_of(folder) == rows_of(finished_run)


def test_a_full_disk_says_how_to_go_on(
    finished_run: Path, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = callbacks.save_metrics

    def full(folder: Path, history: list[EpochRow]) -> None:
        if len(history) == 3:
            raise OutputError("cannot write metrics.csv: No space left; make room there")
        save(folder, history)

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "save_metrics", full)
        with pytest.raises(
            OutputError, match=r"make room there, then go on with motorvae-train --resume .*/full"
        ):
            train(replace(options, name="full"))
    assert train(options_to_resume(options.output / "full")).finished
    assert weights_of(options.output / "full") == weights_of(finished_run)


@pytest.mark.parametrize("number", [3, 10])
def test_a_stopped_run_can_be_finished(
    options: TrainOptions, on_loss: OnLoss, number: int, capfd: pytest.CaptureFixture[str]
) -> None:
    on_loss(number, ctrl_c)
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
    assert kept_in(stopped.folder).last.steps == done.steps
    assert not (stopped.folder / "resume.ckpt").exists()
    assert "finishing with what was learned so far" in capfd.readouterr().err
    (line,) = (line for line in lines_of(done) if line.startswith("trained"))
    assert f"{done.steps} steps of {done.plan.steps}, finished early, in" in line


def test_a_run_without_a_saved_step_cannot_be_finished(
    options: TrainOptions, on_loss: OnLoss
) -> None:
    def power_cut() -> None:
        raise RuntimeError("power cut")

    on_loss(2, power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(replace(options, name="cut"))
    with pytest.raises(CheckpointError, match="has learned nothing that could be kept"):
        train(options_to_resume(options.output / "cut", finish=True))
    assert train(options_to_resume(options.output / "cut")).finished


@pytest.mark.parametrize(
    ("goal", "steps"),
    [({"steps": 8}, 8), ({"epochs": (1, 1)}, 10), ({"epochs": (1, 1), "minutes": 600.0}, 10)],
)
def test_a_resumed_run_may_have_another_goal(
    options: TrainOptions, on_loss: OnLoss, goal: dict[str, Any], steps: int
) -> None:
    on_loss(3, ctrl_c)
    stopped = train(replace(options, name="stopped"))
    saved = config_from_run(stopped.folder).options
    done = train(replace(options_to_resume(stopped.folder), **goal))
    assert done.finished
    assert done.steps == steps
    changed = config_from_run(stopped.folder).options
    assert {name: getattr(changed, name) for name in goal} == goal
    assert replace(changed, **{name: getattr(saved, name) for name in goal}) == saved


def test_steps_are_made_exactly_and_resumed_exactly(options: TrainOptions, on_loss: OnLoss) -> None:
    budget = replace(options, steps=13, epochs=(2, 1))
    whole = train(replace(budget, name="whole"))
    on_loss(4, ctrl_c)
    stopped = train(replace(budget, name="stopped"))
    resumed = train(options_to_resume(stopped.folder))
    for outcome in (whole, resumed):
        assert outcome.steps == 13
        assert [row["steps"] for row in rows_of(outcome.folder) if row["stage"] == "1"][-1] == "9"
    weights = [safetensors.torch.load_file(o.folder / "last.safetensors") for o in (whole, resumed)]
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())


def test_a_run_that_was_killed_as_it_finished_keeps_no_images(
    finished_run: Path, tmp_path: Path
) -> None:
    """Its weights were written, and what comes after that was not done."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    before = {path.name for path in run.iterdir()}
    (run / "cache").mkdir()
    (run / "cache" / "images.u8").write_bytes(bytes(9))
    (run / "resume.ckpt").write_bytes(bytes(9))
    with pytest.raises(CheckpointError, match="is finished, nothing is left to resume"):
        options_to_resume(run)
    assert {path.name for path in run.iterdir()} == before


def test_a_finished_run_and_a_lost_cache_cannot_be_resumed(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss
) -> None:
    with pytest.raises(CheckpointError, match="is finished, nothing is left to resume"):
        train(options_to_resume(finished_run))
    on_loss(3, ctrl_c)
    folder = train(options).folder
    for path in (folder / "cache").iterdir():
        path.unlink()
    (folder / "cache").rmdir()
    with pytest.raises(CheckpointError, match="has lost its cache folder"):
        train(options_to_resume(folder))
