"""Which CuPy, driver and GPUs are present, what is missing, and what to do about it."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from .base import DeviceError

_OLDEST = 12  # the oldest CUDA that xnn's extras support


def cupy_for(number: int) -> Any:
    """Return CuPy, if it can use GPU ``number``.

    Raises `DeviceError`, saying what is missing and what to do.
    """
    try:
        import cupy
    except Exception as error:  # it or its libraries are missing
        missing = isinstance(error, ImportError) and error.name == "cupy"
        why = "CuPy is not installed" if missing else f"CuPy cannot be loaded ({first_line(error)})"
        raise DeviceError(f"no GPU can be used: {why}; {advice(driver())}") from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # whatever fails here, the GPU is unavailable
        made_for = int(cupy.cuda.runtime.runtimeGetVersion())
        raise DeviceError(
            f"no GPU can be used: {_trouble(first_line(error), driver(), made_for)}"
        ) from None
    if number >= count:
        has = f"{count} GPU{'s' if count != 1 else ''}"
        raise DeviceError(
            f"no GPU {number}: this machine has {has}, counted from 'gpu:0'"
            + (f", with CUDA_VISIBLE_DEVICES={shown}" if (shown := _shown()) else "")
        )
    return cupy


def gpus() -> dict[str, Any]:
    """Return which CuPy, driver, CUDA and GPUs are present; see `xnn.info.facts`."""
    found = driver()
    facts: dict[str, Any] = {
        "CuPy": "not installed",
        "NVIDIA driver": f"for CUDA {dotted(found)}" if found else "none",
        "GPUs": [],
    }
    try:
        import cupy

        made_for = dotted(int(cupy.cuda.runtime.runtimeGetVersion()))
        facts["CuPy"] = f"{cupy.__version__} for CUDA {made_for}"
    except Exception as error:
        if not (isinstance(error, ImportError) and error.name == "cupy"):
            facts["CuPy"] = f"cannot be loaded: {first_line(error)}"
    try:
        cupy = cupy_for(0)
        for number in range(cupy.cuda.runtime.getDeviceCount()):
            facts["GPUs"].append(_gpu(cupy, number))
    except DeviceError as error:
        facts["missing"] = str(error)
    return facts


def _gpu(cupy: Any, number: int) -> dict[str, Any]:
    from .gpu import open_gpu

    backend = open_gpu(number)
    backend.small_product = 0  # so that cuBLAS is tried, too
    square = backend.zeros((2, 2), "float32")

    def step() -> None:
        backend.elementwise("a + 1", square, a=square)
        backend.gemm(square, square, backend.scratch((2, 2), "float32"))

    backend.compile(step)()
    backend.synchronize()
    properties = cupy.cuda.runtime.getDeviceProperties(number)
    with cupy.cuda.Device(number):
        free, memory = cupy.cuda.runtime.memGetInfo()
    return {
        "device": f"gpu:{number}",
        "name": properties["name"].decode(),
        "compute_capability": f"{properties['major']}.{properties['minor']}",
        "memory": memory,
        "free": free,
        "graphs": backend.uncaptured or True,
    }


def driver() -> int:
    """Return the newest CUDA that the NVIDIA driver runs, such as 12080 for 12.8; 0 without one."""
    version = ctypes.c_int(0)
    try:
        library = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
        if library.cuDriverGetVersion(ctypes.byref(version)) != 0:
            return 0
    except (OSError, AttributeError):
        return 0
    return version.value


def advice(found: int) -> str:
    """Return advice on getting a GPU to work, with a driver for CUDA ``found``."""
    if found == 0:
        return (
            "there is no NVIDIA driver either: with an NVIDIA GPU, install the driver, then "
            'pip install "cupy-cuda12x[ctk]", or cuda13x for a CUDA 13 driver'
        )
    if found // 1000 < _OLDEST:
        return (
            f"the NVIDIA driver supports CUDA {dotted(found)} at most: "
            "update it to one for CUDA 12 or 13"
        )
    return f'pip install "cupy-cuda{min(found // 1000, 13)}x[ctk]"'


def _trouble(said: str, found: int, made_for: int) -> str:
    """Return what is wrong, given CuPy's error and the CUDA of the driver and of CuPy."""
    if found == 0:
        return f"there is no NVIDIA driver ({said}); install it, or use device='cpu'"
    if found // 1000 < _OLDEST:
        return advice(found)
    if found // 1000 < made_for // 1000:
        return (
            f"the NVIDIA driver supports CUDA {dotted(found)} at most, but CuPy is built for CUDA "
            f"{dotted(made_for)}; update the driver, or pip uninstall "
            f"cupy-cuda{made_for // 1000}x and {advice(found)}"
        )
    hidden = f" (CUDA_VISIBLE_DEVICES={shown})" if (shown := _shown()) is not None else ""
    return f"CuPy reports {said!r}{hidden}; check nvidia-smi, or use device='cpu'"


def _shown() -> str | None:
    return os.environ.get("CUDA_VISIBLE_DEVICES")


def dotted(version: int) -> str:
    """Return CUDA's version number as people write it: 12080 is 12.8."""
    return f"{version // 1000}.{version % 1000 // 10}"


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message."""
    return (str(error).splitlines() or [type(error).__name__])[0]
