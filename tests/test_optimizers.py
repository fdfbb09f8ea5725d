"""SGD compared with the book's loop over single samples; all with their formulas and PyTorch."""

import copy
import itertools
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import xnn
from xnn.backends import select
from xnn.optimizers import Subject
from xnn.parameters import Parameter
from xnn.samples import check_samples
from xnn.steps import Recipe, Trainer

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
    optimizer = xnn.SGD(0.7, lmbda=decay)
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
        xnn.SGD(0.4, momentum=0.9, lmbda=3.0),
        xnn.SGD(0.4, momentum=0.5, nesterov=True),
        xnn.SGD(0.4, weight_decay=0.1),
        xnn.SGD(0.4, momentum=0.9, nesterov=True, lmbda=3.0),
        xnn.SGD(0.4, clip_norm=0.05),
        xnn.SGD(0.4, clip_norm=1e9),
        xnn.SGD(0.4, clip_value=0.002),
        xnn.SGD(0.4, clip_value=0.002, lmbda=3.0),
        xnn.SGD(0.4, momentum=0.9, clip_norm=0.1, clip_value=0.01, lmbda=1.0),
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
    wanted = reference.optimize(
        RULES[type(optimizer)],
        [*weights, *biases],
        gradients,
        40,
        decay=optimizer.weight_decay or getattr(optimizer, "lmbda", 0) / len(x),
        decoupled=isinstance(optimizer, xnn.AdamW),
        **options,
    )
    net.fit(x, y, epochs=5, batch_size=3, optimizer=optimizer, shuffle=False)
    assert_parameters(net, wanted[:2], wanted[2:], rtol=1e-9)


def test_clipping_scales_what_would_overflow_when_squared(device):
    """The gradient exceeds 1e20, its square overflows float32; the result has the given norm."""
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
    backend = select(device)
    rng = np.random.default_rng(0)
    first, left, right = rng.random(32), rng.random((2, 4, 6)), rng.random((2, 6, 4))
    parameter = Parameter(0, rows=4, weights=3, biases=1, row=8)
    ends = []
    for parts in ([slice(0, 6)], [slice(0, 2), slice(2, 6)]):
        flat = backend.upload(first.copy())
        updates = optimizer.start(Subject(backend, flat, [parameter], 10))
        step = updates.begin(backend.upload(np.array([0.1, 0.2])), 5)
        for step.at in range(2):
            for part in parts:
                a, b = backend.upload(left[step.at][:, part]), backend.upload(right[step.at][part])
                step.gradient(parameter, a, b, 0.5, again=part.start > 0)
            step.apply()
        ends.append(backend.download(parameter.matrix(flat)))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-12)
    assert not (ends[0] == first.reshape(4, 8)[:, :4]).any()


STATEFUL = [
    (xnn.SGD(0.5), ""),
    (xnn.SGD(0.5, momentum=0.9), "v"),
    (xnn.SGD(0.5, momentum=0.9, nesterov=True), "v"),
    (xnn.RMSprop(momentum=0.5, centered=True), "v c b"),
    (xnn.AdamW(), "m v powers"),
    (xnn.Averaged(xnn.Adam(), decay=0.9), "m v powers aside taken"),
]


def trainer(net, x, y, optimizer, state=None):
    engine = net.core.engine
    samples = check_samples(
        engine.backend, x, y, ((6,), (3,)), engine.layers[-1].function, engine.cost, engine.dtype
    )
    made = Trainer(engine, samples, Recipe(optimizer, 5))
    if state is not None:
        made.updates.restore(state)
    return made


@pytest.mark.parametrize(("optimizer", "names"), STATEFUL, ids=str)
def test_training_goes_on_from_a_saved_state(optimizer, names, device):
    """Bit for bit, by another trainer of another network."""

    def train(made, epochs):
        for epoch in range(epochs):
            with made.stepping():
                for _ in made.epoch(np.arange(23), optimizer.rates(epoch, made.steps)):
                    pass

    net, x, y = start(device)
    other, _, _ = start(device, seed=4)
    once = trainer(net, x, y, optimizer)
    train(once, 2)
    other.weights, other.biases = copies(net)
    saved = once.updates.saved()
    assert saved.keys() == set(names.split())
    assert all(isinstance(array, np.ndarray) for array in saved.values())
    assert all(saved[name].any() for name in saved.keys() - {"first"})
    train(once, 2)
    train(trainer(other, x, y, optimizer, saved), 2)
    assert (parameters(net) == parameters(other)).all()


