"""FrameSource, what every source of frames can do, what is asked of it, and play by the clock."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field

from ..core.closing import Closing
from ..core.errors import SourceError
from ..core.frame import Frame, Gap, Mode
from ..core.spec import ModelSpec


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What is asked of a source beyond its name.

    Attributes:
        mode: Read back once it is set.
        accept_mode: Take what comes where the mode is not honoured.
        timeout_s: How long a connection may be silent.
        spec: The model that frames are for: a source may deliver fitted luma, (S, S), in place of
            full images. None: full images only.
    """

    mode: Mode = field(default_factory=Mode)
    accept_mode: bool = False
    timeout_s: float = 5.0
    spec: ModelSpec | None = None


class FrameSource(Closing):
    """Frames in order, each with the facts of its grab. Close it, or use it in a `with` block.

    Attributes:
        name: What to call the source in messages; never holds credentials.
        live: Frames come by the clock, whether or not anybody reads them.
        returns: What fails or ends may come back: `close` and `reopen` are worth trying.
        fps: Nominal frames per second, or None where the source has no rate.
        expected: How many frames will come, or None where that is not known.
    """

    name: str = ""
    live: bool = False
    can_reconnect: bool = False
    fps: float | None = None
    expected: int | None = None

    @abc.abstractmethod
    def read(self) -> Frame | Gap | None:
        """Wait for the next frame.

        Returns:
            A frame; a gap where one was lost, its reason inside; None after the last.

        Raises:
            CameraError: A live source failed or went away.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Release the device, file or connection; calling it again does nothing."""

    def reopen(self) -> None:
        """Open again, by its stable name, what was lost and has been closed.

        Frames go on being counted where they stopped.

        Raises:
            SourceError: It is not there yet.
        """
        raise SourceError(f"{self.name} cannot be opened again: start again")

    def interrupt(self) -> None:
        """Let a waiting `read` return None soon; safe in a signal handler. May do nothing."""
        return
