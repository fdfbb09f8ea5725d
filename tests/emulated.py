"""An NVIDIA GPU in software: what CuPy, the driver and cuBLAS do, as far as `xnn` uses it.

`xnn.backends.gpu` runs on it as on a GPU, line by line. Kernels are compiled as C++ and run thread
by thread, with the lanes of a warp in step at each shuffle. It is stricter than a GPU:

- Work on a stream is deferred until something waits for it, and only streams and events order it.
  Code that reads host memory too early, or frees it too early, gets garbage.
- Memory that was freed, or never written to, is full of NaN and of -1, and is surrounded by a fence
  of known bytes, which is checked when it is freed.
- While a stream captures, nothing may be allocated, waited for or copied from the host.
- Pointers, numbers and devices must be exactly what a kernel declares.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import re
import shutil
import subprocess
import tempfile
import threading
import weakref
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from xnn.backends import cplusplus, cublas, gpu

from . import standin

GPUS = 2
MEMORY = 16 * 2**30
#: What has happened on all GPUs of this process.
counts: Counter[str] = Counter()

COMPILER = shutil.which("g++") or shutil.which("clang++")

_FENCE = 256
_FENCED, _POISON = 0xA5, 0xFF
_LARGE = 4 * 2**20
_lock, _compiling = threading.RLock(), threading.Lock()
_threads = threading.local()


class CUDARuntimeError(RuntimeError):
    """What CuPy raises where the CUDA runtime fails."""


class CUDADriverError(RuntimeError):
    """What CuPy raises where the CUDA driver fails."""


class OutOfMemoryError(MemoryError):
    """What CuPy raises where its pool can grow no more."""


# Streams. Work is a graph, each node of which knows its predecessors.


class _Work:
    def __init__(self, call, after):
        self.call = call
        self.after = [piece for piece in after if piece is not None and piece.call is not None]

    def run(self):
        """Run all predecessors, then this. No recursion: a chain may be long."""
        with _lock:
            stack = [self]
            while stack:
                piece = stack[-1]
                if piece.call is None:
                    stack.pop()
                elif waiting := [p for p in piece.after if p.call is not None]:
                    stack += waiting
                else:
                    call, piece.call, piece.after = piece.call, None, []
                    stack.pop()
                    call()


class Device:
    """A GPU, current within ``with``."""

    def __init__(self, number):
        self.id = number

    def __eq__(self, other):
        return self.id == other.id

    __hash__ = None

    def __enter__(self):
        _state().devices.append(self.id)
        return self

    def __exit__(self, *_):
        _state().devices.pop()


def _state():
    """Return the thread's current device, and each device's current streams."""
    if not hasattr(_threads, "devices"):
        _threads.devices = [0]
        _threads.streams = [[stream] for stream in _NULL]
    return _threads


def _current_device():
    return _state().devices[-1]


def get_current_stream(device_id=-1):
    return _state().streams[_current_device() if device_id == -1 else device_id][-1]


class Stream:
    """A stream. A blocking one is ordered with the null stream, as CUDA's legacy one is."""

    _numbers = itertools.count(1)

    def __init__(self, null=False, non_blocking=False, device=None):
        self.ptr = 0 if null else next(self._numbers)
        self.device_id = _current_device() if device is None else device
        self.non_blocking = non_blocking
        self.last = None
        self.captured, self.ended = None, False
        self._waits = []
        _ALL.add(self)
        if not null and not non_blocking:
            _BLOCKING[self.device_id].add(self)

    def __enter__(self):
        if self.device_id != _current_device():
            raise RuntimeError("The device of the stream is not the current device")
        _state().streams[self.device_id].append(self)
        return self

    def __exit__(self, *_):
        _state().streams[self.device_id].pop()

    def enqueue(self, call, name):
        """Put work on the stream, or into the graph that it captures."""
        with _lock:
            blocking = _BLOCKING[self.device_id]
            if self.ptr == 0 and any(stream.captured is not None for stream in blocking):
                raise CUDARuntimeError("cudaErrorStreamCaptureImplicit: the default stream is out")
            if self.captured is not None:
                self.captured.append(call)
                return None
            counts[name] += 1
            _give_back()
            return self._append(call)

    def _append(self, call):
        after = [self.last, *self._waits]
        if self.ptr == 0:
            after += [stream.last for stream in _BLOCKING[self.device_id]]
        elif not self.non_blocking:
            after.append(_NULL[self.device_id].last)
        self._waits = []
        self.last = _Work(call, after)
        return self.last

    def synchronize(self):
        self._not_capturing("a wait")
        counts["waits"] += 1
        with _lock:
            if self.ptr == 0:
                for stream in list(_BLOCKING[self.device_id]):
                    stream.last and stream.last.run()
            for piece in (*self._waits, self.last):
                piece and piece.run()
            self._waits = []
        _look_at_fences()

    def record(self, event=None):
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event):
        self._not_capturing("an outside event")
        with _lock:
            if event.work is not None:
                self._waits.append(event.work)

    def begin_capture(self, mode=None):
        self._not_capturing("a capture")
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self.captured, self.ended = [], False

    def end_capture(self):
        calls, self.captured = self.captured, None
        if self.ended:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: a wait ended it")
        return Graph(calls)

    def _not_capturing(self, what):
        if self.captured is not None:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} within a capture")


