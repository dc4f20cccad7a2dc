"""Results as text: the tables, the machine, and the verdict of a run.

Floors and rivals are measured in the same run: a figure set for one machine and one model means
nothing on another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from rich import box
from rich.console import Console
from rich.table import Table

from ...export.tables import engine_table
from ..measure.case import (
    BARE,
    DECODE_ALONE,
    ENCODE_ALONE,
    HUFFMAN_ALONE,
    NO_PYTHON,
    OPENVINO,
    READ_ALONE,
    RIVALS,
    STREAM_MODULE,
    WAKE_ALONE,
    Case,
    Group,
    Samples,
)
from ..measure.result import Rate, Result
from .floors import floor_of

GROUPS: tuple[Group, ...] = get_args(Group)
PERCENTILES = ("p50", "p90", "p95", "p99", "max")

_OF_WHOLE: dict[str, Callable[[Case, Samples], str | None]] = {
    "/image": lambda case, whole: (
        digits_of(whole.p50 / case.batch) if case.group in {"encoder", "decoder"} else None
    ),
    "x roof": lambda case, _: f"{case.roofline.times:.1f}" if case.roofline else None,
    "error/spread": lambda case, _: f"{case.latent_error.value:.2g}" if case.latent_error else None,
    "PSNR dB": lambda case, _: f"{case.psnr.value:.0f}" if case.psnr else None,
    "images/s": lambda case, whole: (
        digits_of(case.batch / whole.p50 * 1e3) if case.group == "training" else None
    ),
}
"""Columns that a table has only where one of its cases fills them, for the first stage."""


@dataclass(frozen=True)
class GroupTable:
    """One table."""

    title: str  # What it holds
    texts: tuple[str, ...]  # Headings of the first columns
    figures: tuple[str, ...]  # Headings of the columns after them, which hold numbers
    # A cell for each heading. A first cell is empty where it would repeat the one above.
    rows: tuple[tuple[str, ...], ...]


def group_table(result: Result, group: Group) -> GroupTable | None:
    """Return the table of one group, or None where nothing of it was measured."""
    cases = [(case, case.whole) for case in result.cases if case.group == group and case.whole]
    if not cases:
        return None
    columns = _OF_WHOLE | _floor_columns(result) | _energy_columns(result)
    extra = [name for name, cell in columns.items() if any(cell(*case) for case in cases)]
    has_stages = any(len(case.stages) > 1 for case, _ in cases)
    units = sorted({one.shown_in for case, _ in cases for one in case.stages.values()})
    optional = {"stage": has_stages, "unit": len(units) > 1}
    rows: list[tuple[str, ...]] = []
    above = ""
    for case, whole in cases:
        what = case.what.removeprefix(group).removeprefix(", ")
        for stage, series in case.stages.items():
            is_first = series is whole
            cells = {"stage": stage, "unit": series.shown_in}
            rows.append(
                (
                    what if what != above and is_first else "",
                    case.how + mark_of(case) if is_first else "",
                    *(cells[name] for name, is_there in optional.items() if is_there),
                    *(digits_of(getattr(series, name)) for name in PERCENTILES),
                    *(columns[name](case, whole) or "" if is_first else "" for name in extra),
                )
            )
        above = what
    counts = sorted({len(whole.samples) for _, whole in cases})
    many = f" to {counts[-1]}" if len(counts) > 1 else ""
    unit = f"{units[0]}, " if len(units) == 1 else ""
    return GroupTable(
        title=f"{group}: {unit}{counts[0]}{many} samples each",
        texts=("", "engine", *(name for name, is_there in optional.items() if is_there)),
        figures=(*PERCENTILES, *extra),
        rows=tuple(rows),
    )


def screen_table(
    headings: Sequence[str], figures: Collection[str], *, no_wrap: bool = False, **look: Any
) -> Table:
    """Return an empty table for a terminal; columns of `figures` are set to the right.

    A narrow terminal folds a cell: a figure that lost its last digits would be another figure.
    With `no_wrap` it folds texts only.
    """
    table = Table(box=box.SIMPLE_HEAD, **{"padding": (0, 1, 0, 0), **look})
    for heading in headings:
        shape: dict[str, Any] = (
            {"justify": "right", "no_wrap": no_wrap} if heading in figures else {}
        )
        table.add_column(heading, overflow="fold", **shape)
    return table


def mark_of(case: Case) -> str:
    """Return the star of a case that is in doubt, and whether it was throttled."""
    is_throttled = case.conditions is not None and case.conditions.throttled
    return (" *" if case.warnings else "") + (" (throttled)" if is_throttled else "")


def caption_of(result: Result) -> str:
    """Return whose weights these are, and whether the figures may be quoted."""
    weights = "random weights" if result.settings.untrained else "trained weights"
    quick = ", QUICK: too few samples to quote" if result.settings.quick else ""
    return f"{weights} {result.settings.weights_sha256[:8]}{quick}"


def machine_line(result: Result) -> str:
    """Return on what the figures were taken, and how busy it was."""
    found = result.environment
    threads = ", ".join(f"{name} {count}" for name, count in found.threads.items())
    gpu = f"; {found.gpu}" if found.gpu else ""
    return (
        f"{found.cpu} ({found.machine}), {found.usable_cores} usable cores{gpu}; "
        f"threads: {threads}; load {found.load_start[0]:.2f} before, {found.load_end[0]:.2f} after"
    )


def rates_line(result: Result) -> str:
    """Return how fast the machine multiplies and copies."""
    products = "; ".join(
        f"{precision} matrix product {_rate(rate)} {operations_of(precision)}"
        for precision, rate in result.matrix.items()
    )
    if result.copy_memory is None or result.read_memory is None:
        return "no rates of this processor were measured"
    copy, read = _rate(result.copy_memory), _rate(result.read_memory)
    return f"{products}; copy {copy} GB/s read plus written; read {read} GB/s"


def operations_of(precision: str) -> str:
    """Return the unit of a matrix rate: whole numbers are no floating-point operations."""
    return "GOP/s" if precision == "int8" else "GFLOP/s"


def doubts_of(result: Result) -> Iterator[str]:
    """Return one line for each thing that is in doubt."""
    yield from result.warnings
    rates = {f"{name} matrix rate": rate for name, rate in result.matrix.items()}
    memory = {"copy bandwidth": result.copy_memory, "read bandwidth": result.read_memory}
    cases = {case.key: case for case in result.cases}
    doubtful: dict[str, Rate | Case | None] = {**rates, **memory, **cases}
    for name, found in doubtful.items():
        if found and found.warnings:
            yield f"{name}: {'; '.join(found.warnings)}"


def digits_of(value: float) -> str:
    """Return three digits or so of a number: more would be noise."""
    return f"{value:.3f}" if value < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"


def _rate(rate: Rate) -> str:
    return f"{digits_of(rate.p50_per_s / 1e9)} (best {digits_of(rate.best_per_s / 1e9)})"


def _floor_columns(result: Result) -> dict[str, Callable[[Case, Samples], str | None]]:
    """Return a column of shares of the floor of paths that begin with a JPEG."""

    def cell(case: Case, whole: Samples) -> str | None:
        if case.group != "path" or case.source != "mjpeg" or case.variant == HUFFMAN_ALONE:
            return None
        least_ms = floor_of(case, result.cases)[1]
        return None if least_ms is None else f"{least_ms / whole.p50:.2f}"

    return {"of floor": cell}


def _energy_columns(result: Result) -> dict[str, Callable[[Case, Samples], str | None]]:
    """Return a column for each sensor that sees more than a part: millijoules for each latent."""

    def column(sensor: str) -> Callable[[Case, Samples], str | None]:
        def cell(case: Case, _: Samples) -> str | None:
            found = [one.joules_per_latent for one in case.energy if one.sensor == sensor]
            return digits_of(found[0] * 1e3) if found and found[0] is not None else None

        return cell

    sensors = result.energy.sensors if result.energy else ()
    return {f"mJ {one.name}": column(one.name) for one in sensors if one.scope != "part"}


_IMPORTED = {"motorvae": "Python API", STREAM_MODULE: "motorvae-stream"}
"""Whose modules an import case loads."""
LOSS = 1.005
"""What is shown as 1.00 is none."""


@dataclass(frozen=True)
class Leader:
    """The fastest case of one kind that passed the drift gate."""

    case: Case
    floor: str = ""  # What its time cannot be below; empty for what has no such thing
    floor_ms: float | None = None  # Its p50 in the same run; None where not measured

    @property
    def words(self) -> str:
        """The floor over p50 in words; "not valid" where it is beyond the possible."""
        if not self.floor:
            return ""
        if self.floor_ms is None:
            return f"not applicable: no {self.floor}"
        share = self.floor_ms / _p50(self.case)
        return (
            f"{share:.0%} of {self.floor}" if share <= 1 else f"not valid: faster than {self.floor}"
        )


@dataclass(frozen=True)
class Standing:
    """One case beside its rivals."""

    case: Case
    # Its p50 over the rival's, by the rival's name: a loss is above 1. A rival that did not do the
    # same in this run is not there.
    times: dict[str, float]

    @property
    def is_valid(self) -> bool:
        """Whether its time is possible: not below the least that the machine's rates allow."""
        return self.case.roofline is None or self.case.roofline.times >= 1

    @property
    def worst(self) -> float:
        """The largest of its ratios: a loss from `LOSS` on."""
        return max(self.times.values())


