"""What a layer is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..activations import Activation
from ..backends import Array, Backend
from ..initializers import Drawn
from ..parameters import Parameter, Rows

#: Takes a parameter, and what makes its gradient, summed over the mini-batch: two matrices and a
#: number, the factor of their product.
Gradient = Callable[[Parameter, Array, Array, float], None]


@dataclass(frozen=True)
class Memory:
    """The arrays of one layer for one mini-batch, all made beforehand. Batches come first.

    Inputs are held divided by ``scale``; a matrix product multiplies by it at no cost.
    """

    inputs: Rows  # (batch, inputs), with a column of ones (over scale) where there is a bias
    scale: float
    z: Rows  # (batch, units): the weighted inputs
    outputs: Rows  # (batch, units): a = σ(z)
    parameter: Parameter
    matrix: Array  # (units, inputs [+ 1]): [W b]
    delta: Rows | None = None  # (batch, units): ∂C/∂a, then ∂C/∂z; None without training
    input_delta: Rows | None = None  # (batch, inputs): ∂C/∂a of the layer below; None for the first


class Layer(ABC):
    """One kind of layer: its shape, its first weights, forward and backward.

    A layer is a description: it holds no arrays, cannot be changed, and may serve in several
    networks. The arrays come in a `Memory`.
    """

    #: σ, applied to the layer's weighted input z.
    function: Activation

    @abstractmethod
    def outputs(self, inputs: int) -> int:
        """Return the number of outputs for ``inputs`` inputs."""

    @abstractmethod
    def parameter(self, inputs: int, start: int, row: Callable[[int], int]) -> Parameter:
        """Return where in a flat buffer the layer's parameters lie, from ``start`` on.

        ``row`` gives the length in memory of a row of so many columns.
        """

    @abstractmethod
    def draw(self, inputs: int, rng: np.random.Generator) -> Drawn:
        """Return first weights and biases."""

    @abstractmethod
    def forward(self, run: Backend, at: Memory) -> None:
        """Compute ``at.outputs`` from ``at.inputs``."""

    @abstractmethod
    def backward(self, run: Backend, at: Memory, gradient: Gradient) -> None:
        """From ∂C/∂z in ``at.delta``, compute ``at.input_delta`` and the gradient."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return what JSON can hold and `xnn.layers.from_description` makes a layer of."""

    def delta(self, run: Backend, at: Memory) -> None:
        """Turn ∂C/∂a in ``at.delta`` into ∂C/∂z."""
        assert at.delta is not None
        self.function.backward(run, at.outputs, at.delta, "e", e=at.delta)
