"""Hugging Face form, offline by local folders, and over HTTP with a stand-in for the Hub."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from huggingface_hub import ModelCard
from PIL import Image

import motorvae as mv
from motorvae.runtime.core.errors import BundleError, CheckpointError, ConfigError, OutputError
from motorvae.training.checkpoint import config_from_run, model_from_checkpoint
from motorvae.training.hub.card import _cell, _factors
from motorvae.training.hub.cli import hub_main
from motorvae.training.hub.explored import explored_in
from motorvae.training.hub.folder import copy_model, save_folder
from motorvae.training.hub.model import HubVAE
from motorvae.training.hub.options import SaveOptions

from ..runs import tree_of, weights_of
from .hub_server import COMMIT, Hub, running_hub

RUN_FILES = {"config.json", "model.safetensors", "latents.npz", "weights.json", "metrics.csv"}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def explored(tmp_path: Path) -> Path:
    """As `motorvae explore` leaves it, with damage that is to be left out."""
    folder = tmp_path / "explore"
    folder.mkdir()
    Image.new("L", (40, 30)).save(folder / "reconstructions.png")
    Image.new("L", (40, 30)).save(folder / "factors.png")
    row = {"name": "wheels <x>", "probe": 0.91, "chance": 0.4, "gap": 0.25, "trees": None}
    model = {"model": "run", "mig": 0.125, "active_units": 7, "factors": [row]}
    numbers = {"source": "96 built-in vehicles", "models": [model]}
    for verb, content in {
        "reconstructions": {"files": ["reconstructions.png"], "lines": ["worst: vehicle-7"]},
        "factors": {"files": ["factors.png"], "lines": [], "numbers": numbers},
        "samples": {"files": ["../secret.png", "samples.png"], "lines": 3},
    }.items():
        (folder / f"{verb}.json").write_text(json.dumps({"verb": verb, **content}))
    (folder / "map.json").write_text("{")
    (folder / "samples.png").symlink_to("reconstructions.png")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return folder


def test_a_run_goes_to_a_folder_and_back(
    finished_run: Path, explored: Path, bundle: Path, tmp_path: Path
) -> None:
    hub = mv.hub.save(
        finished_run, tmp_path / "hub", bundle=bundle, explore=explored, license="mit"
    )
    pictures = {"pictures/reconstructions.png", "pictures/factors.png"}
    assert tree_of(hub) == RUN_FILES | {"README.md"} | pictures
    card = ModelCard.load(hub / "README.md")
    assert (card.data.library_name, card.data.license) == ("motorvae", "mit")
    assert "variational-autoencoder" in card.data.tags
    config = config_from_run(finished_run)
    for said in (
        f"{config.data.train} training and {config.data.held_out} held-out images of built-in",
        "| input | 1 x 32 x 32, grey |",
        "| encoder fp32 | mu |",
        " passed |",
        "exported from these weights",
        "| wheels \\<x\\> | 0.91 | 0.4 | 0.25 |",
        "mig 0.125, active_units 7",
        "![reconstructions](pictures/reconstructions.png)",
        "learned \\<b\\>too\\</b\\> little \\| see",
        "## Limits",
        "Reconstructions are blurred",
        "motorvae-export --pretrained model",
    ):
        assert said in card.content, said
    back = mv.hub.pull(hub, tmp_path / "back")
    assert tree_of(back) == RUN_FILES
    assert weights_of(back) == weights_of(finished_run)
    assert model_from_checkpoint(back)[1].model == config.model


def test_half_a_run_is_said_on_its_card(finished_run: Path, tmp_path: Path) -> None:
    mv.hub.save(finished_run, tmp_path / "hub", half=True)
    assert config_from_run(tmp_path / "hub").weights_dtype == "float16"
    card = (tmp_path / "hub" / "README.md").read_text()
    assert "| weights | FP16, computed with in float32 |" in card
    assert "nothing was exported, so nothing was compared" in card
    # Read by NumPy, and rounded by it: to nearest, ties to even.
    whole, half = (
        safetensors.numpy.load_file(folder / "model.safetensors")
        for folder in (finished_run, tmp_path / "hub")
    )
    read = HubVAE.from_pretrained(tmp_path / "hub").state_dict()
    assert whole.keys() == half.keys() == read.keys()
    for name, value in whole.items():
        is_half = value.dtype == np.float32 and value.ndim > 1
        wanted = value.astype(np.float16) if is_half else value
        assert (half[name].dtype, half[name].tobytes()) == (wanted.dtype, wanted.tobytes()), name
        assert np.array_equal(read[name].numpy(), wanted.astype(value.dtype)), name


def test_a_bundle_goes_to_a_folder_and_back_byte_for_byte(bundle: Path, tmp_path: Path) -> None:
    hub = mv.hub.save(bundle, tmp_path / "hub")
    card = (hub / "README.md").read_text()
    assert "motorvae-stream 0 --model model" in card
    assert "# small bundle" in card
    assert "- onnx" in card
    back = mv.hub.pull(hub, tmp_path / "back")
    assert {name: (back / name).read_bytes() for name in tree_of(back)} == {
        name: (bundle / name).read_bytes() for name in tree_of(bundle)
    }
    assert mv.load(back).manifest == mv.load(bundle).manifest


def test_what_is_no_part_of_a_model_is_never_copied(
    finished_run: Path, bundle: Path, tmp_path: Path
) -> None:
    for source in (finished_run, bundle):
        folder = Path(shutil.copytree(source, tmp_path / f"of {source.name}"))
        for name in ("pytorch_model.bin", "modeling.py", "extra.safetensors", "x.txt"):
            (folder / name).write_bytes(b"x")
        copy_model(folder, tmp_path / f"copy of {source.name}")
        assert not {"pytorch_model.bin", "modeling.py", "extra.safetensors", "x.txt"} & tree_of(
            tmp_path / f"copy of {source.name}"
        )


def test_what_was_altered_on_the_way_is_refused(
    bundle: Path, finished_run: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    content = bytearray((folder / "encoder.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "encoder.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"encoder\.onnx"):
        mv.hub.pull(folder, tmp_path / "out")
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "model.safetensors").write_bytes(weights_of(run)[:-9])
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        mv.hub.pull(run, tmp_path / "out")
    (tmp_path / "none").mkdir()
    with pytest.raises(CheckpointError, match=r"has neither config\.json nor manifest\.json"):
        mv.hub.pull(tmp_path / "none", tmp_path / "out")
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"][0]["file"] = "../run/config.json"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="which is no plain name"):
        mv.hub.pull(folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics.csv", "epoch,steps\n1,many\n"),
        ("metrics.csv", "epoch,steps\n1\n"),
        ("metrics.csv", f"epoch,steps\n1,{'x' * 200_000}\n"),
        ("metrics.csv", "steps\n1\n"),
        ("metrics.csv", None),
        ("weights.json", "{"),
        ("weights.json", None),
        ("latents.npz", "PK"),
        ("latents.npz", None),
    ],
)
def test_what_is_no_file_of_a_run_goes_no_further(
    finished_run: Path, name: str, content: str | None, tmp_path: Path
) -> None:
    """None is a link to a file of whoever publishes, as an unpacked archive may hold."""
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / name).unlink()
    if content is None:
        (tmp_path / "secret").write_text("do not publish\n")
        (run / name).symlink_to(tmp_path / "secret")
    else:
        (run / name).write_text(content)
    model = HubVAE.from_pretrained(run)
    for publish in (mv.hub.save, mv.hub.pull):
        with pytest.raises(CheckpointError) as refusal:
            publish(run, tmp_path / "out")
        # By the name that the user knows, not that of a folder which is gone.
        assert str(run / name) in str(refusal.value)
        assert "\n" not in str(refusal.value)
    earlier = mv.hub.save(finished_run, tmp_path / "saved")
    before = tree_of(earlier)
    with pytest.raises(CheckpointError):
        model.save_pretrained(earlier)
    assert tree_of(earlier) == before  # a model that was there is still whole
    assert {path.name for path in tmp_path.iterdir()} <= {"run", "secret", "saved"}


@pytest.mark.parametrize("damage", ["text", "pipe", "list", "nested"])
def test_the_mixin_reads_no_config_that_we_would_not(
    finished_run: Path, damage: str, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    path = run / "config.json"
    path.unlink()
    if damage == "pipe":
        os.mkfifo(path)
    else:
        path.write_text({"text": "{", "list": "[1]", "nested": "[" * 100_000}[damage])
    with pytest.raises(CheckpointError, match=r"config\.json"):
        HubVAE.from_pretrained(run)


def test_what_does_not_fit_is_one_line(
    bundle: Path, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    manifest = json.loads((other / "manifest.json").read_text())
    manifest["weights_sha256"] = "0" * 64
    (other / "manifest.json").write_text(json.dumps(manifest))
    for options, said in (
        (SaveOptions(model=bundle, half=True), "--half is for a run"),
        (SaveOptions(model=bundle, bundle=bundle), "--bundle is for a run"),
        (SaveOptions(model=finished_run, bundle=other), "was exported from other weights"),
        (SaveOptions(model=finished_run, explore=Path("no")), "--explore=no: there is no such"),
    ):
        with pytest.raises(ConfigError, match=said):
            save_folder(options, tmp_path / "hub")
    assert not (tmp_path / "hub").exists()
    (tmp_path / "hub").mkdir()
    with pytest.raises(OutputError, match="hub exists: name another output"):
        mv.hub.save(finished_run, tmp_path / "hub")
    assert hub_main(["save", str(tmp_path / "nowhere")]) == 1
    assert "has neither config.json nor manifest.json" in capsys.readouterr().err
    assert hub_main(["pull", "nobody/nothing", "--output", str(tmp_path / "x")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("motorvae hub: cannot pull nobody/nothing: ")
    assert hub_main(["push", str(finished_run), "--token", "hf_x"]) == 2
    assert "log in with hf auth login, or set HF_TOKEN" in capsys.readouterr().err


def test_the_mixin_loads_and_saves_offline(finished_run: Path, tmp_path: Path) -> None:
    model = HubVAE.from_pretrained(finished_run)
    assert not model.training
    assert model.run_config == config_from_run(finished_run)
    images = torch.rand(2, 1, 32, 32)
    wanted = model_from_checkpoint(finished_run)[0](images).mu
    assert torch.equal(model(images).mu, wanted)
    model.save_pretrained(tmp_path / "saved")
    assert tree_of(tmp_path / "saved") == RUN_FILES | {"README.md"}
    again = HubVAE.from_pretrained(str(tmp_path / "saved"))
    assert torch.equal(again(images).mu, wanted)
    assert "held-out images of built-in vehicles" in (tmp_path / "saved/README.md").read_text()
    # Of other weights the measurements say nothing.
    with torch.no_grad():
        again.encoder.mu.bias.add_(1)
    again.save_pretrained(tmp_path / "changed")
    assert tree_of(tmp_path / "changed") == {"config.json", "model.safetensors", "README.md"}
    changed, _ = model_from_checkpoint(tmp_path / "changed")
    assert torch.allclose(changed(images).mu, wanted + 1, atol=1e-5)
    # Nor do those of the model that was in the folder before.
    model.save_pretrained(tmp_path / "changed")
    assert tree_of(tmp_path / "changed") >= RUN_FILES
    again.save_pretrained(tmp_path / "changed")
    assert tree_of(tmp_path / "changed") == {"config.json", "model.safetensors", "README.md"}


@pytest.mark.parametrize("is_changed", [False, True])
def test_the_folder_that_a_model_came_from_stays_as_it_is(
    finished_run: Path, tmp_path: Path, *, is_changed: bool
) -> None:
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    model = HubVAE.from_pretrained(run)
    if is_changed:
        with torch.no_grad():
            model.encoder.mu.bias.add_(1)
    (tmp_path / "link").symlink_to(run)
    for folder in (run, str(run), tmp_path / "link", run / ".." / "run"):
        with pytest.raises(OutputError, match="is where this model was loaded from: name another"):
            model.save_pretrained(folder)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.fixture
def hub() -> Hub:
    with running_hub() as running:
        yield running


def command(hub: Hub, home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `motorvae hub` in a process whose Hub is the stand-in."""
    variables = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home / "home"), "HF_TOKEN": "hf_x"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return subprocess.run(
        [sys.executable, "-m", "motorvae", "hub", *words],
        env=kept | variables | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["run", "bundle"])
