"""The GPU backend on the emulated GPU, and that the emulation is as strict as it claims."""

import gc
import threading
import warnings
import weakref
from contextlib import nullcontext

import numpy as np
import pytest

import xnn
from xnn.backends import DeviceError, gpu
from xnn.backends import cuda_windows as windows

from . import emulated
from .emulated import CUPY, EmulatedBackend, counts, ndarray
from .helpers import parameters

pytestmark = pytest.mark.skipif(emulated.COMPILER is None, reason="needs a C++ compiler")


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1000, 20)).astype(np.uint8), rng.integers(0, 3, 1000)


def network(device="emulated"):
    return xnn.Network([20, 30, 3], seed=0, device=device)


# What training does on a GPU.


def test_what_happens_in_an_epoch(data):
    """A hundred steps are two graph replays, with few transfers and no allocation between epochs.

    The differences between runs of 3 and of 13 epochs are counted.
    """
    runs = []
    for epochs in (3, 13):
        counts.clear()
        network().fit(*data, epochs=epochs, optimizer=xnn.AdamW())
        runs.append(dict(counts))
    names = runs[0].keys() - {"compiled"}  # kernels, before all else
    each = {name: (runs[1][name] - runs[0][name]) / 10 for name in names}
    assert each.pop("replays") == 2
    # Costs, hits and parameters; and these once more, where finite is asked of few on the host.
    assert each.pop("downloads") == 4
    assert each.pop("uploads") == 2  # the shuffle and the rates
    assert each.pop("allocations") == 2  # what these two come to
    assert each.pop("waits") == 4
    # Indices and rates before a replay, figures after it; and the good parameters.
    assert each.pop("copies") == 9
    each.pop("downloaded")
    assert set(each.values()) <= {0}


def test_the_second_gpu_trains_as_the_first(data):
    """While the first is the thread's current one."""
    nets = [network(device) for device in ("emulated", "emulated:1")]
    for net in nets:
        net.fit(*data, epochs=2)
        assert np.isfinite(net.evaluate(*data).cost)
    np.testing.assert_array_equal(*map(parameters, nets))
    assert nets[1].weights[0].device.id == 1


def test_places_counted_in_64_bits_give_what_those_in_32_do(monkeypatch):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (20, 9, 8, 2)).astype(np.uint8), rng.integers(0, 3, 20)
    layers = [
        (9, 8, 2),
        xnn.RandomAffine(1, 10, 0.1, 5),
        xnn.Conv2D(4, (3, 2), "relu", stride=(2, 1), padding="same"),
        xnn.MaxPool2D(2, stride=1),
        xnn.AveragePool2D(2, padding="same"),
        xnn.Dense(3, "softmax"),
    ]
    layers.insert(-1, xnn.Flatten())
    found = []
    for far in (windows._FAR, 0):
        monkeypatch.setattr(windows, "_FAR", far)
        net = xnn.Network(layers, seed=0, device="emulated")
        net.fit(x, y, epochs=2)
        found.append(parameters(net))
    np.testing.assert_array_equal(*found)
    assert windows.far(1, (1, 1, 1, 1, 1, 1))
    monkeypatch.undo()
    assert not windows.far(2**21, (28, 28, 1, 1000, 28, 1))
    assert windows.far(2**22, (28, 28, 1, 784, 28, 1))


def test_streamed_data_train_as_those_on_the_gpu(data, monkeypatch):
    wanted = network()
    wanted.fit(*data, epochs=2)
    monkeypatch.setattr(EmulatedBackend, "fits", lambda self, size: size == 0)
    streamed = network()
    streamed.fit(*data, epochs=2)
    np.testing.assert_array_equal(parameters(streamed), parameters(wanted))


