"""The doctor's checks of where frames come from: OpenCV, PyAV, cameras."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.errors import sentence_list
from ...core.packages import OPENCV_PACKAGES, versions_of
from ...sources.device_names import Camera, cameras
from ..finding import Finding, not_loading, overwritten
from .system import installed_opencv, on_jetson


def check_opencv(_model: Path) -> Iterator[Finding]:
    """Import OpenCV and read how it was built."""
    what = "OpenCV"
    installed = list(versions_of(OPENCV_PACKAGES))
    if len(installed) > 1:
        yield overwritten(what, installed, installed[0])
        return
    try:
        import cv2  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        yield not_loading(what, installed_opencv(), "cv2", error)
        return
    build = cv2.getBuildInformation()
    if sys.platform == "linux" and not re.search(r"v4l/v4l2:\s*YES", build):
        problem = f"{cv2.__version__} was built without V4L2, so that it opens no camera"
        command = f"pip install --force-reinstall {installed_opencv()}"
        yield Finding(what, problem, "FAILED", command)
    else:
        yield Finding(what, f"{cv2.__version__}, with V4L2 for cameras")
    yield gstreamer_finding(build, on_jetson=on_jetson())


def gstreamer_finding(build: str, *, on_jetson: bool) -> Finding:
    """Return whether an OpenCV opens GStreamer pipelines, by its `getBuildInformation`."""
    if found := re.search(r"GStreamer:\s*YES\s*(?:\(([^)]*)\))?", build):
        return Finding("GStreamer", f"{found[1] or 'yes'}, for csi:// and gst:")
    return Finding(
        "GStreamer",
        "not in this OpenCV; only csi:// and gst: need it",
        "optional",
        "pip uninstall -y opencv-python  # back to JetPack's" if on_jetson else None,
    )


def check_pyav(_model: Path) -> Iterator[Finding]:
    """Import PyAV and ask its FFmpeg for what files and network cameras need."""
    try:
        import av  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        yield not_loading("PyAV", "av", "av", error)
        return
    version = ".".join(map(str, av.library_versions["libavformat"]))
    found = f"{av.__version__}, libavformat {version}"
    lacking = [] if "rtsp" in av.formats_available else ["the rtsp protocol"]
    try:
        av.Codec("h264", "r")
    except ValueError:
        lacking.append("the h264 decoder")
    if lacking:
        problem = f"{found} lacks {sentence_list(lacking)}"
        yield Finding("PyAV", problem, "warn", "pip install --force-reinstall av")
    else:
        yield Finding("PyAV", f"{found}, with rtsp and h264")


def check_cameras(_model: Path) -> Iterator[Finding]:
    """List the cameras that the system knows, and whether this user may open them."""
    found = cameras()
    closed = [each.path for each in found if not os.access(each.path, os.R_OK | os.W_OK)]
    yield cameras_finding(found, {path: path.exists() for path in closed})


def cameras_finding(found: Sequence[Camera], closed: dict[Path, bool]) -> Finding:
    """Return the row of the cameras; none is a warning, as recordings and URLs need none.

    Of devices that cannot be opened, `closed` says whether their file is there at all. Stable
    paths end in a serial number and are left out.
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