_ALL: weakref.WeakSet[Stream] = weakref.WeakSet()
_BLOCKING = defaultdict(weakref.WeakSet)
_NULL = [Stream(null=True, device=number) for number in range(GPUS)]


class Event:
    """A point in a stream's work."""

    def __init__(self, block=False, disable_timing=False):
        self.work = None

    def record(self, stream=None):
        self.work = (stream or get_current_stream()).enqueue(lambda: None, "events")

    def synchronize(self):
        counts["waits"] += 1
        if self.work is not None:
            self.work.run()


class Graph:
    """What a stream has captured."""

    def __init__(self, calls):
        self._calls = calls

    def launch(self, stream=None):
        def call():
            for each in self._calls:
                each()

        (stream or get_current_stream()).enqueue(call, "replays")

    def upload(self, stream=None):
        """Do nothing: this only makes the first launch faster."""


# Memory. A pool for each stream, as in CuPy: what is freed is reused in the stream's order.

_pools: dict[tuple[int, int], dict[int, list]] = defaultdict(lambda: defaultdict(list))
_given_back: list = []
_broken: list[str] = []
_used = 0


class _Block:
    """Bytes with a fence on either side."""

    def __init__(self, size):
        self.size = size
        self.raw = np.empty(size + 2 * _FENCE, np.uint8)
        self.inside = self.raw[_FENCE : _FENCE + size]
        self.raw[:_FENCE] = self.raw[_FENCE + size :] = _FENCED
        self._fill()

    def poison(self):
        fences = self.raw[:_FENCE], self.raw[_FENCE + self.size :]
        if any((fence != _FENCED).any() for fence in fences):
            _broken.append(f"a kernel wrote beside an array of {self.size} bytes")
            for fence in fences:
                fence[:] = _FENCED
        self._fill()

    def _fill(self):
        """Poison what is inside; large blocks, as for cuBLAS, are left without physical pages."""
        if self.size <= _LARGE:
            self.inside[:] = _POISON


