"""Single steps on mini-batches that come one at a time, compared with `fit` on all of them."""

import warnings
from itertools import pairwise

import numpy as np
import pytest

import xnn

from .helpers import host, parameters
from .standin import FragileBackend

OPTIMIZERS = [
    xnn.SGD(0.5),
    xnn.SGD(0.1, weight_decay=0.01),
    xnn.SGD(0.1, momentum=0.9, weight_decay=0.01),
    xnn.SGD(0.1, momentum=0.9, nesterov=True, clip_norm=0.1),
    xnn.RMSprop(0.01, momentum=0.5),
    xnn.Adam(0.01),
    xnn.AdamW(0.01, clip_value=0.1),
]
DENSE = [12, 8, xnn.Dense(3, "softmax")]
IMAGES = [
    (4, 3, 1),
    xnn.Conv2D(4, 3, "relu", padding="same"),
    xnn.BatchNorm(),
    xnn.MaxPool2D(2),
    xnn.Flatten(),
    xnn.Dense(3, "softmax"),
]


def network(layers=DENSE, **options):
    return xnn.Network(layers, **{"seed": 0, "dtype": "float64", **options})


def samples(n=24):
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 12)), rng.integers(0, 3, n)


def batches(arrays, size=5):
    """The mini-batches of `fit`; of 24 samples, the last is one of 4."""
    for start in range(0, len(arrays[0]), size):
        yield [array[start : start + size] for array in arrays]


def seen_until_failure(net, step, x, y, seen=None):
    """Step until an error is raised; collect the parameters after each step."""
    while True:
        step(x, y)
        if seen is not None:
            seen.append(parameters(net))


