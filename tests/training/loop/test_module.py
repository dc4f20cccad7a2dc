from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from motorvae.runtime.core.errors import ConfigError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.training import train as train_module
from motorvae.training.checkpoint import config_from_run, model_from_checkpoint
from motorvae.training.cli import lines_of
from motorvae.training.dataset import DataSet, data_from_cache
from motorvae.training.loop import module as module_module
from motorvae.training.loop.module import VAETraining
from motorvae.training.loop.resume_file import ResumeFileIO
from motorvae.training.loop.schedule import Plan, Schedule
from motorvae.training.model import Loss, MotorVAE, kl_per_image
from motorvae.training.model import weights_of as model_weights_of
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

from ..runs import OnLoss, ctrl_c, rows_of, weights_of


def test_metrics_give_both_stages_apart(finished_run: Path) -> None:
    rows = rows_of(finished_run)
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


CHANGES: dict[str, dict[str, Any]] = {
    "scheduled": {
        "lr_schedule": "cosine",
        "warmup": 0.3,
        "kl_schedule": "linear",
        "ema": 0.9,
        "heads_rate": 0.3,
        "weight_decay": 0.5,
        "clip_norm": 50.0,
        "start_log_var": -4.0,
        "start_at_mean": True,
    },
    "augmented": {
        "augment": ("flip", "shift", "brightness", "erase"),
        "kl_schedule": "cyclical",
        "lr_schedule": "linear",
        "reconstruction_loss": "bce",
        "free_bits": 0.2,
        "precision": "bf16-mixed",
    },
    "other loss": {
        "reconstruction_loss": "mse+ssim",
        "ema": 0.9,
        "optimizer": "muon",
        "weight_decay": 0.1,
    },
    "patience": {
        "patience": 1,
        "epochs": (1, 30),
        "learning_rate": 0.02,
        "lr_schedule": "constant",
    },
}


@pytest.mark.parametrize(
    ("name", "number"), [("scheduled", 4), ("augmented", 17), ("other loss", 9), ("patience", 11)]
)
def test_interrupted_and_resumed_is_the_uninterrupted_run_with_every_option(
    options: TrainOptions, on_loss: OnLoss, name: str, number: int
) -> None:
    changed = replace(options, **CHANGES[name])
    whole = train(replace(changed, name="whole"))
    on_loss(number, ctrl_c)
    stopped = train(replace(changed, name="stopped"))
    assert not stopped.finished
    resumed = train(options_to_resume(stopped.folder))
    assert resumed.finished
    assert rows_of(resumed.folder) == rows_of(whole.folder)
    assert weights_of(resumed.folder) == weights_of(whole.folder)
    for file in ("last.safetensors", "weights.json"):
        assert (resumed.folder / file).read_bytes() == (whole.folder / file).read_bytes()


def _watched(monkeypatch: pytest.MonkeyPatch, see: Callable[[VAETraining], object]) -> None:
    """Let something be looked at after each step."""
    ended = VAETraining.on_train_batch_end

    def watched(self: VAETraining, *args: Any) -> None:
        ended(self, *args)
        see(self)

    monkeypatch.setattr(VAETraining, "on_train_batch_end", watched)


def test_a_step_has_the_rate_of_its_schedule_and_one_adam_through_both_stages(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, int]] = []

    def see(module: VAETraining) -> None:
        (optimizer,) = module.trainer.optimizers
        steps = {int(state["step"].item()) for state in optimizer.state.values()}
        seen.append((optimizer.param_groups[0]["lr"], *steps))

    _watched(monkeypatch, see)
    done = train(replace(options, lr_schedule="cosine", warmup=0.1, epochs=(3, 1), ema=0.9))
    assert done.steps == len(seen) == 20
    fallen = [1e-3 * (1 + math.cos(math.pi * step / 18)) / 2 for step in range(18)]
    assert [rate for rate, _ in seen] == pytest.approx([0.5e-3, 1e-3, *fallen])
    assert [step for _, step in seen] == list(range(1, 21))
    rows = rows_of(done.folder)
    ends = [float(row["end_learning_rate"]) for row in rows]
    assert ends == pytest.approx([seen[number][0] for number in (4, 9, 14, 19)])
    assert {row["learning_rate"] for row in rows} == {"0.001"}


