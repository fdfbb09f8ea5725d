"""cuBLAS on a handle of our own, by ctypes.

Its numbers alpha and beta are read from device memory, so that a captured product follows a
learning rate that changes; its workspace is given to it, so that it may be captured at all.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

from . import strides
from .base import Array, DeviceError

_POINTER_MODE_DEVICE = 1
_TF32 = 3  # CUBLAS_TF32_TENSOR_OP_MATH
#: Held while a stream captures, and in any thread by what waits for the whole GPU, which would end
#: the capture: where handles are made and destroyed.
CAPTURING = threading.RLock()
# NVIDIA's advice for Hopper is 32 MiB, for others 4; a workspace costs nothing else.
_WORKSPACE = 32 * 1024 * 1024


class Cublas:
    """``cublasSgemm``, ``cublasDgemm``, and many of them at once, on one stream at a time."""

    def __init__(self, library: Any, cupy: Any, stream: Any, tf32: bool = False) -> None:
        self._library = library
        self._handle = ctypes.c_void_p()
        with CAPTURING:
            self._call("cublasCreate_v2", ctypes.byref(self._handle))
        weakref.finalize(self, _destroy, library, self._handle)
        self._workspace = cupy.cuda.alloc(_WORKSPACE)
        self.go_to(stream)
        self._call("cublasSetPointerMode_v2", self._handle, ctypes.c_int(_POINTER_MODE_DEVICE))
        if tf32:
            self._call("cublasSetMathMode", self._handle, ctypes.c_int(_TF32))

    def go_to(self, stream: Any) -> None:
        """Work on ``stream`` from here on."""
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream.ptr))
        # After the stream, which takes the workspace away.
        workspace, size = ctypes.c_void_p(self._workspace.ptr), ctypes.c_size_t(_WORKSPACE)
        self._call("cublasSetWorkspace_v2", self._handle, workspace, size)

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: Array, beta: Array, count: int = 1
    ) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Return the call that computes ``out ← alpha · a @ b + beta · out``.

        Or so for ``count`` products of a longer one: each has the columns of ``a`` and the rows of
        ``b`` that come next, and gives the next matrix behind ``out``, which lies without gaps.
        """
        name = {"f": "cublasSgemm", "d": "cublasDgemm"}[out.dtype.char]
        # cuBLAS counts by columns: out.T = b.T @ a.T.
        trans_b, ld_b = strides.transposed(b)
        trans_a, ld_a = strides.transposed(a)
        trans_out, ld_out = strides.transposed(out)
        if trans_out:
            raise ValueError("gemm: out must be stored by rows")
        arrays = [
            (b, ld_b, b.shape[0] * b.strides[0]),
            (a, ld_a, a.shape[1] * a.strides[1]),
            (out, ld_out, out.nbytes),
        ]
        of_b, of_a, of_out = (
            (
                _pointer(array),
                ctypes.c_int(leading),
                *([ctypes.c_longlong(step // out.itemsize)] if count > 1 else []),
            )
            for array, leading, step in arrays
        )
        arguments = (
            self._handle,
            *map(ctypes.c_int, (trans_b, trans_a, out.shape[1], out.shape[0], a.shape[1])),
            *(_pointer(alpha), *of_b, *of_a, _pointer(beta), *of_out),
        )
        if count > 1:
            return self._call, (f"{name}StridedBatched", *arguments, ctypes.c_int(count))
        return self._call, (f"{name}_v2", *arguments)

    def _call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._library, name)(*arguments)
        if status != 0:
            raise DeviceError(f"cuBLAS failed: {name} returned {status}")


def _renew() -> None:
    """Make the lock anew in the copy of a process, where whoever held it is not."""
    global CAPTURING
    CAPTURING = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def _destroy(library: Any, handle: ctypes.c_void_p) -> None:
    with CAPTURING:
        library.cublasDestroy_v2(handle)


def load() -> ctypes.CDLL:
    """Return the library. Raises `DeviceError` where it is not to be had."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:
        raise DeviceError(
            f"no GPU can be used: cuBLAS cannot be loaded ({str(error).splitlines()[0]}); "
            'pip install "cupy-cuda12x[ctk]" (or cuda13x) brings it'
        ) from None


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.data.ptr)
