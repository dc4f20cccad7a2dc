"""The verdict of a run: the fastest of each kind against its floor, and ours against rivals.

Floors and rivals are measured in the same run: a figure set for one machine and one model says
nothing of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..measure.case import (
    COMPILED,
    DECODE_ALONE,
    EAGER,
    ENCODE_ALONE,
    ONNX,
    OPENVINO,
    PACED,
    PLAIN,
    TENSORRT,
    TENSORRT_RTX,
    Case,
)
from ..measure.result import Result

GRAPHS = {"encoder", "decoder"}
RIVALS = (EAGER, COMPILED, ONNX, OPENVINO, PLAIN)
"""ONNX Runtime and OpenVINO as installed; both run our graphs, too."""
LOSS = 1.005
"""What is shown as 1.00 is none."""


@dataclass(frozen=True)
class Floor:
    """What a time cannot be below, by what the same run measured.

    Attributes:
        name: Where it comes from.
        ms: Milliseconds at p50; None where the run measured none.
    """

    name: str
    ms: float | None


@dataclass(frozen=True)
class Leader:
    """The fastest case of one kind that passed the drift gate.

    Attributes:
        case: It.
        floor: Its floor; None for what has none.
    """

    case: Case
    floor: Floor | None

    @property
    def share(self) -> float | None:
        """The floor over p50: 1 cannot be exceeded."""
        if self.floor is None or self.floor.ms is None or self.case.whole is None:
            return None
        return self.floor.ms / self.case.whole.p50

    @property
    def words(self) -> str:
        """The share in words; "not valid" where it is beyond the possible."""
        if self.floor is None:
            return ""
        if self.share is None:
            return f"not applicable: no {self.floor.name}"
        if self.share > 1:
            return f"not valid: faster than {self.floor.name}"
        return f"{self.share:.0%} of {self.floor.name}"


def leaders_of(result: Result) -> tuple[Leader, ...]:
    """Return the fastest of each kind at batch 1, of paths that with the largest frame."""
    kinds: dict[tuple[object, ...], list[Case]] = {}
    for case in result.cases:
        if case.whole is None or not case.passed or _is_part(case):
            continue
        if case.batch > 1 and case.group != "training":
            continue
        part = (case.variant or "").split()[:1] if case.group == "gpu" else None
        kinds.setdefault((case.group, case.source, str(part)), []).append(case)
    found = []
    for cases in kinds.values():
        largest = max(case.frame or (0, 0) for case in cases)
        same = [case for case in cases if (case.frame or (0, 0)) == largest]
        fastest = min(same, key=_p50)
        found.append(Leader(fastest, _floor_of(fastest, result.cases)))
    return tuple(found)


@dataclass(frozen=True)
class Standing:
    """One case beside its rivals.

    Attributes:
        case: The case.
        times: Its p50 over the rival's, by the rival's name: a loss is above 1. A rival that did
            not do the same in this run is not there.
    """

    case: Case
    times: dict[str, float]

    @property
    def is_valid(self) -> bool:
        """Whether its time is possible: not below the least that the machine's rates allow."""
        return self.case.roofline is None or self.case.roofline.times >= 1

    @property
    def is_loss(self) -> bool:
        """Whether a rival was faster by more than what is shown as 1.00."""
        return self.worst >= LOSS

    @property
    def worst(self) -> float:
        """The largest of its ratios."""
        return max(self.times.values())


def standings_of(result: Result) -> tuple[Standing, ...]:
    """Return every case of ours that has a rival, the largest loss first.

    What failed the drift gate is not among them: it wins nothing.
    """
    found = []
    for case in result.cases:
        if not _is_ours(case) or not case.passed:
            continue
        same = [other for other in result.cases if other.what == case.what]
        rivals = {name: _rival(name, same) for name in RIVALS}
        times = {
            name: case.whole.p50 / rival.whole.p50
            for name, rival in rivals.items()
            if rival is not None and rival != case and case.whole and rival.whole
        }
        if times:
            found.append(Standing(case, times))
    return tuple(sorted(found, key=lambda standing: -standing.worst))


def _is_part(case: Case) -> bool:
    """Whether a case is a part of a stream by itself, or a trial of thread pools."""
    return case.group == "threads" or (case.variant or "").startswith((DECODE_ALONE, ENCODE_ALONE))


def _floor_of(case: Case, cases: Sequence[Case]) -> Floor | None:
    if case.group in GRAPHS:
        return Floor("roofline", case.roofline.least_ms if case.roofline else None)
    if case.group == "path":
        return Floor(
            "encoder alone", case.stages["encode"].p50 if "encode" in case.stages else None
        )
    if case.group == "stream":
        return Floor("parts alone", _parts_ms(case, cases))
    if case.group == "start-up":
        times = [_p50(other) for other in cases if other.group == "import" and other.whole]
        return Floor("import", min(times, default=None))
    return None


def _parts_ms(stream: Case, cases: Sequence[Case]) -> float | None:
    """Return the sum of decoding and encoding alone, in loops as slow as the camera."""
    parts = [
        case
        for case in cases
        if case.group == "stream"
        and case.whole
        and (
            (case.variant, case.source) == (f"{DECODE_ALONE}, {PACED}", stream.source)
            or (
                case.variant == f"{ENCODE_ALONE}, {PACED}"
                and (case.engine, case.precision) == (stream.engine, stream.precision)
            )
        )
    ]
    return sum(map(_p50, parts)) if len(parts) == 2 else None


def _p50(case: Case) -> float:
    return case.whole.p50 if case.whole else float("inf")


def _is_ours(case: Case) -> bool:
    """Tell a backend as motorvae-stream opens it from an engine as installed."""
    return (case.variant or "").startswith("ours") or case.engine in {TENSORRT, TENSORRT_RTX}


def _rival(name: str, cases: Sequence[Case]) -> Case | None:
    """Return the engine as installed: nothing set, all outputs."""
    plain = [
        case
        for case in cases
        if case.engine == name
        and case.whole is not None
        # OpenVINO by itself takes bf16 where the processor is fastest in it.
        and (case.precision == "fp32" or name == OPENVINO)
        and case.variant is None
    ]
    return next(iter(plain), None)
