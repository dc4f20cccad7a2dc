"""Energy, temperatures and clocks of a result, as text and as tables."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console

from ..measure.case import Case
from ..measure.energy import Energy, SensorFacts, Span
from ..measure.result import Result
from .tables import GroupTable, digits_of, leaders_of, screen_table


def print_energy(console: Console, result: Result) -> None:
    """Print the fastest cases' energy by the sensor that covers most, and the conditions."""
    if result.energy is not None and not result.energy.sensors:
        console.print(f"no energy: {'; '.join(result.energy.absent)}", soft_wrap=False)
    elif result.energy is not None:
        sensor = _shown_sensor(result)
        headings = (sensor.name, "", "mJ/latent", "W", "idle W")
        table = screen_table(headings, headings[2:], pad_edge=False)
        for leader in leaders_of(result):
            for one in leader.case.energy:
                if one.sensor == sensor.name and one.joules_per_latent is not None:
                    what = leader.case.what.removesuffix(" frame").removesuffix(", batch 1")
                    by = f"{leader.case.engine} {leader.case.precision}"
                    table.add_row(what, by, *_figures(one, sensor))
        if table.rows:
            console.print(table)
        console.print(sensor_line(sensor), soft_wrap=False)
        if not table.rows:
            console.print(f"no energy: {_first_reason(result, sensor)}", soft_wrap=False)
    for line in conditions_lines(result):
        console.print(line, soft_wrap=False)


def sensor_line(sensor: SensorFacts) -> str:
    """Return what a sensor covers, how often it changes, and the idle power."""
    rate = (
        f"changes every {digits_of(sensor.update_ms)} ms"
        if sensor.update_ms is not None
        else "did not change"
    )
    idle = _idle(sensor) if sensor.idle_w is None else f"{_idle(sensor)} W"
    return (
        f"{sensor.name} ({sensor.reads}): {sensor.covers}; {rate}; idle {idle} over "
        f"{sensor.idle_s:g} s, not subtracted"
    )


def conditions_lines(result: Result) -> Iterator[str]:
    """Return the warmest that was seen, the clocks, and how many cases were throttled."""
    known = [case.conditions for case in result.cases if case.conditions]
    degrees = [(span.high, name) for found in known for name, span in found.temperatures_c.items()]
    clocks: dict[str, list[Span]] = {}
    for found in known:
        for name, span in found.clocks_mhz.items():
            clocks.setdefault(name, []).append(span)
    parts = []
    if degrees:
        high, name = max(degrees)
        parts.append(f"up to {high:.0f} \N{DEGREE SIGN}C ({name})")
    for name, spans in clocks.items():
        low, high = min(span.low for span in spans), max(span.high for span in spans)
        parts.append(f"{name} at {low:.0f} to {high:.0f} MHz")
    if parts:
        yield f"during the cases: {', '.join(parts)}"
    throttled = [case for case in result.cases if case.conditions and case.conditions.throttled]
    if throttled:
        causes = throttled[0].conditions.throttled if throttled[0].conditions else ()
        yield f"throttled: {len(throttled)} cases, such as {throttled[0].key} ({causes[0]})"


def watch_line(result: Result) -> str | None:
    """Return what the process that read sensors cost; None where there was none."""
    if (watch := result.watch) is None:
        return None
    return (
        f"A process read these every {watch.interval_s:g} s, {watch.samples} times; each "
        f"reading took {digits_of(watch.reading_ms)} ms, and the process "
        f"{watch.processor_share:.2%} of one core."
    )


def sensors_table(result: Result) -> GroupTable | None:
    """Return a row for each sensor of energy; None where there is none."""
    if result.energy is None or not result.energy.sensors:
        return None
    return GroupTable(
        title="idle power: before the first case, with this process doing nothing",
        texts=("sensor", "covers", "read as", "read at"),
        figures=("changes every ms", "idle W", "over s"),
        rows=tuple(
            (
                sensor.name,
                sensor.covers,
                sensor.reads,
                sensor.source,
                digits_of(sensor.update_ms) if sensor.update_ms is not None else "no change",
                _idle(sensor),
                f"{sensor.idle_s:g}",
            )
            for sensor in result.energy.sensors
        ),
    )