def test_schedules_follow_the_clock_where_minutes_end_the_run(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count()
    monkeypatch.setattr(module_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    seen: list[tuple[float, float]] = []
    _watched(monkeypatch, lambda m: seen.append((m.schedule.learning_rate, m.schedule.kl_weight)))
    moving = replace(options, lr_schedule="linear", kl_schedule="linear", epochs=(300, 300))
    done = train(replace(moving, minutes=20 / 60))
    assert done.steps < 30  # of thousands
    rates, weights = zip(*seen, strict=True)
    assert rates == tuple(sorted(rates, reverse=True))
    assert rates[0] > 0.9e-3
    assert rates[-1] < 0.1e-3
    assert weights == tuple(sorted(weights))
    assert weights[-1] > 0.045


def test_what_is_validated_and_kept_is_the_average(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    decay = 0.7
    expected: dict[str, torch.Tensor] = {}
    last: dict[str, torch.Tensor] = {}

    def see(module: VAETraining) -> None:
        step = module.schedule.at.step - 1
        share = min(decay, (1 + step) / (10 + step)) if step else 0.0
        last.update(model_weights_of(module.model))
        for name, value in last.items():
            before = expected.get(name, torch.zeros_like(value))
            expected[name] = (
                value if not value.is_floating_point() else (share * before + (1 - share) * value)
            )

    _watched(monkeypatch, see)
    done = train(replace(options, ema=decay, epochs=(1, 1)))
    kept = safetensors.torch.load_file(done.folder / "last.safetensors")
    for name, value in expected.items():
        torch.testing.assert_close(kept[name], value, rtol=1e-4, atol=1e-5)
    assert not torch.equal(kept["decoder.linear.weight"], last["decoder.linear.weight"])
    model, _ = model_from_checkpoint(done.folder, "last")
    with np.load(done.folder / "held_out.npz", allow_pickle=False) as held_out:
        images = torch.from_numpy(held_out["images"]).float().div(255)[:, None]
    with torch.inference_mode():
        mu, log_var = model.encode(images)
        kl = kl_per_image(mu, log_var).mean().item()
    assert float(rows_of(done.folder)[-1]["held_out_kl"]) == pytest.approx(kl, rel=1e-4)


def test_held_out_images_are_never_augmented(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    targets: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    inputs: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    loss, encode = module_module.loss_of_batch, MotorVAE.encode

    def loss_seen(images: torch.Tensor, *args: Any, **named: Any) -> Loss:
        targets[torch.is_grad_enabled()].append(images)
        return loss(images, *args, **named)

    def encode_seen(self: MotorVAE, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        inputs[torch.is_grad_enabled()].append(images)
        return encode(self, images)

    with monkeypatch.context() as patch:
        patch.setattr(module_module, "loss_of_batch", loss_seen)
        patch.setattr(MotorVAE, "encode", encode_seen)
        patch.setattr(train_module, "finish_run", lambda *_: None)
        patch.setattr(train_module, "complete_run", lambda *_: None)
        done = train(replace(options, augment=("brightness", "erase"), epochs=(1, 1)))
    data = data_from_cache(done.folder / "cache")

    def pictures(images: list[torch.Tensor]) -> set[bytes]:
        return {one.numpy().tobytes() for batch in images for one in batch}

    held_out = pictures([torch.from_numpy(data.batch(data.held_out))])
    assert pictures(targets[False]) == held_out
    assert pictures(inputs[False]) == held_out  # and what pictures for the eye are made of
    known = pictures([torch.from_numpy(data.batch(data.train))])
    assert not pictures(targets[True]) & known
    assert pictures(inputs[True]) != pictures(targets[True])
    steps = len(targets[True])
    hidden = [
        (seen != images)[:7].numpy().tobytes()  # the first inputs are of the trial of threads
        for seen, images in zip(inputs[True][-steps:], targets[True], strict=True)
    ]
    assert len(set(hidden)) == len(hidden) == 10  # other rectangles in every step


def test_patience_ends_a_run_and_says_so(options: TrainOptions) -> None:
    impatient = replace(options, **CHANGES["patience"])
    done = train(impatient)
    assert done.finished
    assert done.result is not None
    kept, rows = done.result.kept, rows_of(done.folder)
    assert kept.last.epoch - kept.best.epoch == 1
    assert len(rows) < 31
    losses = [float(row["held_out_loss"]) for row in rows if row["stage"] == "2"]
    assert losses[-1] >= losses[-2]
    assert losses[:-1] == sorted(losses[:-1], reverse=True)
    (line,) = (line for line in lines_of(done) if line.startswith("trained"))
    assert "steps of 155, as the held-out loss had not become smaller for 1 epochs," in line


def test_a_gradient_is_clipped_before_the_step(
    options: TrainOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []

    def see(module: VAETraining) -> None:
        squares = [p.grad.square().sum() for p in module.model.parameters() if p.grad is not None]
        seen.append(float(torch.stack(squares).sum().sqrt()))

    _watched(monkeypatch, see)
    train(replace(options, clip_norm=0.5, precision="bf16-mixed", epochs=(1, 1), name="clipped"))
    clipped, seen = seen, []
    train(replace(options, precision="bf16-mixed", epochs=(1, 1), name="free"))
    assert max(clipped) <= 0.5 * (1 + 1e-3)
    assert min(clipped) > 0.4
    assert min(seen) > 0.5


def test_a_model_starts_at_the_mean_of_its_images_and_with_little_noise(
    options: TrainOptions, spec: ModelSpec
) -> None:
    data = _colour_data()
    spec = spec.model_copy(update={"color": "rgb"})
    changed = replace(options, start_log_var=-4.0, start_at_mean=True, seed=3)
    plan = Plan(changed, len(data.train), len(data.held_out))
    module = VAETraining(
        spec,
        Schedule(plan),
        data,
        layout=torch.contiguous_format,
        stop_asked=lambda: False,
        save=lambda: None,
    )
    levels = torch.sigmoid(module.model.decoder.image.bias.detach())  # type: ignore[union-attr]  # it has one
    assert levels.tolist() == pytest.approx([50.5 / 255, 0.5, 0.99], abs=2e-3)  # 1 is clamped
    _, log_var = module.model.eval().encode(torch.from_numpy(data.batch(data.train)))
    assert log_var.mean().item() == pytest.approx(-4, abs=0.1)
    assert log_var.std().item() < 0.2


def test_a_resume_file_of_the_version_before_goes_on(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss
) -> None:
    """What that version did not write is taken away: its columns, sums and options."""
    on_loss(10, ctrl_c)
    folder = train(options).folder
    config = config_from_run(folder)
    saved = ResumeFileIO(config).load_checkpoint(folder / "resume.ckpt")
    ours = saved["motorvae"]
    del ours["schedule"]["epochs_since_best"]
    sums = ours["train_sums"]
    ours["train_sums"] = torch.stack([sums[0], sums[1], sums[3]])
    for row in ours["history"]:
        for name in ("train_loss", "held_out_loss", "kl_weight", "end_learning_rate"):
            del row[name]
    ResumeFileIO(config).save_checkpoint(saved, folder / "resume.ckpt")
    document = json.loads((folder / "config.json").read_text())
    document["options"] = {
        name: value for name, value in document["options"].items() if name not in NEW_OPTIONS
    }
    (folder / "config.json").write_text(json.dumps(document))
    assert train(options_to_resume(folder)).finished
    assert weights_of(folder) == weights_of(finished_run)
    for row, expected in zip(rows_of(folder), rows_of(finished_run), strict=True):
        assert row.keys() == expected.keys()
        assert {n: float(v) for n, v in row.items()} == pytest.approx(
            {n: float(v) for n, v in expected.items()}, rel=1e-5
        )


def test_minutes_end_both_stages_and_resume_keeps_the_clock(
    options: TrainOptions, on_loss: OnLoss, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = count()
    monkeypatch.setattr(module_module, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    timed = replace(options, minutes=20 / 60, epochs=(300, 100))
    whole = train(replace(timed, name="timed"))
    on_loss(9, ctrl_c)
    stopped = train(replace(timed, name="stopped"))
    assert not stopped.finished
    resumed = train(options_to_resume(stopped.folder))
    assert resumed.finished
    for outcome in (whole, resumed):
        assert outcome.last is not None
        assert outcome.last.stage == 2
        assert 20 <= outcome.last.elapsed_s <= 23  # a batch under way, and the epoch's end
    assert rows_of(resumed.folder) == rows_of(whole.folder)
    assert weights_of(resumed.folder) == weights_of(whole.folder)
    first = [row for row in rows_of(whole.folder) if row["stage"] == "1"]
    assert 12 <= int(first[-1]["steps"]) <= 16  # three quarters of the time, less the epoch ends


NEW_OPTIONS = {
    *("recipe", "optimizer", "lr_schedule", "warmup", "heads_rate", "clip_norm", "ema", "patience"),
    *("weight_decay", "reconstruction_loss", "kl_schedule", "kl_span", "kl_cycles", "free_bits"),
    *("start_log_var", "start_at_mean", "augment"),
}
"""Options that the version of 28 November 2026 did not have."""


def _colour_data() -> DataSet:
    """Pictures of (50.5, 127.5, 255) levels on average, plane by plane."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 102, (40, 3, 32, 32), dtype=np.uint8)
    images[:, 1] += 77
    images[:, 2] = 255
    rows = np.arange(40)
    names = [str(row) for row in rows]
    return DataSet(images, names, rows[:32], rows[32:], 0, "rgb")


def test_a_loss_that_is_no_number_ends_the_run(options: TrainOptions) -> None:
    with pytest.raises(ConfigError, match=r"not a number after epoch 1 with --learning-rate=0\.9"):
        train(replace(options, learning_rate=0.9, betas=(1e38, 1e38)))


def test_a_run_whose_images_are_sent_as_bytes_is_the_same(
    options: TrainOptions, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU gets them, here on the CPU."""
    asked: list[torch.device] = []

    def always(device: torch.device) -> bool:
        asked.append(device)
        return True

    monkeypatch.setattr("motorvae.training.loop.batches.is_raw", always)
    run = train(replace(options, name="bytes"))
    assert len(asked) == 2 * 4  # training and validation of four epochs
    assert {device.type for device in asked} == {"cpu"}
    assert weights_of(run.folder) == weights_of(finished_run)