class Memory:
    """GPU memory, which returns to its stream's pool when nothing refers to it any more."""

    def __init__(self, size):
        global _used
        stream = get_current_stream()
        stream._not_capturing("an allocation")
        counts["allocations"] += 1
        size = -(-max(size, 1) // 512) * 512
        with _lock:
            _give_back()
            if _used + size > MEMORY:
                raise OutOfMemoryError(f"Out of memory allocating {size} bytes")
            _used += size
            free = _pools[stream.device_id, stream.ptr][size]
            block = free.pop() if free else _Block(size)
        self.device_id = stream.device_id
        self._stream = stream
        self.block = block
        self.ptr = self.block.inside.ctypes.data
        self.__array_interface__ = self.block.inside.__array_interface__

    def __del__(self):
        if _given_back is not None and hasattr(self, "block"):  # None while the process exits
            _given_back.append((self._stream, self.block))


def _give_back():
    global _used
    with _lock:
        while _given_back:
            stream, block = _given_back.pop()
            stream._append(block.poison)
            _used -= block.size
            _pools[stream.device_id, stream.ptr][block.size].append(block)


def _look_at_fences():
    if _broken:
        raise CUDARuntimeError(f"cudaErrorIllegalAddress: {_broken.pop()}")


class _Pointer:
    def __init__(self, array):
        self._array = array
        self.ptr = array._host.ctypes.data

    def copy_from_device_async(self, source, size, stream):
        ours, theirs = self._array, source._array
        if not (ours._host.nbytes == theirs._host.nbytes == size):
            raise CUDARuntimeError("cudaErrorInvalidValue: sizes differ")
        target, source = ours._bare, theirs._bare
        stream.enqueue(lambda: np.copyto(target, source), "copies")


# Arrays.


class ndarray(standin.Array):  # noqa: N801 - CuPy's name
    """CuPy's array, as far as `xnn` needs it outside of kernels."""

    __hash__ = None

    def __init__(self, host, memory):
        super().__init__(host)
        self.memory = memory

    @classmethod
    def new(cls, shape, dtype):
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape))
        memory = Memory(size * dtype.itemsize)
        host = np.asarray(memory)[: size * dtype.itemsize].view(dtype).reshape(shape)
        return cls(host, memory)

    data = property(_Pointer)
    flags = property(lambda self: self._host.flags)
    device = property(lambda self: Device(self.memory.device_id))

    def _like(self, host):
        return ndarray(host, self.memory)

    @property
    def _bare(self):
        """The same memory as work on a stream sees it, which does not keep it alive."""
        host = self._host
        extent = sum((n - 1) * abs(s) for n, s in zip(host.shape, host.strides, strict=True))
        buffer = (ctypes.c_char * (extent + host.itemsize)).from_address(host.ctypes.data)
        return np.ndarray(host.shape, host.dtype, buffer, strides=host.strides)

    def _enqueue(self, call, name="launches", stream=None):
        if self.memory.device_id != _current_device():
            raise ValueError("Array device must be same as the current device")
        (stream or get_current_stream()).enqueue(call, name)

    def _made(self, shape, dtype, function):
        """Return a new array that is computed from this one when its turn comes."""
        made = ndarray.new(shape, dtype)
        target, source = made._bare, self._bare
        self._enqueue(lambda: np.copyto(target, function(source), casting="unsafe"))
        return made

    def _wait(self):
        self._enqueue(lambda: None)
        get_current_stream().synchronize()
        return self._host

    def get(self, stream=None):
        counts["downloads"] += 1
        out = np.empty_like(self._host, order="C")
        with self.device:  # as in CuPy, whichever is current
            stream = stream or get_current_stream()
            self._enqueue(lambda: np.copyto(out, self._host), "downloaded", stream)
            stream.synchronize()
        return out

    def set(self, array, stream=None):
        if array.dtype != self.dtype or array.shape != self.shape:
            raise TypeError("set: dtypes or shapes differ")
        (stream or get_current_stream())._not_capturing("a host array")
        bare = self._bare
        self._enqueue(lambda: np.copyto(bare, array), "uploads", stream)

    def __getitem__(self, key):
        keys = standin._no_arrays(key if isinstance(key, tuple) else (key,))
        found = self._host[keys]
        return self._like(found if isinstance(found, np.ndarray) else self._host[(*keys, ...)])

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        view = self[key]._bare
        self._enqueue(lambda: np.copyto(view, standin._inside(value), casting="unsafe"))

    def __iadd__(self, other):
        self._enqueue(lambda: np.add(self._host, standin._inside(other), out=self._host))
        return self

    def __gt__(self, other):
        return self._made(self.shape, bool, lambda a: a > standin._inside(other))

    def argmax(self, axis):
        shape = np.empty(self.shape, bool).argmax(axis).shape
        return self._made(shape, np.int64, lambda a: a.argmax(axis))

    def astype(self, dtype, copy=True):
        if not copy and dtype == self.dtype:
            return self
        return self._made(self.shape, dtype, np.asarray)

    def copy(self):
        made = ndarray.new(self.shape, self.dtype)
        target, source = made._bare, self._bare  # which may be on another GPU
        get_current_stream().enqueue(lambda: np.copyto(target, source), "copies")
        return made

    def __deepcopy__(self, _):
        return self.copy()

    def reshape(self, *shape):
        view = self._host.reshape(*shape)
        if np.shares_memory(view, self._host) or not view.size:
            return self._like(view)
        return self._made(view.shape, self.dtype, lambda a: a.reshape(*shape))


def zeros(shape, dtype):
    return full(shape, 0, dtype)


def full(shape, value, dtype):
    made = ndarray.new(shape, dtype)
    bare = made._bare
    made._enqueue(lambda: bare.fill(value))
    return made


def asarray(array):
    if isinstance(array, ndarray):
        return array
    get_current_stream()._not_capturing("a host array")
    made = ndarray.new(array.shape, array.dtype)
    staged = np.array(array, order="C")  # CuPy copies unpinned memory before it returns
    bare = made._bare
    made._enqueue(lambda: np.copyto(bare, staged), "uploads")
    return made


