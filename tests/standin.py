"""A stand-in for a GPU, for machines that have none.

`Array` wraps a NumPy array behind a CuPy array's interface: it does not mix with NumPy arrays, is
not converted implicitly, and comes to the host by ``.get()`` alone. `StandInBackend` does the CPU
backend's arithmetic on what is inside, and counts what a GPU would have to do: transfers,
allocations, launches, and reads of its memory that make the host wait.
"""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np

from xnn.backends import Backend, DeviceError
from xnn.backends.cpu import CpuBackend

#: What has happened on all stand-in devices of this process.
counts: Counter[str] = Counter()


class Array:
    """A device array; see the module."""

    __array_ufunc__ = None  # NumPy's functions and operators refuse it
    __hash__ = None

    def __init__(self, host):
        assert type(host) is np.ndarray
        self._host = host

    shape = property(lambda self: self._host.shape)
    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    nbytes = property(lambda self: self._host.nbytes)
    T = property(lambda self: self._like(self._host.T))

    def _like(self, host):
        return Array(host)

    def __len__(self):
        return len(self._host)

    def __repr__(self):
        return f"Array({self._host!r})"

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()`")

    def __array_function__(self, function, *_):
        raise TypeError(f"NumPy's {function.__name__} got a device array")

    def __getitem__(self, key):
        return self._like(self._host[_no_arrays(key)])

    def __setitem__(self, key, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        counts["launches"] += 1
        self._host[_no_arrays(key)] = _inside(value)

    def __iadd__(self, other):
        counts["launches"] += 1
        self._host += _inside(other)
        return self

    def __gt__(self, other):
        return Array(np.asarray(self._host > _inside(other)))

    def argmax(self, axis):
        return Array(self._host.argmax(axis))

    def astype(self, dtype):
        return Array(self._host.astype(dtype))

    def reshape(self, *shape):
        view = self._host.view()
        view = view.reshape(*shape)
        if not np.shares_memory(view, self._host):
            counts["allocations"] += 1
        return Array(view)

    def get(self):
        counts["downloads"] += 1
        return self._host.copy()

    def _wait(self):
        counts["waits"] += 1
        return self._host

    def item(self, *at):
        return self._wait().item(*at)

    def __float__(self):
        return float(self._wait())

    def __int__(self):
        return int(self._wait())

    def __bool__(self):
        return bool(self._wait())

    def __iter__(self):
        raise TypeError("iterating over a device array would fetch each element")


def _no_arrays(key):
    for part in key if isinstance(key, tuple) else (key,):
        if isinstance(part, np.ndarray | Array):
            raise TypeError("indexing by arrays is not a view")
    return key


def _inside(value):
    return value._host if isinstance(value, Array) else value


def _device(value, argument):
    """Return what is inside a device array; an operation takes nothing else."""
    if not isinstance(value, Array):
        raise TypeError(f"{argument} is {type(value).__name__}, but must be a device array")
    return value._host


class StandInBackend(CpuBackend):
    """The CPU's arithmetic behind a GPU's interface."""

    def __init__(self, number=0, precision="float32"):
        super().__init__()
        self.precision = precision
        self.device = "standin" if not number else f"standin:{number}"
        self.xp = SimpleNamespace(dtype=np.dtype, finfo=np.finfo)
        self._in_step = False

    def zeros(self, shape, dtype):
        if self._tape is not None and not self._in_step:
            raise RuntimeError("zeros: a step may not make arrays; it uses scratch")
        counts["allocations"] += 1
        return Array(super().zeros(shape, dtype))

    def scratch(self, shape, dtype):
        self._in_step = True
        try:
            return self.zeros(shape, dtype)
        finally:
            self._in_step = False

    def upload(self, array):
        if isinstance(array, Array):
            return array
        if self._tape is not None:
            raise RuntimeError("upload: a step may not transfer arrays")
        counts["uploads"] += 1
        return Array(np.array(array, order="C"))

    def download(self, array):
        return array.get()

    def gemm(self, a, b, out, alpha=1.0, beta=0.0):
        a, b, out = _device(a, "a"), _device(b, "b"), _device(out, "out")
        super().gemm(a, b, out, _number(alpha), _number(beta))

    def elementwise(self, formula, out, **operands):
        operands = {name: _number(value) for name, value in operands.items()}
        super().elementwise(formula, _device(out, "out"), **operands)

    def update(self, program, **operands):
        super().update(program, **{name: _number(value) for name, value in operands.items()})

    def softmax(self, z, out):
        CpuBackend.softmax(_Plain(self), _device(z, "z"), _device(out, "out"))

    def row_sums(self, values, out):
        super().row_sums(_device(values, "values"), _device(out, "out"))

    def argmax(self, values, out):
        super().argmax(_device(values, "values"), _device(out, "out"))

    def finite(self, values, most=np.inf):
        counts["waits"] += 1
        return super().finite(_device(values, "values"), most)

    def adopt(self, array):
        return array if isinstance(array, Array) else None

    def function(self, *step, **arrays):
        return Backend.function(self, *step, **arrays)

    def copy(self, source, out):
        if not isinstance(source, Array):
            source = self.upload(source)
        counts["copies"] += self._tape is None
        super().copy(_device(source, "source"), _device(out, "out"))

    def gather(self, source, index, out):
        parts = _device(source, "source"), _device(index, "index"), _device(out, "out")
        CpuBackend.gather(_Plain(self), *parts)

    def unfold(self, x, out, window):
        CpuBackend.unfold(_Plain(self), _device(x, "x"), _device(out, "out"), window)

    def fold(self, columns, out, window):
        super().fold(_device(columns, "columns"), _device(out, "out"), window)

    def max_pool(self, x, out, index, window):
        arrays = _device(x, "x"), _device(out, "out"), _device(index, "index")
        CpuBackend.max_pool(_Plain(self), *arrays, window)

    def max_pool_backward(self, delta, index, out, window):
        arrays = _device(delta, "delta"), _device(index, "index"), _device(out, "out")
        CpuBackend.max_pool_backward(_Plain(self), *arrays, window)

    def sum_pool(self, x, out, window):
        super().sum_pool(_device(x, "x"), _device(out, "out"), window)

    def sum_pool_backward(self, delta, out, window):
        super().sum_pool_backward(_device(delta, "delta"), _device(out, "out"), window)

    def resample(self, x, rows, columns, out):
        places = _device(rows, "rows"), _device(columns, "columns")
        CpuBackend.resample(_Plain(self), _device(x, "x"), *places, _device(out, "out"))

    def uniform(self, rng_state, number, out, first=0):
        arrays = _device(rng_state, "rng_state"), number, _device(out, "out")
        CpuBackend.uniform(_Plain(self), *arrays, first)

    def advance(self, rng_state):
        super().advance(_device(rng_state, "rng_state"))

    def lanes(self, multiplications):
        return 1  # like a GPU, which has enough work in one

    def _now(self, function, arguments):
        counts["launches"] += 1
        super()._now(function, arguments)

    def _replay(self, tape, kept):
        replay = super()._replay(tape, kept)

        def counted():
            counts["replays"] += 1
            replay()

        return counted


class _Plain:
    """The backend as the CPU's own code expects it: its scratch is NumPy's."""

    _do_all = CpuBackend._do_all

    def __init__(self, backend):
        self._do = backend._do
        self._backend = backend

    def scratch(self, shape, dtype):
        return _device(self._backend.scratch(shape, dtype), "scratch")


def _number(value):
    if isinstance(value, Array):
        return value._host
    if isinstance(value, np.ndarray):
        raise TypeError("an operand is a NumPy array, but must be a number or a device array")
    return value


class FragileBackend(StandInBackend):
    """A device that is lost at a certain replay."""

    left = 0

    def download(self, array):
        if FragileBackend.left < 0:
            raise DeviceError("fragile failed")
        return super().download(array)

    def _replay(self, tape, kept):
        replay = super()._replay(tape, kept)

        def fragile():
            FragileBackend.left -= 1
            if FragileBackend.left < 0:
                raise DeviceError("fragile failed")
            replay()

        return fragile
