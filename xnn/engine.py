"""Layers bound to a device: parameters, workspaces, and the steps compiled for them.

All parameters are one flat buffer. Activations and deltas live in a workspace that is made once for
each batch size. A training step is written below as a reader would write it, layer by layer, and
compiled by the backend (`Backend.compile`), so that none of this Python runs while training does.

Several steps are compiled in a row, a *chunk*: their inputs are gathered and scaled in one go, and
their costs taken in one go, which for small networks costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Array, Backend, Replay
from .costs import Cost
from .layers import Gradient, Layer, Memory
from .optimizers import Optimizer, Updates
from .parameters import Parameter, Rows
from .samples import Samples, scale

_EVALUATION_ROWS = 512


class Engine:
    """A network's layers on a device.

    Parameters
    ----------
    layers, inputs, cost
        What the network is.
    run
        The backend of its device.
    dtype
        ``float32`` or ``float64``.
    """

    def __init__(
        self, layers: Sequence[Layer], inputs: int, cost: Cost, run: Backend, dtype: Any
    ) -> None:
        self.layers = tuple(layers)
        self.cost = cost
        self.run = run
        self.dtype = np.dtype(dtype)
        self.sizes = [inputs]
        self.parameters: list[Parameter] = []
        start = 0
        for layer in self.layers:
            parameter = layer.parameter(
                self.sizes[-1], start, lambda columns: run.padded(columns, self.dtype)
            )
            self.parameters.append(parameter)
            self.sizes.append(layer.outputs(self.sizes[-1]))
            start = parameter.stop
        self.flat = run.zeros((start,), self.dtype)
        self._inference: dict[tuple[int, float], _Inference] = {}
        #: Inference of one sample, by the shape and dtype of inputs that it takes as they come.
        self.ready: dict[tuple[tuple[int, ...], Any], _Inference] = {}

    @property
    def outputs(self) -> int:
        return self.sizes[-1]

    def upload(self, samples: Samples) -> Samples:
        """Return samples as arrays of the device."""
        up = self.run.upload
        return Samples(
            up(samples.x),
            None if samples.labels is None else up(samples.labels),
            None if samples.values is None else up(samples.values),
            samples.scoring,
        )

    def stage(self, batch: int) -> AbstractContextManager[None]:
        """Return what to train within, with mini-batches of so many samples."""
        return self.run.stage(batch * max(parameter.size for parameter in self.parameters))

    def forward(self, memories: Sequence[Memory]) -> None:
        """Run a mini-batch forward."""
        for layer, memory in zip(self.layers, memories, strict=True):
            layer.forward(self.run, memory)

    def backward(self, memories: Sequence[Memory], targets: Rows, gradient: Gradient) -> None:
        """Run a mini-batch backward, after `forward`; hand each gradient to ``gradient``."""
        last, function = memories[-1], self.layers[-1].function
        assert last.delta is not None
        self.cost.output_delta(self.run, function, last.outputs, targets, out=last.delta)
        for layer, memory in zip(reversed(self.layers), reversed(memories), strict=True):
            if memory is not last:
                layer.delta(self.run, memory)
            layer.backward(self.run, memory, gradient)

    def inference(self, rows: int, dtype: Any) -> _Inference:
        """Return what runs forward ``rows`` rows of inputs, or more, up to `_EVALUATION_ROWS`."""
        # Powers of two, so that there are few of them however many sizes are asked for.
        key = min(1 << (rows - 1).bit_length(), _EVALUATION_ROWS), scale(dtype)
        if key not in self._inference:
            self._inference[key] = _Inference(self, *key)
        return self._inference[key]

    def predict(self, x: NDArray[Any]) -> NDArray[Any]:
        """Return the outputs ``(n, outputs)`` for checked inputs ``(n, inputs)`` of the host."""
        result = np.empty((len(x), self.outputs), self.dtype)
        for start in range(0, len(x), _EVALUATION_ROWS):
            rows = x[start : start + _EVALUATION_ROWS]
            inference = self.inference(len(rows), x.dtype)
            inference.load(rows)
            inference.replay()
            result[start : start + len(rows)] = self.run.download(inference.outputs[: len(rows)])
        return result

    def make_ready(self, x: NDArray[Any]) -> None:
        """Make the short way for inputs ``(1, inputs)`` of this dtype."""
        self.ready[x.shape, x.dtype] = self.inference(1, x.dtype)

    def evaluate(self, samples: Samples) -> tuple[float, float | None]:
        """Return cost and accuracy over samples that lie on the device.

        The accuracy is None where targets are values of a regression.
        """
        run, n = self.run, len(samples)
        costs = run.zeros((n,), self.dtype)
        hits = run.zeros((n,), self.dtype)
        scorers: dict[int, _Scorer] = {}
        for start in range(0, n, _EVALUATION_ROWS):
            stop = min(start + _EVALUATION_ROWS, n)
            inference = self.inference(stop - start, samples.x.dtype)
            if inference.rows not in scorers:
                scorers[inference.rows] = _Scorer(self, inference, samples)
            scorer = scorers[inference.rows]
            inference.load(samples.x[start:stop])
            scorer.load(samples, start, stop)
            inference.replay()
            scorer.replay()
            run.copy(scorer.costs[: stop - start], costs[start:stop])
            run.copy(scorer.hits[: stop - start], hits[start:stop])
        cost = float(run.download(costs).mean(dtype=np.float64))
        if samples.scoring is None:
            return cost, None
        return cost, float(run.download(hits).mean(dtype=np.float64))

    def gradients(self, samples: Samples) -> list[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Return each layer's gradients of the mean cost, weights and biases, on the host."""
        n = len(samples)
        flat = self.run.zeros(self.flat.shape, self.dtype)
        workspace = Workspace(self, n, 1, scale(samples.x.dtype))
        workspace.load(samples, self.run.upload(np.arange(n)))

        def gradient(parameter: Parameter, left: Array, right: Array, factor: float) -> None:
            self.run.gemm(left, right, parameter.matrix(flat), alpha=factor / n)

        memories = workspace.memories(0)
        self.forward(memories)
        self.backward(memories, Rows.plain(workspace.targets), gradient)
        return self.split(flat)

    def split(self, flat: Array) -> list[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Return the weights and biases of each layer in a flat buffer, as arrays of the host."""
        down = self.run.download
        return [
            (down(w), None if b is None else down(b))
            for w, b in (self.views(parameter, flat) for parameter in self.parameters)
        ]

    def views(self, parameter: Parameter, flat: Array) -> tuple[Array, Array | None]:
        """Return views of a layer's weights and biases in a flat buffer."""
        matrix = parameter.matrix(flat)
        n = parameter.weights
        return matrix[:, :n], matrix[:, n] if parameter.bias else None


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
        self.targets = run.zeros((rows, sizes[-1]), dtype)
        self.labels = run.zeros((rows,), np.intp)
        self._identity: Array | None = None

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
        activations = [self._first[rows], *self._hidden, outputs]
        between: list[Rows | None] = list(self._deltas) or [None] * len(self._hidden)
        deltas = [None, *between, self._output_delta]
        return [
            Memory(
                inputs=activations[i],
                scale=self.scale if i == 0 else 1.0,
                z=[*self._z, outputs][i],
                outputs=activations[i + 1],
                parameter=parameter,
                matrix=parameter.matrix(self.engine.flat),
                delta=deltas[i + 1],
                input_delta=deltas[i],
            )
            for i, parameter in enumerate(self.engine.parameters)
        ]

    def load(self, samples: Samples, index: Array) -> None:
        """Gather samples of the device into the workspace."""
        self.engine.run.gather(samples.x, index, self.inputs[: len(index)])
        self.load_targets(samples, index)

    def load_targets(self, samples: Samples, index: Array) -> None:
        """Gather targets, and the classes that they name."""
        run, rows = self.engine.run, len(index)
        targets, labels = self.targets[:rows], self.labels[:rows]
        if samples.labels is not None:
            run.gather(samples.labels, index, labels)
            if self._identity is None:
                self._identity = run.upload(np.eye(self.engine.outputs, dtype=self.engine.dtype))
            run.gather(self._identity, labels, targets)
        else:
            run.gather(samples.values, index, targets)
            if samples.scoring == "argmax":
                run.argmax(targets, labels)


class _Score:
    """Cost and right answers of rows of outputs, summed in groups."""

    def __init__(self, engine: Engine, work: Workspace, groups: int, rows: int) -> None:
        self.engine, self.work, self.groups, self.rows = engine, work, groups, rows
        run, dtype = engine.run, engine.dtype
        self.costs = run.zeros((groups,), dtype)
        self.hits = run.zeros((groups,), dtype)
        self._values = run.zeros((rows, engine.outputs), dtype)
        self._classes = run.zeros((rows,), np.intp)
        self._right = run.zeros((rows,), dtype)

    def record(self, scoring: str | None) -> None:
        """Fill `costs` and `hits` from the workspace's outputs."""
        run, rows, groups = self.engine.run, self.rows, self.groups
        a, y = self.work.outputs[:rows], self.work.targets[:rows]
        self.engine.cost.values(run, a, y, out=self._values)
        run.row_sums(self._values.reshape(groups, -1), self.costs)
        if scoring == "argmax":
            labels = self.work.labels[:rows]
            run.argmax(a, self._classes)
            run.elementwise("abs(c - l) < 0.5", self._right, c=self._classes, l=labels)
        elif scoring == "threshold":
            run.elementwise("abs((a > 0.5) - y) < 0.5", self._right[:, None], a=a, y=y)
        if scoring is not None:
            run.row_sums(self._right.reshape(groups, -1), self.hits)


@dataclass
class _Chunk:
    """Some training steps in a row, compiled."""

    steps: int
    samples: int
    index: Array
    rates: Array
    costs: Array  # (steps,) summed over each mini-batch
    hits: Array
    replay: Replay


class Trainer:
    """Training steps over samples that lie on the device, compiled for one optimizer."""

    def __init__(self, engine: Engine, samples: Samples, batch: int, optimizer: Optimizer) -> None:
        self.engine = engine
        self.samples = samples
        run, n = engine.run, len(samples)
        self.batch = batch = min(batch, n)
        self.steps = -(-n // batch)
        self.updates = optimizer.start(run, engine.flat, engine.parameters, n)
        row = run.padded(engine.sizes[0] + 1, engine.dtype) * engine.dtype.itemsize
        full, last = divmod(n, batch)
        most = max(1, min(run.chunk_bytes // (batch * row), run.chunk_steps, full))
        whole, rest = divmod(full, most)
        factor = scale(samples.x.dtype)
        work = Workspace(engine, batch, most, factor)
        self.plan: list[_Chunk] = [self._chunk(work, most)] * whole
        if rest:
            self.plan.append(self._chunk(work, rest))
        if last:
            self.plan.append(self._chunk(Workspace(engine, last, 1, factor), 1))
        self._costs = run.zeros((self.steps,), engine.dtype)
        self._hits = run.zeros((self.steps,), engine.dtype)
        self._sizes = np.full(self.steps, batch)
        self._sizes[-1] = last or batch

    def epoch(self, order: NDArray[np.intp], rates: NDArray[np.float64]) -> Iterator[int]:
        """Train on all samples in ``order``; yield after each chunk how many steps are done.

        ``rates`` holds the learning rate of each step.
        """
        run = self.engine.run
        order, rates = run.upload(order), run.upload(rates.astype(self.engine.dtype))
        sample = step = 0
        for chunk in self.plan:
            done = slice(step, step + chunk.steps)
            run.copy(order[sample : sample + chunk.samples], chunk.index)
            run.copy(rates[done], chunk.rates)
            chunk.replay()
            run.copy(chunk.costs, self._costs[done])
            run.copy(chunk.hits, self._hits[done])
            sample, step = sample + chunk.samples, done.stop
            yield step

    def figures(self, steps: int) -> tuple[float, float | None, int | None]:
        """Return mean cost and accuracy over the first steps of this epoch, as they were met.

        Last, the first step whose cost is not finite, or None.
        """
        costs = self.engine.run.download(self._costs[:steps]).astype(np.float64)
        hits = self.engine.run.download(self._hits[:steps]).astype(np.float64)
        samples = self._sizes[:steps].sum()
        bad = np.flatnonzero(~np.isfinite(costs))
        accuracy = None if self.samples.scoring is None else float(hits.sum() / samples)
        return float(costs.sum() / samples), accuracy, int(bad[0]) if len(bad) else None

    def _chunk(self, work: Workspace, steps: int) -> _Chunk:
        engine, run = self.engine, self.engine.run
        rows = steps * work.batch
        index = run.zeros((rows,), np.intp)
        rates = run.zeros((steps,), engine.dtype)
        score = _Score(engine, work, steps, rows)
        samples, updates = self.samples, self.updates

        def train() -> None:
            work.load(samples, index)
            step = updates.begin(rates, work.batch)
            for i in range(steps):
                step.at = i
                memories = work.memories(i)
                batch = slice(i * work.batch, (i + 1) * work.batch)
                engine.forward(memories)
                engine.backward(memories, Rows.plain(work.targets[batch]), step.gradient)
                step.apply()
            score.record(samples.scoring)

        return _Chunk(steps, rows, index, rates, score.costs, score.hits, run.compile(train))


class _Inference:
    """Forward for some rows, compiled."""

    def __init__(self, engine: Engine, rows: int, scale: float) -> None:
        self.rows = rows
        self.run = engine.run
        self.work = Workspace(engine, rows, 1, scale, training=False)
        self.inputs = self.work.inputs
        self.outputs = self.work.outputs
        memories = self.work.memories(0)
        self.replay = engine.run.compile(lambda: engine.forward(memories))
        self._copy, self._download = engine.run.copy, engine.run.download

    def __call__(self, x: Array) -> Any:
        """Return the outputs for ``rows`` rows of inputs of the host: the short way."""
        self._copy(x, self.inputs)
        self.replay()
        return self._download(self.outputs)

    def load(self, x: Array) -> None:
        """Take rows of inputs, at most as many as there is room for."""
        self.run.copy(x, self.inputs[: len(x)])


class _Scorer:
    """Cost and right answers of each row, compiled."""

    def __init__(self, engine: Engine, inference: _Inference, samples: Samples) -> None:
        self.work = inference.work
        self.index = engine.run.upload(np.arange(len(samples)))
        score = _Score(engine, self.work, inference.rows, inference.rows)
        self.costs, self.hits = score.costs, score.hits
        self.replay = engine.run.compile(lambda: score.record(samples.scoring))

    def load(self, samples: Samples, start: int, stop: int) -> None:
        self.work.load_targets(samples, self.index[start:stop])


__all__ = ["Engine", "Trainer", "Updates", "Workspace"]
