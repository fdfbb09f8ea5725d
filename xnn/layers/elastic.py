"""Images deformed at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import checks
from ..backends import Array, Backend
from ..parameters import Shape
from .augmentation import Augmentation, Warp
from .base import Memory, Site


@dataclass(frozen=True, eq=False)
class ElasticTransform(Augmentation):
    """In training, each image is deformed elastically (Simard et al. 2003).

    Each pixel is moved, down and across, by random numbers on a grid of points ``smoothness``
    pixels apart, each number spread by a Gaussian of the same width.

    Parameters
    ----------
    amount
        The standard deviation of the displacements, in pixels.
    smoothness
        The width of the Gaussians in pixels, a positive number.

    Raises
    ------
    ValueError
        For values out of these ranges.
    """

    amount: float = 1.0
    smoothness: float = 4.0

    def __post_init__(self) -> None:
        checks.not_negative("amount", self.amount)
        checks.positive("smoothness", self.smoothness)

    def _bells(self, shape: Shape) -> Any:
        """Return how far each grid point moves each pixel: ``(points, height · width)``."""
        along = []
        for length in shape[:2]:
            points = np.arange(-self.smoothness, length + self.smoothness, self.smoothness)
            apart = (np.arange(length) - points[:, None]) / self.smoothness
            along.append(np.exp(-(apart**2) / 2))
        bells = np.einsum("iy,jx->ijyx", *along).reshape(len(along[0]) * len(along[1]), -1)
        # The numbers are uniform from -1 to 1, with variance 1/3, and their variances add up.
        return bells * (self.amount / np.sqrt((bells**2).sum(0) / 3))

    def room(self, backend: Backend, site: Site) -> Any:
        """Return the Gaussians, and memory for the source positions of pixels."""
        if not site.training:
            return None
        bells = self._bells(site.shape).astype(site.dtype)
        return backend.upload(bells), Warp.make(backend, site, numbers=2 * len(bells))

    def change(self, backend: Backend, at: Memory) -> None:
        bells, warp = at.own
        at.uniform(backend, warp.uniform)
        backend.elementwise("2 * u - 1", warp.uniform, u=warp.uniform)
        n = len(bells)
        sides: tuple[tuple[Array, Array, Array, int], ...] = (
            (warp.uniform[:, :n], warp.down, warp.rows, at.shape[0]),
            (warp.uniform[:, n:], warp.across, warp.columns, at.shape[1]),
        )
        for uniform, grid, places, length in sides:
            backend.gemm(uniform, bells, out=places)
            backend.elementwise("d + g + m", places, d=places, g=grid, m=(length - 1) / 2)
        warp.sample(backend, at)
