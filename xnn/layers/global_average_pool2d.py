"""Global average pooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..backends import Backend, Window
from ..parameters import Shape
from .base import Gradient, Layer, Memory, Site, image


@dataclass(frozen=True, eq=False)
class GlobalAveragePool2D(Layer):
    """The mean of each channel: images become vectors (Lin et al. 2014)."""

    def outputs(self, inputs: Shape) -> Shape:
        return (image(inputs, "GlobalAveragePool2D")[2],)

    def room(self, backend: Backend, site: Site) -> Any:
        """Return memory for sums or deltas ``(batch, 1, 1, channels)``."""
        return backend.zeros((site.batch, 1, 1, site.shape[2]), site.dtype)

    def forward(self, backend: Backend, at: Memory) -> None:
        height, width, channels = at.shape
        backend.sum_pool(at.inputs.shaped(at.shape), at.own, Window((height, width)))
        sums = at.own.reshape(-1, channels)
        backend.elementwise("a * s", at.outputs.values, a=sums, s=1 / (height * width))

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is not None:
            assert at.delta is not None
            height, width, channels = at.shape
            shared, share = at.own.reshape(-1, channels), 1 / (height * width)
            backend.elementwise("d * s", shared, d=at.delta.values, s=share)
            backend.sum_pool_backward(
                at.own, at.input_delta.shaped(at.shape), Window((height, width))
            )
