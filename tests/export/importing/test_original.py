"""Checkpoints of the original project: equal to an independent network of the same tensors."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from motorvae.export.cli import main as export_main
from motorvae.export.importing.options import ImportOptions
from motorvae.export.importing.original import model_from_original, weights_from_original
from motorvae.runtime.bundle.load import load_bundle
from motorvae.runtime.core.atomic_files import sha256_of
from motorvae.runtime.core.errors import CheckpointError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.sources.synthetic.vehicles import vehicle_picture
from motorvae.training.checkpoint import model_from_checkpoint

from .conftest import Says
from .original_network import gan_file, later_file, original_network, two_stage_file

CARD = (256, (32, 64, 128, 256, 512), 128)


@pytest.mark.parametrize("generation", ["two stages", "GAN", "GAN in one", "safetensors", "bare"])
@pytest.mark.parametrize("sizes", [(32, (4, 8, 8, 16, 16), 8), (64, (4, 8, 8), 5), CARD])
def test_outputs_differ_by_nothing(
    generation: str, sizes: tuple[int, tuple[int, ...], int], tmp_path: Path
) -> None:
    if sizes == CARD and generation not in {"two stages", "GAN"}:
        pytest.skip("the card's size is large, and two ways say all")
    network = original_network(*sizes)
    assert len(network.state_dict()) == 14 * len(sizes[1]) + 8
    path = tmp_path / ("a.safetensors" if generation == "safetensors" else "a.pth")
    if generation == "two stages":
        two_stage_file(path, network)
    elif generation == "safetensors":
        import safetensors.torch

        safetensors.torch.save_file(network.state_dict(), path)
    elif generation == "bare":
        torch.save(network.state_dict(), path)
    else:
        gan_file(path, network, within=generation == "GAN in one")
    found = weights_from_original(path)
    spec = ModelSpec(**found.sizes)
    assert (spec.image_size, spec.channels, spec.latent_size) == sizes
    model = model_from_original(path, found, spec)
    images = torch.rand(3, 1, sizes[0], sizes[0])
    with torch.inference_mode():
        mu, log_var = network.encode(images)
        own = model(images)
        assert torch.equal(own.mu, mu)
        assert torch.equal(own.log_var, log_var)
        assert torch.equal(own.reconstruction, network.decode(mu))
    dropped = [note for note in found.notes if "discriminator" in note]
    assert len(dropped) == (1 if generation.startswith("GAN") else 0)


def test_a_checkpoint_becomes_a_run_that_is_exported(images: Path, here: Path, says: Says) -> None:
    gan_file(here / "gan.pth", original_network(), within=True)
    said = says("gan.pth", "--images", images)
    for part in (
        "note: discriminator: 2 tensors are left out",
        "78 tensors; images are prepared with --fit letterbox, crop box (5, 20, -25, -20)",
        "--interpolation lanczos; --preset none",
        "next: motorvae-export runs/gan",
    ):
        assert part in said
    assert (here / "runs" / "latest").resolve() == here / "runs" / "gan"
    _, config = model_from_checkpoint(here / "runs" / "gan")
    assert config.origin is not None
    assert config.origin.files == {"gan.pth": sha256_of(here / "gan.pth")}
    assert not (here / "bundle").exists()
    # Random weights reconstruct nothing, which is what the gate is for.
    assert export_main(["--fp16", "--engine", "none"]) == 1
    assert export_main(["--fp16", "--engine", "none", "--anyway"]) == 0
    manifest = load_bundle(here / "bundle").manifest
    assert manifest.origin == config.origin
    assert manifest.model.crop_box == (5, 20, -25, -20)
    assert manifest.preprocessing.fit.startswith("resized to whole pixels")


def test_a_bundle_at_once_where_a_precision_is_asked_for(
    images: Path, here: Path, says: Says
) -> None:
    two_stage_file(here / "two.pth", original_network())
    says(
        "two.pth", "--images", images, "--fp16", "--anyway", "--engine", "none",
        "--run", "mine/one", "--preset", "none", "--fit", "crop",
    )  # fmt: skip
    manifest = load_bundle(here / "bundle").manifest
    assert (manifest.model.fit, manifest.model.crop_box) == ("crop", None)
    assert manifest.verification[0].reference.startswith("torch ")
    assert {entry.precision for entry in manifest.graphs} == {"fp32", "fp16"}
    line = says("two.pth", "--images", images, "--run", "mine/one", code=1)
    assert "mine/one exists: name another --run" in line


class Hostile:
    """Runs code where it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("touched"),)


