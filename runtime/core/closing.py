"""Closing: what is opened is closed at the end of a `with` block."""

from __future__ import annotations

import abc
from types import TracebackType

from typing_extensions import Self


class Closing(abc.ABC):
    """Something that holds a device, a file or an engine until it is closed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what is held; calling it again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
