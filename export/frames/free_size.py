"""FreeAxes: frames of any size resized by weights that the graph computes from their shape."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as ir

from ...runtime.bundle.frame_format import FrameFormat
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.reference import CUBIC, SUPPORTS, WHITE, Levels
from .nodes import FLOAT, INT64, NodeList
from .parts import Part


class FreeAxes:
    """The weights of both axes of frames of any size for one model.

    They are what `box_of`, `fitted_region` and `axis_weights` say, in float32 operators.
    """

    def __init__(
        self, nodes: NodeList, levels: ir.Value, frame: FrameFormat, spec: ModelSpec
    ) -> None:
        """Compute all weights from the shape of (N, rows, numbers in a row) levels."""
        self._nodes, self._spec, self._frame = nodes, spec, frame
        shape = nodes("Shape", levels)
        rows, numbers = (
            nodes("Gather", shape, nodes.constant(np.array(axis, np.int64)), axis=0)
            for axis in (1, 2)
        )
        if frame.layout == "nv12":
            twice = nodes("Mul", rows, _integer(nodes, 2))
            self._lengths = nodes("Div", twice, _integer(nodes, 3)), numbers
        else:
            self._lengths = rows, nodes("Div", numbers, _integer(nodes, 3))
        boxes = [self._box(axis) for axis in (0, 1)]
        height, width = (self._sub(stop, start) for start, stop in boxes)
        self._taken = nodes("Mul", height, width)
        sides = (spec.height, spec.width)
        wholes = [
            self._fitted(own, self._rounded(self._times(other, sides[axis] / sides[1 - axis])))
            for axis, (own, other) in enumerate(((height, width), (width, height)))
        ]
        self._weights = [
            self._axis(axis, box, length, whole)
            for axis, (box, length, whole) in enumerate(
                zip(boxes, (height, width), wholes, strict=True)
            )
        ]

    def resized(self, levels: ir.Value, part: Part) -> ir.Value:
        """Resize one part of (N, rows, numbers in a row) levels to (N, C or 1, H, W)."""
        nodes, spec = self._nodes, self._spec
        down, across = self._weights
        if part.step > 1:
            down, across = (
                nodes(
                    "ReduceSum",
                    nodes("Reshape", weights, nodes.integers(0, -1, part.step)),
                    nodes.integers(2),
                    keepdims=0,
                )
                for weights in (down, across)
            )
        if self._frame.layout == "nv12":
            height = nodes("Reshape", self._lengths[0], nodes.integers(1))
            ends = (nodes.integers(0), height)
            if part.is_below:
                ends = (height, nodes.integers(1 << 31))
            levels = nodes("Slice", levels, *ends, nodes.integers(1))
        lines = nodes("MatMul", down, levels)
        lines = nodes("Reshape", lines, nodes.integers(0, spec.height, -1, part.numbers))
        turned = nodes("Transpose", lines, perm=[0, 3, 2, 1])
        found = nodes("MatMul", across, turned)  # (N, numbers, W, H)
        found = nodes("Transpose", found, perm=[0, 3, 2, 1])
        mixed = nodes("MatMul", found, nodes.constant(part.mix.T))
        return nodes("Transpose", mixed, perm=[0, 3, 1, 2])

    def rest(self, levels_of_white: Levels) -> ir.Value:
        """Return what is to be added so that all beyond the frame, and a white frame, is white."""
        nodes = self._nodes
        if self._spec.fit != "pad":
            return nodes.constant(WHITE - levels_of_white)
        down, across = (
            nodes("ReduceSum", weights, nodes.integers(1), keepdims=1) for weights in self._weights
        )
        reached = nodes("MatMul", down, nodes("Transpose", across, perm=[1, 0]))
        of_white = nodes("Mul", nodes.constant(levels_of_white), reached)
        return nodes("Sub", nodes.number(WHITE), of_white)

    def checked(self, picture: ir.Value) -> ir.Value:
        """Return (N, C, H, W) levels, and NaN where the crop box takes nothing of such a frame.

        The host refuses such a frame; a graph cannot, and must not make a picture of it.
        """
        if self._spec.crop_box is None:
            return picture
        share = self._nodes("Div", self._taken, self._taken)
        return self._nodes("Mul", picture, share)

    def _box(self, axis: int) -> tuple[ir.Value, ir.Value]:
        """Return where the crop box starts and ends; it is in fractions."""
        nodes, box = self._nodes, self._spec.crop_box
        length = nodes("Cast", self._lengths[axis], to=FLOAT)
        if box is None:
            return nodes.number(0), length
        first, last = (
            nodes("Round", self._times(length, share)) for share in (box[1 - axis], box[3 - axis])
        )
        return first, last

    def _fitted(self, own: ir.Value, other: ir.Value) -> ir.Value:
        """Return the length of what is resized, given that which the other axis asks for."""
        if self._spec.fit == "stretch":
            return own
        if self._spec.fit == "pad":
            return self._nodes("Max", own, other)
        return self._nodes("Min", own, self._nodes("Max", other, self._nodes.number(1)))

    def _axis(
        self, axis: int, box: tuple[ir.Value, ir.Value], length: ir.Value, whole: ir.Value
    ) -> ir.Value:
        """Return (size, pixels) weights of an axis: those of the box, in the interval `whole`."""
        nodes, spec = self._nodes, self._spec
        start, last = box[0], self._sub(box[1], nodes.number(1))
        if spec.fit != "stretch":
            before = self._times(self._sub(length, whole), 0.5)
            before = nodes("Ceil" if spec.fit == "pad" else "Floor", before)
            start = nodes("Add", start, before)
        one, none = _integer(nodes, 1), _integer(nodes, 0)
        counted = nodes("Range", none, self._lengths[axis], one)
        pixels = nodes("Cast", counted, to=FLOAT)
        size = spec.height if axis == 0 else spec.width
        numbers = nodes.constant(np.arange(size, dtype=np.float32)[:, None])
        weights = self._filtered(numbers, self._sub(pixels, start), whole, size)
        if spec.fit == "pad" and spec.interpolation in SUPPORTS:
            # Filters reach into the border: its pixels count in the sum that is to be 1.
            every = nodes("Range", none, nodes("Cast", whole, to=INT64), one)
            virtual = self._filtered(numbers, nodes("Cast", every, to=FLOAT), whole, size)
            sums = nodes("ReduceSum", virtual, nodes.integers(1), keepdims=1)
        elif spec.interpolation in SUPPORTS:
            sums = nodes("ReduceSum", weights, nodes.integers(1), keepdims=1)
        else:
            sums = None
        weights = weights if sums is None else nodes("Div", weights, sums)
        if spec.crop_box is None:
            return weights
        inside = self._between(pixels, box[0], last)
        return nodes("Mul", weights, inside)

    def _filtered(
        self, numbers: ir.Value, pixels: ir.Value, whole: ir.Value, size: int
    ) -> ir.Value:
        """Return what pixels of an interval weigh in each number of the result."""
        nodes, kind = self._nodes, self._spec.interpolation
        one, none = nodes.number(1), nodes.number(0)
        ratio = self._times(whole, 1 / size)
        centres = self._sub(
            nodes("Mul", nodes("Add", numbers, nodes.number(0.5)), ratio), nodes.number(0.5)
        )
        last = self._sub(whole, one)
        if kind in SUPPORTS:
            scale = nodes("Max", ratio, one)
            distances = nodes("Abs", self._sub(pixels, centres))
            distances = nodes("Div", distances, scale)
            filters = {"bicubic": self._cubic, "lanczos": self._lanczos}
            weights = filters.get(kind, self._tent)(distances)
            return nodes("Mul", weights, self._between(pixels, none, last))
        nearest = nodes("Min", nodes("Max", centres, none), last)
        two = self._tent(nodes("Abs", self._sub(pixels, nearest)))
        if kind != "area":
            return two
        first = nodes("Mul", numbers, ratio)
        ends = nodes("Mul", nodes("Add", numbers, one), ratio)
        covered = self._sub(
            nodes("Min", ends, nodes("Add", pixels, one)), nodes("Max", first, pixels)
        )
        covered = nodes("Div", nodes("Max", covered, none), ratio)
        shrinks = nodes("Greater", whole, nodes.number(size))
        return nodes("Where", shrinks, covered, two)

    def _tent(self, distances: ir.Value) -> ir.Value:
        nodes = self._nodes
        return nodes("Max", self._sub(nodes.number(1), distances), nodes.number(0))

    def _cubic(self, distances: ir.Value) -> ir.Value:
        """Return Keys's cubic: near 0 to 1, far 1 to 2, each limited to its own interval."""
        nodes = self._nodes
        near = nodes("Min", distances, nodes.number(1))
        far = nodes("Min", nodes("Max", distances, nodes.number(1)), nodes.number(2))
        inner = self._polynomial(near, (CUBIC + 2, -(CUBIC + 3), 0, 1))
        outer = self._polynomial(far, (CUBIC, -5 * CUBIC, 8 * CUBIC, -4 * CUBIC))
        return nodes("Add", inner, outer)  # each is 0 where the other counts

    def _lanczos(self, distances: ir.Value) -> ir.Value:
        """Return sinc(x) sinc(x / 3), which ends at 3; near 0 it is 1 to float32's last digits."""
        nodes = self._nodes
        inside = nodes("Min", nodes("Max", distances, nodes.number(1e-4)), nodes.number(3))
        angle = self._times(inside, math.pi)
        third = self._times(angle, 1 / 3)
        waves = nodes("Mul", nodes("Sin", angle), nodes("Sin", third))
        return nodes("Div", waves, nodes("Mul", angle, third))

    def _polynomial(self, value: ir.Value, factors: tuple[float, ...]) -> ir.Value:
        nodes, total = self._nodes, self._nodes.number(factors[0])
        for factor in factors[1:]:
            total = nodes("Add", nodes("Mul", total, value), nodes.number(factor))
        return total

    def _between(self, pixels: ir.Value, first: ir.Value, last: ir.Value) -> ir.Value:
        """Return 1 for pixels from the first to the last, else 0; all are whole numbers."""
        nodes = self._nodes
        inside = nodes("Min", self._sub(pixels, first), self._sub(last, pixels))
        inside = nodes("Add", inside, nodes.number(1))
        return nodes("Min", nodes("Max", inside, nodes.number(0)), nodes.number(1))

    def _rounded(self, value: ir.Value) -> ir.Value:
        nodes = self._nodes
        return nodes("Floor", nodes("Add", value, nodes.number(0.5)))

    def _times(self, value: ir.Value, factor: float) -> ir.Value:
        return self._nodes("Mul", value, self._nodes.number(factor))

    def _sub(self, value: ir.Value, other: ir.Value) -> ir.Value:
        return self._nodes("Sub", value, other)


def _integer(nodes: NodeList, value: int) -> ir.Value:
    return nodes.constant(np.array(value, np.int64))
