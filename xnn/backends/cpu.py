"""The CPU: NumPy arrays, and the BLAS that SciPy ships.

Operations become calls ``function(*arguments)`` with every argument made beforehand, so that a
replay is a loop over such calls. A matrix product goes straight to the pointer of ``sgemm`` that
SciPy publishes for Cython: NumPy's own ``matmul`` has neither ``alpha`` nor ``beta``.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import numpy as np

from . import cpu_formulas, cpu_random, cpu_windows, denormals, threads
from .base import Array, Backend, Call, Function, Replay
from .windows import Window

# Multiplications that are worth a lane.
_WORTH_LANE = 2_000_000
# Multiplications in a matrix product from which on BLAS's threads are worth waking.
_WORTH_THREADS = 8_000_000
# Arrays are worked through in blocks of so many bytes: six of them and more stay in a cache.
_BLOCK = 128 * 1024
# From this many elements on, BLAS uses threads for a scalar product.
_MANY = 10_000


class CpuBackend(Backend):
    """The CPU, by NumPy and BLAS. An instance is for one thread at a time."""

    chunk_multiplications = 300_000_000  # longer chunks take longer to compile, and are no faster

    def __init__(self) -> None:
        super().__init__()
        self.device = "cpu"
        self.xp = np
        self._blocks: dict[int, Array] = {}
        self._more_blocks: dict[int, dict[int, Array]] = {}  # of what runs beside it, by its number

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        dtype = np.dtype(dtype)
        size = math.prod(shape) * dtype.itemsize
        memory = np.zeros(size + self.alignment, np.uint8)
        start = -memory.ctypes.data % self.alignment
        return memory[start : start + size].view(dtype).reshape(shape)

    def upload(self, array: Any) -> Array:
        if type(array) is np.ndarray and array.flags.c_contiguous and array.flags.aligned:
            return array
        # asarray strips subclasses (a memory map stays mapped); take() would copy the whole of
        # a source that is not contiguous at every call.
        return np.require(np.asarray(array), requirements=["C", "A"])

    def download(self, array: Array) -> Any:
        return array.copy()

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: float | Array = 1.0, beta: float | Array = 0.0
    ) -> None:
        if a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
            raise ValueError(f"gemm: {a.shape} @ {b.shape} does not give {out.shape}")
        blas = _blas(out.dtype.char)
        # BLAS counts by columns: out.T = b.T @ a.T, where the transpose of a row-major array is
        # that array as it lies.
        trans_b, ld_b = _layout(b)
        trans_a, ld_a = _layout(a)
        trans_out, ld_out = _layout(out)
        if trans_out != b"N":
            raise ValueError("gemm: out must be stored by rows")
        owners = (
            blas.constant(trans_b),
            blas.constant(trans_a),
            blas.constant(out.shape[1]),
            blas.constant(out.shape[0]),
            blas.constant(a.shape[1]),
            blas.scalar(alpha),
            b,
            blas.constant(ld_b),
            a,
            blas.constant(ld_a),
            blas.scalar(beta),
            out,
            blas.constant(ld_out),
        )
        self._do(blas.gemm, *map(blas.pointer, owners), keep=owners)

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
        # A sum that is finite is the quick answer, one that is not is none. That of squares is the
        # quickest, but of many numbers NumPy's BLAS would make threads wait for each other.
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
        improve: Callable[[Function], None] | None = None,
    ) -> Function:
        # As in `Backend`, less what Python takes for it: a fifth of the time for a small network.
        slow, replay = super().function(step, takes, gives, checks), self.compile(step)
        copy, widest, result = np.copyto, takes.itemsize, gives.copy
        numbers, isfinite = checks.reshape(-1), math.isfinite
        dot = numbers.dot

        def call(argument: Any) -> Any | None:
            if argument.itemsize > widest:  # conversion may overflow
                return slow(argument)
            copy(takes, argument, "unsafe")
            replay()
            return result() if isfinite(dot(numbers)) else slow(argument)

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
                if number:  # the first may use what the step uses before and after
                    self._blocks = self._more_blocks.setdefault(number, {})
                lane()
                tapes.append(self._tape)
        finally:
            self._tape, self._blocks = tape, blocks
        self._do(threads.together, tapes)

    def stage(self, multiplications: int) -> AbstractContextManager[None]:
        return nullcontext() if multiplications >= _WORTH_THREADS else _ONE_THREAD

    def synchronize(self) -> None:
        return

    def _threads(self) -> int:
        """Return how many threads there are to be at most: as many as BLAS may have."""
        return _ONE_THREAD.outside()

    def _scratch(self, taken: int, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return memory for the calls of one formula, which those of the next use again."""
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
        """Return a function that makes the calls, and keeps the arrays behind bare pointers."""
        calls = self._finished(tape)
        replay = player(calls)
        flush, leave = denormals.switches()

        def quiet_replay() -> None:
            # Where training diverges the cost tells, and it is reported once.
            with np.errstate(all="ignore"):
                flush()
                try:
                    replay()
                finally:
                    leave()

        # That takes 2.5 µs: much, where one sample is classified in as many.
        chosen = quiet_replay if self._loud(calls) else replay
        chosen.kept, chosen.calls = kept, calls  # type: ignore[attr-defined]
        return chosen

    def _loud(self, calls: list[Call]) -> bool:
        """Return whether NumPy may warn in one of the calls, or one wants denormals to be zero."""
        return any(
            function.__name__ not in _SILENT
            if isinstance(function, np.ufunc)
            else function is threads.together
            for function, _ in calls
        )

    def _finished(self, tape: list[Call]) -> list[Call]:
        """Return the calls of a tape as they are to be made."""
        return [
            (function, ([player(self._finished(lane)) for lane in arguments[0]],))
            if function is threads.together
            else (function, arguments)
            for function, arguments in tape
        ]


