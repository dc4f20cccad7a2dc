from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import CheckpointError, ConfigError, OutputError
from motorvae.training.checkpoint import config_from_run, model_from_checkpoint, weights_as
from motorvae.training.cli import main
from motorvae.training.options import TrainOptions
from motorvae.training.pretrained import folder as folder_module
from motorvae.training.pretrained.folder import (
    begin_from,
    pretrained_folder,
    pretrained_for,
    save_model,
    shipped_models,
)
from motorvae.training.train import options_to_resume, train

from ..runs import OnLoss, ctrl_c, tree_of, weights_of

SMALL = ("--vehicles-count", "48", "--batch-size", "8", "--threads", "1", "--precision", "32-true")


@pytest.fixture
def shipped(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model that stands in for the one that the package holds, in FP16."""
    models = tmp_path / "shipped"
    models.mkdir()
    save_model(finished_run, models / "vehicles", dtype="float16")
    monkeypatch.setattr(folder_module, "_SHIPPED", models)
    return models / "vehicles"


def test_a_shipped_model_is_half_as_large_and_nearly_the_same(
    finished_run: Path, shipped: Path
) -> None:
    assert tree_of(shipped) == {
        *("config.json", "model.safetensors", "latents.npz", "weights.json", "metrics.csv")
    }
    sizes = [(one / "model.safetensors").stat().st_size for one in (shipped, finished_run)]
    assert sizes[0] < 0.62 * sizes[1]  # of so small a model the header is much
    types = {
        one.dtype for one in safetensors.torch.load_file(shipped / "model.safetensors").values()
    }
    assert types == {torch.float16, torch.float32, torch.int64}
    images = torch.rand(4, 1, 32, 32)
    (half, config), (whole, _) = map(model_from_checkpoint, (shipped, finished_run))
    assert config.weights_dtype == "float16"
    assert {one.dtype for one in half.state_dict().values()} == {torch.float32, torch.int64}
    with torch.no_grad():
        away = (half(images).mu - whole(images).mu).abs().max()
        assert 0 < away < 0.01 * whole(images).mu.std()


@pytest.mark.parametrize("dtype", ["float32", None])
def test_halved_weights_are_read_only_where_the_config_declares_them(
    shipped: Path, dtype: str | None
) -> None:
    config = json.loads((shipped / "config.json").read_text())
    assert config.pop("weights_dtype") == "float16"
    (shipped / "config.json").write_text(
        json.dumps(config | ({} if dtype is None else {"weights_dtype": dtype}))
    )
    with pytest.raises(CheckpointError, match=r"float16, expected .* float32"):
        model_from_checkpoint(shipped)


def test_whole_weights_are_no_halved_ones(shipped: Path, finished_run: Path) -> None:
    shutil.copyfile(finished_run / "model.safetensors", shipped / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"float32, expected .* float16"):
        model_from_checkpoint(shipped)


def test_what_fp16_cannot_hold_is_refused() -> None:
    weights = {"layer.weight": torch.tensor([[1e6]]), "layer.bias": torch.tensor([1e6])}
    with pytest.raises(CheckpointError, match=r"layer\.weight has values that FP16 cannot hold"):
        weights_as(weights, "float16")
    del weights["layer.weight"]
    assert weights_as(weights, "float16") == weights


def _sizes_of(run: Path) -> dict[str, Any]:
    options = config_from_run(run).options
    return {name: getattr(options, name) for name in TrainOptions.GROUPS["model"]}


def test_a_saved_model_names_no_place_of_this_machine(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["options"]["data"] = config["data"]["source"] = "/home/me/secret place/photos"
    config["data"]["kind"] = "folder"
    config["options"] |= {"config": "/home/me/secret place/mine.yaml", "callback": ["mine:secrets"]}
    (run / "config.json").write_text(json.dumps(config))
    going_on = pretrained_for(TrainOptions(pretrained=str(run), **_sizes_of(run)))
    assert going_on is not None
    assert "secret" not in str(going_on.origin)
    assert going_on.origin.notes[0].endswith(f"{config['data']['train']} of photos")
    save_model(run, tmp_path / "model")
    text = (tmp_path / "model" / "config.json").read_text()
    assert "secret" not in text
    assert str(tmp_path) not in text
    assert config_from_run(tmp_path / "model").data.source == "photos"
    assert weights_of(tmp_path / "model") == weights_of(run)
    with pytest.raises(OutputError, match="model exists: name another folder"):
        save_model(run, tmp_path / "model")


def test_shipped_models_go_before_folders(shipped: Path, here: Path) -> None:
    assert shipped_models() == ("vehicles",)
    (here / "vehicles").mkdir()
    assert pretrained_folder("vehicles") == shipped
    assert pretrained_folder("./vehicles") == Path("vehicles")
    with pytest.raises(
        ConfigError, match=r"--pretrained=cars: there is no such folder, and no"
    ) as no:
        pretrained_folder("cars")
    assert "in this package, which has vehicles: name a finished run" in str(no.value)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_training_goes_on_from_shipped_weights(
    shipped: Path, here: Path, on_loss: OnLoss, capfd: pytest.CaptureFixture[str]
) -> None:
    """The first loss that is computed is that of the shipped weights: nothing resets them."""
    wanted = model_from_checkpoint(shipped)[0].state_dict()
    begun: list[bool] = []

    def compare() -> None:
        start = safetensors.torch.load_file(
            here / "runs" / "on" / "cache" / "pretrained.safetensors"
        )
        begun.append(all(torch.equal(start[name], wanted[name]) for name in wanted))

    on_loss(1, compare)
    args = ["--pretrained", "vehicles", *SMALL, "--epochs", "1", "1", "--name", "on"]
    assert main([*args, "--lr", "1e-9"]) == 0, capfd.readouterr().err
    assert begun == [True]
    trained, config = model_from_checkpoint(here / "runs" / "on")
    assert config.model == config_from_run(shipped).model
    assert config.options.pretrained == "vehicles"
    for name, value in trained.named_parameters():
        assert torch.allclose(value, wanted[name], atol=1e-6), name
    assert config.origin is not None
    assert (config.origin.kind, config.origin.name) == ("pretrained", "vehicles")
    assert config.origin.files == {"model.safetensors": sha256_of(shipped / "model.safetensors")}
    (note,) = config.origin.notes
    assert "of vehicles" in note
    assert not (here / "runs" / "on" / "cache").exists()
    # What that run gave can be begun with again, and says what it began with itself.
    assert main(["--pretrained", "runs/on", *SMALL, "--epochs", "1", "1", "--name", "again"]) == 0
    origin = config_from_run(here / "runs" / "again").origin
    assert origin is not None
    assert (origin.name, origin.notes[1]) == ("on", "those had begun with vehicles (pretrained)")


@pytest.mark.parametrize(
    "contradiction",
    [
        ("--image-size", "64"),
        ("--latent-size", "9"),
        ("--color", "rgb"),
        ("--fit", "pad"),
        ("--channels", "4", "8"),
    ],
)
def test_an_option_that_contradicts_the_weights_is_one_line(
    shipped: Path, here: Path, contradiction: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert shipped.is_dir()
    assert main(["--pretrained", "vehicles", *contradiction]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert f"{contradiction[0]}=" in line
    assert "contradicts the weights of --pretrained=vehicles, which have" in line
    assert f"leave {contradiction[0]} out" in line
    assert list(here.iterdir()) == []


def test_another_network_is_no_start(
    shipped: Path, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    config = json.loads((shipped / "config.json").read_text())
    config["model"]["channels"] = None
    (shipped / "config.json").write_text(json.dumps(config))
    assert main(["--pretrained", "vehicles", "--write-config", "-"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "--pretrained=vehicles: this is not the card's network" in line
    assert list(here.iterdir()) == []


def test_what_agrees_with_the_weights_may_be_said(shipped: Path) -> None:
    spec = config_from_run(shipped).model
    same = TrainOptions(
        pretrained="vehicles",
        image_size=spec.image_size,
        channels=spec.channels or (),
        latent_size=spec.latent_size,
    )
    start = pretrained_for(same)
    assert start is not None
    assert start.spec == spec
    assert pretrained_for(TrainOptions()) is None


@pytest.mark.parametrize("number", [2, 12])
def test_a_run_that_began_with_weights_resumes_to_the_same_bytes(
    finished_run: Path, options: TrainOptions, on_loss: OnLoss, number: int, tmp_path: Path
) -> None:
    """Stopped before its first resume file, too, and with the weights it began with gone."""
    run = Path(shutil.copytree(finished_run, tmp_path / "first"))
    asked = replace(options, pretrained=str(run), seed=3)
    whole = train(replace(asked, name="uncut"))
    on_loss(number, ctrl_c)
    stopped = train(replace(asked, name="cut"))
    assert not stopped.finished
    if number == 2:
        (stopped.folder / "resume.ckpt").unlink()
    shutil.rmtree(run)
    assert train(options_to_resume(stopped.folder)).finished
    assert weights_of(stopped.folder) == weights_of(whole.folder)


def test_weights_to_begin_with_are_checked(finished_run: Path, tmp_path: Path) -> None:
    model, _ = model_from_checkpoint(finished_run)
    begin_from(tmp_path / "none.safetensors", model)
    start = tmp_path / "pretrained.safetensors"
    start.write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"pretrained\.safetensors has a header of over"):
        begin_from(start, model)
