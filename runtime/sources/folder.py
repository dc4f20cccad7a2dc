"""FolderSource: picture files as frames, one after another."""

from __future__ import annotations

import time
from pathlib import Path

from ..core.errors import ConfigError, ImageError
from ..core.frame import Frame, Gap, Mode
from ..core.text import printable
from ..pixels.files.image_files import counted_remarks, picture_from_file
from .base import CaptureRequest, FrameSource
from .spec import SourceSpec


class FolderSource(FrameSource):
    """Image files, decoded in the order given: luma, or BGR for a model in colour."""

    def __init__(self, spec: SourceSpec, request: CaptureRequest) -> None:
        super().__init__(spec)
        if request.mode != Mode() and not request.accept_mode:
            raise ConfigError(
                f"{self.name}: asked for {request.mode}, but images come as they are; leave that "
                "out, or take them with --accept-mode"
            )
        self._root, self._limit = Path(spec.location), request.picture_limit
        self._color = request.color
        self._paths = iter(enumerate(spec.paths))
        self._listed = spec.remark
        self._said: list[tuple[str, str]] = []
        self.expected = len(spec.paths)

    @property
    def remarks(self) -> list[str]:
        """What was not taken, and what to know of the pictures read so far; a line each."""
        listed = [f"{self.name}: {self._listed}"] if self._listed else []
        return listed + counted_remarks(self._said)

    def read(self) -> Frame | Gap | None:
        """Decode the next image; one that does not decode is a gap."""
        index, path = next(self._paths, (0, None))
        if path is None:
            return None
        name = printable(path.relative_to(self._root).as_posix())
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        try:
            picture = picture_from_file(path, self._limit, self._color)
        except ImageError as error:
            return Gap(index, printable(str(error)), captured_ns, name)
        self._said += [(name, remark) for remark in picture.remarks]
        capture_ns = time.monotonic_ns() - grabbed_ns
        return Frame(picture.pixels, index, captured_ns, grabbed_ns, capture_ns, name)

    def close(self) -> None:
        """Nothing is held open between two reads."""
