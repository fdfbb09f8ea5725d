"""The arrays for passes over samples, allocated once per size."""

from __future__ import annotations

import numpy as np

from .backends import Array
from .engine import Engine
from .layers import Memory, Site
from .parameters import Rows
from .samples import Samples, Scoring


class Workspace:
    """Inputs, outputs and targets of a network, for ``rows`` samples.

    ``scale`` is the factor for inputs. ``smoothing`` is the share of each target that is spread
    evenly over all classes (Szegedy et al. 2016). ``input_delta`` asks for ∂C/∂x.
    """

    def __init__(
        self,
        engine: Engine,
        rows: int,
        scale: float,
        *,
        smoothing: float = 0.0,
        input_delta: bool = False,
    ) -> None:
        self.engine = engine
        self.scale = scale
        backend, dtype, outputs = engine.backend, engine.dtype, engine.outputs
        self.first = _between(engine, 0, rows, 1 / scale)
        #: ∂C/∂x of the scaled inputs, or None.
        self.input_delta = _between(engine, 0, rows, 0.0) if input_delta else None
        self.outputs = backend.zeros((rows, outputs), dtype)
        self.weighted = backend.zeros((rows, outputs), dtype)
        self.targets = backend.zeros((rows, outputs), dtype)
        self.labels = backend.zeros((rows,), np.intp)
        self.weights = backend.zeros((rows,), dtype)
        self._smoothing = smoothing

    @property
    def inputs(self) -> Array:
        """The inputs divided by ``scale``, ``(rows, inputs)``."""
        return self.first.values

    def place_for(self, name: str) -> Array:
        """Return the destination of an array of `Samples`, by name."""
        places = {"x": self.inputs, "labels": self.labels, "values": self.targets}
        return {**places, "weights": self.weights}[name]

    def gather(self, samples: Samples, index: Array) -> None:
        """Gather the samples on the device that ``index`` selects, at most as many as rows."""
        for name, array in samples.arrays().items():
            self.engine.backend.gather(array, index, self.place_for(name)[: len(index)])
        self.complete(samples, len(index))

    def place(self, samples: Samples) -> None:
        """Copy samples from host or device, at most as many as rows."""
        for name, array in samples.arrays().items():
            self.engine.backend.copy(array, self.place_for(name)[: len(samples)])
        self.complete(samples, len(samples))

    def complete(self, samples: Samples, rows: int) -> None:
        """Convert labels to targets or the reverse, for samples like these."""
        backend, targets, labels = self.engine.backend, self.targets[:rows], self.labels[:rows]
        if samples.labels is not None:
            backend.gather(self.engine.one_hot, labels, targets)
        elif samples.scoring == "argmax":
            backend.argmax(targets, labels)
        if self._smoothing:
            keep, share = 1 - self._smoothing, self._smoothing / max(2, targets.shape[1])
            backend.elementwise("y * k + s", targets, y=targets, k=keep, s=share)


