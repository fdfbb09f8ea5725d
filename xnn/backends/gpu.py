"""NVIDIA GPUs by CuPy. So far this finds out why a GPU cannot be used, and says so."""

from __future__ import annotations

from .base import Backend, DeviceError

_INSTALL = 'pip install "xnn[cuda12]" (or "xnn[cuda13]" for a driver of CUDA 13)'


def open_gpu(number: int) -> Backend:
    """Return the backend of GPU ``number``. Raises `DeviceError` where it cannot be used."""
    try:
        import cupy
    except ImportError:
        raise DeviceError(
            f"no GPU can be used: CuPy is not installed; with an NVIDIA GPU and driver, {_INSTALL}"
        ) from None
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # whatever CuPy meets here, the GPU is not to be had
        raise DeviceError(
            f"no GPU can be used: CuPy {cupy.__version__} says {str(error).splitlines()[0]!r}; "
            "install or update NVIDIA's driver, or use device='cpu'"
        ) from None
    if number >= count:
        raise DeviceError(f"no GPU {number}: this machine has {count}; the first one is 'gpu:0'")
    raise DeviceError("no GPU can be used: this version of xnn runs on the CPU; use device='cpu'")