@pytest.mark.parametrize("layers", [DENSE, IMAGES], ids=["dense", "images"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=repr)
def test_steps_are_those_of_fit(optimizer, layers, device):
    x, y = samples()
    one, other = network(layers, device=device), network(layers, device=device)
    history = one.fit(x, y, epochs=3, batch_size=5, optimizer=optimizer, shuffle=False)
    step, costs = other.stepper(optimizer), []
    for _ in range(3):
        found = [(len(b[1]), step(*b)) for b in batches((x, y))]
        costs.append(sum(n * each.cost for n, each in found) / len(x))
        hits = sum(n * each.accuracy for n, each in found) / len(x)
    assert step.steps == 15
    np.testing.assert_allclose(costs, history.cost, rtol=1e-10)
    assert hits == pytest.approx(history.accuracy[-1])
    np.testing.assert_allclose(parameters(other), parameters(one), rtol=1e-9, atol=1e-12)


def test_averages_are_what_the_network_has_between_steps(device):
    """W after steps 1, 2 and 3 has shares of 1 - d: d is 0, 1/10 and 2/11."""
    x, y = samples()
    plain, averaged = network(device=device), network(device=device)
    steps = plain.stepper(xnn.SGD(0.5)), averaged.stepper(xnn.Averaged(xnn.SGD(0.5)))
    wanted = None
    for number, batch in zip(range(1, 4), batches((x, y)), strict=False):
        for step in steps:
            step(*batch)
        d = (number - 1) / (number + 8)
        now = parameters(plain)
        wanted = now if wanted is None else d * wanted + (1 - d) * now
        np.testing.assert_allclose(parameters(averaged), wanted, rtol=1e-10)


def test_an_average_begins_with_the_weights_at_the_first_step(device):
    x, y = samples()
    one, other = network(device=device), network(device=device, seed=1)
    steps = [net.stepper(xnn.Averaged(0.1)) for net in (one, other)]
    other.load_state_dict(one.state_dict())
    for step in steps:
        step(x, y)
    np.testing.assert_array_equal(parameters(one), parameters(other))


def test_figures_of_weighted_samples_are_those_of_a_history(device):
    x, y = samples()
    weights = np.random.default_rng(1).random(24)
    one, other = network(device=device), network(device=device)
    history = one.fit(x, y, epochs=1, batch_size=24, sample_weight=weights, optimizer=0.1)
    cost, accuracy = other.stepper(0.1)(x, y, weights)
    assert cost == pytest.approx(history.cost[0], rel=1e-10)
    assert accuracy == history.accuracy[0]


def test_weights_and_smoothing_are_those_of_fit(device):
    x, y = samples()
    weights = np.random.default_rng(1).random(24)
    one, other = network(device=device), network(device=device)
    one.fit(
        *(x, y),
        epochs=1,
        batch_size=5,
        optimizer=0.5,
        sample_weight=weights,
        label_smoothing=0.2,
        shuffle=False,
    )
    step = other.stepper(0.5, label_smoothing=0.2)
    for batch in batches((x, y, weights)):
        step(*batch)
    np.testing.assert_allclose(parameters(other), parameters(one), rtol=1e-10)


def test_regression_has_no_accuracy(device):
    net = network([12, 4, xnn.Dense(1, "linear")], cost="mean_squared_error", device=device)
    x, _ = samples()
    cost, accuracy = net.stepper(0.1)(x, x[:, 0])
    assert accuracy is None
    before = xnn.Network([12, 4, xnn.Dense(1, "linear")], "mean_squared_error", seed=0)
    assert cost == pytest.approx(before.evaluate(x, x[:, 0]).cost, rel=1e-5)


def test_schedules_count_steps(device):
    """A rate of 0 changes nothing: the third step is after the end of the cosine."""
    x, y = samples()
    net = network(device=device)
    step = net.stepper(xnn.SGD(xnn.schedules.Cosine(0.5, epochs=2)))
    seen = [parameters(net)]
    for _ in range(4):
        step(x, y)
        seen.append(parameters(net))
    changed = [not np.array_equal(a, b) for a, b in pairwise(seen)]
    assert changed == [True, True, False, False]


def test_steps_go_on_when_they_are_compiled_again(device, monkeypatch):
    monkeypatch.setattr("xnn.stepper._MANY", 3)
    monkeypatch.setattr("xnn.stepper._KINDS", 2)
    x, y = samples()
    one, other = network(device=device), network(device=device)
    step = other.stepper(xnn.Adam(0.01))
    for _ in range(5):
        for size in (5, 6, 7):  # more sizes than are kept
            step(x[:size], y[:size])
    again = one.stepper(xnn.Adam(0.01))
    monkeypatch.setattr("xnn.stepper._MANY", 10**9)
    for _ in range(5):
        for size in (5, 6, 7):
            again(x[:size], y[:size])
    assert len(step._trainers) == 2
    np.testing.assert_allclose(parameters(other), parameters(one), rtol=1e-9)


def test_dropout_is_new_at_each_step_and_the_same_from_a_seed(device):
    layers = [12, xnn.Dropout(0.5), xnn.Dense(3, "softmax")]
    x, y = samples()

    def costs():
        step = network(layers, device=device).stepper(1e-9)
        return [step(x, y).cost for _ in range(5)]

    assert costs() == costs()
    assert len(set(costs())) == 5


def test_steps_go_on_after_a_move_and_after_other_weights():
    x, y = samples()
    one, other = network(device="cpu"), network(device="cpu")
    steps = one.stepper(xnn.Adam(0.01)), other.stepper(xnn.Adam(0.01))
    for number in range(6):
        for step in steps:
            step(x, y)
        if number == 2:
            one.to("standin")
        if number == 4:
            for net in (one, other):
                net.weights[0][...] = 0.25
    assert one.device == "standin"
    np.testing.assert_allclose(parameters(one), parameters(other), rtol=1e-9)
    assert steps[0].steps == 6


def test_the_users_arrays_may_change_after_the_call(device):
    x, y = samples()
    one, other = network(device=device), network(device=device)
    steps = one.stepper(0.5), other.stepper(0.5)
    room = x.copy()
    for k in range(3):
        room[...] = x * k
        steps[0](room, y)
        room[...] = np.nan
        steps[1](x * k, y)
    np.testing.assert_array_equal(parameters(one), parameters(other))


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (
            lambda net: net.stepper(xnn.SGD(0.1, lmbda=5.0)),
            "lmbda is 5.0, but λ/n needs the number",
        ),
        (
            lambda net: net.stepper(xnn.Averaged(xnn.SGD(0.1, lmbda=5.0))),
            "is unknown here: give λ/n as weight_decay",
        ),
        (lambda net: net.stepper("adam"), "optimizer is 'adam', but must be one such as"),
        (lambda net: net.stepper(label_smoothing=1.0), "label_smoothing is 1.0, but"),
        (lambda net: net.stepper()(np.zeros((2, 11)), [0, 1]), "x has shape (2, 11), 11 numbers"),
        (lambda net: net.stepper()(np.zeros((2, 12)), [0, 3]), "y has labels up to 3"),
        (lambda net: net.stepper()(np.full((2, 12), np.nan), [0, 1]), "x has NaN or infinity"),
        (lambda net: net.stepper()(np.zeros((0, 12)), []), "x is empty"),
        (
            lambda net: net.stepper()(np.zeros((2, 12)), [0, 1], sample_weight=[1]),
            "sample_weight has shape (1,), but must have shape (2,)",
        ),
        (
            lambda net: net.stepper(1e300)(np.zeros((2, 12)), [0, 1]),
            "learning_rate is too large for float32",
        ),
    ],
)
def test_wrong_calls(ask, words, device):
    net = network(dtype="float32", device=device)
    before = parameters(net)
    with pytest.raises(ValueError) as caught:
        ask(net)
    assert words in str(caught.value)
    np.testing.assert_array_equal(parameters(net), before)


