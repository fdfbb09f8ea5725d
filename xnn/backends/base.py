"""What a device can do. Everything above this level is written against `Backend` alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from .windows import Window

# An array on any device: numpy.ndarray on the CPU, cupy.ndarray on a GPU.
Array = Any
Replay = Callable[[], None]
#: A function of input arrays, output arrays and whether to check; see `Backend.blockwise`.
Blockwise = Callable[[Sequence[Any], Sequence[Any], bool], bool]
#: A function from a host array to another, or to None; see `Backend.function`.
Function = Callable[[Any], Any | None]
#: A function and its arguments.
Call = tuple[Callable[..., Any], tuple[Any, ...]]


class DeviceError(RuntimeError):
    """A requested device is unavailable, or a device failed; the message says what to do."""

    #: If a device failed during training: all parameters as last copied to the host, …
    parameters: Any = None
    #: … and which those are, such as ``"from after epoch 2/30"``.
    parameters_of: str = ""
    #: The training's `xnn.History` up to then.
    history: Any = None


class Feed:
    """Copies rows of a host array to a device, one lot ahead of the one in use."""

    def __init__(self, backend: Backend, source: Any) -> None:
        self.backend = backend
        self.source = source
        self._sent: deque[Array] = deque()

    def send(self, index: Any) -> None:
        """Start copying the rows given by ``index``, a host array. Two lots may be in flight."""
        self._sent.append(self.backend.upload(self.source[index]))

    def take(self, out: Array) -> None:
        """``out ←`` the oldest lot sent, converted to the dtype of ``out``."""
        self.backend.copy(self._sent.popleft(), out)


class Backend(ABC):
    """One device: its arrays, its matrix product, its elementwise kernels.

    A *step* is a function that calls the operations below on preallocated arrays. `compile` runs
    it once, records each operation with the memory that it reads and writes, and returns a replay:
    the same operations with no Python in between. A replay is a CUDA graph on a GPU and a list of
    calls on the CPU, which is why the code above can be written for readability: it is not what
    runs. What changes from step to step (a learning rate, the indices of a mini-batch) must be in
    arrays, and no operation may create an array.

    Outside `compile`, each operation takes effect at once.
    """

    #: ``"cpu"``, ``"gpu"``, ``"gpu:1"`` …
    device: str
    #: The array namespace, ``numpy`` or ``cupy``: for creating arrays and views, not within a step.
    xp: Any
    #: Rows of matrices start at multiples of this many bytes: BLAS is up to a third faster then.
    alignment: ClassVar[int] = 64
    #: At most this many steps of a `repeat` are recorded one by one; see `recorded`.
    recorded_steps: ClassVar[int] = 32
    #: At most this many steps are compiled into one replay, a chunk, …
    chunk_steps: ClassVar[int] = 512
    #: … of at most this many multiplications: other work and Ctrl-C wait for a chunk to end.
    chunk_multiplications: ClassVar[int] = 1_000_000_000
    #: Compiling a step costs as much as the fixed overhead of this many chunks.
    compile_cost: ClassVar[float] = 12.0
    #: Whether `unfold` wants the rows of its matrix contiguous, rather than the columns.
    by_rows: ClassVar[bool] = False
    #: How many bytes the columns of a convolution may take at a time.
    columns_bytes: ClassVar[int] = 1024 * 1024

    def __init__(self) -> None:
        self._tape: list[Call] | None = None
        self._kept: list[Any] = []

    # Arrays.

    @abstractmethod
    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return a new array of zeros whose memory begins at a multiple of `alignment`."""

    @abstractmethod
    def upload(self, array: Any) -> Array:
        """Return a host array as a device array (itself if it already is one)."""

    @abstractmethod
    def download(self, array: Array) -> Any:
        """Return a new NumPy array with the values of a device array."""

    def host(self, array: Array) -> Any:
        """Return a device or host array as a host array."""
        return array if isinstance(array, np.ndarray) else self.download(array)

    def adopt(self, array: Any) -> Array | None:
        """Return a user's array that is on a device of this kind as one of `xp`; else None.

        It is not copied if it is on this very device.
        """
        return None

    def hand_out(self, array: Array) -> Array:
        """Return a device array for a user, whose own work is ordered after the backend's."""
        return array

    def fits(self, size: int) -> bool:
        """Return whether ``size`` bytes of data fit on the device beside what training needs."""
        return True

    def feed(self, source: Any, rows: int) -> Feed:
        """Return a `Feed` of a host array to the device, at most ``rows`` rows at a time."""
        return Feed(self, source)

    def padded(self, columns: int, dtype: Any) -> int:
        """Return the length of a row of at least ``columns`` that keeps the next one aligned."""
        unit = max(1, self.alignment // int(self.xp.dtype(dtype).itemsize))
        return -(-columns // unit) * unit

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return memory for use within a step, allocated once when the step is compiled."""
        return self.zeros(shape, dtype)

    # Operations: what a step is made of. Each writes into ``out`` and returns nothing.

    @abstractmethod
    def gemm(
        self, a: Array, b: Array, out: Array, alpha: float | Array = 1.0, beta: float | Array = 0.0
    ) -> None:
        """``out ← alpha · a @ b + beta · out`` for matrices ``(m, k)``, ``(k, n)``, ``(m, n)``.

        ``alpha`` and ``beta`` are numbers, or arrays of shape ``()`` that are read at each replay.
        """

    @abstractmethod
    def elementwise(self, formula: str, out: Array, **operands: float | Array) -> None:
        """Evaluate a formula (see `xnn.backends.formulas`) into ``out``, which may be an operand.

        Operands broadcast against ``out``. NaN in any operand that counts gives NaN, even through
        ``maximum``, ``minimum`` and ``sign``, so that divergence stays visible.
        """

    @abstractmethod
    def update(self, program: str, **operands: float | Array) -> None:
        """Run a program (see `xnn.backends.formulas`) on each element of some arrays, in one pass.

        Operands are contiguous arrays ``(n,)`` of one dtype, including those that the program
        assigns to; arrays of shape ``()``, read at each replay; and numbers. Other names that it
        assigns to are temporaries, local to one element.
        """

    @abstractmethod
    def softmax(self, z: Array, out: Array) -> None:
        """``out[i] ← exp(z[i]) / Σ exp(z[i])`` for each row, without overflow."""

    @abstractmethod
    def row_sums(self, values: Array, out: Array) -> None:
        """``out[i] ← Σ_j values[i, j]``, shapes ``(m, n)`` and ``(m,)``."""

    @abstractmethod
    def argmax(self, values: Array, out: Array) -> None:
        """``out[i] ← argmax_j values[i, j]``, the first of equals, as integers ``(m,)``."""

    @abstractmethod
    def finite(self, values: Array, most: float = math.inf) -> bool:
        """Return whether all numbers are finite, and at most ``most`` in magnitude.

        The host waits for the answer: not for use within a step.
        """

    @abstractmethod
    def copy(self, source: Array, out: Array) -> None:
        """``out ← source``, converted to the dtype of ``out``.

        Outside `compile`, ``source`` may also be a host array.
        """

    @abstractmethod
    def gather(self, source: Array, index: Array, out: Array) -> None:
        """``out[i] ← source[index[i]]``, converted to the dtype of ``out``."""

    # Windows over images ``(n, height, width, channels)``, which may be views of wider ones.

    @abstractmethod
    def unfold(self, x: Array, out: Array, window: Window) -> None:
        """``out[place] ←`` the pixels under the window at each place, padding as zeros.

        Shapes ``(n, height, width, channels)`` and ``(n · places, window's pixels · channels)``;
        a row runs over the window's rows, its columns, then channels.
        """

    @abstractmethod
    def fold(self, columns: Array, out: Array, window: Window) -> None:
        """``out[pixel] ← Σ`` of that pixel's entries in ``columns``: the adjoint of `unfold`."""

    @abstractmethod
    def max_pool(self, x: Array, out: Array, index: Array, window: Window) -> None:
        """``out ←`` the largest pixel under each window, ``index ←`` which, the first of equals."""

    @abstractmethod
    def max_pool_backward(self, delta: Array, index: Array, out: Array, window: Window) -> None:
        """``out[pixel] ← Σ delta`` of the windows in which `max_pool` chose this pixel."""

    @abstractmethod
    def sum_pool(self, x: Array, out: Array, window: Window) -> None:
        """``out ←`` the sum of the pixels under each window."""

    @abstractmethod
    def sum_pool_backward(self, delta: Array, out: Array, window: Window) -> None:
        """``out[pixel] ← Σ delta`` of the windows over this pixel: the adjoint of `sum_pool`."""

    @abstractmethod
    def resample(self, x: Array, rows: Array, columns: Array, out: Array) -> None:
        """``out[pixel] ←`` the value of ``x`` at a row and column, interpolated bilinearly.

        ``rows`` and ``columns`` are ``(n, height · width)``. Outside an image, values are 0.
        """

    # Random numbers. ``rng_state`` is two 32-bit numbers on the device, a key and a counter.

    @abstractmethod
    def uniform(self, rng_state: Array, number: int, out: Array, first: int = 0) -> None:
        """``out ←`` random numbers above 0 and at most 1, the same on all devices.

        They hash the key, the counter, ``number`` and the position in ``out``, which is contiguous
        and may be part of something larger: it begins at position ``first``.
        """

    @abstractmethod
    def advance(self, rng_state: Array) -> None:
        """Add 1 to the counter."""

    # Control.

    def chunk_bytes(self, multiplications: int) -> int:
        """Return how many bytes of inputs or outputs, if wider, a chunk may have.

        Few enough to stay in cache for small steps, by their multiplications; heavy ones read them
        only once.
        """
        return (512 if multiplications < 1_000_000 else 4096) * 1024

    def lanes(self, multiplications: int) -> int:
        """Return how many lanes to divide a step of this many multiplications into."""
        return 1

    def together(self, *lanes: Callable[[], None]) -> None:
        """Run lanes of a step; none may read what another writes.

        They run concurrently if the device can do so and one lane would not fill it.
        """
        for lane in lanes:
            lane()

    def repeat(self, times: int, do: Callable[[int], None]) -> None:
        """Call ``do`` with 0, 1, … ``times`` - 1, within a step.

        A device may make only a few of these calls, and infer the others from them. So calls may
        differ only in which parts of arrays they use, which must be evenly spaced, and in what the
        first does besides. `scratch` may return the same memory to each call.
        """
        for i in range(times):
            do(i)

    def recorded(self, times: int, multiplications: int = 0, of: int = 1) -> int:
        """Return how many of its calls `repeat` is expected to make, when a step is compiled.

        Each has some multiplications, and ``of`` of them will be done in all; see `compile`.
        """
        return times

    def compile(
        self, step: Callable[[], None], multiplications: int = 0, times: int = 1, lane: int = 0
    ) -> Replay:
        """Return a function without arguments that repeats what ``step`` does.

        From the multiplications of a step, and how many times it will be done in all, a device may
        judge what a faster replay may cost. ``step`` may be called more than once. Replays for
        different lanes may run concurrently.
        """
        return self._replay(*self._record(step))

    def _record(self, step: Callable[[], None]) -> tuple[list[Call], list[Any]]:
        """Return the calls that make up a step, and what must be kept alive for them."""
        tape: list[Call] = []
        kept: list[Any] = []
        self._tape, self._kept = tape, kept
        try:
            step()
        finally:
            self._tape, self._kept = None, []
        return tape, kept

    def function(
        self,
        step: Callable[[], None],
        takes: Array,
        gives: Array,
        checks: Array,
        multiplications: int = 0,
        improve: Callable[[Function], None] | None = None,
    ) -> Function:
        """Return ``step`` as a function from one host array to another, as fast as possible.

        It copies its argument to ``takes``, runs the step and returns a copy of ``gives``, or None
        if ``checks`` is then not finite. After many calls, fewer if they have many multiplications,
        a faster function may become available, which is then passed to ``improve``.
        """
        replay = self.compile(step)

        def call(argument: Any) -> Any | None:
            self.copy(argument, takes)
            replay()
            return self.download(gives) if self.finite(checks) else None

        return call

    def block_bytes(self, multiplications: int) -> int:
        """Return how many bytes to run forward in one go, for work of this many multiplications."""
        return 16 * 1024 * 1024

    def blockwise(
        self,
        step: Callable[[], None],
        takes: Sequence[Array],
        gives: Sequence[Array],
        checks: Array,
        multiplications: int = 0,
        lane: int = 0,
    ) -> Blockwise:
        """Return ``step`` as a function of arrays of any length, a block of rows at a time.

        It copies the arrays that it is given, of host or device, to ``takes``, as many rows at a
        time as fit there, and the results from ``gives`` to the wanted arrays. If asked to check,
        it returns False if the step leaves numbers in ``checks`` that are not finite.

        ``multiplications`` is how many it does in a call.
        """
        return self._by_blocks(self.compile(step, lane=lane), takes, gives, checks)

    def _by_blocks(
        self, replay: Replay, takes: Sequence[Array], gives: Sequence[Array], checks: Array
    ) -> Blockwise:
        def call(given: Sequence[Any], wanted: Sequence[Any], check: bool) -> bool:
            for start in range(0, len(given[0]), len(takes[0])):
                rows = slice(start, min(start + len(takes[0]), len(given[0])))
                there = slice(0, rows.stop - start)
                for array, place in zip(given, takes, strict=True):
                    self.copy(array[rows], place[there])
                replay()
                if check and not self.finite(checks[there]):
                    return False
                for place, array in zip(gives, wanted, strict=True):
                    if isinstance(array, np.ndarray):
                        array[rows] = self.host(place[there])
                    else:
                        self.copy(place[there], array[rows])
            return True

        return call

    def stage(self, multiplications: int) -> AbstractContextManager[None]:
        """Return a context manager to train in, given the multiplications of the largest product.

        Small and large steps may need different settings of a device, such as the number of BLAS
        threads.
        """
        return nullcontext()

    def needs_stage(self, replay: Replay) -> bool:
        """Return whether what this backend compiled may be slower outside of a `stage`."""
        return True

    @abstractmethod
    def synchronize(self) -> None:
        """Wait until all work given to the device is done."""

    # How operations are recorded.

    def _do(self, function: Callable[..., Any], *arguments: Any, keep: Sequence[Any] = ()) -> None:
        """Make a call, or record it while a step is being compiled.

        ``keep`` holds what must live as long as the record: the owners of raw pointers.
        """
        if self._tape is None:
            self._now(function, arguments)
        else:
            self._tape.append((function, arguments))
            self._kept.extend(keep)

    def _now(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        function(*arguments)

    @abstractmethod
    def _replay(self, tape: list[Call], kept: list[Any]) -> Replay:
        """Return a function that makes the calls of a tape."""
