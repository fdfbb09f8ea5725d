"""The arrays that mini-batches run in, made once for each size."""

from __future__ import annotations

import numpy as np

from .backends import Array
from .engine import Engine
from .layers import Memory
from .parameters import Rows
from .samples import Samples, Scoring


class Workspace:
    """The arrays for ``steps`` mini-batches of ``batch`` samples, run one after another.

    Each mini-batch has its own inputs, targets and outputs; what lies between is shared.
    """

    def __init__(
        self, engine: Engine, batch: int, steps: int, scale: float, training: bool = True
    ) -> None:
        self.engine = engine
        self.batch = batch
        self.scale = scale
        run, dtype, sizes = engine.run, engine.dtype, engine.sizes
        rows = batch * steps
        self.outputs = run.zeros((rows, sizes[-1]), dtype)
        self.weighted = run.zeros((rows, sizes[-1]), dtype)
        self.targets = run.zeros((rows, sizes[-1]), dtype)
        self.labels = run.zeros((rows,), np.intp)

        def between(layer: int, rows: int, column: float) -> Rows:
            """Return rows of inputs of a layer, and ``column`` behind where it has a bias."""
            bias = engine.parameters[layer].bias
            return Rows.zeros(run, rows, sizes[layer], dtype, column if bias else None)

        later = range(1, len(engine.layers))
        self._first = between(0, rows, 1 / scale)
        self._hidden = [between(i, batch, 1.0) for i in later]
        self._z = [between(i, batch, engine.layers[i - 1].function.one) for i in later]
        self._deltas = [between(i, batch, 0.0) for i in later] if training else []
        self._output_delta = Rows.plain(run.zeros((batch, sizes[-1]), dtype)) if training else None

    @property
    def inputs(self) -> Array:
        """The inputs divided by ``scale``, ``(steps · batch, inputs)``."""
        return self._first.values

    def memories(self, step: int) -> list[Memory]:
        """Return each layer's arrays for one of the mini-batches."""
        rows = slice(step * self.batch, (step + 1) * self.batch)
        outputs = Rows.plain(self.outputs[rows])
        weighted = Rows.plain(self.weighted[rows])
        activations = [self._first[rows], *self._hidden, outputs]
        between: list[Rows | None] = list(self._deltas) or [None] * len(self._hidden)
        deltas = [None, *between, self._output_delta]
        return [
            Memory(
                inputs=activations[i],
                scale=self.scale if i == 0 else 1.0,
                z=[*self._z, weighted][i],
                outputs=activations[i + 1],
                parameter=parameter,
                matrix=parameter.matrix(self.engine.flat),
                delta=deltas[i + 1],
                input_delta=deltas[i],
            )
            for i, parameter in enumerate(self.engine.parameters)
        ]

    def place_for(self, name: str) -> Array:
        """Return where an array of `Samples` goes, by its name."""
        return {"x": self.inputs, "labels": self.labels, "values": self.targets}[name]

    def gather(self, samples: Samples, index: Array) -> None:
        """Take the samples of the device that ``index`` names, as many as there are rows."""
        for name, array in samples.arrays().items():
            self.engine.run.gather(array, index, self.place_for(name)[: len(index)])
        self.complete(samples, len(index))

    def place(self, samples: Samples) -> None:
        """Take samples of host or device, at most as many as there are rows."""
        for name, array in samples.arrays().items():
            self.engine.run.copy(array, self.place_for(name)[: len(samples)])
        self.complete(samples, len(samples))

    def complete(self, samples: Samples, rows: int) -> None:
        """Make targets of labels, or the other way round; for samples like these."""
        run, targets, labels = self.engine.run, self.targets[:rows], self.labels[:rows]
        if samples.labels is not None:
            run.gather(self.engine.one_hot, labels, targets)
        elif samples.scoring == "argmax":
            run.argmax(targets, labels)


class Score:
    """Cost and right answers of rows of outputs, summed in groups."""

    def __init__(self, engine: Engine, work: Workspace, groups: int, rows: int) -> None:
        self.engine, self.work, self.groups, self.rows = engine, work, groups, rows
        run, dtype = engine.run, engine.dtype
        self.costs = run.zeros((groups,), dtype)
        self.hits = run.zeros((groups,), dtype)
        self._values = run.zeros((rows, engine.outputs), dtype)
        self._classes = run.zeros((rows,), np.intp)
        self._right = run.zeros((rows,), dtype)

    def record(self, scoring: Scoring) -> None:
        """Fill `costs` and `hits` from the workspace's outputs."""
        run, rows, groups = self.engine.run, self.rows, self.groups
        work = self.work
        z, a, y = work.weighted[:rows], work.outputs[:rows], work.targets[:rows]
        self.engine.cost.values(run, z, a, y, out=self._values)
        run.row_sums(self._values.reshape(groups, -1), self.costs)
        if scoring == "argmax":
            labels = work.labels[:rows]
            run.argmax(a, self._classes)
            run.elementwise("abs(c - l) < 0.5", self._right, c=self._classes, l=labels)
        elif scoring == "threshold":
            run.elementwise("abs((a > 0.5) - y) < 0.5", self._right[:, None], a=a, y=y)
        if scoring is not None:
            run.row_sums(self._right.reshape(groups, -1), self.hits)
