"""Build routes: the builder settings that are tried for an engine, and setting one.

Our own list is short: what a user would try by hand. TensorRT 11.1 and newer add a tuner (NVIDIA's
name is Global Performance Tuner, TensorRT documentation, "Global Performance Tuning"): options of
its graph compiler, which `IBuilderConfig.all_build_routes` lists as JSON and `build_route` takes as
text. It gives none on Windows and in TensorRT-RTX.

Sparse weights are not among the routes: the builder looks for weights with two of four zero, which
no model here is trained to have. Nor is TF32, which would make float32 engines less than float32.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ...runtime.core.errors import EngineError
from ...runtime.engines.tensorrt.build_record import RouteSettings, TriedRoute
from ...runtime.engines.tensorrt.package import EngineLog, TensorRTPackage
from .formats import mappings_in

if TYPE_CHECKING:
    import tensorrt

DEFAULT = "default"
_VALUES = re.compile(r"\[(?P<values>[^\[\]]*)\]")

NamedRoute = tuple[str, RouteSettings]


def own_routes(package: TensorRTPackage) -> list[NamedRoute]:
    """Return the routes of our own list that a release has, without the default one.

    Of TensorRT-RTX none: it compiles on the target, and these settings change nothing in its files
    (built with each by TensorRT-RTX 1.7: files of the same size in the same time).
    """
    if package.is_rtx:
        return []
    trt = package.trt
    found = {
        "level 5": RouteSettings(optimization_level=5),
        "level 5, one stream": RouteSettings(optimization_level=5, aux_streams=0),
        "level 5, timed 8 times": RouteSettings(optimization_level=5, timing_runs=8),
    }
    if hasattr(trt, "TilingOptimizationLevel"):
        found["tiling"] = RouteSettings(tiling="full")
        found["level 5, tiling"] = RouteSettings(optimization_level=5, tiling="full")
    return list(found.items())


def tuner_routes(listed: str) -> list[NamedRoute]:
    """Return a route for each value that an option of TensorRT's tuner has beside its default.

    One option at a time, as `trtexec --tuneBuildRoutes` does in its search called fast. `listed` is
    what `all_build_routes` gives; "" where there is no tuner. Options without a list of values are
    left out, and so is what is not of the documented form.
    """
    try:
        content = json.loads(listed)
    except ValueError:
        return []
    options = content.get("tuner_options") if isinstance(content, dict) else None
    found: list[NamedRoute] = []
    for option in mappings_in(options):
        name, allowed = option.get("option"), option.get("allowed_values")
        default = option.get("default_value")
        if not (isinstance(name, str) and isinstance(allowed, str) and isinstance(default, str)):
            continue
        listed_values = _VALUES.search(allowed)
        values = [] if listed_values is None else listed_values["values"].split("|")
        if not re.fullmatch(r"-[\w:.-]+", name) or "..." in allowed:
            continue
        for value in dict.fromkeys(value.strip() for value in values):
            if value and value != default and not re.search(r"\s", value):
                text = f"{name}={value}"
                found.append((text.lstrip("-"), RouteSettings(tuner=text)))
    return found


def tuner_options(package: TensorRTPackage) -> str:
    """Return what the tuner of a release lists, as JSON; "" where it has none."""
    trt = package.trt
    if not hasattr(trt.IBuilderConfig, "all_build_routes"):
        return ""
    log = EngineLog(trt)
    config: tensorrt.IBuilderConfig = trt.Builder(log.logger).create_builder_config()
    return str(config.all_build_routes)


def combined_route(tried: Sequence[TriedRoute]) -> NamedRoute | None:
    """Return a route of everything that was clearly faster by itself; None of fewer than two.

    Nor where that was tried as it is: a second build of it would be one more chance to win. Of two
    values of one option the faster counts, and so of settings of our own.
    """
    faster = [one for one in tried if one.verdict == "not faster" and _gained(one)]
    faster.sort(key=lambda one: one.times.ratio if one.times else 1.0)
    settings: dict[str, object] = {}
    options: dict[str, str] = {}
    used = 0
    for one in faster:
        own = one.settings.model_dump(exclude={"tuner"}, exclude_none=True)
        option, _, value = one.settings.tuner.partition("=")
        if (option and option not in options) or (own and not own.keys() <= settings.keys()):
            used += 1
        settings = own | settings
        if option:
            options.setdefault(option, value)
    if used < 2:  # one is no combination
        return None
    tuner = " ".join(f"{option}={value}" for option, value in options.items())
    together = RouteSettings.model_validate(settings | {"tuner": tuner})
    if any(one.settings == together for one in tried):  # such as level 5, and that with one stream
        return None
    return "all that were faster", together


def fastest(tried: Iterable[TriedRoute], *, instead: bool = False) -> TriedRoute | None:
    """Return the route whose engine passed the gate and took the least time; None for the default.

    A route is compared with the default one in turns, and wins only where it is clearly faster, so
    that of many equal ones none is kept for its luck; `instead` of a default one that did not pass
    the gate, any that did will do.
    """
    passed = [one for one in tried if one.verdict == "not faster" and one.times is not None]
    able = [one for one in passed if instead or _gained(one)]
    return min(able, key=lambda one: one.times.ratio if one.times else 1.0, default=None)


def _gained(one: TriedRoute) -> bool:
    return one.times is not None and one.times.is_faster


def set_route(
    package: TensorRTPackage, config: tensorrt.IBuilderConfig, route: RouteSettings
) -> None:
    """Set what a route says on a builder's configuration, and read it back.

    Raises:
        EngineError: The release has no such setting, or did not take it.
    """
    trt = package.trt
    found: list[tuple[str, object, object]] = []  # in words, what was asked for, what is set
    if (level := route.optimization_level) is not None:
        config.builder_optimization_level = level
        found.append((f"optimization level {level}", level, config.builder_optimization_level))
    if (streams := route.aux_streams) is not None:
        config.max_aux_streams = streams
        found.append((f"{streams} auxiliary streams", streams, config.max_aux_streams))
    if (runs := route.timing_runs) is not None:
        config.avg_timing_iterations = runs
        found.append((f"{runs} timing runs", runs, config.avg_timing_iterations))
    if route.tiling is not None:
        asked, got = None, object()
        if hasattr(trt, "TilingOptimizationLevel"):
            asked = trt.TilingOptimizationLevel.__members__[route.tiling.upper()]
            config.tiling_optimization_level = asked
            got = config.tiling_optimization_level
        found.append((f"tiling {route.tiling}", asked, got))
    if route.tuner:
        taken = None
        if hasattr(trt.IBuilderConfig, "build_route"):
            config.build_route = route.tuner
            taken = config.build_route
        found.append((route.tuner, route.tuner, taken))
    if wrong := [words for words, asked, got in found if asked != got]:
        raise EngineError(f"{package.title} does not take {' and '.join(wrong)}")
