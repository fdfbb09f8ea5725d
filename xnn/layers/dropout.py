"""Dropout."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from .. import checks
from ..backends import Backend
from ..parameters import Shape
from .base import Gradient, Layer, Memory, Site


@dataclass(frozen=True, eq=False)
class Dropout(Layer):
    """In training, sets numbers to 0 at random and scales up the rest (Srivastava et al. 2014).

    Otherwise it does nothing. The same seed gives the same masks on every device.

    Parameters
    ----------
    rate
        The probability of dropping each number, at least 0 and less than 1.
    scale_training
        If False, numbers are not scaled up in training, but multiplied by 1 - rate in prediction,
        as in the paper and the book. The next layer's weights come out smaller by that factor, and
        need another learning rate.

    Raises
    ------
    ValueError
        For invalid values.
    """

    rate: float = 0.5
    scale_training: bool = True

    random = True

    def __post_init__(self) -> None:
        checks.share("rate", self.rate)
        checks.truth("scale_training", self.scale_training)

    def outputs(self, inputs: Shape) -> Shape:
        return inputs

    def room(self, backend: Backend, site: Site) -> Any:
        """Return memory for the mask: 0, or the factor to scale up by."""
        return backend.zeros((site.batch, prod(site.shape)), site.dtype) if site.training else None

    def forward(self, backend: Backend, at: Memory) -> None:
        x, out, rate = at.inputs.values, at.outputs.values, float(self.rate)
        if at.training:
            at.uniform(backend, at.own)
            up = 1 / (1 - rate) if self.scale_training else 1.0
            backend.elementwise("(rate < u) * k", at.own, rate=rate, u=at.own, k=up)
            backend.elementwise("x * m", out, x=x, m=at.own)
        elif self.scale_training:
            backend.copy(x, out)
        else:
            backend.elementwise("x * k", out, x=x, k=1 - rate)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is None:
            return
        assert at.delta is not None
        delta, below = at.delta.values, at.input_delta.values
        if at.training:
            backend.elementwise("d * m", below, d=delta, m=at.own)
        elif self.scale_training:
            backend.copy(delta, below)
        else:
            backend.elementwise("d * k", below, d=delta, k=1 - float(self.rate))
