"""FolderSource: image files as a source, one after another."""

from __future__ import annotations

import time
from pathlib import Path

from ..core.errors import ConfigError, ImageError
from ..core.frame import Frame, Gap, Mode
from ..pixels.image_files import luma_from_file
from .base import CaptureRequest, FrameSource
from .spec import SourceSpec, printable


class FolderSource(FrameSource):
    """Image files in the order given.

    Args:
        spec: Gives the files and what their names are relative to.
        request: Asks for no mode, or takes any.

    Raises:
        ConfigError: A mode is asked for.
    """

    def __init__(self, spec: SourceSpec, request: CaptureRequest) -> None:
        super().__init__(spec)
        if request.mode != Mode() and not request.accept_mode:
            raise ConfigError(
                f"{self.name}: asked for {request.mode}, but images come as they are; leave that "
                "out, or take them with --accept-mode"
            )
        self._root, self._paths = Path(spec.location), spec.paths
        self.expected = len(self._paths)
        self._index = 0

    def read(self) -> Frame | Gap | None:
        """Decode the next image; one that does not decode is a gap."""
        if self._index == len(self._paths):
            return None
        path, index = self._paths[self._index], self._index
        self._index += 1
        name = printable(path.relative_to(self._root).as_posix())
        captured_ns, grabbed_ns = time.time_ns(), time.monotonic_ns()
        try:
            image = luma_from_file(path)
        except ImageError as error:
            return Gap(index, printable(str(error)), captured_ns, name)
        return Frame(
            image=image,
            index=index,
            captured_ns=captured_ns,
            grabbed_ns=grabbed_ns,
            capture_ns=time.monotonic_ns() - grabbed_ns,
            name=name,
        )

    def close(self) -> None:
        """Nothing is held open between two reads."""
