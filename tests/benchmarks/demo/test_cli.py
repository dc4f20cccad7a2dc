from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from motorvae.benchmarks.demo.cli import VIDEO_FPS, VIDEO_SEED, VIDEO_SIZE, main, video_of_vehicles
from motorvae.benchmarks.demo.report import draw_report, rows_of
from motorvae.runtime.cli import stream_main
from motorvae.runtime.core.errors import DataError
from motorvae.runtime.core.frame import Frame
from motorvae.runtime.pixels.convert import luma_from_image
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.synthetic.vehicles import MovingVehicles


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "vehicles.mp4"
    video_of_vehicles(path, seconds=1.0)
    return path


def test_video_decodes_to_the_moving_world(video: Path) -> None:
    vehicles = MovingVehicles(VIDEO_SEED, VIDEO_SIZE)
    with open_source(str(video)) as source:
        for index in range(VIDEO_FPS):
            frame = source.read()
            assert isinstance(frame, Frame)
            expected = vehicles.image(index / VIDEO_FPS).astype(np.int16)
            difference = np.abs(luma_from_image(frame.image) - expected)
            assert difference.mean() < 1
        assert source.read() is None


def test_report_is_drawn_from_the_rows_of_a_real_stream(
    video: Path, small_bundle: Path, tmp_path: Path
) -> None:
    rows = tmp_path / "latents.jsonl"
    model = str(small_bundle)
    assert stream_main(["--camera", str(video), "--model", model, "--output", str(rows)]) == 0
    assert len(rows_of(rows)) == VIDEO_FPS + 1
    picture = tmp_path / "report.png"
    draw_report(picture, bundle=small_bundle, video=video, rows=rows)
    drawn = cv2.imread(str(picture))
    assert drawn is not None
    assert drawn.shape[1] > 1000
    assert drawn.std() > 10


def test_rows_without_a_latent_make_no_report(small_bundle: Path, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"status": "end", "mu": null}\n')
    picture = tmp_path / "report.png"
    with pytest.raises(DataError, match="holds no latent"):
        draw_report(picture, bundle=small_bundle, video=rows, rows=rows)
    assert not picture.exists()


def test_folder_of_somebody_else_is_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("years")
    assert main(["--output", str(tmp_path)]) == 1
    assert "is not the folder of a demo: name another --output" in capfd.readouterr().err
    assert (tmp_path / "run" / "thesis.tex").read_text() == "years"


@pytest.mark.slow
def test_a_model_that_learned_too_little_is_no_success(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--output", str(tmp_path / "demo"), "--steps", "2", "--from-scratch"]) == 1
    printed = capfd.readouterr().err
    assert "warning: this model has learned too little" in printed
    assert "has learned too little, no bundle was written" in printed
    assert "demo: motorvae-export ended with exit code 1; see above" in printed
    assert "The demo wrote" not in printed
    assert not (tmp_path / "demo" / "report.png").exists()


STEP = """
import signal, sys
from pathlib import Path
from motorvae.benchmarks.demo import cli as demo
from motorvae.runtime.core.command import Command, stderr_console

# A test in the background may have been started with these ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
demo.sys.executable = str(Path(sys.argv[1]) / "python")
def body(*_):
    demo._step(stderr_console(), "step")
sys.exit(Command(demo.DemoOptions, body, "", prog="motorvae demo")([]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_demo_alone_ends_its_step_at_once(
    tmp_path: Path, number: signal.Signals
) -> None:
    step = tmp_path / "step"
    step.write_text("#!/bin/sh\necho $$\nexec sleep 1000\n", encoding="utf-8")
    step.chmod(0o755)
    command = [sys.executable, "-c", STEP, str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.splitlines() == ["", "$ step", "motorvae demo: interrupted"]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("args", "said"),
    [(["--steps", "1"], "steps=1: take at least 2"), (["--minutes", "0"], "minutes=0.0")],
)
def test_budgets_out_of_range_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], args: list[str], said: str
) -> None:
    assert main(["--output", str(tmp_path / "demo"), *args]) == 1
    assert said in capfd.readouterr().err
    assert not (tmp_path / "demo").exists()