class Interior:
    """The arrays between inputs and outputs, for ``rows`` samples at a time.

    ``backward`` adds those for backpropagation. With ``rng_state``, the state of the random
    numbers, it is for training.
    """

    def __init__(
        self,
        engine: Engine,
        rows: int,
        scale: float,
        *,
        backward: bool = False,
        rng_state: Array | None = None,
    ) -> None:
        self.engine, self.rows = engine, rows
        backend, dtype, sizes, layers = engine.backend, engine.dtype, engine.sizes, engine.layers
        self._rng_state = rng_state
        later = range(1, len(layers))
        self._hidden = [_between(engine, i, rows, 1.0) for i in later]
        self._z = [
            _between(engine, i, rows, below.function.one) if below.keeps_z else hidden
            for i, below, hidden in zip(later, layers, self._hidden, strict=False)
        ]
        #: Of each layer's outputs.
        self._deltas: list[Rows | None] = [None] * len(layers)
        if backward:
            last = Rows.plain(backend.zeros((rows, sizes[-1]), dtype))
            self._deltas = [*(_between(engine, i, rows, 0.0) for i in later), last]
        self._sites = [
            Site(
                batch=rows,
                shape=engine.shapes[i],
                dtype=dtype,
                scale=scale if i == 0 else 1.0,
                training=rng_state is not None,
                backward=backward,
            )
            for i in range(len(layers))
        ]
        self._rooms = [
            layer.room(backend, site) for layer, site in zip(layers, self._sites, strict=True)
        ]

    def memories(self, work: Workspace, start: int = 0, first: int = 0) -> list[Memory]:
        """Return each layer's arrays for the samples of a workspace from row ``start`` on.

        ``first`` is the position of the first of them in its mini-batch.
        """
        engine, rows = self.engine, slice(start, start + self.rows)
        activations = [work.first[rows], *self._hidden, Rows.plain(work.outputs[rows])]
        weighted = [*self._z, Rows.plain(work.weighted[rows])]
        below = None if work.input_delta is None else work.input_delta[rows]
        deltas = [below, *self._deltas]
        return [
            Memory(
                **vars(self._sites[i]),
                inputs=activations[i],
                z=weighted[i],
                outputs=activations[i + 1],
                parameters=engine.parameters[i],
                flat=engine.flat,
                own=self._rooms[i],
                rng_state=self._rng_state,
                number=i,
                first=first,
                delta=deltas[i + 1],
                input_delta=deltas[i],
            )
            for i in range(len(engine.layers))
        ]


def _between(engine: Engine, number: int, rows: int, column: float) -> Rows:
    """Return rows for the inputs of a layer, followed by ``column`` if it wants ones."""
    size, dtype = engine.sizes[number], engine.dtype
    if len(engine.shapes[number]) > 1:
        return Rows.plain(engine.backend.zeros((rows, size), dtype))
    wanted = engine.layers[number].wants_ones
    return Rows.zeros(engine.backend, rows, size, dtype, column if wanted else None)


class Score:
    """Costs and hits (correct answers) of rows of outputs, summed in groups."""

    def __init__(self, engine: Engine, work: Workspace, groups: int, rows: int) -> None:
        self.engine, self.work, self.groups, self.rows = engine, work, groups, rows
        backend, dtype = engine.backend, engine.dtype
        self.costs = backend.zeros((groups,), dtype)
        self.hits = backend.zeros((groups,), dtype)
        self._values = backend.zeros((rows, engine.outputs), dtype)
        self._classes = backend.zeros((rows,), np.intp)
        self._right = backend.zeros((rows,), dtype)

    def record(self, scoring: Scoring, weighted: bool = False) -> None:
        """Fill `costs` and `hits` from the workspace's outputs."""
        backend, rows, groups = self.engine.backend, self.rows, self.groups
        work = self.work
        z, a, y = work.weighted[:rows], work.outputs[:rows], work.targets[:rows]
        self.engine.cost.values(backend, z, a, y, out=self._values)
        if weighted:
            weights = work.weights[:rows][:, None]
            backend.elementwise("v * w", self._values, v=self._values, w=weights)
        backend.row_sums(self._values.reshape(groups, -1), self.costs)
        if scoring == "argmax":
            labels = work.labels[:rows]
            backend.argmax(a, self._classes)
            backend.elementwise("abs(c - l) < 0.5", self._right, c=self._classes, l=labels)
        elif scoring == "threshold":
            backend.elementwise("abs((a > 0.5) - y) < 0.5", self._right[:, None], a=a, y=y)
        if scoring is not None:
            backend.row_sums(self._right.reshape(groups, -1), self.hits)

    def add(self, other: Score) -> None:
        """Add the costs and hits of other rows."""
        for mine, theirs in ((self.costs, other.costs), (self.hits, other.hits)):
            self.engine.backend.elementwise("a + b", mine, a=mine, b=theirs)
