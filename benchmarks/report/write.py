"""motorvae-bench report: a result as one page, and all of its figures as one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave

from ...runtime.core.atomic_files import replaced_file
from ..measure.result import Result
from .figures import pareto_of, roofline_figure
from .html import facts_table, image_of, list_of, page_of, rivals_table, table_of
from .plots import figure_of_group, figure_of_head
from .rivals import standings_of
from .tables import GROUPS, doubts_of, restless_line, sheet_of, sheet_of_goals

_ROOFLINE = "roofline"


def save_report(page: Path, picture: Path, result: Result) -> None:
    """Write the page and its picture, each whole or not at all.

    Args:
        page: Where the HTML goes.
        picture: Where the PNG goes.
        result: What to show.

    Raises:
        OutputError: One of them cannot be written.
    """
    figures = dict(_figures(result))
    with replaced_file(page) as temporary:
        temporary.write_text(page_of(result, _sections(result, figures)), encoding="utf-8")
    drawn = [figure_of_head(result), *(figure for figure in figures.values() if figure)]
    with replaced_file(picture) as temporary:
        imsave(temporary, _stacked([_pixels(figure) for figure in drawn]), format="png")


def _figures(result: Result) -> Iterator[tuple[str, Figure | None]]:
    """Return every figure with what it shows, in the order of the page."""
    yield "latency against error of the encoder", pareto_of(result, "encoder")
    yield "latency against error of the decoder", pareto_of(result, "decoder")
    yield _ROOFLINE, roofline_figure(result)
    for group in GROUPS:
        yield f"{group}: every sample", figure_of_group(result, group)


def _sections(result: Result, figures: Mapping[str, Figure | None]) -> dict[str, str]:
    """Return the HTML of each section by its heading; empty where there is nothing to show."""
    goals = sheet_of_goals(result)
    sections = {"Goals": table_of(goals) if goals else ""}
    for what, figure in figures.items():
        sections[_heading(what)] = image_of(_svg(figure), what) if figure else ""
        if what == _ROOFLINE:
            sections["Gains and losses"] = rivals_table(standings_of(result))
    for group in GROUPS:
        if sheet := sheet_of(result, group):
            sections[_heading(f"{group}: every sample")] += table_of(sheet)
    doubts = list(doubts_of(result))
    sections |= {
        "Not measured": list_of(
            f"{case.key}: {case.not_measured}" for case in result.cases if case.not_measured
        ),
        "Warnings": list_of([restless_line(result), *doubts] if doubts else ["none"]),
        "Machine and settings": facts_table(_facts(result)),
    }
    return sections


def _heading(what: str) -> str:
    return "GPU: every sample" if what.startswith("gpu") else what[0].upper() + what[1:]


def _facts(result: Result) -> dict[str, object]:
    environment = result.environment.model_dump(exclude={"versions", "threads"})
    settings = result.settings.model_dump(exclude={"schedule", "training_schedule"})
    return {
        **{name: value for name, value in environment.items() if value is not None},
        **{f"threads of {name}": count for name, count in result.environment.threads.items()},
        **{f"version of {name}": found for name, found in result.environment.versions.items()},
        **{f"model {name}": value for name, value in result.model.model_dump().items()},
        **settings,
        **{f"schedule {name}": n for name, n in result.settings.schedule.model_dump().items()},
    }


def _svg(figure: Figure) -> str:
    """Return a figure as SVG in base64: an image of its own, so that no two share names."""
    stream = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "motorVAE"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _pixels(figure: Figure) -> npt.NDArray[np.uint8]:
    """Return (H, W, 4) RGBA."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    return np.asarray(canvas.buffer_rgba(), np.uint8)  # type: ignore[no-untyped-call]


def _stacked(images: list[npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
    """Put images below each other on white."""
    width = max(image.shape[1] for image in images)
    stacked = np.full((sum(len(image) for image in images), width, 4), 255, np.uint8)
    top = 0
    for image in images:
        stacked[top : top + len(image), : image.shape[1]] = image
        top += len(image)
    return stacked
