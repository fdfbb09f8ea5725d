"""From a device's name to its backend."""

from __future__ import annotations

import re

from .base import Backend, DeviceError
from .cpu import CpuBackend

_NAME = re.compile(r"(?:(?:gpu|cuda)(?::(?P<number>\d+))?|cpu|auto)")


def select(device: str = "auto") -> Backend:
    """Return a backend for ``device``: ``"cpu"``, ``"gpu"``, ``"gpu:1"`` or ``"auto"``.

    ``"cuda"`` means the same as ``"gpu"``; ``"auto"`` is a GPU if one works, else the CPU.

    Raises `ValueError` for a name that is none of these, and `DeviceError`, saying what to
    install, for a GPU that is not to be had.
    """
    match = _NAME.fullmatch(device) if isinstance(device, str) else None
    if match is None:
        raise ValueError(
            f"device is {device!r}, but must be 'auto', 'cpu', 'gpu', or a GPU such as 'gpu:1'"
        )
    if device == "cpu":
        return CpuBackend()
    try:
        from .gpu import open_gpu

        return open_gpu(int(match["number"] or 0))
    except DeviceError:
        if device == "auto":
            return CpuBackend()
        raise
