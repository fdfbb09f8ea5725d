"""Networks as ONNX files, run by ONNX Runtime."""

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import xnn
from xnn import (
    Activation,
    AveragePool2D,
    BatchNorm,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    GlobalAveragePool2D,
    MaxPool2D,
    Reshape,
)

from .helpers import host

onnx = pytest.importorskip("onnx")
FUNCTIONS = ["sigmoid", "tanh", "relu", "leaky_relu", "linear"]


def outputs(path, x):
    """Return ONNX Runtime's outputs for samples."""
    runtime = pytest.importorskip("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session.run(["outputs"], {"inputs": x.astype(np.float32)})[0]


def checked(net, path):
    net.export_onnx(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [domain.version for domain in model.opset_import] == [7]
    return model


def shaken(net, rng):
    """Give all parameters values other than the initial ones."""
    for i in range(len(net.layers)):
        views = net.core.engine.views(i, net.core.engine.flat)
        values = {
            name: rng.uniform(0.5, 2, view.shape)
            if name == "variance"
            else rng.standard_normal(view.shape) / np.sqrt(view.size / view.shape[0])
            for name, view in views.items()
        }
        net.core.engine.put(i, values)
    return net


def random_network(rng, device):
    """Return a network of random layers, drawn until it has some outputs."""
    pick = lambda *values: values[rng.integers(len(values))]  # noqa: E731
    layers = [tuple(map(int, (rng.integers(6, 12), rng.integers(6, 12), rng.integers(1, 4))))]
    shape = layers[0]

    def image():
        size = int(rng.integers(1, 4))
        padding = pick("valid", "same", size // 2)
        match rng.integers(7):
            case 0 | 1:
                groups = shape[2] if rng.random() < 0.3 else 1
                return Conv2D(
                    groups * int(rng.integers(1, 3)),
                    (size, int(rng.integers(1, 4))),
                    pick(*FUNCTIONS),
                    stride=pick(1, 1, 2, (1, 2)),
                    padding=pick("valid", "same", 1, (0, 2)),
                    dilation=pick(1, 1, (2, 1)),
                    groups=groups,
                    bias=pick(True, False),
                )
            case 2:
                return MaxPool2D(size, stride=pick(None, 1, 2), padding=padding)
            case 3:
                return AveragePool2D(size, stride=pick(None, 1, 2), padding=padding)
            case 4:
                return BatchNorm()
            case 5:
                return Activation(pick(*FUNCTIONS))
        dropout = Dropout(0.3, scale_training=pick(True, False))
        return pick(dropout, xnn.RandomErasing(), xnn.ElasticTransform(), Reshape(shape))

    def vector():
        match rng.integers(4):
            case 0 | 1:
                return Dense(int(rng.integers(2, 9)), pick(*FUNCTIONS), bias=pick(True, False))
            case 2:
                return BatchNorm()
        dropout = Dropout(0.4, scale_training=pick(True, False))
        return pick(dropout, *map(Activation, (*FUNCTIONS, "softmax")))

    def add(layer):
        """Take a layer if it fits."""
        nonlocal shape
        try:
            shape = xnn.engine.shapes([*layers[1:], layer], layers[0])[-1]
        except ValueError:
            return
        layers.append(layer)

    while len(layers) < rng.integers(2, 7):
        add(image())
    if rng.random() < 0.8:
        add(pick(Flatten(), Flatten(), GlobalAveragePool2D()))
        for _ in range(rng.integers(1, 4)):
            add(vector())
    return shaken(xnn.Network(layers, "quadratic", seed=0, device=device), rng)


@pytest.mark.parametrize("seed", range(100))
def test_random_networks_predict_alike(seed, tmp_path, device):
    rng = np.random.default_rng(seed)
    net = random_network(rng, device)
    path = tmp_path / "net.onnx"
    checked(net, path)
    for samples in (1, 5):
        x = rng.random((samples, *net.shapes[0]))
        ours = host(net.predict(x))
        np.testing.assert_allclose(outputs(path, x), ours, rtol=1e-5, atol=1e-5, err_msg=repr(net))
        assert np.isfinite(ours).all()


def test_all_layers_are_among_the_random_networks():
    drawn = set()
    for seed in range(100):
        drawn |= {
            type(layer) for layer in random_network(np.random.default_rng(seed), "cpu").layers
        }
    known = set(xnn.layers._KINDS.values())
    assert known - drawn == {xnn.RandomAffine}
    assert xnn.RandomAffine.__base__ is xnn.RandomErasing.__base__


def test_a_network_of_vectors_and_one_of_nothing_but_augmentation(tmp_path, device):
    x = np.random.default_rng(0).random((3, 20))
    for layers, dtype in (
        ([20, 5, 3], "float64"),
        ([20, Reshape((5, 4, 1)), xnn.RandomAffine(1)], "float32"),
    ):
        net = xnn.Network(layers, device=device, dtype=dtype)
        model = checked(net, tmp_path / "net.onnx")
        wanted = host(net.predict(x))
        found = outputs(tmp_path / "net.onnx", x)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
        assert found.dtype == np.float32
        assert model.producer_name == "xnn"


@pytest.mark.parametrize("name", xnn.activations.ACTIVATIONS)
def test_all_activations(name, tmp_path, device):
    net = xnn.Network([6, Dense(4, name), Activation(name)], seed=0, device=device)
    path, x = tmp_path / "net.onnx", np.random.default_rng(0).standard_normal((5, 6))
    checked(net, path)
    np.testing.assert_allclose(outputs(path, x), host(net.predict(x)), rtol=1e-5, atol=1e-6)


def test_an_activation_of_ones_own_has_no_form(tmp_path, monkeypatch):
    monkeypatch.setitem(
        xnn.activations.ACTIVATIONS, "cube", xnn.activations.Activation("cube", "z", "1")
    )
    with pytest.raises(ValueError, match=r"layers\[1\]: activation cube has no ONNX equivalent"):
        xnn.Network([4, Dense(3, "cube")], device="cpu").export_onnx(tmp_path / "net")


def test_a_layer_of_ones_own_has_no_form(tmp_path):
    class Mine(Flatten):
        pass

    @dataclass(frozen=True)
    class Other(xnn.Layer):
        outputs = Flatten.outputs
        forward = Flatten.forward
        backward = Flatten.backward

    checked(xnn.Network([4, Mine(), 3], device="cpu"), tmp_path / "net")
    old = (tmp_path / "net").read_bytes()
    with pytest.raises(ValueError, match=r"layers\[1\]: Other has no ONNX equivalent"):
        xnn.Network([4, Other(), 3], device="cpu").export_onnx(tmp_path / "net")
    assert (tmp_path / "net").read_bytes() == old


def test_without_onnx(tmp_path):
    code = """
import sys
sys.modules["onnx"] = None
import xnn
try:
    xnn.Network([4, 3], device="cpu").export_onnx(sys.argv[1])
except ImportError as error:
    print(error)
"""
    path = tmp_path / "net.onnx"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "export to ONNX needs onnx: pip install onnx\n"
    assert not path.exists()
