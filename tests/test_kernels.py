"""Kernels of the CPU, each compared with what NumPy does without a compiler."""

import math
import os
import platform
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import xnn
from xnn.backends import Window, compiler, cpp_gemm, denormals
from xnn.backends.cpp import CppBackend
from xnn.backends.cpp_blocks import Blocks
from xnn.backends.cpu import CpuBackend
from xnn.inference import Forward

from .helpers import host

pytestmark = pytest.mark.skipif(compiler.command() is None, reason="there is no C++ compiler here")

HEAVY = 10**9  # multiplications that are worth kernels


def both(step, *arrays):
    """Return the results of a step on copies of arrays, with kernels and without."""
    made = []
    for backend in (CppBackend(), CpuBackend()):
        own = [aligned(backend, array) for array in arrays]
        backend.compile(lambda backend=backend, own=own: step(backend, *own), HEAVY)()
        made.append([np.array(array) for array in own])
    return made


def aligned(backend, array):
    """Return an aligned copy in the array's own layout: row-major or column-major."""
    if array.ndim == 2 and array.strides[0] < array.strides[1]:
        return aligned(backend, array.T).T
    new = backend.zeros(array.shape, array.dtype)
    new[...] = array
    return new


def assert_alike(step, *arrays, rtol=1e-6):
    for found, wanted in zip(*both(step, *arrays), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-6)


def numbers(shape, dtype="f", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize(
    "formula",
    [
        "a + b * 2",
        "maximum(a, 0)",
        "minimum(a, b) - sign(b)",
        "(a > 0) * b",
        "-abs(a) / sqrt(abs(b) + 1)",
        "(a - b)**2",
        "c * a",
        "exp(a) + sin(b) * cos(a) - tanh(b) + log(abs(a) + 1) + sigmoid(b) + log1p(abs(b))",
    ],
)
def test_formulas(formula, dtype):
    for shape in ((7,), (5, 13), (3, 4, 5), (60, 10)):
        a, b, out = numbers(shape, dtype), numbers(shape[-1:], dtype, 1), np.zeros(shape, dtype)
        number = np.array(1.5, dtype)
        assert_alike(
            lambda backend, a, b, c, out: backend.elementwise(formula, out, a=a, b=b, c=c),
            a,
            b,
            number,
            out,
        )


def test_formulas_on_parts_of_arrays_and_other_dtypes():
    whole, bytes_ = numbers((6, 10)), np.arange(60, dtype=np.uint8).reshape(6, 10)
    out = np.zeros((6, 10), "f")

    def step(backend, whole, bytes_, out):
        backend.elementwise("a + b", out[:, 2:7], a=whole[:, 5:], b=bytes_[:, ::2])
        backend.elementwise("a * 2", out[:, 7:8], a=whole[:, :1])
        backend.copy(bytes_[1:3], out[4:])

    assert_alike(step, whole, bytes_, out)


def test_what_is_not_a_number_stays_so():
    a = np.array([np.nan, np.inf, -np.inf, 0, 1], "f")
    formulas = ["maximum(a, 0)", "minimum(a, 0)", "sign(a)", "a * (a > 0)", "abs(a)", "sigmoid(a)"]
    for formula in formulas:
        found, wanted = both(
            lambda backend, a, out, f=formula: backend.elementwise(f, out, a=a), a, np.zeros(5, "f")
        )
        np.testing.assert_array_equal(found[1], wanted[1])


def test_programs():
    arrays = [numbers(1001, "d", seed) for seed in range(3)]
    rate = np.array(0.1)

    def step(backend, w, g, v, rate):
        program = "t = g + w * decay; v = v * mu + t; w = w - rate * v"
        backend.update(program, w=w, g=g, v=v, rate=rate, mu=0.9, decay=0.01)

    assert_alike(step, *arrays, rate, rtol=1e-13)


@pytest.mark.parametrize("source", ["B", "f", "d", "l"])
@pytest.mark.parametrize("index", ["i", "l"])
def test_gather(source, index):
    rows = (100 * numbers((9, 11), "d")).astype(source)
    at, out = np.array([3, 0, 8, 8], index), np.zeros((4, 16), "f")
    assert_alike(
        lambda backend, rows, at, out: backend.gather(rows, at, out[:, :11]), rows, at, out
    )


def test_softmax():
    z = np.array([[1000.0, 1000, -1000], [0, np.nan, 1], [3, 2, 1]], "f")
    found, wanted = both(lambda backend, z, out: backend.softmax(z, out), z, np.zeros((3, 3), "f"))
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-6)


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_argmax(dtype):
    values = np.random.default_rng(0).integers(0, 4, (200, 5)).astype(dtype)
    values[::7, 2], values[::14, 4], values[5] = np.nan, np.nan, -np.inf
    classes = np.full(200, -1)
    for part in (slice(None), slice(1, 4)):
        found, wanted = both(
            lambda backend, values, out, part=part: backend.argmax(values[:, part], out),
            values,
            classes,
        )
        np.testing.assert_array_equal(found[1], wanted[1])
        np.testing.assert_array_equal(found[1], values[:, part].argmax(axis=1))


