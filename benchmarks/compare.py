"""Two results case by case: the ratio of their medians with a bootstrap confidence interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from rich.console import Console

from ..runtime.core.errors import MeasurementError, sentence_list
from .measure.case import Case, Samples
from .measure.result import Result
from .report.tables import digits_of, screen_table

Verdict = Literal["slower", "larger", "faster", "smaller", "same", "unclear"]
Facts = Mapping[str, object]

DRAWS = 4000
CONFIDENCE = 0.95
LEAST_TURNS = 5
"""With fewer turns it is unknown how turns differ, so that there is no interval."""
LEAST_FOR_P90, LEAST_FOR_P99 = 100, 1000
"""From here on ten samples lie above it; with fewer, its ratio is that of a few outliers."""

_STYLES = {"slower": "red", "larger": "red", "faster": "green", "smaller": "green"}


class Interval(NamedTuple):
    """Both ends of a confidence interval."""

    low: float
    high: float


@dataclass(frozen=True)
class Change:
    """How one case differs between two results."""

    key: str
    before: Samples  # The whole of it in the first result
    after: Samples  # The same in the second
    interval: Interval | None  # Of the ratio of p50; None with fewer than `LEAST_TURNS` turns
    # "slower" and "faster" (of bytes "larger" and "smaller") where the whole interval is past the
    # tolerance, "same" where it is within, else "unclear"
    verdict: Verdict
    # Joules for each latent after over before by each sensor of both; neither has part in a verdict
    energy_ratios: Mapping[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """p50 after over p50 before."""
        return self.after.p50 / self.before.p50

    @property
    def p90_ratio(self) -> float | None:
        """The same of p90; None where there are fewer than `LEAST_FOR_P90` samples."""
        return self.after.p90 / self.before.p90 if self._count >= LEAST_FOR_P90 else None

    @property
    def p99_ratio(self) -> float | None:
        """The same of p99; None where there are fewer than `LEAST_FOR_P99` samples."""
        return self.after.p99 / self.before.p99 if self._count >= LEAST_FOR_P99 else None

    @property
    def _count(self) -> int:
        return min(len(self.before.samples), len(self.after.samples))


@dataclass(frozen=True)
class Comparison:
    """What comes of two results."""

    tolerance: float  # How much worse a case may get, as a share
    changes: tuple[Change, ...]  # Cases of both on the same input, in the order of the second
    notes: tuple[str, ...]  # What else differs, and which cases cannot be compared and why
    unlike: tuple[str, ...] = ()  # In what the conditions of the runs differ: no case has a verdict
    broken: tuple[str, ...] = ()  # Cases that ran or passed the drift gate before and do not now


def compare_results(before: Result, after: Result, tolerance: float) -> Comparison:
    """Compare every case that two results of one machine and model have in common."""
    facts = zip(_facts_of(before), _facts_of(after), strict=True)
    unlike, conditions, named = (_differences(*sides) for sides in facts)
    if unlike:
        raise MeasurementError(
            f"the two results cannot be compared, as these differ: {'; '.join(unlike)}; measure "
            "both on one machine with the same options"
        )
    earlier = {case.key: case for case in before.cases}
    changes, broken = [], []
    notes = [*named]
    for case in after.cases:
        old = earlier.pop(case.key, None)
        if old is None:
            notes.append(f"only after: {case.key}")
            continue
        if old.whole is not None and case.whole is None:
            broken.append(f"{case.key}: {case.not_measured}")
            notes.append(f"only before: {case.key}: not measured after: {case.not_measured}")
        elif old.passed and not case.passed:
            broken.append(f"{case.key}: past the limit of its drift gate")
        if case.whole is None:
            continue
        if old.whole is None:
            notes.append(f"only after: {case.key}: not measured before: {old.not_measured}")
        elif old.input_sha256 != case.input_sha256 or old.whole.unit != case.whole.unit:
            notes.append(f"not compared, as the inputs differ: {case.key}")
        else:
            turns = before.turn_of(old), after.turn_of(case)
            change = change_of(case.key, old.whole, case.whole, turns, tolerance)
            change = replace(change, energy_ratios=_energy_ratios(old, case))
            changes.append(replace(change, verdict="unclear") if conditions else change)
    notes.extend(f"only before: {key}" for key in earlier)
    if not changes:
        raise MeasurementError(
            f"the two results share no measured case: {sentence_list(notes[:3])}; run "
            "motorvae-bench with the same options both times"
        )
    return Comparison(tolerance, tuple(changes), tuple(notes), conditions, tuple(broken))


def check_regressions(found: Comparison) -> None:
    """Raise a MeasurementError where a case got worse or is broken, or none can be judged."""
    if found.unlike:
        raise MeasurementError(
            f"these differ: {'; '.join(found.unlike)}; the ratios may come from that: measure both "
            "on one machine with the same options"
        )
    if found.broken:
        raise MeasurementError(
            f"no longer good: {'; '.join(found.broken)}; find out why before comparing speeds"
        )
    if not any(change.interval for change in found.changes):
        raise MeasurementError(
            f"none of {len(found.changes)} cases could be judged, each has fewer than "
            f"{LEAST_TURNS} turns of samples: take more with --samples, or run motorvae-bench "
            "without --quick"
        )
    worse = [
        f"{change.key} ({change.ratio:.2f} times)"
        for change in found.changes
        if change.verdict in {"slower", "larger"}
    ]
    if worse:
        raise MeasurementError(
            f"worse by more than {found.tolerance:.1%}: {sentence_list(worse)}; look for the "
            "cause, or allow more with --tolerance"
        )


def print_comparison(console: Console, found: Comparison) -> None:
    """Print what differs, each case with its ratio, interval and verdict, and whatever else."""
    for line in found.unlike:
        console.print(f"not alike: {line}", soft_wrap=True)
    tails = {
        f"p90 ratio, n >= {LEAST_FOR_P90}": [change.p90_ratio for change in found.changes],
        f"p99 ratio, n >= {LEAST_FOR_P99}": [change.p99_ratio for change in found.changes],
    }
    sensors = dict.fromkeys(name for change in found.changes for name in change.energy_ratios)
    tails |= {
        f"mJ ratio, {name}": [change.energy_ratios.get(name) for change in found.changes]
        for name in list(sensors)[:1]  # that of most; the others are in the files
    }
    tails = {heading: ratios for heading, ratios in tails.items() if any(ratios)}
    figures = ("before p50", "after p50", "ratio", "interval", *tails)
    table = screen_table(("case", *figures, "verdict"), figures)
    for place, change in enumerate(found.changes):
        interval = change.interval
        cells = [
            *(f"{digits_of(side.p50)} {side.shown_in}" for side in (change.before, change.after)),
            f"{change.ratio:.3f}",
            f"{interval.low:.3f} to {interval.high:.3f}" if interval else "too few turns",
        ]
        for ratios in tails.values():
            ratio = ratios[place]
            cells.append(f"{ratio:.3f}" if ratio else "")
        style = _STYLES.get(change.verdict)
        table.add_row(change.key, *cells, change.verdict, style=style)
    console.print(table)
    console.print(
        f"ratio: p50 after over before; interval: {CONFIDENCE:.0%} by bootstrap of whole turns; "
        f"verdict: with the whole interval past {found.tolerance:.1%}",
        soft_wrap=True,
    )
    for note in found.notes:
        console.print(note, soft_wrap=True)


def change_of(
    key: str, before: Samples, after: Samples, turns: tuple[int, int], tolerance: float
) -> Change:
    """Compare two series of one case; `turns` are the samples in one turn of each."""
    interval = interval_of_ratio(before.samples, after.samples, turns)
    verdict: Verdict = "unclear"
    most = 1 + tolerance
    if interval is not None:
        if interval.low > most:
            verdict = "larger" if after.unit == "bytes" else "slower"
        elif interval.high < 1 / most:
            verdict = "smaller" if after.unit == "bytes" else "faster"
        elif 1 / most <= interval.low and interval.high <= most:
            verdict = "same"
    return Change(key, before, after, interval, verdict)


def interval_of_ratio(
    before: Sequence[int], after: Sequence[int], turns: tuple[int, int]
) -> Interval | None:
    """Return the percentile interval of median after over median before, by block bootstrap.

    The bootstrap is Efron's (1979), the interval that of Efron and Tibshirani (1993, chapter 13).
    Samples of one turn resemble each other, so that whole turns are drawn with replacement, not
    samples: blocks as Künsch (1989) draws them, but not overlapping (Carlstein 1986), because a
    turn ends where others run. The two results are drawn from independently. A last turn
    that is shorter is left out.

    Samples are in the order in which they were taken, so many of each in one turn. The interval
    holds `CONFIDENCE` of `DRAWS` draws, the same at each call; it is None where one of the two has
    fewer than `LEAST_TURNS` turns.
    """
    random = np.random.default_rng(0)
    medians: list[npt.NDArray[np.float64]] = []
    for samples, size in zip((before, after), turns, strict=True):
        count = len(samples) // size
        if count < LEAST_TURNS:
            return None
        blocks = np.asarray(samples[: count * size], np.float64).reshape(count, size)
        draws = random.integers(0, count, (DRAWS, count))
        medians.append(np.median(blocks[draws].reshape(DRAWS, -1), axis=1))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians[1] / medians[0], (tail, 1 - tail))
    return Interval(float(low), float(high))


def _energy_ratios(before: Case, after: Case) -> dict[str, float]:
    joules = {one.sensor: one.joules_per_latent for one in before.energy}
    return {
        one.sensor: one.joules_per_latent / earlier
        for one in after.energy
        if one.joules_per_latent and (earlier := joules.get(one.sensor))
    }


def _differences(before: Facts, after: Facts) -> tuple[str, ...]:
    found = []
    for name in dict.fromkeys((*before, *after)):
        sides = before.get(name), after.get(name)
        if sides[0] != sides[1]:
            one, other = ("none" if side is None else side for side in sides)
            found.append(f"{name} {one} before, {other} after")
    return tuple(found)


def _facts_of(result: Result) -> tuple[Facts, Facts, Facts]:
    """Return facts without which no ratio means anything, that may explain one, and that are named.

    Where one of the second differs, ratios are shown, and no verdict; versions, among the third,
    are what one wants to compare.
    """
    found, settings = result.environment, result.settings
    machine = {
        "processor": found.cpu,
        "instruction set": found.machine,
        "physical cores": found.cores,
        **_parts("model", result.model.model_dump()),
    }
    conditions = {
        "usable cores": found.usable_cores,
        "GPU": found.gpu,
        "CPU governor": found.governor,
        "power mode": found.power_mode,
        **_parts("threads of", found.threads),
    }
    named = {
        "weights": settings.weights_sha256[:12],
        "seed": settings.seed,
        "quick": settings.quick,
        **_parts("schedule", settings.schedule.model_dump()),
        "training steps": settings.training_schedule and settings.training_schedule.samples,
        "python": found.python,
        "system": found.system,
        **dict(sorted(found.versions.items())),
    }
    return machine, conditions, named


def _parts(name: str, facts: Facts) -> Facts:
    return {f"{name} {part}": value for part, value in facts.items()}
