"""What a result holds of MLPerf's LoadGen: its verdict beside ours for the same engine."""

from __future__ import annotations

import math
from typing import Literal, get_args

from pydantic import Field, model_validator

from ...runtime.core.spec import StrictModel
from .case import Samples

Scenario = Literal["SingleStream", "Offline"]
SCENARIOS: tuple[Scenario, ...] = get_args(Scenario)
OFFICIAL_S = 600.0
"""MLPerf's least duration of a run (`min_duration` in its mlperf.conf)."""
TOLERANCE = 0.05
"""How far LoadGen's figure may be from ours beside what ours differ among themselves."""
NOISE_LIMIT = 1.25
"""Where our own loop before and after differ by a larger factor, agreement would mean nothing."""


class LoadGenVerdict(StrictModel):
    """What LoadGen's own log says of one run."""

    version: str  # Of LoadGen, with its commit
    valid: bool
    min_duration_met: bool
    min_queries_met: bool
    early_stopping_met: bool
    queries: int  # Answered; of Offline samples
    # Milliseconds of a query, of SingleStream
    p50_ms: float | None = None
    p90_ms: float | None = None
    # Its estimate of p90 with 99 % confidence, which is what MLPerf reports
    early_stopping_p90_ms: float | None = None
    samples_per_s: float | None = None  # Of Offline
    errors: tuple[str, ...] = ()  # What it logged as an error


class LoadGenRun(StrictModel):
    """One engine in one scenario: our own loop, LoadGen, and our own loop again."""

    engine: str  # As `Case.how` has it
    scenario: Scenario
    batch: int = 1  # Images in one call of the engine
    seconds: float = Field(gt=0)  # LoadGen's least duration, as it was set
    verdict: LoadGenVerdict | None = None
    ours: tuple[Samples, ...] = ()  # Before and after it; one call each sample
    # What LoadGen takes for a query, of Offline for a sample, that is answered at once: that is in
    # its figures and not in ours
    overhead_ms: float = Field(default=0, ge=0)
    logs: str | None = None  # Its folder in `Result.loadgen_logs`, of LoadGen's own files
    not_measured: str | None = None

    @model_validator(mode="after")
    def _check_measured(self) -> LoadGenRun:
        measured = self.verdict is not None and len(self.ours) == 2
        if measured == (self.not_measured is not None):
            raise ValueError("a run of LoadGen has its verdict and ours, or a reason")
        return self

    @property
    def official(self) -> bool:
        """Whether it lasted as long as MLPerf's rules ask for."""
        return self.seconds >= OFFICIAL_S

    @property
    def figure(self) -> str:
        """What is compared, in words."""
        return "p90 ms" if self.scenario == "SingleStream" else "samples/s"

    @property
    def theirs_value(self) -> float | None:
        """LoadGen's figure: of SingleStream p90 in ms, of Offline samples a second."""
        if self.verdict is None:
            return None
        is_single = self.scenario == "SingleStream"
        return self.verdict.p90_ms if is_single else self.verdict.samples_per_s

    @property
    def ours_value(self) -> float | None:
        """The same by our own loop, of both halves together."""
        if not self.ours:
            return None
        samples = [sample for half in self.ours for sample in half.samples]
        return self._value(samples)

    @property
    def ratios(self) -> dict[str, float]:
        """LoadGen's time over ours with its own time added: 1 where they agree."""
        if self.verdict is None or not self.ours:
            return {}
        together = [sample for half in self.ours for sample in half.samples]
        if self.scenario == "Offline":
            theirs = self.verdict.samples_per_s
            expected_ms = 1e3 / self._value(together) + self.overhead_ms
            return {"time a sample": 1e3 / theirs / expected_ms} if theirs else {}
        pairs = {"p50": (50, self.verdict.p50_ms), "p90": (90, self.verdict.p90_ms)}
        return {
            name: theirs / (_percentile_ms(together, percent) + self.overhead_ms)
            for name, (percent, theirs) in pairs.items()
            if theirs is not None
        }

    @property
    def limits(self) -> dict[str, float]:
        """How far each ratio may be from 1, as a factor: `TOLERANCE`, and what ours differ by."""
        return {name: (1 + TOLERANCE) * differ for name, differ in self._differences.items()}

    @property
    def _differences(self) -> dict[str, float]:
        """By which factor ours before and after differ, 1 or more."""
        if len(self.ours) != 2:
            return {}
        one, two = (list(half.samples) for half in self.ours)
        if self.scenario == "Offline":
            differ = {"time a sample": self._value(one) / self._value(two)}
        else:
            differ = {
                name: _percentile_ms(one, percent) / _percentile_ms(two, percent)
                for name, percent in (("p50", 50), ("p90", 90))
            }
        return {name: max(ratio, 1 / ratio) for name, ratio in differ.items()}

    @property
    def unclear(self) -> str | None:
        """Why it is unknown whether the two agree; None where they do, or do not."""
        if self.verdict is None or self.disagreement is not None:
            return None
        if not self.ratios:
            return "LoadGen's log has no figure to compare"
        noisy = [
            f"{name} of our own loop before and after differs by a factor of {differ:.2f}"
            for name, differ in self._differences.items()
            if name in self.ratios and differ > NOISE_LIMIT
        ]
        return "; ".join(noisy) or None

    @property
    def disagreement(self) -> str | None:
        """In what the two differ beyond noise; None where they agree, or nothing was measured."""
        limits = self.limits
        far = [
            f"{name} {ratio:.2f} times ours, limit {limits[name]:.2f}"
            for name, ratio in self.ratios.items()
            if abs(math.log(ratio)) > math.log(limits[name])
        ]
        return "; ".join(far) or None

    def _value(self, samples: list[int]) -> float:
        if self.scenario == "SingleStream":
            return _percentile_ms(samples, 90)
        return self.batch * len(samples) / sum(samples) * 1e9


def _percentile_ms(samples: list[int], percent: int) -> float:
    """Return the nearest-rank percentile, as LoadGen has it, in milliseconds."""
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] / 1e6
