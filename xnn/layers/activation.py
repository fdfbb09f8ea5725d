"""An activation function as a layer of its own."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .. import activations
from ..backends import Backend
from ..parameters import Shape
from .base import Gradient, Layer, Memory, vector


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """``a = σ(z)`` of each number, or of each sample for softmax; for names see `Dense`.

    Raises `ValueError` for a name that is not known.
    """

    activation: str

    keeps_z = True

    def __post_init__(self) -> None:
        activations.get(self.activation)

    @cached_property
    def function(self) -> activations.Activation:  # type: ignore[override]
        return activations.get(self.activation)

    def outputs(self, inputs: Shape) -> Shape:
        if self.activation == "softmax" and vector(inputs, "softmax") == 1:
            raise ValueError("softmax of one number is always 1; take sigmoid")
        return inputs

    def forward(self, run: Backend, at: Memory) -> None:
        run.copy(at.inputs.values, at.z.values)
        self.function.forward(run, at.z, out=at.outputs)

    def backward(self, run: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is not None:
            assert at.delta is not None
            run.copy(at.delta.values, at.input_delta.values)
