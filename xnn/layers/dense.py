"""The fully connected layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .. import activations, checks, initializers
from ..activations import Activation
from ..backends import Backend
from ..initializers import Drawn, Initializer
from ..parameters import Parameter
from .base import Gradient, Layer, Memory


@dataclass(frozen=True, eq=False)
class Dense(Layer):
    """Every output is a function of every input: ``a = σ(W x + b)``.

    Parameters
    ----------
    units
        The number of outputs.
    activation
        σ: ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"leaky_relu"``, ``"linear"`` or ``"softmax"``.
    initializer
        First weights: ``"normal"`` (the book's chapter 1), ``"scaled_normal"`` (its chapter 3),
        ``"glorot"``, ``"he"``, ``"zeros"``; arrays: weights ``(units, inputs)``, or a pair of
        weights and biases ``(units,)``; or ``"auto"``: He for relu and leaky relu, else Glorot.
    bias
        Whether there are biases b.

    Raises `ValueError` for a value that is none of these.
    """

    units: int
    activation: str = "sigmoid"
    initializer: Initializer = "auto"
    bias: bool = True

    def __post_init__(self) -> None:
        checks.whole("units", self.units)
        if not isinstance(self.bias, bool | np.bool_):
            raise ValueError(f"bias is {self.bias!r}, but must be True or False")
        activations.get(self.activation)
        initializers.check(self.initializer)
        if self.activation == "softmax" and self.units == 1:
            raise ValueError("units is 1, but softmax of one unit is always 1; take sigmoid")
        if isinstance(self.initializer, tuple) and not self.bias:
            raise ValueError("initializer has biases, but bias is False; give weights alone")

    @cached_property
    def function(self) -> Activation:  # type: ignore[override]
        return activations.get(self.activation)

    def outputs(self, inputs: int) -> int:
        return int(self.units)

    def parameter(self, inputs: int, start: int, row: Callable[[int], int]) -> Parameter:
        return Parameter(start, int(self.units), inputs, bool(self.bias), row(inputs + self.bias))

    def draw(self, inputs: int, rng: np.random.Generator) -> Drawn:
        initializer = self.initializer
        if isinstance(initializer, str) and initializer == "auto":
            initializer = "he" if "relu" in self.activation else "glorot"
        return initializers.draw(initializer, rng, int(self.units), inputs)

    def forward(self, run: Backend, at: Memory) -> None:
        """Compute ``a = σ([x 1] [W b]ᵀ)``."""
        run.gemm(at.inputs.augmented, at.matrix.T, out=at.z.values, alpha=at.scale)
        self.function.forward(run, at.z, out=at.outputs)

    def backward(self, run: Backend, at: Memory, gradient: Gradient) -> None:
        """Compute ``∂C/∂x = δ W`` and ``∂C/∂[W b] = δᵀ [x 1]`` (Nielsen, BP2 to BP4)."""
        assert at.delta is not None
        delta = at.delta.values
        if at.input_delta is not None:  # first, for the gradient may land in W itself
            run.gemm(delta, at.matrix[:, : at.parameter.weights], out=at.input_delta.values)
        gradient(at.parameter, delta.T, at.inputs.augmented, at.scale)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": "dense",
            "units": int(self.units),
            "activation": self.activation,
            "initializer": self.initializer if isinstance(self.initializer, str) else "auto",
            "bias": bool(self.bias),
        }
