"""The fields of a dataclass of options, those of nested ones included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_origin, get_type_hints


def flag_of(name: str) -> str:
    """Return an option as it is typed."""
    return f"--{name.replace('_', '-')}"


def fields_of(options: Any) -> Iterator[tuple[Field[Any], Any, tuple[Any, ...]]]:
    """Yield each field with its type and what that is annotated with."""
    types = get_type_hints(options, include_extras=True)
    for one in fields(options):
        kind, own = types[one.name], ()
        if get_origin(kind) is Annotated:
            kind, own = kind.__origin__, kind.__metadata__
        yield one, kind, own


def leaves_of(options: Any) -> Iterator[tuple[str, Any, tuple[Any, ...]]]:
    """Yield name, type and annotations of each option, those of nested dataclasses included."""
    for one, kind, own in fields_of(options):
        if is_dataclass(kind):
            yield from leaves_of(kind)
        else:
            yield one.name, kind, own
