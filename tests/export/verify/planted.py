"""Graphs that are wrong in one way each, made of right ones: what the gate must catch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from motorvae.export.transforms.graph_ops import constant, typed_node
from motorvae.export.verify.reference import Reference
from motorvae.runtime.bundle.graph_key import Part

FLOAT = ir.DataType.FLOAT
Array = npt.NDArray[Any]
Planted = Callable[[ir.Model, Reference], ir.Model | None]


def ignores_still_pixels(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder that takes pixels which never change over the images from the first of them."""
    still = reference.images.min(axis=0) == reference.images.max(axis=0)
    if not still.any():
        return None
    usual = reference.images[0] / np.float32(255)
    edit = _BehindInput(model)
    edit.apply("Mul", np.where(still, 0, 1).astype(np.float32)[None, None])
    edit.apply("Add", np.where(still, usual, 0).astype(np.float32)[None, None])
    return edit.done()


def ignores_its_input(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder that says of every image what it says of the first."""
    edit = _BehindInput(model)
    edit.apply("Mul", np.zeros((1, 1, 1, 1), np.float32))
    edit.apply("Add", reference.images[:1, None] / np.float32(255))
    return edit.done()


def clips_to_the_darkest(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder that takes no pixel for darker than the darkest of the images."""
    darkest = int(reference.images.min())
    return None if darkest == 0 else _clipped(model, darkest / 255, 1.0)


def clips_to_the_brightest(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder that takes no pixel for brighter than the brightest of the images."""
    brightest = int(reference.images.max())
    return None if brightest == 255 else _clipped(model, 0.0, brightest / 255)


def transposes_the_image(model: ir.Model, _reference: Reference) -> ir.Model | None:
    """An encoder that takes rows for columns."""
    edit = _BehindInput(model)
    edit.apply("Transpose", attributes={"perm": [0, 1, 3, 2]})
    return edit.done()


def doubles_mu_at_batch_1(model: ir.Model, _reference: Reference) -> ir.Model | None:
    """An encoder that is right at every batch size but one."""
    return _wrong_at_batch_1(model, "mu", 2.0)


def doubles_the_image_at_batch_1(model: ir.Model, _reference: Reference) -> ir.Model | None:
    """A decoder that is right at every batch size but one."""
    return _wrong_at_batch_1(model, "reconstruction", 2.0)


def zeroes_a_unit(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder without the unit that varies least of those that carry information."""
    (units,) = np.nonzero(reference.judged_units)
    least = units[np.argmin(reference.spread.mu[units])]
    mask = np.ones((1, reference.mu.shape[1]), np.float32)
    mask[0, least] = 0
    return _BeforeOutput(model, "mu").apply("Mul", mask).done()


def breaks_a_collapsed_unit(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder that is off by three posterior deviations where nobody looks at the spread."""
    (units,) = np.nonzero(~reference.informative)
    if not len(units):
        return None
    shift = np.zeros((1, reference.mu.shape[1]), np.float32)
    shift[0, units[0]] = 3 * np.sqrt(reference.posterior_variance[units[0]])
    return _BeforeOutput(model, "mu").apply("Add", shift).done()


def widens_the_posterior(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder whose posterior deviations are too large by 28 %."""
    shift = np.full((1, reference.mu.shape[1]), 0.5, np.float32)
    return _BeforeOutput(model, "log_var").apply("Add", shift).done()


def swaps_units(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder that gives two units each other's values."""
    (units,) = np.nonzero(reference.judged_units)
    if len(units) < 2:
        return None
    order = np.arange(reference.mu.shape[1])
    order[units[[0, 1]]] = units[[1, 0]]
    edit = _BeforeOutput(model, "mu")
    return edit.apply("Gather", order, attributes={"axis": 1}).done()


def clips_mu_to_what_was_seen(model: ir.Model, reference: Reference) -> ir.Model | None:
    """An encoder whose latents never leave the range of the images'."""
    lowest, highest = reference.mu.min(axis=0), reference.mu.max(axis=0)
    edit = _BeforeOutput(model, "mu")
    return edit.apply("Max", lowest[None]).apply("Min", highest[None]).done()


def clips_z_to_what_was_seen(model: ir.Model, reference: Reference) -> ir.Model | None:
    """A decoder that is right on the latents of the images only."""
    edit = _BehindInput(model)
    edit.apply("Max", reference.mu.min(axis=0)[None])
    edit.apply("Min", reference.mu.max(axis=0)[None])
    return edit.done()


def clips_the_image(model: ir.Model, reference: Reference) -> ir.Model | None:
    """A decoder whose black is not black; where nothing that it decodes is dark, it is right."""
    decoded = [np.asarray(reference.reconstruction)]
    if reference.probes is not None:
        decoded.append(reference.probes.reconstruction)
    if min(float(images.min()) for images in decoded) > 0.05:
        return None
    edit = _BeforeOutput(model, "reconstruction")
    return edit.apply("Max", np.full((1, 1, 1, 1), 0.1, np.float32)).done()


def spoils_a_pixel(model: ir.Model, reference: Reference) -> ir.Model | None:
    """A decoder that is off by 0.1 in one pixel, which the PSNR of an image hides in FP16."""
    shift = np.zeros((1, 1, *reference.images.shape[1:]), np.float32)
    shift[..., 1, 1] = 0.1
    return _BeforeOutput(model, "reconstruction").apply("Add", shift).done()


PLANTED: Mapping[Part, tuple[Planted, ...]] = {
    "encoder": (
        ignores_still_pixels,
        ignores_its_input,
        clips_to_the_darkest,
        clips_to_the_brightest,
        transposes_the_image,
        doubles_mu_at_batch_1,
        zeroes_a_unit,
        breaks_a_collapsed_unit,
        widens_the_posterior,
        swaps_units,
        clips_mu_to_what_was_seen,
    ),
    "decoder": (
        doubles_the_image_at_batch_1,
        clips_z_to_what_was_seen,
        clips_the_image,
        spoils_a_pixel,
    ),
}


class _BehindInput:
    """Puts nodes between a graph's input and whatever reads it."""

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        (self._input,) = model.graph.inputs
        self._before = model.graph[0]
        self._value = self._input
        self._nodes: list[ir.Node] = []

    def apply(
        self, op: str, operand: Array | None = None, attributes: Mapping[str, Any] | None = None
    ) -> None:
        name = f"planted_{len(self._nodes)}"
        inputs = [self._value]
        if operand is not None:
            inputs.append(constant(self._model.graph, f"{name}.operand", operand))
        node = typed_node(
            op, inputs, name, dtype=FLOAT, shape=self._input.shape, attributes=attributes or {}
        )
        self._nodes.append(node)
        self._value = node.outputs[0]

    def done(self) -> ir.Model:
        first = self._nodes[0]
        ir.convenience.replace_all_uses_with(self._input, self._value)
        first.replace_input_with(0, self._input)
        self._model.graph.insert_before(self._before, self._nodes)
        return self._model


class _BeforeOutput:
    """Puts nodes between what gives an output and the output, which keeps its name."""

    def __init__(self, model: ir.Model, name: str) -> None:
        self._model, self._name = model, name
        self._place = [value.name for value in model.graph.outputs].index(name)
        self._value = model.graph.outputs[self._place]
        self._shape = self._value.shape
        self._value.name = f"{name}_right"

    def apply(
        self,
        op: str,
        operand: Array | ir.Value,
        attributes: Mapping[str, Any] | None = None,
    ) -> _BeforeOutput:
        graph = self._model.graph
        name = f"planted_{self._name}_{len(graph)}"
        if not isinstance(operand, ir.Value):
            operand = constant(graph, f"{name}.operand", operand)
        node = typed_node(
            op,
            [self._value, operand],
            name,
            dtype=FLOAT,
            shape=self._shape,
            attributes=attributes or {},
        )
        graph.append(node)
        self._value = node.outputs[0]
        return self

    def done(self) -> ir.Model:
        self._value.name = self._name
        self._model.graph.outputs[self._place] = self._value
        return self._model


def _clipped(model: ir.Model, low: float, high: float) -> ir.Model:
    edit = _BehindInput(model)
    edit.apply("Max", np.full((1, 1, 1, 1), low, np.float32))
    edit.apply("Min", np.full((1, 1, 1, 1), high, np.float32))
    return edit.done()


def _wrong_at_batch_1(model: ir.Model, output: str, factor: float) -> ir.Model:
    """Multiply an output by a factor that is 1 but where the batch is 1."""
    graph = model.graph
    (face,) = graph.inputs
    one = constant(graph, "planted.one", np.array([1], np.int64))
    extra = constant(graph, "planted.extra", np.array([factor - 1], np.float32))
    unit = constant(graph, "planted.unit", np.array([1], np.float32))
    count = typed_node(
        "Shape",
        [face],
        "planted_count",
        dtype=ir.DataType.INT64,
        shape=[1],
        attributes={"start": 0, "end": 1},
    )
    is_one = typed_node(
        "Equal", [count.outputs[0], one], "planted_is_one", dtype=ir.DataType.BOOL, shape=[1]
    )
    share = typed_node(
        "Cast",
        [is_one.outputs[0]],
        "planted_share",
        dtype=FLOAT,
        shape=[1],
        attributes={"to": int(FLOAT)},
    )
    more = typed_node("Mul", [share.outputs[0], extra], "planted_more", dtype=FLOAT, shape=[1])
    total = typed_node("Add", [more.outputs[0], unit], "planted_total", dtype=FLOAT, shape=[1])
    graph.insert_before(graph[0], [count, is_one, share, more, total])
    return _BeforeOutput(model, output).apply("Mul", total.outputs[0]).done()
