"""backprop compared with central differences, with PyTorch, and with itself."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import xnn

from . import reference
from .helpers import copies, host

SIZES = [4, 6, 5, 3]


def network(activations, cost, device="cpu", seed=1, bias=True):
    depth = len(activations)
    sizes = [SIZES[0], *SIZES[1:depth], SIZES[-1]]
    layers = [
        xnn.Dense(n, name, initializer="scaled_normal", bias=bias)
        for n, name in zip(sizes[1:], activations, strict=True)
    ]
    return xnn.Network([sizes[0], *layers], cost, seed=seed, dtype="float64", device=device)


def data(cost, output, n=7, seed=2):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, SIZES[0]))
    y = rng.random((n, SIZES[-1]))
    return x, y / y.sum(axis=1, keepdims=True) if output == "softmax" else y


CASES = [
    (cost, [*[hidden] * (depth - 1), output])
    for cost, output in reference.OUTPUTS
    for depth in (1, 2, 3)
    for hidden in (reference.ACTIVATIONS if depth > 1 else ["none"])
]


@pytest.mark.parametrize(
    ("cost", "activations"), CASES, ids=lambda v: v if type(v) is str else "-".join(v)
)
def test_gradient_is_that_of_central_differences(cost, activations, device):
    net = network(activations, cost, device)
    x, y = data(cost, activations[-1])
    weights, biases = copies(net)

    def value():
        return reference.cost(weights, biases, activations, x, y, cost)

    assert net.evaluate(x, y).cost == pytest.approx(value(), rel=1e-12)
    found = net.backprop(x, y)
    wanted = [reference.numeric_gradient(value, array) for array in [*weights, *biases]]
    together = np.concatenate([np.ravel(g) for g in [*found.weights, *found.biases]])
    assert reference.relative_error(together, np.concatenate([g.ravel() for g in wanted])) < 1e-7


def test_gradients_of_many_sizes_while_weights_change(device):
    """The backward pass is compiled once for each size, and kept for a few of them."""
    activations = ["tanh", "sigmoid"]
    net = network(activations, "quadratic", device)
    rng = np.random.default_rng(0)
    for n in (3, 1, 3, 2, 4, 5, 6, 1, 1030, 513, 3):
        net.weights[0][1, 2] = rng.random()
        x, y = data("quadratic", "sigmoid", n, seed=n)
        weights, biases = copies(net)

        def value(parameters=(weights, biases), x=x, y=y):
            return reference.cost(*parameters, activations, x, y, "quadratic")

        found, wanted = net.backprop(x, y), reference.numeric_gradient(value, weights[0])
        assert reference.relative_error(found.weights[0], wanted) < 1e-7


def test_gradient_without_biases(device):
    net = network(["tanh", "sigmoid"], "cross_entropy", device, bias=False)
    x, y = data("cross_entropy", "sigmoid")
    weights, _ = copies(net)
    found = net.backprop(x, y)
    assert list(net.biases) == [None, None]
    assert found.biases == [None, None]
    for w, gradient in zip(weights, found.weights, strict=True):
        wanted = reference.numeric_gradient(
            lambda: reference.cost(weights, [None] * 2, ["tanh", "sigmoid"], x, y, "cross_entropy"),
            w,
        )
        assert reference.relative_error(gradient, wanted) < 1e-7


def torch_cost(torch, name, z, a, y, output):
    match name:
        case "quadratic":
            return ((a - y) ** 2).sum() / 2 / len(y)
        case "mean_squared_error":
            return torch.nn.functional.mse_loss(a, y)
        case "mean_absolute_error":
            return torch.nn.functional.l1_loss(a, y)
        case "poisson":
            each = torch.nn.functional.poisson_nll_loss(
                a, y, log_input=False, eps=0.0, reduction="none"
            )
            return each.sum() / len(y)
    if output == "softmax":
        return torch.nn.functional.cross_entropy(z, y)
    each = torch.nn.functional.binary_cross_entropy_with_logits(z, y, reduction="none")
    return each.sum() / len(y)


@pytest.mark.parametrize(
    ("cost", "activations"), CASES, ids=lambda v: v if type(v) is str else "-".join(v)
)
def test_gradient_is_that_of_pytorch(cost, activations, device):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    functions = {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
        "relu": torch.relu,
        "leaky_relu": lambda z: torch.nn.functional.leaky_relu(z, 0.01),
        "linear": lambda z: z,
        "softmax": lambda z: torch.softmax(z, dim=1),
        "exp": torch.exp,
    }
    net = network(activations, cost, device)
    x, y = data(cost, activations[-1])
    weights, biases = ([torch.tensor(a, requires_grad=True) for a in c] for c in copies(net))
    a = torch.tensor(x)
    for w, b, name in zip(weights, biases, activations, strict=True):
        z = a @ w.T + b
        a = functions[name](z)
    torch_cost(torch, cost, z, a, torch.tensor(y), activations[-1]).backward()
    found = net.backprop(x, y)
    for gradient, tensor in zip([*found.weights, *found.biases], [*weights, *biases], strict=True):
        assert reference.relative_error(gradient, tensor.grad.numpy()) < 1e-10


@pytest.mark.parametrize(
    ("cost", "activations"), CASES, ids=lambda v: v if type(v) is str else "-".join(v)
)
def test_input_gradient_is_the_first_error_through_the_first_weights(cost, activations, device):
    """(BP2) of the book for a layer below the first, whose error (BP3) is the biases' gradient."""
    net = network(activations, cost, device)
    x, y = data(cost, activations[-1])
    found = net.input_gradient(x, y)
    weights, _ = copies(net)
    for i in range(len(x)):
        error = host(net.backprop(x[i : i + 1], y[i : i + 1]).biases[0])
        assert reference.relative_error(host(found)[i], error @ weights[0]) < 1e-12


