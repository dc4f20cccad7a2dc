"""open_source: from what a user named to the source of its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .base import CaptureRequest, FrameSource, Paced
from .camera import DeviceSource
from .gstreamer import GStreamerSource
from .image_folder import FolderSource
from .spec import SourceKind, SourceSpec
from .synthetic.source import SyntheticSource
from .video.source import VideoSource

_SOURCES: dict[SourceKind, Callable[[SourceSpec, CaptureRequest], FrameSource]] = {
    "device": DeviceSource,
    "csi": GStreamerSource,
    "gst": GStreamerSource,
    "images": FolderSource,
    "synthetic": SyntheticSource,
    "video": VideoSource,
    "pipe": VideoSource,
    "url": VideoSource,
}


def open_source(
    source: SourceSpec | str,
    request: CaptureRequest = CaptureRequest(),  # noqa: B008  # frozen
) -> FrameSource:
    """Open a source, at the pace that its spec says.

    Args:
        source: What to open; a text is parsed first.
        request: What is asked of it.

    Raises:
        ConfigError: A setting in the text is not allowed, or images were to have a mode.
        SourceError: There is no such thing, it cannot be opened, or does not deliver as asked.
        MissingDependencyError: OpenCV lacks GStreamer, which `csi://` and `gst:` need.
    """
    if isinstance(source, str):
        source = SourceSpec.parse(source, fps=request.mode.fps)
    opened = _SOURCES[source.kind](replace(source, realtime=False), request)
    return Paced(opened) if source.realtime and not opened.live else opened
