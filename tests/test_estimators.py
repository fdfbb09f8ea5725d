"""Estimators compared with those of scikit-learn, and used with its tools."""

import ast
import importlib
import pickle
import re
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

import xnn
from xnn.backends import select

from . import standin

pytest.importorskip("sklearn", reason="scikit-learn is not installed")

import joblib
import scipy.sparse
import sklearn
from sklearn import neural_network
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits, make_multilabel_classification, make_regression
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.inspection import permutation_importance
from sklearn.linear_model import PoissonRegressor
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from xnn.estimators import MLPClassifier, MLPRegressor, from_sklearn
from xnn.steps import Trainer

from .helpers import host

# Most of these trainings are short.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

DIGITS = load_digits(return_X_y=True)
X, Y = DIGITS[0][:400] / 16, DIGITS[1][:400]
REGRESSION = make_regression(300, 8, n_targets=2, noise=1.0, random_state=0)
MULTILABEL = make_multilabel_classification(200, n_classes=4, random_state=0)
WEIGHTS = np.random.default_rng(0).random(400) * 3


def pair(name, **parameters):
    """Return scikit-learn's estimator and xnn's."""
    ours = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}[name]
    return getattr(neural_network, name)(**parameters), ours(**parameters)


def data(kind):
    x, y = {"regression": REGRESSION, "multilabel": MULTILABEL}.get(kind, (X, Y))
    match kind:
        case "binary":
            y = np.where(y % 2 == 0, "even", "odd")
        case "words":
            y = np.array([f"digit {label}" for label in y], object)
        case "regression":
            y = y / 100
        case "poisson":
            y = y.astype(float)
    return x, y


