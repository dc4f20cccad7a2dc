"""Number formats by the names that NVIDIA's tools call them, and counts of what is in which."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

FORMATS = {
    "half": "fp16",
    "fp16": "fp16",
    "float16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "float32": "fp32",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
}
"""What NVIDIA's several tools call one number format. Others, as for shapes, carry no values."""
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1, "fp8": 1}
_WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(FORMATS)})(?![a-z0-9])")

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class FormatCounts:
    """What one source tells of a network or an engine, each a format to a number.

    Attributes:
        weights: Constant values.
        outputs: Values that layers hand on for one image.
        multiplications: Multiplications for one image, by the wider format of a layer's operands.
    """

    weights: Counts = field(default_factory=dict)
    outputs: Counts = field(default_factory=dict)
    multiplications: Counts = field(default_factory=dict)


def add(counts: Counts, found: str | None, number: int) -> None:
    """Add to the count of a format; None is a type that carries no values."""
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
