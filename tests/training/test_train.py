from __future__ import annotations

import csv
import itertools
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from motorvae.runtime.core.errors import CheckpointError, ConfigError, OutputError
from motorvae.training import run_folder as run_module
from motorvae.training.checkpoint import config_from_run
from motorvae.training.interrupt import steps_saved
from motorvae.training.loop import module as module_module
from motorvae.training.loop.module import EpochRow, VAETraining
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

OnLoss = Callable[[int, Callable[[], object]], None]


def _ctrl_c() -> None:
    signal.raise_signal(signal.SIGINT)


def _power_cut() -> None:
    raise RuntimeError("power cut")


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def _rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: value for name, value in row.items() if name != "elapsed_s"}
            for row in csv.DictReader(file)
        ]


def _tree(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "tensorboard" not in path.parts
    }


def test_a_finished_run_is_complete_and_tidy(finished_run: Path) -> None:
    assert _tree(finished_run) == {
        "config.json",
        "model.safetensors",
        "last.safetensors",
        "weights.json",
        "metrics.csv",
        "loss.png",
        "latents.npz",
        "latents.last.npz",
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


def test_metrics_give_both_stages_apart(finished_run: Path) -> None:
    rows = _rows(finished_run)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [(row["stage"], row["beta"], row["learning_rate"]) for row in rows] == [
        ("1", "0.001", "0.001"),
        ("1", "0.001", "0.001"),
        ("2", "0.05", "0.0005"),
        ("2", "0.05", "0.0005"),
    ]
    for row in rows:
        for side in ("train", "held_out"):
            parts = [float(row[f"{side}_{part}"]) for part in ("reconstruction", "kl", "total")]
            assert parts[2] == pytest.approx(parts[0] + float(row["beta"]) * parts[1])
        assert 0 <= int(row["active_units"]) <= 8
    losses = [float(row["train_reconstruction"]) for row in rows]
    assert losses[-1] < losses[0]


def test_config_tells_what_was_learned_from(finished_run: Path) -> None:
    config = config_from_run(finished_run)
    with np.load(finished_run / "held_out.npz", allow_pickle=False) as held_out:
        assert len(held_out["images"]) == config.data.held_out
    assert config.data.train + config.data.held_out == 48
    assert (config.data.kind, config.precision) == ("vehicles", "32-true")
    assert config.versions["torch"] == torch.__version__


def test_pictures_show_originals_over_reconstructions(finished_run: Path) -> None:
    last = finished_run / "reconstructions" / "epoch-004.png"
    picture = cv2.imread(str(last), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    with np.load(finished_run / "held_out.npz", allow_pickle=False) as held_out:
        first = held_out["images"][0]
    assert picture.shape[0] == 2 * 36
    assert np.abs(picture[2:34, 2:34].astype(int) - first).max() <= 1
    loss = cv2.imread(str(finished_run / "loss.png"))
    assert loss is not None
    assert loss.std() > 5


def test_the_same_seed_gives_the_same_bytes(finished_run: Path, options: TrainOptions) -> None:
    again = train(options)
    assert again.finished
    assert _weights(again.folder) == _weights(finished_run)
    other = train(replace(options, seed=1, name="other"))
    assert _weights(other.folder) != _weights(finished_run)


def test_second_stage_starts_a_fresh_adam(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, float]] = []
    ended = VAETraining.on_train_batch_end

    def watched(self: VAETraining, *args: Any) -> None:
        ended(self, *args)
        (optimizer,) = self.trainer.optimizers
        steps = {int(state["step"].item()) for state in optimizer.state.values()}
        (group,) = optimizer.param_groups
        seen.append((self.schedule.at.stage, *steps, group["lr"]))

    monkeypatch.setattr(VAETraining, "on_train_batch_end", watched)
    train(options)
    steps = len(seen) // 2
    assert seen == [(0, step + 1, 1e-3) for step in range(steps)] + [
        (1, step + 1, 5e-4) for step in range(steps)
    ]


@pytest.mark.parametrize(
    ("number", "sent"),
    [
        *itertools.product([3, 5, 9, 15], [signal.SIGINT, signal.SIGTERM]),
        (5, signal.SIGHUP),
    ],
)
def test_stopped_then_resumed_is_the_uninterrupted_run(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, number: int, sent: signal.Signals
) -> None:
    handler = signal.getsignal(sent)
    on_loss(number, lambda: signal.raise_signal(sent))
    stopped = train(options)
    assert not stopped.finished
    assert signal.getsignal(sent) is handler
    assert stopped.steps == steps_saved(stopped.folder) > 0
    assert not (stopped.folder / "model.safetensors").exists()
    resumed = train(options_to_resume(stopped.folder))
    assert resumed.finished
    assert _weights(resumed.folder) == _weights(finished_run)
    assert _rows(resumed.folder) == _rows(finished_run)
    assert _tree(resumed.folder) == _tree(finished_run)


@pytest.mark.parametrize("number", [4, 10, 16, 22])
def test_after_a_power_cut_a_run_goes_on_from_its_last_epoch(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, number: int
) -> None:
    on_loss(number, _power_cut)
    with pytest.raises(RuntimeError, match="power cut"):
        train(replace(options, name="cut"))
    folder = options.output / "cut"
    resumed = train(options_to_resume(folder))
    assert resumed.finished
    assert _weights(folder) == _weights(finished_run)
    assert _rows(folder) == _rows(finished_run)


def test_a_full_disk_says_how_to_go_on(
    finished_run: Path, options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = run_module.save_metrics

    def full(folder: Path, history: list[EpochRow]) -> None:
        if len(history) == 3:
            raise OutputError("cannot write metrics.csv: No space left; make room there")
        save(folder, history)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "save_metrics", full)
        with pytest.raises(
            OutputError, match=r"make room there, then go on with motorvae-train --resume .*/full"
        ):
            train(replace(options, name="full"))
    assert train(options_to_resume(options.output / "full")).finished
    assert _weights(options.output / "full") == _weights(finished_run)


def test_ctrl_c_is_heard_where_an_epoch_is_one_batch(
    options: TrainOptions, on_loss: OnLoss
) -> None:
    one = replace(options, batch_size=512, name="whole")
    assert train(one).finished
    on_loss(2, _ctrl_c)
    outcome = train(replace(one, name="stopped"))
    assert not outcome.finished
    assert len(_rows(outcome.folder)) < len(_rows(options.output / "whole"))
    assert train(options_to_resume(outcome.folder)).finished
    assert _weights(outcome.folder) == _weights(options.output / "whole")


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
    assert _weights(outcome.folder) == _weights(finished_run)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_third_time_stops_at_once_and_counts_what_is_saved(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, sent: signal.Signals
) -> None:
    def three_times() -> None:
        for _ in range(3):
            signal.raise_signal(sent)

    on_loss(12, three_times)  # in the second epoch
    stopped = train(options)
    assert not stopped.finished
    saved = int(_rows(stopped.folder)[-1]["steps"])
    assert stopped.steps == saved == steps_saved(stopped.folder)
    assert train(options_to_resume(stopped.folder)).finished
    assert _weights(stopped.folder) == _weights(finished_run)


def test_ctrl_c_in_the_last_moment_leaves_a_finished_run(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = run_module.save_weights

    def then_interrupted(folder: Path, weights: dict[str, torch.Tensor], *name: str) -> None:
        save(folder, weights, *name)
        if not name:
            _ctrl_c()

    monkeypatch.setattr(run_module, "save_weights", then_interrupted)
    outcome = train(options)
    assert outcome.finished
    assert outcome.result is not None
    assert not (outcome.folder / "cache").exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda _: b"x" * 99]
)
def test_damaged_resume_file_is_refused_in_one_line(
    options: TrainOptions, on_loss: OnLoss, damage: Callable[[bytes], bytes]
) -> None:
    on_loss(2, _ctrl_c)
    outcome = train(replace(options, name="damaged"))
    path = outcome.folder / "resume.ckpt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(
        CheckpointError, match=r"cannot resume from .*resume\.ckpt: .*start a new run"
    ):
        train(options_to_resume(outcome.folder))


