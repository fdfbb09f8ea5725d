"""From a device's name to its backend."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

from .base import Backend, DeviceError
from .cpp import CppBackend

_NAME = re.compile(r"([a-z]+)(?::(\d+))?")


#: The precisions of float32 matrix products.
PRECISIONS = ("float32", "tf32")


def _cpu(number: int, precision: str) -> Backend:
    return CppBackend()


def _gpu(number: int, precision: str) -> Backend:
    from .gpu import open_gpu

    return open_gpu(number, precision)


#: Opens a device of each kind, given its number and the precision of its matrix products.
KINDS: dict[str, Callable[[int, str], Backend]] = {"cpu": _cpu, "gpu": _gpu, "cuda": _gpu}


def select(device: str | None = None, precision: str = "float32") -> Backend:
    """Return a backend for ``device``: ``"cpu"``, ``"gpu"``, ``"gpu:1"`` or ``"auto"``.

    ``"cuda"`` means the same as ``"gpu"``; ``"auto"`` is a GPU if one works, else the CPU; None is
    what the environment variable ``XNN_DEVICE`` names, else the CPU. ``precision`` is that of
    matrix products: ``"float32"``, or ``"tf32"`` with 10 bits instead of 23 where a device has it.

    Raises `ValueError` for any other name or precision, and `DeviceError`, saying what to install,
    for a GPU that is unavailable.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision is {precision!r}, but must be 'float32' or 'tf32'")
    source = "device"
    if device is None:
        device, source = os.environ.get("XNN_DEVICE") or "cpu", "XNN_DEVICE"
    if device == "auto":
        try:
            return _gpu(0, precision)
        except DeviceError:
            return _cpu(0, precision)
    match = _NAME.fullmatch(device) if isinstance(device, str) else None
    if match is None or match[1] not in KINDS or (match[2] and match[1] == "cpu"):
        raise ValueError(
            f"{source} is {device!r}, but must be 'auto', 'cpu', 'gpu', or a GPU such as 'gpu:1'"
        )
    return KINDS[match[1]](int(match[2] or 0), precision)
