"""The doctor's checks of Python, its packages, OpenCV, PyAV, cameras, disk and memory."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ..bundle.load import load_bundle
from ..core.atomic_files import cache_dir, check_writable
from ..core.errors import MotorVAEError, OutputError, sentence_list
from ..core.packages import OPENCV_PACKAGES, version_of, versions_of
from ..core.system.memory import available_bytes
from ..engines.tensorrt.engine_manifest import this_platform
from ..sources.device_names import Camera, cameras
from .board.check import on_jetson
from .finding import Finding, not_loading, overwritten

OUTPUTS = {"pyarrow": ".parquet", "pyzmq": "zmq://", "mcap": ".mcap", "rerun-sdk": "--view"}
"""What each optional package writes to."""

_OWN_ROWS = {*OPENCV_PACKAGES, "av"}
"""Absent or not is seen by importing them: a Jetson's own OpenCV is in no list of packages."""
_ENGINES = {"cpu", "gpu", "tensorrt", "tensorrt-rtx", "pycuda"}
_DEVELOPERS = {"dev", "docs"}
_KEYS = {"sign"}
_IMPORTS = {"diffusers"}  # needed for folders of one kind alone
_PARTS = 4

STREAM_BYTES = 256 << 20
"""A stream with the default model took 188 MiB when measured, 38 MiB of them one copy of the
encoder."""
COPIES = 4
"""Of the encoder's file: what ONNX Runtime reads, what it unpacks, and a decoder beside it."""
GPU_BYTES = 1 << 30
"""For CUDA and an engine in memory that GPU and processor share; an estimate."""

_DEFAULT_ENCODER_BYTES = 40_000_000


class Requirement(NamedTuple):
    """One line of the metadata."""

    package: str
    bounds: str
    """Such as ">=2.8,<3"."""
    extra: str | None
    """The extra that asks for it, or None where motorVAE itself does."""

    def problem(self) -> str | None:
        """Return in a clause what is wrong with what is installed, or None."""
        version = version_of(self.package)
        if version is None:
            return "not installed"
        for sign, bound in re.findall(r"(>=|<)\s*([\d.]+)", self.bounds):
            if (_numbers(version) >= _numbers(bound)) != (sign == ">="):
                return f"{version} is installed, and {sign}{bound} is needed"
        return None


def check_packages(_model: Path) -> Iterator[Finding]:
    """Look at Python, the packages of every installation, and those of the extras."""
    try:
        requirements = requirements_of("motorvae")
    except importlib.metadata.PackageNotFoundError:
        yield _python(())
        problem = "this Python runs it without having it installed"
        yield Finding("motorvae", problem, "FAILED", "pip install -e '.[cpu]'")
        return
    yield _python(importlib.metadata.metadata("motorvae").get_all("Classifier") or ())
    yield from _base(requirements)
    yield _outputs(requirements)
    yield _extras(requirements)


def requirements_of(package: str) -> tuple[Requirement, ...]:
    """Return what an installed package asks for; PackageNotFoundError where it is not installed."""
    found = []
    for line in importlib.metadata.requires(package) or ():
        text, _, marker = line.partition(";")
        machine = re.search(r"platform_machine\s*==\s*['\"]([^'\"]+)", marker)
        if machine and machine[1] != platform.machine():
            continue
        name = re.match(r"[\w.-]+", text)
        extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", marker)
        if name:
            bounds = text[name.end() :].strip()
            package = installed_opencv() if name[0] == OPENCV_PACKAGES[0] else name[0]
            found.append(Requirement(package, bounds, extra[1] if extra else None))
    return tuple(found)


def _python(classifiers: Sequence[str]) -> Finding:
    tested = [text.rpartition(" ")[2] for text in classifiers if re.search(r":: 3\.\d+$", text)]
    version = platform.python_version()
    found = f"{version} on {this_platform()}"
    if not tested or version.rpartition(".")[0] in tested:
        return Finding("Python", found)
    problem = f"{found}; this motorVAE is tested with {sentence_list(tested)}"
    return Finding("Python", problem, "warn", f"python{tested[-1]} -m venv .venv")


