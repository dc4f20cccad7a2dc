from __future__ import annotations

import io
import itertools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console

from motorvae.benchmarks.measure.case import STREAM_MODULE, Case, busy_warning, samples_of
from motorvae.benchmarks.measure.result import Result
from motorvae.benchmarks.report.plots import group_figures, save_picture
from motorvae.benchmarks.report.tables import digits_of, group_table, print_verdict
from motorvae.runtime.bundle.manifest import Metric


def printed(result: Result, width: int = 80) -> str:
    stream = io.StringIO()
    print_verdict(Console(file=stream, width=width), result)
    return stream.getvalue()


def test_the_fastest_of_each_kind_has_its_share_of_a_floor(result: Result) -> None:
    text = printed(result, 90)  # at 80 columns the last one folds
    assert re.search(r"encoder +torch eager fp32 +5\.25 ms +5\.30 +5\.30 +\d+% of roofline", text)
    assert re.search(
        r"path, bgr 640x480 +ONNX Runtime fp32 +6\.50 ms .* 81% of encoder alone", text
    )
    assert re.search(
        r"training, batch 64 +torch eager fp32 +640 ms +\d+ +646 *$", text, re.MULTILINE
    )
    assert "4 cases measured, 1 not; 1 unstable; 0 slower than an engine as installed" in text
    assert "torch.compile" not in text


def crowded(result: Result) -> Result:
    """As much as any run has to say: every kind, losses, drift, a busy machine."""
    lost = {"variant": "ours, phases", "stages": {"run": samples_of([9 * 10**6] * 6)}}
    far = Metric(name="largest error / spread", value=0.9, limit=0.5, passed=False)
    slow = result.cases[0].model_copy(update={"engine": "ONNX Runtime", **lost})
    installed = slow.model_copy(
        update={"variant": None, "stages": {"run": samples_of([8 * 10**6] * 6)}}
    )
    drifted = slow.model_copy(update={"engine": "OpenVINO", "latent_error": far})
    kinds = [
        Case.model_validate({"engine": "ONNX Runtime", "precision": "int8", **facts})
        for facts in (
            {"group": "decoder"},
            *({"group": "path", "source": s, "frame": (1920, 1080)} for s in ("mjpeg", "yuv")),
            *({"group": g, "source": "mjpeg", "frame": (1280, 720)} for g in ("stream", "memory")),
            *({"group": g, "frame": (512, 512)} for g in ("stream", "memory")),
            {"group": "start-up"},
            {"group": "import", "engine": "motorvae"},
            {"group": "import", "engine": STREAM_MODULE},
            *(
                {"group": "gpu", "engine": "TensorRT-RTX", "variant": v}
                for v in ("encoder", "decoder")
            ),
        )
        for facts in ({**facts, "stages": {"run": samples_of([5 * 10**6] * 6)}},)
    ]
    cases = (*result.cases, slow, installed, drifted, *kinds)
    busy = busy_warning(1.23)
    environment = result.environment.model_copy(
        update={"cpu": "Intel(R) Xeon(R) Processor @ 2.10GHz", "gpu": "NVIDIA GeForce RTX 4090"}
    )
    return result.model_copy(
        update={"cases": cases, "warnings": (busy or "",), "environment": environment}
    )


def test_an_import_is_named_by_whose_it_is(result: Result) -> None:
    """632 ms for `import motorvae` were those of all that motorvae-stream loads."""
    cases = tuple(
        Case(group="import", engine=module, stages={"import": samples_of([ns] * 5)})
        for module, ns in (("motorvae", 3 * 10**5), (STREAM_MODULE, 632 * 10**6))
    )
    text = printed(result.model_copy(update={"cases": cases}))
    assert re.search(r"^ *import +Python API +0\.300 ms", text, re.MULTILINE)
    assert re.search(r"^ *import +motorvae-stream +632 ms", text, re.MULTILINE)


@pytest.mark.parametrize("quick", [False, True])
def test_the_verdict_of_a_full_run_fits_forty_lines_of_80_columns(
    result: Result, quick: bool
) -> None:
    settings = result.settings.model_copy(update={"quick": quick})
    text = printed(crowded(result).model_copy(update={"settings": settings}))
    assert text.count("\n") <= 38  # and two that say where the rest is
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "the slowest of them by 1.71: encoder, batch 1, ONNX Runtime, ours, phases" in flat
    assert "past the limit of the drift gate: 1, such as encoder, batch 1, OpenVINO" in flat
    assert "the machine was busy at the start" in flat


