"""What two graphs are compared on: fitted pictures of a source, or latents of a file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime.core.documents import MOST_ARRAYS, bytes_of_file
from ...runtime.core.errors import ConfigError, DataError, ImageError, reason_of
from ...runtime.core.frame import Gap
from ...runtime.core.spec import ModelSpec
from ...runtime.pixels.convert import fitted_from_image
from ...runtime.sources.base import CaptureRequest
from ...runtime.sources.open import open_source

LATENT_FILES = {".npy", ".npz"}
_LATENT_NAMES = ("mu", "z", "latents", "latent")
_AGAIN = "name an .npy or .npz file with one array of floats, a latent a row"


@dataclass(frozen=True, slots=True)
class Inputs:
    """N pictures, (N, *picture_shape) uint8, or latents, (N, ...) float32."""

    source: str  # where they come from
    rows: npt.NDArray[Any]
    skipped: tuple[str, ...] = ()  # what did not decode, each with its reason
    notes: tuple[str, ...] = ()


def pictures_from_source(named: str, spec: ModelSpec, most: int) -> Inputs:
    """Read and fit the pictures of a source that has an end, evenly if there are more than `most`.

    Raises:
        ConfigError: The source is live.
        DataError: Nothing decodes.
        SourceError: The source cannot be opened.
    """
    pictures: list[npt.NDArray[np.uint8]] = []
    skipped: list[str] = []
    with open_source(named, CaptureRequest(spec=spec)) as source:
        if source.live:
            raise ConfigError(f"{source.name} is live and has no end: name a folder or a video")
        every = max(1, -(-source.expected // most)) if source.expected else 1
        index = 0
        while len(pictures) < most and (item := source.read()) is not None:
            index += 1
            if isinstance(item, Gap):
                skipped.append(f"{item.name or item.index}: {item.reason}")
            elif (index - 1) % every == 0:
                try:
                    picture = fitted_from_image(item.image, spec, is_fitted=item.is_fitted)
                    pictures.append(picture.copy())  # a source may write into it again
                except (ImageError, ValueError) as error:
                    skipped.append(f"{item.name or item.index}: {reason_of(error)}")
        name, remarks = source.name, tuple(source.remarks)
        total = source.expected or index
    if not pictures:
        reason = f" (first: {skipped[0]})" if skipped else ""
        raise DataError(f"nothing in {name} decodes{reason}: name other images or video")
    if total > len(pictures) + len(skipped):
        remarks += (f"{len(pictures)} of {total} images judge, see --most-images",)
    return Inputs(name, np.stack(pictures), tuple(skipped), remarks)


def latents_from_file(path: Path, most: int) -> Inputs:
    """Read latents, (N, ...), of an .npy or .npz file; a DataError where it holds none."""
    data = bytes_of_file(path, most_bytes=MOST_ARRAYS, error=DataError, again=_AGAIN)
    del data  # it is a regular file of a size that fits; NumPy reads it itself
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            rows = loaded
        else:
            with loaded:
                names = [name for name in _LATENT_NAMES if name in loaded.files]
                names = names or (loaded.files if len(loaded.files) == 1 else [])
                if not names:
                    raise DataError(
                        f"{path} holds {', '.join(loaded.files) or 'nothing'}, and none of "
                        f"{', '.join(_LATENT_NAMES)}: {_AGAIN}"
                    )
                rows = loaded[names[0]]
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"cannot read {path}: {reason_of(error)}; {_AGAIN}") from error
    if rows.dtype.kind != "f" or rows.ndim < 2 or not len(rows) or not np.isfinite(rows).all():
        raise DataError(f"{path} holds {rows.dtype} {rows.shape}, or NaN or Inf: {_AGAIN}")
    evenly = np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))
    notes = () if len(evenly) == len(rows) else (f"{len(evenly)} of {len(rows)} latents judge",)
    return Inputs(str(path), np.asarray(rows[evenly], np.float32), notes=notes)