def test_input_gradient_of_many_samples_and_of_pixels(device):
    """Each sample has its own, in whichever block it is; they are those of pixels from 0 to 1."""
    net = xnn.Network([12, 9, 3], seed=0, device=device)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (5000, 3, 4)).astype(np.uint8), rng.integers(0, 3, 5000)
    found = net.input_gradient(x, y)
    assert found.shape == x.shape
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, net.input_gradient(x / 255, y), rtol=1e-4, atol=1e-7)
    for i in (0, 1234, 4999):
        alone = net.input_gradient(x[i : i + 1], y[i : i + 1])
        np.testing.assert_allclose(found[i : i + 1], alone, rtol=1e-4, atol=1e-7)


@given(n=st.integers(1, 40), seed=st.integers(0, 2**32), units=st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_gradient_of_a_batch_is_the_mean_of_single_ones(n, seed, units):
    rng = np.random.default_rng(seed)
    net = xnn.Network([3, units, 2], "cross_entropy", seed=0, dtype="float64")
    x, y = rng.standard_normal((n, 3)), rng.random((n, 2))
    whole = net.backprop(x, y)
    single = [net.backprop(x[i : i + 1], y[i : i + 1]) for i in range(n)]
    for layer in range(2):
        mean = np.mean([g.weights[layer] for g in single], axis=0)
        np.testing.assert_allclose(whole.weights[layer], mean, rtol=1e-10, atol=1e-14)
        mean = np.mean([g.biases[layer] for g in single], axis=0)
        np.testing.assert_allclose(whole.biases[layer], mean, rtol=1e-10, atol=1e-14)


@given(n=st.integers(1, 40), seed=st.integers(0, 2**32))
@settings(max_examples=40, deadline=None)
def test_order_within_a_batch_does_not_matter(n, seed):
    rng = np.random.default_rng(seed)
    net = xnn.Network([3, 5, 4], seed=0, dtype="float64")
    x, y = rng.standard_normal((n, 3)), rng.integers(0, 4, n)
    order = rng.permutation(n)
    one, other = net.backprop(x, y), net.backprop(x[order], y[order])
    for a, b in zip(one.weights + one.biases, other.weights + other.biases, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-14)


@given(
    n=st.integers(1, 70),
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=4),
    activation=st.sampled_from(sorted(reference.ACTIVATIONS)),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(max_examples=60, deadline=None)
def test_shapes_and_values_for_any_sizes(n, sizes, activation, dtype):
    assume(activation != "softmax" or min(sizes[1:]) > 1)
    layers = [sizes[0], *(xnn.Dense(units, activation) for units in sizes[1:])]
    net = xnn.Network(layers, "quadratic", seed=0, dtype=dtype)
    x = np.random.default_rng(0).standard_normal((n, sizes[0]))
    out = net.predict(x)
    assert out.shape == (n, sizes[-1])
    assert out.dtype == dtype
    wanted = reference.forward(*copies(net), [activation] * len(net.weights), x)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(out, wanted, rtol=tolerance, atol=tolerance)
    gradients = net.backprop(x, out)
    assert [g.shape for g in gradients.weights] == [w.shape for w in net.weights]
    assert [g.shape for g in gradients.biases] == [b.shape for b in net.biases]


@pytest.mark.parametrize("z", [0.0, 3.0, 10.0, 20.0, 50.0, 1e4])
def test_cross_entropy_loses_nothing_far_out(z, device):
    """In float32, where 1 - a is 0 from z = 17 on: -ln(1 - σ(z)) is z + ln(1 + exp(-z)).

    The cost of a right answer, ln(1 + exp(-z)), is not lost beside the 1 either.
    """
    for sign, y in ((1, 0.0), (-1, 1.0)):
        dense = xnn.Dense(1, initializer=[[sign * z]])
        net = xnn.Network([1, dense], "cross_entropy", device=device)
        right = np.log1p(np.exp(-z))
        assert net.evaluate([[1.0]], [y]).cost == pytest.approx(z + right, rel=1e-6)
        assert net.evaluate([[1.0]], [1 - y]).cost == pytest.approx(right, rel=1e-6, abs=0)


@pytest.mark.parametrize("activation", sorted(reference.ACTIVATIONS))
@pytest.mark.parametrize("units", [3, 700])  # both ways in which sigmoid is computed
def test_activations_are_stable_far_out(activation, units, device):
    """At ±10⁴ in float32: no warning (pytest makes each an error), no NaN, and the right limit."""
    z = np.zeros((1, units), np.float32)
    z[0, :3] = (-1e4, 0, 1e4)
    net = xnn.Network(
        [1, xnn.Dense(units, activation, initializer=(z.T, np.zeros(units)))],
        "quadratic",
        device=device,
    )
    a = net.predict(np.ones((1, 1)))[0, :3]
    wanted = {
        "sigmoid": [0, 0.5, 1],
        "tanh": [-1, 0, 1],
        "relu": [0, 0, 1e4],
        "leaky_relu": [-100, 0, 1e4],
        "linear": [-1e4, 0, 1e4],
        "softmax": [0, 0, 1],
    }[activation]
    np.testing.assert_allclose(a, wanted, rtol=1e-6)
    gradients = net.backprop(np.ones((1, 1)), np.zeros((1, units)))
    assert np.isfinite(gradients.weights[0]).all()
