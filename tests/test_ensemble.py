"""Networks that vote, and cross-validation."""

import numpy as np
import pytest

import xnn

from . import standin
from .helpers import host, parameters


def constant(*outputs, device="cpu"):
    """Return a network that answers the same, whatever it is asked."""
    dense = xnn.Dense(len(outputs), "linear", (np.zeros((len(outputs), 2)), np.array(outputs)))
    return xnn.Network([2, dense], device=device, dtype="float64")


X = np.zeros((3, 2))
PAIR = xnn.Ensemble([constant(1.0, 0.0), constant(0.0, 0.5)])


def test_outputs_are_averaged(device):
    team = xnn.Ensemble([constant(1.0, 0.0, device=device), constant(0.0, 0.5, device=device)])
    assert team.predict(X).tolist() == [[0.5, 0.25]] * 3
    assert team.classify(X).tolist() == [0, 0, 0]
    assert team.accuracy(X, [0, 0, 1]) == pytest.approx(2 / 3)
    assert team.accuracy(X, np.eye(2)[[0, 0, 1]]) == pytest.approx(2 / 3)


def test_a_majority_outvotes_a_sure_one():
    members = [constant(0.1, 0.0), constant(0.1, 0.0), constant(0.0, 9.0)]
    assert xnn.Ensemble(members).classify(X).tolist() == [1, 1, 1]
    assert xnn.Ensemble(members, vote="majority").classify(X).tolist() == [0, 0, 0]


def test_of_equals_the_larger_average_wins():
    members = [constant(0.2, 0.0, 0.0), constant(0.0, 0.0, 0.3), constant(0.0, 0.1, 0.0)]
    assert xnn.Ensemble(members, vote="majority").classify(X).tolist() == [2, 2, 2]


def test_one_output_is_a_yes_or_no():
    members = [constant(0.9), constant(0.4), constant(0.4)]
    assert xnn.Ensemble(members).classify(X).tolist() == [1, 1, 1]
    assert xnn.Ensemble(members, vote="majority").classify(X).tolist() == [0, 0, 0]


@pytest.mark.parametrize("vote", ["average", "majority"])
@pytest.mark.parametrize("outputs", [1, 3])
def test_a_device_answers_arrays_of_its_own(vote, outputs):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 5)), rng.integers(0, max(2, outputs), 40)
    here, there = (
        xnn.Ensemble([xnn.Network([5, outputs], seed=i, device=d) for i in range(3)], vote)
        for d in ("cpu", "standin")
    )
    upload = there.networks[0].core.engine.backend.upload
    for ask in ("predict", "classify"):
        found = getattr(there, ask)(upload(x))
        assert isinstance(found, standin.Array)
        np.testing.assert_array_equal(found.get(), getattr(here, ask)(x))
    assert there.accuracy(upload(x), upload(y)) == here.accuracy(x, y)


@pytest.mark.parametrize("vote", ["average", "majority"])
def test_one_network_is_as_accurate_alone(vote, device):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((40, 12)), rng.integers(0, 12, 40)
    images = [(2, 2, 3), xnn.layers.Activation("sigmoid")]
    for layers, targets in (([12, 12], np.eye(12)[y]), ([12, 1], y % 2), (images, y)):
        net = xnn.Network(layers, seed=0, device=device)
        team = xnn.Ensemble([net], vote)
        assert team.accuracy(x, targets) == pytest.approx(net.evaluate(x, targets).accuracy)
        np.testing.assert_array_equal(team.classify(x), net.classify(x))


def test_any_single_output_may_be_a_yes_or_no():
    assert xnn.Ensemble([constant(0.9)]).accuracy(X, [1, 0, 1]) == pytest.approx(2 / 3)


def test_folds_are_those_of_a_partition():
    seen = []
    for train, held_out in xnn.folds(11, 3, seed=0):
        assert sorted([*train, *held_out]) == list(range(11))
        assert len(held_out) in (3, 4)
        seen += held_out.tolist()
    assert sorted(seen) == list(range(11))


