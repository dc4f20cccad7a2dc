"""Pictures like those of a street camera, and the bound that every path to luma is held to."""

from __future__ import annotations

import functools

import av
import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]

MEAN_ERROR, CORRELATION = 1.0, 0.9995


def assert_within_bound(luma: Image, reference: Image) -> None:
    """The promise: a mean absolute difference of a level at most, and the same picture."""
    assert luma.shape == reference.shape
    assert luma.dtype == np.uint8
    found, expected = luma.astype(np.float64), reference.astype(np.float64)
    error = float(np.abs(found - expected).mean())
    correlation = float(np.corrcoef(found.ravel(), expected.ravel())[0, 1])
    assert error <= MEAN_ERROR, f"{error:.3f} levels, correlation {correlation:.5f}"
    assert correlation >= CORRELATION, f"correlation {correlation:.5f}, {error:.3f} levels"


@functools.cache
def street(width: int, height: int) -> Image:
    """A frame of OpenCV's sample vtest.avi where it is installed, else one drawn like it."""
    path = cv2.samples.findFile("vtest.avi", required=False, silentMode=True)
    if path:
        with av.open(path) as container:
            image = next(container.decode(video=0)).to_ndarray(format="bgr24")
    else:
        image = _drawn()
    found = cv2.resize(image, (width, height), interpolation=cv2.INTER_LANCZOS4).astype(np.uint8)
    found.flags.writeable = False
    return found


def _drawn() -> Image:
    """Texture with a falling spectrum, as surfaces have it, and things with edges before it."""
    rng = np.random.default_rng(11)
    height, width = 576, 768
    image = np.full((height, width, 3), 120.0)
    for octave in range(1, 8):
        size = (3 << octave, 4 << octave)
        noise = rng.normal(0, 40 / 1.6**octave, (*size, 3)).astype(np.float32)
        noise = noise.mean(axis=2, keepdims=True) * 0.8 + noise * 0.2
        image += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    for _ in range(60):
        x, y = (int(rng.integers(0, length)) for length in (width, height))
        w, h = (int(rng.integers(6, 60)) for _ in range(2))
        colour = tuple(float(level) for level in rng.normal(110, 50) + rng.normal(0, 20, 3))
        cv2.rectangle(image, (x, y), (x + w, y + h), colour, -1, cv2.LINE_AA)
        cv2.line(image, (x, y), (x + 2 * w, y - h), (40.0, 40.0, 40.0), 2, cv2.LINE_AA)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
