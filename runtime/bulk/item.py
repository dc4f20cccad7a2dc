"""Item: one picture of a data set, by its name and by how to get its bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from ..core.errors import ImageError, SourceError
from ..core.frame import Gap
from ..core.spec import ModelSpec
from ..core.system.workers import check_wanted
from ..core.text import printable
from ..pixels.convert import Pixels
from ..pixels.files.image_files import fitted_from_bytes
from ..pixels.picture import PictureLimit

UNREAD = "cannot be read: "
"""So begins the reason of what another try may read; what was read and is no picture stays so."""


@dataclass(frozen=True, slots=True)
class Item:
    """One picture that is to be encoded, of any source.

    Exactly one of `content` and `frame` is there.
    """

    name: str  # what its row is called: a path, an address, or a video and the frame's number
    # The bytes of a picture file; called once, in any thread, and on a cluster in another process,
    # so that it can be pickled. OSError where they cannot be had.
    content: Callable[[], bytes] | None = None
    frame: Pixels | Gap | None = None  # of a video: as the model takes it, or why there is none
    held_bytes: int = 0  # how many of them are in memory already
    stamp: str = ""  # changes where the content behind the name has, as far as that is known


@dataclass(frozen=True, slots=True)
class Fitted:
    """An item as the model takes it, and what its row says of it."""

    pixels: Pixels | None  # uint8 of the spec's `picture_shape`; None where it does not decode
    sha256: str = ""  # of the file's bytes, hexadecimal; empty for a frame of a video
    shape: tuple[int, int] | None = None  # height and width, as it is meant to be seen
    reason: str = ""  # why it does not decode, in one line
    remarks: tuple[str, ...] = ()


def fitted_from_item(item: Item, spec: ModelSpec, limit: PictureLimit) -> Fitted:
    """Get, hash, decode and fit a picture; what does not decode is not raised, but said."""
    check_wanted()
    if item.content is None:
        if isinstance(item.frame, Gap) or item.frame is None:
            return Fitted(None, reason=item.frame.reason if item.frame else "there is no frame")
        return Fitted(item.frame)
    try:
        data = item.content()
    except ImageError as error:
        return Fitted(None, reason=printable(error.clause()))
    except (OSError, SourceError) as error:
        problem = error.clause() if isinstance(error, SourceError) else error.strerror or str(error)
        return Fitted(None, reason=printable(f"{UNREAD}{problem}"))
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        found = fitted_from_bytes(data, spec, limit)
    except ImageError as error:
        return Fitted(None, sha256, reason=printable(error.clause()))
    return Fitted(found.pixels, sha256, found.shape, remarks=found.remarks)
