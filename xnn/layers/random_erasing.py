"""Random erasing of rectangles in images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backends import Backend
from .augmentation import Augmentation, column
from .base import Memory, Site


@dataclass(frozen=True, eq=False)
class RandomErasing(Augmentation):
    """In training, a rectangle of each image is set to 0 (Zhong et al. 2020; DeVries 2017).

    Parameters
    ----------
    size
        The maximum sides of the rectangle, as a share of the image's, more than 0 and at most 1.
    probability
        The probability of erasing a rectangle, per image, in the same range.

    Raises
    ------
    ValueError
        For values out of these ranges.
    """

    size: float = 0.5
    probability: float = 0.5

    def __post_init__(self) -> None:
        within = "a number of more than 0 and at most 1"
        checks.number("size", self.size, within, above=0, most=1)
        checks.number("probability", self.probability, within, above=0, most=1)

    def room(self, backend: Backend, site: Site) -> Any:
        """Return memory for random numbers, the centres of all pixels, and memory for the mask."""
        if not site.training:
            return None
        height, width, channels = site.shape
        rows, columns = (
            np.repeat(part.reshape(1, -1) + part.dtype.type(0.5), channels, axis=1)
            for part in np.indices((height, width), site.dtype)
        )
        uniform = backend.zeros((site.batch, 5), site.dtype)
        mask = backend.zeros((site.batch, rows.size), site.dtype)
        return uniform, backend.upload(rows), backend.upload(columns), mask

    def change(self, backend: Backend, at: Memory) -> None:
        """Erase pixels within half a side of the rectangle's centre, in both directions."""
        uniform, rows, columns, mask = at.own
        at.uniform(backend, uniform)
        happens, *sides = (column(uniform, i) for i in range(5))
        options = {"e": happens, "p": float(self.probability), "u": sides[0], "v": sides[2]}
        formula = "(abs(y - u * h) < v * h * s / 2) * (abs(x - w * n) < z * n * s / 2)"
        backend.elementwise(
            f"1 - (e < p) * {formula}",
            mask,
            y=rows,
            h=float(at.shape[0]),
            x=columns,
            w=sides[1],
            n=float(at.shape[1]),
            z=sides[3],
            s=float(self.size),
            **options,
        )
        backend.elementwise("a * m", at.outputs.values, a=at.inputs.values, m=mask)
