"""Build routes: which there are for a release, which one wins, and that a builder takes it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from motorvae.export.tensorrt.routes import (
    combined_route,
    fastest,
    own_routes,
    set_route,
    tuner_options,
    tuner_routes,
)
from motorvae.runtime.core.errors import EngineError
from motorvae.runtime.engines.tensorrt.build_record import (
    PairedTimes,
    RouteSettings,
    RouteVerdict,
    TriedRoute,
)
from motorvae.runtime.engines.tensorrt.package import EngineLog, TensorRTPackage, import_tensorrt

DOCUMENTED = {
    "tuner_version": "2.19.15",
    "tuner_options": [
        {
            "option": "-conv_use_long_w",
            "allowed_values": "-conv_use_long_w=[on|off]",
            "default_value": "on",
            "help": "of convolutions",
        },
        {
            "option": "-kgen:codegen:cuda_tile",
            "allowed_values": "-kgen:codegen:cuda_tile=[0|1|2|3]",
            "default_value": "1",
            "help": "of tiles",
        },
    ],
}
"""The form that NvInfer.h of TensorRT 11.1 gives for getAllBuildRoutes, with its two examples."""


@pytest.fixture(scope="module")
def rtx() -> TensorRTPackage:
    return import_tensorrt("tensorrt-rtx")


def tried(
    name: str,
    ratio: float | None,
    verdict: RouteVerdict = "not faster",
    **settings: Any,
) -> TriedRoute:
    """A route whose engine took that share of the default one's time, in each of eight turns."""
    times = None
    if ratio is not None:
        times = PairedTimes(batch=1, ms=(ratio,) * 8, against_ms=(1.0,) * 8)
    return TriedRoute(name=name, settings=RouteSettings(**settings), verdict=verdict, times=times)


def test_each_release_has_the_routes_that_it_can_take() -> None:
    old = SimpleNamespace()
    new = SimpleNamespace(TilingOptimizationLevel=object())
    at_10_3 = dict(own_routes(TensorRTPackage("tensorrt", old, "10.3.0")))
    at_11_4 = dict(own_routes(TensorRTPackage("tensorrt", new, "11.4.1")))
    assert at_10_3.keys() < at_11_4.keys()
    assert not any(route.tiling for route in at_10_3.values())
    assert any(route.tiling for route in at_11_4.values())
    assert RouteSettings() not in at_11_4.values()
    assert own_routes(TensorRTPackage("tensorrt-rtx", new, "1.7.1")) == []


def test_the_tuners_options_are_tried_one_value_at_a_time() -> None:
    assert tuner_routes(json.dumps(DOCUMENTED)) == [
        ("conv_use_long_w=off", RouteSettings(tuner="-conv_use_long_w=off")),
        ("kgen:codegen:cuda_tile=0", RouteSettings(tuner="-kgen:codegen:cuda_tile=0")),
        ("kgen:codegen:cuda_tile=2", RouteSettings(tuner="-kgen:codegen:cuda_tile=2")),
        ("kgen:codegen:cuda_tile=3", RouteSettings(tuner="-kgen:codegen:cuda_tile=3")),
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"allowed_values": "-conv_use_long_w=int32_t"},
        {"allowed_values": "-conv_use_long_w=[0|1|...]"},
        {"allowed_values": None},
        {"option": 3},
        {"option": "-a=1 -b"},
        {"default_value": None},
        {"allowed_values": "-conv_use_long_w=[on| ]"},
        {"allowed_values": "-conv_use_long_w=[on|a b]"},
    ],
)
def test_options_without_a_list_of_values_are_left_alone(changes: dict[str, object]) -> None:
    option = DOCUMENTED["tuner_options"][0] | changes  # type: ignore[operator]
    assert tuner_routes(json.dumps({"tuner_options": [option]})) == []


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"tuner_options": {"a": 1}}'])
def test_no_tuner_is_no_route(text: str) -> None:
    assert tuner_routes(text) == []


def test_tensorrt_rtx_has_no_tuner(rtx: TensorRTPackage) -> None:
    assert tuner_options(rtx) == ""


