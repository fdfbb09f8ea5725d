"""SGD against the book's loop over single samples, against its formulas, and against PyTorch."""

import itertools

import numpy as np
import pytest

import xnn

from . import reference
from .helpers import copies, parameters

SIZES = [6, 5, 3]


def start(device="cpu", seed=3, n=23):
    net = xnn.Network(SIZES, seed=seed, dtype="float64", device=device)
    rng = np.random.default_rng(seed)
    return net, rng.random((n, SIZES[0])), rng.integers(0, SIZES[-1], n)


def assert_parameters(net, weights, biases, rtol=1e-10):
    found_weights, found_biases = copies(net)
    pairs = zip([*found_weights, *found_biases], [*weights, *biases], strict=True)
    for found, wanted in pairs:
        np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-13)


@pytest.mark.parametrize("decay", [0.0, 2.0])
@pytest.mark.parametrize("batch_size", [1, 5, 23, 100])
def test_sgd_is_the_books(batch_size, decay, device):
    """Sizes of which none divides the other, so that every epoch has a last, smaller batch."""
    net, x, y = start(device)
    weights, biases = copies(net)
    optimizer = xnn.SGD(0.7, weight_decay=decay)
    net.fit(x, y, epochs=3, batch_size=batch_size, optimizer=optimizer, shuffle=False)
    for _ in range(3):
        reference.book_epoch(
            weights, biases, x, np.eye(3)[y], np.arange(len(x)), batch_size, 0.7, decay
        )
    assert_parameters(net, weights, biases)


def test_shuffles_are_the_generators(device):
    """The seeded generator draws the weights, then one permutation an epoch."""
    net, x, y = start(device)
    rng = np.random.default_rng(3)
    biases, weights = [], []
    for inputs, units in itertools.pairwise(SIZES):
        biases.append(rng.standard_normal(units))
        weights.append(rng.standard_normal((units, inputs)))
    assert_parameters(net, weights, biases, rtol=0)
    net.fit(x, y, epochs=2, batch_size=4, optimizer=1.0)
    for _ in range(2):
        reference.book_epoch(weights, biases, x, np.eye(3)[y], rng.permutation(len(x)), 4, 1.0)
    assert_parameters(net, weights, biases)


@pytest.mark.parametrize("steps_in_a_chunk", [1, 3, 32])
def test_how_many_steps_are_compiled_together_changes_nothing(steps_in_a_chunk, monkeypatch):
    monkeypatch.setattr(xnn.backends.Backend, "chunk_steps", steps_in_a_chunk)
    net, x, y = start()
    weights, biases = copies(net)
    net.fit(x, y, epochs=2, batch_size=2, optimizer=0.5, shuffle=False)
    for _ in range(2):
        reference.book_epoch(weights, biases, x, np.eye(3)[y], np.arange(len(x)), 2, 0.5)
    assert_parameters(net, weights, biases)


def formulas(net, x, y, steps, optimizer, batch):
    """Take the gradient from backprop, which is tested elsewhere, and step as the papers say."""
    twin = xnn.Network(SIZES, seed=0, dtype="float64")
    weights, biases = copies(net)
    velocity_w = [np.zeros_like(w) for w in weights]
    velocity_b = [np.zeros_like(b) for b in biases]
    eta, mu, decay = optimizer.learning_rate, optimizer.momentum, optimizer.weight_decay / len(x)
    for step in range(steps):
        rows = slice(step * batch, (step + 1) * batch)
        twin.weights, twin.biases = weights, biases
        g = twin.backprop(x[rows], y[rows])
        gradients = [*g.weights, *g.biases]
        if optimizer.clip_value is not None:
            gradients = [np.clip(a, -optimizer.clip_value, optimizer.clip_value) for a in gradients]
        if optimizer.clip_norm is not None:
            norm = np.sqrt(sum((a**2).sum() for a in gradients))
            gradients = [a * min(1, optimizer.clip_norm / norm) for a in gradients]
        depth = len(weights)
        gradients[:depth] = [a + decay * w for a, w in zip(gradients, weights, strict=False)]
        for p, v, a in zip([*weights, *biases], [*velocity_w, *velocity_b], gradients, strict=True):
            v *= mu
            v -= eta * a
            p += mu * v - eta * a if optimizer.nesterov else v
    return weights, biases


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9},
        {"momentum": 0.9, "weight_decay": 3.0},
        {"momentum": 0.5, "nesterov": True},
        {"momentum": 0.9, "nesterov": True, "weight_decay": 3.0},
        {"clip_norm": 0.05},
        {"clip_norm": 1e9},
        {"clip_value": 0.002},
        {"momentum": 0.9, "clip_norm": 0.1, "clip_value": 0.01, "weight_decay": 1.0},
    ],
    ids=str,
)
def test_sgd_follows_its_formulas(options, device):
    net, x, y = start(device, n=24)
    optimizer = xnn.SGD(0.4, **options)
    wanted = formulas(net, x, y, 6, optimizer, batch=4)
    net.fit(x, y, epochs=1, batch_size=4, optimizer=optimizer, shuffle=False)
    assert_parameters(net, *wanted)


