"""open_source: from what a user named to the source of its frames."""

from __future__ import annotations

from dataclasses import replace

from .base import AS_IT_COMES, CaptureRequest, FrameSource, Paced
from .spec import SourceSpec


def open_source(source: SourceSpec | str, request: CaptureRequest = AS_IT_COMES) -> FrameSource:
    """Open a source, at the pace that its spec names; a text is parsed first.

    ConfigError for a setting that is not allowed, SourceError where it cannot be opened or does
    not deliver as asked, MissingDependencyError for an OpenCV without the GStreamer that is needed.
    """
    if isinstance(source, str):
        source = SourceSpec.parse(source, fps=request.mode.fps)
    opened = _opened(replace(source, realtime=False), request)
    return Paced(opened) if source.realtime and not opened.live else opened


def _opened(source: SourceSpec, request: CaptureRequest) -> FrameSource:
    """Open a source by the module about its kind; the others, and their packages, stay away."""
    if source.kind == "synthetic":
        from .synthetic.source import SyntheticSource  # noqa: PLC0415  # see above, as all of them

        return SyntheticSource(source, request)
    if source.kind == "images":
        from .folder import FolderSource  # noqa: PLC0415

        return FolderSource(source, request)
    if source.kind in {"video", "pipe", "url"}:
        from .video.source import VideoSource  # noqa: PLC0415

        return VideoSource(source, request)
    from .opencv import DeviceSource, GStreamerSource  # noqa: PLC0415

    return (DeviceSource if source.kind == "device" else GStreamerSource)(source, request)
