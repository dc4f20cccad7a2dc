"""What the project set out to reach in one run on one machine, and what a run reached."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...runtime.core.spec import StrictModel
from ..measure.case import (
    DECODE_ALONE,
    EAGER,
    ENCODE_ALONE,
    HOT,
    ONNX,
    PACED,
    PLAIN,
    Case,
    FrameSource,
)

_FULL_HD = (1920, 1080)
_IMPOSSIBLE = "not valid: no age is less than its parts"
_MB = 1e6


class Goal(StrictModel):
    """One line of the table of goals.

    Attributes:
        name: What is to be reached.
        target: The limit.
        reached: What came out; None where the run holds not all that it takes, or what cannot be.
        at_least: Whether more is better.
        unit: Of both, such as "x", "s" or "MB".
        by: Which case reached it, or why nothing was.
    """

    name: str
    target: float
    reached: float | None
    at_least: bool
    unit: str
    by: str

    @property
    def met(self) -> bool | None:
        """Whether it was reached; None where that was not measured."""
        if self.reached is None:
            return None
        return self.reached >= self.target if self.at_least else self.reached <= self.target


def goals_of(cases: Sequence[Case]) -> tuple[Goal, ...]:
    """Compute every goal from the cases of one run; only what passes the drift gate may win."""
    cases = [case for case in cases if case.whole is not None]
    return (
        _path(cases, "mjpeg", "1080p MJPEG bytes to mu, against the plain recipe", 4),
        _path(cases, "yuv", "1080p YUV frame to mu, against the plain recipe", 6),
        _faster(
            "encoder int8, against torch eager",
            4.7,
            _graphs(cases, "encoder", EAGER),
            _ours(cases, "encoder", "int8"),
        ),
        _roofline(cases),
        _faster(
            "encoder int8, against ONNX Runtime as installed",
            3.3,
            _graphs(cases, "encoder", ONNX),
            _ours(cases, "encoder", "int8"),
        ),
        _faster(
            "decoder in any precision, against ONNX Runtime as installed",
            3,
            _graphs(cases, "decoder", ONNX),
            _ours(cases, "decoder"),
        ),
        *_ages(cases),
        _start_up(cases),
        _memory(cases),
    )


def _path(cases: Sequence[Case], source: FrameSource, name: str, target: float) -> Goal:
    same = [
        case
        for case in cases
        if (case.group, case.source, case.frame) == ("path", source, _FULL_HD)
    ]
    rivals = [case for case in same if case.engine == PLAIN]
    return _faster(name, target, rivals, [c for c in same if c.engine not in {PLAIN, EAGER}])


def _graphs(cases: Sequence[Case], group: str, engine: str) -> list[Case]:
    """Return an engine as installed, batch 1."""
    return [
        case
        for case in cases
        if (case.group, case.engine, case.batch) == (group, engine, 1)
        and case.variant is None
        and case.precision == "fp32"
    ]


def _ours(cases: Sequence[Case], group: str, precision: str | None = None) -> list[Case]:
    return [
        case
        for case in cases
        if (case.group, case.batch) == (group, 1)
        and (case.variant or "").startswith("ours")
        and precision in {None, case.precision}
    ]


def _faster(name: str, target: float, rivals: Sequence[Case], ours: Sequence[Case]) -> Goal:
    best = _least(case for case in ours if case.passed)
    rival = _least(rivals)
    reached = _p50(rival) / _p50(best) if rival and best else None
    return _goal(name, target, reached, best, at_least=True, unit="x")


def _roofline(cases: Sequence[Case]) -> Goal:
    floats = [c for c in _ours(cases, "encoder", "fp32") if c.outputs == "mu" and c.roofline]
    best = _least(floats)
    reached = best.roofline.compute_ms / _p50(best) if best and best.roofline else None
    name = "encoder float32 mu, of the float32 matrix rate"
    return _goal(name, 0.95, reached, best, at_least=True, unit="x")


def _ages(cases: Sequence[Case]) -> Iterable[Goal]:
    """Yield the age over its parts alone, by a paced loop and by a hot one, and its tail."""
    streams = [case for case in cases if case.group == "stream"]
    best = _least(case for case in streams if case.source == "mjpeg" and "age" in case.stages)
    for pace in (PACED, HOT):
        decode, encode = f"{DECODE_ALONE}, {pace}", f"{ENCODE_ALONE}, {pace}"
        parts = (
            _least([c for c in streams if (c.source, c.variant) == ("mjpeg", decode)]),
            _least([c for c in streams if c.variant == encode and _is_engine_of(c, best)]),
        )
        alone = sum(_p50(part) for part in parts if part)
        reached = _p50(best) / alone if best and all(parts) else None
        name = f"p50 age at latent over decode + convert + encode alone, {pace}"
        goal = _goal(name, 1.10, reached, best, at_least=False, unit="x")
        if reached is not None and reached < 1:
            goal = goal.model_copy(update={"reached": None, "by": _IMPOSSIBLE})
        yield goal
    series = best.whole if best else None
    reached = series.p99 / series.p50 if series else None
    yield _goal("p99 over p50 of the age", 1.5, reached, best, at_least=False, unit="x")


def _is_engine_of(case: Case, stream: Case | None) -> bool:
    return stream is not None and (case.engine, case.precision, case.outputs) == (
        stream.engine,
        stream.precision,
        stream.outputs,
    )


def _start_up(cases: Sequence[Case]) -> Goal:
    found = _least(
        case
        for case in cases
        if (case.group, case.engine, case.precision) == ("start-up", ONNX, "fp32")
    )
    reached = _p50(found) / 1e3 if found else None
    name = "process start to first latent, onnx backend"
    return _goal(name, 1.2, reached, found, at_least=False, unit="s")


def _memory(cases: Sequence[Case]) -> Goal:
    found = _least(
        case
        for case in cases
        if (case.group, case.precision, case.source) == ("memory", "int8", "mjpeg")
    )
    series = found.whole if found else None
    reached = max(series.samples) / _MB if series else None
    name = "resident memory of motorvae-stream, int8"
    return _goal(name, 200, reached, found, at_least=False, unit="MB")


def _goal(
    name: str, target: float, reached: float | None, by: Case | None, *, at_least: bool, unit: str
) -> Goal:
    said = by.key if by and reached is not None else "not measured in this run"
    return Goal(name=name, target=target, reached=reached, at_least=at_least, unit=unit, by=said)


def _least(cases: Iterable[Case]) -> Case | None:
    return min(cases, key=_p50, default=None)


def _p50(case: Case) -> float:
    return case.whole.p50 if case.whole else float("inf")