def test_weights_and_quickness_are_in_the_first_line(result: Result) -> None:
    assert "random weights abababab" in printed(result)
    assert "QUICK" not in printed(result)
    settings = result.settings.model_copy(update={"quick": True, "untrained": False})
    text = printed(result.model_copy(update={"settings": settings}), width=120)
    assert "trained weights abababab, QUICK: too few samples to quote" in " ".join(text.split())


@pytest.mark.parametrize("width", [60, 80])
def test_a_narrow_terminal_loses_no_digits(result: Result, width: int) -> None:
    assert "…" not in printed(result, width)


def test_figures_keep_the_digits_that_mean_something() -> None:
    assert [digits_of(v) for v in (0.0521, 4.146, 42.567, 352.4)] == [
        "0.052",
        "4.15",
        "42.57",
        "352",
    ]


def test_the_picture_fits_a_screen_and_cuts_no_label(result: Result, tmp_path: Path) -> None:
    for name, shown in (("few", result), ("many", crowded(result))):
        path = tmp_path / f"{name}.png"
        save_picture(path, shown)
        image = cv2.imread(str(path))
        assert image is not None
        height, width = image.shape[:2]
        assert 300 < height <= 1080
        assert 500 < width <= 1920
        colours = {tuple(pixel) for pixel in image.reshape(-1, 3).tolist()}
        assert (0x00, 0x5E, 0xD5) in colours  # the roofline, in BGR
        ink = np.argwhere(image.min(axis=2) < 200)
        margin = 5
        assert ink.min() >= margin
        assert (ink.max(axis=0) < np.array(image.shape[:2]) - margin).all()  # nothing is cut off


def test_a_group_of_many_cases_is_several_figures_of_which_each_fits(result: Result) -> None:
    long = "ours, phases, with every option that an engine has and that somebody may think of"
    cases = tuple(result.cases[0].model_copy(update={"variant": f"{long}, {n}"}) for n in range(45))
    figures = list(group_figures(result.model_copy(update={"cases": cases}), "encoder"))
    assert len(figures) > 1
    for figure in figures:
        FigureCanvasAgg(figure).draw()
        width, height = figure.get_size_inches() * figure.dpi
        assert width <= 1920
        assert height <= 1080
        (axes,) = figure.axes
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert min(box.x0 for box in boxes) >= 0
        assert all(not one.overlaps(two) for one, two in itertools.pairwise(boxes))
        assert axes.get_window_extent().width > 300


def test_equal_samples_are_drawn_without_a_warning(result: Result) -> None:
    case = Case(group="import", engine="motorvae", stages={"import": samples_of([10**9] * 3)})
    (figure,) = group_figures(result.model_copy(update={"cases": (case,)}), "import")
    FigureCanvasAgg(figure).draw()
    low, high = figure.axes[0].get_xlim()
    assert low < 1000 < high


def test_each_percentile_stands_under_its_own_name(result: Result) -> None:
    """Of 1 to 1000 ms each percentile is another number, wherever it is shown."""
    case = result.cases[0].model_copy(
        update={"stages": {"run": samples_of([n * 10**6 for n in range(1, 1001)])}}
    )
    shown = result.model_copy(update={"cases": (case,)})
    table = group_table(shown, "encoder")
    assert table is not None
    row = dict(zip((*table.texts, *table.figures), table.rows[0], strict=True))
    percentiles = ("p50", "p90", "p95", "p99", "max")
    assert [row[name] for name in percentiles] == ["500", "900", "950", "990", "1000"]
    assert re.search(r"500 ms +900 +990 ", printed(shown))
    (figure,) = group_figures(shown, "encoder")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    headings, values = texts[: len(texts) // 2], texts[len(texts) // 2 :]
    assert dict(zip(headings, values, strict=True)).items() >= {
        ("p50", "500"),
        ("p90", "900"),
        ("p99", "990"),
        ("max", "1000"),
    }
