"""From a device's name to its backend."""

from __future__ import annotations

import re
from collections.abc import Callable

from .base import Backend, DeviceError
from .cpu import CpuBackend

_NAME = re.compile(r"([a-z]+)(?::(\d+))?")


def _cpu(number: int) -> Backend:
    return CpuBackend()


def _gpu(number: int) -> Backend:
    from .gpu import open_gpu

    return open_gpu(number)


#: What opens a device of each kind, by its number.
KINDS: dict[str, Callable[[int], Backend]] = {"cpu": _cpu, "gpu": _gpu, "cuda": _gpu}


def select(device: str = "auto") -> Backend:
    """Return a backend for ``device``: ``"cpu"``, ``"gpu"``, ``"gpu:1"`` or ``"auto"``.

    ``"cuda"`` means the same as ``"gpu"``; ``"auto"`` is a GPU if one works, else the CPU.

    Raises `ValueError` for a name that is none of these, and `DeviceError`, saying what to
    install, for a GPU that is not to be had.
    """
    if device == "auto":
        try:
            return _gpu(0)
        except DeviceError:
            return _cpu(0)
    match = _NAME.fullmatch(device) if isinstance(device, str) else None
    if match is None or match[1] not in KINDS or (match[2] and match[1] == "cpu"):
        raise ValueError(
            f"device is {device!r}, but must be 'auto', 'cpu', 'gpu', or a GPU such as 'gpu:1'"
        )
    return KINDS[match[1]](int(match[2] or 0))
