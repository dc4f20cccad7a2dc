from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.training.explore.space.originals import (
    SIDE,
    data_beside,
    thumbnails_of_names,
    thumbnails_of_pictures,
    words_on_missing,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "photos"
    (found / "inner").mkdir(parents=True)
    for name, colour in (("a.png", (0, 0, 255)), ("inner/b.png", (255, 0, 0))):
        cv2.imwrite(str(found / name), np.full((40, 80, 3), colour, np.uint8))
    (found / "c.png").write_bytes(b"no picture")
    return found


def test_names_lead_to_pictures_whole_and_in_colour(folder: Path) -> None:
    found = thumbnails_of_names(["inner/b.png", "a.png", "c.png", "d.png"], str(folder))
    assert found.found.tolist() == [True, True, False, False]
    assert found.images[0, SIDE // 2, SIDE // 2].tolist() == [255, 0, 0]
    assert found.images[1, SIDE // 2, SIDE // 2].tolist() == [0, 0, 255]
    assert found.images[1, 4, SIDE // 2].tolist() == [255, 255, 255]  # twice as wide as high
    assert words_on_missing(found, str(folder)) == (
        f"2 of 4 images are not in {folder}, or do not decode"
    )


def test_a_file_name_without_its_folder_will_do(folder: Path) -> None:
    assert thumbnails_of_names(["b.png", "else/a.png"], str(folder)).found.all()


def test_frames_of_a_video_are_found_by_number(tmp_path: Path) -> None:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 64))
    for level in range(0, 200, 20):
        writer.write(np.full((64, 64, 3), level, np.uint8))
    writer.release()
    names = [f"{path}#000003", f"elsewhere/{path.name}#000007", f"{path}#000099"]
    found = thumbnails_of_names(names, str(path))
    assert found.found.tolist() == [True, True, False]
    assert found.images[0].mean() == pytest.approx(60, abs=4)
    assert found.images[1].mean() == pytest.approx(140, abs=4)
    assert thumbnails_of_names(["frame-000005"], str(path)).images.mean() == pytest.approx(
        100, abs=4
    )
    assert data_beside(names, tmp_path / "latents.npz") == str(path)


def test_names_are_looked_for_beside_their_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert data_beside(["a.png"], folder / "latents.npz") == str(folder)
    assert data_beside(["a.png"], tmp_path / "latents.npz") is None
    assert data_beside(["a\0.png"], tmp_path / "latents.npz") is None
    assert data_beside([], tmp_path / "latents.npz") is None
    monkeypatch.chdir(folder)
    assert data_beside(["a.png"], tmp_path / "latents.npz") == str(folder)


def test_pictures_of_a_model_become_thumbnails_in_blue_green_and_red() -> None:
    planes = np.zeros((1, 3, 32, 64), np.uint8)
    planes[0, 0] = 200  # red of rgb
    found = thumbnails_of_pictures(planes, "rgb")
    assert found.images[0, SIDE // 2, SIDE // 2].tolist() == [0, 0, 200]
    assert found.images[0, 0, 0].tolist() == [255, 255, 255]
    grey = thumbnails_of_pictures(np.full((1, 32, 32), 7, np.uint8), "grey")
    assert (grey.images == 7).all()
