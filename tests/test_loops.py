"""Steps that a replay repeats in a loop of its own: the same numbers as one by one."""

import numpy as np
import pytest

import xnn
from xnn.backends import Backend, compiler, cpp, cpp_replays, cpu
from xnn.backends.cpp import CppBackend
from xnn.steps import Recipe, Trainer

from .helpers import parameters

pytestmark = pytest.mark.skipif(compiler.command() is None, reason="there is no C++ compiler here")

HEAVY = 10**9  # multiplications that are worth kernels

NETWORKS = {
    "book": [6, 5, 3],
    "dropout": [6, xnn.Dense(20, "relu"), xnn.Dropout(0.3), xnn.Dense(3, "softmax")],
    "norms": [6, xnn.BatchNorm(), xnn.Dense(40, "tanh", bias=False), xnn.BatchNorm(), xnn.Dense(3)],
    "softmax": [6, xnn.Dense(9, "softmax"), xnn.Dense(3, "linear")],
    "images": [
        (3, 2, 1),
        xnn.RandomErasing(),
        xnn.Conv2D(4, 2, "leaky_relu", padding="same"),
        xnn.MaxPool2D(2, stride=1),
        xnn.Flatten(),
        xnn.Dense(3, "softmax"),
    ],
}


@pytest.fixture
def loops(monkeypatch):
    """Compile to kernels; return a list of whether what was repeated became a loop."""
    monkeypatch.setattr(cpp, "_MANY_STEPS", 1)
    made, real = [], cpp_replays.loop

    def spied(*arguments):
        loop = real(*arguments)
        made.append(loop is not None)
        return loop

    monkeypatch.setattr(cpp_replays, "loop", spied)
    return made


def trained(layers, optimizer=0.1, *, n=206, dtype="float32", **options):
    rng = np.random.default_rng(0)
    x, y = rng.random((n, 6)), rng.integers(0, 3, n)
    net = xnn.Network(layers, seed=1, device="cpu", dtype=dtype)
    x = x.reshape(n, *net.core.engine.shapes[0])
    options = {"epochs": 4, "batch_size": 10, "progress": False, **options}
    history = net.fit(x, y, optimizer=optimizer, **options)
    return [history.cost, history.accuracy, *parameters(net)]


def one_by_one(monkeypatch):
    """Have each step recorded, in chunks as long as before."""
    monkeypatch.setattr(CppBackend, "repeat", Backend.repeat)


def assert_equal(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(xnn.schedules.Cosine(0.3, epochs=4), lmbda=0.1),
        xnn.SGD(0.1, momentum=0.9, lmbda=1.0),
        xnn.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=0.5, clip_value=0.1),
        xnn.RMSprop(momentum=0.9, centered=True),
        xnn.Averaged(xnn.AdamW(0.01, clip_norm=0.1)),
    ],
    ids=["plain", "momentum", "clipped", "RMSprop", "averaged"],
)
def test_networks_train_as_step_by_step(loops, monkeypatch, name, optimizer):
    """Bit for bit, with a last mini-batch of another size."""
    found = trained(NETWORKS[name], optimizer)
    assert loops
    assert all(loops)
    one_by_one(monkeypatch)
    assert_equal(found, trained(NETWORKS[name], optimizer))


@pytest.mark.parametrize(
    "options",
    [
        {"sample_weight": np.random.default_rng(1).random(206)},
        {"micro_batch_size": 4},
        {"label_smoothing": 0.1},
        {"n": 40, "epochs": 30},  # several epochs run as one
        {"dtype": "float64"},
        {"batch_size": 1},
    ],
    ids=str,
)
def test_options_of_a_training(loops, monkeypatch, options):
    found = trained(NETWORKS["dropout"], xnn.Adam(0.01), **options)
    assert loops
    assert all(loops)
    one_by_one(monkeypatch)
    assert_equal(found, trained(NETWORKS["dropout"], xnn.Adam(0.01), **options))


@pytest.mark.parametrize("name", ["dropout", "images", "norms"])
def test_lanes_in_a_loop(loops, monkeypatch, name):
    """Threads are given the same parts of each step, and nothing where there is nothing to do."""
    monkeypatch.setattr(cpu.CpuBackend, "lanes", lambda *_: 2)
    monkeypatch.setattr(cpu.CpuBackend, "_threads", lambda _: 2)
    monkeypatch.setattr(cpp, "_WORTH_PART", 10)
    monkeypatch.setattr(cpp, "_WORTH_WAKING", 10)
    found = trained(NETWORKS[name], xnn.Adam(0.01), batch_size=30)
    assert loops
    assert all(loops)
    one_by_one(monkeypatch)
    assert_equal(found, trained(NETWORKS[name], xnn.Adam(0.01), batch_size=30))


def test_what_is_no_kernel_is_recorded_step_by_step(loops, monkeypatch):
    """Such as the sines of many rotations, for which NumPy is faster."""
    layers = [(3, 2, 1), xnn.RandomAffine(rotation=20), xnn.Flatten(), xnn.Dense(3, "softmax")]
    monkeypatch.setattr("xnn.backends.cpp_source._FEW", 1)
    found = trained(layers)
    assert loops == [False]
    one_by_one(monkeypatch)
    assert_equal(found, trained(layers))


def test_streamed_samples(loops, monkeypatch):
    found = trained(NETWORKS["dropout"], xnn.Adam(0.01))
    monkeypatch.setattr(CppBackend, "fits", lambda self, size: size == 0)
    loops.clear()
    assert_equal(found, trained(NETWORKS["dropout"], xnn.Adam(0.01)))
    assert loops
    assert all(loops)


