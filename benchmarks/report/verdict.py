"""The verdict of a run: the fastest of each kind against its floor, and ours against rivals.

Floors and rivals are measured in the same run: a figure set for one machine and one model means
nothing on another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

from ...export.tables import engine_table
from ..measure.case import (
    COMPILED,
    DECODE_ALONE,
    EAGER,
    ENCODE_ALONE,
    ONNX,
    OPENVINO,
    PACED,
    PLAIN,
    STREAM_MODULE,
    TENSORRT,
    TENSORRT_RTX,
    Case,
)
from ..measure.result import Result
from .tables import caption_of, digits_of, group_table, machine_line, rates_line

RIVALS = (EAGER, COMPILED, ONNX, OPENVINO, PLAIN)
"""ONNX Runtime and OpenVINO as installed; both run our graphs, too."""
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
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("", "fastest"):
        table.add_column(heading, overflow="fold")
    for heading in ("p50", "p99"):
        table.add_column(heading, justify="right", overflow="fold", no_wrap=True)
    table.add_column("share of its floor", overflow="fold")
    for leader in leaders_of(result):
        case, whole = leader.case, leader.case.whole
        if whole is not None:
            what = case.what.removesuffix(" frame").removesuffix(", batch 1")
            by = _IMPORTED.get(case.engine, f"{case.engine} {case.precision}")
            p50 = f"{digits_of(whole.p50)} {whole.shown_in}"
            table.add_row(what, by, p50, digits_of(whole.p99), leader.words)
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
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        # Without the first column, which says of every case that it is of one image.
        for heading in (*found.texts[1:], *found.figures):
            justify: JustifyMethod = "right" if heading in found.figures else "left"
            table.add_column(heading, justify=justify, overflow="fold")
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
        is_trial = case.group == "threads" or variant.startswith((DECODE_ALONE, ENCODE_ALONE))
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
        found.append(Leader(fastest, *_floor_of(fastest, result.cases)))
    return tuple(found)


def standings_of(result: Result) -> tuple[Standing, ...]:
    """Return every case of ours that has a rival, the largest loss first.

    What failed the drift gate is not among them: it wins nothing.
    """
    found = []
    for case in result.cases:
        # Ours is a backend as motorvae-stream opens it, unlike an engine as installed.
        is_ours = (case.variant or "").startswith("ours") or case.engine in {TENSORRT, TENSORRT_RTX}
        if not is_ours or not case.passed or case.whole is None:
            continue
        rivals = (other for other in result.cases if other.what == case.what and _is_rival(other))
        times: dict[str, float] = {}
        for rival in rivals:
            times.setdefault(rival.engine, case.whole.p50 / _p50(rival))
        if times:
            ordered = {name: times[name] for name in RIVALS if name in times}
            found.append(Standing(case, ordered))
    return tuple(sorted(found, key=lambda standing: -standing.worst))


def _is_rival(case: Case) -> bool:
    """Whether it is an engine as installed: nothing set, all outputs."""
    # OpenVINO by itself takes bf16 where the processor is fastest in it.
    is_plain = case.precision == "fp32" or case.engine == OPENVINO
    is_measured = case.whole is not None
    return case.engine in RIVALS and is_plain and case.variant is None and is_measured


def _floor_of(case: Case, cases: Sequence[Case]) -> tuple[str, float | None]:
    """Return what a time cannot be below, and its milliseconds where this run measured them."""
    if case.group in {"encoder", "decoder"}:
        return "roofline", case.roofline.least_ms if case.roofline else None
    if case.group == "path":
        return "encoder alone", case.stages["encode"].p50 if "encode" in case.stages else None
    if case.group == "stream":
        return "parts alone", _parts_ms(case, cases)
    if case.group == "start-up":
        imports = [one.whole.p50 for one in cases if one.engine == STREAM_MODULE and one.whole]
        return "imports", min(imports, default=None)
    return "", None


def _parts_ms(stream: Case, cases: Sequence[Case]) -> float | None:
    """Return the sum of decoding and encoding alone, in loops as slow as the camera."""
    of_engine = stream.engine, stream.precision
    parts = [
        case
        for case in cases
        if case.group == "stream"
        and case.whole
        and (
            (case.variant, case.source) == (f"{DECODE_ALONE}, {PACED}", stream.source)
            or (case.variant, case.engine, case.precision)
            == (f"{ENCODE_ALONE}, {PACED}", *of_engine)
        )
    ]
    return sum(map(_p50, parts)) if len(parts) == 2 else None


def _p50(case: Case) -> float:
    return case.whole.p50 if case.whole else float("inf")
