"""Torch modules of anybody: whatever encode and decode give, judged by torch itself."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from motorvae.export.importing.options import ImportOptions
from motorvae.export.importing.torch_module import UserModule, model_from_module
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import ConfigError, GraphError, MotorVAEError

from . import networks
from .conftest import Says

FACTORY = """
from torch import nn
import torch

class Vae(nn.Module):
    def __init__(self):
        super().__init__()
        self.down = nn.Conv2d(3, 6, 4, 4)
        self.up = nn.Upsample(scale_factor=4.0)
    def encode(self, x):
        mean, log_var = self.down(x).chunk(2, dim=1)
        return mean, log_var.clamp(-30, 20)
    def decode(self, z):
        return self.up(z)

def make(): return Vae()
def nothing(): return 7
def fails(): raise RuntimeError("first line\\nno such layer")
value = 3
class Half(nn.Module):
    def encode(self, x): return x
"""


@pytest.fixture
def theirs(here: Path) -> Iterator[Path]:
    """The current folder with a module of the user's own, and its weights."""
    (here / "theirs.py").write_text(FACTORY, encoding="utf-8")
    weight = torch.zeros(6, 3, 4, 4)
    for channel in range(3):
        weight[channel, channel] = 1 / 16
        weight[3 + channel, channel] = 0.001
    tensors = {"down.weight": weight, "down.bias": torch.tensor([0.0] * 3 + [-6.0] * 3)}
    safetensors.torch.save_file(tensors, here / "weights.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in tensors.items()}}, here / "weights.pt")
    torch.save({"down.weight": torch.zeros(2), "more": torch.zeros(1)}, here / "wrong.pt")
    yield here
    sys.modules.pop("theirs", None)


@pytest.mark.parametrize("weights", ["weights.safetensors", "weights.pt"])
def test_a_module_of_the_current_folder_becomes_a_bundle(
    theirs: Path, images: Path, says: Says, weights: str
) -> None:
    said = says(
        "--module", "theirs:make", "--weights", weights, "--image-size", "32", "48",
        "--images", images, "--engine", "none",
    )  # fmt: skip
    assert "bundle of theirs:make in bundle" in said
    manifest = load_bundle(theirs / "bundle").manifest
    assert manifest.model.input_shape == (3, 32, 48)
    assert manifest.model.latent_shape == (3, 8, 12)
    assert manifest.verification[0].reference.startswith("the original in torch ")
    assert manifest.origin is not None
    assert manifest.origin.kind == "module"
    assert manifest.origin.files == {weights: sha256_of(theirs / weights)}
    assert manifest.weights_sha256 == sha256_of(theirs / weights)
    assert str(theirs) not in sys.path


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["theirs"], "--module theirs: write it as package.module:factory"),
        (["theirs:none"], "theirs has no none"),
        (["theirs:value"], "value cannot be called"),
        (["theirs:nothing"], "gives a int: let it give a torch.nn.Module"),
        (["theirs:fails"], "theirs:fails failed: RuntimeError: no such layer"),
        (["theirs:Half"], "gives a Half without decode"),
        (["no_such:make"], "importing no_such: ModuleNotFoundError"),
        (["theirs:make", "--weights", "wrong.pt"], "missing: down.bias; unexpected: more"),
        (["theirs:make", "--weights", "no.pt"], "--weights no.pt does not exist"),
    ],
)
def test_what_is_no_module_is_refused_in_one_line(
    theirs: Path, images: Path, says: Says, args: list[str], said: str
) -> None:
    line = says("--module", *args, "--images", images, "--image-size", "32", code=1)
    assert said in line
    assert not (theirs / "bundle").exists()


def understood(module: torch.nn.Module, folder: Path, **options: object) -> object:
    user = UserModule(module, "module", "theirs:make", {})
    asked = ImportOptions(images="-", image_size=32, value_range=(-1, 1), **options)
    return model_from_module(asked, user, folder)


@pytest.mark.parametrize(
    ("kind", "has_log_var"),
    [
        ("Pool", True),
        ("PoolOfDistributions", True),
        ("PoolOfNormals", True),
        ("PoolOfMeans", False),
    ],
)
def test_whatever_encode_gives(kind: str, has_log_var: bool, tmp_path: Path) -> None:
    torch.manual_seed(2)
    module = getattr(networks, kind)()
    model = understood(module, tmp_path)
    assert model.spec.has_log_var is has_log_var
    images = np.random.default_rng(0).random((3, 3, 32, 32), np.float32)
    mean, log_var = module.down(torch.from_numpy(2 * images - 1))
    found = model.encoder.run(images)
    np.testing.assert_allclose(found["mu"], mean.detach().flatten(1), atol=1e-6)
    if has_log_var:
        np.testing.assert_allclose(found["log_var"], log_var.detach().flatten(1), atol=1e-5)
    graphs = model.graphs(images)  # which proves them equal to what was exported
    assert set(graphs) == {"encoder", "decoder"}


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("PoolOfThree", "encode.x. gives 3 of Tensor: its encode.x. must give mu and log_var"),
        ("PoolThatDraws", "draws random numbers"),
    ],
)
def test_encoders_that_leave_it_open_are_refused(kind: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=said):
        understood(getattr(networks, kind)(), tmp_path)


def test_a_size_that_a_module_cannot_take_is_one_line(tmp_path: Path) -> None:
    user = UserModule(networks.Pool(), "module", "theirs:make", {})
    with pytest.raises(ConfigError, match="give --image-size HEIGHT WIDTH"):
        model_from_module(ImportOptions(images="-"), user, tmp_path)
    with pytest.raises(ConfigError, match=r"theirs:make.encode failed on \(2, 1, 32, 32\): Run"):
        understood(networks.Pool(), tmp_path, color="grey")
    with pytest.raises(MotorVAEError, match="Say --color grey, rgb or bgr"):
        understood(torch.nn.Identity(), tmp_path)
