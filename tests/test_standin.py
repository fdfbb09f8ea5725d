"""What the stand-in shows of a GPU: that arrays do not mix, and what is transferred."""

import numpy as np
import pytest

import xnn
from xnn.layers import Dense

from . import standin
from .helpers import parameters
from .standin import counts


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (1000, 20)).astype(np.uint8), rng.integers(0, 3, 1000)


def network(layers=(20, 30, 3), **options):
    return xnn.Network(list(layers), seed=0, device="standin", **options)


@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(1.0),
        xnn.SGD(0.1, momentum=0.9, nesterov=True, lmbda=1.0, clip_norm=1.0),
        xnn.AdamW(),
        xnn.Averaged(xnn.SGD(1.0)),
    ],
    ids=["plain", "everything", "AdamW", "averaged"],
)
def test_what_crosses_in_an_epoch(data, optimizer):
    """Within an epoch nothing does, and nothing is allocated; between epochs a few arrays are.

    The differences between runs of 3 and of 13 epochs are counted, so that what is done once per
    run does not count.
    """
    runs = []
    for epochs in (3, 13):
        counts.clear()
        network().fit(*data, epochs=epochs, optimizer=optimizer)
        runs.append(dict(counts))
    each = {name: (runs[1][name] - runs[0][name]) / 10 for name in runs[0]}
    # 100 steps in chunks of 32, 32, 32 and 4: four replays, and for each the indices and rates
    # before and the figures after are copied on the device; and at the end the parameters.
    assert each.pop("replays") == 4
    assert each.pop("copies") == 17
    # The shuffle and the rates are sent; costs, hits and the parameters come back, once an epoch,
    # and whether these are finite.
    assert each.pop("waits") == 1
    assert each.pop("uploads") == 2
    assert each.pop("downloads") == 3
    # Averages and weights are swapped before and after an epoch, by three NumPy calls.
    assert each.pop("launches", 0) == (6 if isinstance(optimizer, xnn.Averaged) else 0)
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

    def forward(self, backend, at):
        matrix = at.parameters[0].matrix(at.flat)
        backend.gemm(at.inputs.augmented, matrix.T, out=at.z.values, alpha=at.scale)
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
    backend = standin.StandInBackend()
    with pytest.raises(TypeError):
        mix(backend.zeros((3,), "f"))


def test_nothing_is_made_or_crosses_within_a_step():
    backend = standin.StandInBackend()
    for step in (lambda: backend.zeros((3,), "f"), lambda: backend.upload(np.zeros(3))):
        with pytest.raises(RuntimeError, match="step"):
            backend.compile(step)


def test_it_computes_what_the_cpu_does(data):
    """Bit for bit: the arithmetic is the CPU's, so any difference is one of order or of memory."""
    figures = []
    for device in ("cpu", "standin"):
        net = xnn.Network([20, Dense(9, "relu"), Dense(3, "softmax")], seed=0, device=device)
        optimizer = xnn.SGD(0.1, momentum=0.9, lmbda=1.0)
        history = net.fit(*data, epochs=3, optimizer=optimizer, validation_data=data)
        figures.append((history.cost, history.accuracy, history.validation_cost))
    assert figures[0] == figures[1]


@pytest.mark.parametrize("stopping", [False, True])
def test_a_device_lost_in_training_leaves_the_last_good_weights(data, monkeypatch, stopping):
    monkeypatch.setitem(xnn.backends.KINDS, "fragile", standin.FragileBackend)
    net = xnn.Network([20, 3], seed=0, device="fragile")
    standin.FragileBackend.left = 10  # four replays an epoch: in the third
    kept = []
    callbacks = [lambda training: kept.append(parameters(net))]
    if stopping:
        callbacks.append(xnn.EarlyStopping("cost"))
    of = "that callbacks left" if stopping else "from after epoch 2/9"
    said = f"fragile failed; the network is now on the CPU, with the weights {of}"
    with pytest.raises(xnn.DeviceError, match=said) as caught:
        net.fit(*data, epochs=9, optimizer=0.1, callbacks=callbacks)
    assert len(kept) == len(caught.value.history) == 2
    assert net.device == "cpu"
    assert (parameters(net) == kept[1]).all()
    net.fit(*data, epochs=1)


def test_many_weights_do_not_come_to_the_host_after_each_epoch(data, monkeypatch):
    monkeypatch.setitem(xnn.backends.KINDS, "fragile", standin.FragileBackend)
    monkeypatch.setattr("xnn.training._LIGHT", 0)
    net = xnn.Network([20, 3], seed=0, device="fragile")
    before, seen = parameters(net), []
    standin.FragileBackend.left = 10
    with pytest.raises(xnn.DeviceError, match="with the weights from before training"):
        net.fit(
            *data,
            epochs=9,
            optimizer=0.1,
            callbacks=[lambda training: seen.append(training.kept_of)],
        )
    np.testing.assert_array_equal(parameters(net), before)
    monkeypatch.setattr("xnn.training._KEEP", 0.0)
    net = xnn.Network([20, 3], seed=0, device="fragile")
    standin.FragileBackend.left = 10
    with pytest.raises(xnn.DeviceError, match="with the weights from after epoch 2/9"):
        net.fit(*data, epochs=9, optimizer=0.1)
    assert (parameters(net) != before).any()


