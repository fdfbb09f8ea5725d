"""What all peers train: MNIST, the same initial weights, the same network in each library.

A task is ``(sizes, activation)``: the units of each layer, input first; sigmoid throughout with the
quadratic cost, or relu with softmax and log-likelihood. A size such as ``"C20"`` is a convolution
of 20 filters of 5×5, followed by 2×2 max pooling.
"""

import itertools
from functools import cache

import numpy as np


def data_name() -> str:
    """Say what `data` returns."""
    import xnn

    try:
        xnn.datasets.mnist(download=False)
    except (OSError, ImportError):  # of what looks for downloads
        return "random pixels"
    return "MNIST"


#: A small convolutional network in the manner of LeCun's.
LENET = [784, "C20", "C40", 100, 10]


def convolutional(sizes: list[int | str]) -> bool:
    """Say whether a network has convolutions."""
    return any(isinstance(size, str) for size in sizes)


@cache
def data() -> tuple[np.ndarray, np.ndarray]:
    """Return 50,000 images (uint8) and labels; random ones if MNIST is unavailable."""
    import xnn

    try:
        return xnn.datasets.mnist(download=False)[0]
    except (OSError, ImportError):
        rng = np.random.default_rng(0)
        pixels = rng.integers(0, 256, (50_000, 784), dtype=np.uint8)
        return pixels, rng.integers(0, 10, 50_000)


def start(sizes: list[int], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the same initial weights (outputs, inputs) and biases for all peers."""
    rng = np.random.default_rng(seed)
    return [
        (
            (rng.standard_normal((n, m)) / np.sqrt(m)).astype(np.float32),
            np.zeros(n, np.float32),
        )
        for m, n in itertools.pairwise(sizes)
    ]


def xnn_network(sizes: list[int], activation: str, **options):
    """Return the network in xnn."""
    import xnn

    if convolutional(sizes):
        return xnn.Network(_lenet(sizes, activation), seed=0, **options)
    last = "sigmoid" if activation == "sigmoid" else "softmax"
    names = [activation] * (len(sizes) - 2) + [last]
    dense = [
        xnn.Dense(units, name, initializer=arrays)
        for units, name, arrays in zip(sizes[1:], names, start(sizes), strict=True)
    ]
    return xnn.Network([sizes[0], *dense], seed=0, **options)


def _lenet(sizes: list[int | str], activation: str) -> list:
    import xnn

    layers: list = [(28, 28, 1)]
    for size in sizes[1:-1]:
        if isinstance(size, str):
            layers += [xnn.Conv2D(int(size[1:]), 5, activation), xnn.MaxPool2D(2)]
        else:
            layers += [xnn.Flatten(), xnn.Dense(size, activation)]
    return [*layers, xnn.Dense(sizes[-1], "softmax")]


def torch_network(sizes: list[int], activation: str):
    """Return the network as a PyTorch module; its softmax is part of the cost.

    One with convolutions takes images ``(batch, 1, 28, 28)``.
    """
    import torch

    hidden = torch.nn.Sigmoid if activation == "sigmoid" else torch.nn.ReLU
    if convolutional(sizes):
        import xnn

        *modules, _softmax = xnn.to_torch(xnn_network(sizes, activation, device="cpu"))
        return torch.nn.Sequential(*modules)
    modules = []
    for i, (w, b) in enumerate(start(sizes)):
        layer = torch.nn.Linear(w.shape[1], w.shape[0])
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(w))
            layer.bias.copy_(torch.from_numpy(b))
        modules += [layer, *([hidden()] if i < len(sizes) - 2 else [])]
    if activation == "sigmoid":
        modules.append(torch.nn.Sigmoid())
    return torch.nn.Sequential(*modules)


def torch_cost(activation: str, outputs, targets):
    """Return the cost; ``targets`` are one-hot rows, after relu also labels."""
    import torch

    if activation == "sigmoid":
        return ((outputs - targets) ** 2).sum() / 2 / len(targets)
    return torch.nn.functional.cross_entropy(outputs, targets)


def jax_network(sizes: list[int]):
    """Return the parameters in JAX: weights (inputs, outputs) and biases of each layer."""
    import jax.numpy as jnp

    return [[jnp.asarray(w.T), jnp.asarray(b)] for w, b in start(sizes)]


def jax_outputs(activation: str, parameters, a):
    """Return the outputs, before softmax."""
    import jax

    for w, b in parameters[:-1]:
        a = (jax.nn.sigmoid if activation == "sigmoid" else jax.nn.relu)(a @ w + b)
    w, b = parameters[-1]
    z = a @ w + b
    return jax.nn.sigmoid(z) if activation == "sigmoid" else z


def jax_gradients(activation: str, parameters, a, t):
    """Return the gradients of the mean cost of inputs and one-hot targets."""
    import jax

    def cost(parameters):
        outputs = jax_outputs(activation, parameters, a)
        if activation == "sigmoid":
            return ((outputs - t) ** 2).sum() / 2 / len(t)
        return -(jax.nn.log_softmax(outputs) * t).sum() / len(t)

    return jax.grad(cost)(parameters)


def jax_step(activation: str, rate: float, parameters, a, t):
    """Return the parameters after a step of SGD on inputs and one-hot targets."""
    import jax

    gradients = jax_gradients(activation, parameters, a, t)
    return jax.tree.map(lambda p, g: p - rate * g, parameters, gradients)


def jax_adam_step(activation: str, rate: float, state, a, t):
    """Return parameters, both averages and the step's number after a step of Adam."""
    import jax
    import jax.numpy as jnp

    parameters, m, v, n = state
    gradients, n = jax_gradients(activation, parameters, a, t), n + 1
    m = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, m, gradients)
    v = jax.tree.map(lambda v, g: 0.999 * v + 0.001 * g * g, v, gradients)
    first, second = 1 - 0.9**n, 1 - 0.999**n
    moved = jax.tree.map(
        lambda p, m, v: p - rate * (m / first) / (jnp.sqrt(v / second) + 1e-8), parameters, m, v
    )
    return moved, m, v, n