def test_minutes_end_both_stages_and_resume_keeps_the_clock(
    options: TrainOptions, on_loss: OnLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count()
    monkeypatch.setattr(module_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    timed = replace(options, minutes=20 / 60, epochs=(300, 100))
    whole = train(replace(timed, name="timed"))
    on_loss(9, _ctrl_c)
    stopped = train(replace(timed, name="stopped"))
    assert not stopped.finished
    resumed = train(options_to_resume(stopped.folder))
    assert resumed.finished
    for outcome in (whole, resumed):
        assert outcome.last is not None
        assert outcome.last.stage == 2
        assert 20 <= outcome.last.elapsed_s <= 23  # a batch under way, and the epoch's end
    assert _rows(resumed.folder) == _rows(whole.folder)
    assert _weights(resumed.folder) == _weights(whole.folder)
    first = [row for row in _rows(whole.folder) if row["stage"] == "1"]
    assert 12 <= int(first[-1]["steps"]) <= 16  # three quarters of the time, less the epoch ends


def test_a_loss_that_is_no_number_ends_the_run(options: TrainOptions) -> None:
    with pytest.raises(ConfigError, match=r"not a number after epoch 1 with --learning-rate=0\.9"):
        train(replace(options, learning_rate=0.9, betas=(1e38, 1e38)))


def test_a_finished_run_and_a_lost_cache_cannot_be_resumed(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss
) -> None:
    with pytest.raises(CheckpointError, match="is finished, nothing is left to resume"):
        train(options_to_resume(finished_run))
    on_loss(3, _ctrl_c)
    folder = train(options).folder
    for path in (folder / "cache").iterdir():
        path.unlink()
    (folder / "cache").rmdir()
    with pytest.raises(CheckpointError, match="has lost its cache folder"):
        train(options_to_resume(folder))


def test_a_run_is_never_written_over(finished_run: Path, options: TrainOptions) -> None:
    before = json.dumps(sorted(_tree(finished_run)))
    with pytest.raises(OutputError, match="exists: choose another --name"):
        train(replace(options, output=finished_run.parent, name=finished_run.name))
    assert json.dumps(sorted(_tree(finished_run))) == before


def test_bf16_trains_and_stays_close_to_float32(finished_run: Path, options: TrainOptions) -> None:
    half = train(replace(options, precision="bf16-mixed"))
    assert half.last is not None
    whole = float(_rows(finished_run)[-1]["held_out_reconstruction"])
    assert half.last.held_out_reconstruction == pytest.approx(whole, rel=0.05)