@pytest.mark.parametrize("kind", ["B", "f", "l"])
def test_gather_of_numbers(kind):
    labels, index = np.arange(50).astype(kind), np.array([3, 49, 0, 7])
    found, _ = both(
        lambda backend, *arrays: backend.gather(*arrays), labels, index, np.zeros(4, "l")
    )
    np.testing.assert_array_equal(found[2], index)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


FUNCTIONS = {"exp": np.exp, "log": np.log, "log1p": np.log1p, "tanh": np.tanh, "sigmoid": sigmoid}


@pytest.mark.parametrize("dtype", ["f", "d"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, dtype):
    """Accurate to three units in the last place, compared with NumPy in its highest precision."""
    rng = np.random.default_rng(0)
    some = rng.uniform(-1, 1, 20_000), rng.uniform(-90, 90, 20_000), rng.uniform(-720, 720, 9000)
    tiny = np.exp(rng.uniform(-80, 80, 20_000))
    edges = [np.nan, np.inf, -np.inf, 0, 1, -1, -2, 0.5, 88.72, 709.78, 1e30, -1e30, 1e-30]
    x = np.concatenate([*some, tiny, -tiny, np.array(edges, dtype)]).astype(dtype)
    found, _ = both(
        lambda backend, x, out: backend.elementwise(f"{name}(x)", out, x=x), x, np.zeros_like(x)
    )
    made = found[1]
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](x.astype(np.longdouble))
        wanted = exact.astype(dtype)
        least = np.finfo(dtype).tiny
        normal = np.isfinite(wanted) & (abs(wanted) >= least)
        assert (abs(made - exact) <= 3 * np.spacing(abs(wanted)))[normal].all()
    np.testing.assert_array_equal(np.isnan(made), np.isnan(wanted))
    infinite = np.isinf(wanted)
    np.testing.assert_array_equal(np.isinf(made), infinite)
    np.testing.assert_array_equal(made[infinite], wanted[infinite])
    assert (abs(made) <= least)[abs(wanted) < least].all()


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_row_sums(dtype):
    """Compared with the exact sums: NumPy's are as far from them as kernels'."""
    for shape in ((3, 1000), (200, 10), (1, 79)):
        values = numbers(shape, dtype)
        wanted = [math.fsum(row) for row in values]
        bound = np.abs(values).sum(axis=1) * np.finfo(dtype).eps
        zeros = np.zeros(shape[0], dtype)
        made = both(lambda backend, v, out: backend.row_sums(v, out), values, zeros)
        np.testing.assert_allclose(made[0][1], wanted, rtol=1e-6, atol=1e-6)
        for _, found in made:  # a unit in the last place of all that is added up
            assert (np.abs(found - wanted) <= bound).all()


def test_long_rows_lose_nothing():
    values = np.full((1, 1_000_000), 0.1, "f")
    found, _ = both(lambda backend, v, out: backend.row_sums(v, out), values, np.zeros(1, "f"))
    assert found[1][0] == pytest.approx(values.sum(dtype="d"), rel=1e-6)


@st.composite
def products(draw):
    """Return rows, depth and columns, and the memory layout of the three matrices."""
    sizes = st.one_of(st.integers(1, 40), st.integers(1, 300))
    few = st.sampled_from([1, 2, 16, 17, 128, 129])
    rows, columns, depth = draw(sizes), draw(sizes), draw(st.one_of(sizes, few))
    return (rows, depth, columns), draw(st.tuples(st.booleans(), st.booleans()))


