"""The book's ``network.py`` (Nielsen, chapter 1): sigmoid neurons, quadratic cost, SGD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..callbacks import Training
from ._feedforward import Feedforward, sgd, sigmoid, sigmoid_prime

__all__ = ["Network", "sigmoid", "sigmoid_prime"]


class Network(Feedforward):
    """A network with ``sizes`` neurons in its layers, the first being the inputs.

    Weights and biases are drawn from N(0, 1) by ``np.random.randn``. ``device`` and ``dtype`` are
    those of `xnn.Network`.

    Attributes
    ----------
    num_layers, sizes
        The number of layers, and the list of their neurons, inputs included.
    weights, biases
        Lists of arrays ``(y, x)`` and ``(y, 1)``, one per layer, which are live.
    """

    def __init__(
        self, sizes: Sequence[int], *, device: str | None = None, dtype: Any = "float64"
    ) -> None:
        super().__init__(sizes, "quadratic", device, dtype)
        self._draw(lambda x: 1.0)

    def SGD(
        self,
        training_data: Any,
        epochs: int,
        mini_batch_size: int,
        eta: float,
        test_data: Any = None,
    ) -> None:
        """Train on mini-batches; print each epoch, and how many of ``test_data`` are right.

        ``training_data`` holds pairs of columns ``(x, y)``; if it is a list, it is shuffled.
        ``test_data`` holds pairs of a column and a label. Both may be lists, zips, generators, or
        a pair of arrays ``(n, inputs)`` and ``(n, outputs)`` or ``(n,)``.

        Raises `ValueError` for bad input before any work.
        """
        samples, optimizer = self._samples("training_data", training_data), sgd(eta)
        test = None if test_data is None else self._samples("test_data", test_data, labels=True)

        def report(training: Training) -> None:
            if test is None:
                print(f"Epoch {training.epoch} complete")
            else:
                right = round(training.history.validation_accuracy[-1] * len(test))
                print(f"Epoch {training.epoch}: {right} / {len(test)}")

        self._train(training_data, samples, epochs, mini_batch_size, optimizer, report, test)

    def update_mini_batch(self, mini_batch: Any, eta: float) -> None:
        """Make one step of SGD on the pairs of columns of one mini-batch."""
        self._step(mini_batch, eta, 0.0, 1)

    def evaluate(self, test_data: Any) -> int:
        """Return for how many pairs of a column and a label the largest output is the label."""
        return self._evaluate(self._samples("test_data", test_data, labels=True))[1]

    def cost_derivative(self, output_activations: Any, y: Any) -> Any:
        """Return ∂C/∂a of the quadratic cost, a - y."""
        return output_activations - y
