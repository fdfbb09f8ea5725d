"""Passes in lanes: the threads' work adds up to that of a single one."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn import passes
from xnn.backends import blas_threads, compiler, cpp, cpu, threads

from .helpers import parameters

IMAGES = [
    (12, 12, 1),
    xnn.RandomAffine(shift=1),
    xnn.Conv2D(6, 3, "relu"),
    xnn.MaxPool2D(2),
    xnn.Flatten(),
    xnn.Dropout(0.4),
    xnn.Dense(9, "tanh"),
    xnn.Dense(3, "softmax"),
]
# Samples interact, but never so that a gradient is 0, which Adam would amplify.
MEETING = [
    (12, 12, 1),
    xnn.BatchNorm(),
    xnn.Conv2D(6, 3, "relu"),
    xnn.BatchNorm(),
    xnn.Activation("tanh"),
    xnn.MaxPool2D(2),
    xnn.BatchNorm(0.5),
    xnn.GlobalAveragePool2D(),
    xnn.Dense(3, "softmax"),
]


@pytest.fixture(params=["calls", "kernels"])
def lanes(monkeypatch, request):
    """Return a function that sets the number of lanes, of NumPy calls or of kernels alone."""
    monkeypatch.setattr(cpp, "_WORTH_KERNELS", 1 if request.param == "kernels" else 10**18)

    def into(count):
        monkeypatch.setattr(cpu.CpuBackend, "lanes", lambda *_: count)

    return into


def trained(optimizer, layers=IMAGES, **options):
    rng = np.random.default_rng(0)
    x, y = rng.random((47, 12, 12, 1)), rng.integers(0, 3, 47)
    net = xnn.Network(layers, dtype="float64", seed=1, device="cpu")
    history = net.fit(x, y, epochs=3, batch_size=9, optimizer=optimizer, progress=False, **options)
    return [parameters(net), net.predict(x), *net.backprop(x[:7], y[:7]).weights], history.cost


def same(found, wanted):
    for a, b in zip(found, wanted, strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(0.1),
        xnn.SGD(0.1, momentum=0.9, lmbda=0.1),
        xnn.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=0.5),
        xnn.Averaged(xnn.Adam(0.01)),
    ],
    ids=["plain", "momentum", "clipped", "averaged"],
)
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("layers", [IMAGES, MEETING], ids=["alone", "meeting"])
def test_lanes_train_as_one_does(lanes, optimizer, count, layers):
    """With the same masks and shifts, on mini-batches that they do not divide."""
    lanes(1)
    wanted, costs = trained(optimizer, layers)
    lanes(count)
    found, found_costs = trained(optimizer, layers)
    np.testing.assert_allclose(found_costs, costs, rtol=1e-12)
    same(found, wanted)


def test_parts_and_lanes_have_the_same_random_numbers(lanes):
    lanes(1)
    wanted, _ = trained(0.1)
    for count, most in ((1, 4), (2, 4), (3, 1), (4, 5), (7, 8)):
        lanes(count)
        found, _ = trained(0.1, micro_batch_size=most)
        same(found, wanted)


def test_the_lanes_of_a_part_meet(lanes):
    """Batch normalisation takes mean and variance of each part, however it is divided."""
    lanes(1)
    wanted, costs = trained(0.1, MEETING, micro_batch_size=5)
    lanes(3)
    found, found_costs = trained(0.1, MEETING, micro_batch_size=5)
    np.testing.assert_allclose(found_costs, costs, rtol=1e-12)
    same(found, wanted)
    assert not np.allclose(trained(0.1, MEETING)[1], costs, rtol=1e-3)


def test_lanes_of_kernels_are_given_to_threads_that_serve(monkeypatch):
    """Or, if none comes in time, run by the thread that issued them: always the same result."""
    monkeypatch.setattr(cpp, "_WORTH_KERNELS", 1)
    monkeypatch.setattr(cpu.CpuBackend, "lanes", lambda *_: 3)
    layers = [(9, 9, 1), xnn.Conv2D(4, 3, "relu"), xnn.MaxPool2D(2), xnn.Flatten()]
    layers.append(xnn.Dense(2, "softmax"))
    x, y = np.random.default_rng(0).random((200, 9, 9, 1)), np.arange(200) % 2
    trained, begun = [], []
    begin = threads.begin
    monkeypatch.setattr(threads, "begin", lambda do: begun.append(do) or begin(do))
    for _ in range(10):
        net = xnn.Network(layers, seed=0, device="cpu")
        net.fit(x, y, epochs=5, batch_size=6, optimizer=0.1, shuffle=False, progress=False)
        trained.append(net.weights[0])
    if compiler.command() is not None:
        assert begun
    for weights in trained[1:]:
        np.testing.assert_array_equal(weights, trained[0])


def test_the_lanes_of_a_part_are_some_of_the_first_ones(monkeypatch):
    """However few samples the last part has."""
    engine = xnn.Network([(8, 8, 1), xnn.Conv2D(4, 3), xnn.Flatten()], device="cpu").core.engine
    for count in (1, 2, 3, 4, 8, 16):
        monkeypatch.setattr(cpu.CpuBackend, "lanes", lambda *_, count=count: count)
        for rows in range(1, 25):
            for most in range(1, rows + 1):
                made = passes.Pass(engine, rows, 1.0, most=most)
                assert made.lanes <= count
                assert max(map(len, made._parts)) == made.lanes
                covered = [(first, own.rows) for part in made._parts for first, own in part]
                assert [first for first, _ in covered] == [
                    sum(own for _, own in covered[:i]) for i in range(len(covered))
                ]
                assert sum(own for _, own in covered) == rows


def test_which_passes_have_lanes(lanes):
    """Not those backward where gradients are large."""
    lanes(2)
    for layers, wanted in ((IMAGES, [2, 2]), (MEETING, [2, 2]), ([50, 40, 10], [1, 2])):
        engine = xnn.Network(layers, device="cpu").core.engine
        assert [engine.lanes(64, backward=backward) for backward in (True, False)] == wanted


def test_steps_have_a_lane_for_each_thread_that_is_worth_it(monkeypatch):
    monkeypatch.setattr(type(blas_threads.ONE_THREAD), "outside", lambda _: 3)
    backend, worth = cpu.CpuBackend(), cpu._WORTH_LANE
    sizes = (1_000_000, worth - 1, 2 * worth, 10**12)
    assert [backend.lanes(size) for size in sizes] == [1, 1, 2, 3]


def test_parts_run_at_the_same_time():
    meet = threading.Barrier(3, timeout=20)
    threads.together([meet.wait] * 3)
    threads.together([meet.wait] * 3)  # with threads that have worked before


def test_an_exception_comes_when_all_are_done():
    done = []

    def fail():
        raise ZeroDivisionError

    for parts in ([fail, lambda: done.append(1)], [lambda: done.append(1), fail]):
        with pytest.raises(ZeroDivisionError):
            threads.together(parts)
    assert done == [1, 1]


def test_together_waits_also_where_it_is_interrupted():
    done = []

    def slow():
        time.sleep(0.5)
        done.append(1)

    def interrupted():
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        threads.together([interrupted, slow])
    assert done == [1]


FORKED = """
import os
from xnn.backends import threads

