"""The CPU with a C++ compiler: what a heavy step does besides BLAS, in kernels.

A step that is worth it is compiled to kernels, which are played one after another without Python,
and so without its lock: threads no longer block each other. The rest is as without a compiler.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import Any

import numpy as np

from . import compiler, cplusplus, cpp_dots, cpp_gemm, cpp_replays, strides, threads
from . import cpp_source as source
from . import cpp_windows as windows
from .base import Array, Blockwise, Call, Function, Replay
from .cpp_blocks import Blocks
from .cpu import CpuBackend
from .windows import Window

# Compiling takes a second, once. That is worth it for a step of this many multiplications, or for
# this many steps: kernels save ten microseconds and more in each, here and in later trainings.
_WORTH_KERNELS = 1_000_000
_MANY_STEPS = 1_000
# Predictions of few samples go on while kernels are compiled for them, after this many calls.
_MANY_CALLS = 5_000
# Outputs of many samples use kernels from this many multiplications on, and a block of samples is
# to stay in cache, with the results between the layers.
_WORTH_BLOCKS = 10_000_000
_BLOCK = 1024 * 1024
# Multiplications worth handing to a waiting thread, and the multiplications that such threads must
# save a replay to be worth waking.
_WORTH_PART = 1_000_000
_WORTH_WAKING = 10_000_000
# Products that suit no kernel go to BLAS and its threads from this many multiplications on.
_WORTH_BLAS = 16_000_000
# Rows, columns and numbers are divided at multiples of this.
_UNIT = 16
# Matrix product kernels: the first that suits is used, or else BLAS.
_PRODUCTS = (cpp_dots, cpp_gemm)
# The key of the workspace for products among a lane's blocks; others are counted from 0.
_ROOM = -1
# How many multiplications take as long as passing over a number, or updating a parameter.
_PASS = 20
_UPDATE = 40
# And how many as long as a small network's answer, which takes a few microseconds.
_CALL = 20_000
# How many calls of a repeat are recorded for a loop: the first, which may prepare something; two
# for the addresses; and the last, to check them.
_RECORDED = 4


@dataclass
class _Noting:
    """What is known of a step while its kernels are recorded."""

    whole: bool = False  # whether not to divide what comes: it is a lane, or in one
    blas_divides: bool = False  # whether there are products that BLAS divides among threads
    saved: int = 0  # how many multiplications run concurrently with others
    numbers: dict[Any, Array] = field(default_factory=dict)  # constants, by their value and dtype


class CppBackend(CpuBackend):
    """The CPU, by kernels, BLAS and NumPy."""

    _broken = False  # whether the compiler has failed in this process; warned about once

    def __init__(self) -> None:
        super().__init__()
        self._noting: _Noting | None = None  # while a step worth kernels is compiled
        self._lend: Callable[[tuple[int, ...], Any], Array] | None = None  # see `scratch`
        self._blas_divided = False  # whether there have been products that BLAS divides

    def compile(
        self, step: Callable[[], None], multiplications: int = 0, times: int = 1, lane: int = 0
    ) -> Replay:
        if not self._compiles(multiplications, times):
            return super().compile(step, lane=lane)
        self._noting = _Noting()
        try:
            return super().compile(step, lane=lane)
        except compiler.CompilerError as error:
            _give_up(error)
        finally:
            self._noting = None
        return super().compile(step, lane=lane)

    def block_bytes(self, multiplications: int) -> int:
        whole = super().block_bytes(multiplications)
        return _BLOCK if self._has_kernels(multiplications, _WORTH_BLOCKS) else whole

    def blockwise(
        self,
        step: Callable[[], None],
        takes: Sequence[Array],
        gives: Sequence[Array],
        checks: Array,
        multiplications: int = 0,
        lane: int = 0,
    ) -> Blockwise:
        # As in `Backend`, but without Python between blocks.
        if not self._has_kernels(multiplications, _WORTH_BLOCKS):
            return super().blockwise(step, takes, gives, checks, multiplications, lane)
        bad = np.zeros(1, np.int64)
        checked = partial(self._check, step, checks, bad)
        replay = self.compile(checked, max(multiplications, _WORTH_KERNELS), lane=lane)
        singly = self._by_blocks(replay, takes, gives, checks)
        whole = getattr(replay, "call", None)
        if whole is None:
            return singly
        blocks = Blocks(whole, takes, gives)

        def call(given: Sequence[Any], wanted: Sequence[Any], check: bool) -> bool:
            bad[0], done = 0, 0
            try:
                done = blocks.run(given, wanted)
            except compiler.CompilerError as error:  # in the kernels that copy these arrays
                _give_up(error)
            if check and bad[0]:
                return False
            rest = [array[done:] for array in given], [array[done:] for array in wanted]
            return singly(*rest, check)

        return call

    def function(
        self,
        step: Callable[[], None],
        takes: Array,
        gives: Array,
        checks: Array,
        multiplications: int = 0,
        improve: Callable[[Function], None] | None = None,
    ) -> Function:
        slow = super().function(step, takes, gives, checks)
        if improve is None or not self._has_kernels():
            return slow
        bad, left, loading = np.zeros(1, np.int64), _MANY_CALLS, None
        checked = partial(self._check, step, checks, bad)
        each = 1 + multiplications // _CALL

        def call(argument: Any) -> Any | None:
            nonlocal left, loading
            left -= each
            if left <= 0 and loading is None:  # meanwhile, calls go on as they are
                loading = threads.begin(partial(compiler.load, self._kernels_of(checked)))
            elif loading is not None and loading.over:
                error, loading, left = loading.error, None, _MANY_CALLS
                if isinstance(error, compiler.CompilerError):
                    _give_up(error)
                improve(slow if error else self._quick(checked, takes, gives, bad, slow))
            return slow(argument)

        return call

    def _kernels_of(self, step: Callable[[], None]) -> set[str]:
        """Return the texts of all kernels that a replay of a step needs."""
        self._noting = _Noting()
        try:
            return cpp_replays.texts(self._record(step)[0]).union(cpp_replays.PLAYERS)
        finally:
            self._noting = None

    def _quick(
        self, checked: Callable[[], None], takes: Array, gives: Array, bad: Array, slow: Function
    ) -> Function:
        """Return a `Function` that is one call of kernels, or the slow one if more is needed."""
        replay = self.compile(checked, _WORTH_KERNELS)
        if getattr(replay, "call", None) is None:
            return slow
        copy, widest, result = np.copyto, takes.itemsize, gives.copy

        def call(argument: Any) -> Any | None:
            if argument.itemsize > widest:  # conversion may overflow
                return slow(argument)
            copy(takes, argument, "unsafe")
            replay()
            if bad[0]:
                bad[0] = 0
                return slow(argument)
            return result()

        return call

    def _check(self, step: Callable[[], None], checks: Array, bad: Array) -> None:
        """Do a step; in kernels, add to ``bad`` if numbers in ``checks`` are then not finite."""
        with self._whole():  # lanes, if any, take whole blocks
            step()
        if self._noting:
            rows = np.atleast_2d(checks)
            sizes = [*rows.shape, strides.row(rows)]
            self._note(source.finite(str(cplusplus.kind(rows))), [rows, bad], sizes)

    # Operations.

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: float | Array = 1.0, beta: float | Array = 0.0
    ) -> None:
        fits = a.shape[1] == b.shape[0] and out.shape == (a.shape[0], b.shape[1])
        work = out.size * a.shape[1]
        if not self._noting or not fits or not work or _gaps(out):
            super().gemm(a, b, out, alpha, beta)
            return
        own = next((way for way in _PRODUCTS if way.suits(a, b, out)), None)
        if work >= _WORTH_BLAS and own is None:
            if not self._noting.whole:
                self._noting.blas_divides = self._blas_divided = True
            super().gemm(a, b, out, alpha, beta)
            return

        def product(a: Array, b: Array, out: Array) -> None:
            if own is None:
                CpuBackend.gemm(self, a, b, out, alpha, beta)
                return
            text, values, size = own.kernel(a, b, out)
            scalars = [self._number(number, out.dtype) for number in (alpha, beta)]
            self._note(text, [a, b, out, *scalars, self._room(size)], values)

        if strides.by_columns(b) and out.shape[1] >= 4 * _UNIT:
            self._divide(work, out.shape[1], lambda part: product(a, b[:, part], out[:, part]))
        else:
            self._divide(work, out.shape[0], lambda part: product(a[part], b, out[part]))

    def _room(self, size: int) -> Array:
        """Return ``size`` bytes of workspace for a product, reused by the next in this lane."""
        held = self._blocks.get(_ROOM)
        if held is None or held.nbytes < size:
            held = self._blocks[_ROOM] = self.zeros((size,), np.uint8)
        return held

    def elementwise(self, formula: str, out: Array, **operands: float | Array) -> None:
        if not self._noting:
            super().elementwise(formula, out, **operands)
            return
        used = {name: operands[name] for name in sorted(cplusplus.names(formula))}
        if not self._suits(formula, out, used):
            super().elementwise(formula, out, **operands)
            return
        arrays = [out, *(self._number(v, out.dtype) for v in used.values())]
        if out.ndim > 2:
            try:
                strides.flattened(out.shape, arrays)
            except ValueError:  # gaps along too many axes
                super().elementwise(formula, out, **operands)
                return

        def evaluate(part: slice) -> None:
            swept = (array.ndim == out.ndim > 0 and len(array) == len(out) for array in arrays)
            own = [array[part] if s else array for array, s in zip(arrays, swept, strict=True)]
            self._evaluate(formula, own, used)

        self._divide(out.size * _PASS, out.shape[0] if out.ndim else 1, evaluate)

    def _evaluate(self, formula: str, arrays: list[Array], used: dict[str, Any]) -> None:
        """Record the kernel of a formula; the first of the arrays is the output."""
        out, (shape, steps) = arrays[0], strides.flattened(arrays[0].shape, arrays)
        told = tuple(
            (name, cplusplus.kind(v) if _is_array(v) else None, min(inner, 2))
            for (name, v), (_, inner) in zip(used.items(), steps[1:], strict=True)
        )
        text = source.elementwise(formula, str(cplusplus.kind(out)), min(steps[0][1], 2), told)
        self._note(text, arrays, [*shape, *(n for pair in steps for n in pair)])

    def update(self, program: str, **operands: float | Array) -> None:
        if not self._noting:
            super().update(program, **operands)
            return
        swept: dict[str, Any] = {name: v for name, v in operands.items() if np.ndim(v)}
        first = next(iter(swept.values()))
        alike = all(v.shape == first.shape and v.dtype == first.dtype for v in swept.values())
        if not alike or not self._suits(program, first, operands):
            super().update(program, **operands)
            return
        told = tuple((n, cplusplus.kind(v) if _is_array(v) else None) for n, v in operands.items())
        text = source.update(program, str(cplusplus.kind(first)), told, frozenset(swept))
        given = {name: self._number(v, first.dtype) for name, v in operands.items()}

        def change(part: slice) -> None:
            own = [array[part] if name in swept else array for name, array in given.items()]
            self._note(text, own, [part.stop - part.start])

        self._divide(first.size * _UPDATE, first.size, change)

    def softmax(self, z: Array, out: Array) -> None:
        if not self._noting or _gaps(z) or _gaps(out):
            super().softmax(z, out)
            return
        rows = strides.row(z), strides.row(out)
        self._note(source.softmax(str(cplusplus.kind(out))), [z, out], [*z.shape, *rows])

    def row_sums(self, values: Array, out: Array) -> None:
        kind = cplusplus.kind(out)
        alike = kind is not None and values.dtype == out.dtype and out.flags.c_contiguous
        if not self._noting or not alike or _gaps(values):
            super().row_sums(values, out)
            return
        sizes = [*values.shape, strides.row(values)]
        self._note(source.row_sums(str(kind)), [values, out], sizes)

    def argmax(self, values: Array, out: Array) -> None:
        kinds = cplusplus.kind(values), cplusplus.kind(out)
        if not self._noting or not all(kinds) or _gaps(values) or not out.flags.c_contiguous:
            super().argmax(values, out)
            return
        text = source.argmax(*map(str, kinds))
        self._note(text, [values, out], [*values.shape, strides.row(values)])

    def copy(self, source: Array, out: Array) -> None:
        if self._noting and self._suits("a", out, {"a": source}):
            self.elementwise("a", out, a=source)
        else:
            super().copy(source, out)

    def gather(self, rows: Array, index: Array, out: Array) -> None:
        if rows.ndim == out.ndim == 1:
            rows, out = rows[:, None], out[:, None]
        arrays = [rows, index, out]
        if not self._noting or rows.ndim != 2 or not all(map(cplusplus.kind, arrays)):
            super().gather(rows, index, out)
            return
        text = source.gather(*(str(cplusplus.kind(array)) for array in arrays))
        steps = [strides.row(rows), strides.row(out)]

        def fetch(part: slice) -> None:
            own = out[part]
            self._note(text, [rows, index[part], own], [*own.shape, *steps, len(rows)])

        self._divide(out.size * _PASS, len(out), fetch)

    def unfold(self, x: Array, out: Array, window: Window) -> None:
        if not self._noting:
            super().unfold(x, out, window)
            return
        kind, image, place = (
            str(cplusplus.kind(x)),
            strides.placement(x),
            strides.places(out, x, window),
        )
        by_rows = not _gaps(out)
        text = windows.unfold(kind, window, image, place, by_rows)
        column = 0 if by_rows else out.strides[1] // out.itemsize
        self._note(text, [x, out], [len(x), column])

    def fold(self, columns: Array, out: Array, window: Window) -> None:
        if not self._noting or _gaps(columns):
            super().fold(columns, out, window)
            return
        placements = strides.placement(out), strides.places(columns, out, window)
        self._note(
            windows.fold(str(cplusplus.kind(out)), window, *placements), [columns, out], [len(out)]
        )

    def max_pool(self, x: Array, out: Array, index: Array, window: Window) -> None:
        if not self._noting:
            super().max_pool(x, out, index, window)
            return
        kinds = str(cplusplus.kind(x)), str(cplusplus.kind(index))
        placements = strides.placement(x), strides.placement(out)
        self._note(windows.max_pool(*kinds, window, *placements), [x, out, index], [len(x)])

    def max_pool_backward(self, delta: Array, index: Array, out: Array, window: Window) -> None:
        if not self._noting:
            super().max_pool_backward(delta, index, out, window)
            return
        kinds = str(cplusplus.kind(out)), str(cplusplus.kind(index))
        placements = strides.placement(out), strides.placement(delta)
        self._note(
            windows.max_pool_backward(*kinds, window, *placements), [delta, index, out], [len(out)]
        )

    def sum_pool(self, x: Array, out: Array, window: Window) -> None:
        if not self._noting:
            super().sum_pool(x, out, window)
            return
        placements = strides.placement(x), strides.placement(out)
        self._note(
            windows.sum_pool(str(cplusplus.kind(x)), window, *placements), [x, out], [len(x)]
        )

    def sum_pool_backward(self, delta: Array, out: Array, window: Window) -> None:
        if not self._noting:
            super().sum_pool_backward(delta, out, window)
            return
        placements = strides.placement(out), strides.placement(delta)
        self._note(
            windows.sum_pool_backward(str(cplusplus.kind(out)), window, *placements),
            [delta, out],
            [len(out)],
        )

    def resample(self, x: Array, rows: Array, columns: Array, out: Array) -> None:
        if not self._noting or not rows.flags.c_contiguous or not columns.flags.c_contiguous:
            super().resample(x, rows, columns, out)
            return
        text = windows.resample(
            str(cplusplus.kind(x)), strides.placement(x), strides.placement(out)
        )
        self._note(text, [x, rows, columns, out], [len(x)])

    def uniform(self, rng_state: Array, number: int, out: Array, first: int = 0) -> None:
        if not self._noting:
            super().uniform(rng_state, number, out, first)
            return
        self._note(
            source.uniform(str(cplusplus.kind(out))), [rng_state, out], [out.size, number, first]
        )

    def advance(self, rng_state: Array) -> None:
        if self._noting:
            self._note(source.ADVANCE, [rng_state], [])
        else:
            super().advance(rng_state)

    # How kernels are recorded, and played.

    def repeat(self, times: int, do: Callable[[int], None]) -> None:
        if not self._noting or times <= _RECORDED:
            super().repeat(times, do)
            return
        do(0)
        rest, saved, memory = times - 1, self._noting.saved, dict[Any, Array]()
        second, third, last = (self._aside(partial(do, i), memory) for i in (1, 2, rest))
        constants = map(compiler.address, self._noting.numbers.values())
        loop = cpp_replays.loop(second, third, last, rest, constants)
        each = (self._noting.saved - saved) // 3
        self._noting.saved = saved
        if loop is None:
            super().repeat(rest, lambda i: do(i + 1))
        else:
            self._noting.saved += rest * each
            self._do(loop)

    def recorded(self, times: int, multiplications: int = 0, of: int = 1) -> int:
        kernels = self._compiles(multiplications, of)
        return min(times, _RECORDED) if kernels else times

    def _aside(self, do: Callable[[], None], memory: dict[Any, Array]) -> list[Call]:
        """Return the tape of what is done; all that are given one ``memory`` share scratch."""
        numbers = count()

        def scratch(shape: tuple[int, ...], dtype: Any) -> Array:
            key = next(numbers), shape, np.dtype(dtype)
            if key not in memory:
                memory[key] = self.zeros(shape, dtype)
            return memory[key]

        before, (self._tape, self._lend) = (self._tape, self._lend), ([], scratch)
        try:
            do()
            return self._tape
        finally:
            self._tape, self._lend = before

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return (self._lend or super().scratch)(shape, dtype)

    def together(self, *lanes: Callable[[], None]) -> None:
        with self._whole() if len(lanes) > 1 else nullcontext():
            super().together(*lanes)

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Keep what is recorded within from being divided among threads."""
        noting = self._noting or _Noting()
        before, noting.whole = noting.whole, True
        try:
            yield
        finally:
            noting.whole = before

    def _divide(self, work: int, size: int, do: Callable[[slice], None]) -> None:
        """Do work of this many multiplications in lanes, if that is faster."""
        if size == 0:  # the parameters of a network that has none
            return
        assert self._noting is not None
        most = 1 if self._noting.whole else min(work // _WORTH_PART, size // _UNIT)
        lanes = min(most, self._threads()) if most > 1 else 1
        own = -(-size // lanes // _UNIT) * _UNIT
        slices = [slice(start, min(start + own, size)) for start in range(0, size, own)]
        self.together(*(partial(do, part) for part in slices))
        if lanes > 1:
            assert self._tape is not None
            self._tape[-1] = cpp_replays.divided, self._tape[-1][1]
            self._noting.saved += work - work // lanes

    def stage(self, multiplications: int) -> AbstractContextManager[None]:
        light = self._has_kernels() and not self._blas_divided
        return super().stage(0 if light else multiplications)

    def needs_stage(self, replay: Replay) -> bool:
        return getattr(replay, "call", None) is None  # or else it is kernels alone, without BLAS

    def _compiles(self, multiplications: int, times: int) -> bool:
        """Return whether `compile` makes kernels of a step."""
        least = 0 if times >= _MANY_STEPS else _WORTH_KERNELS
        return self._has_kernels(multiplications, least)

    def _has_kernels(self, multiplications: int = 0, least: int = 0) -> bool:
        """Return whether there is a compiler, and enough work for it."""
        there = not CppBackend._broken and compiler.command() is not None
        return there and multiplications >= least

    def _suits(self, text: str, out: Array, operands: dict[str, Any]) -> bool:
        arrays = (v for v in operands.values() if _is_array(v))
        known = out.dtype.char in "fd" and all(cplusplus.kind(v) is not None for v in arrays)
        return self._noting is not None and known and source.suits(text, out.size)

    def _do(self, function: Callable[..., Any], *arguments: Any, keep: Sequence[Any] = ()) -> None:
        if self._noting and _is_c(function):
            self._note_pointers(source.GEMM, [*arguments, function], [], keep)
        else:
            super()._do(function, *arguments, keep=keep)

    def _number(self, value: Any, dtype: Any) -> Array:
        """Return an array as it is, a number as an array that holds it and is not written to."""
        if _is_array(value):
            return value
        assert self._noting is not None
        made = np.array(value, dtype)
        return self._noting.numbers.setdefault((made.tobytes(), made.dtype), made)

    def _note(self, text: str, arrays: Sequence[Array], values: Sequence[int]) -> None:
        """Record a kernel and its arguments."""
        self._note_pointers(text, [compiler.pointer(array) for array in arrays], values, arrays)

    def _note_pointers(
        self, text: str, pointers: Sequence[Any], values: Sequence[int], keep: Sequence[Any]
    ) -> None:
        made = compiler.pointers(pointers), compiler.integers(values)
        super()._do(cpp_replays.Kernel(text), *made, keep=(*keep, *made))

    def _replay(self, tape: list[Call], kept: list[Any]) -> Replay:
        if not self._noting or not cpp_replays.texts(tape):
            return super()._replay(tape, kept)
        # BLAS's threads and xnn's would compete.
        if self._noting.blas_divides or self._noting.saved < _WORTH_WAKING:
            tape = cpp_replays.undivided(tape)
        return cpp_replays.replay(tape, kept)


def _give_up(error: compiler.CompilerError) -> None:
    CppBackend._broken = True
    told = f"xnn continues without kernels, which is slower: {error}"
    warnings.warn(told, RuntimeWarning, stacklevel=3)


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)


def _is_c(function: Any) -> bool:
    return type(function).__module__ == "_cffi_backend"


def _gaps(array: Array) -> bool:
    """Return whether there are gaps within the rows of a matrix."""
    return bool(array.shape[1] > 1 and array.strides[1] != array.itemsize)
