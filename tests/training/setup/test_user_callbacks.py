from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from motorvae.runtime.core.errors import ConfigError, UserCodeError
from motorvae.training.checkpoint import config_from_run
from motorvae.training.cli import main
from motorvae.training.loop.resume_file import steps_saved
from motorvae.training.options import TrainOptions
from motorvae.training.train import options_to_resume, train

from ..runs import OnLoss, ctrl_c, weights_of

OF_USER = """
from pathlib import Path
from lightning.pytorch.callbacks import Callback, EarlyStopping, LambdaCallback, ModelCheckpoint

class Counts(Callback):
    batches = 0

    def on_train_batch_end(self, trainer, pl_module, *args):
        self.batches += 1

    def on_fit_end(self, trainer, pl_module):
        Path("counted.txt").write_text(f"{self.batches} {pl_module.history[-1].epoch}")

    def state_dict(self):
        return {"batches": self.batches}

    def load_state_dict(self, state):
        self.batches = state["batches"]

class First(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        order("first")

class Second(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        order("second")

def order(word):
    with open("order.txt", "a") as file:
        file.write(word + " ")

class Fails(Callback):
    at = 8
    def on_train_batch_end(self, trainer, pl_module, *args):
        self.at -= 1
        if not Path("mended").exists() and not self.at:
            raise ZeroDivisionError("of the user's")

class KeepsCode(Counts):
    def state_dict(self):
        return {"path": Path("x")}

def by_lambda():
    def fail(*_):
        raise KeyError("lambda")
    return LambdaCallback(on_train_epoch_start=fail)

def keeps_best():
    return ModelCheckpoint(filename="user-{epoch}", monitor=None, save_top_k=-1)

def not_one(): return 3
def cannot(): raise OSError("no device")
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hooks_of_user.py").write_text(OF_USER)
    monkeypatch.delitem(sys.modules, "hooks_of_user", raising=False)
    return tmp_path


def test_callbacks_run_in_their_order_and_change_nothing(
    finished_run: Path, options: TrainOptions, here: Path
) -> None:
    names = ("hooks_of_user:Second", "hooks_of_user:First", "hooks_of_user:Counts")
    run = train(replace(options, callback=names)).folder
    assert weights_of(run) == weights_of(finished_run)
    assert (here / "order.txt").read_text() == "second first " * 4
    steps = int((run / "metrics.csv").read_text().splitlines()[-1].split(",")[4])
    assert (here / "counted.txt").read_text() == f"{steps} 4"
    assert config_from_run(run).options.callback == names


def test_a_callbacks_state_goes_on_where_a_run_is_resumed(
    options: TrainOptions, on_loss: OnLoss, here: Path
) -> None:
    on_loss(12, ctrl_c)
    stopped = train(replace(options, callback=("hooks_of_user:Counts",), name="cut"))
    done = train(options_to_resume(stopped.folder))
    assert done.finished
    assert (here / "counted.txt").read_text() == f"{done.steps} 4"


def test_a_callback_that_fails_ends_the_run_in_one_line(
    finished_run: Path, here: Path, options: TrainOptions
) -> None:
    with pytest.raises(UserCodeError) as failure:
        train(replace(options, callback=("hooks_of_user:Fails",), name="cut"))
    folder = options.output / "cut"
    line = str(failure.value)
    assert line == (
        "--callback hooks_of_user:Fails failed in on_train_batch_end: ZeroDivisionError: of the "
        f"user's; mend it, then go on with motorvae-train --resume {folder.resolve()}"
    )
    assert steps_saved(folder) == 5
    (here / "mended").touch()
    assert train(options_to_resume(folder)).finished
    assert weights_of(folder) == weights_of(finished_run)


def test_what_a_library_callback_calls_is_guarded_too(options: TrainOptions) -> None:
    with pytest.raises(UserCodeError, match=r"by_lambda failed in on_train_epoch_start: KeyError"):
        train(replace(options, callback=("hooks_of_user:by_lambda",)))


def test_a_state_that_could_not_be_read_again_is_not_written(options: TrainOptions) -> None:
    """What it would take is unpickling code, which is never done."""
    with pytest.raises(UserCodeError, match=r"would hold pathlib\.") as refusal:
        train(replace(options, callback=("hooks_of_user:KeepsCode",), name="cut"))
    assert "let callbacks keep numbers, texts and tensors" in str(refusal.value)
    assert not (options.output / "cut" / "resume.ckpt").exists()
    assert train(replace(options_to_resume(options.output / "cut"), callback=())).finished


def test_a_checkpoint_callback_writes_in_the_runs_folder(options: TrainOptions, here: Path) -> None:
    run = train(replace(options, callback=("hooks_of_user:keeps_best",), logger=("none",))).folder
    assert min(path.name for path in (run / "checkpoints").iterdir()).startswith("user-")
    assert not (here / "checkpoints").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("hooks_of_user:not_one",), "gives a int: let it give a lightning.pytorch.Callback"),
        (("hooks_of_user:cannot",), "hooks_of_user:cannot failed: OSError: no device"),
        (("hooks_of_user:none",), "hooks_of_user has no none"),
        (("no_such_module:x",), "importing no_such_module: ModuleNotFoundError"),
        (("hooks_of_user:Counts", "hooks_of_user:Counts"), "would keep their states under the"),
    ],
)
def test_what_is_no_callback_is_refused_before_images_are_read(
    options: TrainOptions, names: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError) as refusal:
        train(replace(options, callback=names))
    assert said in str(refusal.value)
    assert not options.output.exists()


def test_names_stand_before_the_data_on_a_command_line() -> None:
    words = ["--callback", "a:b", "c.d:E", "--logger", "csv", "x.y:Z", "photos/"]
    options: TrainOptions = main.parse(words)
    assert (options.callback, options.logger) == (("a:b", "c.d:E"), ("csv", "x.y:Z"))
    assert options.data == "photos/"
    assert main.parse(["--logger", "none", "photos/*.jpg"]).data == "photos/*.jpg"
