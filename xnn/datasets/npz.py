"""The ``mnist.npz`` that Keras ships."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from .files import most_unzipped

_MOST_HEADER = 4096


def read(path: Path, names: tuple[str, ...], most: int) -> list[NDArray[np.uint8]]:
    """Return the named arrays of unsigned bytes, each ``(n, …)`` with ``n ≤ most``.

    Raises `ValueError`, naming the file, if it does not hold them. Never unpickles.
    """
    with path.open("rb"):  # a file that cannot be opened is an OSError, a damaged one is not
        pass
    try:
        with zipfile.ZipFile(path) as archive:
            return [_read_array(archive, name, most) for name in names]
    except _RefusedError as error:
        raise ValueError(f"{path}: {error}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        KeyError,
        NotImplementedError,
        OSError,
        RuntimeError,
        SyntaxError,  # in a header, which NumPy parses as Python
        ValueError,
        tokenize.TokenError,
    ) as error:
        raise ValueError(f"{path}: not a complete npz file of MNIST: {error}") from None


class _RefusedError(Exception):
    pass


def _read_array(archive: zipfile.ZipFile, name: str, most: int) -> NDArray[np.uint8]:
    with archive.open(f"{name}.npy") as file:
        if npy.read_magic(file) != (1, 0):
            raise _RefusedError(f"{name} is not in version 1.0 of the npy format")
        shape, by_columns, dtype = npy.read_array_header_1_0(file, max_header_size=_MOST_HEADER)
        if dtype != np.uint8 or by_columns:
            raise _RefusedError(
                f"{name} has dtype {dtype}, but must be unsigned bytes, stored by rows"
            )
        if not shape or not 0 <= shape[0] <= most or min(shape) < 0:
            raise _RefusedError(f"{name} has shape {shape}, but at most {most} rows are expected")
        size = math.prod(shape)
        promised = archive.getinfo(f"{name}.npy")
        if size > min(promised.file_size, most_unzipped(promised.compress_size)):
            raise _RefusedError(f"{name} promises {size} bytes, more than the file can hold")
        data = file.read(size)
        if len(data) < size or file.read(1):
            raise _RefusedError(f"{name} is not {size} bytes long, as its header says")
    return np.frombuffer(bytearray(data), np.uint8).reshape(shape)