def test_clipping_scales_what_would_overflow_when_squared(device):
    """The gradient is 1e20 and more, its square no float32; what is left has the norm asked for."""
    dense = xnn.Dense(1, "linear", initializer=np.zeros((1, 2)))
    net = xnn.Network([2, dense], "quadratic", device=device)
    x, y = np.full((4, 2), 1e10, "f"), np.full(4, 1e10)
    net.fit(x, y, epochs=1, optimizer=xnn.SGD(1.0, clip_norm=1.0))
    assert np.linalg.norm(parameters(net)) == pytest.approx(1, rel=1e-5)


def test_clipping_clips(device):
    net, x, y = start(device)
    gradients = net.backprop(x, y)
    norm = np.sqrt(sum((a**2).sum() for a in [*gradients.weights, *gradients.biases]))
    before = parameters(net)
    net.fit(x, y, epochs=1, batch_size=len(x), optimizer=xnn.SGD(1.0, clip_norm=norm / 10))
    assert np.linalg.norm(parameters(net) - before) == pytest.approx(norm / 10, rel=1e-9)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_momentum_is_pytorchs(nesterov, decay, device):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net, x, y = start(device, n=20)
    weights, biases = ([torch.tensor(a, requires_grad=True) for a in c] for c in copies(net))
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": decay / len(x)}, {"params": biases}],
        lr=0.3,
        momentum=0.8,
        nesterov=nesterov,
    )
    targets = torch.eye(3, dtype=torch.float64)[torch.tensor(y)]
    for step in range(100):
        rows = slice(step % 5 * 4, step % 5 * 4 + 4)
        a = torch.tensor(x[rows])
        for w, b in zip(weights, biases, strict=True):
            a = torch.sigmoid(a @ w.T + b)
        optimizer.zero_grad()
        (((a - targets[rows]) ** 2).sum() / 2 / 4).backward()
        optimizer.step()
    net.fit(
        x,
        y,
        epochs=20,
        batch_size=4,
        shuffle=False,
        optimizer=xnn.SGD(0.3, momentum=0.8, nesterov=nesterov, weight_decay=decay),
    )
    assert_parameters(
        net, [w.detach().numpy() for w in weights], [b.detach().numpy() for b in biases]
    )


def test_schedules_give_the_figures_of_their_formulas():
    step = xnn.schedules.Step(1.0, every=2, factor=0.5)
    assert [step(e) for e in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = xnn.schedules.Cosine(2.0, epochs=10, final=1.0)
    assert [cosine(e) for e in (0, 5, 10, 99)] == pytest.approx([2, 1.5, 1, 1])
    warm = xnn.schedules.WarmUp(3.0, epochs=4)
    assert [warm(e) for e in (0, 1, 4, 8)] == pytest.approx([0, 0.75, 3, 3])
    both = xnn.schedules.WarmUp(step, epochs=1)
    assert [both(e) for e in (0.5, 1, 2)] == pytest.approx([0.5, 1, 0.5])


@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_schedule_changes_the_rate_within_an_epoch_and_a_function_between(decay, device):
    net, x, y = start(device, n=20)
    weights, biases = copies(net)
    schedule = xnn.schedules.Cosine(1.0, epochs=2)
    net.fit(
        x, y, epochs=2, batch_size=5, shuffle=False, optimizer=xnn.SGD(schedule, weight_decay=decay)
    )
    for step in range(8):
        rows = np.arange(20)[step % 4 * 5 : step % 4 * 5 + 5]
        rate = (1 + np.cos(np.pi * step / 8)) / 2
        # one mini-batch of five, but λ/n with n of 20
        reference.book_epoch(weights, biases, x, np.eye(3)[y], rows, 5, rate, decay * 5 / 20)
    assert_parameters(net, weights, biases)

    asked = []

    def rate(epoch):
        asked.append(epoch)
        return [1.0, 0.25][epoch]

    net, x, y = start(device)
    weights, biases = copies(net)
    net.fit(x, y, epochs=2, batch_size=5, shuffle=False, optimizer=xnn.SGD(rate))
    for eta in (1.0, 0.25):
        reference.book_epoch(weights, biases, x, np.eye(3)[y], np.arange(len(x)), 5, eta)
    assert_parameters(net, weights, biases)
    assert set(asked) == {0, 1}
