"""A run's images through its epochs, or several runs in one table and one picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError
from rich.cells import cell_len

from ....runtime.core.errors import CheckpointError
from ..animation import animation_of
from ..options import HistoryOptions
from ..results import Result
from ..sheets import Row, png_of, sheet_of
from ..subject import RUN
from .charts import chart_of_runs
from .runs import RunHistory, history_of_run, names_of

_FPS = 1.25
_WIDEST = 1600
_COLUMNS = {
    "epoch": "best_epoch",
    "steps": "steps",
    "elapsed_s": "seconds",
    "held_out_reconstruction": "held_out_reconstruction",
    "held_out_kl": "held_out_kl",
    "held_out_total": "held_out_total",
    "active_units": "active_units",
}

Pixels = npt.NDArray[np.uint8]


def history(options: HistoryOptions, step: Callable[[str], object]) -> Result:
    """Show one run as an animation of its pictures, or compare the metrics of several."""
    step("reading metrics")
    histories = [history_of_run(folder) for folder in options.runs or (RUN,)]
    names = names_of(histories)
    numbers: dict[str, Any] = {
        "runs": [_numbers(name, one) for name, one in zip(names, histories, strict=True)]
    }
    arrays = {
        f"{number}_{column}": np.array([row.get(column, np.nan) for row in one.rows])
        for number, one in enumerate(histories)
        for column in one.rows[0]
    }
    if len(histories) > 1:
        step("drawing")
        pictures = {"history.png": chart_of_runs(names, histories)}
        return Result("history", numbers, arrays, _table(names, histories), pictures)
    (run,) = histories
    best = run.best
    lines = [
        f"{run.name}: {len(run.rows)} epochs, {run.rows[-1]['steps']:.0f} steps, "
        f"{run.rows[-1]['elapsed_s']:.0f} s{'' if run.is_finished else ', not finished'}",
        f"best epoch {best['epoch']:.0f}: held-out reconstruction "
        f"{best['held_out_reconstruction']:.5g}, KL {best['held_out_kl']:.4g}, "
        f"{best['active_units']:.0f} active units",
    ]
    if not run.pictures:
        raise CheckpointError(
            f"{run.folder} left no reconstructions/epoch-*.png: restore them, or name two runs to "
            "compare their metrics"
        )
    step("drawing")
    return Result("history", numbers, arrays, lines, _drawn(run, options))


def _drawn(run: RunHistory, options: HistoryOptions) -> dict[str, bytes]:
    halves = {epoch: _halves_of(path) for epoch, path in run.pictures}
    title = f"{run.name}: the same held-out images through training"
    originals = next(iter(halves.values()))[0]
    rows = [Row([originals], label="original")]
    rows += [Row([below], label=_label(run, epoch)) for epoch, (_, below) in halves.items()]
    frames = [
        sheet_of(
            [Row([above]), Row([below])],
            "rgb",
            title=_label(run, epoch).replace("\n", ", "),
            most_cell=_WIDEST,
        )
        for epoch, (above, below) in halves.items()
    ]
    size = tuple(max(frame.size[axis] for frame in frames) for axis in (0, 1))
    canvases = [Image.new("RGB", (size[0], size[1]), (255, 255, 255)) for _ in frames]
    for canvas, frame in zip(canvases, frames, strict=True):
        canvas.paste(frame, (0, 0))
    # The last stands longer than the others before all begins again.
    canvases += 2 * canvases[-1:]
    return {
        "history.png": png_of(sheet_of(rows, "rgb", title=title)),
        f"history.{options.animation}": animation_of(canvases, options.animation, fps=_FPS),
    }


def _halves_of(path: Path) -> tuple[Pixels, Pixels]:
    """Return originals and reconstructions of a picture that an epoch left, planes of RGB each."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            planes = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    except (
        OSError,
        SyntaxError,
        ValueError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
    ) as error:
        raise CheckpointError(f"cannot read {path}: {error}; remove it") from error
    middle = planes.shape[1] // 2
    return planes[:, :middle], planes[:, middle : 2 * middle]


def _label(run: RunHistory, epoch: int) -> str:
    row = run.row_of(epoch)
    if row is None:
        return f"epoch {epoch}"
    return (
        f"epoch {epoch}\n{row['steps']:.0f} steps, {row['elapsed_s']:.0f} s\n"
        f"held-out {row['held_out_reconstruction']:.5g}\nKL {row['held_out_kl']:.4g}"
    )


def _numbers(name: str, run: RunHistory) -> dict[str, Any]:
    last = run.rows[-1]
    return {
        "name": name,
        "folder": run.folder,
        "finished": run.is_finished,
        "epochs": len(run.rows),
        "steps": last["steps"],
        "seconds": last["elapsed_s"],
        "best": {there: run.best[here] for here, there in _COLUMNS.items()},
        "last": {there: last[here] for here, there in _COLUMNS.items() if here != "epoch"},
    }


def _table(names: Sequence[str], histories: Sequence[RunHistory]) -> list[str]:
    """Return a line a run, of its best epoch, in at most 80 columns."""
    heads = ("best", "steps", "s", "reconstr.", "KL", "total", "active")
    rows = [
        (
            f"{run.best['epoch']:.0f}/{len(run.rows)}",
            f"{run.rows[-1]['steps']:.0f}",
            f"{run.rows[-1]['elapsed_s']:.0f}",
            f"{run.best['held_out_reconstruction']:.5g}",
            f"{run.best['held_out_kl']:.4g}",
            f"{run.best['held_out_total']:.5g}",
            f"{run.best['active_units']:.0f}",
        )
        for run in histories
    ]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    room = max(8, 80 - sum(widths) - 2 * len(widths))
    width = min(room, max(map(cell_len, names)))
    shown = ["run", *(_ending(name, width) for name in names)]
    return [
        name
        + " " * (width - cell_len(name))
        + "".join(f"  {cell.rjust(size)}" for cell, size in zip(row, widths, strict=True))
        for name, row in zip(shown, (heads, *rows), strict=True)
    ]


def _ending(name: str, width: int) -> str:
    """Return a name, or as much of its end as has room in so many columns of a terminal."""
    if cell_len(name) <= width:
        return name
    while cell_len(name) > width - 2:
        name = name[1:]
    return f"..{name}"
