"""Which ONNX graphs may be opened: those that an export or import writes, within limits.

An engine that opens a file does what the file says: read another file, loop for ever, unfold a
constant to gigabytes, run code of an operator library. So a graph is read here first, by a reader
of our own, since the machine that runs it has no ONNX package. It may hold the operators and
attributes of `operators.tables` and no others; each value's shape is computed, and memory and
arithmetic have limits: for the card's network they follow from the model's sizes, for others they
are fixed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..core.spec import ModelSpec
from .frame_format import FrameFormat
from .graph_key import Tensor
from .manifest import GraphEntry
from .onnx_wire import (
    ATTRIBUTE,
    DIMENSION,
    GRAPH,
    MODEL,
    NODE,
    OPSET,
    SHAPE,
    TENSOR,
    TENSOR_TYPE,
    TYPE,
    VALUE,
    Reader,
    Values,
    text_of,
)
from .operators.node import ABSENT, MOST_AXES, Node, Operator, Value, numbers_in
from .operators.tables import ANY, CARD

_KINDS = {"f": 1, "i": 2, "s": 3, "ints": 7}  # AttributeProto.type
_NAMED = {
    **dict.fromkeys(("If", "Loop", "Scan", "SequenceMap"), "control flow"),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform"), "random"),
    **dict.fromkeys(("RandomUniformLike", "Bernoulli", "Multinomial"), "random"),
    **dict.fromkeys(("ConstantOfShape", "Expand", "Tile", "Range", "Resize"), "of any size"),
    **dict.fromkeys(("Shape", "Size", "NonZero", "Unique"), "of sizes that only a run shows"),
}
_TYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}
_BYTES = {1: 4, 2: 1, 3: 1, 6: 4, 7: 8, 9: 1, 10: 2}  # of a number of a type
_OPSETS, _IR_VERSIONS = range(17, 25), range(8, 14)
_MOST_NODES, _MOST_CONSTANTS = 2000, 4000
_MOST_VALUE = 1 << 27  # numbers in one value for one image, whatever the model's sizes
_MOST_WORK = 1 << 41  # multiplications for one image, likewise
_FOLDED = 4  # a rewritten layer takes so many times the multiplications, at most
_LAYERS = 16  # times the largest feature map are all values together, at most
_MOST_FILE = 768 << 20  # of a model for 1024 x 1024 pixels the largest graph has 540 MB
_FILE_BYTES = 4 << 20  # of a graph's file beside its weights


class Budget(NamedTuple):
    """What one graph of a model may take."""

    file_bytes: int
    value: int  # numbers in one value, for one image or of constants
    values: int  # in all of them together
    held: int  # in those that an engine keeps at one time
    work: int  # multiplications for one image


_ANY_NETWORK = Budget(
    file_bytes=(2 << 30) - 1,  # more is no protobuf
    value=1 << 28,
    values=1 << 34,
    held=1 << 31,
    work=1 << 43,
)
"""Of a network that is not the card's. The decoder of a latent diffusion model (128 to 512
channels, attention in the middle) has values of 2^26 numbers for 512 x 512 pixels, and of 2^28 for
twice as many along each side."""


def budget_of(spec: ModelSpec, frame: FrameFormat | None = None) -> Budget:
    """Return the limits for graphs of a model: several times what they take, or fixed ones.

    One that takes frames may resize both axes by whole matrices besides.
    """
    if frame is not None:
        of_model, pixels = budget_of(spec), 3 * math.prod(frame.size)
        lines = spec.height * frame.size[1] * 3
        weights = 4 * (spec.height * frame.size[0] + spec.width * frame.size[1]) * 9
        return Budget(
            file_bytes=min(of_model.file_bytes + 4 * weights, _ANY_NETWORK.file_bytes),
            value=max(of_model.value, 2 * pixels, 2 * lines, weights),
            values=of_model.values + 8 * (pixels + lines + weights),
            held=of_model.held + 8 * (pixels + lines + weights),
            work=of_model.work + 2 * spec.height * pixels + 6 * lines * spec.width,
        )
    if spec.channels is None:
        return _ANY_NETWORK
    matrix = spec.flat_size * spec.latent_size
    areas = [height * width for height, width in spec.map_shapes]
    widths = [spec.image_channels, *spec.channels]
    pairs = list(zip(widths, widths[1:], areas[1:], strict=False))
    ends = widths[1] * (widths[1] + spec.image_channels)
    kernels = sum(9 * a * b for a, b, _ in pairs) + 9 * ends
    first = 9 * ends * areas[0]
    work = _FOLDED * (2 * sum(9 * a * b * area for a, b, area in pairs) + first + 3 * matrix)
    maps = [width * area for width, area in zip(widths, areas, strict=True)]
    # The weights of a layer, too, which INT8 graphs compute, and ONNX Runtime's decoder cuts.
    largest_kernel = max(9 * a * b for a, b, _ in pairs)
    largest = 2 * max(*maps, widths[1] * areas[0], spec.latent_size, matrix, largest_kernel)
    weights = _FOLDED * (2 * kernels + 3 * matrix + spec.flat_size + spec.latent_size)
    return Budget(
        file_bytes=min(4 * weights + _FILE_BYTES, _MOST_FILE),
        value=min(largest, _MOST_VALUE),
        values=_LAYERS * largest,
        held=_LAYERS * largest,
        work=min(work, _MOST_WORK),
    )


def check_graph(data: bytes, entry: GraphEntry, spec: ModelSpec) -> None:
    """Raise ValueError, its text a clause, unless a file's bytes are such a graph of this model.

    Inputs and outputs are those that the manifest announces, and so is the opset.
    """
    reader = Reader()
    model = reader.read(memoryview(data), MODEL)
    if model.get("ir_version") not in _IR_VERSIONS:
        raise ValueError(f"its IR version is {model.get('ir_version')}")
    for opset in reader.each(model["opset_import"], OPSET):
        if domain := text_of(opset.get("domain")):
            raise ValueError(f"it takes operators of {domain[:40]!r}, not of ONNX itself")
        if opset.get("version") != entry.opset or entry.opset not in _OPSETS:
            raise ValueError(
                f"its opset is {opset.get('version')}, the manifest says {entry.opset}, and those "
                f"that are read are {_OPSETS[0]} to {_OPSETS[-1]}"
            )
    if len(model["opset_import"]) != 1 or "graph" not in model:
        raise ValueError("it is no ONNX graph")
    operators = CARD if spec.channels is not None and entry.frame is None else ANY
    budget = budget_of(spec, entry.frame)
    _Graph(reader, reader.read(model["graph"], GRAPH), budget, operators).check(entry)


class _Graph:
    """One graph while it is checked."""

    def __init__(
        self, reader: Reader, graph: Values, budget: Budget, operators: Mapping[str, Operator]
    ) -> None:
        self._reader, self._graph = reader, graph
        self._budget, self._operators = budget, operators
        self._values: dict[str, Value] = {}
        self._numbers = self._work = 0

    def check(self, entry: GraphEntry) -> None:
        graph, reader = self._graph, self._reader
        if len(graph["node"]) > _MOST_NODES or len(graph["initializer"]) > _MOST_CONSTANTS:
            raise ValueError(f"it has more than {_MOST_NODES} nodes or {_MOST_CONSTANTS} constants")
        nodes = list(reader.each(graph["node"], NODE))
        for node in nodes:
            _check_operator(node, self._operators)
        found = self._announced(graph["input"]), self._announced(graph["output"])
        wanted = _tensors_of(entry.inputs), _tensors_of(entry.outputs)
        for is_, manifest in zip(found, wanted, strict=True):
            if is_ != manifest:
                raise ValueError(f"it has {is_}, and the manifest announces {manifest}")
        for name, (dtype, shape) in found[0].items():
            code = next(code for code, known in _TYPES.items() if known == dtype)
            self._add(name, Value(code, (1, *map(int, shape[1:])), axis=0))
        for tensor in reader.each(graph["initializer"], TENSOR):
            self._add(text_of(tensor.get("name")), _constant_of(tensor))
        for node in nodes:
            self._add_node(node)
        for name, (dtype, shape) in found[1].items():
            value = self._value(name)
            if (_TYPES[value.dtype], value.shape, value.axis) != (dtype, (1, *shape[1:]), 0):
                raise ValueError(f"its output {name!r} is {value.shape}, and not {shape[1:]}")
        self._check_notes()

    def _add_node(self, found: Values) -> None:
        op = text_of(found["op_type"])
        attributes = self._attributes(op, found["attribute"])
        names = [text_of(name) for name in found["input"]]
        inputs = [self._value(name) if name else ABSENT for name in names]
        if len(found["output"]) != 1:
            raise ValueError(f"a {op} in it has {len(found['output'])} outputs")
        node = Node(op, attributes, inputs)
        value = self._operators[op].output(node)
        self._work += node.work
        if self._work > self._budget.work:
            raise ValueError("it multiplies more than a graph of this model does")
        self._add(text_of(found["output"][0]), value)

    def _attributes(self, op: str, found: Sequence[memoryview]) -> dict[str, object]:
        attributes: dict[str, object] = {}
        for one in self._reader.each(found, ATTRIBUTE):
            name = text_of(one.get("name"))
            field = self._operators[op].attributes.get(name)
            others = {
                key for key in one if key not in {"name", "type", "doc_string", "ints", field}
            }
            if field is None or name in attributes or one.get("type") != _KINDS[field] or others:
                raise ValueError(f"the attribute {name[:40]!r} of a {op} in it is none of ours")
            if field != "ints" and one["ints"]:
                raise ValueError(f"the attribute {name[:40]!r} of a {op} in it has two values")
            attributes[name] = text_of(one.get("s")) if field == "s" else one.get(field, 0)
        return attributes

    def _add(self, name: str, value: Value) -> None:
        if not name or name in self._values:
            raise ValueError(f"it has two values called {name[:40]!r}")
        numbers = numbers_in(value)
        if value.of_images or value.tensor is None:
            self._numbers += numbers
            if numbers > self._budget.value:
                raise ValueError(f"its value {name[:40]!r} has {numbers} numbers for one image")
            if self._numbers > self._budget.values:
                raise ValueError("its values take more memory than those of this model")
        self._values[name] = value

    def _value(self, name: str) -> Value:
        if name not in self._values:
            raise ValueError(f"it reads {name[:40]!r}, which nothing before gives")
        return self._values[name]

    def _announced(
        self, values: Sequence[memoryview]
    ) -> dict[str, tuple[str, tuple[int | str, ...]]]:
        """Return what inputs or outputs are: name to dtype and shape."""
        found = {}
        for value in self._reader.each(values, VALUE):
            name = text_of(value.get("name"))
            if name in found:
                raise ValueError(f"it has two inputs or outputs called {name[:40]!r}")
            found[name] = self._type_of(value)
        return found

    def _type_of(self, value: Values) -> tuple[str, tuple[int | str, ...]]:
        if "type" not in value:
            raise ValueError("one of its values has no type")
        kind = self._reader.read(value["type"], TYPE)
        if "tensor_type" not in kind:
            raise ValueError("one of its values is no tensor")
        tensor = self._reader.read(kind["tensor_type"], TENSOR_TYPE)
        if "shape" not in tensor:
            raise ValueError("one of its values has no shape")
        axes: list[int | str] = []
        for axis in self._reader.each(self._reader.read(tensor["shape"], SHAPE)["dim"], DIMENSION):
            if ("dim_value" in axis) == ("dim_param" in axis):
                raise ValueError("an axis of one of its values has no length")
            is_free = "dim_param" in axis
            axes.append(text_of(axis["dim_param"]) if is_free else axis["dim_value"])
        return _TYPES.get(tensor.get("elem_type", 0), "another type"), tuple(axes)

    def _check_notes(self) -> None:
        """Compare what the file notes of values inside with what they are."""
        for value in self._reader.each(self._graph["value_info"], VALUE):
            known = self._values.get(text_of(value.get("name")))
            if known is None:
                continue
            dtype, shape = self._type_of(value)
            own = [*shape]
            if known.axis is not None and known.axis < len(shape):
                own[known.axis] = known.shape[known.axis]  # whatever the free axis is called
            if (dtype, tuple(own)) != (_TYPES[known.dtype], known.shape):
                raise ValueError(f"it notes {dtype} {shape} of a value that is {known.shape}")


def _check_operator(node: Values, operators: Mapping[str, Operator]) -> None:
    op, domain = text_of(node.get("op_type")), text_of(node.get("domain"))
    if domain:
        raise ValueError(f"it has an operator {op[:40]!r} of {domain[:40]!r}, not of ONNX")
    if op not in operators:
        kind = f", which is {_NAMED[op]}" if op in _NAMED else ""
        raise ValueError(f"it has an operator {op[:40]!r}{kind}, and no graph of ours has")


def _constant_of(tensor: Values) -> Value:
    """Return a constant, whose bytes are those that its shape takes."""
    dtype, shape = tensor.get("data_type", 0), tuple(tensor["dims"])
    name = text_of(tensor.get("name"))[:40]
    if tensor.get("data_location", 0):
        raise ValueError(f"its constant {name!r} has data in another file")
    if dtype not in _TYPES or len(shape) > MOST_AXES or min(shape, default=1) < 1:
        raise ValueError(f"its constant {name!r} is of type {dtype} and shape {shape[:8]}")
    numbers = math.prod(shape)
    kept = [
        key for key in ("raw_data", "float_data", "int32_data", "int64_data") if tensor.get(key)
    ]
    kept = kept or ["raw_data"]
    fits = len(kept) == 1
    if kept[0] == "raw_data":
        fits = fits and len(tensor.get("raw_data", b"")) == numbers * _BYTES[dtype]
    else:
        of = {"float_data": {1}, "int32_data": {2, 3, 6, 9, 10}, "int64_data": {7}}[kept[0]]
        fits = fits and dtype in of and len(tensor[kept[0]]) == numbers
    if not fits:
        raise ValueError(f"its constant {name!r} has not the bytes of {_TYPES[dtype]} {shape}")
    for counted in ("float_data", "int32_data"):
        tensor[counted] = []  # they were there to be counted, and would be kept for all constants
    return Value(dtype, shape, tensor=tensor)


def _tensors_of(announced: Sequence[Tensor]) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in announced}
