"""Training by L-BFGS (Liu and Nocedal 1989), through SciPy, on the flat buffer of parameters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.optimize import _check_optimize_result

from ..network import Network
from ..objective import Objective
from ..optimizers.base import decaying
from ..samples import Samples


def fit(estimator: Any, network: Network, samples: Samples) -> None:
    """Train the estimator's network on all samples at once."""
    from scipy.optimize import minimize

    engine = network.core.engine
    backend, total = engine.backend, float(len(samples))
    if samples.weights is not None:  # means divide by the sum of weights
        total = float(samples.weights.sum())
        samples = replace(samples, weights=samples.weights * (len(samples) / total))
    with engine.lock:
        objective = Objective(engine, samples)
        alphas = decaying(backend, engine.flat, engine.trained, estimator.alpha)
        penalised = backend.download(alphas).astype(np.float64)
        first = backend.download(engine.flat).astype(np.float64)

    def put(values: NDArray[np.float64]) -> None:
        with engine.lock:
            backend.copy(backend.upload(values.astype(engine.dtype)), engine.flat)

    def value(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        with engine.lock:
            put(flat)
            cost = objective() * estimator._cost_share()
            gradient = backend.download(objective.gradient)
        pull = penalised * flat / total
        return cost + pull.dot(flat) / 2, gradient + pull

    def tell(intermediate_result: Any) -> None:
        print(f"loss = {intermediate_result.fun:.8f}")

    found = minimize(
        value,
        first,
        method="L-BFGS-B",
        jac=True,
        callback=tell if estimator.verbose else None,
        options={
            "maxfun": estimator.max_fun,
            "maxiter": estimator.max_iter,
            "gtol": estimator.tol,
        },
    )
    put(found.x)
    estimator.loss_ = found.fun
    estimator.n_iter_ = _check_optimize_result("lbfgs", found, estimator.max_iter)