def test_a_state_of_something_else_is_refused(device):
    net, x, y = start(device)
    saved = trainer(net, x, y, xnn.Adam()).updates.saved()
    for wrong in ({}, {**saved, "v": saved["v"][:-1]}, {**saved, "v": saved["v"].astype("f")}):
        with pytest.raises(ValueError, match=r"the optimizer's state is .*, but must be "):
            trainer(net, x, y, xnn.Adam(), wrong)


# xnn's, the class and arguments of PyTorch's, and what clips there: its gradients are of some
# hundreds, compared with which the 1e-6 that it adds to their norm is negligible.
PYTORCHS = [
    (xnn.SGD(0.01), "SGD", {}, {}),
    (xnn.SGD(0.01, momentum=0.8), "SGD", {"momentum": 0.8}, {}),
    (xnn.SGD(0.01, momentum=0.8, nesterov=True), "SGD", {"momentum": 0.8, "nesterov": True}, {}),
    (xnn.SGD(0.01, lmbda=40.0), "SGD", {"weight_decay": 2.0}, {}),
    (xnn.SGD(0.01, weight_decay=2.0), "SGD", {"weight_decay": 2.0}, {}),
    (
        xnn.SGD(0.01, momentum=0.8, lmbda=40.0),
        "SGD",
        {"momentum": 0.8, "weight_decay": 2.0},
        {},
    ),
    (
        xnn.SGD(0.01, momentum=0.8, nesterov=True, lmbda=40.0),
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
    """For 100 steps, compared after each five. Biases do not decay: a group of their own."""
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
        callbacks=[lambda training: seen.append([a for c in copies(net) for a in c])],
    )
    for found, wanted in zip(seen, trace, strict=True):
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)


def averages(history, decay, warm_up=True):
    """Return the averages of the parameters after each step."""
    a = history[0]
    for t, w in enumerate(history[1:], start=1):
        d = min(decay, t / (t + 9)) if warm_up else decay
        a = [d * x + (1 - d) * y for x, y in zip(a, w, strict=True)]
    return a


@pytest.mark.parametrize(
    "optimizer",
    [xnn.SGD(0.7, lmbda=1.0), xnn.SGD(0.3, momentum=0.8), xnn.AdamW(0.01)],
    ids=["plain", "momentum", "AdamW"],
)
@pytest.mark.parametrize(("decay", "warm_up"), [(0.3, True), (0.9, True), (0.75, False)])
def test_averages_are_what_is_evaluated_and_kept(optimizer, decay, warm_up, device):
    """Against the parameters after each step of a run without, where an epoch is a step."""
    net, x, y = start(device)
    steps = []
    options = {"epochs": 7, "batch_size": len(x), "shuffle": False}
    callbacks = [lambda training: steps.append([a for c in copies(net) for a in c])]
    raw = net.fit(x, y, optimizer=optimizer, callbacks=callbacks, **options)

    net, _, _ = start(device)
    seen, evaluated = [], []

    def look(training):
        seen.append([a for c in copies(net) for a in c])
        evaluated.append(tuple(net.evaluate(x, y)))

    averaged = net.fit(
        x,
        y,
        optimizer=xnn.Averaged(optimizer, decay, warm_up),
        callbacks=[look],
        validation_data=(x, y),
        **options,
    )
    assert averaged.cost == raw.cost  # training goes on with the weights themselves
    for i, found in enumerate(seen):
        for a, b in zip(found, averages(steps[: i + 1], decay, warm_up), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12)
    recorded = zip(averaged.validation_cost, averaged.validation_accuracy, strict=True)
    assert list(recorded) == evaluated
    for a, b in zip([a for c in copies(net) for a in c], seen[-1], strict=True):
        assert (a == b).all()


def test_averages_are_taken_at_each_step(device):
    """Of 46 steps in chunks, against the same steps as epochs of one."""
    net, x, y = start(device, n=46)
    optimizer = xnn.SGD(0.3, momentum=0.5)
    net.fit(x, y, epochs=1, batch_size=1, shuffle=False, optimizer=xnn.Averaged(optimizer, 0.9))
    wanted, _, _ = start(device)
    steps = []
    made = trainer(wanted, x, y, optimizer)
    one = Trainer(wanted.core.engine, made.samples, Recipe(optimizer, 1))
    order = np.arange(46)
    one.plan = [one._chunk(one.plan[0].through, one.plan[0].work, 1)] * 46
    for _ in one.epoch(order, optimizer.rates(0, 46)):
        steps.append([a for c in copies(wanted) for a in c])
    weights = averages(steps, 0.9)
    assert_parameters(net, weights[:2], weights[2:], rtol=1e-12)


