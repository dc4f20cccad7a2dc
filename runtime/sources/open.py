"""open_source: from what a user named to the source of its frames; FolderSource, for images."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from ..core.errors import ConfigError, ImageError
from ..core.frame import Frame, Gap, Mode
from ..core.text import printable
from ..pixels.image_files import luma_from_file
from .base import AS_IT_COMES, CaptureRequest, FrameSource, Paced
from .opencv import DeviceSource, GStreamerSource
from .spec import SourceKind, SourceSpec
from .synthetic.source import SyntheticSource
from .video.source import VideoSource


class FolderSource(FrameSource):
    """Image files, decoded to luma one after another in the order given."""

    def __init__(self, spec: SourceSpec, request: CaptureRequest) -> None:
        super().__init__(spec)
        if request.mode != Mode() and not request.accept_mode:
            raise ConfigError(
                f"{self.name}: asked for {request.mode}, but images come as they are; leave that "
                "out, or take them with --accept-mode"
            )
        self._root = Path(spec.location)
        self._paths = iter(enumerate(spec.paths))
        self.expected = len(spec.paths)

    def read(self) -> Frame | Gap | None:
        """Decode the next image; one that does not decode is a gap."""
        index, path = next(self._paths, (0, None))
        if path is None:
            return None
        name = printable(path.relative_to(self._root).as_posix())
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        try:
            image = luma_from_file(path)
        except ImageError as error:
            return Gap(index, printable(str(error)), captured_ns, name)
        capture_ns = time.monotonic_ns() - grabbed_ns
        return Frame(image, index, captured_ns, grabbed_ns, capture_ns, name)

    def close(self) -> None:
        """Nothing is held open between two reads."""


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
