"""The networks of estimators: layers, initial weights, and scikit-learn's view of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..backends import Array
from ..layers import Dense, Dropout, Layer
from ..network import Network

#: xnn's names for scikit-learn's activations.
ACTIVATIONS = {
    "identity": "linear",
    "logistic": "sigmoid",
    "tanh": "tanh",
    "relu": "relu",
    "softmax": "softmax",
    "exp": "exp",
}
#: The cost of each output activation.
COSTS = {
    "identity": "quadratic",
    "logistic": "log_loss",
    "softmax": "log_loss",
    "exp": "poisson",
}


def draw(
    units: Sequence[int], activation: str, random_state: np.random.RandomState
) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """Return initial weights ``(inputs, outputs)`` and biases ``(outputs,)`` of each layer.

    They are scikit-learn's: layer by layer, weights and biases uniform in
    ±√(6 / (inputs + outputs)), or ±√(2 / …) before logistic functions (Glorot and Bengio 2010).
    """
    coefs, intercepts = [], []
    for inputs, outputs in pairwise(units):
        bound = np.sqrt((2.0 if activation == "logistic" else 6.0) / (inputs + outputs))
        coefs.append(random_state.uniform(-bound, bound, (inputs, outputs)))
        intercepts.append(random_state.uniform(-bound, bound, outputs))
    return coefs, intercepts


def perceptron(
    coefs: Sequence[Any],
    intercepts: Sequence[Any],
    activation: str,
    out_activation: str,
    dropout: float = 0.0,
    **options: Any,
) -> Network:
    """Return a network of dense layers with these weights and biases, and dropout between them."""
    layers: list[Layer | int] = [int(np.shape(coefs[0])[0])]
    last = len(coefs) - 1
    for i, (weights, biases) in enumerate(zip(coefs, intercepts, strict=True)):
        function = ACTIVATIONS[out_activation if i == last else activation]
        first = np.asarray(weights).T, np.asarray(biases)
        layers.append(Dense(len(first[1]), function, initializer=first))
        if dropout and i < last:
            layers.append(Dropout(dropout))
    return Network(layers, COSTS[out_activation], **options)


def stacked(
    inputs: int, layers: Sequence[Layer], outputs: int, out_activation: str, **options: Any
) -> Network:
    """Return a network of the given layers, followed by a dense one for the outputs."""
    last = Dense(outputs, ACTIVATIONS[out_activation])
    return Network([inputs, *layers, last], COSTS[out_activation], **options)


def shown(network: Network) -> tuple[list[Array], list[Array]]:
    """Return weights and biases of the layers that have weights, in scikit-learn's form.

    Weights of dense layers are ``(inputs, outputs)``. On a CPU all are live views, else copies on
    the host. For a layer without biases, these are zeros.
    """
    coefs, intercepts = [], []
    for weights, biases in zip(network.weights, network.biases, strict=True):
        if weights is None:
            continue
        coefs.append(_host(network, weights).T if weights.ndim == 2 else _host(network, weights))
        none = np.zeros(weights.shape[0], network.dtype)
        intercepts.append(none if biases is None else _host(network, biases))
    return coefs, intercepts


def put(network: Network, coefs: Sequence[Any], intercepts: Sequence[Any]) -> None:
    """Write weights and biases, in the form that `shown` returns, to a network."""
    places = [i for i, weights in enumerate(network.weights) if weights is not None]
    for i, weights, biases in zip(places, coefs, intercepts, strict=True):
        values = np.asarray(weights)
        network.weights[i] = values.T if values.ndim == 2 else values
        if network.biases[i] is not None:
            network.biases[i] = np.asarray(biases)


def _host(network: Network, array: Array) -> Any:
    return network.core.engine.backend.host(array)