def test_averages_forget_soon_what_training_began_with(device):
    """In an epoch of 100 steps, with the usual decay: else nine tenths of them would be that."""
    x = np.random.default_rng(0).standard_normal((1000, 4)) + 3 * np.eye(4)[np.arange(1000) % 3]
    net = xnn.Network([4, xnn.Dense(16, "tanh"), xnn.Dense(3, "softmax")], seed=0, device=device)
    wanted = copy.deepcopy(net)
    for one, optimizer in ((net, xnn.Averaged(xnn.Adam(0.01))), (wanted, xnn.Adam(0.01))):
        one.fit(x, np.arange(1000) % 3, epochs=1, batch_size=10, optimizer=optimizer)
    found = net.evaluate(x, np.arange(1000) % 3)
    assert found.accuracy > wanted.evaluate(x, np.arange(1000) % 3).accuracy - 0.01
    slow = xnn.Averaged(xnn.Adam(0.01), warm_up=False)
    late = xnn.Network([4, xnn.Dense(16, "tanh"), xnn.Dense(3, "softmax")], seed=0, device=device)
    late.fit(x, np.arange(1000) % 3, epochs=1, batch_size=10, optimizer=slow)
    assert late.evaluate(x, np.arange(1000) % 3).cost > 1.5 * found.cost


def test_averages_are_pytorchs(device):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    net, x, y = start(device, n=20)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 3), torch.nn.Sigmoid()
    ).double()
    weights, biases = copies(net)
    with torch.no_grad():
        for layer, w, b in zip(model[::2], weights, biases, strict=True):
            layer.weight.copy_(torch.tensor(w))
            layer.bias.copy_(torch.tensor(b))
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.95))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    targets = torch.eye(3, dtype=torch.float64)[torch.tensor(y)]
    for step in range(100):
        rows = slice(step % 5 * 4, step % 5 * 4 + 4)
        optimizer.zero_grad()
        (((model(torch.tensor(x[rows])) - targets[rows]) ** 2).sum() / 2 / 4).backward()
        optimizer.step()
        averaged.update_parameters(model)
    optimizer = xnn.Averaged(xnn.Adam(0.01), decay=0.95, warm_up=False)
    net.fit(x, y, epochs=20, batch_size=4, shuffle=False, optimizer=optimizer)
    layers = averaged.module[::2]
    assert_parameters(
        net,
        [layer.weight.detach().numpy() for layer in layers],
        [layer.bias.detach().numpy() for layer in layers],
        rtol=1e-6,
    )


def test_schedules_give_the_figures_of_their_formulas():
    step = xnn.schedules.Step(1.0, every=2, factor=0.5)
    assert [step(e) for e in range(5)] == [1, 1, 0.5, 0.5, 0.25]
    cosine = xnn.schedules.Cosine(2.0, epochs=10, final=1.0)
    assert [cosine(e) for e in (0, 5, 10, 99)] == pytest.approx([2, 1.5, 1, 1])
    cycle = xnn.schedules.OneCycle(2.0, epochs=10, peak=0.4, initial=1.0, final=0.5)
    assert [cycle(e) for e in (0, 2, 4, 7, 10, 99)] == pytest.approx([1, 1.5, 2, 1.25, 0.5, 0.5])
    assert xnn.schedules.OneCycle(2.0, epochs=10)(0) == pytest.approx(2 / 25)
    warm = xnn.schedules.WarmUp(3.0, epochs=4)
    assert [warm(e) for e in (0, 1, 4, 8)] == pytest.approx([0, 0.75, 3, 3])
    both = xnn.schedules.WarmUp(step, epochs=1)
    assert [both(e) for e in (0.5, 1, 2)] == pytest.approx([0.5, 1, 0.5])
    function = xnn.schedules.WarmUp(lambda epoch: [3.0, 2.0, 1.0][epoch], epochs=2)
    assert [function(e) for e in (0, 0.5, 1, 1.5, 2)] == pytest.approx([0, 0.75, 1, 1.5, 1])


