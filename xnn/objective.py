"""Cost and gradient over all samples, for external solvers."""

from __future__ import annotations

import numpy as np

from .backends import Array
from .engine import Engine
from .passes import Backward
from .samples import Samples, scale

_ROWS = 1024  # the most samples in a block


class Objective:
    """The mean cost over samples, and its gradient, at the current parameters of a network.

    Compiled passes run forward and backward over blocks of samples. Dropout and augmentation are
    inactive.
    """

    def __init__(self, engine: Engine, samples: Samples) -> None:
        self.engine, self.n = engine, len(samples)
        if samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.samples = engine.upload(samples) if engine.fits(samples) else samples
        #: The gradient, laid out like the parameters.
        self.gradient: Array = engine.backend.zeros(engine.flat.shape, engine.dtype)
        self._nothing = engine.backend.zeros(engine.flat.shape, engine.dtype)
        factor, weighted = scale(self.samples.x.dtype), samples.weights is not None
        self._blocks = {
            rows: Backward(engine, rows, factor, weighted, self._add)
            for rows in {min(_ROWS, self.n), self.n % _ROWS or _ROWS}
        }
        # Rows of a single block are placed once and reread, so they must not be scaled in place.
        assert factor == 1 or engine.layers[0].scales
        self._placed = False

    def __call__(self) -> float:
        """Compute `gradient` and return the cost."""
        backend, cost = self.engine.backend, 0.0
        with self.engine.lock:
            backend.copy(self._nothing, self.gradient)
            for start in range(0, self.n, _ROWS):
                rows = min(_ROWS, self.n - start)
                block = self._blocks[rows]
                if self.n > _ROWS or not self._placed:  # a single block stays where it is
                    block.work.place(self.samples[start : start + rows])
                    self._placed = True
                block.replay()
                cost += float(backend.download(block.costs).sum(dtype=np.float64))
        return cost / self.n

    def _add(self, gradient: Array) -> None:
        """Add a block's share of the mean gradient, within its step."""
        sums = {"sum": self.gradient, "g": gradient, "n": self.n}
        self.engine.backend.elementwise("sum + g / n", self.gradient, **sums)
