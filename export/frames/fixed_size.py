"""FixedAxes: frames of one size resized by constants, which hold the weights of blocks."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.reference import WHITE, Levels, fitted_weights
from .nodes import NodeList
from .parts import Part

_MOST_BLOCKS = 16
"""An axis is resized block by block, each from the window of it that it needs. On 1920 x 1080
pixels and two cores that takes half the time of a product with all of a weight matrix."""


class FixedAxes:
    """The weights of both axes of frames of one size for one model."""

    def __init__(self, nodes: NodeList, frame: FrameFormat, spec: ModelSpec) -> None:
        self._nodes, self._spec = nodes, spec
        self._rows, size = int(frame.shape[0]), frame.size
        top, left, *taken = spec.box_of(size)
        down, across = fitted_weights((taken[0], taken[1]), spec)
        self._down, self._across = _placed(down, size[0], top), _placed(across, size[1], left)

    def resized(self, levels: ir.Value, part: Part) -> ir.Value:
        """Resize one part of (N, rows, numbers in a row) levels to (N, C or 1, H, W)."""
        spec, nodes = self._spec, self._nodes
        down, across = (
            weights.reshape(len(weights), -1, part.step).sum(axis=2)
            for weights in (self._down, self._across)
        )
        above = self._down.shape[1] if part.is_below else 0
        lines = self._product(_placed(down, self._rows, above), levels)
        turned = nodes("Transpose", lines, perm=[0, 2, 1])
        # Of each pixel of the model all channels, of each pixel of the frame all numbers.
        mixed = np.einsum("wp,cn->wcpn", across, part.mix)
        channels = len(part.mix)
        mixed = mixed.reshape(spec.width * channels, -1)
        found = self._product(mixed, turned)
        return nodes.channels(found, spec.height, spec.width, channels)

    def rest(self, levels_of_white: Levels) -> ir.Value:
        """Return what is to be added so that all beyond the frame, and a white frame, is white."""
        reached = self._down.sum(axis=1)[:, None] * self._across.sum(axis=1)
        rest = WHITE - levels_of_white * reached
        if np.ptp(rest, axis=(1, 2)).max() < 1e-6:
            rest = rest[:, :1, :1]
        return self._nodes.constant(rest)

    def checked(self, picture: ir.Value) -> ir.Value:
        """Return the picture: that the crop box takes something of such a frame is known."""
        return picture

    def _product(self, weights: Levels, pixels: ir.Value) -> ir.Value:
        """Multiply (size, length) weights with (N, length, others) pixels."""
        nodes = self._nodes
        indices, blocks = blocks_of(weights)
        if len(indices) == 1:
            return nodes("MatMul", nodes.constant(blocks[0]), pixels)
        windows = nodes("Gather", pixels, nodes.constant(indices), axis=1)
        found = nodes("MatMul", nodes.constant(blocks), windows)
        rows = blocks.shape[0] * blocks.shape[1]
        found = nodes("Reshape", found, nodes.integers(0, rows, -1))
        if rows == len(weights):
            return found
        ends = (nodes.integers(0), nodes.integers(len(weights)), nodes.integers(1))
        return nodes("Slice", found, *ends)


def blocks_of(weights: Levels) -> tuple[npt.NDArray[np.int64], Levels]:
    """Cut (size, length) weights into blocks of rows, and each to the columns that it needs.

    Returns their columns, (blocks, window), and their weights, (blocks, rows, window); the last may
    have rows of nothing below. Weights of no sparse kind are one block.
    """
    size, length = weights.shape
    rows = -(-size // _MOST_BLOCKS)
    count = -(-size // rows)
    full = np.zeros((count * rows, length))
    full[:size] = weights
    spans = []
    for block in full.reshape(count, rows, length):
        used = np.flatnonzero(block.any(axis=0))
        spans.append((used[0], used[-1] + 1) if len(used) else (0, 1))
    window = max(stop - start for start, stop in spans)
    if 2 * window > length:
        return np.arange(length)[None], weights[None]
    starts = [min(start, length - window) for start, _ in spans]
    indices = np.array(starts)[:, None] + np.arange(window)
    blocks = full.reshape(count, rows, length)
    return indices, np.take_along_axis(blocks, indices[:, None, :], axis=2)


def _placed(weights: Levels, length: int, start: int) -> Levels:
    """Return weights of part of an axis as those of all of it."""
    found = np.zeros((len(weights), length))
    found[:, start : start + weights.shape[1]] = weights
    return found
