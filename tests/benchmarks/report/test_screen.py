from __future__ import annotations

import io
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from rich.console import Console

from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.report.plots import save_picture
from motorvae.benchmarks.report.screen import print_result
from motorvae.benchmarks.report.tables import figure_of


def printed(result: Result, width: int = 80) -> str:
    stream = io.StringIO()
    print_result(Console(file=stream, width=width), result)
    return stream.getvalue()


def test_only_measured_cases_have_figures(result: Result) -> None:
    text = printed(result)
    lines = [line for line in text.splitlines() if "torch.compile" in line]
    assert lines == ["encoder, batch 1, torch.compile: not measured: no compiler"]
    assert re.search(r"batch 1\s+torch eager\s+5\.25", text)
    assert re.search(r"bgr 640x480 frame\s+ONNX Runtime\s+total\s+6\.50", text)
    assert re.search(r"batch 64\s+torch eager\s+640 .*\s100\s*$", text, re.MULTILINE)


def test_an_unstable_case_is_marked_and_explained(result: Result) -> None:
    text = printed(result)
    assert "ONNX Runtime *" in text
    assert "torch eager *" not in text
    assert "encoder, batch 1, ONNX Runtime: run: the middle half spans 100% of the" in text
    assert "* unstable: the middle half of the samples spans more than 10%" in text


def test_weights_and_quickness_are_in_the_title(result: Result) -> None:
    assert "random weights abababab" in printed(result)
    assert "QUICK" not in printed(result)
    settings = result.settings.model_copy(update={"quick": True, "untrained": False})
    text = printed(result.model_copy(update={"settings": settings}), width=120)
    assert "trained weights abababab, QUICK: too few samples to quote" in " ".join(text.split())


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_narrow_terminal_loses_no_digits(result: Result, width: int) -> None:
    assert "…" not in printed(result, width)


def test_figures_keep_the_digits_that_mean_something() -> None:
    assert [figure_of(v) for v in (0.0521, 4.146, 42.567, 352.4)] == [
        "0.052",
        "4.15",
        "42.57",
        "352",
    ]


def test_the_picture_shows_every_kind_of_case(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "bench.png"
    save_picture(path, result)
    image = cv2.imread(str(path))
    assert image is not None
    assert min(image.shape[:2]) > 500
    colours = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
    assert (0x00, 0x5E, 0xD5) in colours  # the roofline, in BGR
    ink = np.argwhere(image.min(axis=2) < 200)
    margin = 5
    assert ink.min() >= margin
    assert (ink.max(axis=0) < np.array(image.shape[:2]) - margin).all()  # nothing is cut off