def laid(values, by_columns, room):
    """Return a matrix within a larger one that is filled with NaN."""
    if by_columns:
        return laid(values.T, False, room).T
    larger = np.full((values.shape[0], values.shape[1] + room), np.nan, values.dtype)
    larger[:, : values.shape[1]] = values
    return larger[:, : values.shape[1]]


@pytest.mark.parametrize("way", ["panels", "dots"])
@pytest.mark.parametrize("dtype", ["f", "d"])
@given(
    case=products(),
    alpha=st.sampled_from([1.0, -0.3]),
    beta=st.sampled_from([0.0, 1.0, 0.7]),
    room=st.integers(0, 3),
    lanes=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_products(way, dtype, case, alpha, beta, room, lanes):
    """Each number is accurate to the rounding of its sum (Higham 2002, section 3.5)."""
    (rows, depth, columns), by_columns = case
    if way == "dots":  # of rows with columns
        by_columns = False, True
    a = laid(numbers((rows, depth), dtype), by_columns[0], room)
    b = laid(numbers((depth, columns), dtype, 1), by_columns[1], room)
    whole = np.full((rows, columns + room), 7, dtype)
    out = whole[:, :columns]
    out[...] = np.nan if beta == 0 else numbers(out.shape, dtype, 2)
    before = 0 if beta == 0 else beta * out.astype("d")
    wanted = alpha * (a.astype("d") @ b.astype("d")) + before
    bound = abs(alpha) * (abs(a.astype("d")) @ abs(b.astype("d"))) + abs(before)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xnn.backends.cpp._WORTH_PART", 1 if lanes else 10**18)
        patch.setattr("xnn.backends.cpp._WORTH_WAKING", 0)
        patch.setattr("xnn.backends.blas_threads._threads", lambda: 3)
        patch.setattr("xnn.backends.cpp_gemm.suits", lambda a, b, out: True)
        patch.setattr("xnn.backends.cpp_dots.suits", lambda a, b, out: way == "dots")
        backend = CppBackend()
        number = np.array(alpha, dtype)  # read at each replay
        replay = backend.compile(lambda: backend.gemm(a, b, out, number, beta), HEAVY)
    replay()
    error = abs(out - wanted) / bound
    assert error.max() <= (depth + 4) * np.finfo(dtype).eps
    assert (whole[:, columns:] == 7).all()


def test_a_product_of_what_is_not_a_number_is_none():
    for place in (0, 1):
        arrays = [numbers((20, 30)), numbers((30, 40))]
        arrays[place][-1, -1] = np.nan

        def step(backend, a, b, out):
            backend.gemm(a, b, out)

        found, wanted = both(step, *arrays, np.zeros((20, 40), "f"))
        np.testing.assert_array_equal(np.isnan(found[2]), np.isnan(wanted[2]))
        assert np.isnan(found[2]).sum() == (40 if place == 0 else 20)


def test_products_by_small_blocks(monkeypatch):
    """Large matrices are copied by blocks, of which there are several here along each axis."""
    for name, value in {"_DEEPEST": 24, "_BLOCK": 24 * 24, "_TALLEST": 48}.items():
        monkeypatch.setattr(cpp_gemm, name, value)
    monkeypatch.setattr(cpp_gemm, "_NEAR", 256)
    monkeypatch.setattr(cpp_gemm, "_PACKED", 3 * 24 * 4 * 64)  # three panels of the widest
    cpp_gemm.gemm.cache_clear()
    try:
        for dtype in "fd":
            test_products("panels", dtype)
    finally:
        cpp_gemm.gemm.cache_clear()


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other registers")
@pytest.mark.parametrize("vectors", ["-mno-avx512f", "-mno-avx"])
def test_products_by_smaller_vectors(vectors):
    command = " ".join([*compiler.command(), vectors])
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"{__file__}::test_products",
            f"{__file__}::test_products_by_small_blocks",
        ],
        env={**os.environ, "XNN_CXX": command},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_random_numbers(dtype):
    rng_state = np.array([7, 3], np.uint32)
    for first in (0, 12345, 2**32 - 3):
        found, wanted = both(
            lambda backend, rng_state, out, first=first: backend.uniform(rng_state, 5, out, first),
            rng_state,
            np.zeros(1003, dtype),
        )
        np.testing.assert_array_equal(found[1], wanted[1])


