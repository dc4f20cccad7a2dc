"""A run's epochs in their order, and several runs by their best epochs."""

from __future__ import annotations

import csv
import io
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.cells import cell_len

from motorvae.runtime.core.errors import CheckpointError
from motorvae.training.explore.cli import explored
from motorvae.training.explore.options import HistoryOptions
from motorvae.training.explore.verbs.runs import history_of_run

from ...runs import kept_in


def test_one_run_is_shown_epoch_by_epoch(finished_run: Path, tmp_path: Path) -> None:
    result = explored("history", HistoryOptions(runs=(finished_run,), output=tmp_path))
    (row,) = result.numbers["runs"]
    assert (row["epochs"], row["finished"]) == (4, True)
    assert row["best"]["best_epoch"] == kept_in(finished_run).best.epoch
    assert len(result.arrays["0_held_out_kl"]) == 4
    with Image.open(io.BytesIO(result.pictures["history.gif"])) as gif:
        assert gif.n_frames == 3  # type: ignore[attr-defined]  # epochs 1, 2 and 4
    # The originals are on the sheet once, and each epoch's reconstructions after them.
    sheet = np.asarray(Image.open(tmp_path / "history.png").convert("L"))
    with Image.open(finished_run / "reconstructions" / "epoch-004.png") as last:
        strip = np.asarray(last.convert("L"))
    half = len(strip) // 2
    places = []
    for part in (strip[:half], strip[half:]):
        rows = [
            top
            for top in range(len(sheet) - half + 1)
            if any(
                (sheet[top : top + half, left : left + part.shape[1]] == part).all()
                for left in range(sheet.shape[1] - part.shape[1] + 1)
                if (sheet[top, left : left + 40] == part[0, :40]).all()
            )
        ]
        places.append(rows)
    (original,), (reconstruction,) = places
    assert original < reconstruction


def test_epochs_follow_by_number_also_past_999(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "long"
    shutil.copytree(finished_run, run)
    picture = run / "reconstructions" / "epoch-004.png"
    shutil.copy(picture, run / "reconstructions" / "epoch-1000.png")
    shutil.copy(picture, run / "reconstructions" / "epoch-200.png")
    assert [epoch for epoch, _ in history_of_run(run).pictures] == [1, 2, 4, 200, 1000]


def test_a_run_that_is_still_training_has_a_history(finished_run: Path, tmp_path: Path) -> None:
    run = tmp_path / "going"
    shutil.copytree(finished_run, run)
    for name in ("model.safetensors", "weights.json"):
        (run / name).unlink()
    result = explored("history", HistoryOptions(runs=(run,), output=tmp_path / "explore"))
    assert "not finished" in result.lines[0]
    with (run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["stage"] == "2"]
    best = min(rows, key=lambda row: float(row["held_out_total"]))
    assert result.numbers["runs"][0]["best"]["best_epoch"] == int(best["epoch"])
    # By what is minimised, where that is not the total: as training itself chooses.
    rows = [dict(row) for row in csv.DictReader((run / "metrics.csv").read_text().splitlines())]
    (other,) = (row for row in rows if row["stage"] == "2" and row["epoch"] != best["epoch"])
    other["held_out_loss"] = "0.5"
    text = "\n".join(",".join(row.values()) for row in [{name: name for name in rows[0]}, *rows])
    (run / "metrics.csv").write_text(text)
    assert history_of_run(run).best["epoch"] == int(other["epoch"])


def test_several_runs_are_compared_in_one_table(
    finished_run: Path, colour_run: Path, tmp_path: Path
) -> None:
    same = tmp_path / "elsewhere" / "whole"
    shutil.copytree(finished_run, same)
    runs = (finished_run, colour_run, same)
    result = explored("history", HistoryOptions(runs=runs, output=tmp_path / "explore"))
    head, *lines = result.lines
    assert head.split() == ["run", "best", "steps", "s", "reconstr.", "KL", "total", "active"]
    assert len(lines) == 3
    assert max(map(len, result.lines)) <= 80
    names = [row["name"] for row in result.numbers["runs"]]
    assert len({*names}) == 3
    assert names[2] == "elsewhere/whole"
    assert lines[1].split()[1] == f"{result.numbers['runs'][1]['best']['best_epoch']:.0f}/2"
    with Image.open(tmp_path / "explore" / "history.png") as chart:
        assert min(chart.size) > 500
    assert {path.name for path in result.files} == {"history.png", "history.json", "history.npz"}


@pytest.mark.parametrize("figures", ["nan,nan", "inf,0", "-1,-2", "1144,0.04"])
def test_runs_of_any_name_and_figures_are_compared_without_a_warning(
    figures: str, tmp_path: Path
) -> None:
    runs = []
    for name in ("_x", r"$\frac$", "汉字", "h\udcff", "x" * 90):
        runs.append(tmp_path / name)
        runs[-1].mkdir()
        (runs[-1] / "metrics.csv").write_text(
            "epoch,stage,steps,elapsed_s,active_units,held_out_total,train_total,"
            f"held_out_reconstruction,held_out_kl\n1,1,15,9,0,1,1,{figures}\n"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        options = HistoryOptions(runs=tuple(runs), output=tmp_path / "explore")
        result = explored("history", options)
    assert {*map(cell_len, result.lines)} == {80}
    assert [line.split()[0] for line in result.lines[1:5]] == ["_x", r"$\frac$", "汉字", r"h\udcff"]
    assert result.lines[5].startswith("..x")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"has no metrics\.csv"),
        ("", "has no epoch"),
        ("epoch,stage\n1,1\n", "has no column steps"),
        ("epoch,stage\n1,x\n", "is no table of numbers"),
        ("epoch,stage\n1\n", "is no table of numbers"),
        ("\0\xff", "is no table of numbers|has no epoch"),
    ],
)
def test_metrics_that_are_none_are_one_line(content: str | None, text: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "metrics.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=text):
        history_of_run(tmp_path)
    with pytest.raises(CheckpointError, match="no training run at"):
        history_of_run(tmp_path / "nowhere")
