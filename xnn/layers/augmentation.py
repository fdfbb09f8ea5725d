"""What layers share that change images at random, in training alone."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from ..backends import Array, Backend
from ..parameters import Shape
from .base import Gradient, Layer, Memory, Site, image


class Augmentation(Layer):
    """Images as they might have been as well; otherwise images as they are.

    It goes before all layers that learn: in training there is no way back through it.
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
        """Pass on the error of images as they are; in training nothing below learns."""
        if at.input_delta is not None and not at.training:
            assert at.delta is not None
            backend.copy(at.delta.values, at.input_delta.values)


@dataclass(frozen=True)
class Warp:
    """Room for where each pixel of a mini-batch comes from."""

    uniform: Array  # (batch, numbers a sample): above 0 and at most 1
    down: Array  # (1, pixels): each pixel's row, from the middle of the image
    across: Array  # (1, pixels): its column
    rows: Array  # (batch, pixels): where it comes from
    columns: Array  # (batch, pixels)

    @classmethod
    def make(cls, backend: Backend, site: Site, numbers: int) -> Warp:
        """Return room for a mini-batch, and so many random numbers a sample."""
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
        """Take each pixel from between those around the place it comes from."""
        images, out = at.inputs.shaped(at.shape), at.outputs.shaped(at.shape)
        backend.resample(images, self.rows, self.columns, out)


def column(values: Array, number: int) -> Array:
    """Return a column of a matrix as one ``(n, 1)``."""
    return values[:, number : number + 1]