def ascontiguousarray(array):
    return array if array.flags.c_contiguous else array.copy()


# Kernels.

_HEAD = """
#define __device__
#define __global__
struct Place { unsigned x; };
static Place blockIdx, threadIdx, blockDim;
inline float __int_as_float(int v) { float f; __builtin_memcpy(&f, &v, 4); return f; }
"""
# No standard headers: reading them would take ten times as long as the kernel.
_HEAD += 'extern "C" {\n'
_MATHS = dict.fromkeys(("exp", "log", "log1p", "cos", "sin", "sqrt", "tanh", "floor", "fabs"), 1)
_MATHS |= {"fmin": 2, "fmax": 2}
for _name, _arguments in _MATHS.items():
    for _kind, _letter in (("double", ""), ("float", "f")):
        _HEAD += f"{_kind} {_name}{_letter}({', '.join([_kind] * _arguments)}) throw();\n"
_HEAD += "}\n"
for _name, _arguments in _MATHS.items():
    _takes = ", ".join(f"float v{i}" for i in range(_arguments))
    _gives = ", ".join(f"v{i}" for i in range(_arguments))
    _HEAD += f"inline float {_name}({_takes}) {{ return {_name}f({_gives}); }}\n"

_LOOP = """
extern "C" int launch(unsigned grid, unsigned block, void** arguments) {
    blockDim.x = block;
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < block; threadIdx.x++) run(ARGUMENTS);
    return 0;
}
"""

# Each lane of a warp has a stack of its own. A shuffle writes what others are to read and lets them
# all reach the same shuffle; what they read stays until the shuffle after the next.
_WARPS_HEAD = """
#include <setjmp.h>
#include <ucontext.h>
static ucontext_t home, entry[32];
static jmp_buf back, lanes[32];
static long long slots[2][32];
static char stacks[32][65536];
static int lane_now, shuffles[32], begun[32], done[32];
static void** given;
static void others() {
    int me = lane_now, next = (me + 1) % 32;
    if (_setjmp(lanes[me])) return;
    lane_now = next;
    if (begun[next]) _longjmp(lanes[next], 1);
    begun[next] = 1;
    setcontext(&entry[next]);
}
template <typename V> V __shfl_xor_sync(unsigned mask, V v, int step) {
    int me = lane_now, at = shuffles[me]++ % 2;
    __builtin_memcpy(&slots[at][me], &v, sizeof v);
    unsigned keep = threadIdx.x;
    others();
    threadIdx.x = keep;
    __builtin_memcpy(&v, &slots[at][me ^ step], sizeof v);
    return v;
}
"""
_WARPS_LOOP = """
static unsigned first;
static void body() {
    for (;;) {
        threadIdx.x = first + lane_now;
        void** arguments = given;
        run(ARGUMENTS);
        done[lane_now] = 1;
        if (lane_now == 31) {
            if (!_setjmp(lanes[31])) _longjmp(back, 1);
        } else others();
    }
}
extern "C" int launch(unsigned grid, unsigned block, void** arguments) {
    given = arguments, blockDim.x = block;
    for (int i = 0; i < 32; i++) {
        if (begun[i]) continue;
        getcontext(&entry[i]);
        entry[i].uc_stack.ss_sp = stacks[i], entry[i].uc_stack.ss_size = sizeof stacks[i];
        entry[i].uc_link = &home;
        makecontext(&entry[i], body, 0);
    }
    for (blockIdx.x = 0; blockIdx.x < grid; blockIdx.x++)
        for (first = 0; first < block; first += 32) {
            for (int i = 0; i < 32; i++) shuffles[i] = done[i] = 0;
            lane_now = 0;
            if (!_setjmp(back)) {
                if (begun[0]) _longjmp(lanes[0], 1);
                begun[0] = 1;
                setcontext(&entry[0]);
            }
            for (int i = 0; i < 32; i++)
                if (!done[i] || shuffles[i] != shuffles[0]) return 1;
        }
    return 0;
}
"""

_DECLARED = re.compile(r'extern "C" __global__ void run\((.*?)\) \{', re.DOTALL)
_ALIAS = re.compile(r"using T = ([\w ]+);")


@cache
def _folder():
    folder = tempfile.TemporaryDirectory(prefix="xnn-emulated-")
    return folder, Path(folder.name)


def _compiled(text):
    """Return the library of a kernel and the C++ types of its parameters."""
    with _compiling:  # two threads would write to one file
        return _compiled_once(text)


