"""The user's object: how it prints, its parameters, copies, and files."""

import copy
import gc
import json
import pickle
import struct
import sys
import weakref

import numpy as np
import pytest
from safetensors import safe_open

import xnn

from . import reference
from .helpers import copies, host, parameters


def networks():
    yield xnn.Network([4, 3], seed=0)
    yield xnn.Network([5, xnn.Dense(7, "relu"), xnn.Dense(3, "softmax")], seed=0, dtype="float64")
    yield xnn.Network(
        [2, xnn.Dense(4, "tanh", bias=False), xnn.Dense(1, "linear", initializer="zeros")],
        "mean_absolute_error",
        seed=0,
    )


def assert_same(one, other):
    assert repr(one) == repr(other)
    assert (parameters(one) == parameters(other)).all()


def test_print_draws_the_network(device):
    net = xnn.Network([784, xnn.Dense(100, activation="relu"), xnn.Dense(10, "softmax")])
    assert str(net).splitlines() == [
        f"Network: 79,510 parameters, log_likelihood cost, float32 on {device}",
        "  input  784",
        "  dense  784 → 100  relu     78,500",
        "  dense  100 → 10   softmax   1,010",
    ]


def test_properties(device):
    net = xnn.Network([784, 30, 10], dtype="float64")
    assert net.sizes == [784, 30, 10]
    assert [layer.units for layer in net.layers] == [30, 10]
    assert (net.cost, net.device, net.dtype) == ("quadratic", device, np.float64)
    assert [w.shape for w in net.weights] == [(30, 784), (10, 30)]
    assert [b.shape for b in net.biases] == [(30,), (10,)]


@pytest.mark.parametrize(
    ("initializer", "weight_deviation", "bias_deviation"),
    [
        ("normal", 1, 1),
        ("scaled_normal", 1 / 20, 1),
        ("glorot", np.sqrt(2 / (400 + 600)), 0),
        ("he", np.sqrt(2 / 400), 0),
        ("zeros", 0, 0),
    ],
)
def test_initializers_have_their_deviation(initializer, weight_deviation, bias_deviation):
    net = xnn.Network([400, xnn.Dense(600, initializer=initializer)], seed=0, dtype="float64")
    (weights,), (biases,) = copies(net)
    assert weights.std() == pytest.approx(weight_deviation, rel=0.01)
    assert biases.std() == pytest.approx(bias_deviation, rel=0.1)
    assert abs(weights.mean()) <= 5 * weight_deviation / np.sqrt(weights.size)


def test_auto_initializer_goes_by_the_activation():
    for activation, wanted in (("relu", "he"), ("leaky_relu", "he"), ("tanh", "glorot")):
        one = xnn.Network([9, xnn.Dense(5, activation)], seed=0)
        other = xnn.Network([9, xnn.Dense(5, activation, initializer=wanted)], seed=0)
        assert_same(one, other)


def test_parameters_can_be_read_written_and_assigned(device):
    net = xnn.Network([3, 2], seed=0, dtype="float64", device=device)
    x = np.array([[1.0, 2, 3]])
    net.weights = [np.arange(6.0).reshape(2, 3)]
    net.biases = [[0.5, -0.5]]
    net.weights[0][1, 2] = -1
    wanted = reference.forward(
        [np.array([[0, 1, 2], [3, 4, -1]])], [np.array([0.5, -0.5])], ["sigmoid"], x
    )
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-14)
    np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-14)  # the fast path
    net.biases[0][:] = 0
    assert net.predict(x)[0, 0] == pytest.approx(1 / (1 + np.exp(-8)))


def test_one_layer_can_be_assigned(device):
    net = xnn.Network([2, xnn.Dense(1, "linear", bias=False), xnn.Dense(1, "linear")], seed=0)
    net.weights[0] = [[2.0, 3.0]]
    net.weights[-1] = [[1.0]]
    net.biases[1] = [5]
    assert net.predict([[1, 1]]) == [[10]]
    net.weights[0] += 1
    assert net.predict([[1, 1]]) == [[12]]
    assert net.biases[0] is None
    with pytest.raises(ValueError, match=r"biases\[0\] is given, but that layer has none"):
        net.biases[0] = [1.0]
    with pytest.raises(ValueError, match=r"weights\[1\] have shape \(2,\), but must have shape"):
        net.weights[1] = [1.0, 2.0]
    with pytest.raises(IndexError):
        net.weights[2] = [[1.0]]


