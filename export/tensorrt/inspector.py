"""What the engine inspector's JSON says of number formats, as TensorRT 10 and 11 write it.

The two differ in more than names (seen in recordings, tests/export/tensorrt/inspector):

- The engine's own inputs and outputs: `Bindings`, a list of names, in 10; `I/O Tensors`, a list of
  objects, in 11.
- A tensor's number format: within `Format/Datatype`, a description, in 10; by itself in `Datatype`
  in 11, where `Format` is the layout in memory and may name a number format or not.
- The weights of layers that the graph compiler made: among `Inputs` in 10, where nothing tells them
  from other inputs but that no layer gives them; in `Constants` in 11. Convolutions that are
  kernels of their own have `Weights` with `Type` and `Count` in both.

NVIDIA documents the first two (TensorRT documentation 11.3, "Migrating IEngineInspector Usage from
TensorRT 10.x to 11.x").
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .formats import MOST_VALUES, FormatCounts, add, format_in, mappings_in, values_of, wider

_Object = Mapping[str, Any]

_COMPILED = "_myl"
"""In the names of layers that the graph compiler made."""
_PRODUCT = re.compile("conv|correlation|gemm")
"""Layers that multiply by weights; the graph compiler calls convolutions correlations."""
_FUSED_PRODUCT = re.compile("Corr|Conv|Deco|Gemm|Fc")
"""The same within what it fuses, which it names by the parts, as in `__myl_CorrMulMax_myl0_2`."""


def counts_from_inspector(text: str, bindings: frozenset[str]) -> FormatCounts:
    """Return what an engine inspector's JSON reports.

    What is not reported does not count: layers that list no weights, as of an engine that was built
    without detailed verbosity; formats that some versions leave out where the batch is free; and
    fields that are absent, called otherwise or at odds with each other. `bindings` are the engine's
    own inputs and outputs, beside those that the JSON itself lists.
    """
    counts = FormatCounts()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return counts
    if not isinstance(content, Mapping):
        return counts
    layers = _each_once(list(mappings_in(content.get("Layers"))))
    own = bindings | _own_tensors(content)
    made = {_name(tensor) for layer in layers for tensor in mappings_in(layer.get("Outputs"))}
    for layer in layers:
        inputs, outputs = (list(mappings_in(layer.get(key))) for key in ("Inputs", "Outputs"))
        for output in outputs:
            if _name(output) not in own:
                add(counts.outputs, _format_of(output), _values(output))
        held = [layer[key] for key in ("Weights", "Bias") if isinstance(layer.get(key), Mapping)]
        if held:
            for one in held:
                add(counts.weights, format_in(str(one.get("Type"))), _count(one))
            kernel = held[0] if isinstance(layer.get("Weights"), Mapping) else None
            held_in = None if kernel is None else format_in(str(kernel.get("Type")))
            number = 0 if kernel is None else _count(kernel)
            is_product = kernel is not None
        else:
            constants = list(mappings_in(layer.get("Constants")))
            if "Constants" not in layer and _COMPILED in str(layer.get("Name")):
                given = made | own
                constants = [tensor for tensor in inputs if _name(tensor) not in given]
                inputs = [tensor for tensor in inputs if _name(tensor) in given]
            for constant in constants:
                add(counts.weights, _format_of(constant), _values(constant))
            largest = max(constants, key=_values, default=None)
            held_in = None if largest is None else _format_of(largest)
            number = 0 if largest is None else _values(largest)
            is_product = _is_product(layer)
        if is_product and inputs and outputs:
            # Each weight is multiplied once at each place, of what goes in where that is spread.
            spread = (inputs if _is_transposed(layer) else outputs)[0].get("Dimensions")
            if isinstance(spread, list):
                number *= values_of(spread[2:])
                add(counts.multiplications, wider(_format_of(inputs[0]), held_in), number)
    return counts


def _each_once(layers: list[_Object]) -> list[_Object]:
    """Return layers without those that are listed again, and without any that differ by then.

    What is counted twice would stand for as much of the network that is not reported at all.
    """
    by_name: dict[str, _Object] = {}
    at_odds: set[str] = set()
    for layer in layers:
        if isinstance(name := layer.get("Name"), str) and by_name.setdefault(name, layer) != layer:
            at_odds.add(name)
    kept = [one for one in layers if not isinstance(one.get("Name"), str)]
    return [*(one for name, one in by_name.items() if name not in at_odds), *kept]


def _own_tensors(content: _Object) -> frozenset[str]:
    """Return the names of the engine's own inputs and outputs, in either form."""
    listed = content.get("Bindings")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    for tensor in mappings_in(content.get("I/O Tensors")):
        name = tensor.get("Name")
        if isinstance(name, str):
            names.append(name)
    return frozenset(names)


def _format_of(tensor: _Object) -> str | None:
    """Return a tensor's number format; None where there is none, or two that differ."""
    # TensorRT 11 spells the field DataType in its list of the engine's own inputs and outputs.
    said = [tensor[key] for key in ("Format/Datatype", "Datatype", "DataType") if key in tensor]
    found = {format_in(one) if isinstance(one, str) else None for one in said}
    return found.pop() if len(found) == 1 else None


def _is_product(layer: _Object) -> bool:
    return bool(_PRODUCT.search(_kind(layer)) or _FUSED_PRODUCT.search(_fused_name(layer)))


def _is_transposed(layer: _Object) -> bool:
    return "deconv" in _kind(layer) or "Deco" in _fused_name(layer)


def _kind(layer: _Object) -> str:
    return f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()


def _fused_name(layer: _Object) -> str:
    """Return the parts of what the graph compiler fused; "" where it is no such layer."""
    name = str(layer.get("Name", ""))
    is_fused = "fusion" in _kind(layer) and name.startswith("__myl_")
    return name.removeprefix("__myl_").partition("_myl")[0] if is_fused else ""


def _name(tensor: _Object) -> str:
    return str(tensor.get("Name"))


def _count(held: _Object) -> int:
    number = held.get("Count", 0)
    return number if type(number) is int and 0 < number <= MOST_VALUES else 0


def _values(tensor: _Object) -> int:
    dimensions = tensor.get("Dimensions")
    return values_of(dimensions) if isinstance(dimensions, list) else 0