@st.composite
def windows(draw):
    """Return a window, and images that it fits on."""
    size = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    padding = tuple((draw(st.integers(0, s - 1)), draw(st.integers(0, s - 1))) for s in size)
    window = Window(size, stride, dilation, padding)
    least = [max(1, window.extent(axis) - sum(padding[axis])) for axis in (0, 1)]
    height, width = (n + draw(st.integers(0, 4)) for n in least)
    return window, (draw(st.integers(1, 3)), height, width, draw(st.integers(1, 5)))


@given(case=windows(), by_columns=st.booleans())
@example(case=(Window((1, 2), (1, 2), (1, 2), ((0, 0), (0, 1))), (1, 1, 2, 1)), by_columns=False)
@example(case=(Window((2, 2), (2, 2), (1, 1), ((1, 0), (0, 0))), (2, 4, 4, 3)), by_columns=True)
@example(case=(Window((2, 2), (2, 2)), (2, 4, 6, 20)), by_columns=True)
@settings(max_examples=25, deadline=None)
def test_windows(case, by_columns):
    """Unfolding and folding, pooling and back, on images that are parts of wider ones as well."""
    window, shape = case
    n, height, width, channels = shape
    down, across = window.counts(height, width)
    places, pixels = n * down * across, window.size[0] * window.size[1]
    columns = np.zeros((places, pixels * channels), "f")
    if by_columns:
        columns = np.zeros((pixels * channels, places), "f").T
    wide = numbers((n, height, width, channels + 2))
    pooled = (n, down, across, channels)
    delta, index = numbers(pooled, seed=1), np.zeros(pooled, np.uint8)

    def step(backend, wide, columns, spread, delta, index, best, sums, *back):
        x = wide[..., 1 : channels + 1]
        backend.unfold(x, columns, window)
        backend.fold(spread, back[0], window)
        backend.max_pool(x, best, index, window)
        backend.max_pool_backward(delta, index, back[1], window)
        backend.sum_pool(x, sums, window)
        backend.sum_pool_backward(delta, back[2][..., :channels], window)

    spread = numbers((places, pixels * channels), seed=2)
    empty = [np.zeros(pooled, "f"), np.zeros(pooled, "f")]
    back = [np.ones(shape, "f"), np.ones(shape, "f"), np.ones(wide.shape, "f")]
    assert_alike(step, wide, columns, spread, delta, index, *empty, *back, rtol=1e-5)


def test_the_largest_of_what_is_not_a_number_is_none():
    x = np.array([1, np.nan, 3, 2, 5, 5, 4, 5], "f").reshape(2, 2, 2, 1)
    found, wanted = both(
        lambda backend, x, out, index: backend.max_pool(x, out, index, Window((2, 2), (2, 2))),
        x,
        np.zeros((2, 1, 1, 1), "f"),
        np.zeros((2, 1, 1, 1), np.uint8),
    )
    np.testing.assert_array_equal(found[1], wanted[1])
    assert found[2][1] == wanted[2][1] == 0  # the first of equals


@pytest.mark.parametrize("dtype", ["f", "d"])
def test_resample(dtype):
    """Also from places far outside, and from pixels themselves."""
    rng = np.random.default_rng(0)
    x = numbers((3, 5, 6, 2), dtype)
    rows, columns = (rng.uniform(-4, 9, (3, 30)).astype(dtype) for _ in range(2))
    rows[0], columns[0] = np.arange(30) // 6 % 6 - 0.0, np.arange(30) % 8 - 1.0
    rows[1, :4], columns[1, :4] = (-1, 5, 1e30, -1e30), (0, 6, 3, 3)
    out = np.zeros((3, 5, 6, 2), dtype)
    assert_alike(
        lambda backend, x, rows, columns, out: backend.resample(x, rows, columns, out),
        x,
        rows,
        columns,
        out,
        rtol=1e-5,
    )