def assert_same(theirs, ours, x, tolerance=1e-6):
    for name in ("coefs_", "intercepts_"):
        for a, b in zip(getattr(theirs, name), getattr(ours, name), strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    np.testing.assert_array_equal(theirs.predict(x).shape, ours.predict(x).shape)
    if hasattr(theirs, "predict_proba"):
        np.testing.assert_array_equal(theirs.predict(x), ours.predict(x))
        np.testing.assert_allclose(theirs.predict_proba(x), ours.predict_proba(x), atol=tolerance)
        with np.errstate(divide="ignore"):
            logs = theirs.predict_log_proba(x), ours.predict_log_proba(x)
        # Of a probability near 1 the logarithm has that one's rounding, however small it is.
        near = 4 * np.finfo(logs[0].dtype).eps
        np.testing.assert_allclose(*logs, rtol=1e-5, atol=near)
        np.testing.assert_array_equal(theirs.classes_, ours.classes_)
    else:
        np.testing.assert_allclose(theirs.predict(x), ours.predict(x), rtol=1e-5, atol=tolerance)


SETTINGS = {
    "adam": {},
    "adam, early stopping": {"early_stopping": True, "activation": "logistic", "alpha": 0.1},
    "adam, two layers in order": {
        "hidden_layer_sizes": (20, 10),
        "activation": "identity",
        "shuffle": False,
        "epsilon": 1e-3,
        "alpha": 0.0,
    },
    "sgd": {"solver": "sgd", "learning_rate_init": 0.1},
    "sgd, adaptive": {
        "solver": "sgd",
        "learning_rate": "adaptive",
        "momentum": 0.5,
        "nesterovs_momentum": False,
        "learning_rate_init": 0.05,
        "batch_size": 64,
        "tol": 0.1,
        "n_iter_no_change": 2,
    },
    "sgd, invscaling": {
        "solver": "sgd",
        "learning_rate": "invscaling",
        "learning_rate_init": 0.5,
        "activation": "tanh",
        "momentum": 0,
        "alpha": 0.5,
    },
    "lbfgs": {"solver": "lbfgs", "alpha": 0.1},
}
KINDS = {
    "classes": ("MLPClassifier", {}),
    "binary": ("MLPClassifier", {}),
    "words": ("MLPClassifier", {}),
    "multilabel": ("MLPClassifier", {}),
    "regression": ("MLPRegressor", {}),
    "poisson": ("MLPRegressor", {"loss": "poisson"}),
}


@pytest.mark.parametrize("kind", ["classes", "multilabel", "regression"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_training_is_that_of_scikit_learn(kind, settings):
    """Weights, shuffles, steps and rules: twenty epochs give the same results."""
    name, more = KINDS[kind]
    x, y = data(kind)
    theirs, ours = pair(name, random_state=3, max_iter=20, **SETTINGS[settings], **more)
    theirs.fit(x, y)
    ours.fit(x, y)
    assert theirs.n_iter_ == ours.n_iter_
    assert theirs.t_ == ours.t_
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    if theirs.solver != "lbfgs":
        assert len(theirs.loss_curve_) > 4
        np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-6)
        assert (theirs.best_loss_ is None) == (ours.best_loss_ is None)
        assert theirs._no_improvement_count == ours._no_improvement_count
        if theirs.solver == "sgd":
            assert theirs._optimizer.learning_rate == ours._optimizer.learning_rate
        if theirs.early_stopping:
            np.testing.assert_allclose(ours.validation_scores_, theirs.validation_scores_)
            assert ours.best_validation_score_ == pytest.approx(theirs.best_validation_score_)
    assert_same(theirs, ours, x)


@pytest.mark.parametrize("iterations", [1, 5, 10, 20])
def test_lbfgs_goes_the_same_way(iterations):
    theirs, ours = pair("MLPClassifier", solver="lbfgs", random_state=0, max_iter=iterations)
    theirs.fit(X, Y)
    ours.fit(X, Y)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    assert ours.n_iter_ == theirs.n_iter_ == iterations


@pytest.mark.parametrize("solver", ["adam", "sgd", "lbfgs"])
@pytest.mark.parametrize("kind", ["binary", "words", "poisson"])
def test_kinds_of_targets(kind, solver):
    name, more = KINDS[kind]
    x, y = data(kind)
    theirs, ours = pair(name, random_state=0, max_iter=10, solver=solver, **more)
    assert_same(theirs.fit(x, y), ours.fit(x, y), x)
    assert ours.out_activation_ == theirs.out_activation_


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_counts_are_not_negative(solver):
    """scikit-learn's perceptron continues to a loss of NaN, its other regressors reject them."""
    y = np.arange(len(X)) - 1.0
    with pytest.raises(ValueError):
        PoissonRegressor().fit(X, y)
    model = MLPRegressor("poisson", solver=solver, max_iter=2)
    with pytest.raises(ValueError, match=r"y has values from -1 to .*poisson needs at least 0"):
        model.fit(X, y)
    assert not hasattr(model, "coefs_")


@pytest.mark.parametrize(
    "settings",
    [{}, {"early_stopping": True}, {"solver": "sgd", "alpha": 1.0}, {"solver": "lbfgs"}],
    ids=["adam", "early stopping", "sgd", "lbfgs"],
)
def test_sample_weights_are_those_of_scikit_learn(settings):
    """Means of mini-batches are weighted, and the penalty is divided by the sum of weights."""
    options = {"random_state": 3, "max_iter": 10, "alpha": 0.5, "batch_size": 150, **settings}
    theirs, ours = pair("MLPClassifier", **options)
    theirs.fit(X, Y, sample_weight=WEIGHTS)
    ours.fit(X, Y, sample_weight=WEIGHTS)
    assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    assert_same(theirs, ours, X)


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fits_of_a_kind_are_compiled_once(solver, monkeypatch):
    """They are scikit-learn's, also after others, after a copy, and with assigned weights."""
    made, trainers = [], Trainer.__init__

    def noted(self, *arguments, **options):
        made.append(options.get("again", False))
        trainers(self, *arguments, **options)

    monkeypatch.setattr(Trainer, "__init__", noted)
    theirs, ours = pair("MLPClassifier", solver=solver, random_state=0, batch_size=8)
    for number, size in enumerate([20, 20, 20, 20, 30, 20, 20, 20]):
        part = slice(30 * number, 30 * number + size)
        for model in (theirs, ours):
            model.partial_fit(X[part], Y[part], classes=range(10))
        if number == 2:
            ours = pickle.loads(pickle.dumps(ours))
        if number == 6:
            theirs.coefs_[0] *= 0.5
            ours.coefs_ = [0.5 * host(ours.coefs_[0]), *map(host, ours.coefs_[1:])]
        assert ours.loss_ == pytest.approx(theirs.loss_, rel=1e-6)
    assert_same(theirs, ours, X)
    # A copy starts again; the second call of each size compiles for those that follow.
    assert made == [False, True, False, False, False, True]


def test_partial_fit_goes_on_where_the_optimizers_state_was_lost(monkeypatch):
    """With its device; the network has been brought to the CPU by then."""
    model = MLPClassifier(random_state=0).partial_fit(X, Y, classes=range(10))

    def lost():
        raise xnn.DeviceError("lost")

    monkeypatch.setattr(model._optimizer._updates, "saved", lost)
    before = model.loss_
    model.partial_fit(X[:100], Y[:100])
    assert len(model.loss_curve_) == 2
    assert model.loss_ < before


def test_mini_batches_without_weight_change_nothing():
    """Where scikit-learn divides by zero; it is as if they were not there, nor their penalty."""
    options = {"solver": "sgd", "momentum": 0, "alpha": 2.0, "shuffle": False, "batch_size": 10}
    options |= {"random_state": 0, "max_iter": 3}
    x, y, weights = X[:60], Y[:60] % 3, np.repeat([0, 1, 2, 0, 1, 1], 10)
    theirs, ours = pair("MLPClassifier", **options)
    with pytest.raises(ZeroDivisionError):
        theirs.fit(x, y, sample_weight=weights)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ours.fit(x, y, sample_weight=weights)
        theirs.fit(x[weights > 0], y[weights > 0], sample_weight=weights[weights > 0])
    assert_same(theirs, ours, x)


def test_class_weights_are_weights_of_samples():
    each = {label: 1.0 + label for label in range(10)}
    one = MLPClassifier(random_state=0, max_iter=5, class_weight=each).fit(X, Y)
    other = MLPClassifier(random_state=0, max_iter=5).fit(X, Y, sample_weight=1.0 + Y)
    assert one.loss_curve_ == other.loss_curve_
    balanced = MLPClassifier(class_weight="balanced")
    with pytest.raises(
        ValueError, match="class_weight is 'balanced', which partial_fit cannot compute"
    ):
        balanced.partial_fit(X, Y, classes=range(10))


@pytest.mark.parametrize("solver", ["adam", "sgd"])
def test_partial_fit_and_warm_start_go_on(solver):
    """The optimizer's state is kept from call to call, and reset by a warm start."""
    options = {"random_state": 1, "solver": solver, "learning_rate": "invscaling"}
    theirs, ours = pair("MLPClassifier", **options)
    for model in (theirs, ours):
        for part in range(0, 400, 100):
            model.partial_fit(X[part : part + 100], Y[part : part + 100], classes=range(10))
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-6)
    assert ours.t_ == theirs.t_ == 400
    theirs, ours = pair("MLPClassifier", max_iter=3, warm_start=True, **options)
    for model in (theirs, ours):
        model.fit(X, Y).fit(X, Y)
        model.partial_fit(X, Y)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, rtol=1e-6)
    assert_same(theirs, ours, X)