def _swept(operands: dict[str, Any]) -> dict[str, Array]:
    """Return those of the operands that hold more than one number, or may."""
    arrays = ((n, operand) for n, operand in operands.items() if isinstance(operand, np.ndarray))
    return {name: array for name, array in arrays if array.ndim}


def _blocks(size: int, itemsize: int) -> list[slice]:
    """Return the parts in which to work through so many numbers."""
    step = _BLOCK // itemsize
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def player(tape: list[Call]) -> Replay:
    """Return what makes the calls of a tape."""
    if len(tape) == 1:
        function, arguments = tape[0]
        return partial(function, *arguments)

    def play() -> None:
        for function, arguments in tape:
            function(*arguments)

    return play


# What OpenBLAS calls processors for which it has a way for small products.
_WITH_SMALL = {"SkylakeX", "Cooperlake", "SapphireRapids"}
# Functions that never make NumPy warn of overflow or of an invalid value.
_SILENT = {"expit", "tanh"}


def _layout(x: Array) -> tuple[bytes, int]:
    """Return BLAS's transposition letter and leading dimension for the transpose of ``x``."""
    rows, columns = x.shape
    item = x.itemsize
    if x.strides[1] == item or columns == 1:
        letter, length, ld = b"N", columns, x.strides[0] // item if rows > 1 else columns
    elif x.strides[0] == item or rows == 1:
        letter, length, ld = b"T", rows, x.strides[1] // item if columns > 1 else rows
    else:
        raise ValueError(f"gemm: strides {x.strides} are neither by rows nor by columns")
    if ld < length:
        raise ValueError(f"gemm: an array with strides {x.strides} overlaps itself")
    return letter, max(1, ld)


