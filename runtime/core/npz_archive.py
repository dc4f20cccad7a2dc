"""An .npz file written array by array and block by block, so that none must be in memory whole.

Each array as `numpy.save` writes it:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

Block = bytes | npt.NDArray[Any]


def write_array(
    archive: zipfile.ZipFile,
    name: str,
    dtype: np.dtype[Any],
    shape: tuple[int, ...],
    blocks: Iterable[Block],
) -> None:
    """Write one array of a shape, of which the blocks are consecutive parts; texts are compressed.

    A block is an array of this dtype, or its bytes in C order. OSError where it cannot be written.
    """
    header = {"descr": dtype.base.str, "fortran_order": False, "shape": shape}
    info = zipfile.ZipInfo(f"{name}.npy")
    info.compress_type = zipfile.ZIP_DEFLATED if dtype.base.kind == "U" else zipfile.ZIP_STORED
    with archive.open(info, "w", force_zip64=True) as member:
        np.lib.format.write_array_header_1_0(member, header)
        for block in blocks:
            member.write(block if isinstance(block, bytes) else block.tobytes())


def write_value(archive: zipfile.ZipFile, name: str, value: object) -> None:
    """Write a small array or a number or text."""
    with archive.open(f"{name}.npy", "w") as member:
        np.save(member, np.array(value))