def test_what_is_pushed_is_pulled(
    hub: Hub, kind: str, finished_run: Path, bundle: Path, tmp_path: Path
) -> None:
    model = {"run": finished_run, "bundle": bundle}[kind]
    pushed = command(hub, tmp_path, "push", str(model), "--repo", "me/small", "--private")
    assert pushed.returncode == 0, pushed.stderr
    assert f"pushed to {hub.address}/me/small/commit/{COMMIT}" in pushed.stderr
    assert ("a bundle holds up to 256 of the held-out images" in pushed.stderr) == (
        kind == "bundle"
    )
    wanted = RUN_FILES if kind == "run" else tree_of(bundle)
    assert set(hub.repos["me/small"]) == wanted | {"README.md"}
    assert hub.private == {"me/small": True}
    # Whatever else is in a repository stays there.
    hub.repos["me/small"] |= {"pytorch_model.bin": b"pickle", "modeling.py": b"code"}
    pulled = command(hub, tmp_path, "pull", "me/small")
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stderr.splitlines()[0] == f"{kind} of me/small in small, checked"
    assert tree_of(tmp_path / "small") == wanted
    assert not {"pytorch_model.bin", "modeling.py", "README.md"} & set(hub.fetched)
    assert not any(path.is_symlink() for path in (tmp_path / "small").rglob("*"))
    other = command(hub, tmp_path, "pull", "me/none")
    assert other.returncode == 1
    assert "motorvae hub: cannot pull me/none: " in other.stderr
    assert len(other.stderr.splitlines()) == 1


