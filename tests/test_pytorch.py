"""Networks from PyTorch and back, compared by their predictions."""

import contextlib
import subprocess
import sys

import numpy as np
import pytest

import xnn

from .helpers import host
from .test_onnx import random_network

torch = pytest.importorskip("torch")
nn = torch.nn


def images_first(x):
    return torch.from_numpy(np.moveaxis(x, -1, 1).copy() if x.ndim == 4 else x)


def predicted(module, x):
    """Return PyTorch's outputs for xnn's inputs, in xnn's form."""
    with torch.no_grad():
        out = module.eval()(images_first(x)).numpy()
    return np.moveaxis(out, 1, -1) if out.ndim == 4 else out


def shaken(module):
    """Give averages values other than the initial ones."""
    for one in module.modules():
        if isinstance(one, nn.BatchNorm1d | nn.BatchNorm2d):
            one.running_mean.normal_()
            one.running_var.uniform_(0.5, 2)
            if one.weight is not None:
                with torch.no_grad():
                    one.weight.normal_()
                    one.bias.normal_()
    return module


MODULES = {
    "book": ([nn.Linear(20, 30), nn.Sigmoid(), nn.Linear(30, 4), nn.Sigmoid()], (20,)),
    "no biases": ([nn.Linear(20, 9, bias=False), nn.Tanh(), nn.Linear(9, 4)], (20,)),
    "softmax": ([nn.Linear(20, 9), nn.LeakyReLU(), nn.Dropout(), nn.Softmax(dim=-1)], (20,)),
    "vectors": ([nn.BatchNorm1d(20), nn.Linear(20, 9), nn.BatchNorm1d(9, affine=False)], (20,)),
    "LeNet": (
        [
            nn.Sequential(nn.Conv2d(1, 4, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
            nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.AvgPool2d(2)),
            *(nn.Flatten(), nn.Linear(6 * 3 * 2, 10), nn.Softmax(dim=1)),
        ],
        (16, 12, 1),
    ),
    "between Flatten and Linear": (
        [
            *(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.BatchNorm1d(60), nn.ReLU(), nn.Dropout(0.2)),
            *(nn.Identity(), nn.Linear(60, 5), nn.Linear(5, 2)),
        ],
        (5, 6, 2),
    ),
    "windows": (
        [
            nn.Conv2d(4, 8, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2), groups=2),
            *(nn.MaxPool2d(3, 2, 1), nn.Conv2d(8, 3, (2, 4), padding="same", bias=False)),
            *(nn.AvgPool2d(3, 1, 1, count_include_pad=False), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(3, 2)),
        ],
        (9, 10, 4),
    ),
    "images come out": ([nn.Conv2d(3, 2, 1), nn.Sigmoid(), nn.AvgPool2d(2, 1)], (4, 5, 3)),
}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODULES)
def test_networks_of_pytorch_predict_alike(name, dtype, device):
    torch.manual_seed(0)
    modules, shape = MODULES[name]
    module = shaken(nn.Sequential(*modules)).to(getattr(torch, dtype))
    x = np.random.default_rng(0).random((5, *shape)).astype(dtype)
    wanted = predicted(module, x)
    net = xnn.from_torch(module, shape, device=device, seed=0)
    assert net.dtype == dtype
    tolerance = 1e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(host(net.predict(x)), wanted, rtol=tolerance, atol=tolerance)
    # What is written to the one does not change the other.
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    np.testing.assert_allclose(host(net.predict(x)), wanted, rtol=tolerance, atol=tolerance)


def test_the_number_of_inputs_is_that_of_the_first_layer(device):
    net = xnn.from_torch(nn.Sequential(nn.Linear(7, 3), nn.Sigmoid()), cost="cross_entropy")
    assert net.sizes == [7, 3, 3]
    assert net.cost == "cross_entropy"
    assert net.device == device


@pytest.mark.parametrize(
    ("module", "inputs", "words"),
    [
        (nn.Linear(3, 2), None, "module is Linear, but must be a torch.nn.Sequential"),
        (nn.Sequential(nn.ReLU()), None, "can only be inferred from a Linear"),
        (nn.Sequential(nn.Linear(3, 2), nn.GELU()), 3, "module 1, GELU.*xnn has no such layer"),
        (nn.Sequential(nn.LeakyReLU(0.2)), 3, "negative_slope other than 0.01"),
        (nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect")), (4, 4, 1), "zeros"),
        (
            nn.Sequential(nn.AvgPool2d(3, padding=1)),
            (4, 4, 1),
            "average pooling that counts padding",
        ),
        (nn.Sequential(nn.MaxPool2d(3, ceil_mode=True)), (4, 4, 1), "ceil_mode"),
        (nn.Sequential(nn.MaxPool2d(2, dilation=2)), (4, 4, 1), "dilation"),
        (nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False)), 3, "track_running_stats"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 2)), (4, 4, 1), "Dense takes vectors"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten()), (4, 4, 1), "order differs in xnn"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(3, 2)), 3, "must have shape"),
        (nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2).double()), 3, "dtypes"),
        (nn.Sequential(nn.Linear(3, 2).half()), 3, "dtype is 'float16'"),
    ],
)
def test_modules_that_xnn_has_no_layers_for(module, inputs, words):
    with pytest.raises(ValueError, match=words):
        xnn.from_torch(module, inputs)


