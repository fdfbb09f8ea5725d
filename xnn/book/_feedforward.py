"""The base class of the book's two networks of sigmoid layers."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks
from ..backends import Array
from ..callbacks import Training
from ..layers import Dense
from ..network import Arrays
from ..network import Network as Net
from ..optimizers import SGD
from ..samples import Samples
from ..steps import Recipe
from . import _data


def sigmoid(z: Any) -> Any:
    """Return σ(z) = 1 / (1 + exp(-z))."""
    with np.errstate(over="ignore"):  # to infinity: 1 / ∞ = 0 is correct
        return 1.0 / (1.0 + np.exp(-z))


def sigmoid_prime(z: Any) -> Any:
    """Return σ'(z) = σ(z) (1 - σ(z))."""
    a = sigmoid(z)
    return a * (1 - a)


class Parameters(list[Array]):
    """The weights or biases of all layers: writing to one of them changes the network."""

    def __init__(self, arrays: Arrays) -> None:
        super().__init__(arrays)
        self._arrays = arrays

    def __setitem__(self, i: Any, values: Any) -> None:
        if isinstance(i, slice):
            every = list(self)
            every[i] = values
            self._arrays.assign(every)
        else:
            self._arrays[i] = values

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)  # a copy is a plain list, independent of the network


class Feedforward:
    """Layers of sigmoid neurons, with data, weights and biases in the book's form.

    A subclass draws initial weights and biases. ``cost`` is a name of `xnn.Network`.
    """

    def __init__(self, sizes: Sequence[int], cost: str, device: str | None, dtype: Any) -> None:
        if not isinstance(sizes, list | tuple) or len(sizes) < 2:
            raise ValueError(f"sizes is {sizes!r}, but must be a list such as [784, 30, 10]")
        inputs, *units = (checks.whole(f"sizes[{i}]", n) for i, n in enumerate(sizes))
        self.num_layers = len(sizes)
        self.sizes = sizes
        layers = [Dense(n, "sigmoid", "zeros") for n in units]
        self._net = Net([inputs, *layers], cost, device=device, dtype=dtype)

    @property
    def weights(self) -> list[Array]:
        """Each layer's weights ``(y, x)``, on the network's device.

        These are live: what is written to one, element by element or as ``net.weights[0] = array``,
        is used by the next step. May be set to a list of arrays.
        """
        return Parameters(self._net.weights)

    @weights.setter
    def weights(self, values: Sequence[ArrayLike]) -> None:
        self._net.weights.assign(values)

    @property
    def biases(self) -> list[Array]:
        """Each layer's biases ``(y, 1)``, live like `weights`."""
        return Parameters(self._net.biases.columns())

    @biases.setter
    def biases(self, values: Sequence[ArrayLike]) -> None:
        self._net.biases.columns().assign(values)

    def feedforward(self, a: ArrayLike) -> Any:
        """Return the output ``(outputs, 1)`` for the input ``a`` ``(inputs, 1)``.

        Several columns give as many output columns.
        """
        array: Any = a if hasattr(a, "ndim") else np.asarray(a)
        inputs = self._net.sizes[0]
        if array.ndim != 2 or len(array) != inputs:
            raise ValueError(
                f"a has shape {array.shape}, but the book's form is a column ({inputs}, 1)"
            )
        return self._net.predict(self._numbers(array).T).T

    def backprop(self, x: ArrayLike, y: ArrayLike) -> tuple[list[Array], list[Array]]:
        """Return the gradient ``(nabla_b, nabla_w)`` of the cost of one pair of columns.

        Both are lists of one array per layer, with the shapes of `biases` and `weights`.
        """
        inputs, *_, outputs = self._net.sizes
        a, target = _data.column("x", x, inputs), _data.column("y", y, outputs)
        biases, weights = self._net.backprop(self._numbers(a).T, target.T)
        return [b[:, None] for b in biases if b is not None], weights

    def _numbers(self, array: Array) -> Array:
        """Return an array in which ``uint8`` will not be taken as pixels."""
        return array.astype(self._net.dtype) if array.dtype == np.uint8 else array

    def _draw(self, over: Callable[[int], float]) -> None:
        """Draw biases, then weights, as the book does; weights are divided by ``over(x)``."""
        sizes = self._net.sizes
        self.biases = [np.random.randn(y, 1) for y in sizes[1:]]
        self.weights = [np.random.randn(y, x) / over(x) for x, y in pairwise(sizes)]

    def _samples(self, name: str, data: Any, labels: bool = False) -> Samples:
        """Return checked samples. The correct answer is always the largest target."""
        inputs, *_, outputs = self._net.sizes
        x, y = _data.lay_out(name, data, (inputs, outputs), self._net.dtype, labels)
        samples = self._net.core.samples(x, y, (f"{name}'s x", f"{name}'s y"))
        return replace(samples, scoring="argmax")

    def _evaluate(self, samples: Samples) -> tuple[float, int]:
        """Return the mean cost, and for how many samples the largest output is correct."""
        cost, accuracy = self._net.core.evaluate(samples)
        assert accuracy is not None
        return cost, round(accuracy * len(samples))

    def _train(
        self,
        training_data: Any,
        samples: Samples,
        epochs: int,
        mini_batch_size: int,
        optimizer: SGD,
        report: Callable[[Training], None],
        validation: Samples | None = None,
    ) -> None:
        """Train on samples made of ``training_data``, which stays shuffled if it is a list."""
        order = list(range(len(samples)))
        try:
            self._net.core.train(
                samples,
                recipe=Recipe(optimizer, checks.whole("mini_batch_size", mini_batch_size)),
                epochs=checks.whole("epochs", epochs, least=0),
                orders=_shuffles(order),
                validation=validation,
                callbacks=[report],
                progress=False,
            )
        finally:
            if isinstance(training_data, list) and not _data.are_arrays(training_data):
                training_data[:] = [training_data[i] for i in order]

    def _step(self, mini_batch: Any, eta: float, lmbda: float, n: int) -> None:
        """Make one step on a mini-batch out of ``n`` samples."""
        samples = self._samples("mini_batch", mini_batch)
        self._net.core.train(
            samples,
            # The decay is λ/n, and `SGD` divides by the samples that it sees.
            recipe=Recipe(sgd(eta, lmbda * len(samples) / n), len(samples)),
            epochs=1,
            orders=iter([np.arange(len(samples))]),
            progress=False,
        )


def sgd(eta: Any, lmbda: Any = 0.0) -> SGD:
    """Return plain SGD with the book's η and λ. Raises `ValueError` if these are invalid."""
    checks.positive("eta", eta)
    checks.not_negative("lmbda", lmbda)
    return SGD(eta, lmbda=lmbda)


def _shuffles(order: list[int]) -> Iterator[NDArray[np.intp]]:
    """Shuffle as the book does, with Python's generator, starting from the last epoch's order."""
    while True:
        random.shuffle(order)
        yield np.array(order, np.intp)
