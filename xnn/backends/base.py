"""What a device can do. Everything above this floor is written against `Backend` alone."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import numpy as np

from .windows import Window

# An array of whichever device: numpy.ndarray on the CPU, cupy.ndarray on a GPU.
Array = Any
Replay = Callable[[], None]
#: A function of arrays that it is given and of others that it is to fill, see `Backend.blockwise`.
Blockwise = Callable[[Sequence[Any], Sequence[Any], bool], bool]
#: A function of a host array that gives another, or None, see `Backend.function`.
Function = Callable[[Any], Any | None]
#: A function and the arguments that it is to be called with.
Call = tuple[Callable[..., Any], tuple[Any, ...]]


class DeviceError(RuntimeError):
    """A device was asked for and is not to be had, or it failed; the message says what to do."""

    #: Where a device failed in training: all parameters as they last came to the host, …
    parameters: Any = None
    #: … and which these are, such as ``"from after epoch 2/30"``.
    parameters_of: str = ""
    #: The training's `xnn.History` until then.
    history: Any = None


class Feed:
    """Brings rows of a host array to a device, one lot ahead of those in use."""

    def __init__(self, backend: Backend, source: Any) -> None:
        self.backend = backend
        self.source = source
        self._sent: deque[Array] = deque()

    def send(self, index: Any) -> None:
        """Begin to bring the rows that ``index`` of the host names. Two lots may be on the way."""
        self._sent.append(self.backend.upload(self.source[index]))

    def take(self, out: Array) -> None:
        """``out ←`` the lot that was sent the longest ago, converted to the dtype of ``out``."""
        self.backend.copy(self._sent.popleft(), out)


class Backend(ABC):
    """One device: its arrays, its matrix product, its elementwise kernels.

    A *step* is a function that calls the operations below on arrays made beforehand.
    `compile` runs through it once, notes each operation with the very memory that it reads and
    writes, and gives back a replay: the same operations with no Python in between. That is a CUDA
    graph on a GPU and a list of calls on the CPU, and it is why code above may be written to be
    read: it is not what runs. What changes from step to step must lie in arrays (a learning rate,
    the indices of a mini-batch), and no operation may make a new array.

    Outside `compile` each operation takes effect at once.
    """

    #: ``"cpu"``, ``"gpu"``, ``"gpu:1"`` …
    device: str
    #: The array namespace: ``numpy`` or ``cupy``. For making arrays and views, not within a step.
    xp: Any
    #: Rows of matrices begin at multiples of this many bytes; BLAS is up to a third faster so.
    alignment: ClassVar[int] = 64
    #: At most this many steps are compiled into one replay.
    chunk_steps: ClassVar[int] = 32
    #: And multiplications in them: others wait for the end of a chunk, and Ctrl-C does.
    chunk_multiplications: ClassVar[int] = 1_000_000_000
    #: To compile a step takes as long as what is done once a chunk takes in so many chunks.
    compile_cost: ClassVar[float] = 12.0
    #: Whether `unfold` wants the rows of its matrix to lie without gaps, and not its columns.
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
        """Return a host array as an array of the device (itself where it is one already)."""

    @abstractmethod
    def download(self, array: Array) -> Any:
        """Return a new NumPy array with the values of a device array."""

    def host(self, array: Array) -> Any:
        """Return an array of the device or of the host as one of the host."""
        return array if isinstance(array, np.ndarray) else self.download(array)

    def adopt(self, array: Any) -> Array | None:
        """Return a user's array that lies on a device of this kind as one of `xp`; else None.

        It is not copied where it lies on this very device.
        """
        return None

    def hand_out(self, array: Array) -> Array:
        """Return an array of the device as a user may have it, in order with what they do."""
        return array

    def fits(self, size: int) -> bool:
        """Return whether so many bytes of data may lie on the device beside what training needs."""
        return True

    def feed(self, source: Any, rows: int) -> Feed:
        """Return the `Feed` of a host array to the device, of at most ``rows`` rows at a time."""
        return Feed(self, source)

    def padded(self, columns: int, dtype: Any) -> int:
        """Return the length of a row of at least ``columns`` that keeps the next one aligned."""
        unit = max(1, self.alignment // int(self.xp.dtype(dtype).itemsize))
        return -(-columns // unit) * unit

    def scratch(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Return memory for use within a step, made once when the step is compiled."""
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

        Operands broadcast against ``out``. NaN in any operand that counts gives NaN, also by
        ``maximum``, ``minimum`` and ``sign``, so that divergence does not hide.
        """

    @abstractmethod
    def update(self, program: str, **operands: float | Array) -> None:
        """Run a program (see `xnn.backends.formulas`) on each number of some arrays, in one pass.

        Operands are arrays ``(n,)`` without gaps, those that the program assigns to among them, all
        of one dtype; arrays of shape ``()``, read at each replay; and numbers. Other names that it
        assigns to are its own, for the time of one number.
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
        """Return whether all numbers are finite, and at most ``most`` in size.

        The host waits for it: not for within a step.
        """

    @abstractmethod
    def copy(self, source: Array, out: Array) -> None:
        """``out ← source``, converted to the dtype of ``out``.

        Outside `compile`, ``source`` may also be an array of the host.
        """

    @abstractmethod
    def gather(self, source: Array, index: Array, out: Array) -> None:
        """``out[i] ← source[index[i]]``, converted to the dtype of ``out``."""

    # Windows over images ``(n, height, width, channels)``, which may be views of wider ones.

    @abstractmethod
    def unfold(self, x: Array, out: Array, window: Window) -> None:
        """``out[place] ←`` the pixels under the window at each place, padding as zeros.

        Shapes ``(n, height, width, channels)`` and ``(n · places, window's pixels · channels)``;
        a row goes through the window's rows, its columns, and channels.
        """

    @abstractmethod
    def fold(self, columns: Array, out: Array, window: Window) -> None:
        """``out[pixel] ← Σ`` of what ``columns`` has for that pixel: the adjoint of `unfold`."""

    @abstractmethod
    def max_pool(self, x: Array, out: Array, index: Array, window: Window) -> None:
        """``out ←`` the largest pixel under each window, ``index ←`` which, the first of equals."""

    @abstractmethod
    def max_pool_backward(self, delta: Array, index: Array, out: Array, window: Window) -> None:
        """``out[pixel] ← Σ delta`` of the windows in which `max_pool` found this pixel."""

    @abstractmethod
    def sum_pool(self, x: Array, out: Array, window: Window) -> None:
        """``out ←`` the sum of the pixels under each window."""

    @abstractmethod
    def sum_pool_backward(self, delta: Array, out: Array, window: Window) -> None:
        """``out[pixel] ← Σ delta`` of the windows over this pixel: the adjoint of `sum_pool`."""

    @abstractmethod
    def resample(self, x: Array, rows: Array, columns: Array, out: Array) -> None:
        """``out[pixel] ←`` what ``x`` has at a row and column, between pixels by bilinear weights.

        ``rows`` and ``columns`` are ``(n, height · width)``. Outside of an image all is 0.
        """

    # Random numbers. ``rng_state`` is two numbers of 32 bits, a key and a counter, on the device.

    @abstractmethod
    def uniform(self, rng_state: Array, number: int, out: Array, first: int = 0) -> None:
        """``out ←`` random numbers above 0 and at most 1, the same on all devices.

        They are a hash of key, counter, ``number`` and the place in ``out``, which has no gaps and
        may be a part of something larger: it begins at place ``first``.
        """

    @abstractmethod
    def advance(self, rng_state: Array) -> None:
        """Add 1 to the counter."""

    # Control.

    def chunk_bytes(self, multiplications: int) -> int:
        """Return how many bytes of input to gather at a time, for steps of so many multiplications.

        Few enough to stay in a cache for small steps; heavy ones read them once.
        """
        return (512 if multiplications < 1_000_000 else 4096) * 1024

    def lanes(self, multiplications: int) -> int:
        """Return into how many lanes a step of so many multiplications is to be divided."""
        return 1

    def together(self, *lanes: Callable[[], None]) -> None:
        """Run lanes of a step, of which none reads what another writes.

        They run at the same time where the device can do so and each would leave it idle.
        """
        for lane in lanes:
            lane()

    def compile(
        self, step: Callable[[], None], multiplications: int = 0, times: int = 1, lane: int = 0
    ) -> Replay:
        """Return a function without arguments that repeats what ``step`` does.

        By how many multiplications it takes, and how many times that is to be done in all, a device
        may judge what a quicker replay may cost. ``step`` may be called again. Replays for one lane
        may run beside those for another.
        """
        return self._replay(*self._record(step))

    def _record(self, step: Callable[[], None]) -> tuple[list[Call], list[Any]]:
        """Return the calls that a step consists of, and what is to be kept for them."""
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
        improve: Callable[[Function], None] | None = None,
    ) -> Function:
        """Return ``step`` as a function of one host array to another, as quick as it can be.

        It puts its argument where the step ``takes`` it and returns a copy of what it ``gives``, or
        None where what it ``checks`` is then not finite. After many calls there may come to be a
        quicker one, for which ``improve`` is then called.
        """
        replay = self.compile(step)

        def call(argument: Any) -> Any | None:
            self.copy(argument, takes)
            replay()
            return self.download(gives) if self.finite(checks) else None

        return call

    def block_bytes(self, multiplications: int) -> int:
        """Return how much is to run forward in one go, in work of so many multiplications."""
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

        What it is given, arrays of host or device, it puts where the step ``takes`` it, as many
        rows as there is room for, and what the step ``gives`` into others. If it is to ``check``,
        it returns False where numbers that the step leaves in ``checks`` are not finite.

        ``multiplications`` is how many it is to do in a call.
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
        """Return a context manager to train in, where the largest product is of this size.

        A device may have settings that serve small steps and others that serve large ones, such as
        how many threads BLAS has.
        """
        return nullcontext()

    @abstractmethod
    def synchronize(self) -> None:
        """Return when all work given to the device is done."""

    # How operations are noted.

    def _do(self, function: Callable[..., Any], *arguments: Any, keep: Sequence[Any] = ()) -> None:
        """Make a call, or note it where a step is being compiled.

        ``keep`` holds what must live as long as the note: the owners of bare pointers.
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
