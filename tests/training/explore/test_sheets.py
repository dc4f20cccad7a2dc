"""Sheets show pictures as they are: every pixel, in the order of colours that the model has."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from motorvae.runtime.core.spec import Color
from motorvae.training.explore.sheets import Row, beside, display_of, grid_of, png_of, sheet_of


def picture(color: Color, rgb: tuple[int, int, int], shape: tuple[int, int] = (100, 120)) -> object:
    planes = rgb if color == "rgb" else rgb[::-1]
    return np.stack([np.full(shape, level, np.uint8) for level in planes])


@pytest.mark.parametrize("color", ["rgb", "bgr"])
def test_red_stays_red(color: Color) -> None:
    red = picture(color, (250, 20, 40))
    assert display_of(red, color)[0, 0].tolist() == [250, 20, 40]  # type: ignore[arg-type]
    sheet = sheet_of([Row([red])], color)  # type: ignore[list-item]
    shown = np.asarray(Image.open(io.BytesIO(png_of(sheet))))
    assert (shown == (250, 20, 40)).all(axis=2).sum() == 100 * 120


def test_every_pixel_of_a_picture_is_on_the_sheet() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (96, 130), np.uint8)
    sheet = np.asarray(sheet_of([Row([grey, None, grey], ["a", "", "b\nc"], label="x")], "grey"))
    plane = sheet[..., 0]
    assert (sheet[..., 0] == sheet[..., 2]).all()
    windows = np.lib.stride_tricks.sliding_window_view(plane, grey.shape)
    corners = np.argwhere(
        (windows[:, :, 0, 0] == grey[0, 0]) & (windows[:, :, -1, -1] == grey[-1, -1])
    )
    found = [tuple(at) for at in corners if (windows[tuple(at)] == grey).all()]
    assert len(found) == 2
    assert found[0][0] == found[1][0]


def test_small_pictures_are_enlarged_to_whole_squares() -> None:
    small = np.random.default_rng(0).integers(0, 256, (16, 32), np.uint8)
    sheet = np.asarray(sheet_of([Row([small])], "grey"))[..., 0]
    enlarged = np.repeat(np.repeat(small, 3, axis=0), 3, axis=1)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, enlarged.shape)
    assert any((window == enlarged).all() for line in windows for window in line)


def test_a_sheet_of_many_rows_keeps_its_bound() -> None:
    black = np.zeros((256, 256), np.uint8)
    sheet = sheet_of([Row([black] * 3, label="one\ntwo")] * 128, "grey", title="many")
    assert max(sheet.size) <= 8300


def test_sheets_lie_side_by_side() -> None:
    left = grid_of([np.zeros((100, 100), np.uint8)] * 5, 2, "grey", heading="five")
    right = grid_of([np.zeros((100, 100), np.uint8)], 2, "grey", heading="one")
    both = beside([left, right], title="a title")
    assert both.width == left.width + right.width
    assert both.height > left.height > right.height
