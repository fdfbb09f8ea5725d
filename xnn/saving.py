"""Named arrays on disk: safetensors, with a description as JSON in the header. No pickle.

A safetensors file has the length of its header in 8 bytes, the header as JSON, and the arrays one
after another (https://huggingface.co/docs/safetensors).
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import re
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from .version import __version__

_FORMAT = 1
# The dtypes of safetensors that NumPy has too.
_DTYPES = {
    name: np.dtype(dtype)
    for name, dtype in {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "I64": "<i8",
        "U64": "<u8",
        "I32": "<i4",
        "U32": "<u4",
        "I16": "<i2",
        "U16": "<u2",
        "I8": "i1",
        "U8": "u1",
        "BOOL": "?",
    }.items()
}
_MOST_HEADER = 100_000_000  # as in safetensors' own reader

_TEMPORARY = re.compile(r"\..+\.safetensors\.\d+-[0-9a-f]{8}")

StrPath = str | os.PathLike[str]


def write(path: StrPath, arrays: Mapping[str, NDArray[Any]], description: dict[str, Any]) -> None:
    """Write arrays and their description to ``path``, atomically; see `replacing`."""
    from safetensors.numpy import save

    described = {"format": _FORMAT, "version": __version__, **description}
    replace(path, save(dict(arrays), metadata={"xnn": json.dumps(described)}))


def storable(name: str, value: Any) -> Any:
    """Return a value as an array that `write` takes, or as a JSON-serialisable value.

    Raises `ValueError`, naming it, if it is neither.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        fits = value.dtype.newbyteorder("<") in _DTYPES.values()
    else:
        try:
            fits = bool(json.dumps(value))
        except (TypeError, ValueError, RecursionError):
            fits = False
    if not fits:
        kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else repr(value)
        wanted = "an array of numbers or JSON-serialisable"
        raise ValueError(f"{name} is {kind}, but must be {wanted} to be saved")
    return value


def replace(path: StrPath, data: bytes) -> None:
    """Write ``data`` to ``path``; see `replacing`."""
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: StrPath) -> Iterator[IO[bytes]]:
    """Open a new file that atomically replaces ``path`` once it is completely written.

    Raises `OSError`, naming the path, if that fails. The old file is then kept, unless only syncing
    the folder failed, and no temporary file is left.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))  # the target of a link, not the link
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
        _sync(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
        raise


def sweep(folder: Path) -> None:
    """Remove temporary files that killed writers have left in a folder."""
    for path in folder.iterdir():
        if _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """Make a folder's new entry survive a power failure, if the system supports it."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # unsupported for folders
            raise
    finally:
        os.close(handle)


def read(path: StrPath) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the description that `write` wrote.

    The arrays are read-only views of a memory map. Raises `ValueError`, naming the file, if it is
    not such a file, `OSError` if it cannot be read.
    """
    name = os.fsdecode(path)
    with open(path, "rb") as file:
        if not os.fstat(file.fileno()).st_size:  # or not a regular file: a device, a pipe
            raise ValueError(f"{name}: not a safetensors file, but empty")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        arrays, metadata = _arrays(data)
    except (OverflowError, ValueError, RecursionError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(f"{name}: not a safetensors file that xnn can read: {why}") from None
    try:
        description = json.loads(metadata["xnn"])
        version = description.pop("format")
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError):
        raise ValueError(f"{name}: a safetensors file, but not one of xnn") from None
    if version != _FORMAT:
        raise ValueError(
            f"{name}: format {version!r}, but this version of xnn reads {_FORMAT}; "
            f"it was written by xnn {description.get('version', 'of an early version')}"
        )
    return arrays, description


def _arrays(data: mmap.mmap) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return views of the arrays in a file, and its metadata.

    Raises `ValueError` if the header does not match the file's contents.
    """
    length = int.from_bytes(data[:8], "little")
    start = 8 + length
    if start > len(data) or length > _MOST_HEADER:
        raise ValueError(f"its header of {length} bytes is too long")
    header = json.loads(data[8:start])
    if not isinstance(header, dict):
        raise ValueError("its header is not an object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError("its metadata are not an object")
    arrays = {}
    for name, told in header.items():
        match told:
            case {"dtype": str(kind), "shape": [*shape], "data_offsets": [int(first), int(last)]}:
                pass
            case _:
                raise ValueError(f"{name!r} is not an array")
        if kind not in _DTYPES or not all(type(n) is int and n >= 0 for n in shape):
            raise ValueError(f"{name!r} has dtype {kind} and shape {shape}")
        if not 0 <= first <= last <= len(data) - start:
            raise ValueError(f"{name!r} lies outside the file")
        count, dtype = prod(shape), _DTYPES[kind]
        if count * dtype.itemsize != last - first:
            raise ValueError(f"{name!r} has shape {shape}, but {last - first} bytes")
        flat = np.frombuffer(data, dtype, count, start + first) if count else np.zeros(0, dtype)
        arrays[name] = flat.reshape(shape)
    return arrays, metadata
