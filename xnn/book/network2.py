"""The book's ``network2.py`` (Nielsen, chapter 3): two costs, better weights, regularisation."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checks, saving
from ..callbacks import Training
from ._feedforward import Feedforward, sgd, sigmoid, sigmoid_prime
from .mnist_loader import vectorized_result

__all__ = [
    "CrossEntropyCost",
    "Network",
    "QuadraticCost",
    "load",
    "sigmoid",
    "sigmoid_prime",
    "vectorized_result",
]


class QuadraticCost:
    """C = ½ ‖a - y‖² (Nielsen, eq. 6, for one sample)."""

    @staticmethod
    def fn(a: Any, y: Any) -> float:
        """Return the cost of the output ``a`` for the target ``y``."""
        return 0.5 * float(np.linalg.norm(a - y)) ** 2

    @staticmethod
    def delta(z: Any, a: Any, y: Any) -> Any:
        """Return ∂C/∂z of the output layer."""
        return (a - y) * sigmoid_prime(z)


class CrossEntropyCost:
    """C = -Σ [y ln a + (1 - y) ln(1 - a)] (Nielsen, eq. 63, for one sample)."""

    @staticmethod
    def fn(a: Any, y: Any) -> float:
        """Return the cost of the output ``a`` for the target ``y``; 0 · ln 0 is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return float(np.sum(np.nan_to_num(-y * np.log(a) - (1 - y) * np.log(1 - a))))

    @staticmethod
    def delta(z: Any, a: Any, y: Any) -> Any:
        """Return ∂C/∂z of the output layer, in which σ'(z) cancels (Nielsen, eq. 66)."""
        return a - y


_COSTS = {QuadraticCost: "quadratic", CrossEntropyCost: "cross_entropy"}

#: Costs and accuracies, one per epoch: on the evaluation data, then on the training data.
Figures = tuple[list[float], list[int], list[float], list[int]]