@pytest.mark.parametrize("seed", range(60))
def test_networks_are_pytorchs(seed, device):
    """There, and from there back."""
    rng = np.random.default_rng(seed)
    net = random_network(rng, device)
    x = rng.random((4, *net.shapes[0])).astype(np.float32)
    kinds, module = [type(layer) for layer in net.layers], None
    with contextlib.suppress(ValueError):
        module = xnn.to_torch(net)
    if module is None:  # the three cases that PyTorch cannot express
        unscaled = any(not getattr(layer, "scale_training", True) for layer in net.layers)
        assert xnn.Flatten in kinds or xnn.AveragePool2D in kinds or unscaled
        return
    ours = host(net.predict(x))
    np.testing.assert_allclose(predicted(module, x), ours, rtol=1e-5, atol=1e-5)
    if len(module) == 0 or any(isinstance(one, nn.ConstantPad2d) for one in module):
        return
    back = xnn.from_torch(module, net.shapes[0], device=device)
    np.testing.assert_allclose(host(back.predict(x)), ours, rtol=1e-5, atol=1e-5)


def test_most_networks_are_pytorchs():
    taken = 0
    for seed in range(60):
        with contextlib.suppress(ValueError):
            xnn.to_torch(random_network(np.random.default_rng(seed), "cpu"))
            taken += 1
    assert taken >= 40


def test_state_dicts_have_copies(device):
    net = xnn.Network([4, xnn.Dense(3, "relu"), xnn.BatchNorm(), 2], seed=0, device=device)
    state = xnn.to_torch(net).state_dict()
    assert list(state) == [
        *("0.weight", "0.bias", "2.weight", "2.bias", "2.running_mean", "2.running_var"),
        *("2.num_batches_tracked", "3.weight", "3.bias"),
    ]
    np.testing.assert_array_equal(state["3.weight"].numpy(), host(net.weights[2]))
    before = host(net.weights[0])
    state["0.weight"].zero_()
    np.testing.assert_array_equal(host(net.weights[0]), before)


def test_layers_that_pytorch_has_none_for(device):
    net = xnn.Network([12, xnn.Reshape((2, 3, 2)), xnn.Conv2D(2, 2)], device=device)
    with pytest.raises(
        ValueError, match=r"layers\[1\]: Reshape to images orders numbers differently"
    ):
        xnn.to_torch(net)
    net = xnn.Network([(2, 3, 2), xnn.Flatten()], device=device)
    with pytest.raises(ValueError, match="ends with flattened images"):
        xnn.to_torch(net)
    net = xnn.Network([12, xnn.Reshape((2, 6, 1)), xnn.Conv2D(2, 2), xnn.Flatten(), 3])
    x = np.random.default_rng(0).random((3, 12)).astype(np.float32)
    np.testing.assert_allclose(predicted(xnn.to_torch(net), x), host(net.predict(x)), rtol=1e-5)


@pytest.mark.parametrize("name", xnn.activations.ACTIVATIONS)
def test_all_activations(name, device):
    net = xnn.Network([6, xnn.Dense(4, name), xnn.Activation(name)], seed=0, device=device)
    if name == "exp":
        with pytest.raises(ValueError, match=r"layers\[1\]: PyTorch has no module for activation"):
            xnn.to_torch(net)
        return
    x = np.random.default_rng(0).standard_normal((5, 6)).astype(np.float32)
    found = predicted(xnn.to_torch(net), x)
    np.testing.assert_allclose(found, host(net.predict(x)), rtol=1e-5, atol=1e-6)


UNSCALED = xnn.Dropout(0.4, scale_training=False)


@pytest.mark.parametrize(
    "layers",
    [
        [(5, 6, 2), UNSCALED, xnn.MaxPool2D(2, padding=1), UNSCALED, xnn.Flatten(), 3],
        [(5, 6, 2), UNSCALED, xnn.Conv2D(3, 3, "relu", padding="same"), UNSCALED, xnn.Flatten(), 3],
        [(5, 6, 2), UNSCALED, xnn.AveragePool2D(2), xnn.GlobalAveragePool2D(), xnn.Dense(3)],
        [7, xnn.Dense(4), UNSCALED, xnn.Activation("leaky_relu"), xnn.Dense(3, "softmax")],
        [7, xnn.Dense(4), UNSCALED, UNSCALED, xnn.BatchNorm(eps=0.1), UNSCALED, 3],
        [(5, 6, 2), UNSCALED, xnn.BatchNorm(eps=0.1), xnn.Flatten(), 3],
    ],
)
def test_dropout_that_does_not_scale_in_training_scales_the_next_weights(layers, device):
    net = xnn.Network(layers, seed=0, device=device)
    x = np.random.default_rng(0).standard_normal((5, *net.shapes[0])).astype(np.float32)
    net.fit(x, np.full((5, 3), 1 / 3), epochs=3, optimizer=0.01)  # which gives BatchNorm averages
    module, wanted = xnn.to_torch(net), host(net.predict(x))
    np.testing.assert_allclose(predicted(module, x), wanted, rtol=1e-5, atol=1e-6)
    back = xnn.from_torch(module, net.shapes[0], device=device)
    np.testing.assert_allclose(host(back.predict(x)), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        ([4, 3, UNSCALED], "the network ends without weights after Dropout"),
        ([4, 3, UNSCALED, xnn.Activation("tanh"), 2], r"layers\[3\]: there are no weights"),
    ],
)
def test_dropout_that_has_no_weights_behind_it(layers, words):
    with pytest.raises(ValueError, match=words):
        xnn.to_torch(xnn.Network(layers, device="cpu"))


def test_torch_is_not_loaded_before_it_is_asked_for():
    code = "import sys, xnn; assert 'torch' not in sys.modules; sys.modules['torch'] = None\n"
    code += "xnn.to_torch(xnn.Network([4, 3], device='cpu'))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("ImportError: to_torch needs PyTorch")
