"""Animations of images: GIF by Pillow, MP4 by PyAV."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

from .options import Animation

_CODECS = ("libx264", "mpeg4")
"""In the order of preference; every FFmpeg has the second."""


def there_and_back(frames: Sequence[Image.Image]) -> list[Image.Image]:
    """Return frames that go on without a jump when they begin again."""
    return [*frames, *frames[-2:0:-1]]


def animation_of(frames: Sequence[Image.Image], kind: Animation, *, fps: float) -> bytes:
    """Return RGB images of one size as the bytes of a file that plays them, for ever in a GIF.

    A GIF has at most 256 colours a frame: all levels of grey, and the most frequent colours else.
    """
    return _mp4(frames, fps) if kind == "mp4" else _gif(frames, fps)


def _gif(frames: Sequence[Image.Image], fps: float) -> bytes:
    first, *others = [_with_palette(frame) for frame in frames]
    file = io.BytesIO()
    # Of 20 ms and less browsers make 100; a hundredth of a second is the unit.
    duration_ms = max(30, round(100 / fps) * 10)
    first.save(
        file, "GIF", save_all=True, append_images=others, duration=duration_ms, loop=0, disposal=1
    )
    return file.getvalue()


def _with_palette(frame: Image.Image) -> Image.Image:
    pixels = np.asarray(frame)
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return Image.fromarray(np.ascontiguousarray(pixels[..., 0]))
    return frame.quantize(256, dither=Image.Dither.FLOYDSTEINBERG)


def _mp4(frames: Sequence[Image.Image], fps: float) -> bytes:
    file = io.BytesIO()
    # Half the resolution of colour, as every player has it, wants even sides.
    width, height = (side + side % 2 for side in frames[0].size)
    codec = next(name for name in _CODECS if name in av.codecs_available)
    with av.open(file, "w", format="mp4") as container:
        stream = cast(
            "VideoStream", container.add_stream(codec, rate=Fraction(fps).limit_denominator(1000))
        )
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "18", "threads": "1"} if codec == "libx264" else {"qscale": "3"}
        for frame in frames:
            canvas = Image.new("RGB", (width, height), (255, 255, 255))
            canvas.paste(frame, (0, 0))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(canvas), "rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
