"""Stored fp16 values as fp32."""

import numpy as np
from numpy.typing import NDArray

# From fp16's exponent bias of 15 to fp32's of 127.
_REBIAS = np.float32(2.0**112)
# Shifted, an fp16's sign fills four bits; the upper one is fp32's.
_ONE_SIGN_BIT = np.int32(-0x70000001)


def widened(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """The same finite values as fp32, a contiguous copy.

    By bits and one product, which is several times faster than numpy's conversion value by value.
    """
    bits = rows.view(np.int16).astype(np.int32, order="C")
    bits <<= 13
    bits &= _ONE_SIGN_BIT
    values: NDArray[np.float32] = bits.view(np.float32)
    values *= _REBIAS
    return values


def as_fp32(rows: NDArray[np.float16] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Stored rows widened; those that are fp32 as they are, contiguous."""
    if rows.dtype == np.float16:
        return widened(np.asarray(rows, dtype=np.float16))
    return np.ascontiguousarray(rows, dtype=np.float32)


def unit(rows: NDArray[np.float16]) -> NDArray[np.float32]:
    """The same rows [n, D] scaled to unit length, fp32."""
    scaled = widened(rows)
    scaled /= np.sqrt(np.vecdot(scaled, scaled))[:, None]
    return scaled
