"""Limits from a JSON file, over those of a precision."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path

from ...runtime.bundle.graph_key import Precision
from ...runtime.core.documents import json_from_file
from ...runtime.core.errors import ConfigError
from ..verify.limits import LIMITS, Limits

NOT_HELD = {"probe_reach"}
"""Limits about what is not done here: no latent is drawn to be decoded."""
_MAY_BE_NONE = {"neighbours", "max_pixel", "probe_pixel", "probe_psnr_db"}
_SHARES = {"neighbours"}
_AGAIN = 'give an object of limits by name, such as {"max_spread": 0.05}'


def limits_from(path: Path | None, precision: Precision) -> Limits:
    """Return the limits of a precision, with those that a file gives in their place.

    INT8 graphs saturate on probes by design, so that its images of probes have none unless named.

    A ConfigError where it is no such file, or names a limit that there is not.
    """
    limits = LIMITS[precision]
    if math.isfinite(limits.probe_reach):  # and holds for no probes that saturate
        limits = replace(limits, probe_psnr_db=None)
    if path is None:
        return limits
    given = json_from_file(path, error=ConfigError, again=_AGAIN)
    if not isinstance(given, dict):
        raise ConfigError(f"{path} holds no object: {_AGAIN}")
    known = [field.name for field in fields(Limits) if field.name not in NOT_HELD]
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{path}: {name[:40]!r} is no limit, take {', '.join(known)}")
        if value is None and name in _MAY_BE_NONE:
            continue
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        most = 1 if name in _SHARES else math.inf
        if not is_number or not math.isfinite(value) or not 0 <= value <= most:
            none = " to 1" if name in _SHARES else ""
            none += ", or null for none" if name in _MAY_BE_NONE else ""
            raise ConfigError(f"{path}: {name}={str(value)[:40]}: give a number from 0{none}")
    return replace(limits, **given)
