"""The book's network3, compared with PyTorch and with its own printed lines."""

import re

import numpy as np
import pytest

from xnn.book import expand_mnist, network3
from xnn.book.network3 import (
    ConvPoolLayer,
    FullyConnectedLayer,
    Network,
    ReLU,
    SoftmaxLayer,
    linear,
    tanh,
)


def data(n, inputs=64, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return rng.random((n, inputs)) + 0.5 * np.eye(3)[y] @ rng.random((3, inputs)), y


def layers(activation=ReLU, p_dropout=0.0):
    np.random.seed(0)
    return [
        ConvPoolLayer((4, 1, 3, 3), (10, 1, 8, 8), (2, 2), activation),
        FullyConnectedLayer(4 * 3 * 3, 12, activation, p_dropout),
        SoftmaxLayer(12, 3, p_dropout),
    ]


def three_maps(shape):
    first = ConvPoolLayer((2, 3, 3, 3), (10, 3, 6, 6))
    given = np.zeros(shape), np.zeros(20, int)
    Network([first, SoftmaxLayer(8, 3)], 10).SGD(given, 1, 10, 0.1, given, None)


def test_first_weights_are_the_books():
    """By its own calls of NumPy, in its order."""
    made = layers()
    np.random.seed(0)
    n_out = 4 * 9 / 4
    for layer, scale, shape in ((made[0], 1 / n_out, (4, 1, 3, 3)), (made[1], 1 / 12, (36, 12))):
        w = np.asarray(np.random.normal(loc=0, scale=np.sqrt(scale), size=shape))
        b = np.random.normal(loc=0, scale=1.0, size=(shape[0] if len(shape) == 4 else shape[1],))
        assert (layer.w == w).all()
        assert (layer.b == b).all()
    assert not made[2].w.any()
    net = Network(made, 10)
    assert (net.layers[0].w == made[0].w).all()
    assert [p.shape for p in net.params] == [
        (4, 1, 3, 3), (4,), (36, 12), (12,), (12, 3), (3,),
    ]  # fmt: skip


@pytest.mark.parametrize("activation", [ReLU, tanh, network3.sigmoid, linear])
def test_training_is_that_of_pytorch(activation, device, capsys):
    """Convolution turned round as Theano's is, pooled before its activation, maps before pixels."""
    torch = pytest.importorskip("torch")
    functions = {ReLU: torch.relu, tanh: torch.tanh, linear: lambda z: z}
    function = functions.get(activation, torch.sigmoid)
    net = Network(layers(activation), 10, device=device)
    parameters = [torch.from_numpy(p.copy()).requires_grad_() for p in net.params]
    (x, y), lmbda = data(40), 0.3
    for _ in range(3):
        for start in range(0, 40, 10):
            w0, b0, w1, b1, w2, b2 = parameters
            a = torch.from_numpy(x[start : start + 10]).reshape(10, 1, 8, 8)
            a = torch.nn.functional.conv2d(a, torch.flip(w0, (2, 3)))
            a = function(torch.nn.functional.max_pool2d(a, 2) + b0[:, None, None])
            a = function(a.reshape(10, -1) @ w1 + b1)
            cost = torch.nn.functional.cross_entropy(
                a @ w2 + b2, torch.from_numpy(y[start : start + 10])
            )
            penalty = sum((w**2).sum() for w in (w0, w1, w2))
            gradients = torch.autograd.grad(cost + 0.5 * lmbda * penalty / 4, parameters)
            with torch.no_grad():
                for p, g in zip(parameters, gradients, strict=True):
                    p -= 0.1 * g
    net.SGD((x, y), 3, 10, 0.1, data(20, seed=1), data(20, seed=2), lmbda=lmbda)
    for ours, theirs in zip(net.params, parameters, strict=True):
        np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-8, atol=1e-10)