def test_cross_validation_tells_on_what_was_held_out(device):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 90)
    x = rng.standard_normal((90, 4)) + 3 * np.eye(4)[y]
    made = []

    def make():
        made.append(xnn.Network([4, 3], seed=len(made), device=device))
        return made[-1]

    results = xnn.cross_validate(make, x, y, k=3, seed=5, epochs=4, optimizer=1.0)
    for number, (train, held_out) in enumerate(xnn.folds(90, 3, seed=5)):
        net, evaluation = results[number]
        assert evaluation == net.evaluate(x[held_out], y[held_out])
        wanted = xnn.Network([4, 3], seed=number, device=device)
        wanted.fit(x[train], y[train], epochs=4, optimizer=1.0)
        assert (parameters(net) == parameters(wanted)).all()
    team = xnn.Ensemble([net for net, _ in results])
    assert team.accuracy(x, y) > 0.8
    np.testing.assert_allclose(
        team.predict(x), np.mean([host(net.predict(x)) for net, _ in results], axis=0), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: xnn.Ensemble([]), "networks must be at least one network"),
        (lambda: xnn.Ensemble([1]), "networks must be at least one network"),
        (lambda: xnn.Ensemble([constant(1.0), constant(1.0, 2.0)]), "outputs of shapes"),
        (lambda: xnn.Ensemble([constant(1.0)], vote="veto"), "vote is 'veto'"),
        (lambda: xnn.folds(3, 5), "k is 5, but there are 3 samples"),
        (lambda: xnn.folds(3, 1), "k is 1"),
        (lambda: xnn.folds(3.5, 2), "n is 3.5, but must be a whole number"),
        (lambda: xnn.folds(3, 2, seed=-1), "seed is -1, but must be a whole number"),
        (lambda: PAIR.accuracy(X, [1]), "y has 1 row, but x has 3: give one target per sample"),
        (lambda: PAIR.accuracy(X, [0, 1, 2]), "y has labels up to 2, but the network has 2"),
        (lambda: PAIR.accuracy(X, [0.0, 1.0, 1.0]), "give labels as integers from 0 to 1"),
        (lambda: PAIR.accuracy(X, np.eye(3)), "y has shape (3, 3), but the network has 2 outputs"),
        (lambda: PAIR.accuracy(X, np.full((3, 2), 0.5)), "y has numbers that are not classes"),
        (lambda: xnn.Ensemble([constant(1.0)]).accuracy(X, [0, 1, 2]), "are not classes"),
    ],
)
def test_wrong_calls(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)


def test_each_fold_has_the_weights_of_its_samples(device):
    rng = np.random.default_rng(0)
    x, y, weights = rng.random((30, 4)), rng.integers(0, 2, 30), rng.random(30)

    def make():
        return xnn.Network([4, 2], seed=0, device=device)

    options = {"epochs": 2, "optimizer": 1.0}
    found = xnn.cross_validate(make, x, y, k=3, seed=0, sample_weight=weights, **options)
    for (train, _), (net, _) in zip(xnn.folds(30, 3, seed=0), found, strict=True):
        wanted = make()
        wanted.fit(x[train], y[train], sample_weight=weights[train], **options)
        np.testing.assert_array_equal(parameters(net), parameters(wanted))
    with pytest.raises(ValueError, match=r"sample_weight has shape \(20,\), but must have"):
        xnn.cross_validate(make, x, y, sample_weight=weights[:20])


@pytest.mark.parametrize("how", ["write", "resume"])
def test_checkpoints_are_not_for_several_trainings(how, tmp_path):
    x, y = np.random.default_rng(0).random((20, 4)), np.arange(20) % 2
    options = {"callbacks": [xnn.Checkpoints(tmp_path)]} if how == "write" else {"resume": tmp_path}
    with pytest.raises(ValueError, match="checkpoints belong to a single training"):
        xnn.cross_validate(lambda: xnn.Network([4, 2]), x, y, **options)


def test_an_interrupted_fold_ends_cross_validation():
    """A network whose training was interrupted is not comparable with the others."""

    def interrupt(training):
        raise KeyboardInterrupt

    x, y = np.random.default_rng(0).random((20, 4)), np.arange(20) % 2
    with pytest.raises(KeyboardInterrupt):
        xnn.cross_validate(lambda: xnn.Network([4, 2]), x, y, callbacks=[interrupt], epochs=3)