def test_schedules_are_pytorchs():
    """PyTorch's one cycle has its top and end at whole steps, counted from 0 to the last."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    theirs = torch.optim.lr_scheduler

    def rates(make):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=2.0)
        schedule = make(optimizer)
        for _ in range(41):
            yield schedule.get_last_lr()[0]
            optimizer.step()
            schedule.step()

    def cycle(optimizer):
        options = {"div_factor": 20, "final_div_factor": 50, "cycle_momentum": False}
        return theirs.OneCycleLR(optimizer, 2.0, total_steps=42, pct_start=13 / 42, **options)

    schedules = xnn.schedules
    for ours, make in (
        (schedules.Step(2.0, every=7, factor=0.3), lambda o: theirs.StepLR(o, 7, 0.3)),
        (schedules.Cosine(2.0, 40, final=0.1), lambda o: theirs.CosineAnnealingLR(o, 40, 0.1)),
        (schedules.WarmUp(2.0, 10), lambda o: theirs.LinearLR(o, 1e-12, total_iters=10)),
        (schedules.OneCycle(2.0, 41, 12 / 41, initial=0.1, final=0.002), cycle),
    ):
        found = [ours(epoch) for epoch in range(41)]
        np.testing.assert_allclose(found, list(rates(make)), rtol=1e-6, atol=1e-10)


PLATEAUS = [5.0, 4.0, 4.0, 3.95, 3.9, 3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 2.0, 9.0, 9.0]


def factors(callback, monitor="cost", figures=PLATEAUS):
    """Return the factor of the rates after each epoch, for the given figures."""
    history = xnn.History()
    training = SimpleNamespace(history=history, figures={monitor}, rate_factor=1.0)
    callback.begin(training)
    result = []
    for training.epoch, figure in enumerate(figures):
        getattr(history, monitor).append(figure)
        callback.epoch_end(training)
        result.append(training.rate_factor)
    return result


def test_plateaus_reduce_the_rate():
    found = factors(xnn.ReduceOnPlateau("cost", factor=0.5, patience=2))
    assert found == [1, 1, 1, 1, 1, 1, 1, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.125]
    found = factors(xnn.ReduceOnPlateau("cost", factor=0.5, patience=3, min_delta=0.2))
    assert found == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25]
    growing = [-figure for figure in PLATEAUS]
    callback = xnn.ReduceOnPlateau("accuracy", factor=0.5, patience=2)
    assert factors(callback, "accuracy", growing)[-1] == 0.125
    assert (callback.best, callback.best_epoch) == (-2.0, 11)


@pytest.mark.parametrize("min_delta", [0.0, 0.2])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_plateaus_are_pytorchs(patience, min_delta):
    """PyTorch calls patience how many epochs it does nothing: one less."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=min_delta, threshold_mode="abs"
    )
    wanted = []
    for figure in PLATEAUS:
        theirs.step(figure)
        wanted.append(theirs.get_last_lr()[0])
    ours = xnn.ReduceOnPlateau("cost", factor=0.5, patience=patience, min_delta=min_delta)
    assert factors(ours) == wanted


def test_a_plateau_changes_the_rate_of_the_next_epoch(device):
    """The same weights as with a function that gives those rates; nothing is recompiled."""
    net, x, y = start(device)
    callback, used = xnn.ReduceOnPlateau("cost", factor=0.5, patience=1, min_delta=1e9), []
    net.fit(
        x,
        y,
        epochs=4,
        optimizer=xnn.SGD(1.0),
        callbacks=[callback, lambda training: used.append(training.rate_factor)],
    )
    assert used == [1, 0.5, 0.25, 0.125]
    other, _, _ = start(device)
    other.fit(x, y, epochs=4, optimizer=xnn.SGD([1.0, 1.0, 0.5, 0.25].__getitem__))
    assert (parameters(net) == parameters(other)).all()


@pytest.mark.parametrize("decay", [0.0, 2.0])
def test_schedule_changes_the_rate_within_an_epoch_and_a_function_between(decay, device):
    net, x, y = start(device, n=20)
    weights, biases = copies(net)
    schedule = xnn.schedules.Cosine(1.0, epochs=2)
    net.fit(x, y, epochs=2, batch_size=5, shuffle=False, optimizer=xnn.SGD(schedule, lmbda=decay))
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
