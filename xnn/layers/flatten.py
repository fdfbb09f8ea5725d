"""Flattening of samples to vectors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from ..parameters import Shape
from .reshape import Reshaping


@dataclass(frozen=True, eq=False)
class Flatten(Reshaping):
    """Flattens each sample to a vector, row by row."""

    def outputs(self, inputs: Shape) -> Shape:
        return (prod(inputs),)
