"""open_source: from what a user typed to the source of frames."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import replace
from pathlib import Path

from ..core.errors import ConfigError, SourceError, sentence_list
from ..core.frame import Mode
from ..core.redaction import without_credentials
from ..pixels.image_files import IMAGE_SUFFIXES, image_paths, in_natural_order
from .base import CaptureRequest, FrameSource
from .camera import DeviceSource
from .capture_mode import check_mode
from .gstreamer import GStreamerSource, csi_pipeline, name_of_pipeline
from .image_folder import FolderSource, printable
from .synthetic.plan import plan_from_query
from .synthetic.source import SYNTHETIC, SyntheticSource
from .video.source import VideoSource

URL_SCHEMES = ("http", "https", "rtsp", "rtsps", "rtmp", "udp")
SCHEMES = (*(f"{scheme}://" for scheme in URL_SCHEMES), "csi://", "gst:", SYNTHETIC)


def open_source(text: str, request: CaptureRequest = CaptureRequest()) -> FrameSource:  # noqa: B008  # frozen
    """Open what a user named as a camera.

    Args:
        text: A device index such as `0`, a device path, a video file, a named pipe, an image file,
            a folder of images, a pattern such as `photos/*.jpg`, a URL, `csi://0`, `gst:` and a
            pipeline, or `synthetic`, with `?key=value&...` after it to change it.
        request: What is asked of it.

    Raises:
        ConfigError: A setting in the text is not allowed, or images were to have a mode.
        SourceError: There is no such thing, it cannot be opened, or does not deliver as asked.
        MissingDependencyError: OpenCV lacks GStreamer, which `csi://` and `gst:` need.
    """
    scheme, separator, rest = text.partition(":")
    scheme = scheme.lower()
    kind, _, query = text.partition("?")
    if kind == SYNTHETIC:
        return _synthetic(query, request)
    if separator and scheme == "gst":
        return GStreamerSource(rest, name=name_of_pipeline(rest), request=request)
    if rest.startswith("//") and re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme):
        if scheme == "csi":
            return _csi(rest[2:], request)
        if scheme not in URL_SCHEMES:
            raise SourceError(f"{scheme}:// is no source: take {sentence_list(SCHEMES)}, or a path")
        url = f"{scheme}:{rest}"
        return VideoSource(url, name=without_credentials(url), is_url=True, request=request)
    if text.isdecimal():
        return DeviceSource(int(text), request)
    return _local(text, request)


def _local(text: str, request: CaptureRequest) -> FrameSource:
    """Open what has a path."""
    path = Path(os.path.expanduser(text))  # noqa: PTH111  # leaves an unknown ~user as it is
    if text and os.path.exists(path):  # noqa: PTH110  # false for what is too long for a path
        return _at(path, request)
    # Who forgot the scheme of a URL may have typed a password.
    shown = without_credentials(text) if "@" in text.partition(":")[2] else text
    if text and glob.has_magic(text):
        return _matching(path, shown, request)
    raise SourceError(
        f"no such source: {shown!r}; name an existing file, folder or device, a URL, "
        "a camera index such as 0, or synthetic"
    )


def _at(path: Path, request: CaptureRequest) -> FrameSource:
    if path.is_char_device():
        return DeviceSource(str(path), request)
    if path.is_dir():
        return _images(image_paths(path), path, str(path), request)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return _images([path], path.parent, str(path), request)
    return VideoSource(str(path), name=printable(str(path)), is_url=False, request=request)


def _matching(pattern: Path, shown: str, request: CaptureRequest) -> FrameSource:
    """Open the images that a pattern matches, or the one thing."""
    name = printable(shown)
    parts = pattern.parts
    fixed = next(place for place, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    paths = in_natural_order(map(Path, glob.glob(str(pattern), recursive=True)), root)  # noqa: PTH207
    if not paths:
        raise SourceError(f"nothing matches {name}: check the pattern, and put it in quotes")
    if len(paths) == 1:
        return _at(paths[0], request)
    others = [path.name for path in paths if path.suffix.lower() not in IMAGE_SUFFIXES]
    if others:
        raise SourceError(
            f"{name} matches {len(paths)} files that are not all images, such as "
            f"{printable(others[0])}: narrow the pattern, or give each video its own --camera"
        )
    return _images(paths, root, name, request)


def _images(paths: list[Path], root: Path, name: str, request: CaptureRequest) -> FrameSource:
    if request.mode != Mode() and not request.accept_mode:
        raise ConfigError(
            f"{printable(name)}: asked for {request.mode}, but images come as they are; leave that "
            "out, or take them with --accept-mode"
        )
    return FolderSource(paths, root=root, name=name)


def _synthetic(query: str, request: CaptureRequest) -> SyntheticSource:
    plan = plan_from_query(query, fps=request.mode.fps)
    delivers = Mode(width=plan.size, height=plan.size, fps=plan.fps)
    check_mode(SYNTHETIC, request, delivers, advice="change fps or size after the ?")
    return SyntheticSource(plan)


def _csi(address: str, request: CaptureRequest) -> GStreamerSource:
    number, _, query = address.partition("?")
    found = dict(pair.partition("=")[::2] for pair in filter(None, query.split("&")))
    usable = number.isdecimal() and found.keys() <= {"width", "height", "fps"}
    if not usable or not all(re.fullmatch(r"[1-9][0-9]{0,4}", text) for text in found.values()):
        raise ConfigError(
            "csi:// takes the number of a camera: write csi://0, or "
            "csi://0?width=1920&height=1080&fps=30 with whole numbers"
        )
    asked = Mode(
        width=int(found["width"]) if "width" in found else request.mode.width,
        height=int(found["height"]) if "height" in found else request.mode.height,
        fps=float(found["fps"]) if "fps" in found else request.mode.fps,
        fourcc=request.mode.fourcc,
    )
    pipeline, delivers = csi_pipeline(int(number), asked)
    return GStreamerSource(
        pipeline, name=f"csi://{number}", request=replace(request, mode=delivers)
    )
