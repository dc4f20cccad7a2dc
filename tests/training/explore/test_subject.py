"""A run and a bundle are one kind of subject; what a run leaves is of its best weights."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.runtime.core.errors import (
    CheckpointError,
    ConfigError,
    ImageError,
    MotorVAEError,
    SourceError,
)
from motorvae.runtime.pixels.convert import image_from_picture
from motorvae.training.checkpoint import model_from_checkpoint
from motorvae.training.explore.options import ModelOptions
from motorvae.training.explore.pictures import kept_pictures
from motorvae.training.explore.subject import Subject, open_subject
from motorvae.training.model import encoding_of

from .linear import SPEC


def opened(model: Path, images: str | None = None) -> Subject:
    return open_subject(ModelOptions(model=model, images=images))


def test_train_latents_are_those_of_the_training_images_by_the_best_weights(
    finished_run: Path,
) -> None:
    with opened(finished_run) as subject:
        train, held_out = subject.train_latents(), subject.held_out()
        assert train.mu is not None
        assert not {*train.names} & {*held_out.names}
        assert len(train.names) == len(train.mu)
        row = int(train.names[3].rpartition("-")[2])
        name, picture = subject.picture(f"vehicle:{row}")
        again = subject.encode(picture[None])
    assert name == f"vehicle {row}"
    np.testing.assert_allclose(again.mu[0], train.mu[3], rtol=1e-4, atol=1e-5)
    assert again.log_var is not None
    assert train.log_var is not None
    np.testing.assert_allclose(again.log_var[0], train.log_var[3], rtol=1e-4, atol=1e-5)
    model, _ = model_from_checkpoint(finished_run)
    mu, _ = encoding_of(model)(picture[None, None] / np.float32(255))
    np.testing.assert_allclose(mu, again.mu, rtol=1e-4, atol=1e-5)


def test_a_bundle_is_explored_without_torch(small_bundle: Path) -> None:
    source = (
        "import sys\n"
        "from pathlib import Path\n"
        "sys.modules['torch'] = None\n"
        "from motorvae.training.explore.options import ModelOptions\n"
        "from motorvae.training.explore.subject import open_subject\n"
        f"with open_subject(ModelOptions(model=Path({str(small_bundle)!r}))) as subject:\n"
        "    found = subject.held_out()\n"
        "    print(len(found), subject.decode(subject.encode(found.pixels).mu).shape)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    count, _, shape = done.stdout.strip().partition(" ")
    assert shape == f"({count}, 32, 32)"


def test_a_bundle_knows_mean_and_covariance_of_training_latents(small_bundle: Path) -> None:
    with opened(small_bundle) as subject:
        train = subject.train_latents()
        assert (train.mu, train.names) == (None, ())
        assert train.mean is not None
        assert train.covariance is not None
        assert train.mean.shape == (8,)
        assert train.covariance.shape == (8, 8)
    with opened(small_bundle, "vehicles") as subject:
        known = subject.train_latents()
        assert known.mu is not None
        assert known.mu.shape == (512, 8)
        assert subject.held_out().source == "512 built-in vehicles"


def test_a_picture_of_a_file_is_that_of_a_stream_in_its_colours(
    colour_run: Path, tmp_path: Path
) -> None:
    with opened(colour_run) as subject:
        _, picture = subject.picture("held-out:1")
        path = tmp_path / "held out.png"
        cv2.imwrite(str(path), image_from_picture(picture, subject.spec.color))
        name, again = subject.picture(str(path))
        assert name == "held out.png"
        np.testing.assert_array_equal(picture, again)
        folder = subject.pictures(str(tmp_path))
        np.testing.assert_array_equal(folder.pixels, picture[None])
        assert folder.names == ("held out.png",)


@pytest.mark.parametrize(
    ("word", "error", "text"),
    [
        (
            "held-out:400",
            ConfigError,
            "held-out:400: there are .* held-out images, take held-out:0 to",
        ),
        ("nowhere.png", ImageError, r"cannot read nowhere\.png"),
        (".", ImageError, "is a folder: name one image of it"),
    ],
)
def test_an_image_that_is_none_is_one_line(
    word: str, error: type[MotorVAEError], text: str, finished_run: Path
) -> None:
    with opened(finished_run) as subject, pytest.raises(error, match=text):
        subject.picture(word)


def test_a_model_that_is_none_is_one_line(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="neither a training run at runs/latest nor a bundle"):
        open_subject(ModelOptions())
    with pytest.raises(ConfigError, match="--model=nowhere does not exist"):
        opened(Path("nowhere"))
    with pytest.raises(ConfigError, match=r"did you mean --model .*latest"):
        opened(finished_run.parent)
    copy = tmp_path / "cut"
    shutil.copytree(finished_run, copy)
    (copy / "held_out.npz").write_bytes(b"PK")
    with (
        opened(copy) as subject,
        pytest.raises(CheckpointError, match=r"cannot read .*held_out\.npz"),
    ):
        subject.held_out()
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="has not finished"):
        opened(copy)
    with opened(finished_run, "nowhere/") as subject, pytest.raises(SourceError):
        subject.held_out()


def test_earlier_runs_without_train_latents_have_their_gaussian(
    finished_run: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "earlier"
    shutil.copytree(finished_run, copy)
    (copy / "train_latents.npz").unlink()
    with opened(copy) as earlier, opened(finished_run) as now:
        assert earlier.train_latents().mu is None
        mean, exact = earlier.train_latents().mean, now.train_latents().mean
        assert mean is not None
        assert exact is not None
        np.testing.assert_allclose(mean, exact, rtol=1e-4, atol=1e-6)


def test_levels_are_rounded_and_bounded(linear_subject: Callable[..., Subject]) -> None:
    subject = linear_subject()
    assert subject.decode(np.array([[0, 100, 0, 0]]))[0, 1, 0] == 255
    assert subject.decode(np.array([[0, 0.01, 0, 0]]))[0, 1, 0] == 128


def test_one_image_is_no_images(tmp_path: Path) -> None:
    for count, source in ((1, "1 held-out image"), (2, "2 held-out images")):
        np.savez(tmp_path / "kept.npz", images=np.zeros((count, 16, 16), np.uint8))
        found = kept_pictures(tmp_path / "kept.npz", SPEC, "held-out images", in_bundle=False)
        assert found.source == source
