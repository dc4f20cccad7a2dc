"""Whole runs on shards: as one would, stopped, killed and resumed, with shards that go missing."""

from __future__ import annotations

import csv
import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motorvae.runtime.core.errors import DataError
from motorvae.training import cli
from motorvae.training.checkpoint import config_from_run
from motorvae.training.cli import lines_of
from motorvae.training.loop.resume_file import steps_saved
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

from .. import rank_callbacks
from ..processes import SMALL, end_all, environment, ours, said, started, torchrun
from ..runs import ctrl_c, rows_of, weights_of
from .packing import mixed_windows, packed

OnLoss = Callable[[int, Callable[[], object]], None]
ROUNDING = 1e-5


@pytest.fixture
def on_shards(options: TrainOptions, shards: Path, monkeypatch: pytest.MonkeyPatch) -> TrainOptions:
    """Those of the tests' small runs, on shards that no window holds all of."""
    mixed_windows(monkeypatch)
    return replace(options, data=f"{shards}/train-*.tar")


def test_a_run_keeps_all_that_one_on_pictures_does(on_shards: TrainOptions, shards: Path) -> None:
    outcome = train(replace(on_shards, name="whole", augment=("flip",), start_at_mean=True))
    folder = outcome.folder
    assert outcome.finished
    data = config_from_run(folder).data
    assert (data.kind, data.train + data.held_out, data.skipped) == ("shards", 48, 0)
    assert not (folder / "cache").exists()
    with np.load(folder / "held_out.npz") as found:
        assert found["images"].shape == (data.held_out, 32, 32)
        assert all(name.startswith("train-00") for name in found["names"])
    with np.load(folder / "train_latents.npz") as found:
        assert len(found["names"]) == len(found["mu"]) == data.train
    for name in ("latents.npz", "metrics.csv", "reconstructions/best.png"):
        assert (folder / name).is_file()
    assert [row["replaced"] for row in rows_of(folder)] == ["0"] * 4
    assert not any("could not be read" in line for line in lines_of(outcome))
    assert sorted(path.suffix for path in shards.iterdir()) == [".tar"] * 8  # nothing beside them


@pytest.mark.parametrize("number", [3, 9])
def test_stopped_then_resumed_is_the_uninterrupted_run(
    on_shards: TrainOptions, on_loss: OnLoss, number: int
) -> None:
    whole = train(replace(on_shards, name="whole"))
    on_loss(number, ctrl_c)
    stopped = train(replace(on_shards, name="stopped"))
    assert not stopped.finished
    kept = {path.name for path in (stopped.folder / "cache").iterdir()}
    assert "images.u8" not in kept
    assert train(options_to_resume(stopped.folder)).finished
    assert weights_of(stopped.folder) == weights_of(whole.folder)
    assert rows_of(stopped.folder) == rows_of(whole.folder)


