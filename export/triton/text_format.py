"""text_of_message: a protobuf message in the text format, which Triton reads config.pbtxt in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class Word(str):
    """The name of an enum's value, which stands there without quotes."""

    __slots__ = ()


_ENTRY = {"key", "value"}
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}


def text_of_message(fields: Mapping[str, Any], indent: str = "") -> str:
    """Return a message's fields as lines.

    A mapping is a message, a sequence a repeated field; a field that is None, or a sequence of
    none, is left out. Entries of map fields stand on one line. The grammar:
    protobuf.dev/reference/protobuf/textformat-spec.
    """
    lines = []
    for name, value in fields.items():
        several = isinstance(value, Sequence) and not isinstance(value, str)
        values = value if several else () if value is None else (value,)
        if several and values and not any(isinstance(one, Mapping) for one in values):
            lines.append(f"{indent}{name}: [{', '.join(_scalar(one) for one in values)}]\n")
            continue
        for one in values:
            if isinstance(one, Mapping) and one.keys() == _ENTRY:
                lines.append(f"{indent}{name} {_on_one_line(one)}\n")
            elif isinstance(one, Mapping):
                inner = text_of_message(one, indent + "  ")
                lines.append(f"{indent}{name} {{\n{inner}{indent}}}\n")
            else:
                lines.append(f"{indent}{name}: {_scalar(one)}\n")
    return "".join(lines)


def map_of(entries: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a map field as the text format has it: repeated messages of a key and a value."""
    return [{"key": key, "value": value} for key, value in entries.items()]


def _on_one_line(message: Mapping[str, Any]) -> str:
    """Return a message in braces; texts hold no line breaks, so that these are between fields."""
    lines = text_of_message(message).split("\n")
    return f"{{ {' '.join(line.strip() for line in lines).strip()} }}"


def _scalar(value: str | int) -> str:
    if isinstance(value, Word):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f'"{"".join(_escaped(letter) for letter in value)}"'
    return str(value)


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    return letter if letter.isprintable() else "".join(f"\\{byte:03o}" for byte in letter.encode())