def test_some_layers_can_be_assigned(device):
    net = xnn.Network([2, 3, 3, 3], seed=0, device=device)
    (first, second, third), (_, middle, _) = copies(net)
    net.weights[1:] = [third, second]
    net.biases[::2] = [np.ones(3), np.full(3, 2.0)]
    for found, wanted in zip(copies(net)[0], [first, third, second], strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(copies(net)[1], [np.ones(3), middle, np.full(3, 2.0)], strict=True):
        np.testing.assert_array_equal(found, wanted)
    both = net.weights[:1] + net.weights
    assert [w.shape for w in both] == [(3, 2), (3, 2), (3, 3), (3, 3)]
    assert len(net.weights + net.weights) == 6
    with pytest.raises(
        ValueError, match=r"weights\[:2\] has length 1, but must have length 2: one"
    ):
        net.weights[:2] = [first]


def test_a_state_is_all_that_a_network_has_learnt(tmp_path, device):
    """Including running averages of batch normalisation; the dtype may change."""
    layers = [4, xnn.BatchNorm(), xnn.Dense(3, "softmax")]
    x = 3 + 5 * np.random.default_rng(0).random((40, 4))
    net = xnn.Network(layers, seed=0, device=device)
    net.fit(x, np.arange(40) % 3, epochs=3)
    state = net.state_dict()
    net.save(tmp_path / "net")
    with safe_open(tmp_path / "net", "numpy") as file:
        assert set(state) == set(file.keys())
    assert set(state) == {
        *("0.weights", "0.biases", "0.mean", "0.variance"),
        *("1.weights", "1.biases"),
    }  # fmt: skip
    for dtype, exact in (("float32", 0), ("float64", 1e-5)):
        other = xnn.Network(layers, seed=1, device=device, dtype=dtype)
        other.load_state_dict(state)
        np.testing.assert_allclose(host(other.predict(x)), host(net.predict(x)), rtol=exact)
        loaded = xnn.load(tmp_path / "net", device=device, dtype=dtype)
        assert loaded.dtype == dtype
        np.testing.assert_array_equal(host(loaded.predict(x)), host(other.predict(x)))

    state["1.biases"][:] = 7  # a copy
    before = net.state_dict()
    assert (before["1.biases"] != 7).all()
    for wrong, words in (
        ({**state, "2.weights": 1}, "no layer has 2.weights"),
        ({n: a for n, a in state.items() if n != "0.mean"}, "0.mean is missing"),
        ({**state, "1.weights": np.ones((4, 3))}, r"1.weights have shape \(4, 3\), but must have"),
        ({**state, "1.weights": np.full((3, 4), np.nan)}, "1.weights hold NaN"),
        ([1], r"state is \[1\], but must be a mapping"),
    ):
        with pytest.raises(ValueError, match=words):
            net.load_state_dict(wrong)
    for name, array in net.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    with pytest.raises(ValueError, match="dtype is 'int8', but must be"):
        xnn.load(tmp_path / "net", dtype="int8")


def test_networks_that_share_layers_share_their_state(device):
    """The first layers give what the whole network has within; and serve another last layer."""
    layers = [xnn.Dense(5, "tanh"), xnn.BatchNorm(), xnn.Dense(3, "softmax")]
    x = np.random.default_rng(0).standard_normal((20, 4))
    net = xnn.Network([4, *layers], seed=0, device=device)
    net.fit(x, np.arange(20) % 3, epochs=3)
    state = net.state_dict()

    first = xnn.Network([4, *layers[:2]], seed=1, device=device)
    first.load_state_dict(state, strict=False)
    last = xnn.Network([5, *layers[2:]], seed=1, device=device)
    last.load_state_dict({"0.weights": state["2.weights"], "0.biases": state["2.biases"]})
    within = host(first.predict(x))
    np.testing.assert_allclose(host(last.predict(within)), host(net.predict(x)), rtol=1e-5)

    longer = xnn.Network([4, *layers[:2], xnn.Dense(5, "tanh"), xnn.Dense(2)], device=device)
    before = longer.state_dict()
    shared = {name: array for name, array in state.items() if name[0] in "01"}
    longer.load_state_dict(shared, strict=False)
    for name, array in longer.state_dict().items():
        np.testing.assert_array_equal(array, shared.get(name, before[name]))

    with pytest.raises(ValueError, match=r"2.weights have shape \(3, 5\), but must have .*5, 5"):
        longer.load_state_dict(state, strict=False)
    with pytest.raises(ValueError, match=r"no layer has first\.weight"):
        net.load_state_dict({"first.weight": np.ones((5, 4))}, strict=False)
    with pytest.raises(ValueError, match="state is empty, but must have arrays of this network"):
        net.load_state_dict({}, strict=False)
    with pytest.raises(ValueError, match="strict is 'no', but must be True or False"):
        net.load_state_dict(state, strict="no")


def test_weights_given_as_arrays():
    weights, biases = np.array([[2.0, 4.0]]), np.array([1.0])
    for given, bias in (((weights, biases), 1.0), (weights, 0.0), (weights.tolist(), 0.0)):
        net = xnn.Network([2, xnn.Dense(1, "linear", initializer=given)])
        assert net.predict([[2, 3]])[0, 0] == 16 + bias


@pytest.mark.parametrize("dtype", ["?", "u1", "i8", ">f4", "f2", "f4", ">f8", "g"])
def test_weights_may_be_of_any_real_dtype(dtype, device):
    net = xnn.Network([2, 3], seed=0, device=device)
    given = np.array([[0, 1], [1, 1], [1, 0]]).astype(dtype)
    net.weights[0] = given
    np.testing.assert_array_equal(copies(net)[0][0], given.astype("f4"))
    assert copies(net)[0][0].dtype == np.float32


def test_weights_may_change_places(device):
    net = xnn.Network([3, 3, 3], seed=0, device=device)
    first, second = copies(net)[0]
    net.weights = [net.weights[1], net.weights[0]]
    np.testing.assert_array_equal(copies(net)[0], [second, first])


@pytest.mark.parametrize("n", [1, 7])
@pytest.mark.parametrize("inputs", [(4, 3, 1), (4, 3, 2)])
def test_images_come_in_several_forms(inputs, n, device):
    """All are the same numbers in the same order, so all have the same answer."""
    net = xnn.Network([inputs, xnn.Conv2D(2, 2), xnn.Flatten(), 3], seed=0, device=device)
    x = np.random.default_rng(0).random((n, *inputs)).astype("float32")
    forms = [x, x.reshape(n, -1)] + ([x[..., 0]] if inputs[2] == 1 else [])
    wanted = net.predict(x)
    for _ in range(2):
        for form in forms:
            np.testing.assert_allclose(net.predict(form), wanted, rtol=1e-5)
    flat = xnn.Network([12 * inputs[2], 3], seed=0, device=device)
    for form in (x, x.reshape(n, 3, 4, -1), x.reshape(n, 2, -1)):  # a vector may have any
        np.testing.assert_array_equal(flat.predict(form), flat.predict(x.reshape(n, -1)))


@pytest.mark.parametrize("n", [0, 1, 2, 3, 16, 511, 512, 513, 2000])
def test_predict_takes_any_number_of_samples(n, device):
    net = xnn.Network([6, 5, 4], seed=0, dtype="float64", device=device)
    x = np.random.default_rng(0).standard_normal((n, 6))
    for _ in range(2):
        wanted = reference.forward(*copies(net), ["sigmoid"] * 2, x)
        np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-12)
    assert net.classify(x).shape == (n,)


