"""Command lines that leave no doubt are read without building the parser of all options."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import tyro

from .option_fields import fields_of, flag_of, leaves_of


def plain_values(options: Any, args: Sequence[str]) -> dict[str, Any] | None:
    """Return the values of a command line that leaves no doubt; None where the parser is to decide.

    To build the parser takes 0.1 s, a sixth of the time from a start to the first latent. Whatever
    could be help, an error or an abbreviation is left to it, and a test compares the two.
    """
    leaves = list(leaves_of(options))
    named = {flag_of(name): (name, kind, own) for name, kind, own in leaves}
    free = [leaf for leaf in leaves if tyro.conf.Positional in leaf[2]]
    values: dict[str, Any] = {}
    count = next((at for at, word in enumerate(args) if word.startswith("-")), len(args))
    if first := args[:count]:
        if len(free) != 1:
            return None
        name, kind, own = free[0]
        several = kind == tuple[str, ...]
        values[name] = tuple(first) if several else _plain_value(kind, own, first)
    left = list(args[count:])
    while left:
        name, kind, own = named.get(left.pop(0), ("", None, ()))
        if kind is bool:
            values[name] = True if name not in values and not own else None
            continue
        appends = tyro.conf.UseAppendAction in own and kind == tuple[str, ...]
        if not left or (name in values and not appends) or tyro.conf.Positional in own:
            return None
        found = _plain_value(str if appends else kind, own, [left.pop(0)])
        values[name] = (*values.get(name, ()), found) if appends and found is not None else found
    is_plain = all(value is not None and "None" != value != () for value in values.values())
    return values if is_plain and _has_defaults(options, values) else None


def _plain_value(kind: Any, own: Sequence[Any], words: Sequence[str]) -> Any:
    """Return the value of one word of a plain type; None of any other."""
    # What tyro.conf.arg gives is mere help unless it names or makes the value.
    changed = [
        one
        for one in own
        if not hasattr(one, "metavar") or one.name is not None or one.constructor_factory
    ]
    if any(one not in {tyro.conf.Positional, tyro.conf.UseAppendAction} for one in changed):
        return None
    (word, *others), kinds = words, [one for one in get_args(kind) if one is not type(None)]
    if get_origin(kind) in {Union, UnionType} and len(kinds) == 1:
        (kind,) = kinds
    if others or not word or (word.startswith("-") and word != "-") or word == "None":
        return None
    if get_origin(kind) is Literal:
        return word if word in get_args(kind) else None
    patterns: dict[Any, str] = {int: r"\d{1,15}", float: r"\d{1,15}(\.\d{1,15})?", str: r"(?s:.+)"}
    pattern = patterns.get(kind, "(?s:.+)" if kind is Path else "(?!)")
    return kind(word) if re.fullmatch(pattern, word, re.ASCII) else None


def _has_defaults(options: Any, values: Mapping[str, Any]) -> bool:
    """Whether what was not given has a default: whether the command line is complete."""
    return all(
        _has_defaults(kind, values) if is_dataclass(kind) else one.default is not MISSING
        for one, kind, _ in fields_of(options)
        if one.name not in values
    )


def options_from_values(options: Any, values: Mapping[str, Any]) -> Any:
    """Return options with these values, those of nested ones by their own names."""
    return options(
        **{
            one.name: options_from_values(kind, values) if is_dataclass(kind) else values[one.name]
            for one, kind, _ in fields_of(options)
            if is_dataclass(kind) or one.name in values
        }
    )
