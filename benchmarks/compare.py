"""Two results case by case: the ratio of their medians with a bootstrap confidence interval."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ..runtime.core.errors import MeasurementError, sentence_list
from .measure.case import Case
from .measure.result import Result
from .measure.samples import Samples

Verdict = Literal["slower", "larger", "faster", "smaller", "same", "unclear"]
Values = npt.NDArray[np.float64]

DRAWS = 4000
CONFIDENCE = 0.95
LEAST_TURNS = 5
"""Fewer turns than this say nothing of how turns differ, so that there is no interval."""
LEAST_FOR_P99 = 1000
"""From here on ten samples lie above p99; with fewer, its ratio is that of a few outliers."""


@dataclass(frozen=True)
class Interval:
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """How one case differs between two results.

    Attributes:
        key: The case.
        before: The whole of it in the first result.
        after: The same in the second.
        ratio: p50 after over p50 before.
        interval: Of that ratio; None where there are fewer than `LEAST_TURNS` turns.
        p99_ratio: The same of p99; None where there are fewer than `LEAST_FOR_P99` samples.
        verdict: "slower" and "faster" (of bytes "larger" and "smaller") where the whole interval
            is past the tolerance, "same" where it is within, else "unclear".
    """

    key: str
    before: Samples
    after: Samples
    ratio: float
    interval: Interval | None
    p99_ratio: float | None
    verdict: Verdict

    @property
    def is_regression(self) -> bool:
        """Whether it got worse beyond doubt."""
        return self.verdict in {"slower", "larger"}


@dataclass(frozen=True)
class Comparison:
    """What comes of two results.

    Attributes:
        tolerance: How much worse a case may get, as a share.
        changes: Cases that both measured on the same input, in the order of the second result.
        notes: What else differs: packages, cases that cannot be compared and why.
        broken: Cases that ran before and do not now, or passed the drift gate and do not now.
    """

    tolerance: float
    changes: tuple[Change, ...]
    notes: tuple[str, ...]
    broken: tuple[str, ...] = ()


def compare_results(before: Result, after: Result, tolerance: float) -> Comparison:
    """Compare every case that two results have in common.

    Args:
        before: What is held against.
        after: What is judged.
        tolerance: How much worse a case may get, as a share.

    Raises:
        MeasurementError: They are not of the same machine and settings, or share no case.
    """
    _check_alike(before, after)
    earlier = {case.key: case for case in before.cases}
    changes, broken, notes = [], [], list(_other_packages(before, after))
    for case in after.cases:
        old = earlier.pop(case.key, None)
        if old is not None and old.whole is not None and case.whole is None:
            broken.append(f"{case.key}: {case.not_measured}")
        elif old is not None and old.passed and not case.passed:
            broken.append(f"{case.key}: past the limit of its drift gate")
        if old is None:
            notes.append(f"only after: {case.key}")
        elif old.whole is None or case.whole is None:
            notes.extend(_one_sided(old, case))
        elif old.input_sha256 != case.input_sha256 or old.whole.unit != case.whole.unit:
            notes.append(f"not compared, as the inputs differ: {case.key}")
        else:
            blocks = before.turn_of(old), after.turn_of(case)
            changes.append(change_of(case.key, old.whole, case.whole, blocks, tolerance))
    notes.extend(f"only before: {key}" for key in earlier)
    if not changes:
        raise MeasurementError(
            "the two results share no measured case: run motorvae-bench with the same options "
            "both times"
        )
    return Comparison(tolerance, tuple(changes), tuple(notes), tuple(broken))


def check_regressions(found: Comparison) -> None:
    """Raise where a case got worse, or is broken.

    Raises:
        MeasurementError: The message names each such case.
    """
    worse = [
        f"{change.key} ({change.ratio:.2f} times)"
        for change in found.changes
        if change.is_regression
    ]
    if found.broken:
        raise MeasurementError(
            f"no longer good: {'; '.join(found.broken)}; find out why before comparing speeds"
        )
    if not any(change.interval for change in found.changes):
        raise MeasurementError(
            f"none of {len(found.changes)} cases could be judged, each has fewer than "
            f"{LEAST_TURNS} turns of samples: run motorvae-bench without --quick"
        )
    if worse:
        raise MeasurementError(
            f"worse by more than {found.tolerance:.1%}: {sentence_list(worse)}; look for the "
            "cause, or allow more with --tolerance"
        )


def change_of(
    key: str, before: Samples, after: Samples, blocks: tuple[int, int], tolerance: float
) -> Change:
    """Compare two series of one case; `blocks` are the samples in one turn of each."""
    interval = interval_of_ratio(before.samples, after.samples, blocks)
    has_tail = min(len(before.samples), len(after.samples)) >= LEAST_FOR_P99
    return Change(
        key=key,
        before=before,
        after=after,
        ratio=after.p50 / before.p50,
        interval=interval,
        p99_ratio=after.p99 / before.p99 if has_tail else None,
        verdict=_verdict(interval, tolerance, is_size=after.unit == "bytes"),
    )


def interval_of_ratio(
    before: Sequence[int], after: Sequence[int], blocks: tuple[int, int]
) -> Interval | None:
    """Return the percentile interval of median after over median before, by block bootstrap.

    The bootstrap is Efron's (1979), the interval that of Efron and Tibshirani (1993, chapter 13).
    Samples of one turn resemble each other, so that whole turns are drawn with replacement, not
    samples: blocks as Künsch (1989) draws them, but not overlapping (Carlstein 1986), because a
    turn ends where other subjects run. The two results are drawn from independently. A last turn
    that is shorter is left out.

    Args:
        before: Samples in the order in which they were taken.
        after: The same of the other result.
        blocks: Samples in one turn of each.

    Returns:
        The interval that holds `CONFIDENCE` of `DRAWS` draws, the same at each call; None where
        one of them has fewer than `LEAST_TURNS` turns.
    """
    random = np.random.default_rng(0)
    medians = []
    for samples, block in zip((before, after), blocks, strict=True):
        count = len(samples) // block
        if count < LEAST_TURNS:
            return None
        turns = np.asarray(samples[: count * block], np.float64).reshape(count, block)
        medians.append(_medians_of_draws(turns, random))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians[1] / medians[0], (tail, 1 - tail))
    return Interval(float(low), float(high))


def _medians_of_draws(turns: Values, random: np.random.Generator) -> Values:
    draws = random.integers(0, len(turns), (DRAWS, len(turns)))
    return np.asarray(np.median(turns[draws].reshape(DRAWS, -1), axis=1), np.float64)


def _verdict(interval: Interval | None, tolerance: float, *, is_size: bool) -> Verdict:
    if interval is None:
        return "unclear"
    most = 1 + tolerance
    if interval.low > most:
        return "larger" if is_size else "slower"
    if interval.high < 1 / most:
        return "smaller" if is_size else "faster"
    return "same" if 1 / most <= interval.low and interval.high <= most else "unclear"


_ALIKE: dict[str, Callable[[Result], object]] = {
    "processor": lambda result: result.environment.cpu,
    "instruction set": lambda result: result.environment.machine,
    "physical cores": lambda result: result.environment.cores,
    "usable cores": lambda result: result.environment.usable_cores,
    "GPU": lambda result: result.environment.gpu,
    "CPU governor": lambda result: result.environment.governor,
    "power mode": lambda result: result.environment.power_mode,
    "threads": lambda result: result.environment.threads,
    "model": lambda result: result.model.model_dump(),
    "weights": lambda result: result.settings.weights_sha256[:12],
    "seed": lambda result: result.settings.seed,
    "quick": lambda result: result.settings.quick,
    "schedule": lambda result: result.settings.schedule.model_dump(),
    "training schedule": lambda result: (
        result.settings.training_schedule and result.settings.training_schedule.model_dump()
    ),
}
"""What two results must have in common; versions of packages are what one wants to compare."""


def _check_alike(before: Result, after: Result) -> None:
    unlike = [
        f"{name} {_short(fact(before))} and {_short(fact(after))}"
        for name, fact in _ALIKE.items()
        if fact(before) != fact(after)
    ]
    if unlike:
        raise MeasurementError(
            f"the two results cannot be compared, as these differ: {'; '.join(unlike)}; measure "
            "both on one machine with the same options"
        )


def _short(value: object) -> str:
    if isinstance(value, dict):
        return " ".join(f"{key}={item}" for key, item in value.items())
    return "none" if value is None else str(value)


def _other_packages(before: Result, after: Result) -> Iterator[str]:
    one, other = (
        {"python": found.python, "system": found.system, **found.versions}
        for found in (before.environment, after.environment)
    )
    for name in sorted(one.keys() | other.keys()):
        versions = one.get(name, "absent"), other.get(name, "absent")
        if versions[0] != versions[1]:
            yield f"{name} {versions[0]} before, {versions[1]} after"


def _one_sided(old: Case, new: Case) -> Iterator[str]:
    if old.whole is not None:
        yield f"only before: {new.key}: not measured after: {new.not_measured}"
    elif new.whole is not None:
        yield f"only after: {new.key}: not measured before: {old.not_measured}"