def test_calls_alike_have_a_function_after_a_few(often, monkeypatch, device):
    """At most eight at a time; for more kinds of calls, after many more."""
    monkeypatch.setattr(xnn.inference, "_OFTEN", often)
    net = xnn.Network([6, 5, 4], seed=0, device=device)
    functions = net.core.inference.ready
    x = np.random.default_rng(0).random((12, 6), "f")
    for n in range(1, 13):
        for _ in range(often if n <= 8 else 16 * often):
            assert (x[:n].shape, x.dtype) not in functions
            found = net.predict(x[:n])
        np.testing.assert_allclose(net.predict(x[:n]), found, rtol=1e-5)
        assert (x[:n].shape, x.dtype) in functions
    assert list(functions) == [((n, 6), x.dtype) for n in range(5, 13)]
    for n in range(100, 300):  # asked for once each
        net.predict(np.zeros((n, 6), "f"))
    assert len(net.core.inference._asked) < 100
    many = np.zeros((200_000, 6), "f")
    for _ in range(often + 1):
        net.predict(many)
    assert (many.shape, many.dtype) not in functions


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_input_is_valid(dtype, device):
    """Its square overflows, and nobody needs to know."""
    net = xnn.Network([6, 8, 2], seed=0, dtype=dtype, device=device)
    x = np.full((1, 6), np.sqrt(np.finfo(dtype).max) * 10, dtype)
    first = net.predict(x)
    for _ in range(3):
        np.testing.assert_array_equal(net.predict(x), first)


