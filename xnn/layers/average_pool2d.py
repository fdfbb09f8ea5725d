"""Average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends import Backend
from .base import Gradient, Memory, Site
from .geometry import Padding
from .pooling import Pool2D


@dataclass(frozen=True, eq=False)
class AveragePool2D(Pool2D):
    """The mean of each window, without padding pixels; for parameters see `MaxPool2D`."""

    size: int | tuple[int, int] = 2
    stride: int | tuple[int, int] | None = None
    padding: Padding = "valid"

    def room(self, backend: Backend, site: Site) -> Any:
        """Return 1 / pixels of each window ``(1, outputs)``, and memory for deltas times that."""
        height, width, channels = self.outputs(site.shape)
        down, across = (
            np.bincount(
                np.concatenate(
                    [
                        np.arange(places)[self.window.meets(axis, offset, site.shape[axis])[1]]
                        for offset in range(self.window.size[axis])
                    ]
                ),
                minlength=places,
            )
            for axis, places in enumerate((height, width))
        )
        shares = np.repeat(1 / np.outer(down, across).ravel(), channels).astype(site.dtype)
        return backend.upload(shares[None]), backend.zeros((site.batch, shares.size), site.dtype)

    def forward(self, backend: Backend, at: Memory) -> None:
        images, out = at.inputs.shaped(at.shape), at.outputs.shaped(self.outputs(at.shape))
        backend.sum_pool(images, out, self.window)
        backend.elementwise("a * s", at.outputs.values, a=at.outputs.values, s=at.own[0])

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is not None:
            assert at.delta is not None
            shares, shared = at.own
            backend.elementwise("d * s", shared, d=at.delta.values, s=shares)
            spread = shared.reshape(-1, *self.outputs(at.shape))
            backend.sum_pool_backward(spread, at.input_delta.shaped(at.shape), self.window)