LAYERS = [
    (12, 12, 2),
    xnn.RandomAffine(shift=1),
    xnn.Conv2D(8, 3, "relu"),
    xnn.MaxPool2D(2),
    xnn.Conv2D(6, 3, "tanh", padding="same", groups=2),
    xnn.AveragePool2D(3, 2),
    xnn.Flatten(),
    xnn.Dropout(0.3),
    xnn.Dense(20, "sigmoid"),
    xnn.Dense(3, "softmax"),
]


@pytest.mark.parametrize(
    "optimizer",
    [xnn.SGD(0.1), xnn.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=1.0), xnn.AdamW(0.01)],
    ids=["SGD", "clipped", "AdamW"],
)
def test_networks_train_as_without_kernels(monkeypatch, optimizer):
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (60, 12, 12, 2), np.uint8), rng.integers(0, 3, 60)
    trained = []
    for least in (1, 10**18):
        monkeypatch.setattr("xnn.backends.cpp._WORTH_KERNELS", least)
        net = xnn.Network(LAYERS, dtype="float64", seed=1, device="cpu")
        history = net.fit(x, y, epochs=2, batch_size=16, optimizer=optimizer, progress=False)
        arrays = [host(a) for a in [*net.weights, *net.biases] if a is not None]
        trained.append((arrays, history.cost, net.predict(x[:20])))
    np.testing.assert_allclose(trained[0][1], trained[1][1], rtol=1e-10)
    np.testing.assert_allclose(trained[0][2], trained[1][2], rtol=1e-8)
    for a, b in zip(trained[0][0], trained[1][0], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-11)


def test_a_network_without_parameters_may_be_trained(monkeypatch):
    monkeypatch.setattr("xnn.backends.cpp._MANY_STEPS", 0)
    net = xnn.Network([(4, 4, 1), xnn.MaxPool2D(2), xnn.Flatten()], seed=0, device="cpu")
    x, y = numbers((40, 4, 4, 1)), numbers((40, 4))
    cost = net.fit(x, y, epochs=2, batch_size=10, optimizer=xnn.Adam(), progress=False).cost
    assert cost[0] == pytest.approx(cost[1])


NETWORKS = {
    "dense": [12, xnn.Dense(20, "relu"), xnn.BatchNorm(), xnn.Dense(3, "softmax")],
    "sigmoid": [12, 5, 3],
    "convolutional": [(3, 2, 2), xnn.Conv2D(4, 2, "tanh"), xnn.Flatten(), xnn.Dense(3)],
}


