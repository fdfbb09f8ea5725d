"""The classifier."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.metrics import accuracy_score
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils import column_or_1d, compute_sample_weight
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import (
    _check_partial_fit_first_call,
    type_of_target,
    unique_labels,
)

from . import conversion
from .base import Perceptron
from .inputs import check_training


class MLPClassifier(ClassifierMixin, Perceptron):  # type: ignore[misc]
    """`sklearn.neural_network.MLPClassifier` on xnn.

    Arguments, defaults, attributes and results are those of scikit-learn, described in its
    documentation; ``docs/estimators.md`` lists the differences. Additional arguments:

    Parameters
    ----------
    device
        Where it runs, as for `xnn.Network`: ``"cpu"``, ``"gpu"``, …; None is the device named by
        the environment variable ``XNN_DEVICE``, else the CPU.
    dtype
        ``"float32"`` or ``"float64"``; None is the dtype of the inputs if it is one of these, else
        float64.
    layers
        A list of xnn's layers instead of ``hidden_layer_sizes`` and ``activation``. A dense layer
        for the outputs is appended. Initial weights are xnn's. The first layer gets rows: for
        images it is ``Reshape((height, width, channels))``.
    callbacks
        As for `xnn.Network.fit`, with ``solver`` sgd or adam.
    dropout
        The rate of dropout after each hidden layer, with ``solver`` sgd or adam.
    class_weight
        A mapping of classes to weights, or ``"balanced"``.

    Attributes
    ----------
    classes_
        The labels, ``(classes,)``.
    coefs_, intercepts_
        Lists of weights ``(inputs, outputs)`` and biases ``(outputs,)``, one per layer. On a CPU
        they are live: writing to them changes the network.
    network_
        The `xnn.Network`.
    loss_, best_loss_, loss_curve_, validation_scores_, best_validation_score_
        Figures of training, as in scikit-learn.
    n_iter_, t_, n_layers_, n_outputs_, out_activation_, n_features_in_, feature_names_in_
        As in scikit-learn.

    Raises
    ------
    ValueError
        For invalid arguments, when fitted.
    xnn.DeviceError
        If the device is unavailable.

    Examples
    --------
    >>> import numpy as np
    >>> from xnn.estimators import MLPClassifier
    >>> x = np.random.default_rng(0).random((200, 2))
    >>> y = np.where(x[:, 0] > x[:, 1], "below", "above")
    >>> model = MLPClassifier((10,), solver="lbfgs", random_state=0).fit(x, y)
    >>> model.predict([[0.9, 0.1]])
    array(['below'], dtype='<U5')
    >>> model.predict_proba(x[:5]).shape
    (5, 2)
    >>> model.score(x, y) > 0.95
    True
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        **Perceptron._parameter_constraints,
        "class_weight": [dict, StrOptions({"balanced"}), None],
    }

    def __init__(
        self,
        hidden_layer_sizes: Any = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: Any = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: float = 10,
        max_fun: int = 15000,
        device: str | None = None,
        dtype: str | None = None,
        layers: Any = None,
        callbacks: Any = None,
        dropout: float = 0.0,
        class_weight: Any = None,
    ) -> None:
        self._keep(locals())

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs ``(n, features)``, dense or sparse, and labels ``(n,)``.

        Labels may also be a matrix ``(n, classes)`` of 0 and 1, for any number of classes per
        sample. ``sample_weight`` ``(n,)`` weights the samples.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(lambda estimator: estimator._takes_parts())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None) -> Self:
        """Train for one epoch. The first call must be given all ``classes``."""
        if _check_partial_fit_first_call(self, classes):
            multilabel = type_of_target(y).startswith("multilabel")
            self._label_binarizer = LabelBinarizer().fit(y if multilabel else classes)
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return labels ``(n,)``, or a matrix ``(n, classes)`` if fitted to one."""
        return self._decode(self._outputs(X))

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, ``(n, classes)``."""
        found = self._outputs(X)
        if self.n_outputs_ > 1:
            return found
        if isinstance(found, np.ndarray):
            return np.hstack([1 - found, found])
        engine = self.network_.core.engine
        with engine.lock:
            both = engine.backend.zeros((len(found), 2), found.dtype)
            engine.backend.elementwise("1 - p", both[:, :1], p=found)
            engine.backend.copy(found, both[:, 1:])
            return engine.backend.hand_out(both)

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithm of `predict_proba`."""
        found = self.predict_proba(X)
        if isinstance(found, np.ndarray):
            return np.log(found, out=found)
        engine = self.network_.core.engine
        with engine.lock:
            engine.backend.elementwise("log(p)", found, p=found)
            return engine.backend.hand_out(found)

    def to_sklearn(self) -> Any:
        """Return scikit-learn's `MLPClassifier` with the same weights.

        Raises `ValueError` if ``layers`` are given, which it does not have.
        """
        return conversion.to_sklearn(self)

    def _check(
        self, backend: Any, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Any]:
        X, y = check_training(self, backend, X, y, reset, numeric=False)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if not hasattr(self, "classes_") or (not self.warm_start and not incremental):
            self._label_binarizer = LabelBinarizer().fit(y)
            self.classes_ = self._label_binarizer.classes_
            return X, y
        classes = unique_labels(y)
        if self.warm_start:
            if set(classes) != set(self.classes_):
                raise ValueError(
                    "warm_start can only be used where `y` has the same classes as in the previous "
                    f"call to fit. Previously got {self.classes_}, `y` has {classes}"
                )
        elif len(np.setdiff1d(classes, self.classes_, assume_unique=True)):
            raise ValueError(
                "`y` has classes not in `self.classes_`. "
                f"`self.classes_` has {self.classes_}. 'y' has {classes}."
            )
        return X, y

    def _outputs_for(self, y: NDArray[Any]) -> tuple[int, str]:
        kind, classes = self._label_binarizer.y_type_, len(self.classes_)
        if kind == "multiclass":
            return classes, "softmax"
        return 1 if kind == "binary" else classes, "logistic"

    def _encode(self, y: NDArray[Any]) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        if self.out_activation_ == "softmax":
            return np.searchsorted(self.classes_, y), None
        if self._single() and len(self.classes_) == 2:
            # As the binarizer would, without repeating its checks.
            return None, (y == self.classes_[1])[:, None].astype(self.network_.dtype)
        return None, np.asarray(self._label_binarizer.transform(y), self.network_.dtype)

    def _decode(self, outputs: Any) -> Any:
        binarizer = self._label_binarizer
        if isinstance(outputs, np.ndarray):
            if self.out_activation_ == "softmax" and not binarizer.sparse_input_:
                return self.classes_[outputs.argmax(axis=1)]
            return binarizer.inverse_transform(outputs.ravel() if self._single() else outputs)
        backend = self.network_.core.engine.backend
        labels = self._decode(backend.download(outputs))
        return backend.hand_out(backend.upload(labels)) if labels.dtype.kind in "buif" else labels

    def _weights(self, y: NDArray[Any], given: Any, incremental: bool) -> NDArray[Any] | None:
        weights = super()._weights(y, given, incremental)
        if self.class_weight is None:
            return weights
        if incremental and self.class_weight == "balanced":
            raise ValueError(
                "class_weight is 'balanced', which partial_fit cannot compute; give a mapping of "
                "classes to weights"
            )
        each: NDArray[Any] = compute_sample_weight(self.class_weight, y)
        return each if weights is None else weights * each

    def _single(self) -> bool:
        return bool(self.n_outputs_ == 1)

    def _validation_score(self, X: Any, y: Any, sample_weight: Any) -> float:
        outputs = self.network_.core.inference.predict(X)
        predicted = self.network_.core.engine.backend.host(self._decode(outputs))
        if predicted.dtype.kind == "f" and not np.isfinite(predicted).all():
            return float("nan")
        return float(accuracy_score(y, predicted, sample_weight=sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