def test_a_backslash_gives_no_text_its_meaning_back() -> None:
    """In Markdown two backslashes are one that is shown, and what follows them acts."""
    shown = _cell("\\[here](http://x) \\| \\<b>")
    assert shown == "\\\\\\[here\\](http:<!-- -->//x) \\\\\\| \\\\\\<b\\>"


@pytest.mark.parametrize(
    "text", ["see https://x.y/z", "HTTPS://x.y", "www.x.y", "me@x.y", "@someone"]
)
def test_an_address_in_a_text_becomes_no_link(text: str) -> None:
    """The Hub makes links of bare ones, too; escapes would not keep it from that."""
    before, after = _cell(text).split("<!-- -->")
    assert before + after == text
    assert before.endswith((":", "www", "WWW", "@"))


@pytest.mark.parametrize(
    ("of_row", "of_model"),
    [
        ({}, {"mig": "high"}),
        ({}, {"mig": [1]}),
        ({"probe": []}, {}),
        ({"gap": ""}, {}),
        ({"chance": True}, {}),
        ({}, {"factors": {}}),
    ],
)
def test_figures_that_are_none_are_no_factors(
    tmp_path: Path, of_row: dict[str, object], of_model: dict[str, object]
) -> None:
    row = {"name": "x", "probe": 1, "chance": 0, "gap": None} | of_row
    numbers = {"source": "s", "models": [{"factors": [row]} | of_model]}
    content = {"verb": "factors", "numbers": numbers}
    (tmp_path / "factors.json").write_text(json.dumps(content))
    assert explored_in(tmp_path).factors is None


