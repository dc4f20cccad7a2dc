from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from motorvae.runtime.core.errors import ConfigError, OutputError
from motorvae.training.checkpoint import config_from_run
from motorvae.training.cli import main
from motorvae.training.options import TrainOptions
from motorvae.training.setup.config_file import options_in_file, text_of_options, write_options


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(here: Path, text: str, name: str = "file.yaml") -> dict[str, object]:
    (here / name).write_text(text)
    return options_in_file(Path(name))


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("learning_rate: 1e-4", "learning_rate", 1e-4),  # by YAML 1.1 a text
        ("learning-rate: 0.0001", "learning_rate", 1e-4),
        ("name: no", "name", "no"),  # by YAML 1.1 False
        ("name: 1:30", "name", "1:30"),  # 90
        ("name: 2026-11-29", "name", "2026-11-29"),  # a date
        ("name: 007", "name", "007"),  # 7
        ("batch_size: 010", "batch_size", 10),  # 8
        ("name: 'null'", "name", "null"),
        ("name: null", "name", None),
        ("name: ~", "name", None),
        ("name:", "name", None),
        ("batch_size: 32", "batch_size", 32),
        ("image_size: 64", "image_size", 64),
        ("image_size: [80, 160]", "image_size", (80, 160)),
        ("channels:\n  - 4\n  - 8", "channels", (4, 8)),
        ("betas: [1e-3, .05]", "betas", (0.001, 0.05)),
        ("epochs: 3", "epochs", (2, 1)),
        ("crop_box: [5, 20, -25, -20]", "crop_box", (5.0, 20.0, -25.0, -20.0)),
        ("devices: 1", "devices", "1"),
        ("start_at_mean: yes", "start_at_mean", True),
        ("start_at_mean: off", "start_at_mean", False),
        ("output: runs/others", "output", Path("runs/others")),
        ("logger: csv", "logger", ("csv",)),
        ("callback: [a:b, c.d:E]", "callback", ("a:b", "c.d:E")),
        ("minutes: .inf", "minutes", None),  # refused: a text that is no number
    ],
)
def test_yaml_is_read_by_the_type_of_each_option(
    here: Path, text: str, name: str, value: object
) -> None:
    if text == "minutes: .inf":
        with pytest.raises(ConfigError, match=r"minutes=\.inf: it should be a valid number"):
            given(here, text)
        return
    assert given(here, text) == {name: value}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat: 1", "learning_rat: no such option, the nearest is learning_rate"),
        ("lr: 1", "lr: no such option, the nearest is learning_rate"),
        ("zzz: 1", "zzz: no such option, the nearest is "),
        ("color: blue", "color=blue: it should be 'grey', 'rgb' or 'bgr'"),
        ("batch_size: 1.5", "batch_size=1.5: it should be a valid integer"),
        ("batch_size: many", "batch_size=many: it should be a valid integer"),
        ("betas: 3", "betas=3: it should be a valid tuple"),
        ('"se\\n\\eed": 1', "se\\n\\x1bed: no such option, the nearest is seed"),
        ('seed: "a\\nb"', "seed=a\\nb: it should be a valid integer"),
        ("seed: null", "seed=None: it should be a valid integer"),
        ("seed: {a: 1}", "seed={'a': '1'}: it should be"),
        ("resume: runs/x", "resume is for the command line"),
        ("config: other.yaml", "config is for the command line"),
        ("seed: 1\nseed: 2", "line 1: a key stands twice"),
        ("batch-size: 1\nbatch_size: 2", "batch_size stands there twice"),
        ("a: &x [1]\nseed: *x", "line 2: an alias is not read here"),
        ("seed: !!python/object/apply:os.system [true]", "line 1: a tag (!!python/object/apply:os"),
        ("name: a\nseed: !!int x", "line 2: a tag (!!int) is not read here"),
        ("name: !!timestamp x", "a tag (!!timestamp) is not read here"),
        ("start_at_mean: !!bool maybe", "a tag (!!bool) is not read here"),
        ("name: ! x", "a tag (!) is not read here"),
        ("!!set {seed, name}", "a tag (!!set) is not read here"),
        ("!mine seed: 1", "a tag (!mine) is not read here"),
        ("seed: [1", "expected ',' or ']'"),
        ("- seed", "holds no names of options"),
        ("", "holds no names of options"),
        ("a" + "[" * 100000, "holds no names of options"),
        ("a: " + "[" * 20000, "file.yaml: RecursionError"),
    ],
    ids=range(28),
)
def test_what_is_no_option_is_one_line(here: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        given(here, text)
    line = str(refusal.value)
    assert said in line
    assert line.startswith("file.yaml")
    assert "\n" not in line


def test_json_is_read_too(here: Path) -> None:
    found = given(here, '{"learning_rate": 0.01, "epochs": [1, 2], "minutes": null}', "a.json")
    assert found == {"learning_rate": 0.01, "epochs": (1, 2), "minutes": None}
    with pytest.raises(ConfigError, match="stands twice"):
        given(here, '{"seed": 1, "seed": 2}', "a.json")
    with pytest.raises(ConfigError, match=r"name it \.yaml, \.yml or \.json"):
        given(here, "seed=1", "a.toml")
    with pytest.raises(ConfigError, match=r"cannot read none\.json"):
        options_in_file(Path("none.json"))
    with pytest.raises(ConfigError, match=r"cannot read none\.yml"):
        options_in_file(Path("none.yml"))


EVERY = TrainOptions(
    data="no", name="1e-4", image_size=(80, 160), crop_box=(0.1, 0, 1, 1), epochs=(3, 4),
    learning_rate=1e-5, batch_size=7, start_at_mean=True, kl_span=(0.0, 0.5), augment=("flip",),
    logger=("csv", "a.b:C"), callback=("~null:x", "d:e"), minutes=0.5, limit_steps=3,
)  # fmt: skip


@pytest.mark.parametrize("options", [EVERY, TrainOptions()], ids=["every", "none"])
@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".json"])
def test_what_is_written_is_read_again(here: Path, options: TrainOptions, suffix: str) -> None:
    path = Path("out" + suffix)
    write_options(options, path)
    assert TrainOptions(**options_in_file(path)) == options  # type: ignore[arg-type]
    with pytest.raises(OutputError, match=f"out{suffix} exists"):
        write_options(options, path)
    assert here.is_dir()


