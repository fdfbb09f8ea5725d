"""Base of layers that change images at random, only in training."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ..backends import Array, Backend
from ..parameters import Shape
from .base import Gradient, Layer, Memory, Site, image


class Augmentation(Layer):
    """Randomly changes images in training; otherwise passes them on unchanged.

    It must come before all layers that learn: in training there is no backward pass through it.
    """

    random = True

    def outputs(self, inputs: Shape) -> Shape:
        return image(inputs, type(self).__name__)

    def forward(self, backend: Backend, at: Memory) -> None:
        if at.training:
            self.change(backend, at)
        else:
            backend.copy(at.inputs.values, at.outputs.values)

    @abstractmethod
    def change(self, backend: Backend, at: Memory) -> None:
        """Compute ``at.outputs`` from ``at.inputs`` in training."""

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        """Pass on the error of unchanged images; in training no layer below learns."""
        if at.input_delta is not None and not at.training:
            assert at.delta is not None
            backend.copy(at.delta.values, at.input_delta.values)


@dataclass(frozen=True)
class Warp:
    """Memory for the source position of each pixel of a mini-batch."""

    uniform: Array  # (batch, numbers per sample): above 0 and at most 1
    down: Array  # (1, pixels): each pixel's row, from the middle of the image
    across: Array  # (1, pixels): its column
    rows: Array  # (batch, pixels): its source row
    columns: Array  # (batch, pixels): its source column

    @classmethod
    def make(cls, backend: Backend, site: Site, numbers: int) -> Warp:
        """Allocate for a mini-batch, with ``numbers`` random numbers per sample."""
        height, width, _ = site.shape
        down, across = np.indices((height, width), site.dtype).reshape(2, 1, -1)
        shape = site.batch, height * width
        return cls(
            backend.zeros((site.batch, numbers), site.dtype),
            backend.upload(down - down.dtype.type((height - 1) / 2)),
            backend.upload(across - across.dtype.type((width - 1) / 2)),
            backend.zeros(shape, site.dtype),
            backend.zeros(shape, site.dtype),
        )

    def sample(self, backend: Backend, at: Memory) -> None:
        """Interpolate each pixel from those around its source position."""
        images, out = at.inputs.shaped(at.shape), at.outputs.shaped(at.shape)
        backend.resample(images, self.rows, self.columns, out)


def column(values: Array, number: int) -> Array:
    """Return a column of a matrix, ``(n, 1)``."""
    return values[:, number : number + 1]