threads.together([int, int])
child = os.fork()
if child == 0:
    threads.together([int, int])
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_that_was_forked_makes_threads_of_its_own():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=60)


FORKED_WHILE_ASKED = """
import os, signal, threading, time
from xnn.backends import blas_threads

asked, told = threading.Event(), blas_threads._threads

def slow():
    asked.set()
    time.sleep(0.5)
    return told()

blas_threads._threads = slow
threading.Thread(target=blas_threads.ONE_THREAD.outside).start()
asked.wait()
child = os.fork()
if child == 0:
    signal.alarm(20)
    blas_threads.ONE_THREAD.outside()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_may_be_forked_while_a_thread_asks_for_the_number_of_threads():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED_WHILE_ASKED], check=True)


FORKED_WHILE_TRAINED = """
import os, signal, sys, threading, time
import numpy as np
import xnn
from xnn.backends import blas_threads

net = xnn.Network([784, 30, 10], seed=0, device="cpu")
x, y = np.zeros((1000, 784)), np.zeros(1000, int)
before, began = blas_threads._threads(), threading.Event()
train = lambda: net.fit(x, y, epochs=10**6, callbacks=[lambda _: began.set()], progress=False)
threading.Thread(target=train, daemon=True).start()
began.wait()
for _ in range(10):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        assert np.isfinite(net.predict(x[:5])).all()
        net.fit(x[:20], y[:20], epochs=1)
        assert blas_threads._threads() == before == blas_threads.ONE_THREAD.outside()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_may_be_forked_while_a_thread_trains():
    """The child has the network as it was between two chunks, and BLAS with all of its threads."""
    command = [sys.executable, "-W", "ignore", "-c", FORKED_WHILE_TRAINED]
    subprocess.run(command, check=True, timeout=60)


