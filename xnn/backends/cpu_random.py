"""Random numbers that are the same on every device: a hash of a key, a counter and a position."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Array, Call

# Constants of a 32-bit hash of little bias (Wellons 2018, "Prospecting for hash functions").
FIRST, SECOND = 0x7FEB352D, 0x846CA68B
# An odd number near 2³² divided by the golden ratio: multiplied by it, neighbours lie far apart.
SPREAD = 0x9E3779B1


def mix(value: int) -> int:
    """Return a 32-bit hash."""
    value ^= value >> 16
    value = value * FIRST & 0xFFFFFFFF
    value ^= value >> 15
    value = value * SECOND & 0xFFFFFFFF
    return value ^ value >> 16


def cplusplus(prefix: str) -> str:
    """Return `mix` as a C++ function, with ``prefix`` before it."""
    return f"""{prefix} unsigned mix(unsigned v) {{
    v = (v ^ v >> 16) * {FIRST}u;
    v = (v ^ v >> 15) * {SECOND}u;
    return v ^ v >> 16;
}}"""


def uniform(
    rng_state: Array,
    number: int,
    out: Array,
    first: int,
    scratch: Callable[[tuple[int, ...], Any], Array],
) -> Iterator[Call]:
    """``out ←`` numbers above 0 and at most 1; see `Backend.uniform`."""
    bits, part = (scratch((out.size,), np.uint32) for _ in range(2))
    base = scratch((1,), np.uint32)
    places = np.arange(first, first + out.size).astype(np.uint32) * np.uint32(SPREAD)
    yield _base, (rng_state, number, base)
    yield np.add, (places, base, bits)
    for shift, factor in ((16, FIRST), (15, SECOND), (16, None)):
        yield np.right_shift, (bits, np.uint32(shift), part)
        yield np.bitwise_xor, (bits, part, bits)
        if factor is not None:
            yield np.multiply, (bits, np.uint32(factor), bits)
    yield np.right_shift, (bits, np.uint32(8), bits)
    yield np.add, (bits, np.uint32(1), bits)
    flat = out.reshape(-1)
    yield np.copyto, (flat, bits, "unsafe")
    yield np.multiply, (flat, out.dtype.type(2.0**-24), flat)


def _base(rng_state: NDArray[np.uint32], number: int, base: NDArray[np.uint32]) -> None:
    key, step = rng_state.tolist()
    base[0] = mix((mix((key + number * SPREAD) & 0xFFFFFFFF) + step) & 0xFFFFFFFF)