def test_other_readers_find_numbers_in_what_is_written() -> None:
    text = text_of_options(replace(EVERY, name=None), yaml=True)
    read = yaml.safe_load(text)
    assert read["learning_rate"] == 1e-5
    assert (read["data"], read["name"]) == ("no", None)
    assert read["image_size"] == [80, 160]
    assert json.loads(text_of_options(EVERY, yaml=False))["callback"] == ["~null:x", "d:e"]
    assert "# schedule\n" in text


def test_the_command_line_wins_over_the_file_and_that_over_the_recipe(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.yaml").write_text("recipe: fast\nwarmup: 0.2\nlearning_rate: 2e-3\nseed: 4\n")
    assert main(["--config", "a.yaml", "--seed", "5", "--write-config", "out.yaml"]) == 0
    assert "wrote out.yaml; train with it: motorvae-train --config out.yaml" in (
        capsys.readouterr().err
    )
    found = options_in_file(Path("out.yaml"))
    wanted = {"recipe": "fast", "lr_schedule": "cosine", "start_at_mean": True}
    wanted |= {"warmup": 0.2, "learning_rate": 2e-3, "seed": 5}
    assert {name: found[name] for name in wanted} == wanted
    assert main(["--config", "a.yaml", "--recipe", "card", "--write-config", "-"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert (printed["lr_schedule"], printed["warmup"]) == ("stages", 0.2)
    assert sorted(path.name for path in here.iterdir()) == ["a.yaml", "out.yaml"]


def test_flags_that_a_file_sets_may_be_given_and_taken_back(here: Path) -> None:
    (here / "a.yaml").write_text("start_at_mean: true\n")
    for flags, value in (([], True), (["--start-at-mean"], True), (["--no-start-at-mean"], False)):
        name = f"out{len(flags)}{value}.json"
        assert main(["--config", "a.yaml", *flags, "--write-config", name]) == 0
        assert options_in_file(Path(name))["start_at_mean"] is value
    assert main(["--recipe", "fast", "--start-at-mean", "--write-config", "fast.json"]) == 0


def test_a_file_with_a_wrong_value_trains_nothing(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "a.yaml").write_text("learning_rate: 7\n")
    assert main(["--config", "a.yaml"]) == 1
    assert "--learning-rate=7.0: it must be between 0 and 1" in capsys.readouterr().err
    (here / "a.yaml").write_text("learnin_rate: 7\n")
    assert main(["--config", "a.yaml"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "motorvae-train: a.yaml: learnin_rate: no such option, the nearest is learning_rate"
    )
    assert not (here / "runs").exists()


def test_a_run_gives_its_options_to_the_next(finished_run: Path, here: Path) -> None:
    shutil.copyfile(finished_run / "config.json", here / "config.json")
    found = options_in_file(Path("config.json"))
    saved = config_from_run(finished_run).options
    assert "name" not in found
    assert {name: getattr(saved, name) for name in found} == found
    assert main(["--config", "config.json", "--output", "here", "--name", "next"]) == 0
    again = config_from_run(here / "here" / "next").options
    assert again == replace(saved, output=Path("here"), name="next")
    weights = [run / "model.safetensors" for run in (here / "here" / "next", finished_run)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_of_an_earlier_version_is_repeated_as_it_was(finished_run: Path, here: Path) -> None:
    """What its recipe has become since then is not what it did."""
    config = json.loads((finished_run / "config.json").read_text())
    config["options"]["recipe"] = "fast"
    del config["options"]["weight_decay"]
    (here / "config.json").write_text(json.dumps(config))
    assert main(["--config", "config.json", "--write-config", "out.json"]) == 0
    assert options_in_file(Path("out.json"))["weight_decay"] == 0
    assert main(["--recipe", "fast", "--write-config", "fast.json"]) == 0
    assert options_in_file(Path("fast.json"))["weight_decay"] == 0.1


def test_a_file_has_no_part_in_resuming(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "a.yaml").write_text("seed: 1\n")
    assert main(["--resume", "runs/x", "--config", "a.yaml"]) == 1
    assert "--config and --write-config are for a new run" in capsys.readouterr().err