def print_verdict(console: Console, result: Result) -> None:
    """Print the machine, the fastest of each kind, and how much there is to look at."""
    for line in (f"{caption_of(result)}; {machine_line(result)}", rates_line(result)):
        console.print(line, soft_wrap=False)
    figures = ("p50", "p90", "p99")
    headings = ("", "fastest", *figures, "share of its floor")
    table = screen_table(headings, figures, no_wrap=True, padding=0)
    for leader in leaders_of(result):
        case, whole = leader.case, leader.case.whole
        if whole is not None:
            what = case.what.removesuffix(" frame").removesuffix(", batch 1")
            by = _IMPORTED.get(case.engine, f"{case.engine} {case.precision}")
            p50 = f"{digits_of(whole.p50)} {whole.shown_in}"
            p90, p99 = digits_of(whole.p90), digits_of(whole.p99)
            table.add_row(what, by, p50, p90, p99, leader.words)
    console.print(table)
    measured = [case for case in result.cases if case.stages]
    drifted = [case.key for case in measured if not case.passed]
    unstable = sum(bool(case.warnings) for case in measured)
    slower = [standing for standing in standings_of(result) if standing.worst >= LOSS]
    lines = [
        f"{len(measured)} cases measured, {len(result.cases) - len(measured)} not; "
        f"{unstable} unstable; {len(slower)} slower than an engine as installed"
    ]
    if slower:
        lines.append(f"  the slowest of them by {slower[0].worst:.2f}: {slower[0].case.key}")
    if drifted:
        lines.append(f"past the limit of the drift gate: {len(drifted)}, such as {drifted[0]}")
    for line in (*lines, *result.warnings):
        console.print(line, soft_wrap=False)


