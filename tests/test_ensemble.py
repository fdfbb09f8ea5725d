"""Networks that vote, and cross-validation."""

import numpy as np
import pytest

import xnn

from .helpers import host, parameters


def constant(*outputs, device="cpu"):
    """Return a network that answers the same, whatever it is asked."""
    dense = xnn.Dense(len(outputs), "linear", (np.zeros((len(outputs), 2)), np.array(outputs)))
    return xnn.Network([2, dense], device=device, dtype="float64")


X = np.zeros((3, 2))


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
        (lambda: list(xnn.folds(3, 5)), "k is 5, but there are 3 samples"),
        (lambda: list(xnn.folds(3, 1)), "k is 1"),
    ],
)
def test_wrong_calls(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert message in str(caught.value)