class Network(Feedforward):
    """A network with ``sizes`` neurons in its layers, the first being the inputs.

    ``cost`` is `CrossEntropyCost` or `QuadraticCost`; ``device`` and ``dtype`` are those of
    `xnn.Network`. Initial weights are those of `default_weight_initializer`.

    Attributes
    ----------
    num_layers, sizes
        The number of layers, and the list of their neurons, inputs included.
    weights, biases
        Lists of arrays ``(y, x)`` and ``(y, 1)``, one per layer, which are live.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        cost: Any = CrossEntropyCost,
        *,
        device: str | None = None,
        dtype: Any = "float64",
    ) -> None:
        kind = cost if isinstance(cost, type) else type(cost)  # the book's figures give instances
        if kind not in _COSTS:
            raise ValueError(f"cost is {cost!r}, but must be CrossEntropyCost or QuadraticCost")
        super().__init__(sizes, _COSTS[kind], device, dtype)
        self._cost = cost
        self.default_weight_initializer()

    @property
    def cost(self) -> Any:
        """The cost's class, as it was given."""
        return self._cost

    def default_weight_initializer(self) -> None:
        """Draw biases from N(0, 1), and weights from N(0, 1/x) for a layer with x inputs."""
        self._draw(np.sqrt)

    def large_weight_initializer(self) -> None:
        """Draw biases and weights from N(0, 1), as in chapter 1."""
        self._draw(lambda x: 1.0)

    def SGD(
        self,
        training_data: Any,
        epochs: int,
        mini_batch_size: int,
        eta: float,
        lmbda: float = 0.0,
        evaluation_data: Any = None,
        monitor_evaluation_cost: bool = False,
        monitor_evaluation_accuracy: bool = False,
        monitor_training_cost: bool = False,
        monitor_training_accuracy: bool = False,
        early_stopping_n: int = 0,
    ) -> Figures:
        """Train on mini-batches; print and return the monitored figures of each epoch.

        Parameters
        ----------
        training_data
            Pairs of columns ``(x, y)``: a list, which is shuffled, a zip or a generator; or a pair
            of arrays ``(n, inputs)`` and ``(n, outputs)``.
        epochs, mini_batch_size, eta, lmbda
            The number of passes over all pairs, the pairs per step, η and λ.
        evaluation_data
            Pairs of a column and a label, or a pair of arrays ``(n, inputs)`` and ``(n,)``.
        monitor_evaluation_cost, monitor_evaluation_accuracy
            Which figures on the evaluation data to print and return.
        monitor_training_cost, monitor_training_accuracy
            Which figures on the training data.
        early_stopping_n
            If not 0, stop when the accuracy has not risen for this many epochs: on the evaluation
            data if that is monitored, else on the training data.

        Returns
        -------
        evaluation_cost, evaluation_accuracy, training_cost, training_accuracy
            Lists of one figure per epoch, empty if not monitored. An accuracy is the number of
            correct answers.

        Raises
        ------
        ValueError
            For bad input, before any work.
        """
        samples, optimizer = self._samples("training_data", training_data), sgd(eta, lmbda)
        evaluation = None
        if monitor_evaluation_cost or monitor_evaluation_accuracy:
            if evaluation_data is None:
                raise ValueError("evaluation_data is None, but monitoring needs it")
            evaluation = self._samples("evaluation_data", evaluation_data, labels=True)
        patience = checks.whole("early_stopping_n", early_stopping_n, least=0)
        if patience and not (monitor_evaluation_accuracy or monitor_training_accuracy):
            raise ValueError(
                f"early_stopping_n is {patience}, but no accuracy is monitored; "
                "set monitor_evaluation_accuracy"
            )
        if monitor_training_cost or monitor_training_accuracy:
            samples = self._net.core.settle(samples)
        figures: Figures = [], [], [], []
        evaluation_cost, evaluation_accuracy, training_cost, training_accuracy = figures

        def report(training: Training) -> None:
            print(f"Epoch {training.epoch} training complete")
            if monitor_training_cost or monitor_training_accuracy:
                cost, right = self._evaluate(samples)
                if monitor_training_cost:
                    training_cost.append(cost + self._penalty(lmbda, len(samples)))
                    print(f"Cost on training data: {training_cost[-1]}")
                if monitor_training_accuracy:
                    training_accuracy.append(right)
                    print(f"Accuracy on training data: {right} / {len(samples)}")
            if evaluation is not None:
                cost = training.history.validation_cost[-1]
                right = round(training.history.validation_accuracy[-1] * len(evaluation))
                if monitor_evaluation_cost:
                    evaluation_cost.append(cost + self._penalty(lmbda, len(evaluation)))
                    print(f"Cost on evaluation data: {evaluation_cost[-1]}")
                if monitor_evaluation_accuracy:
                    evaluation_accuracy.append(right)
                    print(f"Accuracy on evaluation data: {right} / {len(evaluation)}")
            print()
            accuracies = evaluation_accuracy or training_accuracy
            if patience and accuracies.index(max(accuracies)) + patience < len(accuracies):
                training.stop(f"no better accuracy in {patience} epochs")

        self._train(training_data, samples, epochs, mini_batch_size, optimizer, report, evaluation)
        return figures

    def update_mini_batch(self, mini_batch: Any, eta: float, lmbda: float, n: int) -> None:
        """Make one step of SGD on the pairs of columns of one mini-batch out of ``n`` pairs."""
        self._step(mini_batch, eta, lmbda, checks.whole("n", n))

    def accuracy(self, data: Any, convert: bool = False) -> int:
        """Return for how many pairs in ``data`` the largest output is the correct one.

        ``convert`` says that ``y`` are columns, as in training data, not labels.
        """
        return self._evaluate(self._samples("data", data, labels=not convert))[1]

    def total_cost(self, data: Any, lmbda: float, convert: bool = False) -> float:
        """Return the mean cost over ``data`` plus λ/2n Σ w² (Nielsen, eq. 85 and 87).

        ``convert`` says that ``y`` are labels, not columns as in training data.
        """
        samples = self._samples("data", data, labels=convert)
        return self._evaluate(samples)[0] + self._penalty(lmbda, len(samples))

    def save(self, filename: str | os.PathLike[str]) -> None:
        """Write the network to a file as JSON, in the book's form.

        Raises `OSError` if the file cannot be written; an existing file is then left as it was.
        """
        kind = self.cost if isinstance(self.cost, type) else type(self.cost)
        data = {
            "sizes": list(self._net.sizes),
            "weights": [w.tolist() for w in self._host("weights")],
            "biases": [b[:, None].tolist() for b in self._host("biases")],
            "cost": kind.__name__,
        }
        with saving.replacing(filename) as file:
            file.write(json.dumps(data).encode())

    def _penalty(self, lmbda: float, n: int) -> float:
        squares = (np.square(w, dtype=np.float64).sum() for w in self._host("weights"))
        return 0.5 * lmbda / n * float(sum(squares))

    def _host(self, name: str) -> list[NDArray[Any]]:
        return [own[name] for own in self._net.core.arrays()]


def load(
    filename: str | os.PathLike[str], *, device: str | None = None, dtype: Any = "float64"
) -> Network:
    """Return the network in a file written by `Network.save`, or by the book's.

    Raises `ValueError`, naming the file, if it holds no network, `OSError` if it cannot be read.
    """
    costs = {kind.__name__: kind for kind in _COSTS}
    try:
        with open(filename, encoding="utf-8") as file:
            data = json.load(file)
        sizes, cost = data["sizes"], costs[data["cost"]]
        weights, biases = ([np.array(a) for a in data[name]] for name in ("weights", "biases"))
        # Shapes first: allocate no memory just because a file says so.
        shapes = [(y, x) for x, y in pairwise(sizes)]
        fitting = [w.shape for w in weights] == shapes
        if not fitting or [b.shape for b in biases] != [(y, 1) for y, _ in shapes]:
            raise ValueError(f"weights or biases do not have the shapes of sizes {sizes}")
        net = Network(sizes, cost, device=device, dtype=dtype)
        net.weights, net.biases = weights, biases
    except (KeyError, TypeError, RecursionError, UnicodeError, ValueError) as error:
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ValueError(
            f"{os.fsdecode(filename)}: not a network in the book's form: {why}"
        ) from None
    return net
