"""NodeList: nodes that are written down one behind the other, for the front of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from ..transforms.graph_ops import constant

FLOAT, INT64 = int(ir.DataType.FLOAT), int(ir.DataType.INT64)


class NodeList:
    """Nodes that are not in their graph yet, and constants that are.

    Their names begin with `frame_`, and those of their nodes with `node_frame_`; no others of the
    graph may.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes: list[ir.Node] = []
        self._graph = graph
        self._known: dict[tuple[str, bytes, tuple[int, ...]], ir.Value] = {}

    def __call__(
        self,
        op: str,
        *inputs: ir.Value,
        **attributes: int | Sequence[int],
    ) -> ir.Value:
        """Add a node and return its one output, of which nothing is noted: all follows."""
        name = f"frame_{op.lower()}_{len(self.nodes)}"
        value = ir.val(name)
        self.nodes.append(ir.node(op, inputs, attributes, outputs=[value], name=f"node_{name}"))
        return value

    def constant(self, array: npt.NDArray[np.generic]) -> ir.Value:
        """Return a constant, the same for the same numbers; float64 becomes float32."""
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        key = (str(array.dtype), array.tobytes(), array.shape)
        if key not in self._known:
            name = f"frame_constant_{len(self._known)}"
            self._known[key] = constant(self._graph, name, array)
        return self._known[key]

    def number(self, value: float) -> ir.Value:
        """Return a float32 constant without axes."""
        return self.constant(np.array(value, np.float32))

    def integers(self, *values: int) -> ir.Value:
        """Return an int64 constant of one axis, such as a shape."""
        return self.constant(np.array(values, np.int64))

    def channels(self, pixels: ir.Value, height: int, width: int, channels: int) -> ir.Value:
        """Turn (N, width * channels, height) into (N, channels, height, width)."""
        pixels = self("Reshape", pixels, self.integers(0, width, channels, height))
        return self("Transpose", pixels, perm=[0, 2, 3, 1])
