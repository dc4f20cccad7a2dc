"""The doctor's checks of where frames come from: OpenCV, PyAV, cameras."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from ...core.errors import sentence_list
from ...core.packages import OPENCV_PACKAGES, versions_of
from ...sources.device_names import Camera, cameras
from ..finding import Finding, not_loading, overwritten
from .packages import installed_opencv

_DEVICE_TREE = Path("/proc/device-tree/compatible")


def check_opencv(_model: Path) -> tuple[Finding, ...]:
    """Import OpenCV and read how it was built."""
    what = "OpenCV"
    installed = list(versions_of(OPENCV_PACKAGES))
    if len(installed) > 1:
        return (overwritten(what, installed, installed[0]),)
    try:
        import cv2  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        return (not_loading(what, installed_opencv(), "cv2", error),)
    build = cv2.getBuildInformation()
    opencv = Finding(what, f"{cv2.__version__}, with V4L2 for cameras")
    if sys.platform == "linux" and not re.search(r"v4l/v4l2:\s*YES", build):
        opencv = Finding(
            what,
            f"{cv2.__version__} was built without V4L2, so that it opens no camera",
            "FAILED",
            f"pip install --force-reinstall {installed_opencv()}",
        )
    return opencv, gstreamer_finding(build, on_jetson=on_jetson())


def gstreamer_finding(build: str, *, on_jetson: bool) -> Finding:
    """Return whether OpenCV opens GStreamer pipelines.

    Args:
        build: What `cv2.getBuildInformation` returns.
        on_jetson: Whether the system brings an OpenCV that does.
    """
    if found := re.search(r"GStreamer:\s*YES\s*(?:\(([^)]*)\))?", build):
        return Finding("GStreamer", f"{found[1] or 'yes'}, for csi:// and gst:")
    return Finding(
        "GStreamer",
        "not in this OpenCV; only csi:// and gst: need it",
        "optional",
        "pip uninstall -y opencv-python  # back to JetPack's" if on_jetson else None,
    )


def check_pyav(_model: Path) -> tuple[Finding, ...]:
    """Import PyAV and ask its FFmpeg for what files and network cameras need."""
    try:
        import av  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        return (not_loading("PyAV", "av", "av", error),)
    version = ".".join(map(str, av.library_versions["libavformat"]))
    found = f"{av.__version__}, libavformat {version}"
    lacking = [] if "rtsp" in av.formats_available else ["the rtsp protocol"]
    try:
        av.Codec("h264", "r")
    except ValueError:
        lacking.append("the h264 decoder")
    if not lacking:
        return (Finding("PyAV", f"{found}, with rtsp and h264"),)
    problem = f"{found} lacks {sentence_list(lacking)}"
    return (Finding("PyAV", problem, "warn", "pip install --force-reinstall av"),)


def check_cameras(_model: Path) -> tuple[Finding, ...]:
    """List the cameras that the system knows, and whether this user may open them."""
    found = cameras()
    closed = [each.path for each in found if not os.access(each.path, os.R_OK | os.W_OK)]
    return (cameras_finding(found, {path: path.exists() for path in closed}),)


def cameras_finding(found: Sequence[Camera], closed: dict[Path, bool]) -> Finding:
    """Return the row of the cameras; none is a warning, as recordings and URLs need none.

    Args:
        found: Those that the system knows; their stable paths end in a serial number, and are
            left out.
        closed: Devices among them that cannot be opened, and whether their file is there at all.
    """
    if not found:
        return Finding("cameras", "none found", "warn", "plug one in, or use --camera synthetic")
    names = sentence_list([str(camera) for camera in found])
    listed = f"{len(found)}: {names}"
    if not closed:
        return Finding("cameras", listed)
    first = next(iter(closed))
    problem, command = "no device file for", f"docker run --device {first}"
    if closed[first]:
        problem = "this user may not open"
        command = "sudo usermod -aG video $USER  # then log in again"
    devices = sentence_list([str(path) for path in closed])
    return Finding("cameras", f"{listed}; {problem} {devices}", "FAILED", command)


def on_jetson() -> bool:
    """Return whether this is a Jetson, whose GPU shares the computer's memory."""
    try:
        return b"nvidia,tegra" in _DEVICE_TREE.read_bytes()
    except OSError:
        return False