@pytest.mark.parametrize(
    "route",
    [
        RouteSettings(),
        RouteSettings(optimization_level=5),
        RouteSettings(optimization_level=0, aux_streams=0, timing_runs=8),
        RouteSettings(tiling="full"),
        RouteSettings(tiling="fast", aux_streams=2),
    ],
)
def test_a_real_builder_takes_each_setting(rtx: TensorRTPackage, route: RouteSettings) -> None:
    log = EngineLog(rtx.trt)
    config = rtx.trt.Builder(log.logger).create_builder_config()
    before = (config.builder_optimization_level, config.max_aux_streams)
    set_route(rtx, config, route)
    asked = (route.optimization_level, route.aux_streams)
    found = (config.builder_optimization_level, config.max_aux_streams)
    assert found == tuple(
        old if new is None else new for new, old in zip(asked, before, strict=True)
    )
    if route.timing_runs is not None:
        assert config.avg_timing_iterations == route.timing_runs
    level = rtx.trt.TilingOptimizationLevel
    expected = {None: level.NONE, "fast": level.FAST, "full": level.FULL}[route.tiling]  # type: ignore[index]
    assert config.tiling_optimization_level == expected


def test_a_setting_that_is_not_taken_is_refused(rtx: TensorRTPackage) -> None:
    """TensorRT-RTX has the property and no tuner: what is set is not there when it is read back."""
    log = EngineLog(rtx.trt)
    config = rtx.trt.Builder(log.logger).create_builder_config()
    with pytest.raises(EngineError, match=r"does not take -conv_use_long_w=off$"):
        set_route(rtx, config, RouteSettings(tuner="-conv_use_long_w=off"))


def test_a_release_without_a_setting_refuses_it() -> None:
    old = SimpleNamespace(IBuilderConfig=object)
    package = TensorRTPackage("tensorrt", old, "10.3.0")
    route = RouteSettings(tiling="full", tuner="-a=1")
    with pytest.raises(EngineError, match=r"10\.3\.0 does not take tiling full and -a=1$"):
        set_route(package, SimpleNamespace(), route)  # type: ignore[arg-type]


def test_the_fastest_that_passed_wins() -> None:
    routes = [
        tried("a", 0.9),
        tried("b", 0.7),
        tried("wrong", 0.5, "drifted"),
        tried("broken", None, "failed"),
        tried("late", None, "not tried"),
        tried("slow", 1.3),
    ]
    winner = fastest(routes)
    assert winner is not None
    assert winner.name == "b"


@pytest.mark.parametrize(
    "routes",
    [
        [],
        [tried("equal", 1.0), tried("by a hair", 0.995), tried("slow", 2.0)],
        [tried("wrong", 0.1, "drifted"), tried("broken", 0.1, "failed")],
    ],
)
def test_where_none_is_clearly_faster_the_default_stays(routes: list[TriedRoute]) -> None:
    assert fastest(routes) is None


def test_where_the_default_drifts_any_that_passes_will_do() -> None:
    routes = [tried("slow", 1.5), tried("slower", 1.6), tried("wrong", 0.1, "drifted")]
    winner = fastest(routes, instead=True)
    assert winner is not None
    assert winner.name == "slow"


def test_what_gains_by_itself_is_combined() -> None:
    found = combined_route(
        [
            tried("level 5", 0.9, optimization_level=5),
            tried("tile 2", 0.8, tuner="-tile=2"),
            tried("tile 3", 0.85, tuner="-tile=3"),
            tried("long", 0.95, tuner="-long=off"),
            tried("equal", 1.0, tuner="-other=1"),
            tried("wrong", 0.1, "drifted", tuner="-wrong=1"),
        ]
    )
    assert found is not None
    assert found[1] == RouteSettings(optimization_level=5, tuner="-tile=2 -long=off")


@pytest.mark.parametrize(
    "routes",
    [
        [],
        [tried("alone", 0.8, tuner="-a=1")],
        [tried("a", 0.8, tuner="-a=1"), tried("b", 0.9, tuner="-a=2")],
        [tried("a", 0.8, optimization_level=5), tried("b", 0.9, optimization_level=4)],
        [tried("a", 0.8, tuner="-a=1"), tried("equal", 1.0, tuner="-b=1")],
    ],
)
def test_one_setting_is_no_combination(routes: list[TriedRoute]) -> None:
    assert combined_route(routes) is None


def test_what_was_tried_already_is_not_built_again_as_everything_together() -> None:
    """Else the second build of level 5 with one stream could win by its luck."""
    level = tried("level 5", 0.90, optimization_level=5)
    stream = tried("level 5, one stream", 0.92, optimization_level=5, aux_streams=0)
    assert combined_route([level, stream]) is None
    timed = tried("level 5, timed 8 times", 0.95, optimization_level=5, timing_runs=8)
    together = combined_route([level, stream, timed])
    assert together is not None
    expected = RouteSettings(optimization_level=5, aux_streams=0, timing_runs=8)
    assert together[1] == expected
