"""cuBLAS on a handle separate from CuPy's, through ctypes.

alpha and beta are read from device memory, so that a captured product follows a changing learning
rate; the workspace is supplied to the handle, so that products can be captured at all.
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
#: Held while a stream captures, and by any thread that creates or destroys a handle: this waits for
#: the whole GPU, which would end the capture.
CAPTURING = threading.RLock()
# NVIDIA recommends 32 MiB for Hopper, 4 for others; a workspace has no other cost.
_WORKSPACE = 32 * 1024 * 1024


class Cublas:
    """``cublasSgemm``, ``cublasDgemm`` and their batched forms, on one stream at a time."""

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
        """Work on ``stream`` from now on."""
        self._call("cublasSetStream_v2", self._handle, ctypes.c_void_p(stream.ptr))
        # After the stream: setting that resets the workspace.
        workspace, size = ctypes.c_void_p(self._workspace.ptr), ctypes.c_size_t(_WORKSPACE)
        self._call("cublasSetWorkspace_v2", self._handle, workspace, size)

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: Array, beta: Array, count: int = 1
    ) -> tuple[Callable[..., None], tuple[Any, ...]]:
        """Return the call that computes ``out ← alpha · a @ b + beta · out``.

        Or ``count`` such products, parts of a longer one: each takes the next columns of ``a`` and
        rows of ``b``, and gives the next matrix after ``out``, which is contiguous.
        """
        name = {"f": "cublasSgemm", "d": "cublasDgemm"}[out.dtype.char]
        # cuBLAS is column-major: out.T = b.T @ a.T.
        trans_b, ld_b = strides.transposed(b)
        trans_a, ld_a = strides.transposed(a)
        trans_out, ld_out = strides.transposed(out)
        if trans_out:
            raise ValueError("gemm: out must be row-major")
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
    """Replace the lock in a forked process, which lacks the thread that held it."""
    global CAPTURING
    CAPTURING = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


def _destroy(library: Any, handle: ctypes.c_void_p) -> None:
    with CAPTURING:
        library.cublasDestroy_v2(handle)


def load() -> ctypes.CDLL:
    """Return the library. Raises `DeviceError` if it is unavailable."""
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)
    except Exception as error:
        raise DeviceError(
            f"no GPU can be used: cuBLAS cannot be loaded ({str(error).splitlines()[0]}); "
            'pip install "cupy-cuda12x[ctk]" (or cuda13x) installs it'
        ) from None


def _pointer(array: Array) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.data.ptr)
