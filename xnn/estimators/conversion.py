"""Fitted perceptrons of scikit-learn to those of xnn, and back."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import numpy as np
from sklearn.base import is_classifier
from sklearn.neural_network import MLPClassifier as Classifier
from sklearn.neural_network import MLPRegressor as Regressor
from sklearn.utils.validation import check_is_fitted

#: What a fit leaves beside the network; each where it is there.
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

    ``parameters`` are such as ``device="gpu"``. A later ``partial_fit`` goes on from the weights,
    with an optimizer that begins anew. Raises `TypeError` for anything that is no fitted
    `MLPClassifier` or `MLPRegressor` of scikit-learn, and `sklearn.exceptions.NotFittedError` where
    it is not fitted.
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
    """Return scikit-learn's estimator with the weights of one of xnn's, as `from_sklearn`."""
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
    """Copy what has been fitted."""
    for name in _FITTED:
        if hasattr(source, name):
            setattr(made, name, deepcopy(getattr(source, name)))
    made.coefs_ = [np.array(weights) for weights in source.coefs_]
    made.intercepts_ = [np.array(biases) for biases in source.intercepts_]