@pytest.fixture
def blocks(monkeypatch):
    """Forward passes are loops over blocks of 16 samples; return a list of how many rows each."""
    monkeypatch.setattr("xnn.backends.cpp._WORTH_BLOCKS", 0)
    monkeypatch.setattr("xnn.backends.cpp._BLOCK", 1)
    looped, real = [], Blocks.run

    def spied(self, *arrays):
        looped.append(real(self, *arrays))
        return looped[-1]

    monkeypatch.setattr(Blocks, "run", spied)
    return looped


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kind", ["f", "d", "B", "i", "strided", "columns"])
def test_many_samples_are_answered_as_each_alone(blocks, monkeypatch, name, kind, lanes):
    monkeypatch.setattr("xnn.backends.cpu.CpuBackend.lanes", lambda *_: lanes)
    net = xnn.Network(NETWORKS[name], seed=0, device="cpu", dtype="float64")
    x = np.random.default_rng(0).integers(0, 200, (100, 24)).astype(kind if len(kind) == 1 else "d")
    x = {"strided": x[:, ::2], "columns": np.asfortranarray(x)[:, :12]}.get(kind, x[:, :12])
    x = x.reshape(100, *net.core.engine.shapes[0])
    found = net.predict(x)
    assert sum(blocks) == 96
    alone = np.concatenate([net.predict(x[i : i + 1]) for i in range(100)])
    np.testing.assert_allclose(found, alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("place", [0, 40, 95, 99])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_a_number_is_found_among_many(blocks, place, bad):
    net = xnn.Network(NETWORKS["dense"], seed=0, device="cpu")
    x = np.zeros((100, 12), "f")
    x[place, 7] = bad
    with pytest.raises(ValueError, match=f"{place}"):
        net.predict(x)
    assert blocks


@pytest.fixture
def many(monkeypatch):
    """Few samples are asked for many times from the fourth on."""
    monkeypatch.setattr("xnn.backends.cpp._MANY_CALLS", 3)


def hastened(net, x):
    """Predict until kernels are used or are known not to come; return whether they are used."""
    until = time.monotonic() + 60
    while True:
        net.predict(x)
        answering = net.core.inference.ready[x.shape, x.dtype].__qualname__
        if not answering.startswith("CppBackend.function"):  # which counts
            return answering.startswith("CppBackend._quick")
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.parametrize("rows", [1, 4])
@pytest.mark.parametrize("name", [*NETWORKS, "images"])
@pytest.mark.parametrize("kind", ["f", "d", "B"])
def test_few_samples_that_are_often_asked_for_are_answered_by_kernels(many, name, kind, rows):
    layers = {**NETWORKS, "images": [(3, 2, 2), xnn.Conv2D(4, 2, "sigmoid")]}[name]
    net = xnn.Network(layers, seed=0, device="cpu", dtype="float64")
    x = np.random.default_rng(0).integers(0, 200, (20, 12)).astype(kind)
    x = x.reshape(20, *net.core.engine.shapes[0])
    wanted = net.predict(x)
    assert hastened(net, x[:rows])
    for i in range(20 - rows):
        found = net.predict(x[i : i + rows])
        np.testing.assert_allclose(found, wanted[i : i + rows], rtol=1e-9)
        assert found.base is None  # it is the user's
    strided = np.repeat(x, 2, 0)[::2]
    np.testing.assert_allclose(net.predict(strided[:rows]), wanted[:rows], rtol=1e-9)
    if kind == "B":
        return
    for bad in (np.nan, np.inf):
        wrong = x[:rows].copy()
        wrong[-1].flat[5] = bad
        for _ in range(2):
            with pytest.raises(ValueError, match=f"x has NaN or infinity in row {rows - 1}"):
                net.predict(wrong)
        np.testing.assert_allclose(net.predict(x[:rows]), wanted[:rows], rtol=1e-9)
    net.weights[0][...] = 0  # live
    assert not np.allclose(net.predict(x[:rows]), wanted[:rows])


def test_few_samples_that_no_kernel_can_answer_are_as_before(many, monkeypatch):
    net = xnn.Network([600, xnn.Dense(600, "linear"), 3], seed=0, device="cpu")
    backend, x = net.core.engine.backend, numbers((1, 600))
    step = Forward.step

    def with_sines(self):  # sines of so many numbers are NumPy's
        step(self)
        backend.elementwise("sin(a)", self.inputs, a=self.inputs)

    monkeypatch.setattr(Forward, "step", with_sines)
    wanted = net.predict(x)
    assert not hastened(net, x)
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-6)


def test_a_compiler_may_fail_for_few_samples(many, monkeypatch):
    def failing(texts):
        raise compiler.CompilerError("no room")

    net = xnn.Network(NETWORKS["sigmoid"], seed=0, device="cpu")
    x = numbers((1, 12))
    wanted = net.predict(x)
    monkeypatch.setattr(compiler, "load", failing)
    monkeypatch.setattr(CppBackend, "_broken", False)
    with pytest.warns(RuntimeWarning, match="without kernels.*no room"):
        assert not hastened(net, x)
    np.testing.assert_array_equal(net.predict(x), wanted)
    with warnings.catch_warnings(action="error"):
        net.predict(x)


def test_kernels_take_denormals_for_zero_and_leave_the_thread_as_it_was():
    if platform.machine() not in denormals.BITS:
        pytest.skip("a processor of which nothing is known")
    backend = CppBackend()
    small = backend.upload(np.full(100, 1e-40, "f"))
    replay = backend.compile(lambda: backend.elementwise("a * 0.5", small, a=small), HEAVY)
    function, arguments = replay.call
    function(*arguments)
    assert not small.any()
    assert (np.full(100, 1e-40, "f") * np.float32(0.5) != 0).all()


def test_numbers_that_lie_askew_are_not_copied_by_a_kernel_for_others(blocks):
    net, twin = (xnn.Network(NETWORKS["sigmoid"], seed=0, device="cpu") for _ in range(2))
    x = numbers((32, 12))
    askew = np.frombuffer(b"x" + x.tobytes(), "f", offset=1).reshape(x.shape)
    np.testing.assert_array_equal(net.predict(x), twin.predict(askew))
    assert blocks == [32, 0]


