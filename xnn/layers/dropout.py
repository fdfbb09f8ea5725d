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
    """In training, sets numbers to 0 at random and scales the others up (Srivastava et al. 2014).

    Otherwise it does nothing. The same seed gives the same masks on every device.

    Parameters
    ----------
    rate
        The probability of each number to be dropped, at least 0 and less than 1.

    Raises `ValueError` for any other rate.
    """

    rate: float = 0.5

    random = True

    def __post_init__(self) -> None:
        wanted = "a number of at least 0 and less than 1"
        checks.number("rate", self.rate, wanted, least=0, below=1)

    def outputs(self, inputs: Shape) -> Shape:
        return inputs

    def room(self, run: Backend, site: Site) -> Any:
        """Return the mask: 0, or what to scale up by."""
        return run.zeros((site.batch, prod(site.shape)), site.dtype) if site.training else None

    def forward(self, run: Backend, at: Memory) -> None:
        if not at.training:
            run.copy(at.inputs.values, at.outputs.values)
            return
        assert at.dice is not None
        mask, rate = at.own, float(self.rate)
        run.uniform(at.dice, at.number, mask)
        run.elementwise("(rate < u) * k", mask, rate=rate, u=mask, k=1 / (1 - rate))
        run.elementwise("x * m", at.outputs.values, x=at.inputs.values, m=mask)

    def backward(self, run: Backend, at: Memory, gradient: Gradient) -> None:
        if at.input_delta is None:
            return
        assert at.delta is not None
        if at.training:
            run.elementwise("d * m", at.input_delta.values, d=at.delta.values, m=at.own)
        else:
            run.copy(at.delta.values, at.input_delta.values)
