"""The regressor."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.metrics import r2_score
from sklearn.utils import column_or_1d
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if

from .. import activations, costs
from ..samples import check_range
from . import conversion
from .base import Perceptron
from .inputs import check_training


class MLPRegressor(RegressorMixin, Perceptron):  # type: ignore[misc]
    """`sklearn.neural_network.MLPRegressor` on xnn.

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

    Attributes
    ----------
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
    >>> from xnn.estimators import MLPRegressor
    >>> x = np.linspace(-1, 1, 200).reshape(-1, 1)
    >>> y = x.ravel() ** 2
    >>> model = MLPRegressor("squared_error", (10,), "tanh", solver="lbfgs", random_state=0)
    >>> model = model.fit(x, y)
    >>> model.score(x, y) > 0.95
    True
    """

    _parameter_constraints: dict[str, Any] = {  # noqa: RUF012
        **Perceptron._parameter_constraints,
        "loss": [StrOptions({"squared_error", "poisson"})],
    }

    def __init__(
        self,
        loss: str = "squared_error",
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
    ) -> None:
        self._keep(locals())

    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit to inputs ``(n, features)``, dense or sparse, and values ``(n,)``.

        Values may also be ``(n, outputs)``. ``sample_weight`` ``(n,)`` weights the samples.
        """
        return self._fit(X, y, sample_weight, incremental=False)

    @available_if(lambda estimator: estimator._takes_parts())  # type: ignore[untyped-decorator]
    @_fit_context(prefer_skip_nested_validation=True)  # type: ignore[untyped-decorator]
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Train for one epoch."""
        return self._fit(X, y, sample_weight, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return values ``(n,)``, or ``(n, outputs)`` if there are several outputs."""
        return self._decode(self._outputs(X))

    def to_sklearn(self) -> Any:
        """Return scikit-learn's `MLPRegressor` with the same weights.

        Raises `ValueError` if ``layers`` are given, which it does not have.
        """
        return conversion.to_sklearn(self)

    def _check(
        self, backend: Any, X: Any, y: Any, incremental: bool, reset: bool
    ) -> tuple[Any, Any]:
        X, y = check_training(self, backend, X, y, reset, numeric=True)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        if self.loss == "poisson":  # scikit-learn's perceptron would get a loss of NaN
            check_range(y, costs.get("poisson", activations.get("exp")))
        return X, y

    def _outputs_for(self, y: NDArray[Any]) -> tuple[int, str]:
        outputs = 1 if y.ndim == 1 else y.shape[1]
        return outputs, "exp" if self.loss == "poisson" else "identity"

    def _encode(self, y: NDArray[Any]) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        return None, np.asarray(y.reshape(len(y), -1), self.network_.dtype)

    def _cost_share(self) -> float:
        # scikit-learn's squared error is a mean over outputs, but its gradient that of a sum.
        return 1 / self.n_outputs_ if self.loss == "squared_error" else 1.0

    def _decode(self, outputs: Any) -> Any:
        return outputs.reshape(-1) if outputs.shape[1] == 1 else outputs

    def _validation_score(self, X: Any, y: Any, sample_weight: Any) -> float:
        inference = self.network_.core.inference
        predicted = inference.engine.backend.host(self._decode(inference.predict(X)))
        if not np.isfinite(predicted).all():
            return float("nan")
        return float(r2_score(y, predicted, sample_weight=sample_weight))