def test_one_sample_is_too_few_to_normalise(device):
    step = network([12, xnn.BatchNorm(), 3], device=device).stepper()
    with pytest.raises(ValueError, match="BatchNorm needs more than 1 value per channel"):
        step(np.zeros((1, 12)), [0])


def test_smoothing_needs_classes(device):
    net = network([12, xnn.Dense(1, "linear")], cost="mean_squared_error", device=device)
    with pytest.raises(ValueError, match="label_smoothing is given, but the targets are not class"):
        net.stepper(label_smoothing=0.1)(np.zeros((2, 12)), [0.5, 1.5])


def test_divergence_is_said(device):
    net = network([12, xnn.Dense(1, "linear")], cost="mean_squared_error", device=device)
    x, _ = samples()
    step = net.stepper(1e200)
    with pytest.raises(FloatingPointError, match=r"the cost of step \d is NaN or infinite"):
        seen_until_failure(net, step, x, x[:, 0])


def test_pixels_out_of_scale_are_warned_of_once(device):
    x = np.zeros((2, 12))
    x[0, 0] = 255
    step = network(device=device).stepper(1e-9)
    with pytest.warns(UserWarning, match="x has pixels from 0 to 255"):
        step(x, [0, 1])
    with warnings.catch_warnings(action="error"):
        step(x, [0, 1])


@pytest.fixture
def fragile(monkeypatch):
    """Return a function that makes a network on a device which fails after so many steps.

    Everything is copied before each of them.
    """
    monkeypatch.setattr("xnn.stepper._KEEP", 0.0)
    monkeypatch.setitem(xnn.backends.KINDS, "fragile", FragileBackend)

    def made(good):
        FragileBackend.left = good
        return network(device="fragile")

    return made


def test_a_device_that_fails_leaves_weights_on_the_cpu(fragile):
    net, (x, y) = fragile(3), samples()
    step, seen = net.stepper(xnn.Adam(0.01)), []
    said = "fragile failed; the network is now on the CPU, with the weights from after step 3"
    with pytest.raises(xnn.DeviceError, match=said):
        seen_until_failure(net, step, x, y, seen)
    assert net.device == "cpu"
    np.testing.assert_array_equal(host(net.weights[0]).ravel(), seen[-1][: 12 * 8])
    twin = network(device="cpu")
    other = twin.stepper(xnn.Adam(0.01))
    for _ in range(4):
        other(x, y)
    step(x, y)  # the fourth, there
    assert step.steps == 4
    np.testing.assert_allclose(parameters(net), parameters(twin), rtol=1e-9)


def test_another_stepper_goes_on_where_the_network_is_now(fragile):
    """Its optimizer is as it was when that was last copied, and the weights are not touched."""
    net, (x, y) = fragile(4), samples()
    first, second = net.stepper(xnn.Adam(0.01)), net.stepper(xnn.Adam(0.0001))
    second(x, y)
    with pytest.raises(xnn.DeviceError, match="now on the CPU"):
        seen_until_failure(net, first, x, y)
    for _ in range(5):
        first(x, y)
    before = parameters(net)
    second(x, y)
    assert net.device == "cpu"
    np.testing.assert_allclose(parameters(net), before, atol=1e-3)
    assert not np.array_equal(parameters(net), before)
