from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from motorvae.runtime.core.errors import ConfigError, MissingDependencyError, UserCodeError
from motorvae.training.options import TrainOptions, spec_from_train_options
from motorvae.training.setup.loggers import makers_of_loggers
from motorvae.training.train import options_to_resume, train

from ..runs import OnLoss, ctrl_c, rows_of

OF_USER = """
import json
from pathlib import Path
from lightning.pytorch.loggers import Logger

class Lines(Logger):
    def __init__(self, save_dir, name="none", version=None, unknown=5):
        super().__init__()
        self.path = Path(save_dir) / "lines.txt"
        self._name, self._version = name, version or "first"
        self.write("made", name, self._version, unknown)

    name = property(lambda self: self._name)
    version = property(lambda self: self._version)

    def write(self, *what):
        with self.path.open("a") as file:
            file.write(json.dumps(what) + "\\n")

    def log_metrics(self, metrics, step=None):
        self.write("metrics", step, metrics["held_out_total"])

    def log_hyperparams(self, params, *args, **kwargs):
        self.write("options", params["seed"], params["epochs"])

class Fails(Lines):
    def log_metrics(self, metrics, step=None):
        raise ConnectionError("the server has gone")

class Never(Lines):
    def __init__(self, save_dir):
        raise PermissionError("no key")

class Unreachable(Lines):
    @property
    def experiment(self):
        raise PermissionError("no key")

value = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs_of_user.py").write_text(OF_USER)
    monkeypatch.delitem(sys.modules, "logs_of_user", raising=False)
    return tmp_path


def csv_rows(run: Path) -> list[dict[str, str]]:
    with (run / "csv" / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_csv_logger_goes_on_where_a_run_is_resumed(
    options: TrainOptions, on_loss: OnLoss
) -> None:
    """Lightning's own deletes its file when it is opened again."""
    on_loss(16, ctrl_c)
    stopped = train(replace(options, logger=("csv",), name="cut"))
    assert not stopped.finished
    assert len(csv_rows(stopped.folder)) == len(rows_of(stopped.folder)) >= 1
    assert train(options_to_resume(stopped.folder)).finished
    rows = csv_rows(stopped.folder)
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    ours = [row["held_out_total"] for row in rows_of(stopped.folder)]
    assert [float(row["held_out_total"]) for row in rows] == pytest.approx(list(map(float, ours)))
    told = yaml.safe_load((stopped.folder / "csv" / "hparams.yaml").read_text())
    assert (told["seed"], told["epochs"]) == (0, [2, 2])
    assert not (stopped.folder / "tensorboard").exists()


def test_none_writes_nothing(options: TrainOptions) -> None:
    run = train(replace(options, logger=("none",), epochs=(1, 1))).folder
    assert not {"csv", "tensorboard", "loggers.json"} & {path.name for path in run.iterdir()}


def test_a_class_of_the_users_gets_what_it_takes_and_goes_on(
    options: TrainOptions, on_loss: OnLoss, here: Path
) -> None:
    on_loss(16, ctrl_c)
    asked = replace(options, logger=("tensorboard", "logs_of_user:Lines"), name="cut")
    stopped = train(asked)
    kept = json.loads((stopped.folder / "loggers.json").read_text())
    assert kept["versions"] == {"logs_of_user:Lines": "first"}
    kept["versions"]["logs_of_user:Lines"] = "changed"
    (stopped.folder / "loggers.json").write_text(json.dumps(kept))
    assert train(options_to_resume(stopped.folder)).finished
    lines = [json.loads(line) for line in (stopped.folder / "lines.txt").read_text().splitlines()]
    assert [line for line in lines if line[0] == "made"] == [
        ["made", "cut", "first", 5],
        ["made", "cut", "changed", 5],
    ]
    assert [line[1] for line in lines if line[0] == "metrics"] == [1, 2, 3, 4]
    assert [line for line in lines if line[0] == "options"] == [["options", 0, [2, 2]]]
    assert list((stopped.folder / "tensorboard").glob("events.*"))
    assert here.is_dir()


def test_a_logger_that_fails_ends_the_run_in_one_line(options: TrainOptions, here: Path) -> None:
    with pytest.raises(UserCodeError) as failure:
        train(replace(options, logger=("logs_of_user:Fails",), name="cut"))
    line = str(failure.value)
    assert line.startswith(
        "--logger logs_of_user:Fails failed in log_metrics: ConnectionError: the server has gone; "
        "mend it, then go on with motorvae-train --resume "
    )
    assert "\n" not in line
    # Another logger may be taken instead.
    resumed = replace(options_to_resume(options.output / "cut"), logger=("none",))
    assert train(resumed).finished
    assert here.is_dir()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("logs_of_user:value", "it is no class of lightning.pytorch.loggers.Logger"),
        ("logs_of_user:json", "it is no class of"),
        ("logs_of_user:none", "logs_of_user has no none"),
        ("no_such:Logger", "importing no_such: ModuleNotFoundError"),
    ],
)
def test_what_is_no_logger_is_refused_before_images_are_read(
    options: TrainOptions, here: Path, name: str, said: str
) -> None:
    with pytest.raises(ConfigError, match=f"--logger {name}.*{said}"):
        train(replace(options, logger=(name,)))
    assert not options.output.exists()
    assert here.is_dir()


@pytest.mark.parametrize("name", ["Never", "Unreachable"])
def test_what_cannot_be_set_up_is_one_line(options: TrainOptions, here: Path, name: str) -> None:
    said = r"cannot be set up: PermissionError: no key; mend it, then go on with .* --resume"
    with pytest.raises(UserCodeError, match=f"{name} {said}"):
        train(replace(options, logger=(f"logs_of_user:{name}",), name="cut"))
    assert here.is_dir()


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_missing_service_says_how_to_install_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{makers_of_loggers.__module__}.importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError) as missing:
        makers_of_loggers([name])
    assert str(missing.value) == (
        f"--logger {name} needs the package {name}, which is not installed: pip install {name}, "
        "or take --logger tensorboard or csv"
    )


@pytest.mark.parametrize(
    "names", [(), ("csv", "csv"), ("none", "csv"), ("lightning",), ("a:b:c",), ("a:",)]
)
def test_names_that_mean_nothing_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"--logger=.*it must be some of tensorboard, csv, none"):
        spec_from_train_options(TrainOptions(logger=names))


def test_the_default_is_tensorboard() -> None:
    assert list(makers_of_loggers(TrainOptions().logger)) == ["tensorboard"]
    assert makers_of_loggers(("none",)) == {}