FORKED_WHILE_MOVED = """
import os, threading
import xnn
from tests import standin

xnn.backends.KINDS["standin"] = standin.StandInBackend
net, over = xnn.Network([20, 10], seed=0, device="cpu"), threading.Event()

def move():
    while not over.is_set():
        net.to("standin")
        net.to("cpu")

thread = threading.Thread(target=move)
thread.start()
for _ in range(100):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
over.set()
thread.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_process_may_be_forked_while_a_network_goes_to_another_device():
    command = [sys.executable, "-W", "ignore", "-c", FORKED_WHILE_MOVED]
    subprocess.run(command, check=True, timeout=60, cwd=Path(__file__).parent.parent)


@pytest.mark.parametrize("name", ["_libraries", "_limit"])
def test_one_thread_is_given_up_where_that_was_interrupted(name, monkeypatch):
    """Ctrl-C may come during the search for libraries, which takes a while, or a limit's change."""
    before, stage = blas_threads._threads(), blas_threads._OneThread()
    libraries = blas_threads._libraries()
    asked, real = [], getattr(blas_threads, name)

    def interrupted(*arguments):
        asked.append(arguments)
        if len(asked) == 1:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(blas_threads, name, interrupted)
        with pytest.raises(KeyboardInterrupt), stage:
            pass
    assert blas_threads._threads() == stage.outside() == before
    with stage:
        assert {library.num_threads for library in libraries} == {1}
    assert blas_threads._threads() == before


class OpenMP:
    """A library that has a number of threads for each of those that ask."""

    threading_layer = "openmp"

    def __init__(self):
        self._own = threading.local()

    @property
    def num_threads(self):
        return getattr(self._own, "threads", 3)

    def set_num_threads(self, threads):
        self._own.threads = threads


@pytest.mark.parametrize("openmp", [False, True])
def test_one_thread_whoever_leaves_last(openmp, monkeypatch):
    """A library has as many threads as before when those who entered have left, in any order."""
    libraries = [OpenMP()] if openmp else blas_threads._libraries()
    monkeypatch.setattr(blas_threads, "_libraries", lambda: libraries)
    before, stage = blas_threads._threads(), blas_threads._OneThread()
    if before == 1:
        pytest.skip("BLAS has one thread here")
    inside, leave, seen = threading.Event(), threading.Event(), []

    def other():
        seen.append(blas_threads._threads())
        with stage:
            seen.append(blas_threads._threads())
            inside.set()
            leave.wait(30)
            seen.append(blas_threads._threads())
        seen.append(blas_threads._threads())

    thread = threading.Thread(target=other)
    with stage, stage:
        assert blas_threads._threads() == 1
        thread.start()
        assert inside.wait(30)
    assert blas_threads._threads() == (before if openmp else 1)  # the other is still inside
    assert stage.outside() == before
    leave.set()
    thread.join()
    assert seen == [before if openmp else 1, 1, 1, before]
    assert blas_threads._threads() == before


def test_ctrl_c_that_comes_when_a_thread_is_done_is_not_waited_for():
    class Interrupted:
        """A lock whose acquisition is followed by Ctrl-C; a second one would block forever."""

        def acquire(self):
            lock.acquire()
            raise KeyboardInterrupt

    task = threads.begin(lambda: time.sleep(0.05))
    lock, task.done = task.done, Interrupted()
    task.done.release = lock.release
    with pytest.raises(KeyboardInterrupt):
        threads.join([task])
    assert task.over


@pytest.mark.skipif(compiler.command() is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize(("times", "wakes"), [(1, False), (30, True)])
def test_threads_are_woken_where_a_replay_saves_more_than_that_takes(monkeypatch, times, wakes):
    monkeypatch.setattr("xnn.backends.blas_threads._threads", lambda: 2)
    backend = cpp.CppBackend()
    a, b, out = (backend.zeros((100, 100), "f") for _ in range(3))
    b[...] = 1

    def step():
        for _ in range(times):
            backend.gemm(a, b, out[:, :100], alpha=1.0)
            backend.update("w = w + 1", w=a.reshape(-1))

    monkeypatch.setattr("xnn.backends.cpp._WORTH_PART", 400_000)
    replay = backend.compile(step, 10**9)
    begun, begin = [], threads.begin
    monkeypatch.setattr(threads, "begin", lambda do: begun.append(do) or begin(do))
    replay()
    assert len(begun) == wakes
    np.testing.assert_array_equal(out, 100 * (times - 1))
