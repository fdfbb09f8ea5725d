"""Random affine transformations of images."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

from .. import checks
from ..backends import Backend
from .augmentation import Augmentation, Warp, column
from .base import Memory, Site


@dataclass(frozen=True, eq=False)
class RandomAffine(Augmentation):
    """In training, each image is shifted, rotated, scaled and sheared by random amounts.

    Amounts are uniform between plus and minus the given values, independent for each image. Pixels
    are interpolated between their four neighbours; those from outside the image are 0.

    Parameters
    ----------
    shift
        The most to shift, in pixels, down and across.
    rotation, shear
        The most to rotate and shear, in degrees; ``shear`` is less than 90.
    scale
        A share, less than 1: 0.1 makes images 0.9 to 1.1 times as large.

    Raises
    ------
    ValueError
        For values out of these ranges.
    """

    shift: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0

    def __post_init__(self) -> None:
        checks.not_negative("shift", self.shift)
        checks.not_negative("rotation", self.rotation)
        checks.share("scale", self.scale)
        wanted = "a number of at least 0 and less than 90"
        checks.number("shear", self.shear, wanted, least=0, below=90)

    def room(self, backend: Backend, site: Site) -> Any:
        """Return memory for source positions, and for each image's amounts ``(batch, 4)``."""
        if not site.training:
            return None
        return Warp.make(backend, site, numbers=5), backend.zeros((site.batch, 4), site.dtype)

    def change(self, backend: Backend, at: Memory) -> None:
        """Map each pixel to its source position, by the inverse transformation."""
        warp, amounts = at.own
        at.uniform(backend, warp.uniform)
        angle, size, slant, down, across = (column(warp.uniform, i) for i in range(5))
        cosine, sine, shear, row = (column(amounts, i) for i in range(4))
        turn, half, most = self.rotation * pi / 180, 2.0, self.shear * pi / 180
        # Divided by the factor of the scaling.
        larger = {"h": half, "u": size, "s": float(self.scale)}
        for formula, out in (("cos((h * a - 1) * t)", cosine), ("sin((h * a - 1) * t)", sine)):
            scaled = f"{formula} / (1 + (h * u - 1) * s)"
            backend.elementwise(scaled, out, a=angle, t=turn, **larger)
        tangent = "sin((h * k - 1) * m) / cos((h * k - 1) * m)"
        backend.elementwise(tangent, shear, h=half, k=slant, m=most)
        grid = {"y": warp.down, "x": warp.across, "c": cosine, "s": sine}
        backend.elementwise("c * y - s * x", warp.rows, **grid)
        formula = "c * x + s * y - k * r"
        backend.elementwise(formula, warp.columns, k=shear, r=warp.rows, **grid)
        moved = ((warp.rows, down, at.shape[0]), (warp.columns, across, at.shape[1]))
        for places, chance, length in moved:
            middle = {"p": float(self.shift), "m": (length - 1) / 2}
            backend.elementwise("(h * u - 1) * p + m", row, h=half, u=chance, **middle)
            backend.elementwise("x + b", places, x=places, b=row)
        warp.sample(backend, at)
