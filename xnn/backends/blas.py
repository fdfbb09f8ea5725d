"""The BLAS that SciPy ships, through the pointers that SciPy exports for Cython.

NumPy's own ``matmul`` has neither ``alpha`` nor ``beta``.
"""

from __future__ import annotations

# SciPy 1.18 imports it, and Python would refuse that in a thread that outlives the main one.
import concurrent.futures.thread  # noqa: F401
from functools import cache
from typing import Any

import numpy as np

from . import strides
from .base import Array


class Blas:
    """``sgemm`` or ``dgemm`` as a C function, and its arguments as C pointers.

    Through cffi, which calls a function of 13 pointers in 0.5 µs, where ctypes takes 0.9.
    """

    def __init__(self, char: str) -> None:
        from ctypes import PYFUNCTYPE, c_char_p, c_void_p, py_object, pythonapi

        from cffi import FFI
        from scipy.linalg import cython_blas

        name, self._type = {"f": ("sgemm", "float"), "d": ("dgemm", "double")}[char]
        functions: Any = cython_blas.__pyx_capi__
        get_name = PYFUNCTYPE(c_char_p, py_object)(("PyCapsule_GetName", pythonapi))
        get_pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", pythonapi))
        signature = get_name(functions[name])
        if signature.count(b"int *") != 6:
            raise ImportError(f"this SciPy's BLAS does not use 32-bit integers: {signature!r}")
        address = get_pointer(functions[name], get_name(functions[name]))
        self._ffi = FFI()
        pointers = ", ".join(["void *"] * 13)
        self._gemm = self._ffi.cast(f"void (*)({pointers})", address)
        self._constants: dict[tuple[str, bytes | int | float], Any] = {}

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: float | Array, beta: float | Array
    ) -> tuple[Any, list[Any], tuple[Any, ...]]:
        """Return the function, its arguments, and what must live as long as these.

        It computes ``out ← alpha · a @ b + beta · out``.
        """
        # BLAS is column-major: out.T = b.T @ a.T.
        trans_b, ld_b = strides.transposed(b)
        trans_a, ld_a = strides.transposed(a)
        trans_out, ld_out = strides.transposed(out)
        if trans_out:
            raise ValueError("gemm: out must be row-major")
        owners = (
            self._constant(b"T" if trans_b else b"N"),
            self._constant(b"T" if trans_a else b"N"),
            self._constant(out.shape[1]),
            self._constant(out.shape[0]),
            self._constant(a.shape[1]),
            self._scalar(alpha),
            b,
            self._constant(ld_b),
            a,
            self._constant(ld_a),
            self._scalar(beta),
            out,
            self._constant(ld_out),
        )
        return self._gemm, [self._pointer(owner) for owner in owners], owners

    def _constant(self, value: bytes | int) -> Any:
        """Return a letter or an integer as a read-only C value."""
        return self._made("int" if isinstance(value, int) else "char", value)

    def _scalar(self, value: float | Array) -> Any:
        return value if isinstance(value, np.ndarray) else self._made(self._type, value)

    def _made(self, kind: str, value: bytes | int | float) -> Any:
        made = self._constants.get((kind, value))
        if made is None:
            made = self._constants[kind, value] = self._ffi.new(f"{kind} *", value)
        return made

    def _pointer(self, owner: Any) -> Any:
        """Return the address of an array or C value. Any type but ``void *`` makes calls slower."""
        where = owner.ctypes.data if isinstance(owner, np.ndarray) else owner
        return self._ffi.cast("void *", where)


@cache
def of(char: str) -> Blas:
    """Return the BLAS for NumPy's ``"f"`` or ``"d"``."""
    return Blas(char)
