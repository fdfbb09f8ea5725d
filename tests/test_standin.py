"""What the stand-in shows of a GPU: that nothing mixes, and what crosses to and from it."""

import numpy as np
import pytest

import xnn
from xnn.layers import Dense

from . import standin
from .standin import counts


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1000, 20)).astype(np.uint8), rng.integers(0, 3, 1000)


def network(layers=(20, 30, 3), **options):
    return xnn.Network(list(layers), seed=0, device="standin", **options)


@pytest.mark.parametrize(
    "optimizer",
    [xnn.SGD(1.0), xnn.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=1.0, clip_norm=1.0)],
    ids=["plain", "everything"],
)
def test_what_crosses_in_an_epoch(data, optimizer):
    """Within an epoch nothing does, and nothing is made; between epochs a few arrays are.

    Counted are the differences between runs of 3 and of 13 epochs, so that what is done once for
    a run does not count.
    """
    runs = []
    for epochs in (3, 13):
        counts.clear()
        network().fit(*data, epochs=epochs, optimizer=optimizer)
        runs.append(dict(counts))
    each = {name: (runs[1][name] - runs[0][name]) / 10 for name in runs[0]}
    # 100 steps in chunks of 32, 32, 32 and 4: four replays, and for each the indices and rates
    # before and the figures after are copied on the device.
    assert each.pop("replays") == 4
    assert each.pop("copies") == 16
    # The shuffle and the rates go over; costs, hits and the parameters come back, once an epoch.
    assert each.pop("uploads") == 2
    assert each.pop("downloads") == 3
    assert set(each.values()) <= {0}


def test_the_data_set_crosses_once(data):
    counts.clear()
    network().fit(*data, epochs=1)
    few = counts["uploads"]
    counts.clear()
    network().fit(*data, epochs=1, validation_data=data)
    assert counts["uploads"] == few + 2


def test_a_planted_numpy_call_in_a_layer_is_found(data, monkeypatch):
    """The same network trains on the CPU, where nothing is wrong with it."""

    def forward(self, run, at):
        run.gemm(at.inputs.augmented, at.matrix.T, out=at.z.values, alpha=at.scale)
        at.outputs.values[...] = np.tanh(at.z.values)

    network().fit(*data, epochs=1)
    monkeypatch.setattr(Dense, "forward", forward)
    xnn.Network([20, 3], seed=0, device="cpu").fit(*data, epochs=1)
    with pytest.raises(TypeError):
        network([20, 3]).fit(*data, epochs=1)


@pytest.mark.parametrize(
    "mix",
    [
        lambda a: np.add(a, 1),
        lambda a: np.zeros(3) + a,
        lambda a: np.asarray(a),
        lambda a: np.concatenate([a, a]),
        lambda a: a.__setitem__(slice(None), np.zeros(3)),
        lambda a: a[np.array([0])],
        lambda a: list(a),
    ],
)
def test_it_is_as_strict_as_cupy(mix):
    run = standin.StandInBackend()
    with pytest.raises(TypeError):
        mix(run.zeros((3,), "f"))


def test_nothing_is_made_or_crosses_within_a_step():
    run = standin.StandInBackend()
    for step in (lambda: run.zeros((3,), "f"), lambda: run.upload(np.zeros(3))):
        with pytest.raises(RuntimeError, match="step"):
            run.compile(step)


def test_it_computes_what_the_cpu_does(data):
    """Bit for bit: the arithmetic is the CPU's, so any difference is one of order or of memory."""
    figures = []
    for device in ("cpu", "standin"):
        net = xnn.Network([20, Dense(9, "relu"), Dense(3, "softmax")], seed=0, device=device)
        optimizer = xnn.SGD(0.1, momentum=0.9, weight_decay=1.0)
        history = net.fit(*data, epochs=3, optimizer=optimizer, validation_data=data)
        figures.append((history.cost, history.accuracy, history.validation_cost))
    assert figures[0] == figures[1]
