"""A network saved on one device and loaded on another predicts, and trains, as before."""

import numpy as np
import pytest

import xnn
from xnn import Dense

from .helpers import host
from .test_checkpoints import KilledAt, KilledError
from .test_layers import LAYERS, SHAPE
from .test_optimizers import STATEFUL

AUGMENTED = {
    "augmentation": [
        *(xnn.RandomAffine(1, 5), xnn.ElasticTransform(), xnn.RandomErasing(), xnn.Flatten()),
        Dense(3, "softmax"),
    ],
    "activations": [
        xnn.Flatten(),
        *(Dense(4, name) for name in ("sigmoid", "tanh", "relu", "leaky_relu", "linear")),
        Dense(3, "softmax"),
    ],
}
COSTS = {
    "quadratic": "sigmoid",
    "cross_entropy": "sigmoid",
    "log_likelihood": "softmax",
    "mean_squared_error": "linear",
    "mean_absolute_error": "tanh",
    "log_loss": "softmax",
    "poisson": "exp",
}


def pytest_generate_tests(metafunc):
    """Give ``ways``, where from and where to: both ways where there are two devices."""
    if "ways" in metafunc.fixturenames:
        device = metafunc.config.getoption("--device")
        ways = dict.fromkeys([(device, "cpu"), ("cpu", device)])
        metafunc.parametrize("ways", ways, ids="-to-".join)


def close(found, wanted, device):
    """On a GPU sums come in another order; the stand-in's are the CPU's."""
    if device not in ("cpu", "standin"):
        np.testing.assert_allclose(host(found), host(wanted), rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(host(found), host(wanted))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layers", {**LAYERS, **AUGMENTED}.values(), ids={**LAYERS, **AUGMENTED})
def test_every_layer(layers, dtype, ways, tmp_path, device):
    source, target = ways
    net = xnn.Network([SHAPE, *layers], "quadratic", seed=1, device=source, dtype=dtype)
    rng = np.random.default_rng(0)
    x, y = rng.random((6, *SHAPE)), rng.random((6, net.sizes[-1]))
    net.fit(x, y, epochs=1, optimizer=0.01)
    net.save(tmp_path / "net")
    loaded = xnn.load(tmp_path / "net", device=target)
    assert (loaded.device, loaded.dtype) == (target, dtype)
    assert [repr(layer) for layer in loaded.layers] == [repr(layer) for layer in net.layers]
    close(loaded.predict(x), net.predict(x), device)


def test_these_are_all_layers():
    used = {type(layer) for layers in [*LAYERS.values(), *AUGMENTED.values()] for layer in layers}
    assert used == set(xnn.layers._KINDS.values())


@pytest.mark.parametrize("cost", xnn.costs.NAMES)
def test_every_cost(cost, ways, tmp_path, device):
    source, target = ways
    net = xnn.Network([5, 4, Dense(3, COSTS[cost])], cost, seed=1, device=source)
    net.save(tmp_path / "net")
    loaded = xnn.load(tmp_path / "net", device=target)
    assert loaded.cost == cost
    x, y = np.random.default_rng(0).random((9, 5)), np.arange(9) % 3
    close(loaded.evaluate(x, y), net.evaluate(x, y), device)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", [optimizer for optimizer, _ in STATEFUL], ids=str)
def test_every_optimizer(optimizer, dtype, ways, tmp_path, device):
    """Training that begins on one device continues, within an epoch, on the other."""
    source, target = ways
    x, y = np.random.default_rng(0).random((400, 5)), np.arange(400) % 3
    options = {"epochs": 2, "batch_size": 5, "optimizer": optimizer}

    def network(where):
        return xnn.Network([5, 4, 3], seed=1, device=where, dtype=dtype)

    whole, begun, resumed = network(target), network(source), network(target)
    whole.fit(x, y, **options)
    callbacks = [xnn.Checkpoints(tmp_path, "1 step"), KilledAt(100)]
    with pytest.raises(KilledError):
        begun.fit(x, y, callbacks=callbacks, **options)
    resumed.fit(x, y, resume=tmp_path, **options)
    close(resumed.core.engine.flat, whole.core.engine.flat, device)
