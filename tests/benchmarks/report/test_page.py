from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from motorvae.benchmarks.measure.case import Case, samples_of
from motorvae.benchmarks.measure.result import Rate, Result
from motorvae.benchmarks.report.page import save_report
from motorvae.runtime.bundle.manifest import Metric
from motorvae.runtime.core.documents import save_document
from motorvae.runtime.core.errors import MeasurementError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="opening the page needs chromium: apt-get install chromium"
)
WIDTH = 1000
SHAPES = """
document.title = JSON.stringify({
    height: document.documentElement.scrollHeight,
    images: [...document.images].map(image => {
        const box = image.getBoundingClientRect();
        return [image.naturalWidth, box.left, box.top, box.width, box.height];
    }),
    fetched: performance.getEntriesByType("resource").map(entry => entry.name)
        .filter(name => !name.startsWith("data:")),
});
"""
Bench = Callable[..., tuple[int, str]]


@pytest.fixture
def full(result: Result) -> Result:
    """A case of every group, what the gate found of some, and roofs of two precisions."""
    eager, absent, restless, path, training = result.cases
    run = {"run": samples_of([place * 10**5 for place in range(10, 60)])}
    bytes_taken = {"peak": samples_of([n << 20 for n in (170, 180, 190)], "bytes")}
    error = Metric(name="largest error / spread", value=0.2, limit=0.5)
    psnr = Metric(name="PSNR", value=52, unit="dB", limit=45, higher_is_better=True)
    int8: dict[str, Any] = {"engine": "OpenVINO", "precision": "int8"}
    cases = (
        eager,
        absent,
        restless.model_copy(
            update={
                "latent_error": error.model_copy(update={"value": 2e-6, "limit": 1e-3}),
                "variant": "ours",
            }
        ),
        Case(group="encoder", **int8, stages=run, latent_error=error),
        Case(
            group="encoder",
            **int8,
            variant="ours, min-max",
            stages=run,
            latent_error=error.model_copy(update={"value": 0.9, "passed": False}),
        ),
        Case(group="decoder", **int8, stages=run, psnr=psnr),
        path,
        Case(group="start-up", engine="ONNX Runtime", turn=1, stages=run),
        Case(group="memory", engine="ONNX Runtime", turn=1, stages=bytes_taken),
        Case(group="import", engine="ONNX Runtime", turn=1, stages=run),
        Case(group="stream", engine="ONNX Runtime", stages=run),
        Case(group="gpu", engine="TensorRT", stages=run),
        training,
    )
    matrix = {**result.matrix, "int8": Rate(work=2 * 10**9, series=samples_of([2 * 10**6] * 3))}
    return result.model_copy(update={"cases": cases, "matrix": matrix})


def written(result: Result, folder: Path) -> tuple[Path, str]:
    page = folder / "report.html"
    save_report(page, folder / "report.png", result)
    return page, page.read_text(encoding="utf-8")


def section(text: str, heading: str) -> str:
    found = re.search(rf"<h2>{re.escape(heading)}</h2>(.*?)</section>", text, re.DOTALL)
    assert found, f"no section {heading}"
    return found[1]


