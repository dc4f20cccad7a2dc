"""Arrays in .npz files: read whole and without pickle, refused in one line."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from ..core.errors import MotorVAEError, sentence_list


def arrays_from_npz(
    path: Path, keys: Sequence[str] | None = None, *, error: type[MotorVAEError], again: str
) -> dict[str, npt.NDArray[Any]]:
    """Read arrays of a file.

    Args:
        path: The file.
        keys: Names of those that are needed; by default all that are there.
        error: What is raised.
        again: How to make the file anew, such as "export the bundle again".

    Raises:
        MotorVAEError: As `error`: the file is missing, cut short, lacks a key, or holds
            something else than arrays.
    """
    try:
        with path.open("rb") as file:
            content = np.load(file, allow_pickle=False)
            if isinstance(content, np.ndarray):
                raise error(f"{path} is one array without a name: {again}")
            with content:
                return {key: content[key] for key in (content if keys is None else keys)}
    except (OSError, ValueError, KeyError, EOFError, BadZipFile, zlib.error) as cause:
        if isinstance(cause, MotorVAEError):
            raise  # ours are ValueErrors too, and already say what is wrong
        what = "arrays" if keys is None else sentence_list([repr(key) for key in keys])
        raise error(f"cannot read {what} from {path}: {cause}; {again}") from cause
