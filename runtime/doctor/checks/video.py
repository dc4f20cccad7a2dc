"""The doctor on where frames come from: OpenCV, PyAV, cameras."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from ...core.errors import sentence_list
from ...core.packages import OPENCV_PACKAGES, versions_of
from ..finding import Finding
from .packages import installed_opencv

_DEBIAN_PACKAGES = {"libGL.so.1": "libgl1", "libgthread-2.0.so.0": "libglib2.0-0"}
"""System libraries that OpenCV's wheel asks for and a server often lacks."""
_DEVICE_TREE = Path("/proc/device-tree/compatible")


def check_opencv(_model: Path) -> tuple[Finding, ...]:
    """Import OpenCV and read how it was built."""
    what = "OpenCV"
    installed = list(versions_of(OPENCV_PACKAGES))
    if len(installed) > 1:
        return (
            Finding.failed(
                what,
                f"{' and '.join(installed)} are both installed and overwrite each other",
                f"pip uninstall -y {' '.join(installed)} && pip install {installed[0]}",
            ),
        )
    try:
        import cv2  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        return (_does_not_load(what, installed_opencv(), "cv2", error),)
    build = cv2.getBuildInformation()
    opencv = Finding.ok(what, f"{cv2.__version__}, with V4L2 for cameras")
    if sys.platform == "linux" and not re.search(r"v4l/v4l2:\s*YES", build):
        opencv = Finding.failed(
            what,
            f"{cv2.__version__} was built without V4L2, so that it opens no camera",
            f"pip install --force-reinstall {installed_opencv()}",
        )
    return opencv, gstreamer_finding(build, on_jetson=on_jetson())


def gstreamer_finding(build: str, *, on_jetson: bool) -> Finding:
    """Tell whether OpenCV opens GStreamer pipelines.

    Args:
        build: What `cv2.getBuildInformation` returns.
        on_jetson: Whether the system brings an OpenCV that does.
    """
    what = "GStreamer"
    if found := re.search(r"GStreamer:\s*YES\s*(?:\(([^)]*)\))?", build):
        return Finding.ok(what, f"{found[1] or 'yes'}, for csi:// and gst:")
    return Finding.optional(
        what,
        "not in this OpenCV; only csi:// and gst: need it",
        "pip uninstall -y opencv-python  # back to JetPack's" if on_jetson else None,
    )


def check_pyav(_model: Path) -> tuple[Finding, ...]:
    """Import PyAV and ask its FFmpeg for what files and network cameras need."""
    what = "PyAV"
    try:
        import av  # noqa: PLC0415  # may be what is broken
    except ImportError as error:
        return (_does_not_load(what, "av", "av", error),)
    version = ".".join(map(str, av.library_versions["libavformat"]))
    found = f"{av.__version__}, libavformat {version}"
    lacking = [] if "rtsp" in av.formats_available else ["the rtsp protocol"]
    try:
        av.Codec("h264", "r")
    except ValueError:
        lacking.append("the h264 decoder")
    if not lacking:
        return (Finding.ok(what, f"{found}, with rtsp and h264"),)
    return (
        Finding.warn(
            what, f"{found} lacks {sentence_list(lacking)}", "pip install --force-reinstall av"
        ),
    )


def check_cameras(_model: Path) -> tuple[Finding, ...]:
    """List the cameras that the system knows, and whether this user may open them."""
    try:
        from ...sources.camera import cameras_found  # noqa: PLC0415  # with OpenCV
    except ImportError:
        return (
            Finding.warn(
                "cameras",
                "not looked for: OpenCV does not load",
                "motorvae-doctor, once OpenCV is ok",
            ),
        )
    found = cameras_found()
    return (cameras_finding(found, _closed(found)),)


def cameras_finding(found: list[str], closed: dict[str, bool]) -> Finding:
    """Tell of cameras; one that is not there is a warning, as recordings and URLs need none.

    Args:
        found: Those that the system knows.
        closed: Devices among them that cannot be opened, and whether their file is there at all.
    """
    what = "cameras"
    if not found:
        return Finding.warn(what, "none found", "plug one in, or use --camera synthetic")
    # A path by id ends in the camera's serial number.
    names = sentence_list([re.sub(r"(/by-id/)[^\s,()]+", r"\1...", text) for text in found])
    if not closed:
        return Finding.ok(what, f"{len(found)}: {names}")
    first = next(iter(closed))
    if closed[first]:
        problem, way = "this user may not open", "sudo usermod -aG video $USER  # then log in again"
    else:
        problem, way = "no device file for", f"docker run --device {first}"
    return Finding.failed(
        what, f"{len(found)}: {names}; {problem} {sentence_list(list(closed))}", way
    )


def on_jetson() -> bool:
    """Return whether this is a Jetson, whose GPU shares the computer's memory."""
    try:
        return b"nvidia,tegra" in _DEVICE_TREE.read_bytes()
    except OSError:
        return False


def _closed(found: list[str]) -> dict[str, bool]:
    paths = [Path(path) for text in found for path in re.findall(r"/dev/video\d+", text)]
    return {str(path): path.exists() for path in paths if not os.access(path, os.R_OK | os.W_OK)}


def _does_not_load(what: str, package: str, module: str, error: ImportError) -> Finding:
    said = " ".join(str(error).split())
    library = re.search(r"(lib\S+?\.so\S*): cannot open shared object", said)
    if isinstance(error, ModuleNotFoundError) and error.name == module:
        found, way = "not installed", f"pip install {package}"
    elif isinstance(error, ModuleNotFoundError) and error.name:
        found, way = f"needs {error.name}, which is not installed", f"pip install {error.name}"
    elif library and library[1] in _DEBIAN_PACKAGES:
        found = f"does not load: the system has no {library[1]}"
        way = f"sudo apt-get install {_DEBIAN_PACKAGES[library[1]]}"
    else:
        found, way = f"does not load: {said}", f"pip install --force-reinstall {package}"
    return Finding.failed(what, found, way)
