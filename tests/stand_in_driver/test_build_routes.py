"""Build routes on the stand-in driver: each engine really runs, is held to the gate and timed.

What stands for a builder hands out engines that do their work once or many times over, or read the
wrong place. No kernel runs, so the times are of copies in this computer's memory.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console

from motorvae.export.tensorrt.build import BuiltEngine, EngineBuildRequest
from motorvae.export.tensorrt.routes import NamedRoute
from motorvae.export.tensorrt.try_routes import fastest_engine
from motorvae.runtime.bundle.graph_key import GraphKey, Part
from motorvae.runtime.bundle.load import Bundle
from motorvae.runtime.bundle.manifest import GraphEntry
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.gpu_info import Gpu
from motorvae.runtime.engines.tensorrt.build_record import RouteSettings
from motorvae.runtime.engines.tensorrt.engine_manifest import BatchProfile
from motorvae.runtime.engines.tensorrt.package import TensorRTPackage

from .engine_bundles import plan_of, report_all_in
from .test_engine_gate import reference

if TYPE_CHECKING:
    from .conftest import StandIn

Facts = Mapping[str, int]
SLOW = {"times": 400}
"""So often that no pause of this computer hides it: a run of one takes some microseconds."""


def route(level: int) -> RouteSettings:
    return RouteSettings(optimization_level=level)


def engine(entry: GraphEntry, facts: Facts) -> BuiltEngine:
    return BuiltEngine(plan_of(entry, **facts), report_all_in("fp16"), ("8.9",), 0, 1.0)


class Builder:
    """Hands out an engine for each route by its level; None stands for one that it cannot build."""

    def __init__(self, entry: GraphEntry, made: Mapping[int, Facts | None]) -> None:
        self.entry, self.made, self.asked = entry, made, list[int]()

    def __call__(self, settings: RouteSettings) -> BuiltEngine:
        level = settings.optimization_level or 0
        self.asked.append(level)
        facts = self.made[level]
        if facts is None:
            raise EngineError("TensorRT 10.3.0 did not build it: no kernel; raise something")
        return engine(self.entry, facts)


Run = Callable[[BuiltEngine, list[NamedRoute]], BuiltEngine]


def runner(
    bundle: Bundle,
    package: TensorRTPackage,
    gpu: Gpu,
    made: Mapping[int, Facts | None],
    *,
    part: Part = "encoder",
    minutes: float = 10.0,
) -> tuple[Run, Builder, io.StringIO]:
    entry = bundle.entry(GraphKey(part, "fp16"))
    request = EngineBuildRequest(package, gpu, "fp16", BatchProfile(), tune_minutes=minutes)
    builder, said = Builder(entry, made), io.StringIO()
    console = Console(file=said, width=200)

    def run(default: BuiltEngine, routes: list[NamedRoute]) -> BuiltEngine:
        return fastest_engine(
            default,
            routes,
            builder,
            entry=entry,
            request=request,
            reference=reference(),
            console=console,
        )

    return run, builder, said


def named(*levels: int) -> list[NamedRoute]:
    return [(f"level {level}", route(level)) for level in levels]


def test_the_fastest_that_passes_is_kept_and_all_are_told(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu, stand_in: StandIn
) -> None:
    made: dict[int, Facts | None] = {1: SLOW, 2: {"times": 2}, 3: None, 5: {"times": 100}}
    made[4] = {"times": 1, "shift": 3}  # the fastest of all, and wrong
    run, builder, said = runner(bundle, package, gpu, made)
    kept = run(engine(builder.entry, SLOW), named(1, 2, 3, 4, 5))
    assert kept.plan == plan_of(builder.entry, times=2)
    assert builder.asked[:5] == [1, 2, 3, 4, 5]
    found = {one.name: one for one in kept.routes}
    assert found["level 2"].verdict == "kept"
    assert found["default"].verdict == found["level 5"].verdict == "not faster"
    assert found["level 3"].verdict == "failed"
    assert "no kernel" in (found["level 3"].reason or "")
    assert found["level 4"].verdict == "drifted"
    assert found["level 4"].times is None
    times = found["level 2"].times
    assert times is not None
    assert times.batch == 1
    assert times.medians[0] < times.medians[1]
    assert "level 2: " in said.getvalue()
    assert stand_in.live() == {}


def test_decoders_are_held_to_the_gate_by_the_references_own_latents(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    made = {1: {"times": 2}}
    run, builder, _ = runner(bundle, package, gpu, made, part="decoder")
    kept = run(engine(builder.entry, SLOW), named(1))
    assert [one.verdict for one in kept.routes] == ["not faster", "kept"]


def test_slower_routes_leave_the_default_engine(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    run, builder, _ = runner(bundle, package, gpu, dict.fromkeys((1, 2), SLOW))
    default = engine(builder.entry, {"times": 4})
    kept = run(default, named(1, 2))
    assert kept.plan == default.plan
    assert [one.verdict for one in kept.routes] == ["kept", "not faster", "not faster"]
    assert all(one.times and one.times.ratio > 1 for one in kept.routes[1:])


def test_a_default_engine_that_drifts_is_replaced_by_any_that_does_not(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    run, builder, _ = runner(bundle, package, gpu, {1: SLOW})
    kept = run(engine(builder.entry, {"shift": 3}), named(1))
    assert kept.plan == plan_of(builder.entry, **SLOW)
    assert [one.verdict for one in kept.routes] == ["drifted", "kept"]
    assert "mu" in (kept.routes[0].reason or "")


def test_what_there_was_no_time_for_is_listed_and_not_built(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    run, builder, _ = runner(bundle, package, gpu, {1: {}}, minutes=0.0)
    kept = run(engine(builder.entry, SLOW), named(1))
    assert builder.asked == []
    assert [one.verdict for one in kept.routes] == ["kept", "not tried"]
    assert kept.routes[1].reason == "the 0 minutes of --tune-minutes were over"


def test_two_that_gain_are_tried_together(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu
) -> None:
    entry = bundle.entry(GraphKey("encoder", "fp16"))
    request = EngineBuildRequest(package, gpu, "fp16", BatchProfile(), tune_minutes=10)
    work = {"": 400, "-a=1": 60, "-b=2": 90, "-a=1 -b=2": 4}
    built: list[str] = []

    def build(settings: RouteSettings) -> BuiltEngine:
        built.append(settings.tuner)
        return engine(entry, {"times": work[settings.tuner]})

    routes = [(text, RouteSettings(tuner=text)) for text in ("-b=2", "-a=1")]
    kept = fastest_engine(
        engine(entry, {"times": work[""]}),
        routes,
        build,
        entry=entry,
        request=request,
        reference=reference(),
        console=Console(quiet=True),
    )
    assert built == ["-b=2", "-a=1", "-a=1 -b=2"]
    assert kept.routes[-1].name == "all that were faster"
    assert kept.routes[-1].verdict == "kept"


def test_an_engine_that_does_not_run_is_no_reason_to_stop(
    bundle: Bundle, package: TensorRTPackage, gpu: Gpu, stand_in: StandIn
) -> None:
    run, builder, _ = runner(bundle, package, gpu, {1: {"fails": 1}, 2: {"times": 1}})
    kept = run(engine(builder.entry, SLOW), named(1, 2))
    found: dict[str, Any] = {one.name: one for one in kept.routes}
    assert found["level 1"].verdict == "failed"
    assert "no kernel" in found["level 1"].reason
    assert found["level 2"].verdict == "kept"
    assert stand_in.live() == {}
