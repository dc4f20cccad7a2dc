"""Collection: latents of images with their names and thumbnails, of a file or of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ....runtime.core.documents import Form, arrays_from_npz
from ....runtime.core.errors import DataError
from ....runtime.core.text import printable
from ..subject import Subject
from .originals import (
    Thumbnails,
    data_beside,
    no_thumbnails,
    thumbnails_of_names,
    thumbnails_of_pictures,
    words_on_missing,
)

Floats = npt.NDArray[np.float32]
_MOST_BYTES = 4 << 30


@dataclass(frozen=True)
class Collection:
    """N images in latent space.

    Attributes:
        names: What each is called.
        mu: (N, D) float32.
        log_var: (N, D) float32, or None of an encoder that gives none.
        thumbnails: Of each.
        source: What they are, for a sentence.
        remarks: What to know of them, a line each.
    """

    names: tuple[str, ...]
    mu: Floats
    log_var: Floats | None
    thumbnails: Thumbnails = field(repr=False)
    source: str
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)


def collection_of_file(
    path: Path,
    images: str | None,
    *,
    subject: Subject | None = None,
    max_picture: float,
    step: Callable[[str], object],
    with_pictures: bool = True,
) -> Collection:
    """Read latents as `motorvae-encode` or a training run did, of a model where one is given.

    A DataError where it is no such file, or holds latents of another model: of another size, or, as
    far as the file says by which they were encoded, of other weights.
    """
    size = None if subject is None else subject.spec.latent_size
    forms = {
        "names": Form("U", ("images",)),
        "mu": Form("float32", ("images", "latents" if size is None else size)),
        "log_var": Form("float32", ("images", "latents" if size is None else size), needed=False),
        "weights_sha256": Form("U", (), needed=False),
    }
    again = "name a file that motorvae-encode wrote"
    again += "" if size is None else " with this model"
    arrays: dict[str, Any] = arrays_from_npz(
        path, forms, error=DataError, again=again, most_bytes=_MOST_BYTES
    )
    encoder = str(arrays.get("weights_sha256", ""))
    if subject is not None and encoder and encoder != subject.weights_sha256:
        raise DataError(
            f"{path} was encoded by another model than {subject.folder}, whose weights have the "
            f"SHA-256 {subject.weights_sha256[:12]}, and not {printable(encoder[:12])}: {again}"
        )
    names = tuple(map(str, arrays["names"]))
    if not arrays["mu"].size:
        raise DataError(f"{path} holds no latent: {again}")
    data = images or data_beside(names, path)
    if data is None or not with_pictures:
        thumbnails = no_thumbnails(len(names))
    else:
        step(f"reading pictures of {printable(data)}")
        thumbnails = thumbnails_of_names(names, data, max_picture=max_picture)
    remark = words_on_missing(thumbnails, data) if with_pictures else None
    return Collection(
        names=names,
        mu=arrays["mu"],
        log_var=arrays.get("log_var"),
        thumbnails=thumbnails,
        source=f"{len(names)} images of {printable(str(path))}",
        remarks=(remark,) if remark else (),
    )


def collection_of_subject(subject: Subject, step: Callable[[str], object]) -> Collection:
    """Encode the images of `--images`, or those that the model came with."""
    pictures = subject.held_out()
    step(f"encoding {pictures.source}")
    found = subject.encode(pictures.pixels)
    return Collection(
        names=pictures.names,
        mu=found.mu,
        log_var=found.log_var,
        thumbnails=thumbnails_of_pictures(pictures.pixels, subject.spec.color),
        source=f"{pictures.source}, {subject.name}",
        remarks=pictures.remarks,
    )