def test_printed_lines(device, capsys):
    net = Network(layers(), 1, device=device)
    x, y = data(700)
    net.SGD((x, y), 3, 1, 0.05, (x[:50], y[:50]), (x[50:100], y[50:100]))
    lines = capsys.readouterr().out.splitlines()
    numbers = [line for line in lines if line.startswith("Training")]
    assert numbers == [f"Training mini-batch number {n}" for n in (0, 1000, 2000)]
    assert lines.index(numbers[1]) > lines.index(numbers[0]) + 1
    epochs = [re.fullmatch(r"Epoch (\d): validation accuracy (\d+\.\d\d)%", x) for x in lines]
    found = [(int(m[1]), float(m[2])) for m in epochs if m]
    assert [number for number, _ in found] == [0, 1, 2]
    assert lines[2] == "This is the best validation accuracy to date."
    assert lines[3].startswith("The corresponding test accuracy is ")
    best = max(accuracy for _, accuracy in found)
    last = max(number for number, accuracy in found if accuracy == best)
    assert lines[-3] == "Finished training network."
    assert (
        lines[-2] == f"Best validation accuracy of {best:.2f}% obtained at iteration "
        f"{700 * (last + 1) - 1}"
    )
    assert re.fullmatch(r"Corresponding test accuracy of \d+\.\d\d%", lines[-1])
    assert best > 40


def test_what_is_left_of_the_data_is_left_out(device, capsys):
    trained = []
    for n in (40, 47):
        net = Network(layers(), 10, device=device)
        x, y = data(47)
        net.SGD((x[:n], y[:n]), 2, 10, 0.1, (x, y), None)
        trained.append(net.params)
    for a, b in zip(*trained, strict=True):
        assert (a == b).all()


def test_weights_can_be_set(device, capsys):
    made = layers()
    new = np.arange(36 * 12).reshape(36, 12) / 100
    made[1].w = new
    net = Network(made, 10, device=device)
    assert (made[1].w == new).all()
    made[0].w = made[0].w[::-1]
    made[2].b = [1.0, 0.0, 0.0]
    x, y = data(20)
    net.SGD((x, y), 1, 10, 1e-12, (x, np.zeros(20, int)), None)
    assert "validation accuracy 100.00%" in capsys.readouterr().out
    with pytest.raises(ValueError, match=r"w has shape \(2, 2\), but must have shape \(36, 12\)"):
        made[1].w = np.zeros((2, 2))


def test_images_of_several_maps_come_map_by_map(device, capsys):
    """The same images, maps in another order, and the same filters for each."""
    x, y = data(20, inputs=3 * 36)
    outputs = []
    for order in ([0, 1, 2], [2, 0, 1]):
        np.random.seed(0)
        first = ConvPoolLayer((2, 3, 3, 3), (10, 3, 6, 6))
        first.w = first.w[:, order]
        net = Network([first, FullyConnectedLayer(8, 4), SoftmaxLayer(4, 3)], 10, device=device)
        moved = x.reshape(20, 3, 36)[:, order].reshape(20, -1)
        net.SGD((moved, y), 2, 10, 0.5, (moved.reshape(20, 3, 6, 6), y), None)
        outputs.append((*net.params[2:], capsys.readouterr().out))
    *pairs, printed = zip(*outputs, strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)
    assert printed[0] == printed[1]


def test_images_of_one_map_may_have_it(device):
    """First, as the book has it, or last; these are the same numbers in the same order."""
    x, y = data(20)
    nets = []
    for shape in ((20, 64), (20, 8, 8), (20, 1, 8, 8), (20, 8, 8, 1)):
        nets.append(Network(layers(), 10, device=device))
        given = x.reshape(shape), y
        nets[-1].SGD(given, 1, 10, 0.1, given, None)
    for net in nets[1:]:
        for a, b in zip(net.params, nets[0].params, strict=True):
            np.testing.assert_array_equal(a, b)


def test_dropout_leaves_out_inputs_in_training_alone(device, capsys):
    """At a learning rate near 0, what is evaluated is (1 - p) of the inputs times the weights."""
    x, y = data(20)
    half = Network(layers(linear, p_dropout=0.5), 10, device=device)
    whole = Network(layers(linear), 10, device=device)
    for net in (half, whole):
        net.layers[2].w = np.random.default_rng(0).random((12, 3))
    for layer in whole.layers[1:]:
        layer.w = 0.5 * layer.w
    a, b = (net._net.predict(x) for net in (half, whole))
    np.testing.assert_allclose(a, b, rtol=1e-10)
    half.SGD((x, y), 1, 10, 0.1, (x, y), None)
    whole.SGD((x, y), 1, 10, 0.1, (x, y), None)
    assert not np.allclose(half.layers[1].w, 2 * whole.layers[1].w)


