"""Gains within a result, such as INT8 over float32, and which of them a later result has lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from ...runtime.core.errors import MeasurementError, sentence_list
from ..measure.case import DECODE_ALONE, EAGER, ENCODE_ALONE, LOWEST, PACED, PLAIN, STREAM, Case
from ..measure.result import Result

_OURS = "ours"
_LEAST_TURNS = 4  # below, a share of them says nothing


@dataclass(frozen=True)
class Gain:
    """How many times as fast a case is as another of the same run."""

    times: float  # The median of the turns, in which both ran one after the other
    best: float  # Three of four turns had less
    of: Case  # What is as many times as fast
    # A precision over float32: by how much its matrix rate is above that of float32 here
    of_rates: float | None = None


@dataclass(frozen=True)
class GainChange:
    """A gain in two results."""

    key: str
    before: float  # On another processor what it would be by the matrix rates of that
    after: Gain
    lost: bool


def gains_of(result: Result) -> dict[str, Gain]:
    """Return each gain by its name: of precisions, over torch and the plain recipe, of the parts.

    A case of ours is set against float32 in the same engine, torch eager or the plain recipe on the
    same input; an age against the sum of its parts paced as it is. Cases take turns, so that
    whatever slows a machine down for a while slows both.
    """
    return {
        f"{case.key}, over {reference.how}": _gain(result, case, reference)
        for case in result.cases
        if case.whole is not None and case.whole.unit == "ns"
        for reference in _references(result, case)
    } | dict(_of_parts(result))


def compare_gains(
    before: Result, after: Result, tolerance: float, *, expect: Collection[str] = ()
) -> tuple[GainChange, ...]:
    """Compare the gains that two results of one model have in common.

    A gain is lost where three of four turns are below it by more than `tolerance`, a share. On
    another processor only gains of precisions are compared, as shares of what its rates allow. A
    MeasurementError where the model or the instruction set is another, a case is no longer
    measured, a gain of the precisions in `expect` is missing where both have measured the same
    work, or nothing is in common.
    """
    sides = [
        (one.environment.machine, one.model.model_dump(exclude={"matrix"}))
        for one in (before, after)
    ]
    if sides[0] != sides[1]:
        raise MeasurementError(
            "the two results cannot be compared, as the model or the instruction set differs: "
            "measure the model of the first"
        )
    measured = {case.key for case in before.cases if case.whole is not None}
    gone = [
        f"{case.key} ({case.not_measured})"
        for case in after.cases
        if case.whole is None and case.key in measured and _is_ours(case)
    ]
    passed = {case.key for case in before.cases if case.passed}
    gone += [
        f"{case.key} (past the limit of its drift gate)"
        for case in after.cases
        if case.whole is not None and not case.passed and case.key in passed and _is_ours(case)
    ]
    if gone:
        raise MeasurementError(f"no longer measured: {sentence_list(gone)}; find out why")
    has = {gain.of.precision for gain in gains_of(before).values()}
    if unknown := sorted(set(expect) - has):
        raise MeasurementError(
            f"expected {sentence_list(unknown)}, of which the first result has no ratio: it has "
            f"those of {sentence_list(sorted(has))}"
        )
    missing = [key for key, gain in _lacking(before, after) if gain.of.precision in expect]
    if missing:
        raise MeasurementError(
            f"{len(missing)} expected ratios are missing: {sentence_list(missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}; measure them, or find out why they went"
        )
    is_other = before.environment.cpu != after.environment.cpu
    # Grey of other colours costs frames something else, and graphs nothing.
    has_other_grey = before.model.matrix != after.model.matrix
    earlier, found = gains_of(before), []
    for key, gain in gains_of(after).items():
        was = earlier.get(key)
        if was is None or (is_other and (was.of_rates is None or gain.of_rates is None)):
            continue
        if has_other_grey and gain.of.group not in {"encoder", "decoder"}:
            continue
        expected = was.times
        if is_other and was.of_rates and gain.of_rates:
            expected *= gain.of_rates / was.of_rates
        found.append(GainChange(key, expected, gain, gain.best < expected * (1 - tolerance)))
    compared = {change.after.of.precision for change in found}
    if left := sorted(set(expect) - compared):
        raise MeasurementError(
            f"expected {sentence_list(left)}, of which no ratio could be compared: on another "
            "processor it takes matrix rates of that precision in both results"
        )
    if not found:
        raise MeasurementError(
            "the two results share no ratio: measure --only encoder, or more, with an INT8 bundle"
        )
    return tuple(found)


def _lacking(before: Result, after: Result) -> list[tuple[str, Gain]]:
    """Return the gains of `before` that `after` lacks, though it has measured the same work."""
    there = gains_of(after)
    works = {case.what for case in after.cases}
    return [
        (key, gain)
        for key, gain in gains_of(before).items()
        if key not in there and gain.of.what in works
    ]


def print_gains(
    console: Console,
    found: tuple[GainChange, ...],
    before: Mapping[str, Gain] | None = None,
) -> None:
    """Print a line for each, and how many of which kind of those `before` were not compared."""
    for change in found:
        verdict = "lost" if change.lost else "kept"
        console.print(
            f"{verdict}: {change.after.times:.2f} x, before {change.before:.2f} x: {change.key}",
            style="red" if change.lost else None,
            soft_wrap=True,
        )
    keys = {change.key for change in found}
    groups = Counter(gain.of.group for key, gain in (before or {}).items() if key not in keys)
    if groups:
        kinds = ", ".join(f"{count} of {group}" for group, count in groups.items())
        reason = "the second result lacks them, or is of another processor or kind of grey"
        console.print(f"not compared: {kinds}; {reason}", soft_wrap=True)


def check_gains(found: tuple[GainChange, ...], tolerance: float) -> None:
    """Raise a MeasurementError where one is lost."""
    lost = [change for change in found if change.lost]
    if lost:
        worst = min(lost, key=lambda change: change.after.times / change.before)
        raise MeasurementError(
            f"{len(lost)} of {len(found)} ratios fell by more than {tolerance:.0%}, most of all "
            f"{worst.key} (from {worst.before:.2f} to {worst.after.times:.2f} times): look for the "
            "cause, or allow more with --tolerance"
        )


def _is_ours(case: Case) -> bool:
    return (case.variant or "").startswith(_OURS)


def _references(result: Result, case: Case) -> Iterator[Case]:
    if not _is_ours(case) or case.group not in {"encoder", "decoder", "path"}:
        return
    alike = [one for one in result.cases if one.what == case.what and one.whole is not None]
    yield from (one for one in alike if one.engine == (PLAIN if case.group == "path" else EAGER))
    if case.precision != "fp32" and case.group != "path":
        facts = case.engine, "fp32", case.outputs, case.variant
        floats = (
            one for one in alike if (one.engine, one.precision, one.outputs, one.variant) == facts
        )
        yield from list(floats)[:1]


def _gain(result: Result, case: Case, reference: Case) -> Gain:
    medians = []
    for one in (reference, case):
        assert one.whole is not None  # noqa: S101  # for the type checker
        size = result.turn_of(one)
        turns = [one.whole.samples[at : at + size] for at in range(0, len(one.whole.samples), size)]
        medians.append([float(np.median(turn)) for turn in turns])
    of_rates = None
    rates = [result.matrix.get(one.precision) for one in (case, reference)]
    if case.engine == reference.engine and rates[0] and rates[1]:
        of_rates = rates[0].best_per_s / rates[1].best_per_s
    slow, fast = medians
    if len(slow) != len(fast) or len(slow) < _LEAST_TURNS:
        times = float(np.median(slow) / np.median(fast))
        return Gain(times, times, case, of_rates)
    times, best = np.quantile(np.divide(slow, fast), (0.5, 0.75))
    return Gain(float(times), float(best), case, of_rates)


def _of_parts(result: Result) -> Iterator[tuple[str, Gain]]:
    """Yield the share of each age that its parts take, alone and paced."""
    cases = [case for case in result.cases if case.group == "stream" and case.whole]
    for case in cases:
        parts = [
            one.whole.p50
            for one in cases
            if one.whole is not None
            and (
                (one.variant == f"{DECODE_ALONE}, {PACED}" and one.source == case.source)
                or (
                    one.variant == f"{ENCODE_ALONE}, {PACED}"
                    and (one.engine, one.precision) == (case.engine, case.precision)
                )
            )
        ]
        if case.variant in {STREAM, LOWEST} and len(parts) == 2 and case.whole is not None:
            share = sum(parts) / case.whole.p50
            yield f"{case.key}, its parts alone over its age", Gain(share, share, case)