@pytest.mark.parametrize("n", [1, 3, 3000])
@pytest.mark.parametrize("first", [xnn.Dense(2), xnn.Dense(9, "relu")], ids=["narrow", "wide"])
def test_a_few_samples_that_are_not_finite_are_refused_each_time(first, n, device):
    """Inputs are checked, or what the first layer makes of them: whichever is narrower."""
    net = xnn.Network([5, first, 3], seed=0, device=device)
    x = np.random.default_rng(0).random((n, 5), "f")
    wanted = net.predict(x)
    for value in (np.inf, -np.inf, np.nan):
        for row in {0, n - 1}:
            wrong = x.copy()
            wrong[row, 3] = value
            for _ in range(2):
                with pytest.raises(ValueError, match=f"x has NaN or infinity in row {row}"):
                    net.predict(wrong)
            np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-5)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "first",
    [
        xnn.Conv2D(2, 3, "sigmoid"),
        xnn.Conv2D(2, 3, "relu"),
        xnn.MaxPool2D(2),
        xnn.AveragePool2D(2),
        xnn.layers.Activation("tanh"),
        xnn.Dropout(0.5),
        xnn.Flatten(),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_one_sample_that_is_not_finite_is_refused_each_time(first, dtype, value, device):
    net = xnn.Network([(6, 6, 1), first, xnn.Flatten(), 3], seed=0, dtype=dtype, device=device)
    x = np.random.default_rng(0).random((1, 36)).astype(dtype)
    wanted = net.predict(np.repeat(x, 2, axis=0))[:1]
    for _ in range(3):
        np.testing.assert_allclose(net.predict(x), wanted, rtol=1e-5)
    x[0, 7] = value
    with pytest.raises(ValueError, match="x has NaN or infinity in row 0"):
        net.predict(x)


def test_what_predict_returns_is_the_callers():
    net = xnn.Network([3, 2], seed=0)
    x = np.ones((1, 3))
    first = net.predict(x)
    kept = first.copy()
    net.predict(x * 2)
    assert (first == kept).all()
    first[:] = 9
    assert (net.predict(x) == kept).all()


@pytest.mark.parametrize("net", list(networks()), ids=lambda net: net.cost)
def test_copies_are_equal_and_apart(net):
    x = np.random.default_rng(0).standard_normal((4, net.sizes[0]))
    before = net.predict(x)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_same(net, twin)
        y = np.zeros((4, net.sizes[-1]))
        y[:, 0] = 1
        twin.fit(x, y, epochs=1)
        assert (net.predict(x) == before).all()
        assert not (twin.predict(x) == before).all()


class Named(xnn.Network):
    """Has an attribute of its own."""


@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_copies_have_what_users_added(duplicate):
    net = Named([4, 3], seed=0)
    net.name, net.notes = "digits", ["good"]
    twin = duplicate(net)
    assert type(twin) is Named
    assert (twin.name, twin.notes) == ("digits", ["good"])
    assert_same(net, twin)


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy])
def test_copies_shuffle_on_their_own(duplicate):
    x, y = np.random.default_rng(0).random((20, 4)), np.arange(20) % 3
    first, alone = (xnn.Network([4, 3], seed=0) for _ in range(2))
    duplicate(first).fit(x, y, epochs=1)
    first.fit(x, y, epochs=1, batch_size=3)
    alone.fit(x, y, epochs=1, batch_size=3)
    assert_same(first, alone)


