"""check_mode: the mode that was asked for against the one that a source delivers."""

from __future__ import annotations

from ..core.errors import CameraError
from ..core.frame import Mode
from .base import CaptureRequest

RATE_TOLERANCE = 0.02
"""Cameras call 29.97 frames per second 30."""


def check_mode(
    name: str, request: CaptureRequest, got: Mode, *, advice: str = "ask for that"
) -> None:
    """Refuse a source that does not deliver as asked, unless any mode is accepted.

    Args:
        name: What to call the source.
        request: What was asked for; what is None in its mode was not.
        got: What was read back; what is None there is not known, and counts as not honoured.
        advice: What else to ask for, as an imperative.

    Raises:
        CameraError: Something differs; rates may by `RATE_TOLERANCE`.
    """
    if request.accept_mode or _honours(got, request.mode):
        return
    raise CameraError(
        f"asked for {request.mode}, got {got}",
        context=name,
        fix=f"{advice}, or take it with --accept-mode",
    )


def _honours(got: Mode, asked: Mode) -> bool:
    if asked.width not in {None, got.width} or asked.height not in {None, got.height}:
        return False
    if asked.fourcc and asked.fourcc.upper() != (got.fourcc or "").upper():
        return False
    if asked.fps is None:
        return True
    return got.fps is not None and abs(got.fps - asked.fps) <= RATE_TOLERANCE * asked.fps