@pytest.mark.parametrize("then", [5, 11, 512])
def test_resuming_within_a_loop(loops, monkeypatch, tmp_path, then):
    """In chunks of as many steps as before the end, of fewer or of more: bit for bit."""
    optimizer = xnn.SGD(0.1, momentum=0.9)
    wanted = trained(NETWORKS["dropout"], optimizer)
    monkeypatch.setattr(CppBackend, "chunk_steps", 11)
    keeps = xnn.Checkpoints(tmp_path, "1 step", keep=100)
    assert_equal(trained(NETWORKS["dropout"], optimizer, callbacks=[keeps]), wanted)
    written = sorted(tmp_path.glob("checkpoint-*"))
    assert len(written) > 8  # in each epoch one after 11 of 21 steps, after 20, and at the end
    monkeypatch.setattr(CppBackend, "chunk_steps", then)
    for path in written:
        loops.clear()
        assert_equal(trained(NETWORKS["dropout"], optimizer, resume=path), wanted)
        assert all(loops)


def test_estimators_that_are_fitted_in_parts(loops, monkeypatch):
    """They use what is compiled again; weights and the penalty are part of each step."""
    estimators = pytest.importorskip("xnn.estimators")
    rng = np.random.default_rng(0)
    x, y, weights = rng.random((100, 6)), rng.integers(0, 3, 100), rng.random(100)

    def fitted():
        net = estimators.MLPClassifier(9, alpha=0.1, batch_size=10, random_state=0, device="cpu")
        for _ in range(4):
            net.partial_fit(x, y, classes=[0, 1, 2], sample_weight=weights)
        return [*net.coefs_, *net.intercepts_, net.loss_curve_]

    found = fitted()
    assert loops
    assert all(loops)
    one_by_one(monkeypatch)
    assert_equal(found, fitted())


def test_a_compiler_that_fails(loops, monkeypatch):
    """All steps are then recorded, even of a long chunk."""
    monkeypatch.setattr(cpp, "_MANY_STEPS", 10**9)
    wanted = trained(NETWORKS["book"])
    monkeypatch.setattr(cpp, "_MANY_STEPS", 1)
    monkeypatch.setattr(CppBackend, "_broken", False)

    def load(_):
        raise compiler.CompilerError("out of order")

    monkeypatch.setattr(compiler, "load", load)
    with pytest.warns(RuntimeWarning, match="out of order"):
        found = trained(NETWORKS["book"])
    assert loops == [True]
    assert_equal(found, wanted)


def test_few_of_the_times_are_recorded():
    """And none that would differ: what is only done the first time is not repeated."""
    backend, asked = CppBackend(), []
    numbers, factors = backend.zeros((40, 3), "f"), backend.zeros((40,), "f")
    factors[:] = np.arange(40)
    first = backend.zeros((3,), "f")

    def do(i):
        asked.append(i)
        if i == 0:
            backend.elementwise("a + 1", first, a=first)
        room = backend.scratch((3,), np.float32)
        backend.elementwise("a + f * 2", room, a=numbers[i], f=factors[i : i + 1])
        backend.elementwise("a + b", numbers[i], a=room, b=0.5)

    assert backend.recorded(40, HEAVY) == 4
    assert backend.recorded(40) == 40  # not worth kernels
    replay = backend.compile(lambda: backend.repeat(40, do), HEAVY)
    assert asked == [0, 1, 2, 39]
    for times in (1, 2, 3):
        replay()
        wanted = np.repeat(times * (2 * np.arange(40) + 0.5)[:, None], 3, axis=1)
        np.testing.assert_array_equal(numbers, wanted)
        np.testing.assert_array_equal(first, times)


@pytest.mark.parametrize("odd", [{1: 0}, {2: 0}, {39: 0}, {i: i * i % 40 for i in range(40)}])
def test_addresses_that_grow_unevenly(odd):
    """Each time is then recorded."""
    backend, asked = CppBackend(), []
    numbers = backend.zeros((40, 3), "f")
    places = [odd.get(i, i) for i in range(40)]

    def do(i):
        asked.append(i)
        backend.elementwise("a + 1", numbers[places[i]], a=numbers[places[i]])

    backend.compile(lambda: backend.repeat(40, do), HEAVY)()
    assert asked[4:] == list(range(1, 40))
    np.testing.assert_array_equal(numbers[:, 0], np.bincount(places, minlength=40))


def test_numbers_that_change_are_recorded_each_time():
    """A number that is not in an array is part of what is done."""
    backend = CppBackend()
    sums = backend.zeros((1,), "f")
    step = lambda i: backend.elementwise("a + i", sums, a=sums, i=float(i))  # noqa: E731
    backend.compile(lambda: backend.repeat(40, step), HEAVY)()
    assert sums[0] == sum(range(40))


def chunk(layers, n=51_200, batch=10, epochs=100):
    net = xnn.Network(layers, seed=0, device="cpu")
    engine = net.core.engine
    samples = net.core.samples(np.zeros((n, engine.sizes[0]), "f"), np.zeros((n, engine.outputs)))
    trainer = Trainer(engine, samples, Recipe(xnn.SGD(0.1), batch), epochs=epochs)
    return trainer.plan[0].steps


def test_how_many_steps_are_a_chunk():
    """As many as take half a megabyte of inputs, or of outputs where these are wider."""
    assert chunk([784, 30, 10]) == 512 * 1024 // (10 * 800 * 4)
    assert chunk([2, 3, 784]) == 512 * 1024 // (10 * 784 * 4)
    assert chunk([2, 3, 1]) == CppBackend.chunk_steps
    # Too few to be worth kernels:
    assert chunk([2, 3, 1], n=640, epochs=10) == CppBackend.recorded_steps