def test_a_compiler_may_fail_for_what_copies_samples(blocks, monkeypatch):
    net = xnn.Network(NETWORKS["sigmoid"], seed=0, device="cpu")
    x = np.arange(32 * 12, dtype="h").reshape(32, 12) % 100
    wanted = net.predict(x.astype("f"))

    def failing(texts):
        raise compiler.CompilerError("no room")

    monkeypatch.setattr(compiler, "load", failing)
    monkeypatch.setattr(CppBackend, "_broken", False)
    with pytest.warns(RuntimeWarning, match="without kernels.*no room"):
        found = net.predict(x)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    with warnings.catch_warnings(action="error"):
        net.predict(x)


@pytest.mark.parametrize("target", ["labels", "rows"])
def test_many_samples_are_scored_as_few(blocks, target):
    net = xnn.Network([12, xnn.Dense(20, "relu"), 3], "cross_entropy", seed=0, device="cpu")
    rng = np.random.default_rng(0)
    x, labels = rng.random((100, 12)), rng.integers(0, 3, 100)
    y = np.eye(3)[labels] if target == "rows" else labels
    found = net.evaluate(x, y)
    assert sum(blocks) == 96
    parts = [net.evaluate(x[i : i + 10], y[i : i + 10]) for i in range(0, 100, 10)]
    assert found.cost == pytest.approx(np.mean([part.cost for part in parts]), rel=1e-6)
    assert found.accuracy == pytest.approx(np.mean([part.accuracy for part in parts]), rel=1e-6)


# The compiler.


def tried(code, **environment):
    """Run code in a process of its own, and return its output and its warnings."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.split(), done.stderr


HEAVY_FIT = """
import numpy as np, xnn
net = xnn.Network([100, 100, 10], seed=0, device="cpu")
x, y = np.random.default_rng(0).random((200, 100)), np.arange(200) % 10
history = net.fit(x, y, epochs=3, batch_size=100, optimizer=xnn.Adam(0.01), progress=False)
from xnn.backends import compiler
print(f"{history.cost[-1]:.4f}", len(compiler._functions))
"""


def test_without_a_compiler_it_is_numpy(tmp_path):
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    (cost, kernels), _ = tried(HEAVY_FIT, **cache)
    assert int(kernels) > 3
    assert list(tmp_path.glob("xnn/kernels/*.so"))
    for told in ("", "no-such-compiler"):
        assert tried(HEAVY_FIT, XNN_CXX=told, **cache) == ([cost, "0"], "")


def test_what_was_compiled_is_not_compiled_again(tmp_path):
    """The second time, the compiler's name belongs to a program that fails."""
    compiler_ = tmp_path / "c++"
    compiler_.write_text(f'#!/bin/sh\nexec {compiler.command()[0]} "$@"\n')
    compiler_.chmod(0o700)
    environment = {"XDG_CACHE_HOME": str(tmp_path), "XNN_CXX": str(compiler_)}
    first = tried(HEAVY_FIT, **environment)
    compiler_.write_text("#!/bin/sh\nexit 1\n")
    assert tried(HEAVY_FIT, **environment) == first


@pytest.mark.parametrize("keep", [0, 4096, 12_000])
def test_a_cache_that_was_cut_off_is_made_anew(tmp_path, keep):
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    wanted = tried(HEAVY_FIT, **cache)
    for path in tmp_path.glob("xnn/kernels/*.so"):
        path.write_bytes(path.read_bytes()[:keep])
    assert tried(HEAVY_FIT, **cache) == wanted


def test_what_cannot_be_loaded_is_compiled_again(tmp_path):
    """As when a cache is shared with a machine of another kind."""
    cache = {"XDG_CACHE_HOME": str(tmp_path)}
    wanted = tried(HEAVY_FIT, **cache)
    for path in tmp_path.glob("xnn/kernels/*.so"):
        path.write_bytes(b"\0" * path.stat().st_size)
    assert tried(HEAVY_FIT, **cache) == wanted
    assert b"\0" * 64 not in [p.read_bytes()[:64] for p in tmp_path.glob("xnn/kernels/*.so")]


def kernel(number):
    body = f"{{ *(long long*)p[0] = {number}; }}"
    return f'extern "C" void NAME(void** p, const long long* v) {body}'


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "xnn" / "kernels"


