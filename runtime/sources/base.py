"""FrameSource, what every source can do; CaptureRequest, what is asked of it; Paced playing."""

from __future__ import annotations

import abc
import time
from dataclasses import dataclass, field, replace

from ..core.errors import CameraError, ImageError, SourceError
from ..core.frame import DEFAULT_FPS, Frame, Gap, Mode
from ..core.lifecycle import Closing
from ..core.spec import Color, Matrix, ModelSpec
from ..pixels.convert import Pixels, fitted_from_image
from ..pixels.picture import MAX_PICTURE, PictureLimit, limit_for
from .spec import SourceSpec

LONGEST_SLEEP_S = 0.2
RATE_TOLERANCE = 0.02  # cameras call 29.97 frames per second 30


@dataclass(frozen=True, slots=True)
class CaptureRequest:
    """What is asked of a source beyond its name."""

    mode: Mode = field(default_factory=Mode)  # read back once it is set
    accept_mode: bool = False  # take what comes where the mode is not honoured
    timeout_s: float = 5.0  # how long a connection may be silent
    max_picture: float = MAX_PICTURE  # megapixels of a picture; 4 bytes each of a video's frames
    # The model that frames are for: a source may deliver fitted pictures in place of full images.
    # None: full images only.
    spec: ModelSpec | None = None
    # Of video that names no matrix; None: as the spec says, and without one as players choose.
    matrix: Matrix | None = None
    track: int | None = None  # of a video; counted from 1, without covers and thumbnails
    # How many a live source may decode one picture on, where its kind allows more than one.
    cores: int = 1

    @property
    def untagged(self) -> Matrix:
        """The matrix of video that names none."""
        return self.matrix or (self.spec.matrix if self.spec else "auto")

    @property
    def color(self) -> Color:
        """What picture files become: luma where no model says otherwise."""
        return self.spec.color if self.spec else "grey"

    @property
    def picture_limit(self) -> PictureLimit:
        """How large a picture file may be, also once it is padded for the model."""
        return limit_for(self.spec, self.max_picture)

    def check(self, name: str, got: Mode, *, advice: str = "ask for that") -> None:
        """Raise CameraError where a source does not deliver as asked, unless any mode is accepted.

        What is None in `got` is not known, and counts as not honoured. `advice` is an imperative.
        """
        asked, got_fps = self.mode, got.fps or 0.0
        honoured = (
            asked.width in {None, got.width}
            and asked.height in {None, got.height}
            and (not asked.fourcc or asked.fourcc.upper() == (got.fourcc or "").upper())
            and (asked.fps is None or abs(got_fps - asked.fps) <= RATE_TOLERANCE * asked.fps)
        )
        if not honoured and not self.accept_mode:
            raise CameraError(
                f"asked for {asked}, got {got}",
                context=name,
                fix=f"{advice}, or take it with --accept-mode",
            )


AS_IT_COMES = CaptureRequest()  # asks for nothing


def silence_of(seconds: float) -> str:
    """Return the words for a live source's silence: bytes that were no frame may have come."""
    return f"no frame came for {seconds:g} s, whole or damaged"


def fitted_from_item(item: Frame | Gap, spec: ModelSpec) -> Pixels | Gap:
    """Return a frame as the model takes it, or a gap where the model can make nothing of it.

    A picture may be too small for the crop box, or too large once it is padded: that is one frame
    less, as if it had not decoded. The source may write into the pixels again as it reads on.
    """
    if isinstance(item, Gap):
        return item
    try:
        return fitted_from_image(item.image, spec, is_fitted=item.is_fitted)
    except ImageError as error:
        return Gap(item.index, error.clause(), item.captured_ns, item.name)


class FrameSource(Closing):
    """Frames in order, each with the facts of its grab. Close it, or use it in a `with` block."""

    name: str = ""  # what to call the source in messages; never holds credentials
    live: bool = False  # as `SourceSpec` decides: frames come by the clock, read or not
    can_reconnect: bool = False  # `reopen` is worth trying; False once it has ended for good
    fps: float | None = None  # nominal frames per second; None where there is no rate
    silence_s: float = 0.0  # how long a live one may be silent for it comes in longer segments
    expected: int | None = None  # how many frames will come; None where that is not known

    def __init__(self, spec: SourceSpec) -> None:
        self.name, self.live, self.can_reconnect = spec.name, spec.live, spec.can_reconnect

    @property
    def remarks(self) -> list[str]:
        """What to know of what was read so far, and of what was not taken; a line each."""
        return []

    @abc.abstractmethod
    def read(self) -> Frame | Gap | None:
        """Wait for the next frame; CameraError where a live source failed or went away.

        A gap stands for a frame that was lost; None comes after the last.
        """

    def reopen(self) -> None:
        """Open again, by its stable name, what was lost and has been closed; goes on counting.

        SourceError where it is not there yet.
        """
        raise SourceError(f"{self.name} cannot be opened again: start again")

    def interrupt(self) -> None:
        """Let a waiting `read` return None soon; safe in a signal handler. May do nothing."""
        return


class Paced(FrameSource):
    """A recording played at its own times, as a camera would deliver it.

    What has no time of its own follows at the recording's rate. A frame is due at its time, and
    its age is counted from then on, as for a camera: it is handed over no sooner than it would be
    decoded, had decoding begun when it was due. A reader that is late does not make it younger.
    """

    live = True

    def __init__(self, source: FrameSource) -> None:
        self._source, self._interrupted = source, False
        self.name, self.expected = source.name, source.expected
        self.fps = source.fps or DEFAULT_FPS
        self._start_ns: int | None = None
        self._due_s = 0.0
        self._first = True

    def read(self) -> Frame | Gap | None:
        """Read the next frame, and wait until it was due and its decoding is over."""
        began_ns = time.monotonic_ns()
        if self._start_ns is None:
            self._start_ns = began_ns
        item = self._source.read()
        if item is None:
            return None
        self._due_s = self._next_due_s(item)
        due_ns = self._start_ns + round(self._due_s * 1e9)
        spent_ns = time.monotonic_ns() - began_ns
        # Recordings of what moves have pauses of hours.
        while (left_ns := due_ns + spent_ns - time.monotonic_ns()) > 0:
            if self._interrupted:
                return None
            time.sleep(min(LONGEST_SLEEP_S, left_ns / 1e9))
        if isinstance(item, Gap):
            return item
        now_ns = time.monotonic_ns()
        # A decoder that reorders frames reads ahead; a camera could not have.
        return replace(
            item,
            grabbed_ns=due_ns,
            captured_ns=time.time_ns() - max(0, now_ns - due_ns),
            capture_ns=now_ns - due_ns - item.convert_ns,
        )

    def _next_due_s(self, item: Frame | Gap) -> float:
        media_s = item.media_s if isinstance(item, Frame) else None
        if media_s is not None:
            return max(media_s, self._due_s)
        first, self._first = self._first, False
        return self._due_s if first else self._due_s + 1 / (self.fps or DEFAULT_FPS)

    def interrupt(self) -> None:
        """Let `read` wait no longer for a frame's time, and the recording for what comes."""
        self._interrupted = True
        self._source.interrupt()

    @property
    def remarks(self) -> list[str]:
        """Those of the recording."""
        return self._source.remarks

    def close(self) -> None:
        """Close the recording."""
        self._source.close()