class _OneThread(AbstractContextManager[None]):
    """Lets BLAS use one thread while anyone is inside, then again as many as before.

    OpenBLAS divides products of 260 thousand multiplications among threads, and they then spin for
    a while in wait of more. Below some millions that makes training slower, by a third where each
    epoch ends with an evaluation.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside: list[int] = []  # by their threads
        self._before: list[int] = []  # of each library
        if hasattr(os, "register_at_fork"):  # else a copy may wait for a thread that it has not
            lock = self._lock
            os.register_at_fork(
                before=lock.acquire, after_in_parent=lock.release, after_in_child=self._forked
            )

    def outside(self) -> int:
        """Return how many threads BLAS has while nobody is inside."""
        with self._lock:
            return max(self._before, default=1) if self._inside else _threads()

    def __enter__(self) -> None:
        with self._lock:
            own, libraries = threading.get_ident(), _libraries()
            if not self._inside:
                self._before = [library.num_threads for library in libraries]
            self._inside.append(own)
            try:
                for library in libraries:
                    _limit(library, 1)
            except BaseException:  # Ctrl-C, for one
                self.__exit__()
                raise

    def __exit__(self, *_: object) -> None:
        with self._lock:
            own = threading.get_ident()
            self._inside.remove(own)
            for library, before in zip(_libraries(), self._before, strict=True):
                # OpenMP has a number for each thread, others have one for all of them.
                others = own in self._inside if _by_thread(library) else self._inside
                if not others:
                    _limit(library, before)

    def _forked(self) -> None:
        """Go on in a copy of the process, which has no thread but the one that made it."""
        before, self._inside = self._inside, [i for i in self._inside if i == threading.get_ident()]
        if before and not self._inside:
            for library, number in zip(_libraries(), self._before, strict=True):
                _limit(library, number)
        self._lock.release()


_ONE_THREAD = _OneThread()


@cache
def _libraries() -> list[Any]:
    """Return the BLAS libraries that are loaded, as threadpoolctl has them."""
    from threadpoolctl import ThreadpoolController

    _blas("f")
    found: list[Any] = ThreadpoolController().select(user_api="blas").lib_controllers
    return found


@cache
def quick_where_small() -> bool:
    """Return whether BLAS has a way of its own for small products.

    OpenBLAS has one for processors with AVX-512, as far as it knows them. It takes those that it
    does not know for older ones.
    """
    return all(
        library.internal_api != "openblas" or library.architecture in _WITH_SMALL
        for library in _libraries()
    )


def _threads() -> int:
    return max((library.num_threads for library in _libraries()), default=1)


def _by_thread(library: Any) -> bool:
    return getattr(library, "threading_layer", None) == "openmp"


def _limit(library: Any, threads: int) -> None:
    """Let a library have so many threads.

    From 3.8 on threadpoolctl ignores all threads but the first that sets a limit, until that one
    has taken it back. Who enters first here may leave before others do.
    """
    give_up = getattr(library, "clear_controlling_thread", None)
    if give_up is not None:
        give_up(force=True)
    library.set_num_threads(threads)
    if give_up is not None:
        give_up(force=True)


class _Blas:
    """``sgemm`` or ``dgemm`` as a C function, and its arguments as C pointers.

    By cffi, which calls a function of 13 pointers in 0.5 µs where ctypes takes 0.9.
    """

    def __init__(self, char: str) -> None:
        from ctypes import PYFUNCTYPE, c_char_p, c_void_p, py_object, pythonapi

        from cffi import FFI
        from scipy.linalg import cython_blas

        name, self.ctype = {"f": ("sgemm", "float"), "d": ("dgemm", "double")}[char]
        functions: Any = cython_blas.__pyx_capi__
        get_name = PYFUNCTYPE(c_char_p, py_object)(("PyCapsule_GetName", pythonapi))
        get_pointer = PYFUNCTYPE(c_void_p, py_object, c_char_p)(("PyCapsule_GetPointer", pythonapi))
        signature = get_name(functions[name])
        if signature.count(b"int *") != 6:
            raise ImportError(f"this SciPy's BLAS is not one with 32-bit integers: {signature!r}")
        address = get_pointer(functions[name], get_name(functions[name]))
        self.ffi = FFI()
        pointers = ", ".join(["void *"] * 13)
        self.gemm = self.ffi.cast(f"void (*)({pointers})", address)

        self._constants: dict[bytes | int, Any] = {}

    def constant(self, value: bytes | int) -> Any:
        """Return a letter or a whole number as a C number, which is not written to."""
        made = self._constants.get(value)
        if made is None:
            ctype = "int *" if isinstance(value, int) else "char *"
            made = self._constants[value] = self.ffi.new(ctype, value)
        return made

    def scalar(self, value: float | Array) -> Any:
        return value if isinstance(value, np.ndarray) else self.ffi.new(f"{self.ctype} *", value)

    def pointer(self, owner: Any) -> Any:
        """Return where an array or a C number lies. Any type but ``void *`` makes calls slower."""
        where = owner.ctypes.data if isinstance(owner, np.ndarray) else owner
        return self.ffi.cast("void *", where)


@cache
def _blas(char: str) -> _Blas:
    return _Blas(char)
