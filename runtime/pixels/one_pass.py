"""YUV to a fitted picture in colour in one pass of FFmpeg's scaler, at the size of the model."""

from __future__ import annotations

import functools
import threading
from collections.abc import Sequence
from fractions import Fraction
from typing import cast

import numpy as np
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from ..core.spec import ModelSpec
from .convert import WHITE, Pixels, placement_of, stacked
from .geometry import AS_CODED, Geometry
from .resample import LARGEST_RATIO, SCALERS
from .window import Span

LIMITED_RANGE, FULL_RANGE = 1, 2
"""FFmpeg's numbers of what a frame's levels mean: 16 to 235, or 0 to 255."""
# SWS_ACCURATE_RND and SWS_FULL_CHR_H_INT: chips differ in what they do without.
_AREA = int(Interpolation.AREA) | 0x40000 | 0x2000
_GBR = {"rgb": (2, 0, 1), "bgr": (1, 0, 2)}  # where the planes of a model lie in "gbrp"
_CUT = {"yuv420p": (2, 2), "yuv422p": (2, 1), "yuv444p": (1, 1), "nv12": (2, 2), "nv21": (2, 2)}
"""Formats of which a part is taken; luma to a sample of chroma across and down."""
_ANY_BASE = Fraction(1, 1000)
_BT601_TWICE = {6: 5}  # which the scaler knows by one number


def picture_in_one_pass(
    frame: VideoFrame,
    spec: ModelSpec,
    matrix_number: int,
    geometry: Geometry = AS_CODED,
    *,
    is_full: bool,
) -> Pixels | None:
    """Average the planes of a YUV frame over areas and make colours of the averages.

    Returns (3, H, W) as it is seen. `matrix_number` is FFmpeg's. None where that takes more than
    one pass: other filters, an axis that grows, pixels that are to be made square first, a border
    that ends between pixels, and a part that cannot be cut out of the planes.
    """
    shape = frame.height, frame.width
    placed = placement_of(spec, shape, geometry)
    inside = placed.inside
    if spec.interpolation != "area" or placed.shape != shape or inside is None:
        return None
    top, tall, left, wide = inside
    shrinks = all(
        size <= span.length <= LARGEST_RATIO * size
        for span, size in ((placed.rows, tall), (placed.columns, wide))
    )
    part = part_of_frame(frame, placed.rows, placed.columns) if shrinks else None
    if part is None:
        return None
    levels = FULL_RANGE if is_full else LIMITED_RANGE  # FFmpeg would go by the name alone
    number = _BT601_TWICE.get(matrix_number, matrix_number)
    scaler = SCALERS.of(part.format.name, part.height, part.width, tall, wide, number, levels)
    scaled = scaler.reformat(
        part,
        wide,
        tall,
        format="gbrp",
        src_colorspace=number,
        src_color_range=levels,
        dst_color_range=FULL_RANGE,
        interpolation=_AREA,
        threads=1,
    )
    planes = [plane_of(scaled, number) for number in _GBR[spec.color]]
    if not placed.is_padded:
        return stacked(planes, geometry)
    canvas = np.full((3, *placed.size), WHITE, np.uint8)
    canvas[:, top : top + tall, left : left + wide] = planes
    return stacked([*canvas], geometry)


def part_of_frame(frame: VideoFrame, rows: Span, columns: Span) -> VideoFrame | None:
    """Return a frame of some rows and columns of another; None where its format prevents that.

    Nothing is copied, and all that a frame says of its samples stays, such as where in a pixel
    its chroma lies: H.264 has it at the left, and half a pixel is a level or more in steep colours.
    """
    if (rows, columns) == ((0, frame.height), (0, frame.width)):
        return frame
    across, down = _CUT.get(frame.format.name.replace("yuvj", "yuv"), (0, 0))
    cuts = ((rows, down, frame.height), (columns, across, frame.width))
    if not across or any(plane.line_size <= 0 for plane in frame.planes):
        return None
    if any(
        span.start % step or (span.length % step and span.start + span.length != whole)
        for span, step, whole in cuts
    ):
        return None
    said = int(frame.colorspace), int(frame.color_range)
    graph = _CUTTERS.of(frame.format.name, frame.height, frame.width, rows, columns, *said)
    graph.push(frame)
    return cast("VideoFrame", graph.pull())


class _Cutters(threading.local):
    """FFmpeg's filters that take a part `of` frames, each set up once; every thread has its own."""

    def __init__(self) -> None:
        self.of = functools.lru_cache(maxsize=16)(_cutter)


def _cutter(name: str, height: int, width: int, rows: Span, columns: Span, *_said: int) -> Graph:
    graph = Graph()
    source = graph.add_buffer(
        width=width, height=height, format=VideoFormat(name), time_base=_ANY_BASE
    )
    # Exact, or odd sizes at the end of a picture would lose a line.
    part = f"{columns.length}:{rows.length}:{columns.start}:{rows.start}:exact=1"
    crop, sink = graph.add("crop", part), graph.add("buffersink")
    source.link_to(crop)
    crop.link_to(sink)
    graph.configure()
    return graph


_CUTTERS = _Cutters()


def frame_of_planes(name: str, height: int, width: int, planes: Sequence[Pixels]) -> VideoFrame:
    """Copy 8-bit planes, each (rows, bytes), into a frame of that format."""
    frame = VideoFrame(width, height, name)
    for number, plane in enumerate(planes):
        into = frame.planes[number]
        lines = np.frombuffer(memoryview(into), np.uint8).reshape(-1, into.line_size)
        lines[: plane.shape[0], : plane.shape[1]] = plane
    return frame


def plane_of(frame: VideoFrame, number: int, samples: int = 1) -> Pixels:
    """Look at a plane where it lies; (H, W times the samples of each pixel)."""
    plane = frame.planes[number]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return lines[: plane.height, : samples * plane.width]
