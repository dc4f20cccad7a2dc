"""What each case gains or loses against what people run today, measured in the same run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..measure.case import COMPILED, EAGER, ONNX, OPENVINO, PLAIN, TENSORRT, TENSORRT_RTX, Case
from ..measure.result import Result

RIVALS = (EAGER, COMPILED, ONNX, OPENVINO, PLAIN)
"""ONNX Runtime and OpenVINO as installed; both run our graphs, too."""


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
