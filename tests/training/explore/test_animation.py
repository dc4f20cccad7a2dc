"""Animations play every frame, in its colours."""

from __future__ import annotations

import io

import av
import numpy as np
import pytest
from PIL import Image

from motorvae.training.explore.animation import animation_of, there_and_back

COLOURS = [(250, 20, 40), (20, 200, 40), (20, 40, 230)]


def frames(colours: list[tuple[int, int, int]]) -> list[Image.Image]:
    return [Image.new("RGB", (61, 47), colour) for colour in colours]


def test_a_gif_plays_all_frames_in_their_colours_for_ever() -> None:
    data = animation_of(frames(COLOURS), "gif", fps=10)
    with Image.open(io.BytesIO(data)) as gif:
        assert (gif.n_frames, gif.info["loop"]) == (3, 0)  # type: ignore[attr-defined]
        for number, colour in enumerate(COLOURS):
            gif.seek(number)
            assert gif.info["duration"] == 100
            assert gif.convert("RGB").getpixel((30, 20)) == colour


def test_a_gif_has_all_levels_of_grey() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (8, 1))
    frame = Image.fromarray(np.repeat(ramp[:, :, None], 3, axis=2))
    other = Image.fromarray(255 - np.repeat(ramp[:, :, None], 3, axis=2))
    with Image.open(io.BytesIO(animation_of([frame, other], "gif", fps=5))) as gif:
        assert (np.asarray(gif.convert("L")) == ramp).all()
        gif.seek(1)
        assert (np.asarray(gif.convert("L")) == 255 - ramp).all()


def test_an_mp4_plays_all_frames_in_their_colours() -> None:
    data = animation_of(frames(COLOURS), "mp4", fps=12.5)
    with av.open(io.BytesIO(data)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(shown) == 3
    for image, colour in zip(shown, COLOURS, strict=True):
        assert image.shape == (48, 62, 3)
        assert np.abs(image[20, 30].astype(int) - colour).max() <= 12


def test_there_and_back_has_no_frame_twice_in_a_row() -> None:
    assert there_and_back([1, 2, 3, 4]) == [1, 2, 3, 4, 3, 2]  # type: ignore[comparison-overlap,list-item]


@pytest.mark.parametrize("kind", ["gif", "mp4"])
def test_the_same_frames_give_the_same_bytes(kind: object) -> None:
    once, again = (animation_of(frames(COLOURS), kind, fps=10) for _ in range(2))  # type: ignore[arg-type]
    assert once == again