def print_gpu_cases(console: Console, result: Result) -> None:
    """Print the GPU, the engines, one line for each stage that was measured, and what was not."""
    if (gpu := result.gpu) is None:
        return
    console.print(
        f"{gpu.name}, compute capability {gpu.compute_capability}, driver {gpu.driver or '?'}, "
        f"CUDA {gpu.cuda}, {gpu.memory_bytes / 1e9:.1f} GB"
    )
    for package in dict.fromkeys(engine.package for engine in gpu.engines):
        console.print(engine_table([one for one in gpu.engines if one.package == package]))
    if found := group_table(result, "gpu"):
        title = f"{found.title}, one image a run, all past the gate"
        # Without the first column: every case is of one image.
        headings = (*found.texts[1:], *found.figures)
        table = screen_table(headings, found.figures, title=title, title_justify="left")
        for row in found.rows:
            table.add_row(*row[1:])
        console.print(table)
    reasons: dict[str, list[str]] = {}
    for case in result.cases:
        if case.status == "drifted":
            console.print(f"{case.how}: {case.not_measured}", style="bold red")
        elif case.not_measured is not None:
            reasons.setdefault(case.not_measured, []).append(case.how)
        else:
            if case.equals_graph_off is False:
                console.print(f"{case.how}: latents are not bit for bit those without the graph")
            for remark in (*case.notes, *case.warnings):
                console.print(f"{case.how}: {remark}")
    for reason, titles in reasons.items():
        console.print(f"unproven: {'; '.join(titles)}: {reason}")


def leaders_of(result: Result) -> tuple[Leader, ...]:
    """Return the fastest of each kind at batch 1, of paths that with the largest frame."""
    kinds: dict[tuple[object, ...], list[Case]] = {}
    for case in result.cases:
        variant = case.variant or ""
        is_trial = case.group == "threads" or variant.startswith(
            (
                *(DECODE_ALONE, ENCODE_ALONE, READ_ALONE, WAKE_ALONE),
                *(HUFFMAN_ALONE, BARE, NO_PYTHON),
            )
        )
        if case.whole is None or not case.passed or is_trial:
            continue
        if case.batch > 1 and case.group != "training":
            continue
        # Encoders and decoders on a GPU are kinds of their own, and so are imported modules.
        apart = {"gpu": variant.partition(" ")[0], "import": case.engine}
        kinds.setdefault((case.group, case.source, apart.get(case.group)), []).append(case)
    found = []
    for cases in kinds.values():
        largest = max(case.frame or (0, 0) for case in cases)
        fastest = min((case for case in cases if (case.frame or (0, 0)) == largest), key=_p50)
        found.append(Leader(fastest, *floor_of(fastest, result.cases)))
    return tuple(found)


def standings_of(result: Result) -> tuple[Standing, ...]:
    """Return every case of ours that has a rival, the largest loss first.

    What failed the drift gate is not among them: it wins nothing.
    """
    found = []
    for case in result.cases:
        # Ours is a backend as motorvae-stream opens it, unlike an engine as installed.
        is_ours = (case.variant or "").startswith("ours")
        if not is_ours or not case.passed or case.whole is None:
            continue
        times: dict[str, float] = {}
        for rival in result.cases:
            # A rival is as installed: nothing set, all outputs. OpenVINO by itself takes bf16 where
            # the processor is fastest in it.
            is_plain = rival.variant is None and (
                rival.precision == "fp32" or rival.engine == OPENVINO
            )
            if is_plain and rival.what == case.what and rival.engine in RIVALS and rival.whole:
                times.setdefault(rival.engine, case.whole.p50 / rival.whole.p50)
        if times:
            ordered = {name: times[name] for name in RIVALS if name in times}
            found.append(Standing(case, ordered))
    return tuple(sorted(found, key=lambda standing: -standing.worst))


def _p50(case: Case) -> float:
    return case.whole.p50 if case.whole else float("inf")