def test_a_shard_that_vanishes_between_epochs_is_counted_and_ends_nothing(
    on_shards: TrainOptions,
    shards: Path,
    on_loss: OnLoss,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # During validation after the first of five steps an epoch.
    on_loss(6, (shards / "train-003.tar").unlink)
    outcome = train(replace(on_shards, name="one"))
    assert outcome.finished
    found = [int(row["replaced"]) for row in rows_of(outcome.folder)]
    assert found[0] == 0
    assert min(found[1:]) >= 1
    assert outcome.replaced == sum(found)
    warnings = [line for line in capsys.readouterr().err.splitlines() if "any more" in line]
    assert len(warnings) == 1
    assert f"warning: {shards}/train-003.tar cannot be read any more (No such file" in warnings[0]
    (line,) = [line for line in lines_of(outcome) if "could not be read any more" in line]
    assert line.startswith(f"warning: {sum(found)} images could not be read any more")


def test_a_set_that_changed_is_refused_in_one_line_and_one_that_moved_is_not(
    on_shards: TrainOptions, shards: Path, on_loss: OnLoss, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = train(replace(on_shards, name="whole"))
    on_loss(3, ctrl_c)
    stopped = train(replace(on_shards, name="stopped"))
    shutil.copytree(shards, shards.with_name("kept"))
    packed(shards, range(100, 148))
    capsys.readouterr()
    assert cli.main(["--resume", str(stopped.folder)]) == 1
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert line.startswith(
        f"motorvae-train: {shards}/train-000.tar has changed since the run began"
    )
    assert "put back what it was, remove it to go on without it, or start a new run" in line
    # The same files, copied back: other times of change only.
    shutil.rmtree(shards)
    shutil.copytree(shards.with_name("kept"), shards, copy_function=shutil.copyfile)
    assert train(options_to_resume(stopped.folder)).finished
    assert weights_of(stopped.folder) == weights_of(whole.folder)


def test_all_shards_gone_is_one_line(
    on_shards: TrainOptions, shards: Path, on_loss: OnLoss
) -> None:
    on_loss(3, lambda: [path.unlink() for path in shards.iterdir()])
    with pytest.raises(DataError, match="no image of the 8 shards can be read any more"):
        train(replace(on_shards, name="one"))


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """A folder to start processes in, with shards and callbacks."""
    shutil.copy(rank_callbacks.__file__, tmp_path)
    packed(tmp_path / "shards", range(48))
    yield tmp_path
    end_all()


@pytest.mark.parametrize(("sent", "at", "saved"), [(signal.SIGKILL, 7, 6), (signal.SIGTERM, 3, 4)])
def test_two_processes_that_are_killed_or_stopped_go_on_as_one(
    here: Path, sent: signal.Signals, at: int, saved: int
) -> None:
    """The curve is that of one process that was never stopped; only rounding differs."""
    callback = "tests.training.rank_callbacks:FixedBatchNorm"
    options = TrainOptions(
        data=str(here / "shards"),
        output=here / "runs",
        name="one",
        image_size=32,
        channels=(4, 8, 8, 16, 16),
        latent_size=8,
        batch_size=16,
        learning_rate=1e-3,
        epochs=(2, 2),
        held_out=0.2,
        precision="32-true",
        accelerator="cpu",
        devices="1",
        threads=1,
        callback=(callback,),
    )
    curve = _curve(train(options).folder)
    words = ("shards", *SMALL[3:], "--epochs", "2", "2", "--name", "two", "--callback")
    command = torchrun(2, *words, "rank_callbacks:FixedBatchNorm", "rank_callbacks:Signalled")
    env = environment(ON_RANK="1", AT_STEP=str(at), SIGNAL=str(int(sent)))
    with started(command, here, env) as process:
        assert process.stderr is not None
        lines = process.stderr.read().splitlines()
    assert process.returncode != 0
    assert len(ours(lines)) == 1
    folder = here / "runs" / "two"
    assert steps_saved(folder) == saved
    resumed = replace(options_to_resume(folder), devices="1", callback=(callback,))
    assert train(resumed).finished
    found = _curve(folder)
    assert len(found) == len(curve) == 4
    for row, one in zip(found, curve, strict=True):
        assert row == pytest.approx(one, rel=ROUNDING)


def test_what_two_processes_replace_is_counted_together(here: Path) -> None:
    """The second epoch begins once the shard is gone: each of its six images is replaced once."""
    (here / "vanish.py").write_text(
        "from pathlib import Path\n"
        "from lightning.pytorch.callbacks import Callback\n"
        "class Vanish(Callback):\n"
        "    def on_train_start(self, trainer, module):\n"
        "        Path('shards/train-003.tar').unlink(missing_ok=True)\n"
    )
    words = ("shards", *SMALL[3:], "--epochs", "1", "1", "--name", "two")
    lines = said(torchrun(2, *words, "--callback", "vanish:Vanish"), here)
    assert _curve(here / "runs" / "two")[1]["replaced"] == 6
    missed = [line for line in lines if "cannot be read any more" in line]
    assert missed
    assert all(line.startswith("warning: rank ") for line in missed)


def _curve(folder: Path) -> list[dict[str, float]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            {name: float(value) for name, value in row.items() if name != "elapsed_s"}
            for row in csv.DictReader(file)
        ]
