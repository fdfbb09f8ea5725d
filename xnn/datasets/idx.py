"""The IDX files in which MNIST is published (yann.lecun.com/exdb/mnist, "file formats")."""

from __future__ import annotations

import math
import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .files import Source

_UNSIGNED_BYTE = 8


def read(path: Path, dimensions: int, most: int) -> NDArray[np.uint8]:
    """Return the array in an IDX file of unsigned bytes, of shape ``(n, …)`` with ``n ≤ most``.

    Raises `ValueError`, naming the file, if it is not a complete IDX file of these dimensions.
    """
    with Source(path) as source:
        magic = source.take(4, "magic number")
        wanted = bytes((0, 0, _UNSIGNED_BYTE, dimensions))
        if magic != wanted:
            raise source.refuse(
                f"begins with {magic.hex()}, but an IDX file of this kind begins with "
                f"{wanted.hex()}"
            )
        shape = struct.unpack(f">{dimensions}I", source.take(4 * dimensions, "header"))
        if shape[0] > most:
            raise source.refuse(f"promises {shape[0]} entries, but at most {most} are expected")
        data = source.take(math.prod(shape), "data")
        source.end()
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)
