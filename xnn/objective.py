"""Cost and gradient over all samples by the parameters: for solvers from elsewhere."""

from __future__ import annotations

import numpy as np

from .backends import Array, Replay
from .engine import Engine
from .parameters import Parameter, Rows
from .samples import Samples, scale
from .workspace import Score, Workspace

_ROWS = 1024  # the most samples in one go


class Objective:
    """The mean cost over samples, and its gradient, by the parameters that a network has.

    It runs forward and backward over blocks of samples, compiled. Nothing is dropped or changed at
    random.
    """

    def __init__(self, engine: Engine, samples: Samples) -> None:
        self.engine, self.n = engine, len(samples)
        if samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.samples = engine.upload(samples) if engine.fits(samples) else samples
        #: The gradient, in the places of the parameters.
        self.gradient: Array = engine.run.zeros(engine.flat.shape, engine.dtype)
        self._blocks = {
            size: self._block(size) for size in {min(_ROWS, self.n), self.n % _ROWS or _ROWS}
        }
        self._placed = False

    def __call__(self) -> float:
        """Compute `gradient` and return the cost."""
        run, cost = self.engine.run, 0.0
        with self.engine.lock:
            run.elementwise("0", self.gradient)
            for start in range(0, self.n, _ROWS):
                size = min(_ROWS, self.n - start)
                work, costs, replay = self._blocks[size]
                if self.n > _ROWS or not self._placed:  # a single block stays where it is
                    work.place(self.samples[start : start + size])
                    self._placed = True
                replay()
                cost += float(run.download(costs).sum(dtype=np.float64))
        return cost / self.n

    def _block(self, rows: int) -> tuple[Workspace, Array, Replay]:
        """Return room for so many samples, the cost of each, and what computes it."""
        engine, run = self.engine, self.engine.run
        weighted = self.samples.weights is not None
        work = Workspace(engine, rows, 1, scale(self.samples.x.dtype), backward=True)
        score = Score(engine, work, groups=rows, rows=rows)

        def add(
            parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
        ) -> None:
            matrix = parameter.matrix(self.gradient)
            run.gemm(left, right, matrix, alpha=factor / self.n, beta=1.0)

        def step() -> None:
            memories = work.memories(0)
            engine.forward(memories)
            weights = work.weights[:, None] if weighted else None
            engine.backward(memories, Rows.plain(work.targets), add, weights)
            score.record(None, weighted)

        return work, score.costs, run.compile(step)
