from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from motorvae.runtime.core.errors import ConfigError, MissingDependencyError
from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.sources.opencv import (
    csi_pipeline,
    pipeline_with_sink,
)
from motorvae.runtime.sources.spec import name_of_pipeline

TAIL = "appsink drop=true max-buffers=1 sync=false"
ROOT = Path(__file__).parents[3]
WITH_GSTREAMER = r"GStreamer:\s*YES"
SYSTEM_PYTHON = Path("/usr/bin/python3")
START = """
import json, sys
sys.path[:0] = [sys.argv[1]]    # the project
sys.path += sys.argv[2:]        # behind the system's packages: all that it has not
import cv2
from motorvae.runtime.sources.open import open_source
from motorvae.runtime.core.errors import MotorVAEError
from motorvae.runtime.core.frame import Mode
from motorvae.runtime.core.spec import ModelSpec
from motorvae.runtime.sources.base import CaptureRequest
def say(**facts): print(json.dumps(facts), flush=True)
"""


def test_the_pipeline_of_a_csi_camera_makes_small_grey_frames() -> None:
    pipeline, delivers = csi_pipeline(0, Mode())
    assert pipeline == (
        "nvarguscamerasrc sensor-id=0 ! video/x-raw(memory:NVMM),width=1920,height=1080,"
        "framerate=30/1 ! nvvidconv ! video/x-raw,width=480,height=270,format=GRAY8 ! " + TAIL
    )
    assert delivers == Mode(width=480, height=270, fps=30.0)


@pytest.mark.parametrize(
    ("mode", "small"),
    [
        (Mode(1280, 720, 60), (640, 360)),
        (Mode(3280, 2464, 21), (364, 274)),
        (Mode(640, 480, 30), (640, 480)),
        (Mode(100, 100, 30), (100, 100)),
    ],
)
def test_csi_frames_keep_their_shape_and_enough_pixels(mode: Mode, small: tuple[int, int]) -> None:
    pipeline, delivers = csi_pipeline(3, mode)
    assert (delivers.width, delivers.height) == small
    assert f"sensor-id=3 ! video/x-raw(memory:NVMM),width={mode.width}," in pipeline
    assert f"framerate={mode.fps:g}/1" in pipeline


def test_csi_frames_are_as_large_and_as_colourful_as_the_model_needs() -> None:
    def spec(**sizes: Any) -> ModelSpec:
        return ModelSpec(channels=None, latent_size=4, **sizes)

    for model, small in (
        (spec(image_size=(384, 512)), (960, 540)),
        (spec(image_size=(80, 160)), (160, 90)),
        (spec(image_size=256, crop_box=(0.0, 0.0, 0.5, 1.0)), (640, 360)),
        (spec(image_size=256, crop_box=(5, 20, -25, -20)), (1920, 1080)),
        (spec(image_size=64, interpolation="bilinear"), (1920, 1080)),
    ):
        _, delivers = csi_pipeline(0, Mode(), model)
        assert (delivers.width, delivers.height) == small
    pipeline, _ = csi_pipeline(0, Mode(), spec(color="rgb"))
    assert "height=270,format=BGRx ! videoconvert ! video/x-raw,format=BGR ! " + TAIL in pipeline


def test_a_broken_rate_is_a_fraction() -> None:
    assert "framerate=30000/1001" in csi_pipeline(0, Mode(fps=29.97))[0]


def test_a_csi_camera_has_no_fourcc() -> None:
    with pytest.raises(ConfigError, match="fourcc='MJPG': csi:// delivers grey frames"):
        csi_pipeline(0, Mode(fourcc="MJPG"))


@pytest.mark.parametrize(
    ("pipeline", "complete"),
    [
        ("videotestsrc", f"videotestsrc ! videoconvert ! {TAIL}"),
        (" videotestsrc ! ", f"videotestsrc ! videoconvert ! {TAIL}"),
        ("videotestsrc ! appsink", "videotestsrc ! appsink"),
        ("a !appsink name=x", "a !appsink name=x"),
        ("filesrc location=appsink", f"filesrc location=appsink ! videoconvert ! {TAIL}"),
    ],
)
def test_a_pipeline_ends_in_a_sink_for_the_newest_frame(pipeline: str, complete: str) -> None:
    assert pipeline_with_sink(pipeline) == complete


@pytest.mark.parametrize(
    ("pipeline", "name"),
    [
        ("rtspsrc location=rtsp://u:p@h ! decodebin", "gst:rtspsrc"),
        ("v4l2src", "gst:v4l2src"),
        ("user-pw=secret rtspsrc", "gst"),
        ("'secret' ! x", "gst"),
        ("", "gst"),
    ],
)
def test_a_pipeline_is_named_without_its_settings(pipeline: str, name: str) -> None:
    assert name_of_pipeline(pipeline) == name