def test_the_books_networks_learn_digits(mnist, capsys):
    """Chapter 6's second network with rectified linear units, on 2,000 images."""
    (x, y), (x_val, y_val), _ = mnist
    np.random.seed(1)
    net = Network(
        [
            ConvPoolLayer((20, 1, 5, 5), (10, 1, 28, 28), (2, 2), ReLU),
            FullyConnectedLayer(20 * 12 * 12, 100, ReLU),
            SoftmaxLayer(100, 10),
        ],
        10,
        dtype="float32",
    )
    net.SGD((x[:2000] / 255, y[:2000]), 4, 10, 0.03, (x_val[:1000] / 255, y_val[:1000]), None)
    out = capsys.readouterr().out
    assert float(re.findall(r"accuracy (\S+)%", out)[-2]) > 80


def test_data_in_the_books_form(mnist, tmp_path, monkeypatch):
    found = network3.load_data_shared()
    for (x, y), (pixels, labels) in zip(found, mnist, strict=True):
        assert network3.size((x, y)) == len(labels)
        assert (x[:100] * 255).round().astype(int).tolist() == pixels[:100].tolist()
        assert (y == labels).all()
    small = [(x[:20].astype(np.float32), y[:20]) for x, y in found]
    monkeypatch.setattr(expand_mnist, "load_data", lambda: small)
    expand_mnist.write(tmp_path / "mnist_expanded.pkl.gz")
    training, _, test = network3.load_data_shared(tmp_path / "mnist_expanded.pkl.gz")
    assert network3.size(training) == 100
    np.testing.assert_array_equal(test[0], small[2][0])
    with pytest.raises(OSError, match=r"elsewhere.pkl.gz"):
        network3.load_data_shared(tmp_path / "elsewhere.pkl.gz")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Network([], 10), "the last of layers must be a SoftmaxLayer"),
        (lambda: Network([FullyConnectedLayer(3, 2)], 10), "must be a SoftmaxLayer"),
        (lambda: Network([FullyConnectedLayer(3, 2), SoftmaxLayer(4, 2)], 10),
         "layers[1] has n_in 4, but gets 2 numbers"),
        (lambda: Network([layers()[0], SoftmaxLayer(40, 3)], 10),
         "layers[1] has n_in 40, but gets 36 numbers"),
        (lambda: Network([layers()[0], ConvPoolLayer((2, 4, 2, 2), (10, 4, 4, 4)),
                          SoftmaxLayer(2, 3)], 10),
         "layers[1] has image_shape (10, 4, 4, 4), but gets 4 maps of 3×3"),
        (lambda: Network(2 * [layers()[1]] + [SoftmaxLayer(12, 3)], 0), "mini_batch_size is 0"),
        (lambda: ConvPoolLayer((2, 1, 3), (10, 1, 8, 8)), "filter_shape is (2, 1, 3)"),
        (lambda: ConvPoolLayer((2, 2, 3, 3), (10, 1, 8, 8)), "filter_shape has 2 input maps"),
        (lambda: FullyConnectedLayer(3, 2, abs), "activation_fn is <built-in function abs>"),
        (lambda: FullyConnectedLayer(3, 2, p_dropout=1), "p_dropout is 1"),
        (lambda: SoftmaxLayer(3, 1), "n_out is 1"),
        (lambda: Network(layers(), 10).SGD(data(20)[0], 1, 10, 0.1, data(20), None),
         "training_data is not in the book's form: a pair of images"),
        (lambda: Network(layers(), 10).SGD(data(20), 1, 10, 0.1, data(5), None),
         "validation_data has 5 samples, fewer than a mini-batch"),
        (lambda: three_maps((20, 6, 6, 3)),
         "training_data's x has shape (20, 6, 6, 3), but must have shape (n, 108) or "
         "(n, 3, 6, 6), map by map"),
        (lambda: Network(layers(), 10).SGD(data(20), 1, 10, -1, data(20), None), "eta is -1"),
    ],
)  # fmt: skip
def test_what_is_no_network(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)