def test_networks_move(data, tmp_path):
    net = xnn.Network([20, Dense(4, "tanh", bias=False), Dense(3)], seed=0, device="cpu")
    wanted = net.predict(data[0])
    assert net.to("standin") is net
    assert net.device == "standin"
    np.testing.assert_array_equal(net.predict(data[0]), wanted)
    net.save(tmp_path / "net")
    np.testing.assert_array_equal(xnn.load(tmp_path / "net", device="cpu").predict(data[0]), wanted)
    net.to("cpu").fit(*data, epochs=1)
    assert net.device == "cpu"


def test_the_environment_names_a_device(monkeypatch):
    monkeypatch.setenv("XNN_DEVICE", "standin")
    assert xnn.Network([2, 1]).device == "standin"
    assert xnn.Network([2, 1], device="cpu").device == "cpu"
    monkeypatch.setenv("XNN_DEVICE", "abacus")
    with pytest.raises(ValueError, match="XNN_DEVICE is 'abacus', but must be 'auto', 'cpu'"):
        xnn.Network([2, 1])
    monkeypatch.setenv("XNN_DEVICE", "")
    assert xnn.Network([2, 1]).device == "cpu"


@pytest.fixture
def small(monkeypatch):
    """A device on which no data set fits."""
    monkeypatch.setattr(standin.StandInBackend, "fits", lambda self, size: size == 0)


@pytest.mark.parametrize("targets", ["labels", "values"])
@pytest.mark.parametrize("n", [1000, 995])
def test_data_that_do_not_fit_are_streamed(small, n, targets):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (n, 20)).astype(np.uint8)
    y = rng.integers(0, 3, n) if targets == "labels" else rng.random((n, 3))
    trained = []
    for device in ("cpu", "standin"):
        net = xnn.Network([20, 30, 3], seed=0, device=device)
        history = net.fit(x, y, epochs=3, optimizer=1.0, validation_data=(x, y))
        trained.append((parameters(net), history.cost, history.validation_cost))
    assert (trained[0][0] == trained[1][0]).all()
    assert trained[0][1:] == trained[1][1:]


def test_what_crosses_where_data_do_not_fit(small, data):
    runs = []
    for epochs in (3, 13):
        counts.clear()
        network().fit(*data, epochs=epochs, optimizer=1.0)
        runs.append(dict(counts))
    # Four chunks an epoch, each with images and labels, and the rates.
    assert runs[1]["uploads"] - runs[0]["uploads"] == 10 * (4 * 2 + 1)
    assert runs[1]["allocations"] == runs[0]["allocations"]


def test_a_streamed_lot_is_sent_one_ahead(small, data, monkeypatch):
    told = []
    feed = xnn.backends.base.Feed
    send, take = feed.send, feed.take
    monkeypatch.setattr(feed, "send", lambda *a: (told.append("send"), send(*a))[1])
    monkeypatch.setattr(feed, "take", lambda *a: (told.append("take"), take(*a))[1])
    network().fit(*data, epochs=1)
    # Four lots, of images and labels: the second is on its way when the first is taken.
    assert told == ["send"] * 4 + ["take"] * 2 + (["send"] * 2 + ["take"] * 2) * 2 + ["take"] * 2


def test_arrays_of_the_device_go_in_and_come_out(data):
    x, y = data
    backend = standin.StandInBackend()
    on_device = backend.upload(x), backend.upload(y)
    host, there = network(), network()
    host.fit(x, y, epochs=2)
    counts.clear()
    there.fit(*on_device, epochs=2)
    first = counts["uploads"]
    there.fit(*on_device, epochs=1)
    # The random state, the order and the rates: the data are there.
    assert counts["uploads"] - first == 3
    host.fit(x, y, epochs=1)
    assert (parameters(host) == parameters(there)).all()
    outputs = there.predict(on_device[0])
    assert isinstance(outputs, standin.Array)
    np.testing.assert_array_equal(outputs.get(), host.predict(x))
    np.testing.assert_array_equal(there.classify(on_device[0]).get(), host.classify(x))
    assert there.evaluate(*on_device) == host.evaluate(x, y)
    gradient = there.input_gradient(*on_device)
    assert isinstance(gradient, standin.Array)
    np.testing.assert_array_equal(gradient.get(), host.input_gradient(x, y))
    for ours, theirs in zip(there.backprop(*on_device), host.backprop(x, y), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert isinstance(a, standin.Array)
            np.testing.assert_array_equal(a.get(), b)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.full((3, 20), np.nan), "x has NaN or infinity in row 0"),
        (np.full((3, 20), 1e39), r"x has 1e\+39, too large for float32, in row 0"),
        (
            np.zeros((3, 21)),
            r"x has shape \(3, 21\), 21 numbers per sample, but the network has 20",
        ),
    ],
    ids=["NaN", "large", "shape"],
)
def test_arrays_of_the_device_are_checked(x, message):
    with pytest.raises(ValueError, match=message):
        network().predict(standin.StandInBackend().upload(x))


def test_arrays_of_a_device_do_not_go_into_a_network_elsewhere():
    with pytest.raises(ValueError, match=r"x is not an array of numbers.*use `.get\(\)`"):
        xnn.Network([20, 3], device="cpu").predict(standin.StandInBackend().zeros((1, 20), "f"))


def test_precision():
    net = network(precision="tf32")
    assert net.core.engine.backend.precision == "tf32"
    assert net.to("cpu").to("standin").core.engine.backend.precision == "tf32"
    assert network().core.engine.backend.precision == "float32"
    with pytest.raises(ValueError, match=r"precision is 'fp16', but must be 'float32' or 'tf32'"):
        network(precision="fp16")
    with pytest.raises(
        ValueError, match=r"precision is 'tf32', which needs float32, but dtype is float64"
    ):
        network(precision="tf32", dtype="float64")
