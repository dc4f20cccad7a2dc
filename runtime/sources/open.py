"""open_source: from what a user named to the source of its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .base import AS_IT_COMES, CaptureRequest, FrameSource, Paced
from .folder import FolderSource
from .opencv import DeviceSource, GStreamerSource
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


def open_source(source: SourceSpec | str, request: CaptureRequest = AS_IT_COMES) -> FrameSource:
    """Open a source, at the pace that its spec names; a text is parsed first.

    ConfigError for a setting that is not allowed, SourceError where it cannot be opened or does
    not deliver as asked, MissingDependencyError for an OpenCV without the GStreamer that is needed.
    """
    if isinstance(source, str):
        source = SourceSpec.parse(source, fps=request.mode.fps)
    opened = _SOURCES[source.kind](replace(source, realtime=False), request)
    return Paced(opened) if source.realtime and not opened.live else opened