def _base(requirements: tuple[Requirement, ...]) -> tuple[Finding, ...]:
    wrong, right = [], []
    for requirement in requirements:
        package, problem = requirement.package, requirement.problem()
        version = version_of(package)
        if requirement.extra or (package in _OWN_ROWS and (problem is None or version is None)):
            continue
        if problem is None:
            right.append(f"{package} {version}")
        else:
            command = f"pip install '{package}{requirement.bounds}'"
            wrong.append(Finding(package, problem, "FAILED", command))
    return (Finding("packages", sentence_list(right)), *wrong)


def _outputs(requirements: tuple[Requirement, ...]) -> Finding:
    extras = {r.package: r.extra for r in requirements if r.package in OUTPUTS}
    present, absent, missing = [], [], []
    for package, target in OUTPUTS.items():
        if version := version_of(package):
            present.append(f"{target} ({package} {version})")
        else:
            extra = extras.get(package)
            absent.append(f"{target} needs {package}")
            missing.append(f"'motorvae[{extra}]'" if extra else package)
    if not absent:
        return Finding("outputs", sentence_list(present))
    command = f"pip install {' '.join(dict.fromkeys(missing))}"
    return Finding("outputs", "; ".join((*present, *absent)), "optional", command)


def _extras(requirements: tuple[Requirement, ...]) -> Finding:
    """Return which extras are complete; engines, outputs and keys have rows of their own."""
    packages: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        if requirement.extra and requirement.extra not in _ENGINES | _DEVELOPERS | _KEYS | _IMPORTS:
            packages.setdefault(requirement.extra, []).append(requirement)
    problems = {
        extra: [requirement.package for requirement in needed if requirement.problem()]
        for extra, needed in packages.items()
        if any(requirement.package not in OUTPUTS for requirement in needed)
    }
    complete = [extra for extra, names in problems.items() if not names]
    lacking = {extra: names for extra, names in problems.items() if names}
    if not lacking:
        return Finding("extras", sentence_list(complete))
    texts = [f"{extra} needs {sentence_list(names)}" for extra, names in lacking.items()]
    command = f"pip install 'motorvae[{','.join(lacking)}]'"
    return Finding("extras", "; ".join((*complete, *texts)), "optional", command)


def _numbers(version: str) -> tuple[int, ...]:
    """Return the first numbers of a version, as many for each so that they compare."""
    numbers = [int(part) for part in re.findall(r"\d+", version.partition("+")[0])[:_PARTS]]
    return tuple(numbers + [0] * (_PARTS - len(numbers)))


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
    build, jetson = cv2.getBuildInformation(), on_jetson()
    if sys.platform == "linux" and not re.search(r"v4l/v4l2:\s*YES", build):
        problem = f"{cv2.__version__} was built without V4L2, so that it opens no camera"
        command = f"pip install --force-reinstall {installed_opencv()}"
        yield Finding(what, problem, "FAILED", command)
    else:
        origin = f", {opencv_origin(installed)}" if jetson else ""
        yield Finding(what, f"{cv2.__version__}{origin}, with V4L2 for cameras")
    yield gstreamer_finding(build, on_jetson=jetson)


def opencv_origin(installed: Sequence[str]) -> str:
    """Return in a clause where a Jetson's OpenCV comes from: pip's, or the system's.

    The system's, JetPack's own among them, has GStreamer, and is in no list of pip's packages.
    """
    return f"pip's {installed[0]}" if installed else "the system's"


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
    opened = [each.path for each in found if not is_csi_sensor(each)]
    closed = [path for path in opened if not os.access(path, os.R_OK | os.W_OK)]
    yield cameras_finding(found, {path: path.exists() for path in closed})


