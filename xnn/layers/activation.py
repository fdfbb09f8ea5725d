"""An activation function as a layer of its own."""

from __future__ import annotations

from dataclasses import dataclass

from .. import activations
from ..backends import Backend
from ..parameters import Rows, Shape
from .base import Gradient, Layer, Memory, vector


@dataclass(frozen=True, eq=False)
class Activation(Layer):
    """``a = σ(z)`` of each number, or of each sample for softmax; for names see `Dense`.

    Raises `ValueError` for an unknown name.
    """

    activation: str

    def __post_init__(self) -> None:
        activations.get(self.activation)

    def outputs(self, inputs: Shape) -> Shape:
        if self.activation == "softmax" and vector(inputs, "softmax") == 1:
            raise ValueError("softmax of one number is always 1; use sigmoid")
        return inputs

    def forward(self, backend: Backend, at: Memory) -> None:
        if _last(at):  # the cost may need z
            backend.copy(at.inputs.values, at.z.values)
        self.function.forward(backend, _plain(at.inputs), out=_plain(at.outputs))

    def delta(self, backend: Backend, at: Memory) -> None:
        """Convert ∂C/∂a to ∂C/∂z, which is ∂C/∂a of the layer below."""
        if at.input_delta is not None:
            delta, below = _plain(at.delta), _plain(at.input_delta)
            self.function.backward(backend, _plain(at.outputs), below, "e", e=delta)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        if _last(at) and at.input_delta is not None:  # else `delta` has done it
            backend.copy(_plain(at.delta).values, at.input_delta.values)


def _last(at: Memory) -> bool:
    """Return whether this is the last layer, the only one with z separate from its outputs."""
    return at.z is not at.outputs


def _plain(rows: Rows | None) -> Rows:
    """Return rows without padding, which may hold data of the neighbouring layers."""
    assert rows is not None
    return Rows.plain(rows.values)
