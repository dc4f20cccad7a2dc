"""What a step left behind, read into rows: nothing is proven because nothing was found."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ET  # of what the step's own pytest wrote
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import orjson

from ...runtime.core.errors import MeasurementError
from ..measure.case import NOT_REACHED, Case
from ..measure.result import GpuRates, Result, load_result
from ..sensors.find import covers_gpu
from .process import Ended
from .record import Row

Reader = Callable[[str, Ended, Path], Sequence[Row]]
"""Takes what is to be proven, how the process ended, and the work folder; gives one row or more.

It may raise OSError or ValueError where what it reads is missing or damaged."""

_STAGES = ("wall", "device", "h2d", "compute", "d2h", "enqueue")
_LONGEST_REASONS = 300


def by_exit_code(what: str, ended: Ended, _work: Path) -> Sequence[Row]:
    """Take exit code 0 for the proof, and the last line for its note."""
    return [fault_of(what, ended) or Row(what=what, status="proven", note=ended.last_line or None)]


def by_exit_code_or_not(what: str, ended: Ended, work: Path) -> Sequence[Row]:
    """Take exit code 0 for the proof; what says no by itself, with exit code 1, fails nothing."""
    (row,) = by_exit_code(what, ended, work)
    return [row.model_copy(update={"status": "unproven"}) if ended.exit_code == 1 else row]


def fault_of(what: str, ended: Ended) -> Row | None:
    """Return the row of a process that did not end by itself with exit code 0; else None."""
    if ended.exit_code == 0:
        return None
    said = f": {ended.last_line}" if ended.last_line else ""
    return Row(what=what, status="failed", reason=f"{ended.words}{said}")


def of_pytest(report: str) -> Reader:
    """Return the reader of a JUnit report in the work folder, such as "tests.xml".

    Proven is what passed, in one row, and nothing else: where none did, that row is unproven. Each
    reason of skipped tests is a row of its own, unproven. A test that failed makes it failed.
    """

    def read(what: str, ended: Ended, work: Path) -> Sequence[Row]:
        path = work / report
        if ended.exit_code not in {
            0,
            1,
            5,
        }:  # killed, a crash, or wrong usage: no word of it counts
            fault = fault_of(what, ended)
            return [fault] if fault else []
        if ended.exit_code == 5 or not path.is_file():  # pytest's code where it collected nothing
            reason = f"no test ran: {ended.last_line}" if ended.exit_code == 5 else "no test report"
            return [Row(what=what, status="unproven", reason=reason)]
        passed, failed, skipped = _counted(path)
        rows = []
        if failed:
            reason = f"{len(failed)} of {passed + len(failed)} tests failed, such as {failed[0]}"
            rows.append(Row(what=what, status="failed", reason=reason))
        elif ended.exit_code:
            rows.append(Row(what=what, status="failed", reason=f"pytest: {ended.words}"))
        elif not passed:
            reasons = "; ".join(skipped)[:_LONGEST_REASONS] or "no test ran"
            return [Row(what=what, status="unproven", reason=f"no test ran: {reasons}")]
        else:
            rows.append(Row(what=what, status="proven", note=f"{passed} tests passed"))
        for reason, count in skipped.items():
            tests = f"{count} test{'s' * (count > 1)}"
            rows.append(Row(what=f"{what}: {tests} skipped", status="unproven", reason=reason))
        return rows

    return read


def _counted(path: Path) -> tuple[int, list[str], Counter[str]]:
    """Return how many tests passed, which failed and why, and how many were skipped by reason."""
    try:
        root = ET.parse(path).getroot()  # noqa: S314  # as above
    except ET.ParseError as error:
        raise ValueError(f"{path.name} is no JUnit report: {error}") from error
    passed, failed, skipped = 0, [], Counter[str]()
    for test in root.iter("testcase"):
        fault = next((one for one in test if one.tag in {"failure", "error"}), None)
        skip = test.find("skipped")
        if fault is not None:
            said = " ".join(fault.get("message", "").split())
            failed.append(f"{test.get('name')}: {said}"[:_LONGEST_REASONS])
        elif skip is not None:
            skipped[" ".join(skip.get("message", "").split()) or "skipped without a reason"] += 1
        else:
            passed += 1
    return passed, failed, skipped


def of_doctor(file: str) -> Reader:
    """Return the reader of the JSON that motorvae-doctor gpu wrote in the work folder.

    Each case is a row: measured past the gate is proven, drifted is failed. What a crash of the
    doctor did not reach is failed as well: it had its turn. Then there is a row for the energy of
    each case by each sensor that covers a GPU; without such a sensor, one that is unproven.
    """

    def read(what: str, ended: Ended, work: Path) -> Sequence[Row]:
        path = work / file
        fault = fault_of(what, ended)
        if not path.is_file():
            return [fault or Row(what=what, status="failed", reason="the doctor left no result")]
        if ended.exit_code == 1:  # it says so case by case
            fault = None
        result = load_result(path)
        rows = [_row_of(case, fault.reason if fault else None) for case in result.cases]
        if fault and fault.reason not in {row.reason for row in rows}:
            rows.append(fault)
        return [*rows, *_energy_rows(f"{what}: energy for each latent", result)]

    return read


def _row_of(case: Case, crash: str | None) -> Row:
    what = case.how
    if case.status == "measured":
        return Row(
            what=what,
            status="proven",
            note="; ".join(_notes(case)) or None,
            figures=dict(_figures(case)),
        )
    reason = case.not_measured or "past a limit of the gate"
    if case.status == "drifted":
        return Row(what=what, status="failed", reason=reason)
    if crash and reason == NOT_REACHED:
        return Row(what=what, status="failed", reason=crash)
    return Row(what=what, status="unproven", reason=reason)


def _notes(case: Case) -> Iterator[str]:
    yield from filter(None, [case.name])
    if case.equals_graph_off is not None:
        same = "equals" if case.equals_graph_off else "differs from"
        yield f"mu {same} that without a CUDA graph, bit for bit"
    yield from case.warnings


def _figures(case: Case) -> Iterator[tuple[str, float]]:
    for stage in _STAGES:
        if found := case.stages.get(stage):
            yield f"{stage}_p50_ms", found.p50
            if stage == "wall":
                yield "wall_p99_ms", found.p99
    if case.latent_error is not None:
        yield "latent_error_over_spread", case.latent_error.value
    if case.roofline is not None:
        yield "roofline_least_ms", case.roofline.least_ms


def _energy_rows(what: str, result: Result) -> Sequence[Row]:
    """Return a row for each case and sensor that covers a GPU; one without any such energy.

    What drifted is failed, whatever was measured of it.
    """
    facts = result.energy
    sensors = {
        one.name: one for one in (facts.sensors if facts else ()) if covers_gpu(one.name, one.scope)
    }
    rows = []
    for case in result.cases:
        for one in case.energy:
            if (sensor := sensors.get(one.sensor)) is None:
                continue
            title = f"{case.how}: {one.sensor}"
            joules, watts = one.joules_per_latent, one.watts
            if case.status == "drifted":
                reason = "past a limit of the gate, so that its energy is of no latent"
                rows.append(Row(what=title, status="failed", reason=reason))
            elif joules is None or watts is None:
                reason = one.not_measured or "it gives no figure"
                rows.append(Row(what=title, status="unproven", reason=reason))
            else:
                figures = {"per_latent_mj": joules * 1e3, "power_w": watts}
                if sensor.idle_w is not None:
                    figures["idle_w"] = sensor.idle_w
                note = f"{sensor.covers}; nothing is subtracted"
                rows.append(Row(what=title, status="proven", note=note, figures=figures))
    if rows:
        return rows
    absent = "; ".join(facts.absent) if facts else ""
    reason = f"no case has energy of a GPU: {absent or 'no sensor of one was found'}"
    if sensors:
        reason = "no case was measured"
    return [Row(what=what, status="unproven", reason=reason)]


def of_rates(file: str) -> Reader:
    """Return the reader of the rates that measure.gpu_rates wrote: one row each."""

    def read(what: str, ended: Ended, work: Path) -> Sequence[Row]:
        if fault := fault_of(what, ended):
            return [fault]
        found = GpuRates.model_validate_json((work / file).read_bytes())
        products = [
            (f"{name} matrix product", one, "tflop_per_s", 1e12)
            for name, one in found.matrix.items()
        ]
        moved = [
            ("device memory copied, read plus written", found.copy_memory, "gb_per_s", 1e9),
            ("device memory read", found.read_memory, "gb_per_s", 1e9),
            (
                "bytes of one encoder run read again and again",
                found.read_again,
                "gb_per_s",
                1e9,
            ),
        ]
        rows = []
        for title, rate, unit, scale in (*products, *moved):
            figures = {
                f"best_{unit}": rate.best_per_s / scale,
                f"median_{unit}": rate.p50_per_s / scale,
            }
            note = "; ".join((f"torch {found.torch}", *rate.warnings))
            rows.append(Row(what=title, status="proven", note=note, figures=figures))
        return rows

    return read


def of_training(metrics: str, batch: int) -> Reader:
    """Return the reader of a run's metrics.csv: its rate after the first epoch, in images/s.

    Loading kernels and trying algorithms belongs to the first epoch, so that at least two count.
    """

    def read(what: str, ended: Ended, work: Path) -> Sequence[Row]:
        if fault := fault_of(what, ended):
            return [fault]
        with (work / metrics).open(encoding="utf-8", newline="") as file:
            found = [(int(row["steps"]), float(row["elapsed_s"])) for row in csv.DictReader(file)]
        if len(found) < 2:
            reason = f"it made {len(found)} epoch in its time, and a rate takes 2: give it more"
            return [Row(what=what, status="unproven", reason=reason)]
        (first, begin_s), (last, end_s) = found[0], found[-1]
        if not (last > first and end_s > begin_s):
            raise ValueError(f"{Path(metrics).name} has no step or no time after the first epoch")
        rate = (last - first) * batch / (end_s - begin_s)
        note = f"epochs 2 to {len(found)}, validation included"
        figures = {"train_images_per_s": rate, "steps": float(last)}
        return [Row(what=what, status="proven", note=note, figures=figures)]

    return read


def of_stream(file: str) -> Reader:
    """Return the reader of a stream's rows as JSON Lines: ages and rate from its last row."""

    def read(what: str, ended: Ended, work: Path) -> Sequence[Row]:
        if fault := fault_of(what, ended):
            return [fault]
        lines = (work / file).read_bytes().splitlines()
        rows = [orjson.loads(line) for line in lines if line.strip()]
        good = sum(row.get("status") == "ok" for row in rows)
        if not good or rows[-1].get("status") != "end":
            reason = f"{good} latents in {len(rows)} rows, and the last row is not the end"
            return [Row(what=what, status="failed", reason=reason)]
        figures = {"latents": float(good)}
        summary: Mapping[str, object] = rows[-1].get("summary") or {}
        if isinstance(rate := summary.get("fps"), float | int):
            figures["frames_per_s"] = float(rate)
        ages = sorted(row["age_ms"] for row in rows if row.get("status") == "ok")
        figures["age_p50_ms"] = float(ages[len(ages) // 2])
        return [Row(what=what, status="proven", note=ended.last_line or None, figures=figures)]

    return read


def read_evidence(reader: Reader, what: str, ended: Ended, work: Path) -> tuple[Row, ...]:
    """Return a step's rows; evidence that is missing or damaged makes it failed."""
    if ended.problem:
        return (Row(what=what, status="failed", reason=ended.problem),)
    try:
        rows = tuple(reader(what, ended, work))
    except (OSError, ValueError, LookupError, TypeError, MeasurementError) as error:
        text = f"its evidence cannot be read: {type(error).__name__}: {error}"
        rows = (fault_of(what, ended) or Row(what=what, status="failed", reason=text),)
    return rows or (Row(what=what, status="failed", reason="it left no evidence"),)
