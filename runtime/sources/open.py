"""open_source: from what a user named to the source of its frames."""

from __future__ import annotations

from dataclasses import replace

from .base import CaptureRequest, FrameSource, Paced
from .camera import DeviceSource
from .gstreamer import GStreamerSource
from .image_folder import FolderSource
from .spec import SourceSpec
from .synthetic.source import SyntheticSource
from .video.source import VideoSource


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
    opened = _opened(replace(source, realtime=False), request)
    return Paced(opened) if source.realtime and not opened.live else opened


def _opened(spec: SourceSpec, request: CaptureRequest) -> FrameSource:
    match spec.kind:
        case "device":
            return DeviceSource(spec, request)
        case "csi" | "gst":
            return GStreamerSource(spec, request)
        case "images":
            return FolderSource(spec, request)
        case "synthetic":
            return SyntheticSource(spec, request)
        case _:
            return VideoSource(spec, request)
