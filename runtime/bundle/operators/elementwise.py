"""Operators that compute each number apart: activations, arithmetic, comparisons, quantisation."""

from __future__ import annotations

from .node import (
    ABSENT,
    BOOL,
    FLOAT,
    FLOAT16,
    INT8,
    UINT8,
    Node,
    Operator,
    Value,
    broadcast,
    numbers_in,
)

_PLAIN = (
    *("Abs", "Ceil", "Cos", "Erf", "Exp", "Floor", "HardSwish", "Identity", "Log", "Mish", "Neg"),
    *("Not", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign"),
    *("Sqrt", "Tanh"),
)
_WITH_ALPHA = ("Celu", "Elu", "LeakyRelu", "ThresholdedRelu")
_PAIRS = ("Add", "Div", "Mul", "Pow", "PRelu", "Sub")
_COMPARISONS = ("And", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Or")


def _same(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    return image


def _cast(node: Node) -> Value:
    image, _ = node.image_and_constants(1, 1)
    to = node.number("to", 0)
    node.check(to in {FLOAT, FLOAT16})
    return image._replace(dtype=to)


def _cast_any(node: Node) -> Value:
    return _same(node)._replace(dtype=BOOL) if node.number("to", 0) == BOOL else _cast(node)


def _pair(node: Node) -> Value:
    node.check(len(node.inputs) == 2)
    return _of_all(node)


def _of_all(node: Node) -> Value:
    node.check(2 <= len(node.inputs) <= 8, ABSENT not in node.inputs)
    value = broadcast(node, node.inputs)
    node.check(value.of_images)
    return value


def _comparison(node: Node) -> Value:
    return _pair(node)._replace(dtype=BOOL)


def _where(node: Node) -> Value:
    node.check(len(node.inputs) == 3, node.input(0).dtype == BOOL)
    return _of_all(node)._replace(dtype=node.input(1).dtype)


def _clip(node: Node) -> Value:
    image, limits = node.image_and_constants(1, 3)
    node.check(all(numbers_in(limit) == 1 for limit in limits))
    return image


def _mul_by_one_number(node: Node) -> Value:
    image, (factor,) = node.image_and_constants(2, 2)
    node.check(numbers_in(factor) == 1, len(factor.shape) < len(image.shape))
    return image


def _scaled(node: Node) -> tuple[Value, list[Value]]:
    """Return what is quantised or the contrary, and its scale and zero point."""
    node.check(2 <= len(node.inputs) <= 3)
    value, *scales = node.inputs
    for scale in scales:
        node.check(not scale.of_images, len(scale.shape) <= 1)
        node.check(scale.shape == scales[0].shape)
    if numbers_in(scales[0]) > 1:
        axis = node.axis(value, node.number("axis", 1))
        node.check(scales[0].shape[0] == value.shape[axis])
    return value, scales


def _quantise(node: Node) -> Value:
    value, scales = _scaled(node)
    dtype = scales[1].dtype if len(scales) == 2 else UINT8
    node.check(value.of_images, dtype in {UINT8, INT8})
    return value._replace(dtype=dtype)


def _dequantise(node: Node) -> Value:
    value, scales = _scaled(node)
    node.check(value.of_images or value.tensor is not None)
    return value._replace(dtype=scales[0].dtype, tensor=None)


QUANTISATION = {
    "DequantizeLinear": Operator({"axis": "i"}, _dequantise),
    "QuantizeLinear": Operator({"axis": "i"}, _quantise),
}
CARD_CAST = Operator({"to": "i"}, _cast)
CARD_MUL = Operator({}, _mul_by_one_number)
ELEMENTWISE = {
    **dict.fromkeys(_PLAIN, Operator({}, _same)),
    **dict.fromkeys(_WITH_ALPHA, Operator({"alpha": "f"}, _same)),
    **dict.fromkeys(_PAIRS, Operator({}, _pair)),
    **dict.fromkeys(("Max", "Min"), Operator({}, _of_all)),
    **dict.fromkeys(_COMPARISONS, Operator({}, _comparison)),
    **QUANTISATION,
    "Cast": Operator({"to": "i"}, _cast_any),
    "Clip": Operator({}, _clip),
    "Gelu": Operator({"approximate": "s"}, _same),
    "HardSigmoid": Operator({"alpha": "f", "beta": "f"}, _same),
    "Selu": Operator({"alpha": "f", "gamma": "f"}, _same),
    "Where": Operator({}, _where),
}
"""Operators whose output has the shape to which their inputs broadcast."""
