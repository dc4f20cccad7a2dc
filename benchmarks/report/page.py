"""motorvae-bench report: a result as one HTML page that asks nothing of the network."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import jinja2
import matplotlib as mpl
from matplotlib.figure import Figure

from ...runtime.core.atomic_files import replaced_file
from ...runtime.core.errors import MeasurementError, writing_output
from ..measure.case import RIVALS
from ..measure.result import Result
from .energy import conditions_table, energy_absent, energy_table, sensors_table
from .loadgen import loadgen_notes, loadgen_table
from .plots import group_figures, pareto_of, roofline_figure, save_picture
from .tables import (
    GROUPS,
    LOSS,
    caption_of,
    digits_of,
    doubts_of,
    group_table,
    leaders_of,
    machine_line,
    rates_line,
    standings_of,
)

_TEMPLATE = Path(__file__).with_name("page.html.j2")


def save_report(page: Path, picture: Path, result: Result) -> None:
    """Write the HTML page, and the PNG picture of the fastest, each whole or not at all.

    A MeasurementError where the result has no measured case.
    """
    if not result.cases:
        raise MeasurementError("this result has no measured case to draw: run motorvae-bench again")
    templates = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    figures = {
        "Latency against error of the encoder": pareto_of(result, "encoder"),
        "Latency against error of the decoder": pareto_of(result, "decoder"),
        "Roofline": roofline_figure(result),
    }
    star = (
        "* unstable: the middle half of the samples spans more than "
        f"{result.settings.spread_limit:.0%} of the median, or the last third differs from "
        f"the first by more than {result.settings.drift_limit:.0%}"
    )
    doubts = list(doubts_of(result))
    text = templates.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        result=result,
        caption=caption_of(result),
        machine=machine_line(result),
        rates=rates_line(result),
        leaders=[
            (
                leader.case.what,
                leader.case.how,
                leader.words,
                f"{digits_of(leader.case.whole.p50)} {leader.case.whole.shown_in}",
            )
            for leader in leaders_of(result)
            if leader.case.whole
        ],
        figures={name: figure and _svg(figure) for name, figure in figures.items()},
        rivals=RIVALS,
        standings=standings_of(result),
        loss=LOSS,
        digits=digits_of,
        groups=[
            {
                "heading": f"{'GPU' if group == 'gpu' else group.capitalize()}: every sample",
                "svgs": [_svg(figure) for figure in group_figures(result, group)],
                "table": group_table(result, group),
            }
            for group in GROUPS
        ],
        absent=[f"{case.key}: {case.not_measured}" for case in result.cases if case.not_measured],
        warnings=[star, *doubts] if doubts else ["none"],
        energy=[table for table in (sensors_table(result), energy_table(result)) if table],
        energy_absent=energy_absent(result),
        conditions=conditions_table(result),
        loadgen=loadgen_table(result),
        loadgen_notes=loadgen_notes(result),
        facts=_facts(result),
    )
    with writing_output(page):
        page.parent.mkdir(parents=True, exist_ok=True)
    with replaced_file(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    save_picture(picture, result)


def _facts(result: Result) -> dict[str, object]:
    environment = result.environment.model_dump(exclude_none=True)
    settings = result.settings.model_dump(exclude={"training_schedule"})
    of_parts: dict[str, dict[str, object]] = {
        "threads of ": environment.pop("threads"),
        "version of ": environment.pop("versions"),
        "model ": result.model.model_dump(),
        "schedule ": settings.pop("schedule"),
    }
    parts = {title + name: fact for title, part in of_parts.items() for name, fact in part.items()}
    return environment | settings | parts


def _svg(figure: Figure) -> str:
    """Return a figure as SVG in base64: an image of its own, so that no two share names."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "motorVAE"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")