def test_names_of_factors_are_texts_whatever_they_are(tmp_path: Path) -> None:
    row = {"name": 5, "probe": 1, "chance": 0.25, "gap": None}
    numbers = {"source": None, "models": [{"factors": [row], "mig": 0.5}]}
    content = {"verb": "factors", "numbers": numbers}
    (tmp_path / "factors.json").write_text(json.dumps(content))
    lines = list(_factors(explored_in(tmp_path).factors))
    assert "| 5 | 1 | 0.25 |  |" in lines
    assert "Of None: mig 0.5." in lines


def test_a_card_of_the_mixin_names_no_path(finished_run: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"kind": "folder", "source": "/home/me/secret place/built-in vehicles"}
    (run / "config.json").write_text(json.dumps(config))
    model = HubVAE.from_pretrained(run)
    model.save_pretrained(tmp_path / "saved")
    card = (tmp_path / "saved" / "README.md").read_text()
    assert "held-out images of a folder, built-in vehicles |" in card
    assert "secret" not in card
    assert "motorvae-export --pretrained" not in card  # which draws vehicles, and only these


@pytest.mark.parametrize("repo", ["me/", "me/..", "a/b/c", "me/\x1b[31m", "."])
def test_what_is_no_name_of_a_repository_is_one_line(
    finished_run: Path, repo: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hub_main(["push", str(finished_run), "--repo", repo]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("motorvae hub: --repo=")
    assert line.endswith("write it as OWNER/NAME")