def test_what_is_refused_in_one_line_and_leaves_nothing(
    images: Path, here: Path, says: Says
) -> None:
    network = original_network()
    torch.save({"model_state_dict": network.state_dict(), "extra": Hostile()}, here / "evil.pth")
    torch.save(network, here / "whole.pth")
    later_file(here / "later.pth")
    (here / "cut.pth").write_bytes((here / "whole.pth").read_bytes()[:5000])
    (here / "no.safetensors").write_bytes(b"\xff" * 64)
    lacking = {name: one for name, one in network.state_dict().items() if "decoder.2" not in name}
    torch.save(lacking, here / "lacking.pth")
    broken = network.state_dict() | {"fc_mu.bias": torch.full((8,), torch.nan)}
    torch.save(broken, here / "nan.pth")
    torch.save({"conv.weight": torch.zeros(3)}, here / "other.pth")
    torch.save([1, 2], here / "list.pth")
    kernels = dict(network.state_dict())
    kernels["encoder.0.0.weight"] = torch.zeros(4, 1, 4, 4)
    torch.save(kernels, here / "kernels.pth")
    expected = {
        "evil.pth": "holds more than tensors and plain values",
        "whole.pth": "holds more than tensors and plain values",
        "later.pth": r"of a later generation of motorVAE by Brenden Eum, .*32 x 1 x 4 x 4",
        "cut.pth": "cannot read cut.pth",
        "no.safetensors": "cannot read no.safetensors",
        "lacking.pth": "is not the model card's network, missing: decoder.features.6.bias",
        "nan.pth": "not finite: encoder.mu.bias",
        "other.pth": "is no checkpoint of motorVAE by Brenden Eum: it lacks encoder.0.0.weight",
        "list.pth": "holds no weights by their names",
        "kernels.pth": "encoder.0.0.weight is 4 x 1 x 4 x 4, and its kernels are 3 x 3",
    }
    for name, said in expected.items():
        line = says(name, "--images", images, code=1)
        assert re.search(said, line), line
    assert not (here / "touched").exists()
    assert not (here / "runs").exists()
    line = says("lacking.pth", "--images", images, "--image-size", "64", code=1)
    assert "--image-size 64: the weights are of 32" in line


def test_weights_that_were_never_unpickled_say_so() -> None:
    with pytest.raises(CheckpointError, match="cannot read"):
        weights_from_original(Path("no-such.pth"))


def _as_the_original_does(bgra: np.ndarray) -> np.ndarray:
    """The original's preparation as its notebook describes it, with Pillow."""
    image = Image.fromarray(np.ascontiguousarray(bgra[:, :, [2, 1, 0, 3]]))
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    grey = Image.alpha_composite(white, image).convert("RGB").convert("L")
    width, height = grey.size
    cut = grey.crop((5, 20, width - 25, height - 20))
    size = (256, int(256 * cut.height / cut.width))
    canvas = Image.new("L", (256, 256), 255)
    canvas.paste(cut.resize(size, Image.Resampling.LANCZOS), (0, (256 - size[1]) // 2))
    return np.asarray(canvas)


def test_the_preset_prepares_images_as_the_original_does() -> None:
    """Within what a fraction of a pixel of height makes; else it is another image."""
    prepared = ImportOptions().preparation(is_original=True)
    assert prepared == ImportOptions(preset="original").preparation()
    spec = ModelSpec(**prepared)
    differences = {"preset": [], "area": [], "plain": []}
    others = {
        "preset": spec,
        "area": spec.model_copy(update={"interpolation": "area"}),
        "plain": ModelSpec(),
    }
    for row in range(4):
        bgr = vehicle_picture(3, row, 640, "rgb")[80:560]
        alpha = np.full((*bgr.shape[:2], 1), 255, np.uint8)
        alpha[:100] = 0
        image = cv2.merge([*cv2.split(bgr), alpha[:, :, 0]])
        wanted = _as_the_original_does(image).astype(np.float64)
        for name, one in others.items():
            own = reference_picture(image, one)
            differences[name].append(float(np.abs(own - wanted).mean()))
    means = {name: float(np.mean(values)) for name, values in differences.items()}
    assert means["preset"] < 0.5
    assert means["preset"] < means["area"] < 1.1
    assert means["plain"] > 10