def energy_table(result: Result) -> GroupTable | None:
    """Return a row for each case and sensor with a figure, or None."""
    facts = {one.name: one for one in result.energy.sensors} if result.energy else {}
    rows = tuple(
        (case.key if first else "", one.sensor, *_figures(one, facts[one.sensor]), _each(one))
        for case, first, one in _by_case(result)
        if one.joules_per_latent is not None and one.sensor in facts
    )
    if not rows or result.energy is None:
        return None
    return GroupTable(
        title=(
            "all energy that the sensor counted over all latents (of a decoder: reconstructions); "
            f"nothing subtracted; {result.energy.windows} windows of "
            f"{digits_of(result.energy.window_s)} s each"
        ),
        texts=("case", "sensor"),
        figures=("mJ each", "W", "idle W", "mJ in each window"),
        rows=rows,
    )


def energy_absent(result: Result) -> list[str]:
    """Return which sensors are not there, and which figures, each with its reason."""
    absent = list(result.energy.absent) if result.energy else []
    reasons: dict[tuple[str, str], list[str]] = {}
    for case in result.cases:
        for one in case.energy:
            if one.not_measured is not None:
                reasons.setdefault((one.sensor, one.not_measured), []).append(case.key)
    for (sensor, reason), keys in reasons.items():
        more = f" and {len(keys) - 1} more cases" if len(keys) > 1 else ""
        absent.append(f"{sensor}, {keys[0]}{more}: {reason}")
    return absent


def conditions_table(result: Result) -> GroupTable | None:
    """Return a row for each case that was watched, or None."""
    rows = []
    for case in result.cases:
        if (found := case.conditions) is None:
            continue
        hottest = max(
            ((span.high, name) for name, span in found.temperatures_c.items()), default=None
        )
        clocks = ", ".join(
            f"{name} {span.low:.0f} to {span.high:.0f}" for name, span in found.clocks_mhz.items()
        )
        rows.append(
            (
                case.key,
                ", ".join(found.throttled) or "no",
                clocks,
                hottest[1] if hottest else "",
                f"{hottest[0]:.1f}" if hottest else "",
                str(found.samples),
            )
        )
    if not rows:
        return None
    return GroupTable(
        title=watch_line(result) or "",
        texts=("case", "throttled", "clock in MHz", "warmest sensor"),
        figures=("its highest \N{DEGREE SIGN}C", "readings"),
        rows=tuple(rows),
    )


def _figures(energy: Energy, sensor: SensorFacts) -> tuple[str, str, str]:
    joules, watts = energy.joules_per_latent or 0.0, energy.watts or 0.0
    return digits_of(joules * 1e3), digits_of(watts), _idle(sensor)


def _idle(sensor: SensorFacts) -> str:
    return digits_of(sensor.idle_w) if sensor.idle_w is not None else "not known"


def _each(energy: Energy) -> str:
    return ", ".join(digits_of(one.microjoules / 1e3 / one.latents) for one in energy.windows)


def _by_case(result: Result) -> Iterator[tuple[Case, bool, Energy]]:
    for case in result.cases:
        first = True
        for one in case.energy:
            if one.joules_per_latent is not None:
                yield case, first, one
                first = False


def _shown_sensor(result: Result) -> SensorFacts:
    """Return the sensor that covers most of those with a figure, or of all."""
    sensors = result.energy.sensors if result.energy else ()
    found = {
        one.sensor
        for case in result.cases
        for one in case.energy
        if one.joules_per_latent is not None
    }
    return next((one for one in sensors if one.name in found), sensors[0])


def _first_reason(result: Result, sensor: SensorFacts) -> str:
    for case in result.cases:
        for one in case.energy:
            if one.sensor == sensor.name and one.not_measured is not None:
                return f"{case.key}: {one.not_measured}"
    return "none of the cases that were measured has a latent for each call"
