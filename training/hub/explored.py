"""What `motorvae explore` left of a model: pictures, and how its latents hold known factors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...runtime.core.documents import json_from_file
from ...runtime.core.errors import DataError

_PICTURE = re.compile(r"[a-z0-9-]+\.(?:png|gif)")
_MOST_JSON, _MOST_PICTURE = 64 << 20, 16 << 20
_VERBS = ("reconstructions", "samples", "traversals", "interpolate", "map", "factors", "history")
"""Those that a card shows, in its order; of each its first picture."""
WHOLE = ("mig", "disentanglement", "completeness", "informativeness", "active_units")
"""Figures over all factors that a card shows."""


@dataclass(frozen=True)
class Picture:
    """A picture of a card."""

    path: Path
    title: str
    caption: str


@dataclass(frozen=True)
class Factors:
    """How the latents of a model hold known factors."""

    source: str  # the images, in words
    rows: tuple[tuple[str, tuple[float | None, ...]], ...]  # a factor: probe, chance and gap
    whole: Mapping[str, float | None]  # of `WHOLE`, those that are known


@dataclass(frozen=True)
class Explored:
    """What there is; all of it may be missing."""

    pictures: tuple[Picture, ...]
    factors: Factors | None


def explored_in(folder: Path) -> Explored:
    """Read the results of verbs in a folder; what is missing or not as it should be is left out."""
    pictures, factors = [], None
    for verb in _VERBS:
        result = _result(folder / f"{verb}.json", verb)
        if verb == "factors":
            factors = _factors_of(result.get("numbers"))
        names = [name for name in _listed(result.get("files")) if _PICTURE.fullmatch(name)]
        shown = [folder / name for name in names if _is_picture(folder / name)]
        lines = _listed(result.get("lines"))
        pictures += [Picture(path, verb, lines[0] if lines else "") for path in shown[:1]]
    return Explored(tuple(pictures), factors)


def _result(path: Path, verb: str) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json_from_file(path, error=DataError, again="", most_bytes=_MOST_JSON)
    except DataError:
        return {}
    return content if isinstance(content, dict) and content.get("verb") == verb else {}


def _listed(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _is_picture(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.stat().st_size <= _MOST_PICTURE


def _factors_of(numbers: object) -> Factors | None:
    """Return what a card shows of the first model; None where it is not of that form."""
    try:
        model = numbers["models"][0]  # type: ignore[index]  # what it is, is being asked
        rows = tuple(
            (str(row["name"]), tuple(_figure(row[name]) for name in ("probe", "chance", "gap")))
            for row in model["factors"]
        )
        whole = {name: _figure(model[name]) for name in WHOLE if name in model}
        source = str(numbers["source"])  # type: ignore[index]  # as above
    except (TypeError, LookupError, ValueError):
        return None
    return Factors(source, rows, whole) if rows else None


def _figure(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, type(None))):
        raise TypeError(f"{value} is no number")
    return None if value is None else float(value)
