"""Autoencoders of diffusers, small random ones made by the library itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.errors import MissingDependencyError

from .conftest import Says

try:
    import diffusers
except ImportError:
    diffusers = None

needs_diffusers = pytest.mark.skipif(diffusers is None, reason="diffusers is not installed")


def test_it_is_named_where_it_is_not_installed(
    here: Path, images: Path, says: Says, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "motorvae.export.importing.diffusers_folder", raising=False)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    (here / "vae").mkdir()
    (here / "vae" / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    line = says("vae", "--images", images, code=MissingDependencyError.exit_code)
    assert "needs the package diffusers, which is not installed" in line
    assert "motorvae[diffusers,export,cpu]" in line


def kl(folder: Path) -> Path:
    torch.manual_seed(1)
    module = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=0.18215,
        shift_factor=0.1,
    )
    module.save_pretrained(folder)
    return folder


def tiny(folder: Path) -> Path:
    torch.manual_seed(0)
    module = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(16, 16, 16),
        decoder_block_out_channels=(16, 16, 16),
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=(1, 1, 1),
    )
    for parameter in module.encoder.parameters():
        parameter.data *= 2  # else its random latents hardly differ
    module.save_pretrained(folder)
    return folder


@needs_diffusers
def test_a_kl_autoencoder_keeps_its_scaling(here: Path, images: Path, says: Says) -> None:
    kl(here / "pipeline" / "vae")
    says("pipeline", "--images", images, "--fp16", "--anyway", "--engine", "none")
    manifest = load_bundle(here / "bundle").manifest
    assert manifest.model.input_shape == (3, 32, 32)
    assert manifest.model.latent_shape == (4, 16, 16)
    assert manifest.model.value_range == (-1, 1)
    assert manifest.origin is not None
    assert (manifest.origin.kind, manifest.origin.name) == ("diffusers", "AutoencoderKL")
    assert manifest.origin.scaling_factor == pytest.approx(0.18215)
    assert manifest.origin.shift_factor == pytest.approx(0.1)
    assert set(manifest.origin.files) == {
        "config.json",
        "diffusion_pytorch_model.safetensors",
    }
    # The bundle's latents are as the library's own posterior gives them, before any scaling.
    with np.load(here / "bundle" / "verification.npz") as saved:
        pictures, mu, log_var = saved["images"][:4], saved["mu"][:4], saved["log_var"][:4]
    module = diffusers.AutoencoderKL.from_pretrained(here / "pipeline" / "vae").eval()
    with torch.inference_mode():
        own = module.encode(torch.from_numpy(pictures / np.float32(127.5) - 1)).latent_dist
    np.testing.assert_allclose(mu, own.mean.flatten(1), atol=2e-5)
    np.testing.assert_allclose(log_var, own.logvar.flatten(1), atol=2e-5)


@needs_diffusers
def test_a_tiny_autoencoder_has_no_log_var(here: Path, images: Path, says: Says) -> None:
    tiny(here / "tiny")
    line = says("tiny", "--images", images, code=1)
    assert "AutoencoderTiny does not say what images it takes: give --image-size" in line
    says("tiny", "--images", images, "--image-size", "32", "48", "--anyway", "--engine", "none")
    spec = load_bundle(here / "bundle").manifest.model
    assert (spec.has_log_var, spec.has_decoder) == (False, True)
    assert (spec.input_shape, spec.latent_shape) == ((3, 32, 48), (4, 8, 12))


@needs_diffusers
def test_other_folders_are_refused_in_one_line(here: Path, images: Path, says: Says) -> None:
    kl(here / "kl")
    torch.save({}, here / "kl" / "diffusion_pytorch_model.bin")
    (here / "kl" / "diffusion_pytorch_model.safetensors").unlink()
    assert "has no .safetensors file" in says("kl", "--images", images, code=1)
    (here / "other").mkdir()
    (here / "other" / "config.json").write_text(json.dumps({"_class_name": "VQModel"}))
    assert "is of VQModel: only AutoencoderKL and" in says("other", "--images", images, code=1)
    (here / "none").mkdir()
    assert "none/vae/config.json" in says("none", "--images", images, code=1)
