"""QueuedFrame and LostFrame: what a capture thread hands to the encoder."""

from __future__ import annotations

from dataclasses import dataclass

from ..core.frame import Frame, Gap


@dataclass(frozen=True, slots=True)
class QueuedFrame:
    """A delivered frame, converted and ready for the encoder.

    Attributes:
        frame: Its facts; its image is the (S, S) uint8 luma that is encoded.
        convert_ns: How long luma, area average and hash took.
        queued_ns: When it was put into the mailbox, on the monotonic clock.
        duplicate: Whether its luma is that of the camera's frame before it.
        dropped: Frames that came and were overtaken since the item before this one.
        gap_from_ns: Of the first frame after a loss: when the last one before it was grabbed.
    """

    frame: Frame
    convert_ns: int
    queued_ns: int
    duplicate: bool
    dropped: int = 0
    gap_from_ns: int | None = None


@dataclass(frozen=True, slots=True)
class LostFrame:
    """A gap as it is taken out of a mailbox.

    Attributes:
        gap: The frame that is not there.
        dropped: As in `QueuedFrame`.
    """

    gap: Gap
    dropped: int = 0
