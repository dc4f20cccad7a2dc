"""Results of earlier schema versions, read as the present one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from .case import Unit, percentiles_of


def upgraded(content: Any) -> Any:
    """Return a result of schema version 3 as one of version 4; whatever else it is, as it is.

    Version 3 had no p90. It follows from the samples, which every result holds; where those are
    not what they should be it stays away, so that the schema says what is wrong with them.
    """
    if not isinstance(content, Mapping) or content.get("schema_version") != 3:
        return content
    return {**_with_p90(content), "schema_version": 4}


def _with_p90(content: Any) -> Any:
    if isinstance(content, list):
        # The samples themselves, by the thousand, hold nothing to look into.
        return content if not content or type(content[0]) is int else [*map(_with_p90, content)]
    if not isinstance(content, Mapping):
        return content
    found = {name: _with_p90(value) for name, value in content.items()}
    samples, unit = found.get("samples"), found.get("unit", "ns")
    is_series = "p50" in found and isinstance(samples, list) and unit in get_args(Unit)
    if is_series and samples and all(type(sample) is int for sample in samples):
        found["p90"] = percentiles_of(samples, unit)[1]
    return found
