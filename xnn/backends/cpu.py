"""The CPU: NumPy arrays, and the BLAS that SciPy ships.

Operations become calls ``function(*arguments)`` with every argument made beforehand, so that a
replay is a loop over such calls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import numpy as np

from . import blas, cpu_formulas, cpu_random, cpu_replays, cpu_windows, threads
from .base import Array, Backend, Call, Function, Replay
from .blas_threads import ONE_THREAD
from .windows import Window

# Multiplications that are worth a lane.
_WORTH_LANE = 2_000_000
# From this many multiplications in a matrix product on, BLAS's threads are worth waking.
_WORTH_THREADS = 8_000_000
# Arrays are processed in blocks of this many bytes: six of them and more stay in a cache.
_BLOCK = 128 * 1024
# From this many elements on, BLAS uses threads for a dot product.
_MANY = 10_000


class CpuBackend(Backend):
    """The CPU, by NumPy and BLAS. An instance is for one thread at a time."""

    chunk_multiplications = 300_000_000  # longer chunks take longer to compile, and are no faster

    def __init__(self) -> None:
        super().__init__()
        self.device = "cpu"
        self.xp = np
        self._blocks: dict[int, Array] = {}
        self._more_blocks: dict[int, dict[int, Array]] = {}  # of concurrent lanes, by number

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = np.zeros(size + self.alignment, np.uint8)
        start = -memory.ctypes.data % self.alignment
        return memory[start : start + size].view(dtype).reshape(shape)

    def upload(self, array: Any) -> Array:
        if type(array) is np.ndarray and array.flags.c_contiguous and array.flags.aligned:
            return array
        # asarray strips subclasses (a memory map stays mapped); take() would copy all of a
        # non-contiguous source at every call.
        return np.require(np.asarray(array), requirements=["C", "A"])

    def download(self, array: Array) -> Any:
        return array.copy()

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: float | Array = 1.0, beta: float | Array = 0.0
    ) -> None:
        if a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
            raise ValueError(f"gemm: {a.shape} @ {b.shape} does not give {out.shape}")
        function, arguments, owners = blas.of(out.dtype.char).gemm(a, b, out, alpha, beta)
        self._do(function, *arguments, keep=owners)

    def elementwise(self, formula: str, out: Array, **operands: float | Array) -> None:
        operands |= {n: o.reshape(()) for n, o in _swept(operands).items() if o.size == 1}
        plan, arrays = cpu_formulas.formula(formula, out, operands), _swept(operands)
        large = out.nbytes > _BLOCK and len(plan.calls) > 1
        if large and all(
            o.shape == out.shape and o.flags.c_contiguous for o in (out, *arrays.values())
        ):
            for part in _blocks(out.size, out.itemsize):
                block = {name: o.reshape(-1)[part] for name, o in arrays.items()}
                own = out.reshape(-1)[part]
                self._do_all(plan.bound(own, {**operands, **block}, self._scratch))
        else:
            self._do_all(plan.bound(out, operands, self._scratch))

    def update(self, program: str, **operands: float | Array) -> None:
        arrays = _swept(operands)
        first = next(iter(arrays.values()))
        if any(o.shape != first.shape or o.dtype != first.dtype for o in arrays.values()):
            raise ValueError("update: arrays differ in shape or dtype")
        plan = cpu_formulas.program(program, operands, first.size)
        for part in _blocks(first.size, first.itemsize):
            block = {name: o[part] for name, o in arrays.items()}
            self._do_all(plan.bound(first[part], {**operands, **block}, self._scratch))

    def softmax(self, z: Array, out: Array) -> None:
        column = self.scratch((len(z), 1), z.dtype)
        self._do(np.maximum.reduce, z, 1, None, column, True)
        self._do(np.subtract, z, column, out)
        self._do(np.exp, out, out)
        self._do(np.add.reduce, out, 1, None, column, True)
        self._do(np.divide, out, column, out)

    def row_sums(self, values: Array, out: Array) -> None:
        self._do(np.add.reduce, values, 1, None, out)

    def argmax(self, values: Array, out: Array) -> None:
        self._do(values.argmax, 1, out)

    def finite(self, values: Array, most: float = math.inf) -> bool:
        if values.dtype.kind != "f":
            return True
        # A finite sum is the quick answer, a non-finite one is inconclusive. The sum of squares is
        # fastest, but for many numbers NumPy's BLAS would make threads wait for each other.
        if most == math.inf:
            with np.errstate(all="ignore"):
                if values.size < _MANY:
                    flat = values.reshape(-1)
                    total = flat.dot(flat)
                else:
                    total = np.add.reduce(values, axis=None)
            if math.isfinite(total):
                return True
        return bool((np.isfinite(values) & (np.abs(values) <= most)).all())

    def copy(self, source: Array, out: Array) -> None:
        if self._tape is None and source.itemsize <= out.itemsize:
            np.copyto(out, source, "unsafe")  # as `_now`, but nothing can overflow
        else:
            self._do(np.copyto, out, source, "unsafe")

    def gather(self, source: Array, index: Array, out: Array) -> None:
        # With mode "clip" take() writes straight into a contiguous array of the same dtype.
        direct = source.dtype == out.dtype and out.flags.c_contiguous
        raw = out if direct else self.scratch((len(index), *source.shape[1:]), source.dtype)
        self._do(source.take, index, 0, raw, "clip")
        if not direct:
            self._do(np.copyto, out, raw, "unsafe")

    # Windows over images, and random numbers.

    def unfold(self, x: Array, out: Array, window: Window) -> None:
        self._do_all(cpu_windows.unfold(x, out, window, self.scratch))

    def fold(self, columns: Array, out: Array, window: Window) -> None:
        self._do_all(cpu_windows.fold(columns, out, window))

    def max_pool(self, x: Array, out: Array, index: Array, window: Window) -> None:
        self._do_all(cpu_windows.max_pool(x, out, index, window, self.scratch))

    def max_pool_backward(self, delta: Array, index: Array, out: Array, window: Window) -> None:
        self._do_all(cpu_windows.max_pool_backward(delta, index, out, window, self.scratch))

    def sum_pool(self, x: Array, out: Array, window: Window) -> None:
        self._do_all(cpu_windows.sum_pool(x, out, window))

    def sum_pool_backward(self, delta: Array, out: Array, window: Window) -> None:
        self._do_all(cpu_windows.sum_pool_backward(delta, out, window))

    def resample(self, x: Array, rows: Array, columns: Array, out: Array) -> None:
        self._do_all(cpu_windows.resample(x, rows, columns, out, self.scratch))

    def uniform(self, rng_state: Array, number: int, out: Array, first: int = 0) -> None:
        self._do_all(cpu_random.uniform(rng_state, number, out, first, self.scratch))

    def advance(self, rng_state: Array) -> None:
        self._do(np.add, rng_state[1:], np.uint32(1), rng_state[1:])

    def _do_all(self, calls: Iterable[Call]) -> None:
        for function, arguments in calls:
            self._do(function, *arguments)

    # Control.

    def compile(
        self, step: Callable[[], None], multiplications: int = 0, times: int = 1, lane: int = 0
    ) -> Replay:
        blocks = self._blocks
        if lane:
            self._blocks = self._more_blocks.setdefault(lane, {})
        try:
            return super().compile(step, multiplications, times, lane)
        finally:
            self._blocks = blocks

    def function(
        self,
        step: Callable[[], None],
        takes: Array,
        gives: Array,
        checks: Array,
        multiplications: int = 0,
        improve: Callable[[Function], None] | None = None,
    ) -> Function:
        # As in `Backend`, less its Python overhead: a fifth of the time for a small network.
        slow, replay = super().function(step, takes, gives, checks), self.compile(step)
        copy, widest, result = np.copyto, takes.itemsize, gives.copy
        finite: Callable[[], bool] = partial(self.finite, checks)
        if checks.flags.c_contiguous and checks.size < _MANY:
            finite = partial(_square_is_finite, checks.reshape(-1))

        def call(argument: Any) -> Any | None:
            if argument.itemsize > widest:  # conversion may overflow
                return slow(argument)
            copy(takes, argument, "unsafe")
            replay()
            return result() if finite() else slow(argument)

        return call

    def lanes(self, multiplications: int) -> int:
        most = multiplications // _WORTH_LANE
        return min(most, self._threads()) if most > 1 else 1

    def together(self, *lanes: Callable[[], None]) -> None:
        if len(lanes) == 1:
            lanes[0]()
            return
        if self._tape is None:
            threads.together(list(lanes))
            return
        tapes: list[list[Call]] = []
        tape, blocks = self._tape, self._blocks
        try:
            for number, lane in enumerate(lanes):
                self._tape = []
                if number:  # the first may share the blocks of the step itself
                    self._blocks = self._more_blocks.setdefault(number, {})
                lane()
                tapes.append(self._tape)
        finally:
            self._tape, self._blocks = tape, blocks
        if any(tapes):
            self._do(threads.together, tapes)

    def stage(self, multiplications: int) -> AbstractContextManager[None]:
        return nullcontext() if multiplications >= _WORTH_THREADS else ONE_THREAD

    def synchronize(self) -> None:
        return

    def _threads(self) -> int:
        """Return how many threads to use at most: as many as BLAS may have."""
        return ONE_THREAD.outside()

    def _scratch(self, taken: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return memory for the calls of one formula, reused by those of the next."""
        size = math.prod(shape) * dtype.itemsize
        if size > _BLOCK:
            return np.empty(shape, dtype)
        if taken not in self._blocks:
            self._blocks[taken] = CpuBackend.zeros(self, (_BLOCK,), np.uint8)
        memory: Array = self._blocks[taken][:size].view(dtype).reshape(shape)
        return memory

    def _now(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        with np.errstate(all="ignore"):
            function(*arguments)

    def _replay(self, tape: list[Call], kept: list[Any]) -> Replay:
        calls = cpu_replays.finished(tape)
        return cpu_replays.replay(calls, kept, cpu_replays.loud(calls))


def _swept(operands: dict[str, Any]) -> dict[str, Array]:
    """Return the operands that hold, or may hold, more than one number."""
    arrays = ((n, operand) for n, operand in operands.items() if isinstance(operand, np.ndarray))
    return {name: array for name, array in arrays if array.ndim}


@np.errstate(all="ignore")
def _square_is_finite(numbers: Array) -> bool:
    return math.isfinite(numbers.dot(numbers))


def _blocks(size: int, itemsize: int) -> list[slice]:
    """Return the parts in which to process ``size`` numbers."""
    step = _BLOCK // itemsize
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]