def test_training_is_printed_as_scikit_learn_prints_it(capsys):
    options = {"early_stopping": True, "tol": 0.1, "n_iter_no_change": 2, "random_state": 0}
    said = []
    for model in pair("MLPClassifier", verbose=True, **options):
        model.fit(X, Y)
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert "consecutive epochs. Stopping." in said[0]


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_sparse_inputs_are_written_out_by_mini_batch(solver, monkeypatch):
    rows = []
    written = scipy.sparse.csr_array.toarray
    wide = np.tile(X, (1, 40))
    sparse = scipy.sparse.csr_array(wide)

    def counted(self, *args, **kwargs):
        rows.append(self.shape[0])
        return written(self, *args, **kwargs)

    options = {"random_state": 0, "max_iter": 4, "solver": solver, "batch_size": 50}
    dense = MLPClassifier(**options).fit(wide, Y)
    monkeypatch.setattr(scipy.sparse.csr_array, "toarray", counted)
    room = 4 * 2**20  # a few mini-batches
    monkeypatch.setattr(type(select()), "chunk_bytes", lambda *_: room)
    ours = MLPClassifier(**options).fit(sparse, Y)
    if solver == "adam":
        assert max(rows) == room // (50 * wide[0].nbytes) * 50 < len(X)
        np.testing.assert_allclose(ours.loss_curve_, dense.loss_curve_, rtol=1e-12)
    monkeypatch.setattr(type(select()), "block_bytes", lambda *_: room)
    rows.clear()
    np.testing.assert_allclose(ours.predict_proba(sparse), dense.predict_proba(wide), rtol=1e-9)
    assert max(rows) * wide[0].nbytes <= room < wide.nbytes
    early = MLPClassifier(early_stopping=True, max_iter=3, random_state=0)
    found = early.fit(sparse.tocsc(), Y).validation_scores_
    assert found == clone(early).fit(wide, Y).validation_scores_


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_dtypes_are_those_of_the_inputs(dtype):
    pixels = (X * 16).astype(dtype)
    theirs, ours = pair("MLPClassifier", random_state=0, max_iter=3)
    theirs.fit(pixels, Y)
    ours.fit(pixels, Y)
    tolerance = 1e-4 if dtype == np.float32 else 1e-6
    assert_same(theirs, ours, pixels, tolerance)
    assert ours.predict_proba(pixels).dtype == theirs.predict_proba(pixels).dtype
    one = MLPClassifier(dtype="float32", max_iter=1).fit(pixels, Y)
    assert one.coefs_[0].dtype == np.float32


