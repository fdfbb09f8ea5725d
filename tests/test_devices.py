"""A device compared with the CPU, over whole training runs. For the CPU there is nothing to do."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

import xnn
from xnn import Dense

from .helpers import parameters


@pytest.fixture(autouse=True)
def _another(device):
    if device == "cpu":
        pytest.skip("compares other devices with the CPU")


LAYERS = {
    "book": [50, 30, 10],
    "modern": [50, Dense(30, "relu"), Dense(20, "tanh", bias=False), Dense(10, "softmax")],
}


def trained(layers, device, *, steps, dtype, **options):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (10 * steps, 50)).astype(np.uint8)
    y = rng.integers(0, 10, len(x))
    net = xnn.Network(list(layers), seed=0, device=device, dtype=dtype)
    net.fit(x, y, epochs=1, batch_size=10, **options)
    return parameters(net)


@pytest.mark.parametrize("layers", LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(
    "optimizer",
    [xnn.SGD(0.5), xnn.SGD(0.1, momentum=0.9, nesterov=True, lmbda=1.0, clip_norm=1.0)],
    ids=["plain", "everything"],
)
@pytest.mark.parametrize(
    ("dtype", "steps", "tolerance"), [("float64", 500, 1e-9), ("float32", 100, 1e-3)]
)
def test_training_gives_the_same_parameters(device, layers, optimizer, dtype, steps, tolerance):
    """Relative to the largest parameter: one near 0 has no digits to agree in."""
    options = {"steps": steps, "dtype": dtype, "optimizer": optimizer}
    ours, wanted = (trained(layers, where, **options) for where in (device, "cpu"))
    assert np.abs(ours - wanted).max() <= tolerance * np.abs(wanted).max()
    assert np.abs(wanted).max() > 0.1


def test_a_whole_run_reaches_the_same_accuracy(device, mnist):
    if device == "emulated":
        pytest.skip("would take a minute")
    (x, y), _, test = mnist
    reached = []
    for where in (device, "cpu"):
        net = xnn.Network([784, 30, 10], seed=0, device=where)
        net.fit(x, y, epochs=30, batch_size=10, optimizer=3.0, progress=False)
        reached.append(net.evaluate(*test).accuracy)
    assert abs(reached[0] - reached[1]) <= 0.003
    assert min(reached) > 0.94


def test_steps_are_captured(device):
    if device == "standin":
        pytest.skip("has no CUDA graphs")
    net = xnn.Network([20, Dense(5, "softmax"), Dense(3)], device=device)
    net.fit(np.zeros((20, 20)), np.zeros(20, int), epochs=1)
    assert net.core.engine.backend.uncaptured is None


def test_arrays_of_pytorch(device):
    if device == "standin":
        pytest.skip("needs a GPU")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch has no GPU")
    rng = np.random.default_rng(0)
    x, y = rng.random((100, 20), np.float32), rng.integers(0, 3, 100)
    net = xnn.Network([20, 3], seed=0, device=device)
    there = torch.from_numpy(x).cuda(), torch.from_numpy(y).cuda()
    net.fit(*there, epochs=1)
    outputs = net.predict(there[0])
    assert isinstance(outputs, net.core.engine.backend.xp.ndarray)
    np.testing.assert_array_equal(torch.from_dlpack(outputs).cpu().numpy(), net.predict(x))


def test_the_first_epoch_is_done_soon(device):
    """From the start of a process to the end of the first epoch."""
    if device in ("standin", "emulated"):
        pytest.skip("is not a device of the command line")
    code = f"""
import numpy as np, xnn
x = np.random.default_rng(0).integers(0, 256, (50_000, 784)).astype(np.uint8)
net = xnn.Network([784, 30, 10], seed=0, device={device!r})
net.fit(x, np.arange(50_000) % 10, epochs=1)
"""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
    assert time.perf_counter() - began < 5
