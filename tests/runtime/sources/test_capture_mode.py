from __future__ import annotations

import pytest

from motorvae.runtime.core.errors import CameraError
from motorvae.runtime.core.frame import Mode
from motorvae.runtime.sources.base import CaptureRequest
from motorvae.runtime.sources.capture_mode import check_mode

GOT = Mode(640, 480, 29.97, "YUYV")


@pytest.mark.parametrize(
    "asked",
    [Mode(), Mode(width=640), Mode(height=480), Mode(fps=30), Mode(640, 480, 30.5, "yuyv")],
)
def test_what_was_honoured_passes(asked: Mode) -> None:
    check_mode("camera 0", CaptureRequest(asked), GOT)


@pytest.mark.parametrize(
    "asked", [Mode(width=641), Mode(height=1), Mode(fps=31), Mode(fps=29), Mode(fourcc="MJPG")]
)
def test_what_was_not_honoured_is_refused_unless_any_mode_is_taken(asked: Mode) -> None:
    with pytest.raises(CameraError, match="asked for") as caught:
        check_mode("camera 0", CaptureRequest(asked), GOT)
    assert caught.value.clause() == f"asked for {asked}, got {GOT}"
    check_mode("camera 0", CaptureRequest(asked, accept_mode=True), GOT)


@pytest.mark.parametrize("asked", [Mode(width=640), Mode(fps=30), Mode(fourcc="MJPG")])
def test_what_is_not_known_counts_as_not_honoured(asked: Mode) -> None:
    with pytest.raises(CameraError, match="got unknown"):
        check_mode("camera 0", CaptureRequest(asked), Mode())


def test_the_error_names_asked_and_got_and_the_way_out() -> None:
    with pytest.raises(CameraError) as caught:
        check_mode(
            "camera 0",
            CaptureRequest(Mode(1280, 720, 60, "MJPG")),
            Mode(640, 480, 30, "YUYV"),
            advice="ask for what it can do (motorvae-doctor cameras)",
        )
    assert str(caught.value) == (
        "camera 0: asked for 1280x720 60 fps MJPG, got 640x480 30 fps YUYV; ask for what it can "
        "do (motorvae-doctor cameras), or take it with --accept-mode"
    )