def test_frames(request):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    names = [f"pixel {i}" for i in range(64)]
    wanted = MLPClassifier(random_state=0, max_iter=2).fit(X, Y)
    for kind in (pandas.DataFrame(X, columns=names), polars.DataFrame(X, schema=names)):
        ours = MLPClassifier(random_state=0, max_iter=2).fit(kind, Y)
        assert list(ours.feature_names_in_) == names
        np.testing.assert_array_equal(ours.predict(kind), wanted.predict(X))
        with pytest.warns(UserWarning, match="does not have valid feature names"):
            ours.predict(X[:1])


def test_single_rows_are_checked_like_all():
    """The fast path for one row rejects what the other rejects, and gives the same results."""
    ours = MLPClassifier(random_state=0, max_iter=2).fit(X, Y)
    all_at_once = ours.predict_proba(X[:20])
    for i in range(20):
        np.testing.assert_allclose(ours.predict_proba(X[i : i + 1])[0], all_at_once[i], rtol=1e-9)
    for bad, message in (
        (np.full((1, 64), np.nan), "Input X contains NaN"),
        (np.full((3, 64), np.inf), "Input X contains infinity"),
        (np.zeros((1, 63)), "X has 63 features, but MLPClassifier is expecting 64"),
        (np.zeros(64), "Expected 2D array, got 1D array"),
        (np.zeros((0, 64)), "Found array with 0 sample"),
    ):
        with pytest.raises(ValueError, match=message):
            ours.predict(bad)
    with pytest.raises(NotFittedError):
        MLPClassifier().predict(X)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1}, "The 'alpha' parameter of MLPClassifier must be a float in the range"),
        ({"solver": "newton"}, "The 'solver' parameter of MLPClassifier must be a str among"),
        ({"dropout": 1.0}, "The 'dropout' parameter of MLPClassifier must be a float in"),
        ({"dtype": "float16"}, "The 'dtype' parameter of MLPClassifier must be a str among"),
        ({"hidden_layer_sizes": (5, 0)}, r"hidden_layer_sizes must be > 0, got \[5, 0\]"),
        ({"layers": [10]}, r"layers is \[10\], but must be a list of xnn's layers"),
        ({"layers": [xnn.Dense(5)], "dropout": 0.5}, "dropout is for hidden_layer_sizes"),
        ({"solver": "lbfgs", "dropout": 0.5}, "solver is 'lbfgs', which supports neither dropout"),
        ({"device": "tpu"}, "device is 'tpu', but must be"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLPClassifier(**arguments).fit(X, Y)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
def test_scikit_learns_checks(kind):
    original = getattr(neural_network, kind.__name__)

    def checks(estimator):
        found = check_estimator(estimator, on_fail=None, on_skip=None)
        return {(check["check_name"], check["status"]) for check in found}

    ours, theirs = checks(kind(max_iter=100)), checks(original(max_iter=100))
    assert len(theirs) > 40
    assert {check for check in ours if check[1] != "passed"} <= theirs
    assert {name for name, _ in theirs} <= {name for name, _ in ours}


def test_weights_that_are_set_are_used():
    ours = MLPClassifier(hidden_layer_sizes=5, random_state=0, max_iter=2).fit(X, Y)
    theirs = ours.to_sklearn()
    for model in (ours, theirs):
        model.coefs_[1] = model.coefs_[1] * 2.0
        model.intercepts_ = [np.full_like(biases, 0.25) for biases in model.intercepts_]
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-9)
    assert (ours.network_.biases[0] == 0.25).all() if ours.network_.device == "cpu" else True