@pytest.mark.parametrize("net", list(networks()), ids=lambda net: net.cost)
def test_saved_networks_load(net, tmp_path):
    path = tmp_path / "net.safetensors"
    net.save(path)
    loaded = xnn.load(str(path))
    assert_same(net, loaded)
    x = np.random.default_rng(0).standard_normal((4, net.sizes[0]))
    assert (net.predict(x) == loaded.predict(x)).all()
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_file_is_plain_safetensors(tmp_path):
    """Read with the format's description in hand: 8 bytes of length, JSON, data."""
    path = tmp_path / "net.safetensors"
    net = xnn.Network([4, 3, 2], seed=0)
    net.save(path)
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    described = json.loads(header.pop("__metadata__")["xnn"])
    assert described["inputs"] == 4
    assert [layer["units"] for layer in described["layers"]] == [3, 2]
    assert set(header) == {"0.weights", "0.biases", "1.weights", "1.biases"}
    begin, end = header["0.weights"]["data_offsets"]
    weights = np.frombuffer(data[8 + length :][begin:end], "<f4").reshape(3, 4)
    assert (weights == copies(net)[0][0]).all()


def test_files_that_are_no_networks(tmp_path):
    from safetensors.numpy import save_file

    with pytest.raises(FileNotFoundError, match="nowhere"):
        xnn.load(tmp_path / "nowhere")
    good = tmp_path / "good.safetensors"
    xnn.Network([4, 3], seed=0).save(good)
    described = {"format": 1, "inputs": 4, "cost": "quadratic", "dtype": "float32"}
    dense = {"kind": "dense", "units": 3, "activation": "sigmoid", "bias": True}
    arrays = {"0.weights": np.zeros((3, 4), "f"), "0.biases": np.zeros(3, "f")}

    def write(name, arrays, **changes):
        header = {**described, "layers": [dense], **changes}
        save_file(arrays, tmp_path / name, metadata={"xnn": json.dumps(header)})

    write("fine", arrays)
    assert xnn.load(tmp_path / "fine").sizes == [4, 3]
    (tmp_path / "text").write_text("no network")
    (tmp_path / "short").write_bytes(good.read_bytes()[:-1])
    save_file(arrays, tmp_path / "foreign")
    write("newer", arrays, format=2)
    write("unknown layer", arrays, layers=[{"kind": "lstm"}])
    write("unknown option", arrays, layers=[{**dense, "dropout": 0.5}])
    write("wrong shape", {**arrays, "0.weights": np.zeros((4, 3), "f")})
    write("one missing", {"0.weights": arrays["0.weights"]})
    write("one too many", {**arrays, "1.weights": np.zeros(1, "f")})
    write("no layers", arrays, layers=[])
    write("NaN", {**arrays, "0.biases": np.full(3, np.nan, "f")})
    write("too large", {**arrays, "0.biases": np.full(3, 1e300)})
    write("huge", arrays, layers=[{**dense, "units": 10**9}])
    write("units in words", arrays, layers=[{**dense, "units": "3"}])
    write("inputs in words", arrays, inputs="4")
    deep = "[" * 100_000
    save_file(arrays, tmp_path / "deep", metadata={"xnn": deep})
    write("no dtype", arrays, dtype=None)
    write("dtype of fields", arrays, dtype=[["x", "f4"]])
    write("no cost", arrays, cost="none")
    for path in tmp_path.iterdir():
        if path.name not in ("good.safetensors", "fine"):
            with pytest.raises(ValueError, match=path.name):
                xnn.load(path)


