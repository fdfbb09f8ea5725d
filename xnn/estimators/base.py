"""The base class of both estimators: arguments, fitting, outputs and pickling."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from numbers import Real
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.neural_network import MLPRegressor as _Original
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted

from ..backends import select
from ..core import revived
from ..layers import Layer
from ..network import Network, with_core
from ..samples import Samples
from . import lbfgs, networks, stochastic
from .inputs import check_prediction

#: Arguments that scikit-learn's estimators do not have.
BEYOND = ("device", "dtype", "layers", "callbacks", "dropout", "class_weight")


class Perceptron(BaseEstimator, ABC):  # type: ignore[misc]
    """A network with scikit-learn's interface."""

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012 - scikit-learn's own form
        **{
            name: allowed
            for name, allowed in _Original._parameter_constraints.items()
            if name != "loss"
        },
        "device": [str, None],
        "dtype": [StrOptions({"float32", "float64"}), None],
        "layers": [list, tuple, None],
        "callbacks": [list, tuple, None],
        "dropout": [Interval(Real, 0, 1, closed="left")],
    }

    def _keep(self, given: dict[str, Any]) -> None:
        """Store the arguments of a constructor, its ``locals()``, as scikit-learn requires."""
        self.__dict__.update({name: value for name, value in given.items() if name != "self"})

    # What the classifier and the regressor define.

    @abstractmethod
    def _check(
        self, backend: Any, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Any]:
        """Return checked inputs and targets, as `check_training` does."""

    @abstractmethod
    def _encode(self, y: NDArray[Any]) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        """Return class numbers ``(n,)``, or values ``(n, outputs)``; the other is None."""

    @abstractmethod
    def _outputs_for(self, y: NDArray[Any]) -> tuple[int, str]:
        """Return the number of outputs, and their activation by scikit-learn's name."""

    @abstractmethod
    def _decode(self, outputs: Any) -> Any:
        """Return predictions for the network's outputs ``(n, outputs)``."""

    @abstractmethod
    def _validation_score(self, X: Any, y: Any, sample_weight: Any) -> float:
        """Return the score on held-out samples; NaN if outputs are not finite."""

    def _weights(self, y: NDArray[Any], given: Any, incremental: bool) -> NDArray[Any] | None:
        """Return the weight of each sample, ``(n,)``, or None if all are 1."""
        return None if given is None else _check_sample_weight(given, y)

    def _cost_share(self) -> float:
        """Return the factor of the network's cost in the loss."""
        return 1.0

    # Fitting.

    def _fit(self, X: Any, y: Any, sample_weight: Any, incremental: bool) -> Self:
        hidden = self._hidden()
        first = not hasattr(self, "coefs_") or (not self.warm_start and not incremental)
        backend = select(self.device)
        X, y = self._check(backend, X, y, incremental, reset=first)
        weights = self._weights(y, sample_weight, incremental)
        outputs, out_activation = self._outputs_for(y)
        self._random_state = check_random_state(self.random_state)
        dtype = np.dtype(self.dtype or (np.float32 if X.dtype == np.float32 else np.float64))
        if first:
            self._begin(hidden, outputs, out_activation, dtype)
        network = self._synced(dtype)
        labels, values = self._encode(y)
        samples = Samples(X, labels, values, "argmax" if labels is not None else None, weights)
        try:
            if self.solver == "lbfgs":
                lbfgs.fit(self, network, samples)
            else:
                stratify = None
                if values is not None and out_activation == "logistic" and outputs == 1:
                    stratify = values > 0.5
                stochastic.fit(self, network, samples, y, stratify, incremental)
        finally:
            self._show()
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise ValueError(
                "Solver produced non-finite parameter weights. The input data may contain large "
                "values and need to be preprocessed."
            )
        return self

    def _hidden(self) -> list[int]:
        """Return the sizes of hidden layers, checked together with related arguments."""
        sizes = self.hidden_layer_sizes
        hidden = list(sizes) if hasattr(sizes, "__iter__") else [sizes]
        if np.any(np.array(hidden) <= 0):
            raise ValueError(f"hidden_layer_sizes must be > 0, got {hidden}.")
        if self.layers is not None and not all(isinstance(layer, Layer) for layer in self.layers):
            raise ValueError(f"layers is {self.layers!r}, but must be a list of xnn's layers")
        if self.layers is not None and self.dropout:
            raise ValueError("dropout is for hidden_layer_sizes; put Dropout in layers instead")
        if self.solver == "lbfgs" and (self.dropout or self.callbacks):
            raise ValueError("solver is 'lbfgs', which supports neither dropout nor callbacks")
        return hidden

    def _begin(self, hidden: Sequence[int], outputs: int, out_activation: str, dtype: Any) -> None:
        """Initialise for a first fit."""
        self.n_iter_ = self.t_ = 0
        self.n_outputs_, self.out_activation_ = outputs, out_activation
        options: dict[str, Any] = {"device": self.device, "dtype": dtype}
        if self.layers is not None:
            options["seed"] = self._seed()
            self.network_ = networks.stacked(
                self.n_features_in_, self.layers, outputs, out_activation, **options
            )
        else:
            units = [self.n_features_in_, *hidden, outputs]
            first = networks.draw(units, self.activation, self._random_state)
            options["seed"] = self._seed()
            self.network_ = networks.perceptron(
                *first, self.activation, out_activation, self.dropout, **options
            )
        self._show()
        self.n_layers_ = len(self.coefs_) + 1
        if self.solver == "lbfgs":
            return
        self.loss_curve_: list[float] = []
        self._no_improvement_count = 0
        self.best_loss_ = None if self.early_stopping else np.inf
        self.validation_scores_: list[float] | None = [] if self.early_stopping else None
        self.best_validation_score_ = -np.inf if self.early_stopping else None
        if self.early_stopping:
            engine = self.network_.core.engine
            self._best = engine.backend.download(engine.flat)

    def _seed(self) -> int:
        """Return the seed for ``layers`` and dropout, which scikit-learn does not have."""
        if self.layers is None and not self.dropout:
            return 0  # nothing is drawn
        return int(self._random_state.randint(2**31))

    # The network, and its weights as seen by users.

    def _show(self) -> None:
        """Set ``coefs_`` and ``intercepts_`` from the network."""
        self.coefs_, self.intercepts_ = networks.shown(self.network_)
        self._shown = [*self.coefs_, *self.intercepts_]

    def _synced(self, dtype: Any = None) -> Network:
        """Return the network, updated if ``coefs_`` or ``intercepts_`` have been set."""
        if "network_" not in vars(self):
            given = self.coefs_, self.intercepts_, self.activation, self.out_activation_
            options = {"device": self.device, "dtype": dtype or self.dtype or np.float64}
            self.network_ = networks.perceptron(*given, self.dropout, **options)
            self._show()
        elif any(
            a is not b for a, b in zip((*self.coefs_, *self.intercepts_), self._shown, strict=True)
        ):
            networks.put(self.network_, self.coefs_, self.intercepts_)
            self._show()
        return self.network_

    def _outputs(self, X: Any) -> Any:
        """Return the network's outputs ``(n, outputs)`` for unchecked inputs."""
        if "network_" not in vars(self):  # the check takes longer than a small network's answer
            check_is_fitted(self)
        inference = self._synced().core.inference
        if self._plain(X):
            found = inference.answer(X)
            if found is None:
                found = inference.predict(X, finite=True)
                if found is not None:
                    inference.note(X)
            if found is not None:
                return found
        return inference.predict(check_prediction(self, inference.engine.backend, X))

    def _plain(self, X: Any) -> bool:
        """Return whether only scikit-learn's check for finite numbers remains to be done."""
        return (
            type(X) is np.ndarray
            and (X.dtype == np.float64 or X.dtype == np.float32)
            and X.ndim == 2
            and X.shape[1] == self.n_features_in_
            and len(X) > 0
            and "feature_names_in_" not in vars(self)
        )

    # Pickling: the network by its state, so that it can be restored without its device.

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "network_" in state:
            self._synced()
            core = self.network_.core
            state["network_"] = core.state()
            if "_optimizer" in state:
                with core.engine.lock:
                    state["_optimizer"] = self._optimizer.paused()
            for name in ("coefs_", "intercepts_", "_shown"):
                del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        stored = state.get("network_")
        super().__setstate__(state)
        if stored is not None:
            self.network_ = with_core(revived(stored))
            self._show()

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def _takes_parts(self) -> bool:
        """Return whether there is ``partial_fit``. Raises `AttributeError` if not."""
        if self.solver == "lbfgs":
            raise AttributeError(
                "partial_fit is only available for stochastic optimizers. lbfgs is not stochastic."
            )
        return True