@pytest.mark.parametrize("kind", KINDS)
def test_conversion_both_ways(kind):
    name, more = KINDS[kind]
    x, y = data(kind)
    theirs, ours = pair(name, random_state=0, max_iter=5, hidden_layer_sizes=(9, 7), **more)
    theirs.fit(x, y)
    there = from_sklearn(theirs)
    back = there.to_sklearn()
    assert type(back) is type(theirs)
    assert back.get_params() == theirs.get_params()
    for one, other in ((theirs, there), (theirs, back), (ours.fit(x, y).to_sklearn(), ours)):
        assert_same(one, other, x)
        assert one.score(x, y) == pytest.approx(other.score(x, y), rel=1e-6)
    there.partial_fit(x, y)
    assert len(there.loss_curve_) == 6


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_converted_goes_its_own_way(kind):
    name, more = KINDS[kind]
    x, y = data(kind)
    theirs, ours = (e.fit(x, y) for e in pair(name, random_state=0, max_iter=3, **more))
    for fitted, other in ((theirs, from_sklearn(theirs)), (ours, ours.to_sklearn())):
        found = fitted.predict(x)
        other.partial_fit(x, y)
        assert (len(fitted.loss_curve_), len(other.loss_curve_)) == (3, 4)
        np.testing.assert_array_equal(fitted.predict(x), found)


def test_what_cannot_be_converted():
    with pytest.raises(TypeError, match="must be scikit-learn's MLPClassifier or MLPRegressor"):
        from_sklearn(StandardScaler())
    with pytest.raises(NotFittedError):
        from_sklearn(neural_network.MLPClassifier())
    ours = MLPClassifier(layers=[xnn.Dense(5, "tanh")], max_iter=1).fit(X, Y)
    with pytest.raises(ValueError, match="layers are given, which scikit-learn does not have"):
        ours.to_sklearn()