def test_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "net.safetensors"
    net = xnn.Network([4, 3], seed=0)
    net.save(path)
    old = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    net.weights[0][:] = 0
    with pytest.raises(OSError, match=r"No space.*net\.safetensors'$"):
        net.save(path)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["net.safetensors"]


def test_what_save_cannot_do_names_the_path(tmp_path):
    net = xnn.Network([4, 3], seed=0)
    with pytest.raises(OSError, match=r"nowhere.net\.safetensors'$"):
        net.save(tmp_path / "nowhere" / "net.safetensors")
    with pytest.raises(OSError, match=tmp_path.name):
        net.save(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links and modes are POSIX's")
def test_save_goes_through_links_and_keeps_the_mode(tmp_path):
    real, link = tmp_path / "real", tmp_path / "link"
    net = xnn.Network([4, 3], seed=0)
    net.save(real)
    real.chmod(0o600)
    link.symlink_to(real)
    net.weights[0][:] = 0
    net.save(link)
    assert link.is_symlink()
    assert real.stat().st_mode & 0o777 == 0o600
    assert (copies(xnn.load(real))[0][0] == 0).all()


def test_load_blames_the_argument_that_is_wrong(tmp_path):
    xnn.Network([4, 3], seed=0).save(tmp_path / "net")
    with pytest.raises(ValueError, match="device is 'tpu'"):
        xnn.load(tmp_path / "net", device="tpu")
    with pytest.raises(ValueError, match="seed is -1"):
        xnn.load(tmp_path / "net", seed=-1)


def test_a_move_to_where_it_is_leaves_arrays_live(device):
    net = xnn.Network([3, 2], seed=0, device=device)
    weights = net.weights[0]
    assert net.to(device) is net
    weights[...] = 0
    assert not np.asarray(copies(net)[0]).any()


def test_a_pickled_network_comes_back_where_its_device_is_not():
    net = xnn.Network([3, 2], seed=0, device="cpu")
    state = net.__getstate__()
    state["core"]["device"] = "gpu:99"
    there = xnn.Network.__new__(xnn.Network)
    there.__setstate__(state)
    assert there.device == "cpu"
    np.testing.assert_array_equal(parameters(there), parameters(net))


@pytest.mark.parametrize(("cost", "rate"), [("quadratic", 0.5), ("cross_entropy", 0.1)])
def test_without_an_optimizer_it_is_sgd_at_a_rate_for_the_cost(cost, rate, device):
    x, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    nets = [xnn.Network([3, 2], cost, seed=0, device=device) for _ in range(2)]
    nets[0].fit(x, y, epochs=2)
    nets[1].fit(x, y, epochs=2, optimizer=xnn.SGD(rate))
    np.testing.assert_array_equal(*map(parameters, nets))


def test_a_network_keeps_no_data_alive(device):
    net = xnn.Network([4, 3], seed=0, device=device)
    x, y = np.random.default_rng(0).random((50, 4)), np.arange(50) % 3
    targets = np.eye(3)[y]
    net.fit(x, y, epochs=2, validation_data=(x, targets))
    net.evaluate(x, y)
    net.backprop(x, y)
    net.predict(x)
    left = [weakref.ref(array) for array in (x, y, targets)]
    del x, y, targets
    gc.collect()
    assert [there() is None for there in left] == [True] * 3


def test_gradients_of_sizes_that_are_often_asked_for_are_kept(device):
    inference = xnn.Network([4, 3], seed=0, device=device).core.inference
    kept = inference.backward(1, np.float32)
    for rows in range(2, 20):
        inference.backward(rows, np.float32)
        assert inference.backward(1, np.float32) is kept
    assert len(inference._backwards) == 4
