"""NVIDIA GPUs: CuPy's arrays and launches, cuBLAS, CUDA graphs.

A step is recorded as on the CPU (`Backend.compile`); meanwhile kernels are compiled and memory is
allocated. The record is then captured into a CUDA graph by playing it once on a capturing stream,
and a replay is one launch of the graph. If the driver refuses that, a replay plays the record.

CuPy 14 refuses its own cuBLAS calls while a stream captures (cupy issue 6290), though cuBLAS itself
does not, given a workspace: so products use a separate handle (`cublas`).
"""

from __future__ import annotations

import gc
import math
import warnings
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from . import cplusplus, cublas, strides
from . import cuda_source as cuda
from . import cuda_windows as windows
from .base import Array, Backend, Call, DeviceError, Feed, Replay
from .cublas import Cublas
from .discover import cupy_for, first_line
from .strides import Placement
from .windows import Window

# The share of a GPU's free memory that a data set may take; the rest is for training's workspaces.
_DATA_SHARE = 0.8
# CuPy copies arrays through pinned memory, which it keeps; larger ones are copied directly.
_STAGED = 64 * 1024 * 1024
# A warp shares each sum of more than _DEEP numbers, or of more than _SHALLOW if sums are few.
_DEEP, _SHALLOW = 64, 8
_THREADS = 64 * 1024  # that run at a time on a mid-size GPU
# cuBLAS gives each multiprocessor of a GPU a tile of at most this many numbers each way. This many
# tiles fill a GPU, each summing at least this many numbers.
_TILE, _TILES, _LEAST = 128, 128, 1024
# A thread reads this many numbers of a long formula at a time.
_EACH = 4
# Up to this many bytes are faster to copy to the host than to reduce.
_FEW = 64 * 1024
# Unused pairs of streams, for work and for captures, by CuPy and a GPU's number. They are kept, as
# CuPy reuses freed memory on its former stream, identified by a handle, and a new stream may get
# the handle of an old one whose work is not done.
_STREAMS: defaultdict[tuple[Any, int], list[tuple[Any, Any]]] = defaultdict(list)
# DLPack's device types whose memory a kernel can read: CUDA, and CUDA managed.
_DLPACK_CUDA = (2, 13)


def open_gpu(number: int, precision: str = "float32") -> GpuBackend:
    """Return the backend of GPU ``number``. Raises `DeviceError` if it cannot be used."""
    return GpuBackend(number, cupy_for(number), precision)