def cameras_finding(found: Sequence[Camera], closed: dict[Path, bool]) -> Finding:
    """Return the row of the cameras; none is a warning, as recordings and URLs need none.

    Of devices that cannot be opened, `closed` holds whether their file is there at all. Stable
    paths end in a serial number and are left out. A Jetson's sensors are opened through csi://.
    """
    sensors = [camera.label for camera in found if is_csi_sensor(camera)]
    if sensors and len(sensors) == len(found):
        text = f"{len(found)} on the CSI connector, for csi://: {sentence_list(sensors)}"
        return Finding("cameras", text)
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


def is_csi_sensor(camera: Camera) -> bool:
    """Return whether a device is a sensor on a Jetson's CSI connector, as its driver names them.

    Such as `vi-output, imx219 9-0010`; most deliver raw Bayer pictures, which V4L2 leaves raw.
    """
    return camera.label.startswith("vi-output, ")


def check_writing(_model: Path) -> Iterator[Finding]:
    """Create an unnamed file in each place that is written to; it is gone at once."""
    what = "working folder"
    try:
        check_writable(Path("motorvae-doctor-probe"))
        free = shutil.disk_usage(".").free
    except OSError as error:
        yield Finding(what, f"nothing can be written here: {_cause(error)}", "FAILED", "cd ~")
    else:
        command = "du -h --max-depth=1 . | sort -h | tail"
        yield _enough(
            what, f"can be written, {free / 1e9:.1f} GB free", free, (1 << 30, 64 << 20), command
        )
    what, command = "cache folder", "export XDG_CACHE_HOME=$PWD/.cache"
    try:
        folder = cache_dir()
        check_writable(folder / "probe")
    except RuntimeError:
        yield Finding(what, "this user has no home folder", "warn", command)
    except OutputError as error:
        found = f"{folder} cannot be written: {_cause(error)}; it only saves time"
        yield Finding(what, found, "warn", command)
    else:
        yield Finding(what, f"{folder} can be written")


def _cause(error: OSError) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
    return cause.strerror or str(cause)


def check_memory(model: Path) -> Iterator[Finding]:
    """Compare the free memory with what a stream takes."""
    available = available_bytes()
    if available is None:
        yield Finding("memory", "not known on this system", "optional")
        return
    sizes: list[int] = []
    with contextlib.suppress(MotorVAEError):  # another check says what is wrong with it
        graphs = load_bundle(model, hash_all=False).manifest.graphs
        sizes = [entry.size_bytes for entry in graphs if entry.graph == "encoder"]
    needed = STREAM_BYTES + COPIES * max(sizes, default=_DEFAULT_ENCODER_BYTES)
    shared = on_jetson()
    yield memory_finding(available, needed + (GPU_BYTES if shared else 0), shared=shared)


def memory_finding(available: int, needed: int, *, shared: bool) -> Finding:
    """Compare the bytes that a new process can have with those that a stream takes, about.

    Where it is `shared`, the GPU takes its memory from there, too.
    """
    found = (
        f"{available / 1e9:.1f} GB available{', shared with the GPU' if shared else ''}; a stream "
        f"takes about {needed / 1e9:.1f} GB"
    )
    command = "ps -eo rss,comm --sort=-rss | head  # and end what is not needed"
    return _enough("memory", found, available, (2 * needed, needed), command)


def _enough(
    what: str, found: str, available: int, levels: tuple[int, int], command: str
) -> Finding:
    """Return a warning below the first of two levels in bytes, and a failure below the second."""
    enough, least = levels
    if available >= enough:
        return Finding(what, found)
    return Finding(what, found, "warn" if available >= least else "FAILED", command)


def installed_opencv() -> str:
    """Return the package of OpenCV that is here, any of which serves; else the one asked for."""
    return next(iter(versions_of(OPENCV_PACKAGES)), OPENCV_PACKAGES[0])
