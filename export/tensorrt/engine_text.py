"""What an engine file tells of number formats: the compiler's own text inside it."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from .number_formats import BYTES, FORMATS, FormatCounts, add, wider

_TENSOR = re.compile(
    rb"(?P<view>sub_)?tensor=\{ (?P<facts>[^{}]*?dims=\{ (?P<dims>[^{}]*)\}[^{}]*?"
    rb'name="(?P<name>[^"]*)".*?type=(?P<type>\w+) \})'
)
_PAYLOAD = re.compile(rb"const_payload_size=(\d+)")
_LAYER = re.compile(
    rb"[^_\w](?P<kind>corrltn|deconvolution|fully_connected)=\{ "
    rb'name="[^"]*" output=\{(?P<output>[^{}]*)\} input=\{(?P<input>[^{}]*)\}'
)
"""Convolutions, which the compiler calls correlations as they are, transposed ones, products."""
_QUOTED = re.compile(rb'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class _Tensor:
    """One tensor of the table; a free axis is 1 in `shape`."""

    kind: str
    shape: tuple[int, ...]
    facts: bytes
    is_view: bool


def counts_from_plan(plan: bytes, faces: frozenset[str]) -> FormatCounts:
    """Return what an engine's own table of tensors and list of layers tell.

    Both are the compiler's text inside the engine file. It is not documented, so where another
    version writes it otherwise the counts are empty.

    Args:
        plan: The engine's bytes.
        faces: Names of the engine's inputs and outputs.
    """
    counts = FormatCounts()
    tensors = _tensors(plan)
    for name, tensor in tensors.items():
        found = FORMATS.get(tensor.kind)
        if found is None or tensor.is_view or b"is_scratchspace=1" in tensor.facts:
            continue
        if payload := _PAYLOAD.search(tensor.facts):
            add(counts.weights, found, int(payload[1]) // BYTES[found])
        elif name.decode(errors="replace").rpartition(".")[0] not in faces:
            add(counts.outputs, found, math.prod(tensor.shape))
    seen: set[bytes] = set()
    for match in _LAYER.finditer(plan):
        names = [*_QUOTED.findall(match["input"])[:2], *_QUOTED.findall(match["output"])[:1]]
        if match["output"] in seen or not all(name in tensors for name in names):
            continue
        seen.add(match["output"])
        source, weight, result = (tensors[name] for name in names)
        # Each weight is multiplied once at each place, of what goes in where that is spread out.
        spread = source if match["kind"] == b"deconvolution" else result
        number = math.prod(weight.shape) * math.prod(spread.shape[2:])
        add(
            counts.multiplications,
            wider(FORMATS.get(source.kind), FORMATS.get(weight.kind)),
            number,
        )
    return counts


def _tensors(plan: bytes) -> dict[bytes, _Tensor]:
    """Return each tensor once, by its name."""
    found: dict[bytes, _Tensor] = {}
    for match in _TENSOR.finditer(plan):
        shape = tuple(int(size) if size.isdigit() else 1 for size in match["dims"].split())
        tensor = _Tensor(match["type"].decode(), shape, match["facts"], bool(match["view"]))
        found.setdefault(match["name"], tensor)
    return found