class GpuBackend(Backend):
    """One NVIDIA GPU."""

    #: Products of at most this many multiplications have a kernel here: cuBLAS would need one or
    #: two slow launches.
    small_product = 1_000_000
    #: Sums of this many numbers or more are split if there are too few to fill a GPU, as in the
    #: gradient of a convolution's weights, which is summed over all places of all images.
    long_product = 8192
    #: Formulas over this many numbers or more take four at a time: they are memory-bound.
    long_formula = 256 * 1024
    # A graph of many steps hides its launch cost and spreads a chunk's overhead; memory is no
    # concern. This many multiplications take a GPU some 50 ms.
    chunk_steps = recorded_steps = 64
    chunk_multiplications = 400_000_000_000
    by_rows = True
    columns_bytes = 256 * 1024 * 1024

    def __init__(self, number: int, cupy: Any, precision: str = "float32") -> None:
        super().__init__()
        self.device = f"gpu:{number}" if number else "gpu"
        self.xp = cupy
        #: Why steps are not captured into CUDA graphs; None if they are.
        self.uncaptured: str | None = None
        self._gpu = cupy.cuda.Device(number)
        self._tf32 = precision == "tf32"
        self._numbers: dict[tuple[float, str], Array] = {}
        self._kernels: dict[str, Any] = {}
        self._library = cublas.load()
        with self._told(), self._gpu:
            free = _STREAMS[cupy, number]
            try:
                pair = free.pop()
            except IndexError:
                # Blocking, so that what users do on CuPy's default stream is ordered with it. While
                # a stream of that kind captures, nobody in the process may use the default stream.
                pair = cupy.cuda.Stream(), cupy.cuda.Stream(non_blocking=True)
            self._stream, self._capturing = pair
            weakref.finalize(self, free.append, pair)

    @cached_property  # a handle takes memory, and `select` alone needs none
    def _cublas(self) -> Cublas:
        with self.here() as stream:
            made = Cublas(self._library, self.xp, stream, self._tf32)
            # The first product loads what would otherwise be loaded during a capture.
            a, out, number = (self.xp.zeros(shape, "f") for shape in ((64, 64), (64, 64), (1,)))
            function, arguments = made.gemm(a, a, out, number, number)
            function(*arguments)
            return made

    # Arrays.

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self.here():
            return self.xp.zeros(shape, dtype)

    def upload(self, array: Any) -> Array:
        with self.here():
            if not isinstance(array, self.xp.ndarray):
                array = np.asarray(array)
            array = array.astype(_kept(array.dtype), copy=False)
            cuda.ctype(array.dtype)
            if isinstance(array, np.ndarray) and array.nbytes > _STAGED:
                out = self.xp.empty(array.shape, array.dtype)
                out.set(np.ascontiguousarray(array), self._stream)
                self._stream.synchronize()  # the host's array may change now
                return out
            return self.xp.ascontiguousarray(self.xp.asarray(array)).reshape(array.shape)

    def download(self, array: Array) -> Any:
        with self.here():
            return array.get(stream=self._stream)

    def adopt(self, array: Any) -> Array | None:
        if not isinstance(array, self.xp.ndarray):
            lies_on = getattr(array, "__dlpack_device__", None)
            if isinstance(array, np.ndarray) or lies_on is None or lies_on()[0] not in _DLPACK_CUDA:
                return None
        # An event on the null stream comes after all work given to other streams.
        with self._told():
            before = self.xp.cuda.get_current_stream().record()
        with self.here() as stream:
            if not isinstance(array, self.xp.ndarray):
                array = self.xp.from_dlpack(array)  # which handles the order
            stream.wait_event(before)
            return array if array.device == self._gpu else array.copy()

    def hand_out(self, array: Array) -> Array:
        theirs = self.xp.cuda.get_current_stream()
        with self.here() as stream:
            ours = stream.record()
        with self._told():
            theirs.wait_event(ours)
        return array

    def fits(self, size: int) -> bool:
        with self.here():
            free = self.xp.cuda.runtime.memGetInfo()[0]
            pool = self.xp.get_default_memory_pool()
            return bool(size <= _DATA_SHARE * (free + pool.free_bytes()))

    def feed(self, source: Any, rows: int) -> Feed:
        return PinnedFeed(self, source, rows)

    # Operations.

    def gemm(
        self, a: Array, b: Array, out: Array, alpha: float | Array = 1.0, beta: float | Array = 0.0
    ) -> None:
        if a.shape[1] != b.shape[0] or out.shape != (a.shape[0], b.shape[1]):
            raise ValueError(f"gemm: {a.shape} @ {b.shape} does not give {out.shape}")
        scalars = self._number(alpha, out.dtype), self._number(beta, out.dtype)
        depth = a.shape[1]
        if out.size * depth <= self.small_product:
            few = depth > _SHALLOW and 32 * out.size <= _THREADS
            lanes = 32 if depth > _DEEP or few else 1
            steps = *strides.matrix(a), *strides.matrix(b), strides.row(out)
            text = cuda.product(cuda.ctype(out.dtype), lanes)
            parameters = (*out.shape, depth, a, b, out, *steps, *scalars)
            self._launch(text, out.size * lanes, cuda.WARPS, parameters)
            return
        tiles = -(-out.shape[0] // _TILE) * -(-out.shape[1] // _TILE)
        parts = min(_TILES // tiles, depth // _LEAST) if depth >= self.long_product else 1
        if parts > 1:
            self._long_product(a, b, out, parts, *scalars)
        else:
            self._call_cublas(a, b, out, *scalars)

    def _long_product(
        self, a: Array, b: Array, out: Array, parts: int, alpha: Array, beta: Array
    ) -> None:
        """Compute a product in parts of its depth, all at once, and add them up."""
        each = a.shape[1] // parts
        each -= each % 16  # so that each part starts aligned
        some = self.scratch((parts, *out.shape), out.dtype)
        one, zero = self._number(1.0, out.dtype), self._number(0.0, out.dtype)
        last = slice((parts - 1) * each, None)  # with the remainder
        self._call_cublas(a[:, :each], b[:each], some[0], one, zero, parts - 1)
        self._call_cublas(a[:, last], b[last], some[-1], one, zero)
        parameters = (*out.shape, parts, some, out, strides.row(out), alpha, beta)
        self._launch_rows(cuda.added(cuda.ctype(out.dtype)), parameters, out.size)

    def _call_cublas(
        self, a: Array, b: Array, out: Array, alpha: Array, beta: Array, count: int = 1
    ) -> None:
        function, arguments = self._cublas.gemm(a, b, out, alpha, beta, count)
        self._do(function, *arguments, keep=(a, b, out, alpha, beta))

    def elementwise(self, formula: str, out: Array, **operands: float | Array) -> None:
        used = {name: operands[name] for name in sorted(cplusplus.names(formula))}
        kinds = cuda.operand_types(used)
        arrays = [out, *(v for v in used.values() if cuda.is_array(v))]
        numbers = [out.dtype.type(v) for v in used.values() if not cuda.is_array(v)]
        (rows, columns), steps = strides.flattened(out.shape, arrays)
        inner = tuple(step for _, step in steps)
        threads = rows * columns
        if rows == 1 and inner[0] == 1 and set(inner) <= {0, 1}:
            swept = [array for array, step in zip(arrays, inner, strict=True) if step]
            each = _EACH if columns >= self.long_formula and _in_fours(swept, columns) else 1
            text = cuda.flat(formula, cuda.ctype(out.dtype), kinds, inner[1:], each)
            parameters: list[Any] = [columns, *arrays]
            threads //= each
        else:
            text = cuda.elementwise(formula, cuda.ctype(out.dtype), kinds)
            parameters = [rows, columns]
            for array, pair in zip(arrays, steps, strict=True):
                parameters += [array, *pair]
        self._launch(text, threads, cuda.BLOCK, (*parameters, *numbers))

    def update(self, program: str, **operands: float | Array) -> None:
        arrays: dict[str, Any] = {n: v for n, v in operands.items() if cuda.is_array(v)}
        swept = {name: v for name, v in arrays.items() if v.ndim}
        first = next(iter(swept.values()))
        if any(v.shape != first.shape or v.dtype != first.dtype for v in swept.values()):
            raise ValueError("update: arrays differ in shape or dtype")
        text = cuda.update(program, cuda.operand_types(operands), frozenset(swept))
        values = [v if name in arrays else first.dtype.type(v) for name, v in operands.items()]
        self._launch(text, first.size, cuda.BLOCK, (first.size, *values))

    def softmax(self, z: Array, out: Array) -> None:
        text = cuda.softmax(cuda.ctype(out.dtype))
        parameters = (*z.shape, z, strides.row(z), out, strides.row(out))
        self._launch_rows(text, parameters, len(z))

    def row_sums(self, values: Array, out: Array) -> None:
        text, (rows, columns) = cuda.row_sums(cuda.ctype(out.dtype)), values.shape
        parts = min(-(-columns // cuda.PART), cuda.PARTS)
        if parts > 1:  # else a long row would leave most of a GPU idle
            some = self.scratch((rows, parts), out.dtype)
            parameters = (rows, parts, columns, values, strides.row(values), some)
            self._launch_rows(text, parameters, rows * parts)
            values, columns = some, parts
        self._launch_rows(text, (rows, 1, columns, values, strides.row(values), out), rows)

    def argmax(self, values: Array, out: Array) -> None:
        text = cuda.argmax(cuda.ctype(values.dtype))
        parameters = (*values.shape, values, strides.row(values), out)
        self._launch_rows(text, parameters, len(values))

    def finite(self, values: Array, most: float = math.inf) -> bool:
        if values.dtype.kind != "f" or values.size == 0:
            return True
        most = min(most, float(np.finfo(values.dtype).max))
        with self.here():  # to what kernels take: CuPy also has half precision
            values = values.astype(_kept(values.dtype), copy=False)
        if values.nbytes <= _FEW and values.flags.c_contiguous:
            return bool((np.abs(self.download(values)) <= most).all())
        try:
            (rows, columns), (steps,) = strides.flattened(values.shape, [values])
        except ValueError:  # gaps along more than one axis
            with self.here():
                values = self.xp.ascontiguousarray(values)
            rows, columns, steps = 1, values.size, (0, 1)
        found = self.zeros((1,), np.int32)
        parameters = (rows, columns, values, *steps, values.dtype.type(most), found)
        text = cuda.beyond(cuda.ctype(values.dtype))
        self._launch(text, rows * columns, cuda.BLOCK, parameters)
        return not self.download(found)[0]

    def copy(self, source: Array, out: Array) -> None:
        if not isinstance(source, self.xp.ndarray):
            source = self.upload(source)
        alike = source.dtype == out.dtype and source.shape == out.shape
        if self._tape is None and alike and source.flags.c_contiguous and out.flags.c_contiguous:
            # Between replays, where launching a kernel from Python may take longer than a step.
            with self.here() as stream:
                out.data.copy_from_device_async(source.data, out.nbytes, stream)
        else:
            self.elementwise("a", out, a=source)

    def gather(self, source: Array, index: Array, out: Array) -> None:
        kinds = (cuda.ctype(v.dtype) for v in (source, index, out))
        text = cuda.gather(*kinds)
        rows = len(index)
        columns = out.size // max(1, rows)
        parameters = (rows, columns, out, strides.row(out), source, strides.row(source), index)
        self._launch(text, rows * columns, cuda.BLOCK, parameters)

    # Windows over images, and random numbers.

    def unfold(self, x: Array, out: Array, window: Window) -> None:
        placements = _placements(x, strides.places(out, x, window))
        text = windows.unfold(cuda.ctype(x.dtype), window, *placements)
        self._launch(text, out.size, cuda.BLOCK, (len(x), x, out))

    def fold(self, columns: Array, out: Array, window: Window) -> None:
        placements = _placements(out, strides.places(columns, out, window))
        text = windows.fold(cuda.ctype(out.dtype), window, *placements)
        self._launch(text, out.size, cuda.BLOCK, (len(out), columns, out))

    def max_pool(self, x: Array, out: Array, index: Array, window: Window) -> None:
        kinds = cuda.ctype(x.dtype), cuda.ctype(index.dtype)
        text = windows.max_pool(*kinds, window, *_placements(x, strides.placement(out)))
        self._launch(text, out.size, cuda.BLOCK, (len(x), x, out, index))

    def max_pool_backward(self, delta: Array, index: Array, out: Array, window: Window) -> None:
        kinds = cuda.ctype(out.dtype), cuda.ctype(index.dtype)
        text = windows.max_pool_backward(
            *kinds, window, *_placements(out, strides.placement(delta))
        )
        self._launch(text, out.size, cuda.BLOCK, (len(out), delta, index, out))

    def sum_pool(self, x: Array, out: Array, window: Window) -> None:
        text = windows.sum_pool(
            cuda.ctype(x.dtype), window, *_placements(x, strides.placement(out))
        )
        self._launch(text, out.size, cuda.BLOCK, (len(x), x, out))

    def sum_pool_backward(self, delta: Array, out: Array, window: Window) -> None:
        text = windows.sum_pool_backward(
            cuda.ctype(out.dtype), window, *_placements(out, strides.placement(delta))
        )
        self._launch(text, out.size, cuda.BLOCK, (len(out), delta, out))

    def resample(self, x: Array, rows: Array, columns: Array, out: Array) -> None:
        if not rows.flags.c_contiguous or not columns.flags.c_contiguous:
            raise ValueError("resample: rows and columns must be contiguous")
        text = windows.resample(cuda.ctype(x.dtype), *_placements(x, strides.placement(out)))
        self._launch(text, out.size, cuda.BLOCK, (len(x), x, rows, columns, out))

    def uniform(self, rng_state: Array, number: int, out: Array, first: int = 0) -> None:
        text = windows.uniform(cuda.ctype(out.dtype))
        self._launch(text, out.size, cuda.BLOCK, (out.size, rng_state, number, out, first))

    def advance(self, rng_state: Array) -> None:
        self._launch(windows.ADVANCE, 1, 1, (rng_state,))

    # Control.

    def chunk_bytes(self, multiplications: int) -> int:
        return 256 * 1024 * 1024

    def block_bytes(self, multiplications: int) -> int:
        return 128 * 1024 * 1024

    def synchronize(self) -> None:
        with self._told():
            self._stream.synchronize()

    def _now(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        with self.here():
            function(*arguments)

    def _replay(self, tape: list[Call], kept: list[Any]) -> Replay:
        def play() -> None:
            with self.here():
                for function, arguments in tape:
                    function(*arguments)

        play.kept = kept  # type: ignore[attr-defined]
        try:
            try:
                graph = self._capture(tape)
            except Exception:  # another thread may have synchronised the GPU, ending the capture
                graph = self._capture(tape)
        except Exception as error:  # a driver or a library that refuses: slower, not wrong
            self.uncaptured = first_line(error)
            told = f"{self.device}: steps run without CUDA graphs, which is slower: "
            warnings.warn(told + self.uncaptured, RuntimeWarning, stacklevel=2)
            return play

        def launch() -> None:
            with self._told():
                graph.launch(self._stream)

        launch.kept = kept, tape, graph  # type: ignore[attr-defined]
        return launch

    def _capture(self, tape: list[Call]) -> Any:
        """Return the graph of a tape, by playing it without effect."""
        with (
            cublas.CAPTURING,
            self._gpu,
            _uncollected(),
            self._captured_products(),
            self._capturing as stream,
        ):
            stream.begin_capture()
            try:
                for function, arguments in tape:
                    function(*arguments)
            except BaseException:
                with suppress(Exception):  # a consequence of the error raised below
                    stream.end_capture()
                raise
            graph = stream.end_capture()
        graph.upload(self._stream)
        return graph

    @contextmanager
    def _captured_products(self) -> Iterator[None]:
        """Move cuBLAS, if in use, to the capturing stream."""
        made = vars(self).get("_cublas")
        if made is not None:
            made.go_to(self._capturing)
        try:
            yield
        finally:
            if made is not None:
                made.go_to(self._stream)

    # Launches, streams and errors.

    def _launch_rows(self, text: str, parameters: tuple[Any, ...], rows: int) -> None:
        self._launch(text, 32 * rows, cuda.WARPS, parameters)

    def _launch(self, text: str, threads: int, block: int, parameters: tuple[Any, ...]) -> None:
        kernel = self._kernels.get(text)
        if kernel is None:
            kernel = self._kernels[text] = self._compiled(text)
        if threads:
            grid = -(-threads // block)
            # CuPy passes a Python int as 64 bits, as the kernels expect.
            self._do(kernel, (grid,), (block,), parameters)

    def _compiled(self, text: str) -> Any:
        with self.here():
            try:
                return _kernel(self.xp, self._gpu.id, text)
            except (self.xp.cuda.runtime.CUDARuntimeError, self.xp.cuda.driver.CUDADriverError):
                raise  # which `here` translates
            except Exception as error:
                raise DeviceError(
                    f"{self.device}: CuPy cannot compile a kernel: {first_line(error)}; "
                    'pip install "cupy-cuda12x[ctk]" (or cuda13x) installs what it needs'
                ) from None

    def _number(self, value: float | Array, dtype: Any) -> Array:
        """Return a number as a device array of shape ``()``, made once."""
        if cuda.is_array(value):
            return value
        key = float(value), np.dtype(dtype).char
        if key not in self._numbers:
            # Not uploaded as a 0-d array, for which CuPy compiles a kernel.
            self._numbers[key] = self.upload(np.array([value], dtype)).reshape(())
        return self._numbers[key]

    def wait_for(self, event: Any) -> None:
        """Make further work on this GPU's stream wait for an event."""
        self._stream.wait_event(event)

    @contextmanager
    def here(self) -> Iterator[Any]:
        """Work on this GPU's stream, after the work given to the user's; translate errors."""
        with self._told():
            api = self.xp.cuda
            theirs = api.get_current_stream()
            # This GPU's null stream is ordered with the backend's implicitly.
            alone = theirs.ptr in (self._stream.ptr, 0) and api.runtime.getDevice() == self._gpu.id
            before = None if alone else theirs.record()
            with self._gpu, self._stream:
                if before is not None:
                    self._stream.wait_event(before)
                yield self._stream

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn CuPy's errors into `DeviceError`s that say what to do."""
        try:
            yield
        except self.xp.cuda.memory.OutOfMemoryError as error:
            raise DeviceError(
                f"{self.device} is out of memory ({first_line(error)}); "
                "use a smaller batch_size or network, or device='cpu'"
            ) from None
        except (
            self.xp.cuda.runtime.CUDARuntimeError,
            self.xp.cuda.driver.CUDADriverError,  # what launching a kernel raises
        ) as error:
            raise DeviceError(
                f"{self.device} failed: {first_line(error)}; "
                "start a new process; if it happens again, check nvidia-smi, or use device='cpu'"
            ) from None


class PinnedFeed(Feed):
    """Two lots of rows, in pinned memory and on the device, copied on a stream of their own.

    While a step reads one lot, the other is gathered and copied.
    """

    def __init__(self, backend: GpuBackend, source: Any, rows: int) -> None:
        super().__init__(backend, source)
        self._gpu = backend
        xp, shape = backend.xp, (rows, *source.shape[1:])
        dtype = _kept(source.dtype)
        with backend.here():
            self._crossing = xp.cuda.Stream(non_blocking=True)
            self._lots = [_Lot(xp, shape, dtype) for _ in range(2)]
            for lot in self._lots:  # this memory's previous user may still be at work on it
                lot.taken.record()
        self._next = 0

    def send(self, index: Any) -> None:
        lot = self._lots[self._next % 2]
        self._next += 1
        n = len(index)
        with self._gpu.here():
            lot.crossed.synchronize()  # its pinned memory is free again
        if self.source.dtype == lot.pinned.dtype:
            np.take(self.source, index, axis=0, out=lot.pinned[:n], mode="clip")
        else:
            lot.pinned[:n] = self.source[index]
        with self._gpu.here():
            self._crossing.wait_event(lot.taken)
            lot.array[:n].set(lot.pinned[:n], stream=self._crossing)
            lot.crossed.record(self._crossing)
        self._sent.append((lot, n))

    def take(self, out: Array) -> None:
        lot, n = self._sent.popleft()
        with self._gpu.here() as stream:
            stream.wait_event(lot.crossed)
            self.backend.copy(lot.array[:n], out)
            lot.taken.record(stream)

    def __del__(self) -> None:
        """Make the next user of the lots' memory wait for copies in flight."""
        with suppress(Exception):  # such as at the end of the process
            for lot in self._lots:
                self._gpu.wait_for(lot.crossed)


class _Lot:
    """Buffers for some rows on both sides, and events: when they were copied and taken."""

    def __init__(self, xp: Any, shape: tuple[int, ...], dtype: Any) -> None:
        size = int(np.prod(shape))
        pinned = xp.cuda.alloc_pinned_memory(max(1, size * dtype.itemsize))
        self.pinned = np.frombuffer(pinned, dtype, size).reshape(shape)
        self.array = xp.empty(shape, dtype)
        self.crossed = xp.cuda.Event(disable_timing=True)
        self.taken = xp.cuda.Event(disable_timing=True)


def _kept(dtype: Any) -> np.dtype[Any]:
    """Return the dtype in which a GPU stores numbers of ``dtype``."""
    if dtype.kind == "f" and dtype.char not in "fd":
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    native: np.dtype[Any] = dtype.newbyteorder("=")
    return native


@contextmanager
def _uncollected() -> Iterator[None]:
    """Suspend garbage collection: freeing a handle waits, which a capture forbids."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _in_fours(arrays: list[Array], size: int) -> bool:
    """Return whether arrays of ``size`` float32 can be read and written four at a time."""
    room = _EACH * 4  # bytes
    alike = all(array.dtype.char == "f" and array.data.ptr % room == 0 for array in arrays)
    return alike and size % _EACH == 0


def _placements(images: Array, place: Placement) -> tuple[Placement, Placement, bool]:
    """Return the layouts of images and of their places, and whether these need 64 bits."""
    image = strides.placement(images)
    return image, place, windows.far(len(images), image, place)


@lru_cache(maxsize=4096)
def _kernel(cupy: Any, gpu: int, text: str) -> Any:
    """Return the kernel of a source, compiled and loaded on the current GPU ``gpu``."""
    kernel = cupy.RawKernel(text, "run", options=("-std=c++17",))
    kernel.compile()
    return kernel
