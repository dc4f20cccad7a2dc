"""Number formats by the several names that NVIDIA's tools give them, and counts of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

Counts = dict[str, int]
"""A format's name to a number of weights, values or multiplications."""

_NAMES = {
    "fp16": ("fp16", "half", "float16"),
    "fp32": ("fp32", "float", "float32"),
    "bf16": ("bf16", "bfloat16"),
    "int8": ("int8",),
    "fp8": ("fp8",),
}
FORMATS = {name: found for found, names in _NAMES.items() for name in names}
"""What NVIDIA's several tools call one number format. Others, as for shapes, carry no values."""
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
MOST_VALUES = 1 << 40
"""Of one tensor, or multiplications of one layer; beyond that the number is none."""
_MOST_AXES = 16
_WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(FORMATS)})(?![a-z0-9])")


@dataclass(frozen=True, slots=True)
class FormatCounts:
    """What one source reports of a network or an engine; see `PrecisionReport`."""

    weights: Counts = field(default_factory=dict)
    outputs: Counts = field(default_factory=dict)
    multiplications: Counts = field(default_factory=dict)

    def plus(self, other: FormatCounts) -> FormatCounts:
        """Return both together, such as what two sources say of different layers."""
        together = FormatCounts()
        for one in (self, other):
            for part in fields(FormatCounts):
                for name, number in getattr(one, part.name).items():
                    add(getattr(together, part.name), name, number)
        return together

    def only(self, names: Sequence[str]) -> FormatCounts:
        """Return what it says of some formats alone."""
        parts = (self.weights, self.outputs, self.multiplications)
        return FormatCounts(
            *({name: part[name] for name in part if name in names} for part in parts)
        )


def add(counts: Counts, found: str | None, number: int) -> None:
    """Count values of a format; None is a type that carries none."""
    if found is not None:
        counts[found] = counts.get(found, 0) + number


def format_in(words: str) -> str | None:
    """Return the number format that a description names, such as "Row major linear FP16 format"."""
    found = _WORD.search(words.lower())
    return FORMATS[found[1]] if found else None


def wider(one: str | None, other: str | None) -> str | None:
    """Return the wider of two formats, in which both are multiplied; None where one is unknown."""
    if one is None or other is None:
        return None
    return max(one, other, key=lambda name: BYTES[name])


def values_of(dimensions: Any) -> int:
    """Return how many values a tensor has for one image: a free axis, -1, counts once.

    0 where that is not said in whole numbers, or no tensor has as many.
    """
    try:
        sizes = list(dimensions)
        if len(sizes) > _MOST_AXES or not all(isinstance(s, int) and s >= -1 for s in sizes):
            return 0
        number = math.prod(abs(size) for size in sizes)
    except TypeError:  # nothing
        return 0
    return number if number <= MOST_VALUES else 0


def mappings_in(values: Any) -> Iterable[Mapping[str, Any]]:
    """Yield the objects in a list of a JSON document, whatever it turns out to be."""
    if isinstance(values, list):
        yield from (value for value in values if isinstance(value, Mapping))