def browse(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            str(CHROMIUM),
            *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *("--enable-logging=stderr", "--virtual-time-budget=5000"),
            *(f"--user-data-dir={profile}", *flags, page.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


def shapes_of(page: Path, folder: Path) -> dict[str, Any]:
    """Ask a copy of the page, which may run this one script, for its height and images."""
    probe = folder / "probe.html"
    text = page.read_text(encoding="utf-8")
    allowed = text.replace("default-src 'none';", "default-src 'none'; script-src 'unsafe-inline';")
    assert allowed != text
    script = f'<script>addEventListener("load", () => {{ {SHAPES} }})</script></body>'
    probe.write_text(allowed.replace("</body>", script), encoding="utf-8")
    dom = browse(probe, folder / "profile", f"--window-size={WIDTH},800", "--dump-dom").stdout
    title = re.search(r"<title>(\{.*?\})</title>", dom, re.DOTALL)
    assert title, dom[:500]
    found: dict[str, Any] = json.loads(title[1])
    return found


@needs_chromium
def test_a_browser_shows_every_figure_and_asks_for_nothing(full: Result, tmp_path: Path) -> None:
    page, _ = written(full, tmp_path)
    shapes = shapes_of(page, tmp_path)
    assert shapes["fetched"] == []
    assert len(shapes["images"]) == 3 + 9  # two of the gate, the roofline, and every group

    picture = tmp_path / "screen.png"
    size = f"--window-size={WIDTH},{shapes['height']}"
    shown = browse(page, tmp_path / "profile", size, f"--screenshot={picture}")
    assert "CONSOLE" not in shown.stderr, shown.stderr
    screen = cv2.imread(str(picture))
    assert screen is not None
    assert screen.shape[1] == WIDTH
    for natural, left, top, width, height in shapes["images"]:
        assert min(natural, width, height) > 50
        assert left + width <= WIDTH  # nothing to scroll sideways on a wide screen
        assert ink_of(screen[round(top) : round(top + height)]) > 0.005
    assert 0.01 < ink_of(screen) < 0.5
    colours = set(map(tuple, screen.reshape(-1, 3).tolist()))
    assert (0x00, 0x5E, 0xD5) in colours  # the roofline, in BGR


@needs_chromium
def test_the_browser_would_have_told(full: Result, tmp_path: Path) -> None:
    page, text = written(full, tmp_path)
    planted = '<img src="http://127.0.0.1:9/pixel.png"></body>'
    page.write_text(text.replace("</body>", planted), encoding="utf-8")
    shown = browse(page, tmp_path / "profile", f"--screenshot={tmp_path / 'screen.png'}")
    assert re.search(r"CONSOLE.*pixel\.png.*violates", shown.stderr)


def ink_of(image: npt.NDArray[np.uint8] | cv2.typing.MatLike) -> float:
    """Share of pixels that are not almost white."""
    return float((np.asarray(image).min(axis=2) < 230).mean())


def test_the_page_holds_all_that_it_shows(full: Result, tmp_path: Path) -> None:
    _, text = written(full, tmp_path)
    assert set(re.findall(r'(?:src|href)="(\w+:)', text)) == {"data:"}
    assert "<script" not in text
    for encoded in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text):
        figure = base64.b64decode(encoded).decode("utf-8")
        links = re.findall(r'href="([^"]{1,6})', figure)
        assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert full.command in text


def test_the_same_result_gives_the_same_page(full: Result, tmp_path: Path) -> None:
    assert written(full, tmp_path / "one")[1] == written(full, tmp_path / "other")[1]


def test_figures_are_those_of_the_result(full: Result, tmp_path: Path) -> None:
    _, text = written(full, tmp_path)
    path = section(text, "Path: every sample")
    assert re.search(r"640x480.*ONNX Runtime.*total.*>6\.50<", path, re.DOTALL)
    memory = section(text, "Memory: every sample")
    assert re.search(r"memory: MiB, 3 samples.*>180<.*>190<", memory, re.DOTALL)
    fastest = section(text, "Fastest of each kind")
    assert re.search(r"encoder, batch 1<.*OpenVINO, int8<.*no roofline<.*>3.45 ms<", fastest)
    assert "<td>start-up</td>" in fastest
    gains = section(text, "Gains and losses")
    assert '<td class="figure loss">4.19</td>' in gains  # 22 ms against 5.25
    assert "min-max" not in gains
    assert "torch.compile: no compiler" in section(text, "Not measured")
    warnings = section(text, "Warnings")
    assert "encoder, batch 1, ONNX Runtime, ours: run: the middle half spans 100%" in warnings
    facts = section(text, "Machine and settings")
    assert re.search(r"version of torch</td><td>2\.13\.0<", facts)


def test_a_section_without_cases_is_one_line(result: Result, tmp_path: Path) -> None:
    only = result.model_copy(update={"cases": result.cases[:1]})
    _, text = written(only, tmp_path)
    for heading in ("Latency against error of the encoder", "GPU: every sample", "Not measured"):
        assert section(text, heading).strip() == (
            '<p class="absent">Nothing of this was measured in this run.</p>'
        )
    assert "<img" in section(text, "Encoder: every sample")


def test_names_are_text_and_not_html(result: Result, tmp_path: Path) -> None:
    odd = result.cases[0].model_copy(update={"engine": "<b>&co"})
    _, text = written(result.model_copy(update={"cases": (odd,), "command": "a < b"}), tmp_path)
    assert "&lt;b&gt;&amp;co" in text
    assert "a &lt; b" in text
    assert "<b>" not in text


def test_a_time_below_the_roofline_is_no_gain(full: Result, tmp_path: Path) -> None:
    fast = full.cases[0].roofline
    assert fast is not None
    case = full.cases[2].model_copy(
        update={"stages": full.cases[0].stages, "roofline": fast.model_copy(update={"times": 0.4})}
    )
    shown = full.model_copy(update={"cases": (*full.cases[:2], case)})
    _, text = written(shown, tmp_path)
    assert "ours (not valid: faster than its roofline)</td>" in section(text, "Gains and losses")


def test_the_command_writes_the_page_and_its_picture(
    bench: Bench, full: Result, tmp_path: Path
) -> None:
    save_document(tmp_path / "bench.json", full)
    output = tmp_path / "page.html"
    code, said = bench("report", tmp_path / "bench.json", "--output", output)
    assert code == 0, said
    assert said == f"page in {output}, picture in {tmp_path / 'page.png'}\n"
    assert {file.name for file in tmp_path.iterdir()} == {"bench.json", "page.html", "page.png"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("none.json",), "cannot read none.json"),
        (("none.json", "--output", "page.pdf"), "--output page.pdf: name a file that ends in .htm"),
    ],
)
def test_what_cannot_be_reported_is_one_line(
    bench: Bench,
    args: tuple[object, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said = bench("report", *args)
    assert code == 1
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_result_without_a_case_draws_nothing(result: Result, tmp_path: Path) -> None:
    empty = result.model_copy(update={"cases": ()})
    with pytest.raises(MeasurementError, match="no measured case to draw"):
        save_report(tmp_path / "page.html", tmp_path / "page.png", empty)
    assert not list(tmp_path.iterdir())
