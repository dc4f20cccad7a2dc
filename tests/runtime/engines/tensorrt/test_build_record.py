"""What a build measured and decided, as engine manifests hold it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from motorvae.runtime.bundle.graph_key import GraphKey
from motorvae.runtime.engines.tensorrt.build_record import (
    DlaPlacement,
    Int8Speed,
    PairedTimes,
    RouteSettings,
    TriedRoute,
)
from motorvae.runtime.engines.tensorrt.engine_manifest import EngineManifest

SHA256 = "ab" * 32


def times(ms: list[float], against_ms: list[float]) -> PairedTimes:
    return PairedTimes(batch=1, ms=tuple(ms), against_ms=tuple(against_ms))


@pytest.mark.parametrize(
    ("ms", "against_ms", "is_faster"),
    [
        ([0.8] * 8, [1.0] * 8, True),
        ([1.0] * 8, [1.0] * 8, False),
        ([0.99] * 8, [1.0] * 8, False),  # within the noise of clocks
        ([1.2] * 8, [1.0] * 8, False),
        # A GPU that grows warm: the other engine's later turns are slower than all of this one's.
        ([1.0, 1.1, 1.2, 1.3], [0.9, 1.0, 1.1, 1.2], False),
        # Fast in few turns only, though by the median of all it looks equal.
        ([0.5, 0.5, 0.5, 1.1, 1.1, 1.1, 0.9, 1.1], [1.0] * 8, False),
        ([0.7, 0.7, 0.7, 1.1], [1.0] * 4, True),
    ],
)
def test_faster_is_clearly_and_in_most_turns(
    ms: list[float], against_ms: list[float], is_faster: bool
) -> None:
    assert times(ms, against_ms).is_faster == is_faster


@pytest.mark.parametrize(
    ("ms", "against_ms"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([-1.0], [1.0])]
)
def test_times_that_are_none_are_refused(ms: list[float], against_ms: list[float]) -> None:
    with pytest.raises(ValidationError):
        times(ms, against_ms)


def test_int8_speed_says_what_was_measured_or_why_nothing_was() -> None:
    slower = Int8Speed(
        int8="mu", int8_sha256=SHA256, fp16="mu", times=times([0.31] * 4, [0.28] * 4)
    )
    assert slower.is_slower
    assert slower.sentence == (
        "int8 is not faster than fp16 on this GPU: 0.310 ms against 0.280 ms at batch 1"
    )
    faster = Int8Speed(int8="mu", int8_sha256=SHA256, fp16="mu", times=times([0.2] * 4, [0.28] * 4))
    assert not faster.is_slower
    assert faster.sentence.startswith("int8 is faster than fp16 on this GPU: 0.200 ms")
    unknown = Int8Speed(int8="mu", int8_sha256=SHA256, reason="it was built without a GPU")
    assert not unknown.is_slower
    assert unknown.sentence == (
        "whether int8 is faster than fp16 was not measured: it was built without a GPU"
    )
    for facts in ({}, {"reason": "none", "times": times([1.0], [1.0])}):
        with pytest.raises(ValidationError, match="either times or the reason"):
            Int8Speed(int8="mu", int8_sha256=SHA256, **facts)  # type: ignore[arg-type]


def test_placement_names_what_is_not_on_dla() -> None:
    placed = DlaPlacement(core=1, layers=9, on_gpu=("head (SHUFFLE)", "mu (MATRIX_MULTIPLY)"))
    assert placed.sentence == (
        "7 of 9 layers on DLA core 1, on the GPU head (SHUFFLE), mu (MATRIX_MULTIPLY)"
    )
    assert placed.runs("conv")
    assert not placed.runs("head")
    assert DlaPlacement(core=0, layers=9).sentence == "9 of 9 layers on DLA core 0"


@pytest.mark.parametrize("version", [3, 4])
def test_engine_manifests_of_earlier_versions_load(rtx_bundle: Path, version: int) -> None:
    path = GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    content = json.loads(path.read_text(encoding="utf-8"))
    assert content["schema_version"] == 5
    content["schema_version"] = version
    for name in ("routes", "int8_speed", *(("built_here",) if version == 3 else ())):
        del content[name]
    del content["precision_report"]["dla"]
    old = EngineManifest.model_validate_json(json.dumps(content))
    assert (old.routes, old.int8_speed, old.precision_report.dla) == ((), (), None)


def test_what_is_new_survives_the_file(rtx_bundle: Path) -> None:
    path = GraphKey("encoder", "fp16").engine_paths(rtx_bundle, "tensorrt-rtx")[1]
    now = EngineManifest.model_validate_json(path.read_text(encoding="utf-8"))
    measured = times([0.2, 0.3], [0.3, 0.4])
    changed = now.model_copy(
        update={
            "routes": (
                TriedRoute(
                    name="level 5",
                    settings=RouteSettings(optimization_level=5),
                    verdict="kept",
                    times=measured,
                ),
            ),
            "int8_speed": (Int8Speed(int8="mu", int8_sha256=SHA256, fp16="mu", times=measured),),
            "precision_report": now.precision_report.model_copy(
                update={"dla": DlaPlacement(core=0, layers=3, on_gpu=("a (CAST)",))}
            ),
        }
    )
    assert EngineManifest.model_validate_json(changed.model_dump_json()) == changed
    assert changed.precision_report.sentence("fp16").endswith(
        "; 2 of 3 layers on DLA core 0, on the GPU a (CAST)"
    )


@pytest.mark.parametrize("time", ["NaN", "1e999", "1e308", "5e-324", "0", "-1", '"fast"'])
def test_a_time_that_nothing_took_is_refused(time: str) -> None:
    for ms, against_ms in ((time, "1"), ("1", time)):
        text = f'{{"batch": 1, "ms": [{ms}], "against_ms": [{against_ms}]}}'
        with pytest.raises(ValidationError):
            PairedTimes.model_validate_json(text)


def test_no_more_layers_fall_back_than_there_are() -> None:
    with pytest.raises(ValidationError, match="3 of 2 layers on the GPU"):
        DlaPlacement(core=0, layers=2, on_gpu=("a", "b", "c"))
    for core, layers in ((64, 2), (0, 10**40)):
        with pytest.raises(ValidationError):
            DlaPlacement(core=core, layers=layers)
