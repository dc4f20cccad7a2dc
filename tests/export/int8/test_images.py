from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motorvae.export.int8.images import FEWEST, MOST, calibration_from_text
from motorvae.runtime.core.errors import ConfigError, DataError, SourceError
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.pixels.convert import fitted
from motorvae.runtime.sources.synthetic.vehicles import vehicle

SPEC = ModelSpec(image_size=32, channels=(4,), latent_size=2)
HELD_OUT = np.stack([np.full((32, 32), level, np.uint8) for level in range(60)])
HELD_OUT[:, 9, 9] = 200  # no frame of the flat videos below is one of these


def video_of(path: Path, count: int) -> None:
    """Write `count` flat frames, each brighter than the one before."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "gray"
        for index in range(count):
            level = np.full((64, 64), index * 255 // (count - 1), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(level, "gray")))
        container.mux(stream.encode())


def levels(images: npt.NDArray[np.uint8]) -> set[int]:
    return {int(image[0, 0]) for image in images}


def test_a_third_calibrates_a_sixth_chooses_and_the_others_judge() -> None:
    found = calibration_from_text("held-out", HELD_OUT, SPEC)
    assert found.origin == "held-out"
    parts = [levels(part) for part in (found.luma, found.choosing, found.judging)]
    assert [len(part) for part in parts] == [20, 16, 24]
    assert set.union(*parts) == set(range(60))


def test_most_of_many_held_out_images_judge() -> None:
    many = np.zeros((2048, 32, 32), np.uint8)
    many[:, 0, 0], many[:, 0, 1] = np.divmod(np.arange(2048), 256)
    found = calibration_from_text("held-out", many, SPEC)
    assert (len(found.luma), len(found.choosing), len(found.judging)) == (
        MOST,
        MOST,
        2048 - 2 * MOST,
    )


def test_equal_images_are_never_in_two_parts() -> None:
    """Held-out images of a video lie in the order of its frames."""
    images = np.zeros((96, 32, 32), np.uint8)
    images[:, 0, 0] = np.arange(96)
    images[30:34, 0, 0] = 30  # about the first cut, at 32
    images[46:50, 0, 0] = 46  # about the second, at 48
    images[3, 0, 0] = images[70, 0, 0]  # far from both
    found = calibration_from_text("held-out", images, SPEC)
    parts = [levels(part) for part in (found.luma, found.choosing, found.judging)]
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
    assert not parts[0] & parts[2]
    assert len(found.judging) == 48
    assert len(found.choosing) == 14
    assert len(found.luma) == 29


def test_what_judges_does_not_calibrate_even_if_it_is_named(tmp_path: Path) -> None:
    for index, image in enumerate(HELD_OUT):
        cv2.imwrite(str(tmp_path / f"{index}.png"), image)
    with pytest.raises(DataError, match="has 0 images and it takes 16; 60 are among the held-out"):
        calibration_from_text(str(tmp_path), HELD_OUT, SPEC)


def test_folder_goes_the_way_of_frames_and_all_held_out_images_choose_or_judge(
    tmp_path: Path,
) -> None:
    pictures = [vehicle(1, index, 96)[0] for index in range(FEWEST)]
    for index, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{index}.png"), picture)
    (tmp_path / "notes.txt").touch()
    found = calibration_from_text(str(tmp_path), HELD_OUT, SPEC)
    assert found.remarks == (f"{tmp_path}: 1 not taken: 1 no picture (.txt)",)
    assert found.origin == str(tmp_path)
    assert (len(found.choosing), len(found.judging)) == (20, 40)
    assert levels(found.choosing) | levels(found.judging) == set(range(60))
    expected = np.stack([fitted(picture, SPEC) for picture in pictures])
    np.testing.assert_array_equal(found.luma, expected)


@pytest.mark.parametrize("frames", [3 * MOST, 2 * MOST - 1, MOST])
@pytest.mark.parametrize("name", ["drive.avi", "drive.mkv"])  # the second does not say its length
def test_long_video_is_sampled_to_its_end(tmp_path: Path, frames: int, name: str) -> None:
    video_of(tmp_path / name, frames)
    found = calibration_from_text(str(tmp_path / name), HELD_OUT, SPEC)
    seen = found.luma[:, 0, 0].astype(int)
    assert len(seen) == MOST
    assert seen[0] <= 2
    assert seen[-1] >= 250
    assert (np.diff(seen) >= 0).all()


def test_credentials_are_used_and_never_shown() -> None:
    with pytest.raises(SourceError) as caught:
        calibration_from_text("http://bob:s3cret@127.0.0.1:9/x.mkv?token=abc", HELD_OUT, SPEC)
    assert "s3cret" not in str(caught.value)
    assert "abc" not in str(caught.value)


def test_too_few_images_are_refused(tmp_path: Path) -> None:
    for index in range(FEWEST - 1):
        cv2.imwrite(str(tmp_path / f"{index}.png"), 255 - HELD_OUT[index])
    (tmp_path / "broken.png").write_bytes(b"no image")
    said = rf"has {FEWEST - 1} images and it takes {FEWEST}; 1 did not decode.*broken"
    with pytest.raises(DataError, match=said):
        calibration_from_text(str(tmp_path), HELD_OUT, SPEC)
    with pytest.raises(
        DataError,
        match="47 held-out images are too few, it takes 48: 16 unlike",
    ):
        calibration_from_text("held-out", HELD_OUT[:47], SPEC)
    assert len(calibration_from_text("held-out", HELD_OUT[:48], SPEC).judging) == FEWEST


def test_what_the_crop_box_takes_nothing_of_does_not_calibrate(tmp_path: Path) -> None:
    for index in range(FEWEST):
        cv2.imwrite(str(tmp_path / f"{index}.png"), vehicle(1, index, 96)[0])
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20), np.uint8))
    spec = SPEC.model_copy(update={"crop_box": (30, 0, 0, 0)})
    assert len(calibration_from_text(str(tmp_path), HELD_OUT, spec).luma) == FEWEST
    (tmp_path / "0.png").unlink()
    with pytest.raises(DataError, match=r"1 did not decode, first: the crop box .* takes nothing"):
        calibration_from_text(str(tmp_path), HELD_OUT, spec)


def test_one_held_out_image_cannot_choose_and_judge(tmp_path: Path) -> None:
    for index in range(FEWEST):
        cv2.imwrite(str(tmp_path / f"{index}.png"), 255 - HELD_OUT[index])
    with pytest.raises(DataError, match="1 held-out images are too few to choose"):
        calibration_from_text(str(tmp_path), HELD_OUT[:1], SPEC)
    found = calibration_from_text(str(tmp_path), HELD_OUT[:2], SPEC)
    assert (len(found.choosing), len(found.judging)) == (1, 1)


def test_source_without_an_end_or_a_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--calibration synthetic is live and has no end"):
        calibration_from_text("synthetic", HELD_OUT, SPEC)
    with pytest.raises(SourceError, match="no such source"):
        calibration_from_text(str(tmp_path / "nowhere"), HELD_OUT, SPEC)
    (tmp_path / "noise.mp4").write_bytes(bytes(1000))
    with pytest.raises(SourceError, match=r"noise\.mp4"):
        calibration_from_text(str(tmp_path / "noise.mp4"), HELD_OUT, SPEC)
