"""Numbers too small for a normal exponent (denormals): a processor can treat them as zero.

Processors compute with them some hundred times slower. Training makes many: what a velocity or an
average retains of a pixel that is never lit again shrinks at each step until it is denormal, and
then no further, because of rounding.
"""

from __future__ import annotations

import ctypes
import platform
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

#: The control bits for that: of MXCSR, for results and for operands, or of FPCR.
BITS = {"x86_64": 0x8040, "aarch64": 1 << 24}
# Their place in C's fenv_t, counted in 32-bit words.
_PLACES = {"x86_64": 7, "aarch64": 0}

Switch = Callable[[], object]


def switches() -> tuple[Switch, Switch]:
    """Return two functions: one makes the calling thread treat denormals as zero, one undoes that.

    They are for one thread at a time. Except on Linux they do nothing.
    """
    library = _library()
    return (_nothing, _nothing) if library is None else _switches(*library)


def _nothing() -> None:
    return


def _switches(ffi: Any, get: Any, put: Any) -> tuple[Switch, Switch]:
    word, bits = _PLACES[platform.machine()], BITS[platform.machine()]
    before, now = ffi.new("uint32_t[16]"), ffi.new("uint32_t[16]")

    def on() -> None:
        get(before)
        get(now)
        now[word] |= bits
        put(now)

    def off() -> None:
        put(before)

    return on, off


@cache
def _library() -> tuple[Any, Any, Any] | None:
    """Return cffi, and C's fegetenv and fesetenv; None where these are not known to work."""
    if not sys.platform.startswith("linux") or platform.machine() not in _PLACES:
        return None
    try:
        from cffi import FFI

        ffi, libc = FFI(), ctypes.CDLL(None)
        functions = [
            ffi.cast("int (*)(void *)", ctypes.cast(function, ctypes.c_void_p).value)
            for function in (libc.fegetenv, libc.fesetenv)
        ]
    except (AttributeError, OSError):
        return None
    on, off = _switches(ffi, *functions)
    on()
    works = (np.full(8, 1e-40, np.float32) * np.float32(0.5) == 0).all()
    off()
    return (ffi, *functions) if works else None