@pytest.mark.parametrize("text", ["csi://0", "gst:videotestsrc"])
def test_an_opencv_without_gstreamer_says_how_to_get_one(text: str) -> None:
    import cv2

    if re.search(WITH_GSTREAMER, cv2.getBuildInformation()):
        pytest.skip("this OpenCV has GStreamer")
    with pytest.raises(MissingDependencyError) as caught:
        open_source(text)
    message = str(caught.value)
    assert message.startswith(f"{text[:3]}")
    assert "--system-site-packages" in message
    assert "docs/jetson.md" in message
    assert "\n" not in message


def on_the_systems_opencv(source: str) -> tuple[list[dict[str, Any]], str]:
    """Run Python source with our modules, and with the OpenCV of the system."""
    if not SYSTEM_PYTHON.exists():
        pytest.skip(f"no {SYSTEM_PYTHON}")
    facts = "import sys, cv2; print(sys.version_info[:2], cv2.getBuildInformation())"
    found = subprocess.run(
        [SYSTEM_PYTHON, "-c", facts], capture_output=True, text=True, timeout=120, check=False
    )
    if found.returncode or not re.search(WITH_GSTREAMER, found.stdout):
        pytest.skip("the system has no OpenCV with GStreamer: apt-get install python3-opencv")
    if not found.stdout.startswith(str(sys.version_info[:2])):
        pytest.skip("the system's Python is of another version than this one")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    done = subprocess.run(
        [SYSTEM_PYTHON, "-c", START + source, ROOT / ".types", *packages],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_a_pipeline_delivers_frames_ends_and_is_opened_again() -> None:
    lines, errors = on_the_systems_opencv(
        """
source = open_source(
    "gst:videotestsrc num-buffers=5 is-live=true ! video/x-raw,width=96,height=64,framerate=30/1",
    CaptureRequest(Mode(96, 64, 30)),
)
say(live=source.live, can_reconnect=source.can_reconnect, name=source.name, mode=str(source.mode))
for _ in range(2):
    try:
        while True:
            frame = source.read()
            say(index=frame.index, shape=frame.image.shape, clock=frame.clock)
    except MotorVAEError as error:
        say(lost=str(error), clause=error.clause())
    source.close()
    source.reopen()
source.close()
"""
    )
    assert lines[0] == {
        "live": True,
        "can_reconnect": True,
        "name": "gst:videotestsrc",
        "mode": "96x64 30 fps",
    }
    lost = [line for line in lines if "lost" in line]
    frames = [line for line in lines if "index" in line]
    assert [line["clause"] for line in lost] == ["it stopped", "it stopped"]
    assert len(frames) >= 2
    assert [line["index"] for line in frames] == list(range(len(frames)))
    assert frames[0]["shape"] == [64, 96, 3]
    assert frames[0]["clock"] == "host"
    assert errors == ""


def test_grey_frames_are_passed_on_as_they_are_and_another_mode_is_refused() -> None:
    lines, errors = on_the_systems_opencv(
        """
text = (
    "gst:videotestsrc is-live=true ! video/x-raw,format=GRAY8,width=96,height=64,framerate=30/1 "
    "! appsink drop=true max-buffers=1 sync=false"
)
with open_source(text) as source:
    say(shape=source.read().image.shape)
try:
    open_source(text, CaptureRequest(Mode(width=640, fps=60)))
except MotorVAEError as error:
    say(refused=str(error))
"""
    )
    assert lines[0] == {"shape": [64, 96]}
    assert "asked for 640x? 60 fps, got 96x64 30 fps; change the pipeline" in lines[1]["refused"]
    assert errors == ""


def test_a_pipeline_that_does_not_start_keeps_its_password_to_itself() -> None:
    lines, errors = on_the_systems_opencv(
        """
for text in (
    "gst:rtspsrc location=rtsp://user:s3same@127.0.0.1:9/x user-pw=s3same ! decodebin",
    "gst:videotestsrc ! nosuchelement user-pw=s3same",
):
    try:
        open_source(text, CaptureRequest(timeout_s=2))
    except MotorVAEError as error:
        say(error=str(error))
"""
    )
    assert len(lines) == 2
    for line, name in zip(lines, ("rtspsrc", "videotestsrc"), strict=True):
        assert line["error"].startswith(f"cannot open gst:{name}: GStreamer does not start")
    assert "s3same" not in json.dumps(lines) + errors
