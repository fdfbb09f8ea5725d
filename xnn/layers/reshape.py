"""Reshaping of samples."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from .. import checks
from ..backends import Backend
from ..parameters import Shape
from .base import Gradient, Layer, Memory, shown


class Reshaping(Layer):
    """Base class of layers that only change the shape."""

    def forward(self, backend: Backend, at: Memory) -> None:
        backend.copy(at.inputs.values, at.outputs.values)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is not None:
            assert at.delta is not None
            backend.copy(at.delta.values, at.input_delta.values)


@dataclass(frozen=True, eq=False)
class Reshape(Reshaping):
    """Reshapes each sample to the given shape, row by row.

    Raises `ValueError` if ``shape`` is not one number, or three: height, width, channels.
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        given = self.shape
        if not isinstance(given, tuple | list) or len(given) not in (1, 3):
            raise ValueError(
                f"shape is {given!r}, but must be (features,) or (height, width, channels)"
            )
        object.__setattr__(self, "shape", tuple(checks.whole("shape", n) for n in given))

    def outputs(self, inputs: Shape) -> Shape:
        if prod(inputs) != prod(self.shape):
            raise ValueError(
                f"Reshape to {shown(self.shape)} needs {prod(self.shape)} numbers, "
                f"but the samples are {shown(inputs)}, {prod(inputs)} numbers"
            )
        return self.shape
