from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.export.compare.images import latents_from_file, pictures_from_source
from motorvae.runtime.core.errors import DataError
from motorvae.runtime.core.spec import ModelSpec

RGB = ModelSpec(image_size=(8, 12), color="rgb", channels=None, latent_size=1)


def test_pictures_are_planes_in_the_order_of_the_spec(tmp_path: Path) -> None:
    image = np.zeros((8, 12, 3), np.uint8)
    image[:] = 10, 20, 30  # blue, green, red
    assert cv2.imwrite(str(tmp_path / "a.png"), image)
    for color, levels in (("rgb", (30, 20, 10)), ("bgr", (10, 20, 30))):
        spec = RGB.model_copy(update={"color": color})
        rows = pictures_from_source(str(tmp_path), spec, 5).rows
        assert rows.shape == (1, 3, 8, 12)
        assert rows.dtype == np.uint8
        assert [int(plane.mean()) for plane in rows[0]] == list(levels)


def test_more_images_than_wanted_are_taken_evenly_and_gaps_are_said(tmp_path: Path) -> None:
    for index in range(20):
        level = np.full((8, 12, 3), 10 * index, np.uint8)
        assert cv2.imwrite(str(tmp_path / f"{index:02d}.png"), level)
    (tmp_path / "04.png").write_bytes(b"no image")
    inputs = pictures_from_source(str(tmp_path), RGB, 5)
    assert [int(row.mean()) for row in inputs.rows] == [0, 80, 120, 160]
    assert len(inputs.skipped) == 1
    assert inputs.skipped[0].startswith("04.png: ")
    assert inputs.notes[-1] == "4 of 20 images judge, see --most-images"


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"nothing in .* decodes \(first: a\.png: "):
        pictures_from_source(str(tmp_path), RGB, 5)


def test_latents_are_read_from_npy_and_npz(tmp_path: Path) -> None:
    latents = np.arange(40, dtype=np.float64).reshape(10, 4)
    np.save(tmp_path / "a.npy", latents)
    np.savez(tmp_path / "b.npz", mu=latents, log_var=-latents, names=np.array(["x"] * 10))
    np.savez(tmp_path / "c.npz", anything=latents)
    for name in ("a.npy", "b.npz", "c.npz"):
        found = latents_from_file(tmp_path / name, 100)
        np.testing.assert_array_equal(found.rows, latents)
        assert found.rows.dtype == np.float32
    some = latents_from_file(tmp_path / "a.npy", 4)
    assert list(some.rows[:, 0]) == [0, 12, 24, 36]
    assert some.notes == ("4 of 10 latents judge",)


def test_what_holds_no_latents_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(DataError, match="cannot read"):
        latents_from_file(path, 9)
    np.savez(path, one=np.zeros((2, 3)), other=np.zeros((2, 3)))
    with pytest.raises(DataError, match="holds one, other, and none of mu, z, latents"):
        latents_from_file(path, 9)
    for wrong in (
        np.full((2, 3), np.nan),
        np.zeros((2, 3), np.int64),
        np.zeros(3),
        np.zeros((0, 3)),
    ):
        np.savez(path, mu=wrong)
        with pytest.raises(DataError, match="a latent a row"):
            latents_from_file(path, 9)
    np.savez(path, mu=np.array([{}], object))  # a pickle, which is never loaded
    with pytest.raises(DataError, match="cannot read"):
        latents_from_file(path, 9)
