"""FP16 and INT8 weights that are made of float32 ones, to the bit, by what is said beside these.

For FP16 that is a bit each: to the nearest, or to the neighbour beyond. For INT8 it is a factor for
each row, and what is added to the product once it is rounded, which is mostly nothing.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def flips_of(
    rounded: npt.NDArray[np.float16], exact: npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Return which FP16 weights are not the nearest of the float32 ones of the same shape."""
    with np.errstate(over="ignore"):
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


def factors_of(
    quantized: npt.NDArray[np.int8], exact: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the factors (rows,) whose products with rows of float32 weights round to INT8 ones.

    Both are (rows, columns). An INT8 weight is a product rounded, so the product is at most half
    away from it: that bounds a row's factor on both sides. The middle of the narrowest bounds is
    taken. Where they contradict each other, as no factor does, some products round to others.
    """
    size = np.abs(exact, dtype=np.float64)
    number = quantized * np.sign(exact)
    with np.errstate(divide="ignore", invalid="ignore"):
        least, most = (number - 0.5) / size, (number + 0.5) / size
    bounds = size > 0
    least = np.where(bounds & (number > -128), least, -np.inf).max(axis=1)
    # The largest may have been cut off.
    most = np.where(bounds & (np.abs(number) < 127), most, np.inf).min(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        middle = np.where(np.isfinite(most), (least + most) / 2, least * (1 + 2**-20))
        factors: npt.NDArray[np.float32] = middle.astype(np.float32)
    factors[~np.isfinite(factors)] = 0
    return factors


def added_to(
    quantized: npt.NDArray[np.int8],
    exact: npt.NDArray[np.float32],
    factors: npt.NDArray[np.float32],
) -> npt.NDArray[np.int8]:
    """Return what is added to the rounded products, modulo 256, to be the INT8 weights."""
    return quantized - _rounded_products(exact, factors)


def quantized_from(exact: bytes, factors: memoryview, added: memoryview) -> bytes:
    """Return the bytes of INT8 weights, of rows of float32 ones with a factor for each."""
    each = np.frombuffer(factors, "<f4")
    weights = np.frombuffer(exact, "<f4").reshape(len(each), -1)
    made = _rounded_products(weights, each) + np.frombuffer(added, np.int8).reshape(weights.shape)
    return made.tobytes()


def _rounded_products(
    exact: npt.NDArray[np.float32], factors: npt.NDArray[np.float32]
) -> npt.NDArray[np.int8]:
    with np.errstate(over="ignore", invalid="ignore"):
        products = exact * factors[:, np.newaxis]
        np.rint(products, out=products)
        np.clip(products, -128, 127, out=products)
        return products.astype(np.int8)