@cache
def _compiled_once(text):
    declared = [" ".join(part.split()) for part in _DECLARED.search(text)[1].split(",")]
    kinds = [re.match(r"(.*?)\s*\w+$", part)[1] for part in declared]
    if alias := _ALIAS.search(text):
        kinds = [re.sub(r"\bT\b", alias[1], kind) for kind in kinds]
    given = ", ".join(f"*({kind}*)arguments[{i}]" for i, kind in enumerate(kinds))
    shuffles = "__shfl" in text
    parts = [_HEAD, _WARPS_HEAD * shuffles, text, _WARPS_LOOP if shuffles else _LOOP]
    name = hashlib.sha256(text.encode()).hexdigest()[:20]
    source, library = _folder()[1] / f"{name}.cpp", _folder()[1] / f"{name}.so"
    source.write_text("".join(parts).replace("ARGUMENTS", given))
    options = ["-std=c++17", "-O1", "-fPIC", "-shared", "-nostdlib", "-U_FORTIFY_SOURCE"]
    subprocess.run([COMPILER, *options, "-o", library, source], check=True)
    counts["compiled"] += 1
    return ctypes.CDLL(str(library)).launch, kinds


class RawKernel:
    """A kernel of CUDA C++."""

    def __init__(self, code, name, options=()):
        assert name == "run"
        assert isinstance(options, tuple)
        self.code = code

    def compile(self):
        _compiled(self.code)

    def __call__(self, grid, block, arguments):
        launch, kinds = _compiled(self.code)
        if len(arguments) != len(kinds):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: wrong number of arguments")
        (grid,), (block,) = grid, block
        if not (0 < grid < 2**31 and 0 < block <= 1024):
            raise CUDADriverError("CUDA_ERROR_INVALID_VALUE: grid or block")
        values = [_as_declared(*pair) for pair in zip(arguments, kinds, strict=True)]
        pointers = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))

        def call(keep=values):
            if launch(grid, block, pointers) != 0:
                _broken.append("lanes of a warp did not reach the same shuffles")

        get_current_stream().enqueue(call, "launches")


def _as_declared(value, kind):
    """Return a kernel's argument, which must be of the type that the kernel declares."""
    if isinstance(value, ndarray):
        pointed = kind.removeprefix("const ").removesuffix("*").strip()
        if not kind.endswith("*") or pointed not in _names(value.dtype):
            raise TypeError(f"a kernel that takes {kind} got an array of {value.dtype}")
        if value.memory.device_id != _current_device():
            raise ValueError("Array device must be same as the current device")
        return ctypes.c_void_p(value._host.ctypes.data)
    if type(value) is int and kind == "long long":
        return ctypes.c_longlong(value)
    if isinstance(value, np.generic) and kind in _names(value.dtype):
        return np.ctypeslib.as_ctypes_type(value.dtype)(value.item())
    raise TypeError(f"a kernel that takes {kind} got {type(value).__name__}")


def _names(dtype):
    name = cplusplus.TYPES[dtype.char]
    return {name, {"unsigned int": "unsigned"}.get(name, name)}


# cuBLAS.