def test_layers_dropout_and_callbacks():
    seen = []
    layers = [
        xnn.Reshape((8, 8, 1)),
        xnn.Conv2D(4, 3, "relu"),
        xnn.MaxPool2D(2),
        xnn.Flatten(),
    ]
    ours = MLPClassifier(
        layers=layers,
        random_state=0,
        max_iter=60,
        learning_rate_init=0.01,
        callbacks=[lambda training: seen.append(training.history.accuracy[-1])],
    ).fit(X, Y)
    assert [type(layer).__name__ for layer in ours.network_.layers[:4]] == [
        type(layer).__name__ for layer in layers
    ]
    assert [weights.shape for weights in ours.coefs_] == [(4, 3, 3, 1), (36, 10)]
    assert seen[-1] > 0.95
    assert ours.score(X, Y) > 0.95
    again = clone(ours).fit(X, Y)
    np.testing.assert_array_equal(again.coefs_[0], ours.coefs_[0])

    dropped = MLPClassifier(dropout=0.5, random_state=0, max_iter=40).fit(X, Y)
    whole = MLPClassifier(random_state=0, max_iter=40).fit(X, Y)
    assert dropped.loss_ > 1.2 * whole.loss_
    assert len(dropped.coefs_) == 2
    assert_same(dropped.to_sklearn(), dropped, X)


@pytest.mark.parametrize("kind", ["classes", "regression"])
def test_it_can_be_stored(kind, tmp_path):
    name, more = KINDS[kind]
    x, y = data(kind)
    _, ours = pair(name, random_state=0, max_iter=3, **more)
    ours.fit(x, y)
    path = tmp_path / "estimator"
    joblib.dump(ours, path)
    for restored in (pickle.loads(pickle.dumps(ours)), joblib.load(path)):
        np.testing.assert_array_equal(restored.predict(x), ours.predict(x))
        for model in (restored, pickle.loads(pickle.dumps(ours))):
            model.partial_fit(x, y)
            assert len(model.loss_curve_) == 4
        assert restored.loss_curve_ == model.loss_curve_


def test_it_comes_back_on_the_cpu_where_its_device_is_not(monkeypatch):
    ours = MLPClassifier(random_state=0, max_iter=3, device="standin").fit(X, Y)
    assert ours.network_.device == "standin"
    assert all(type(array) is np.ndarray for array in (*ours.coefs_, *ours.intercepts_))
    stored, wanted = pickle.dumps(ours), ours.predict_proba(X)

    def none(*_):
        raise xnn.DeviceError("none here")

    monkeypatch.setitem(xnn.backends.KINDS, "standin", none)
    restored = pickle.loads(stored)
    assert restored.network_.device == "cpu"
    np.testing.assert_allclose(restored.predict_proba(X), wanted, rtol=1e-9)


@pytest.mark.parametrize("kind", ["classes", "binary", "multilabel", "regression"])
def test_device_arrays_go_in_and_come_out(kind):
    """Arrays on the network's device stay there: no transfer of inputs or outputs."""
    name, more = KINDS[kind]
    x, y = data(kind)
    there = standin.Array(x.copy())
    _, host = pair(name, random_state=0, max_iter=3, early_stopping=True, **more)
    ours = clone(host).set_params(device="standin")
    host.fit(x, y)
    ours.fit(there, standin.Array(y.copy()) if y.dtype.kind in "if" else y)
    np.testing.assert_allclose(ours.loss_curve_, host.loss_curve_, rtol=1e-9)
    found = ours.predict(there)
    if kind == "binary":  # strings cannot be on a device
        np.testing.assert_array_equal(found, host.predict(x))
    else:
        assert type(found) is standin.Array
        np.testing.assert_allclose(found.get(), host.predict(x), rtol=1e-6)
    if name == "MLPClassifier":
        for ask in ("predict_proba", "predict_log_proba"):
            probabilities = getattr(ours, ask)(there)
            assert type(probabilities) is standin.Array
            wanted = getattr(host, ask)(x)
            np.testing.assert_allclose(probabilities.get(), wanted, rtol=1e-6)
    assert type(ours.predict(x)) is np.ndarray
    if kind == "classes":  # whole numbers are numbers, and bytes no pixels
        pixels = (x * 16).astype(np.uint8)
        wanted = ours.predict_proba(pixels)
        np.testing.assert_array_equal(ours.predict_proba(standin.Array(pixels)).get(), wanted)
    with pytest.raises(ValueError, match="X has shape"):
        ours.predict(there[:, 1:])


