"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import activations, checks, initializers
from ..backends import Array, Backend
from ..initializers import Initializer
from ..parameters import Layout, Parameter, Shape
from .base import Gradient, Layer, Memory, vector


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """A fully connected layer: ``a = σ(W x + b)``.

    Parameters
    ----------
    units
        The number of outputs.
    activation
        σ: ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"linear"``, ``"exp"`` or
        ``"softmax"``. The default is the book's sigmoid here, but linear in `Conv2D`.
    initializer
        Initial weights: ``"normal"`` (the book's chapter 1), ``"scaled_normal"`` (its chapter 3),
        ``"glorot"``, ``"he"``, ``"zeros"``; arrays: weights ``(units, inputs)``, or a pair of
        weights and biases ``(units,)``; or ``"auto"``: He for relu and leaky relu, else Glorot.
    bias
        Whether there are biases b.

    Raises
    ------
    ValueError
        For a value that is none of these.
    """

    units: int
    activation: str = "sigmoid"
    initializer: Initializer = "auto"
    _: KW_ONLY
    bias: bool = True

    keeps_z = True
    scales = True

    def __post_init__(self) -> None:
        checks.whole("units", self.units)
        checks.truth("bias", self.bias)
        activations.get(self.activation)
        initializers.check(self.initializer, self.bias)
        if self.activation == "softmax" and self.units == 1:
            raise ValueError("units is 1, but softmax of one unit is always 1; use sigmoid")

    @property
    def wants_ones(self) -> bool:
        return bool(self.bias)

    def outputs(self, inputs: Shape) -> Shape:
        vector(inputs, "Dense")
        return (int(self.units),)

    def parameters(self, inputs: Shape, layout: Layout) -> tuple[Parameter, ...]:
        return (layout.place(int(self.units), inputs[0], int(self.bias)),)

    def views(
        self, inputs: Shape, parameters: Sequence[Parameter], flat: Array
    ) -> dict[str, Array]:
        n, matrix = inputs[0], parameters[0].matrix(flat)
        return {"weights": matrix[:, :n]} | ({"biases": matrix[:, n]} if self.bias else {})

    def draw(self, inputs: Shape, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        shape = int(self.units), inputs[0]
        return initializers.draw(self.initializer, self.activation, rng, shape, self.bias)

    def multiplications(self, inputs: Shape) -> int:
        return int(self.units) * (inputs[0] + self.bias)

    def forward(self, backend: Backend, at: Memory) -> None:
        """Compute ``a = σ([x 1] [W b]ᵀ)``."""
        matrix = at.parameters[0].matrix(at.flat)
        backend.gemm(at.inputs.augmented, matrix.T, out=at.z.values, alpha=at.scale)
        self.function.forward(backend, at.z, out=at.outputs)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        """Compute ``∂C/∂x = δ W`` and ``∂C/∂[W b] = δᵀ [x 1]`` (Nielsen, BP2 to BP4)."""
        assert at.delta is not None
        (parameter,), delta = at.parameters, at.delta.values
        if at.input_delta is not None:  # first, since the gradient may go straight into W
            weights = parameter.matrix(at.flat)[:, : parameter.weights]
            backend.gemm(delta, weights, out=at.input_delta.values)
        gradient(parameter, delta.T, at.inputs.augmented, at.scale)
