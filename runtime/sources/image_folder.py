"""FolderSource: image files as a source, one after another."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from ..core.errors import ImageError
from ..core.frame import Frame, Gap
from ..pixels.image_files import luma_from_file
from .base import FrameSource


class FolderSource(FrameSource):
    """Image files in the order given.

    Args:
        paths: The files; at least one.
        root: What their names are relative to.
        name: What to call them together.
    """

    def __init__(self, paths: Sequence[Path], *, root: Path, name: str) -> None:
        self.name = printable(name)
        self._root, self._paths = root, paths
        self.expected = len(paths)
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


def printable(text: str) -> str:
    """Return text in which the bytes of a file name that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
