"""Conversion of fitted perceptrons from scikit-learn to xnn, and back."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.neural_network import MLPClassifier as Classifier
from sklearn.neural_network import MLPRegressor as Regressor
from sklearn.utils.validation import check_is_fitted

#: Attributes of a fit besides the network, as far as present.
_FITTED = (
    "best_loss_",
    "best_validation_score_",
    "classes_",
    "feature_names_in_",
    "loss_",
    "loss_curve_",
    "n_features_in_",
    "n_iter_",
    "n_layers_",
    "n_outputs_",
    "out_activation_",
    "t_",
    "validation_scores_",
    "_label_binarizer",
    "_no_improvement_count",
)


def from_sklearn(fitted: Any, **parameters: Any) -> Any:
    """Return xnn's estimator with the weights of a fitted one of scikit-learn.

    ``parameters`` override its arguments or add to them, such as ``device="gpu"``. A later
    ``partial_fit`` continues from the weights, with a new optimizer. Raises `TypeError` for
    anything but an `MLPClassifier` or `MLPRegressor` of scikit-learn, and
    `sklearn.exceptions.NotFittedError` if it is not fitted.
    """
    from .classifier import MLPClassifier
    from .regressor import MLPRegressor

    if not isinstance(fitted, Classifier | Regressor):
        raise TypeError(
            f"fitted is {fitted!r}, but must be scikit-learn's MLPClassifier or MLPRegressor"
        )
    check_is_fitted(fitted)
    kind = MLPClassifier if is_classifier(fitted) else MLPRegressor
    made = kind(**{**fitted.get_params(deep=False), **parameters})
    _carry(fitted, made)
    made._synced(np.float32 if fitted.coefs_[0].dtype == np.float32 else np.float64)
    return made


def to_sklearn(estimator: Any) -> Any:
    """Return scikit-learn's estimator with the weights of xnn's, the reverse of `from_sklearn`."""
    from .base import BEYOND

    check_is_fitted(estimator)
    if estimator.layers is not None:
        raise ValueError("layers are given, which scikit-learn does not have")
    estimator._synced()
    kind = Classifier if is_classifier(estimator) else Regressor
    parameters = estimator.get_params(deep=False)
    made = kind(**{name: value for name, value in parameters.items() if name not in BEYOND})
    _carry(estimator, made)
    return made


def _carry(source: Any, made: Any) -> None:
    """Copy the fitted attributes."""
    for name in _FITTED:
        if hasattr(source, name):
            setattr(made, name, deepcopy(getattr(source, name)))
    made.coefs_ = [np.array(weights) for weights in source.coefs_]
    made.intercepts_ = [np.array(biases) for biases in source.intercepts_]
