from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.benchmarks.demo.cli import video_of_vehicles
from motorvae.benchmarks.under_test.scenes import (
    images_from_source,
    moving_vehicles,
    our_luma,
    scene_of,
    vehicles,
)
from motorvae.runtime.core.errors import ConfigError, SourceError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.core.spec import Matrix, ModelSpec
from motorvae.runtime.pixels.reference import reference_picture
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.open import open_source


@pytest.mark.parametrize("matrix", ["auto", "bt601", "bt709"])
def test_a_large_scene_says_which_yuv_it_is(matrix: Matrix) -> None:
    spec, scene = ModelSpec(matrix=matrix), scene_of(1280, 720, 0)
    luma = our_luma(scene, "yuv", spec)().astype(float)
    assert np.abs(luma - reference_picture(scene.bgr, spec)).mean() < 0.5


def grey_folder(folder: Path, count: int) -> Path:
    folder.mkdir()
    for shade in range(count):
        cv2.imwrite(str(folder / f"{shade}.png"), np.full((40, 60), shade, np.uint8))
    return folder


def test_a_video_goes_the_way_of_a_camera(small_spec: ModelSpec, tmp_path: Path) -> None:
    path = tmp_path / "vehicles.mp4"
    video_of_vehicles(path, seconds=0.5)
    with open_source(str(path), CaptureRequest(spec=small_spec)) as source:
        frames = [frame for frame in iter(source.read, None) if isinstance(frame, Frame)]
    assert all(frame.is_fitted for frame in frames)
    expected = np.stack([frame.image for frame in frames])
    np.testing.assert_array_equal(images_from_source(str(path), 15, small_spec), expected)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 50])
def test_what_is_kept_lies_evenly_apart(count: int, small_spec: ModelSpec, tmp_path: Path) -> None:
    folder = grey_folder(tmp_path / "grey", 23)
    found = images_from_source(str(folder), count, small_spec)
    assert len(found) == min(count, 23)
    shades = found[:, 0, 0].astype(int)
    assert shades[0] == 0
    if count > 2:
        assert shades[-1] >= 23 - 2 * 23 / len(found)  # within two steps of the end
        steps = np.diff(shades)
        assert steps.min() >= 1
        assert steps.max() <= 2 * max(1, steps.min())


def test_what_does_not_decode_is_left_out(small_spec: ModelSpec, tmp_path: Path) -> None:
    folder = grey_folder(tmp_path / "grey", 3)
    (folder / "1.png").write_bytes(b"no image")
    assert images_from_source(str(folder), 9, small_spec)[:, 0, 0].tolist() == [0, 2]
    for path in folder.iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(SourceError, match=r"nothing in .*grey decodes: name other images"):
        images_from_source(str(folder), 9, small_spec)


def test_what_the_crop_box_takes_nothing_of_is_left_out(
    small_spec: ModelSpec, tmp_path: Path
) -> None:
    folder = grey_folder(tmp_path / "grey", 3)
    cv2.imwrite(str(folder / "1.png"), np.full((20, 20), 1, np.uint8))
    spec = small_spec.model_copy(update={"crop_box": (30, 0, 0, 0)})
    assert images_from_source(str(folder), 9, spec)[:, 0, 0].tolist() == [0, 2]


def test_a_source_without_an_end_is_refused(small_spec: ModelSpec) -> None:
    with pytest.raises(ConfigError, match="synthetic is live and has no end: record it"):
        images_from_source("synthetic", 3, small_spec)


def test_vehicles_drive_in_and_out_of_what_training_had(small_spec: ModelSpec) -> None:
    inside, outside = moving_vehicles(0, 45, small_spec)
    assert len(inside) + len(outside) == 45
    assert min(len(inside), len(outside)) > 10
    assert inside.shape[1:] == outside.shape[1:] == (32, 32)
    assert inside.mean() < outside.mean()  # what drives away leaves white
    none, first = moving_vehicles(0, 1, small_spec)
    assert (len(none), len(first)) == (0, 1)


def test_fresh_vehicles_depend_on_the_seed(small_spec: ModelSpec) -> None:
    one, other = vehicles(1, 3, small_spec), vehicles(2, 3, small_spec)
    assert one.shape == (3, 32, 32)
    assert not np.array_equal(one, other)
