"""FP16 weights as float32 ones and a bit each: to the nearest, or to the neighbour beyond."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def flips_of(
    rounded: npt.NDArray[np.float16], exact: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Return which FP16 weights are not the nearest of the float32 ones of the same shape."""
    near = exact.astype(np.float16)
    found: npt.NDArray[np.bool_] = near.view(np.uint16) != rounded.view(np.uint16)
    return found


def rounded_of(exact: npt.NDArray[np.float32], flips: npt.NDArray[np.bool_]) -> bytes:
    """Return float32 weights as FP16 ones: the nearest, or where `flips` the neighbour beyond.

    Both are flat. An FP16 number's neighbours are its bits, as a whole number, plus and minus one:
    the larger in size is the next (IEEE 754-2008, 3.4).
    """
    with np.errstate(over="ignore"):
        near = exact.astype(np.float16)
    bits = near.view(np.uint16)
    (at,) = np.nonzero(flips)
    is_below = np.abs(near[at]).astype(np.float32) < np.abs(exact[at])
    bits[at] += np.where(is_below, np.uint16(1), np.uint16(0xFFFF))
    return bits.astype("<u2", copy=False).tobytes()


def rounded_from(exact: bytes, bits: bytes) -> bytes:
    """Return the bytes of FP16 weights, of those of float32 ones and a bit for each."""
    weights = np.frombuffer(exact, "<f4")
    flips = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(weights)).astype(bool)
    return rounded_of(weights, flips)
