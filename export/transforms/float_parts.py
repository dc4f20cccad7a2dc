"""What of an FP16 graph stays in float32: shapes, inputs typed so, numbers too small for FP16."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

FLOAT16_MAX = 65504.0
FLOAT16_SMALLEST_NORMAL = float(np.finfo(np.float16).smallest_normal)

_FLOAT_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Positions of inputs that an operator has in float32, whatever the type of its data."""
_ELEMENTWISE = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Clip")
_SUMS = ("ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare", "GlobalAveragePool")
_SQUARES = ("Mul", "Pow")
_ROOTS = ("Sqrt", "Reciprocal", "Pow", "Expand")
_QUOTIENTS = ("Div", "Mul")
_PRODUCTS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_MOVES = (
    *("Cast", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Pad"),
    *("Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
)
"""What computes nothing: a compiler moves a Cast past it."""

FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def nodes_of_data(graph: ir.Graph) -> set[ir.Node]:
    """Return the nodes whose values depend on those of an input, and not on shapes alone.

    The nodes of a graph are in the order in which they are computed.
    """
    carrying: set[ir.Value] = set(graph.inputs)
    nodes = set()
    for node in graph:
        if node.op_type not in {"Shape", "Size"} and carrying.intersection(_inputs(node)):
            nodes.add(node)
            carrying.update(node.outputs)
    return nodes


def is_float_input(node: ir.Node, position: int) -> bool:
    """Whether an operator takes this input in float32 only."""
    return position in _FLOAT_INPUTS.get(node.op_type, ())


def float_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node takes in FP16 or float32, as its type or precision has it."""
    for position, value in enumerate(node.inputs):
        if value is not None and value.dtype in FLOATS and not is_float_input(node, position):
            yield value


def fragile_nodes(graph: ir.Graph) -> set[str]:
    """Return the names of nodes that a number loses its sense in which FP16 has no normal form of.

    That is what keeps a quotient finite, such as the 1e-6 beside a variance: it may become 0. With
    the sum it is added to go the squares of which that is, as they leave FP16 at both ends, and
    the root and quotient behind. Norms that are one operator are not among them: engines take
    their mean and variance in float32.
    """
    found: set[ir.Node] = set()
    for node in graph:
        if node.op_type not in _ELEMENTWISE or not any(map(_is_tiny, node.inputs)):
            continue
        found.add(node)
        if node.op_type in {"Add", "Sub", "Max", "Clip"}:
            for value in _inputs(node):
                found.update(_sum_behind(value))
            found.update(_quotient_of(node))
    return {str(node.name) for node in found & nodes_of_data(graph)}


def kept_in_engines(graph: ir.Graph, kept: Collection[str]) -> set[str]:
    """Return the names of nodes to keep in float32 so that engines compute those `kept` so.

    TensorRT-RTX 1.7 computes a convolution in FP16 that is float32 alone between two Casts, in
    strongly typed networks, too; not so where another float32 operation stands between it and one
    of the Casts. So the one behind it is kept as well, or else the one before it; and where all
    that reads a scaled 8-bit input is float32, the scaling is.
    """
    found = set(kept)
    of_data = nodes_of_data(graph)
    for value in graph.inputs:
        nodes = list(dict.fromkeys(use.node for use in value.uses()))
        chain: list[ir.Node] = []
        while value.dtype not in FLOATS and len(nodes) == 1 and nodes[0].op_type in {"Cast", "Mul"}:
            chain += nodes
            nodes = list(dict.fromkeys(use.node for use in nodes[0].outputs[0].uses()))
        if nodes and all(node.name in found for node in nodes):
            found.update(str(node.name) for node in chain)
    for node in graph:
        if node.name not in found or node.op_type not in _PRODUCTS or node not in of_data:
            continue
        before = [value.producer() for value in _inputs(node)]
        makers = [maker for maker in before if maker is not None and maker in of_data]
        readers = list(dict.fromkeys(use.node for use in node.outputs[0].uses()))
        around = [one for one in (*makers, *readers) if one.op_type not in _MOVES]
        is_alone = bool(makers) and not any(one.name in found for one in around)
        if is_alone and node.outputs[0] not in graph.outputs:
            beside = [one for one in (*readers, *makers) if _computes(one, node)]
            found.update(str(one.name) for one in beside[:1])
    return found


def _computes(one: ir.Node, node: ir.Node) -> bool:
    """Whether one of the nodes around a product, alone with it, keeps the Casts away from it."""
    if one.op_type in (*_PRODUCTS, *_MOVES):
        return False
    # Of several readers, the others would still read it in FP16.
    return one in {value.producer() for value in _inputs(node)} or len(node.outputs[0].uses()) == 1


def overflowing_weights(graph: ir.Graph, most: float) -> dict[str, Collection[str]]:
    """Return the names of constants beyond FP16's range, each with the nodes that read it."""
    found: dict[str, Collection[str]] = {}
    for value in graph.initializers.values():
        tensor = value.const_value
        if value.dtype != ir.DataType.FLOAT or tensor is None:
            continue
        if float(np.abs(tensor.numpy()).max(initial=0.0)) > most:
            readers = [use.node for use in value.uses() if value in float_inputs(use.node)]
            if readers:
                found[str(value.name)] = [str(node.name) for node in readers]
    return found


def _inputs(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def _is_tiny(value: ir.Value | None) -> bool:
    """Whether it is one number, not 0, that FP16 has no normal form of."""
    tensor = value.const_value if value is not None else None
    if tensor is None or tensor.dtype not in FLOATS or tensor.size != 1:
        return False
    return 0 < abs(float(tensor.numpy().reshape(()))) < FLOAT16_SMALLEST_NORMAL


def _sum_behind(value: ir.Value) -> Iterator[ir.Node]:
    """Yield the nodes that make a variance, or another sum of squares, from what is squared."""
    maker = value.producer()
    while maker is not None and maker.op_type in (*_SUMS, *_SQUARES, "Div", "Sqrt"):
        yield maker
        if maker.op_type in _SQUARES:
            return
        first = maker.inputs[0]
        maker = first.producer() if first is not None else None


def _quotient_of(node: ir.Node) -> Iterator[ir.Node]:
    """Yield the nodes from a sum to what is divided by its root."""
    queue = [node]
    while queue:
        for use in queue.pop().outputs[0].uses():
            if use.node.op_type in _QUOTIENTS:
                yield use.node
            elif use.node.op_type in _ROOTS:
                yield use.node
                queue.append(use.node)
