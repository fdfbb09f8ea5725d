"""Named arrays on disk: safetensors, with a description as JSON in the header. No pickle."""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from numpy.typing import NDArray

_FORMAT = 1


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], description: dict[str, Any]
) -> None:
    """Write arrays and what they are to ``path``, whole or not at all.

    Raises `OSError` where that fails; a file already there is then unharmed.
    """
    from safetensors.numpy import save

    header = {"xnn": json.dumps({"format": _FORMAT, **description})}
    data = save(dict(arrays), metadata=header)
    with replacing(path) as file:
        file.write(data)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open a new file that takes the place of ``path`` when all is written.

    Raises `OSError` where that fails; a file already there is then unharmed.
    """
    target = Path(os.path.realpath(os.fsdecode(path)))  # what a link points to, not the link
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, os.fsdecode(path)) from None
        raise


def read(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return the arrays and the description that `write` wrote.

    Raises `ValueError` that names the file where it is no such file, `OSError` where it cannot be
    read.
    """
    from safetensors import SafetensorError, safe_open

    name = os.fsdecode(path)
    with open(path, "rb"):  # for an OSError that names the file
        pass
    try:
        with safe_open(name, framework="np") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, AttributeError, TypeError) as error:  # or dtypes unknown to NumPy
        raise ValueError(f"{name}: not a safetensors file that xnn can read: {error}") from None
    try:
        description = json.loads(metadata["xnn"])
        version = description.pop("format")
    except (KeyError, ValueError, AttributeError, TypeError, RecursionError):
        raise ValueError(f"{name}: a safetensors file, but not one of xnn") from None
    if version != _FORMAT:
        raise ValueError(f"{name}: format {version!r}, but this version of xnn reads {_FORMAT}")
    return arrays, description
