"""Max pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Backend
from .base import Gradient, Memory, Site
from .geometry import Padding
from .pooling import Pool2D


@dataclass(frozen=True, eq=False)
class MaxPool2D(Pool2D):
    """The maximum of each window. Among equal maxima the first receives the gradient.

    Parameters
    ----------
    size
        The window: a number, or a pair (height, width).
    stride
        The step of the window in pixels; defaults to its size.
    padding
        As in `Conv2D`; padding pixels are never the maximum.

    Raises
    ------
    ValueError
        For a value that is none of these.
    """

    size: int | tuple[int, int] = 2
    stride: int | tuple[int, int] | None = None
    padding: Padding = "valid"

    def room(self, backend: Backend, site: Site) -> Any:
        """Return memory for the index of each maximum in its window."""
        kind = np.uint8 if np.prod(self.window.size) <= 256 else np.int32
        return backend.zeros((site.batch, *self.outputs(site.shape)), kind)

    def forward(self, backend: Backend, at: Memory) -> None:
        images, out = at.inputs.shaped(at.shape), at.outputs.shaped(self.outputs(at.shape))
        backend.max_pool(images, out, at.own, self.window)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is not None:
            assert at.delta is not None
            delta, below = at.delta.shaped(self.outputs(at.shape)), at.input_delta.shaped(at.shape)
            backend.max_pool_backward(delta, at.own, below, self.window)
