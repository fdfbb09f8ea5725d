"""SGD against the book's loop over single samples; all against their formulas and PyTorch."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

import xnn
from xnn.backends import select
from xnn.parameters import Parameter
from xnn.samples import check_samples
from xnn.steps import Trainer

from . import reference
from .helpers import copies, host, parameters

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


RULES = {
    xnn.SGD: reference.sgd,
    xnn.RMSprop: reference.rmsprop,
    xnn.Adam: reference.adam,
    xnn.AdamW: reference.adam,
}


@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(0.4, momentum=0.9),
        xnn.SGD(0.4, momentum=0.9, weight_decay=3.0),
        xnn.SGD(0.4, momentum=0.5, nesterov=True),
        xnn.SGD(0.4, momentum=0.9, nesterov=True, weight_decay=3.0),
        xnn.SGD(0.4, clip_norm=0.05),
        xnn.SGD(0.4, clip_norm=1e9),
        xnn.SGD(0.4, clip_value=0.002),
        xnn.SGD(0.4, clip_value=0.002, weight_decay=3.0),
        xnn.SGD(0.4, momentum=0.9, clip_norm=0.1, clip_value=0.01, weight_decay=1.0),
        xnn.RMSprop(),
        xnn.RMSprop(0.03, alpha=0.5, eps=1e-3, weight_decay=0.1),
        xnn.RMSprop(0.03, momentum=0.9, clip_value=0.01),
        xnn.RMSprop(0.03, centered=True, weight_decay=0.1, clip_norm=0.02),
        xnn.RMSprop(0.03, centered=True, momentum=0.9),
        xnn.Adam(),
        xnn.Adam(0.03, betas=(0.0, 0.5), eps=1e-3, weight_decay=0.1),
        xnn.Adam(0.03, clip_norm=0.02, clip_value=0.01),
        xnn.AdamW(0.03),
        xnn.AdamW(0.03, weight_decay=0.3, clip_norm=0.02),
        xnn.AdamW(0.03, weight_decay=0.0),
    ],
    ids=str,
)
def test_optimizers_follow_their_formulas(optimizer, device):
    """The gradient is taken from backprop, which is tested elsewhere; 40 steps in 5 chunks."""
    net, x, y = start(device, n=24)
    twin = xnn.Network(SIZES, seed=0, dtype="float64")

    def gradients(step, parameters):
        rows = slice(step % 8 * 3, step % 8 * 3 + 3)
        twin.weights, twin.biases = parameters[:2], parameters[2:]
        g = twin.backprop(x[rows], y[rows])
        return [*map(host, g.weights), *map(host, g.biases)]

    weights, biases = copies(net)
    options = {**vars(optimizer), "lr": optimizer.learning_rate}
    of_all = len(x) if isinstance(optimizer, xnn.SGD) else 1
    wanted = reference.optimize(
        RULES[type(optimizer)],
        [*weights, *biases],
        gradients,
        40,
        decay=optimizer.weight_decay / of_all,
        decoupled=isinstance(optimizer, xnn.AdamW),
        **options,
    )
    net.fit(x, y, epochs=5, batch_size=3, optimizer=optimizer, shuffle=False)
    assert_parameters(net, wanted[:2], wanted[2:], rtol=1e-9)


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


@pytest.mark.parametrize("decay", [0.0, 2.0])
@pytest.mark.parametrize(
    "optimizer",
    [
        xnn.SGD(0.1),
        xnn.SGD(0.1, momentum=0.9),
        xnn.SGD(0.1, momentum=0.9, nesterov=True),
        xnn.Adam(),
    ],
    ids=["plain", "momentum", "Nesterov", "Adam"],
)
def test_gradients_that_come_in_parts_add_up(optimizer, decay, device):
    """A product of 6 columns and rows is the sum of one of 2 and one of 4."""
    optimizer = replace(optimizer, weight_decay=decay)
    run = select(device)
    rng = np.random.default_rng(0)
    first, left, right = rng.random(32), rng.random((2, 4, 6)), rng.random((2, 6, 4))
    parameter = Parameter(0, rows=4, weights=3, bias=True, row=8)
    ends = []
    for parts in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        flat = run.upload(first.copy())
        updates = optimizer.start(run, flat, [parameter], 10)
        step = updates.begin(run.upload(np.array([0.1, 0.2])), 5)
        for step.at in range(2):
            for part in parts:
                a, b = run.upload(left[step.at][:, part]), run.upload(right[step.at][part])
                step.gradient(parameter, a, b, 0.5, again=part.start > 0)
            step.apply()
        ends.append(run.download(parameter.matrix(flat)))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)
    assert not (ends[0] == first.reshape(4, 8)[:, :4]).any()


STATEFUL = [
    (xnn.SGD(0.5), set()),
    (xnn.SGD(0.5, momentum=0.9), {"v"}),
    (xnn.SGD(0.5, momentum=0.9, nesterov=True), {"v"}),
    (xnn.RMSprop(momentum=0.5, centered=True), {"v", "c", "b"}),
    (xnn.AdamW(), {"m", "v", "powers"}),
]


def trainer(net, x, y, optimizer, state=None):
    engine = net._engine
    samples = check_samples(
        engine.run, x, y, (6, 3), engine.layers[-1].function, engine.cost, engine.dtype
    )
    return Trainer(engine, samples, 5, optimizer, state)


@pytest.mark.parametrize(("optimizer", "names"), STATEFUL, ids=str)
def test_training_goes_on_from_a_saved_state(optimizer, names, device):
    """Bit for bit, by another trainer of another network."""

    def train(made, epochs):
        for epoch in range(epochs):
            for _ in made.epoch(np.arange(23), optimizer.rates(epoch, made.steps)):
                pass

    net, x, y = start(device)
    other, _, _ = start(device, seed=4)
    once = trainer(net, x, y, optimizer)
    train(once, 2)
    other.weights, other.biases = copies(net)
    saved = once.updates.saved()
    assert saved.keys() == names
    assert all(isinstance(array, np.ndarray) and array.any() for array in saved.values())
    train(once, 2)
    train(trainer(other, x, y, optimizer, saved), 2)
    assert (parameters(net) == parameters(other)).all()


def test_a_state_of_something_else_is_refused(device):
    net, x, y = start(device)
    saved = trainer(net, x, y, xnn.Adam()).updates.saved()
    for wrong in ({}, {**saved, "v": saved["v"][:-1]}, {**saved, "v": saved["v"].astype("f")}):
        with pytest.raises(ValueError, match=r"the optimizer's state is .*, but must be "):
            trainer(net, x, y, xnn.Adam(), wrong)


# Ours, the class and arguments of PyTorch's, and what clips there: its gradients are of some
# hundreds, beside which the 1e-6 that it adds to their norm counts for nothing.
PYTORCHS = [
    (xnn.SGD(0.01), "SGD", {}, {}),
    (xnn.SGD(0.01, momentum=0.8), "SGD", {"momentum": 0.8}, {}),
    (xnn.SGD(0.01, momentum=0.8, nesterov=True), "SGD", {"momentum": 0.8, "nesterov": True}, {}),
    (xnn.SGD(0.01, weight_decay=40.0), "SGD", {"weight_decay": 2.0}, {}),
    (
        xnn.SGD(0.01, momentum=0.8, weight_decay=40.0),
        "SGD",
        {"momentum": 0.8, "weight_decay": 2.0},
        {},
    ),
    (
        xnn.SGD(0.01, momentum=0.8, nesterov=True, weight_decay=40.0),
        "SGD",
        {"momentum": 0.8, "nesterov": True, "weight_decay": 2.0},
        {},
    ),
    (xnn.SGD(0.01, clip_norm=50.0), "SGD", {}, {"norm": 50.0}),
    (
        xnn.SGD(0.01, momentum=0.8, clip_value=30.0, clip_norm=60.0),
        "SGD",
        {"momentum": 0.8},
        {"value": 30.0, "norm": 60.0},
    ),
    (xnn.RMSprop(), "RMSprop", {}, {}),
    (
        xnn.RMSprop(0.01, alpha=0.9, eps=1e-3, momentum=0.7, centered=True, weight_decay=0.5),
        "RMSprop",
        {"alpha": 0.9, "eps": 1e-3, "momentum": 0.7, "centered": True, "weight_decay": 0.5},
        {},
    ),
    (xnn.RMSprop(momentum=0.7, clip_value=5.0), "RMSprop", {"momentum": 0.7}, {"value": 5.0}),
    (xnn.Adam(), "Adam", {}, {}),
    (
        xnn.Adam(0.02, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.5),
        "Adam",
        {"lr": 0.02, "betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.5},
        {},
    ),
    (xnn.Adam(clip_norm=50.0), "Adam", {}, {"norm": 50.0}),
    (xnn.Adam(clip_value=5.0), "Adam", {}, {"value": 5.0}),
    (xnn.AdamW(), "AdamW", {}, {}),
    (xnn.AdamW(0.02, weight_decay=0.5), "AdamW", {"lr": 0.02, "weight_decay": 0.5}, {}),
    (xnn.AdamW(clip_norm=50.0), "AdamW", {}, {"norm": 50.0}),
]


@pytest.mark.parametrize(("ours", "name", "options", "clips"), PYTORCHS, ids=str)
def test_optimizers_are_pytorchs(ours, name, options, clips, device):
    """For 100 steps, looked at after each five. Biases do not decay: a group of their own."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    net = xnn.Network([6, xnn.Dense(3, "linear")], seed=3, dtype="float64", device=device)
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((20, 6)), 300 * rng.standard_normal((20, 3))
    weights, biases = ([torch.tensor(a, requires_grad=True) for a in c] for c in copies(net))
    if isinstance(ours, xnn.SGD):
        options = {**options, "lr": ours.learning_rate}
    theirs = getattr(torch.optim, name)(
        [{"params": weights}, {"params": biases, "weight_decay": 0.0}], **options
    )
    trace, clipped = [], []
    for step in range(100):
        rows = slice(step % 5 * 4, step % 5 * 4 + 4)
        a = torch.tensor(x[rows]) @ weights[0].T + biases[0]
        theirs.zero_grad()
        (((a - torch.tensor(y[rows])) ** 2).sum() / 2 / 4).backward()
        before = [p.grad.clone() for p in [*weights, *biases]]
        if "value" in clips:
            torch.nn.utils.clip_grad_value_([*weights, *biases], clips["value"])
        if "norm" in clips:
            torch.nn.utils.clip_grad_norm_([*weights, *biases], clips["norm"])
        pairs = zip([*weights, *biases], before, strict=True)
        clipped.append(any((p.grad != g).any() for p, g in pairs))
        theirs.step()
        if step % 5 == 4:
            trace.append([p.detach().numpy().copy() for p in [*weights, *biases]])
    assert all(clipped) == bool(clips)
    seen = []
    net.fit(
        x,
        y,
        epochs=20,
        batch_size=4,
        shuffle=False,
        optimizer=ours,
        callbacks=[lambda run: seen.append([a for c in copies(net) for a in c])],
    )
    for found, wanted in zip(seen, trace, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


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