def test_what_is_not_captured_is_played(data, monkeypatch):
    wanted = network()
    wanted.fit(*data, epochs=1)

    def refuse(self, mode=None):
        raise emulated.CUDARuntimeError("cudaErrorNotSupported")

    monkeypatch.setattr(emulated.Stream, "begin_capture", refuse)
    played = network()
    with pytest.warns(RuntimeWarning, match="without CUDA graphs.*: cudaErrorNotSupported"):
        played.fit(*data, epochs=1)
    assert played.core.engine.backend.uncaptured == "cudaErrorNotSupported"
    np.testing.assert_array_equal(parameters(played), parameters(wanted))


@pytest.mark.parametrize(
    ("shapes", "by_columns"),
    [
        (((10, 785), (785, 30)), (False, True)),  # 784-30-10, mini-batch 10: forward …
        (((10, 31), (31, 10)), (False, True)),
        (((10, 10), (10, 30)), (False, False)),  # … and back
        (((10, 10), (10, 31)), (True, False)),
        (((30, 10), (10, 785)), (True, False)),
        (((3, 1000), (1000, 3)), (True, False)),
    ],
)
def test_small_products_are_kernels(shapes, by_columns, monkeypatch):
    monkeypatch.setattr(EmulatedBackend, "small_product", gpu.GpuBackend.small_product)
    monkeypatch.setattr(emulated._Cublas, "_gemm", None)
    backend, rng = EmulatedBackend(), np.random.default_rng(0)
    a, b = (rng.standard_normal(shape).astype("f") for shape in shapes)
    there = [
        backend.upload(v.T.copy()).T if columns else backend.upload(v)
        for v, columns in zip((a, b), by_columns, strict=True)
    ]
    out = backend.upload(np.ones((len(a), b.shape[1]), "f"))
    backend.gemm(*there, out, alpha=0.5, beta=2.0)
    wanted = 0.5 * (a.astype("d") @ b) + 2
    np.testing.assert_allclose(backend.download(out), wanted, rtol=1e-5, atol=1e-5)
    out = backend.upload(np.full(out.shape, np.nan, "f"))
    backend.gemm(*there, out)
    np.testing.assert_allclose(backend.download(out), (wanted - 2) * 2, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("size", [64, 62, 3])
@pytest.mark.parametrize("first", [0, 4, 1])
@pytest.mark.parametrize("dtype", ["f", "d", "B"])
def test_formulas_over_many_numbers_are_those_over_few(dtype, first, size, monkeypatch):
    """They take four numbers at a time if these are aligned."""
    monkeypatch.setattr(EmulatedBackend, "long_formula", 1)
    fours, flat = [], gpu.cuda.flat
    monkeypatch.setattr(gpu.cuda, "flat", lambda *a: fours.append(a[-1]) or flat(*a))
    backend, rng = EmulatedBackend(), np.random.default_rng(0)
    whole = backend.upload(rng.standard_normal(80).astype("f"))
    a, b = whole[first : first + size], backend.upload((100 * rng.random(size)).astype(dtype))
    number, out = backend.upload(np.array([3.0], "f")), backend.zeros((80,), "f")
    wanted = backend.download(a) * backend.download(b) + 3 * 0.5
    backend.elementwise("a * b + n * h", out[first : first + size], a=a, b=b, n=number, h=0.5)
    np.testing.assert_allclose(backend.download(out)[first : first + size], wanted, rtol=1e-5)
    assert np.count_nonzero(backend.download(out)) == size
    backend.elementwise("-a", a, a=a)
    assert fours[0] == (4 if (dtype, first % 4, size % 4) == ("f", 0, 0) else 1)


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize(("rows", "depth", "columns"), [(20, 300, 26), (3, 257, 1), (1, 64, 140)])
@pytest.mark.parametrize("by_columns", [(False, False), (True, False), (False, True)])
def test_sums_of_many_numbers_are_divided(dtype, rows, depth, columns, by_columns, monkeypatch):
    """As the gradient of a convolution's weights, which has few results."""
    monkeypatch.setattr(EmulatedBackend, "small_product", 0)
    monkeypatch.setattr(EmulatedBackend, "long_product", 64)
    monkeypatch.setattr("xnn.backends.gpu._LEAST", 16)
    backend, rng, counts = EmulatedBackend(), np.random.default_rng(0), []
    batched = emulated._Cublas._batched
    monkeypatch.setattr(
        emulated._Cublas, "_batched", lambda *a: counts.append(a[-1].value) or batched(*a)
    )
    a, b = rng.standard_normal((rows, depth)), rng.standard_normal((depth, columns))
    there = [
        backend.upload(v.T.astype(dtype).copy()).T if by else backend.upload(v.astype(dtype))
        for v, by in zip((a, b), by_columns, strict=True)
    ]
    wide = backend.upload(np.ones((rows, columns + 3), dtype))
    out = wide[:, :columns]

    def step():
        backend.gemm(*there, out, alpha=0.5, beta=2.0)

    step()
    replay = backend.compile(step)
    replay()
    parts = min(128 // -(-columns // 128), depth // 16)
    assert counts == [parts - 1] * 2
    wanted = 0.5 * (a @ b)
    wanted = wanted + 2 * (wanted + 2)
    tolerance = 1e-4 if dtype == "f" else 1e-10
    np.testing.assert_allclose(backend.download(out), wanted, rtol=tolerance, atol=tolerance)
    assert (backend.download(wide)[:, columns:] == 1).all()
    wide[...] = np.nan
    backend.gemm(*there, out)
    np.testing.assert_allclose(backend.download(out), a @ b, rtol=tolerance, atol=tolerance)


def test_cublas_is_there_for_what_it_is_asked_for():
    backend = EmulatedBackend()
    a, out = backend.upload(np.eye(3, dtype="f")), backend.zeros((3, 3), "f")
    backend.compile(lambda: backend.gemm(a, a, out))()
    assert "_cublas" not in vars(backend)
    backend.small_product = 0
    backend.compile(lambda: backend.gemm(a, a, out, alpha=2.0))()
    assert "_cublas" in vars(backend)
    np.testing.assert_array_equal(backend.download(out), 2 * np.eye(3))


def test_a_capture_that_fails_tells_the_cause_and_keeps_what_it_points_to():
    backend = EmulatedBackend()
    a, seen = backend.upload(np.eye(3, dtype=np.float32)), []

    def step():
        out = backend.scratch((3, 3), "f")
        seen.append(weakref.ref(out))
        backend.gemm(a, a, out)
        backend._do(fails_in_a_capture)

    def fails_in_a_capture():
        if backend._capturing.captured is not None:
            raise emulated.CUDARuntimeError("cudaErrorOfThatCall")

    with pytest.warns(RuntimeWarning, match="cudaErrorOfThatCall"):
        replay = backend.compile(step)
    backend.synchronize()
    assert seen[0]() is not None
    assert backend._capturing.captured is None
    replay()


def test_what_waits_for_a_whole_gpu_waits_for_a_capture():
    """Another thread creates and destroys a cuBLAS handle while a stream captures."""
    backend, threads = EmulatedBackend(), []
    backend.small_product = 0
    a, out = backend.upload(np.eye(3, dtype="f")), backend.zeros((3, 3), "f")

    def make_and_drop():
        EmulatedBackend()._cublas  # noqa: B018

    def meanwhile():
        if backend._capturing.captured is not None:
            threads.append(threading.Thread(target=make_and_drop))
            threads[-1].start()
            threads[-1].join(0.1)

    def step():
        backend.gemm(a, a, out)
        backend._do(meanwhile)

    backend.compile(step)()
    for thread in threads:
        thread.join()
    assert backend.uncaptured is None
    assert len(threads) == 1
    np.testing.assert_array_equal(backend.download(out), np.eye(3))


def test_a_capture_that_others_ended_is_made_again():
    backend, waits = EmulatedBackend(), []
    a = backend.upload(np.eye(3, dtype="f"))

    def a_user_waits():
        if backend._capturing.captured is not None:
            waits.append(1)
            backend._capturing.ended |= len(waits) == 1

    def step():
        backend.gemm(a, a, a)
        backend._do(a_user_waits)

    backend.compile(step)
    assert backend.uncaptured is None
    assert len(waits) == 2


def test_half_precision_of_the_device_is_looked_at_as_it_is_used():
    """CuPy supports it, but kernels do not."""
    backend = EmulatedBackend()
    values = np.ones((200, 400), np.float16)
    there = backend.xp.asarray(values)
    assert there.dtype == np.float16
    assert backend.finite(there)
    values[7, 7] = np.inf
    assert not backend.finite(backend.xp.asarray(values))


def test_streams_are_used_again():
    """CuPy decides by a stream's handle which memory may be reused without waiting."""
    gc.collect()
    backend = EmulatedBackend()
    pair = backend._stream, backend._capturing
    del backend
    gc.collect()
    others = [EmulatedBackend() for _ in range(2)]
    assert (others[0]._stream, others[0]._capturing) == pair
    assert len({other._stream.ptr for other in others}) == 2


def test_a_capture_leaves_the_default_stream_to_others(monkeypatch):
    backend = EmulatedBackend()
    a, others = backend.upload(np.eye(3, dtype=np.float32)), backend.zeros((2,), "f")

    def another_thread_works():
        with emulated._NULL[0]:
            others[...] = 1.0

    def step():
        backend.gemm(a, a, a)
        backend._do(another_thread_works)

    backend.compile(step)
    assert backend.uncaptured is None
    backend._stream.begin_capture()
    with pytest.raises(emulated.CUDARuntimeError, match="CaptureImplicit"):
        another_thread_works()
    backend._stream.end_capture()


def test_lots_under_way_at_the_end_are_waited_for():
    """Their memory may then belong to another array."""
    backend = EmulatedBackend()
    feed = backend.feed(np.full((4, 1000), 7, np.float32), 4)
    feed.send(np.arange(4))
    crossing = feed._crossing
    del feed
    with backend.here() as stream:
        mine = [CUPY.full((4, 1000), 1, "f") for _ in range(4)]
        stream.synchronize()
        crossing.synchronize()
        assert all((array.get() == 1).all() for array in mine)


@pytest.mark.parametrize("dtype", ["float16", ">f4", "longdouble"])
def test_streamed_numbers_of_other_kinds(data, monkeypatch, dtype):
    x, y = (data[0] / 256).astype(dtype), data[1]
    nets = network(), network()
    nets[0].fit(x, y, epochs=1)
    monkeypatch.setattr(EmulatedBackend, "fits", lambda self, size: size == 0)
    nets[1].fit(x, y, epochs=1)
    np.testing.assert_array_equal(*map(parameters, nets))


def test_large_arrays_do_not_stay_in_pinned_memory(monkeypatch):
    monkeypatch.setattr(gpu, "_STAGED", 100)
    backend, wide = EmulatedBackend(), np.arange(1000.0)
    for given in (wide, wide[::2], wide.reshape(20, 50).T):
        there = backend.upload(given)
        np.testing.assert_array_equal(there.get(), given)
    given = wide.copy()
    there = backend.upload(given)
    given[:] = 0  # it is over there by now
    np.testing.assert_array_equal(there.get(), wide)


@pytest.mark.parametrize("columns", [1, 31, 1024, 1025, 5000, 3_000_000])
def test_long_rows_are_summed_by_many_warps(columns):
    backend = EmulatedBackend()
    values = np.random.default_rng(0).standard_normal((2, columns))
    sums = backend.zeros((2,), "d")
    backend.row_sums(backend.upload(values), sums)
    np.testing.assert_allclose(backend.download(sums), values.sum(axis=1), rtol=1e-9)


def test_what_fails_on_the_gpu_is_no_matter_of_the_input(data, monkeypatch):
    net, x = network(), CUPY.asarray(data[0])

    def broken(self, event=None):
        raise emulated.CUDARuntimeError("cudaErrorIllegalAddress")

    monkeypatch.setattr(emulated.Stream, "record", broken)
    with pytest.raises(DeviceError, match="emulated failed: cudaErrorIllegalAddress"):
        net.predict(x)


def test_a_kernel_that_cannot_be_compiled_is_told(monkeypatch):
    def broken(kernel):
        raise RuntimeError("Failed to find CUDA headers.")

    monkeypatch.setattr(emulated.RawKernel, "compile", broken)
    gpu._kernel.cache_clear()
    with pytest.raises(DeviceError, match=r"cannot compile a kernel: Failed to find CUDA headers"):
        network().predict(np.zeros((2, 20)))
    gpu._kernel.cache_clear()


def test_arrays_of_the_gpu_go_in_and_come_out(data):
    """In order with the stream of whoever made them."""
    x, y = data
    net = network()
    theirs = CUPY.cuda.Stream()
    with theirs:
        there = CUPY.asarray(x), CUPY.asarray(y)
        net.fit(*there, epochs=1)
        outputs = net.predict(there[0])
        assert isinstance(outputs, ndarray)
        found = outputs.get()
    wanted = network()
    wanted.fit(x, y, epochs=1)
    np.testing.assert_array_equal(found, wanted.predict(x))


@pytest.mark.parametrize("solver", ["lbfgs", "adam"])
def test_estimators_train_alike_within_a_users_stream(solver, data):
    """Everything runs on the backend's stream, which is not ordered with the user's."""
    pytest.importorskip("sklearn")
    from xnn.estimators import MLPClassifier

    x, y = data[0] / 255, data[1]
    found = []
    for stream in (nullcontext(), CUPY.cuda.Stream(non_blocking=True)):
        mlp = MLPClassifier(
            8, solver=solver, alpha=10, max_iter=3, random_state=0, device="emulated"
        )
        with stream, warnings.catch_warnings(action="ignore"):
            found.append(mlp.fit(x, y).coefs_)
    for wanted, ours in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, wanted)


def test_out_of_memory_says_what_to_do(data, monkeypatch):
    emulated._give_back()
    monkeypatch.setattr(emulated, "MEMORY", emulated._used + 32 * 2**20 + 64 * 1024)
    with pytest.raises(DeviceError, match=r"emulated is out of memory.*smaller batch_size"):
        network().fit(*data, epochs=1, batch_size=500)


# How strict it is: each of these sometimes goes unnoticed on a GPU.


def test_nothing_is_done_before_somebody_waits():
    host = np.zeros(4, np.float32)
    stream = CUPY.cuda.Stream(non_blocking=True)
    with stream:
        array = CUPY.zeros((4,), "f")
        host[:] = 1
        array.set(host)
        host[:] = 2  # too early
        assert (array.get() == 2).all()


def test_streams_without_an_event_between_them_are_in_no_order():
    first, second = CUPY.cuda.Stream(non_blocking=True), CUPY.cuda.Stream(non_blocking=True)
    with first:
        array = CUPY.full((4,), 1, "f")
        first.synchronize()
        array[...] = 2.0
        done = first.record()
    with second:
        assert (array.get() == 1).all()
        second.wait_event(done)
        assert (array.get() == 2).all()


def test_what_was_given_back_is_not_a_number():
    stream = CUPY.cuda.Stream()
    with stream:
        array = CUPY.full((1000,), 1, "f")
        view = emulated._columns(array.data.ptr, (1000, 1), 1000, "f")  # as a kernel has it
        stream.synchronize()
        assert (view == 1).all()
        del array
        assert np.isnan(CUPY.empty((1000,), "f").get()).all()
        assert np.isnan(view).all()


def test_a_capture_allows_nothing_but_work():
    stream = CUPY.cuda.Stream()
    with stream:
        array = CUPY.zeros((4,), "f")
        stream.begin_capture()
        array[...] = 1.0
        for call in (
            stream.synchronize,
            array.get,
            lambda: float(array[0]),
            lambda: CUPY.zeros((4,), "f"),
            lambda: CUPY.asarray(np.zeros(4)),
        ):
            with pytest.raises(emulated.CUDARuntimeError, match="within a capture"):
                call()
        graph = stream.end_capture()
        assert (array.get() == 0).all()
        graph.launch()
        assert (array.get() == 1).all()
    with pytest.raises(RuntimeError, match="default"):
        emulated.get_current_stream().begin_capture()


KERNEL = 'extern "C" __global__ void run(long long n, float k, float* a) { BODY }'


def launched(body, n=4, k=None, a=None, block=32):
    a = CUPY.zeros((32,), "f") if a is None else a
    kernel = CUPY.RawKernel(KERNEL.replace("BODY", body), "run")
    kernel((1,), (block,), (n, np.float32(1) if k is None else k, a))
    return a.get()


def test_a_kernel_gets_what_it_declares():
    assert (launched("a[threadIdx.x] = k;") == 1).all()
    for wrong in ({"n": np.int32(4)}, {"k": 1.0}, {"k": np.float64(1)}, {"n": None}):
        with pytest.raises(TypeError, match="a kernel that takes"):
            launched("", **wrong)
    with pytest.raises(TypeError, match="got an array of float64"):
        launched("", a=CUPY.zeros((4,), "d"))
    with CUPY.cuda.Device(1):
        other = CUPY.zeros((4,), "f")
    with pytest.raises(ValueError, match="same as the current device"):
        launched("", a=other)


def test_who_writes_beside_an_array_is_found():
    launched("if (threadIdx.x == 0) a[512 / 4] = k;")
    emulated._give_back()
    with pytest.raises(emulated.CUDARuntimeError, match="beside an array"):
        emulated.get_current_stream().synchronize()


def test_lanes_of_a_warp_shuffle_together():
    ours = launched("a[threadIdx.x] = __shfl_xor_sync(~0u, (float)threadIdx.x, 5);")
    np.testing.assert_array_equal(ours, np.arange(32) ^ 5)
    with pytest.raises(emulated.CUDARuntimeError, match="same shuffles"):
        launched("if (threadIdx.x > 3) a[0] = __shfl_xor_sync(~0u, k, 1);")


def test_cupy_has_all_that_is_asked_of_it():
    """Every name that `xnn` uses of the emulation exists in CuPy too."""
    cupy = pytest.importorskip("cupy")
    public = {name for name in dir(CUPY) if not name.startswith("_")}
    assert {name for name in public if not hasattr(cupy, name)} == set()
    for space, theirs in [
        (CUPY.cuda, cupy.cuda),
        (CUPY.cuda.runtime, cupy.cuda.runtime),
        (CUPY.cuda.driver, cupy.cuda.driver),
        (CUPY.cuda.memory, cupy.cuda.memory),
    ]:
        assert {name for name in vars(space) if not hasattr(theirs, name)} == set()
    for ours, theirs in [
        (ndarray, cupy.ndarray),
        (emulated.Stream, cupy.cuda.Stream),
        (emulated.Event, cupy.cuda.Event),
        (emulated.Graph, cupy.cuda.Graph),
        (emulated.Device, cupy.cuda.Device),
        (emulated._Pointer, cupy.cuda.MemoryPointer),
    ]:
        known = {"captured", "enqueue", "last", "new", "non_blocking", "memory"}  # the emulation's
        public = {name for name in vars(ours) if not name.startswith("_")} - known
        assert {name for name in public if not hasattr(theirs, name)} == set()