class _Cublas:
    """The cuBLAS library, as `xnn.backends.cublas` calls it through ctypes."""

    def __init__(self):
        self._handles = itertools.count(1)
        self._streams = {}
        self._pointer_modes = {}
        self._workspaces = {}

    def cublasCreate_v2(self, handle):
        self._wait_for_all()
        handle._obj.value = next(self._handles)
        self._streams[handle._obj.value] = _NULL[_current_device()]
        return 0

    def cublasDestroy_v2(self, handle):
        self._wait_for_all()
        del self._streams[handle.value]
        return 0

    def _wait_for_all(self):
        """Wait for the whole GPU, as cuBLAS does here: that ends captures, even other threads'."""
        for stream in list(_ALL):
            stream.ended |= stream.captured is not None

    def cublasSetStream_v2(self, handle, stream):
        self._streams[handle.value] = next(s for s in _ALL if s.ptr == stream.value)
        self._workspaces.pop(handle.value, None)
        return 0

    def cublasSetWorkspace_v2(self, handle, pointer, size):
        self._workspaces[handle.value] = pointer.value, size.value
        return 0

    def cublasSetPointerMode_v2(self, handle, mode):
        self._pointer_modes[handle.value] = mode.value
        return 0

    def cublasSetMathMode(self, handle, mode):
        return 0 if mode.value == 3 else 7

    def cublasSgemm_v2(self, *arguments):
        return self._gemm(np.float32, *arguments)

    def cublasDgemm_v2(self, *arguments):
        return self._gemm(np.float64, *arguments)

    def cublasSgemmStridedBatched(self, *arguments):
        return self._batched(np.float32, *arguments)

    def cublasDgemmStridedBatched(self, *arguments):
        return self._batched(np.float64, *arguments)

    def _batched(self, dtype, *arguments):
        """As many products as the last argument says, with strides after leading dimensions."""
        *head, a, ld_a, step_a, b, ld_b, step_b, beta, c, ld_c, step_c, count = arguments
        steps = step_a, step_b, step_c
        if type(count) is not ctypes.c_int or any(type(s) is not ctypes.c_longlong for s in steps):
            return 7
        for i in range(count.value):
            a_i, b_i, c_i = (
                ctypes.c_void_p(at.value + i * step.value * np.dtype(dtype).itemsize)
                for at, step in zip((a, b, c), steps, strict=True)
            )
            status = self._gemm(dtype, *head, a_i, ld_a, b_i, ld_b, beta, c_i, ld_c)
            if status != 0:
                return status
        return 0

    def _gemm(self, dtype, handle, op_a, op_b, m, n, k, alpha, a, ld_a, b, ld_b, beta, c, ld_c):
        """C ← α op(A) op(B) + β C, all column-major."""
        whole = op_a, op_b, m, n, k, ld_a, ld_b, ld_c
        if any(type(value) is not ctypes.c_int for value in whole):
            return 7
        op_a, op_b, m, n, k, ld_a, ld_b, ld_c = (value.value for value in whole)
        if handle.value not in self._workspaces or self._pointer_modes.get(handle.value) != 1:
            return 7
        shape_a, shape_b = (k, m) if op_a else (m, k), (n, k) if op_b else (k, n)
        if min(m, n, k) < 0 or ld_a < max(1, shape_a[0]) or ld_b < max(1, shape_b[0]) or ld_c < m:
            return 7  # CUBLAS_STATUS_INVALID_VALUE
        stream = self._streams[handle.value]

        def call():
            x = _columns(a.value, shape_a, ld_a, dtype)
            y = _columns(b.value, shape_b, ld_b, dtype)
            out = _columns(c.value, (m, n), ld_c, dtype)
            factor, old = (_columns(p.value, (1, 1), 1, dtype)[0, 0] for p in (alpha, beta))
            with np.errstate(all="ignore"):
                product = factor * ((x.T if op_a else x) @ (y.T if op_b else y))
                out[:] = product if old == 0 else product + old * out

        stream.enqueue(call, "launches")
        return 0


def _columns(address, shape, leading, dtype):
    """Return the column-major matrix at an address."""
    size = np.dtype(dtype).itemsize
    rows, columns = shape
    room = max(1, (columns - 1) * leading + rows) * size
    buffer = (ctypes.c_char * room).from_address(address)
    return np.ndarray(shape, dtype, buffer, strides=(size, leading * size))


# All together.


class CuPy:
    """The module, as far as it is needed."""

    __version__ = "14 (emulated)"
    ndarray, RawKernel = ndarray, RawKernel
    zeros, full = staticmethod(zeros), staticmethod(full)
    empty = staticmethod(ndarray.new)
    asarray, ascontiguousarray = staticmethod(asarray), staticmethod(ascontiguousarray)
    dtype, finfo = np.dtype, np.finfo
    cuda = SimpleNamespace(
        Device=Device,
        Stream=Stream,
        Event=Event,
        get_current_stream=get_current_stream,
        alloc=Memory,
        alloc_pinned_memory=lambda size: bytearray(b"\xff" * size),
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            getDevice=_current_device,
            getDeviceCount=lambda: GPUS,
            runtimeGetVersion=lambda: 13000,
            memGetInfo=lambda: (MEMORY - _used, MEMORY),
            getDeviceProperties=lambda _: {"name": b"Emulated GPU", "major": 9, "minor": 0},
        ),
    )

    @staticmethod
    def get_default_memory_pool():
        return SimpleNamespace(free_bytes=lambda: 0)


CUPY = CuPy()
_library = _Cublas()


class EmulatedBackend(gpu.GpuBackend):
    """`GpuBackend` on the GPU of this module."""

    small_product = 1000  # so that tests have products of both kinds

    def __init__(self, number=0, precision="float32"):
        load, cublas.load = cublas.load, lambda: _library
        try:
            super().__init__(number, CUPY, precision)
        finally:
            cublas.load = load
        self.device = f"emulated:{number}" if number else "emulated"