def test_the_libraries_used_the_longest_ago_leave_the_cache(own_cache, monkeypatch):
    monkeypatch.setattr(compiler, "_MOST", 3)
    paths = {}
    for number in range(5):
        before = set(own_cache.glob("*"))
        compiler.load([kernel(number)])
        (paths[number],) = set(own_cache.glob("*")) - before
        os.utime(paths[number], (number, number))
        if number == 3:  # as another process would
            assert compiler._compiled(compiler._source([kernel(0)])) == paths[0]
    assert {number for number, path in paths.items() if path.exists()} == {0, 2, 3, 4}
    out = np.zeros(1, np.int64)
    where = compiler.pointers([compiler.pointer(out)])
    compiler.load([kernel(1)])[kernel(1)](where, compiler.integers([]))  # loaded is loaded
    assert out[0] == 1


def test_who_has_all_kernels_waits_for_no_compiler(own_cache, monkeypatch):
    """Nor does creating pointers, which each replay in lanes does."""
    compiler.load([kernel(7)])
    begun, on = threading.Event(), threading.Event()
    made = compiler._made

    def slow(*arguments):
        begun.set()
        assert on.wait(30)
        return made(*arguments)

    monkeypatch.setattr(compiler, "_made", slow)
    thread = threading.Thread(target=compiler.load, args=([kernel(8)],))
    thread.start()
    assert begun.wait(30)
    asked = threading.Thread(target=lambda: (compiler.load([kernel(7)]), compiler.integers([1])))
    asked.start()
    asked.join(20)
    waited = asked.is_alive()
    on.set()
    thread.join()
    asked.join()
    assert not waited


@pytest.mark.parametrize(
    "limit", ["", "blas_threads._limit = lambda *_: None"], ids=["one", "threads"]
)
def test_the_process_may_end_while_a_thread_trains(limit):
    """In kernels, in two lanes: their library and BLAS's threads must outlive them."""
    code = f"""
import threading, time
import numpy as np, xnn
from xnn.backends import blas_threads, cpu
{limit}
cpu.CpuBackend.lanes = lambda *_: 2
layers = [(28, 28, 1), xnn.Conv2D(8, 5, "relu"), xnn.MaxPool2D(2), xnn.Flatten()]
net = xnn.Network([*layers, xnn.Dense(10, "softmax")], device="cpu")
x, y = np.zeros((2000, 784)), np.zeros(2000, int)
net.fit(x[:64], y[:64], epochs=1, batch_size=64, optimizer=0.1, progress=False)
go = dict(epochs=1000, batch_size=64, optimizer=0.1, progress=False)
threading.Thread(target=net.fit, args=(x, y), kwargs=go, daemon=True).start()
time.sleep(0.5)
"""
    for _ in range(3):
        assert tried(code) == ([], "")


def test_a_thread_may_compile_when_the_main_thread_has_ended(tmp_path):
    fit = HEAVY_FIT.replace("\n", "\n    ")
    code = f"""
import threading
import xnn

def work():
    threading.main_thread().join()
    {fit}

threading.Thread(target=work).start()
"""
    (_, kernels), said = tried(code, XDG_CACHE_HOME=str(tmp_path))
    assert int(kernels) > 3
    assert not said


def test_a_compiler_that_fails_is_told_of(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path), "XNN_CXX": "false"}
    (_, kernels), said = tried(HEAVY_FIT, **environment)
    assert kernels == "0"
    assert said.count("xnn continues without kernels") == 1
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_cache_that_others_may_write_to_is_not_used(tmp_path):
    folder = tmp_path / "xnn" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    (_, kernels), _ = tried(HEAVY_FIT, XDG_CACHE_HOME=str(tmp_path))
    assert int(kernels) > 3
    assert not list(folder.iterdir())


def test_a_kernel_that_does_not_compile_is_an_error():
    with pytest.raises(compiler.CompilerError, match="error"):
        compiler.load(["void NAME(void** p, const long long* v) { nonsense }"])


def test_light_steps_have_no_kernels():
    with warnings.catch_warnings(action="error"):
        (_, kernels), _ = tried(HEAVY_FIT.replace("100, 100, 10", "100, 10, 10"))
    assert kernels == "0"