def test_among_scikit_learns_tools(device):
    """All of them give the same results with xnn's as with scikit-learn's."""
    found = []
    theirs, ours = pair("MLPClassifier", random_state=0, max_iter=20)
    if device in ("standin", "emulated"):  # joblib's processes do not know them
        ours.set_params(device="cpu")
    for model in (theirs, ours):
        pipe = make_pipeline(StandardScaler(), model)
        grid = {"mlpclassifier__alpha": [1e-4, 10.0], "mlpclassifier__hidden_layer_sizes": [5, 50]}
        search = GridSearchCV(pipe, grid, cv=2, n_jobs=2).fit(X, Y)
        calibrated = CalibratedClassifierCV(model, cv=2).fit(X, Y)
        importance = permutation_importance(pipe.fit(X, Y), X, Y, n_repeats=2, random_state=0)
        found.append(
            (
                cross_val_score(pipe, X, Y, cv=3),
                search.cv_results_["mean_test_score"],
                calibrated.predict_proba(X),
                importance.importances,
            )
        )
    for theirs, ours in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_exceptions_are_those_of_the_docs():
    text = (Path(__file__).parent / "swapped.py").read_text(encoding="utf-8")
    exceptions = ast.literal_eval(re.search(r"^EXCEPTIONS = (.*)$", text, re.MULTILINE)[1])
    docs = Path(__file__).parent.parent / "docs" / "estimators.md"
    listed = re.findall(r"^\| `(test_\w+)` \|", docs.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(listed) == set(exceptions)
    assert len(listed) <= 3


def test_divergence_ends_in_an_error():
    ours = MLPRegressor(solver="sgd", learning_rate_init=1e6, max_iter=20, random_state=0)
    with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
        ours.fit(*REGRESSION)


def test_interruption_keeps_what_there_is(capsys):
    def interrupt(run):
        if run.epoch == 2:
            raise KeyboardInterrupt

    ours = MLPClassifier(random_state=0, callbacks=[interrupt])
    with pytest.warns(UserWarning, match=r"Training interrupted by user\."):
        ours.fit(X, Y)
    assert ours.n_iter_ == len(ours.loss_curve_) == 3
    assert ours.predict(X).shape == (400,)


def test_a_grid_search_on_dask():
    """On a cluster of two workers, as joblib's backend."""
    distributed = pytest.importorskip("distributed", reason="dask is not installed")
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": None}
    found = []
    with (
        warnings.catch_warnings(action="ignore"),
        distributed.LocalCluster(**options, processes=False) as cluster,
        distributed.Client(cluster),
        joblib.parallel_backend("dask"),
    ):
        for model in pair("MLPClassifier", random_state=0, max_iter=20):
            search = GridSearchCV(model, {"alpha": [1e-4, 10.0]}, cv=2).fit(X, Y)
            found.append(search.cv_results_["mean_test_score"])
    np.testing.assert_allclose(found[0], found[1])


@pytest.mark.parametrize("version", ["0.24.2", "1.6.1"])
def test_a_scikit_learn_that_is_too_old_is_refused(version, monkeypatch):
    monkeypatch.setattr(sklearn, "__version__", version)
    monkeypatch.delitem(sys.modules, "xnn.estimators")
    with pytest.raises(ImportError, match=r"needs scikit-learn 1\.7 or newer"):
        importlib.import_module("xnn.estimators")
