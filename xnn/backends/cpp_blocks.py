"""A step over many rows, a block of them at a time, with no Python between blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import compiler, cplusplus, strides
from . import cpp_source as source
from .base import Array, Call


class Blocks:
    """A step that is all kernels, and the arrays of a block; see `Backend.blockwise`.

    ``step`` is the call of a kernel.
    """

    def __init__(self, step: Call, takes: Sequence[Array], gives: Sequence[Array]) -> None:
        self._step, self._takes, self._gives = step, list(takes), list(gives)
        self._loops: dict[tuple[Any, ...], _Loop | None] = {}

    def run(self, given: Sequence[Any], wanted: Sequence[Any]) -> int:
        """Run whole blocks of rows, and return how many rows that was.

        It is 0 if there are arrays that no kernel can copy.
        """
        rows = len(self._takes[0])
        times = len(given[0]) // rows
        arrays = [*given, *wanted]
        if times == 0 or not all(isinstance(array, np.ndarray) for array in arrays):
            return 0
        key = tuple((array.dtype, array.strides, array.flags.aligned) for array in arrays)
        if key not in self._loops:
            self._loops[key] = None  # which stays if the compiler fails
            self._loops[key] = self._made(*([array[:rows] for array in a] for a in (given, wanted)))
        loop = self._loops[key]
        if loop is None:
            return 0
        loop.run(arrays, times)
        return times * rows

    def _made(self, given: list[Array], wanted: list[Array]) -> _Loop | None:
        """Return the loop for arrays laid out like these, or None if no kernel can copy one."""
        into = [_Copy.of(array, place) for array, place in zip(given, self._takes, strict=True)]
        out = [_Copy.of(place, array) for place, array in zip(self._gives, wanted, strict=True)]
        copies = [copy for copy in (*into, *out) if copy is not None]
        if len(copies) < len(into) + len(out):
            return None
        functions = compiler.load({source.EACH, *(copy.text for copy in copies)})
        kernels = [(functions[copy.text], copy.pointers, copy.values) for copy in copies]
        kernels.insert(len(into), (self._step[0], *self._step[1]))
        # A copy's first pointer is where it writes, the second where it reads.
        moving = [copy.pointers + (i < len(into)) for i, copy in enumerate(copies)]
        steps = [array.strides[0] * len(array) for array in (*given, *wanted)]
        p = compiler.pointers([part for kernel in kernels for part in kernel] + moving)
        v = compiler.integers([0, len(kernels), len(moving), *steps])
        return _Loop(functions[source.EACH], p, v, moving, copies)


@dataclass(frozen=True)
class _Loop:
    """`EACH` and its arguments."""

    function: Any
    pointers: Any
    values: Any
    moving: list[Any]  # where the pointers to arrays are stored
    copies: list[_Copy]  # which keep those alive

    def run(self, arrays: Sequence[Array], times: int) -> None:
        for place, array in zip(self.moving, arrays, strict=True):
            place[0] = compiler.pointer(array)
        self.values[0] = times
        self.function(self.pointers, self.values)


@dataclass(frozen=True)
class _Copy:
    """The kernel that copies an array to another of the same shape."""

    text: str
    pointers: Any
    values: Any

    @classmethod
    def of(cls, array: Array, to: Array) -> _Copy | None:
        """Return the kernel, or None if there is none."""
        kinds = cplusplus.kind(array), cplusplus.kind(to)
        try:
            shape, (into, of) = strides.flattened(to.shape, [to, array])
        except ValueError:  # gaps along too many axes
            return None
        if None in kinds or not array.flags.aligned:
            return None
        operand = ("a", kinds[0], min(of[1], 2))
        text = source.elementwise("a", str(kinds[1]), min(into[1], 2), (operand,))
        pointers = compiler.pointers([compiler.pointer(to), compiler.pointer(array)])
        return cls(text, pointers, compiler.integers([*shape, *into, *of]))
