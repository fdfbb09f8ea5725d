"""A network as it is: outputs, cost and accuracy, gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Array
from .engine import Engine, meet
from .passes import Backward, split
from .samples import Samples, SparseRows, scale
from .workspace import Interior, Score, Workspace

_BYTES = 16 * 1024 * 1024  # what samples that run in one go may take, with all between the layers
_KEPT = 4  # sizes for which what runs backward is kept: whoever asks once often asks again


class Inference:
    """Runs an engine forward, a block of samples at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        sample = sum(engine.sizes) * engine.dtype.itemsize
        #: The most samples in a block, a power of two.
        self.most = 1 << min(12, max(6, (_BYTES // sample).bit_length() - 1))
        self._forwards: dict[tuple[Any, ...], Forward] = {}
        self._backwards: dict[tuple[int, float], Backward] = {}
        #: What takes one sample as it comes, by its shape ``(1, inputs)`` and dtype.
        self.ready: dict[tuple[tuple[int, ...], Any], Callable[[Any], Any | None]] = {}

    def forward(
        self, rows: int, dtype: Any, lane: int = 0, samples: Samples | None = None
    ) -> Forward:
        """Return what runs ``rows`` samples of a dtype forward, or more, up to `most`.

        Where there are samples, targets like theirs are scored. What is for one lane may run beside
        what is for another.
        """
        # Powers of two, so that there are few of them however many sizes are asked for.
        rows = min(1 << (rows - 1).bit_length(), self.most)
        kind = None if samples is None else (samples.labels is None, samples.scoring)
        key = rows, scale(dtype), lane, kind
        if key not in self._forwards:
            self._forwards[key] = Forward(self.engine, rows, scale(dtype), lane, samples)
        return self._forwards[key]

    def predict(self, x: Array, finite: bool = False) -> Array:
        """Return the outputs ``(n, outputs)`` for checked inputs ``(n, inputs)``.

        They are where the inputs are: on the host, or on the device. Where ``finite``, that the
        inputs are finite has not been checked, and the answer is None where they are not, see
        `make_ready`.
        """
        engine, shape = self.engine, (len(x), self.engine.outputs)
        run, host = engine.run, isinstance(x, np.ndarray | SparseRows)
        result = np.empty(shape, engine.dtype) if host else run.zeros(shape, engine.dtype)
        fine = [True]

        def predict(forward: Forward, rows: slice) -> None:
            inputs, out = x[rows], result[rows]
            run.copy(inputs, forward.inputs[: len(inputs)])
            forward.replay()
            if finite and not run.finite(forward.telling[: len(inputs)]):
                fine[0] = False
            outputs = forward.outputs[: len(inputs)]
            if host:
                out[...] = run.download(outputs)
            else:
                run.copy(outputs, out)

        for start in range(0, len(x), self.most):
            self._through(start, min(start + self.most, len(x)), x.dtype, predict)
            if not fine[0]:
                return None
        return result if host else run.hand_out(result)

    def _through(
        self,
        start: int,
        stop: int,
        dtype: Any,
        work: Callable[[Forward, slice], None],
        samples: Samples | None = None,
    ) -> None:
        """Do some work on a block, in lanes."""
        engine, size = self.engine, stop - start
        lanes = engine.lanes(size, backward=False)
        with engine.lock, engine.stage(1) if lanes > 1 else nullcontext():
            parts = [
                partial(work, self.forward(own, dtype, lane, samples), slice(first, first + own))
                for lane, (first, own) in enumerate(split(start, stop, -(-size // lanes)))
            ]
            engine.run.together(*parts)

    def answer(self, x: NDArray[Any]) -> NDArray[Any] | None:
        """Return the outputs ``(1, outputs)`` for what `make_ready` has seen the like of, or None.

        None, too, where numbers in ``x`` are not finite.
        """
        ready = self.ready.get((x.shape, x.dtype))
        if ready is None:
            return None
        with self.engine.lock:
            return ready(x)

    def make_ready(self, x: NDArray[Any]) -> None:
        """Make `ready` what takes inputs like ``x`` ``(1, inputs)``.

        It gives outputs ``(1, outputs)``, or None where numbers in the inputs are not finite, see
        `Forward.telling`.
        """
        with self.engine.lock:
            forward = self.forward(1, x.dtype)
            self.ready[x.shape, x.dtype] = self.engine.run.function(
                forward.step,
                takes=forward.inputs,
                gives=forward.outputs,
                checks=forward.telling[0],
            )

    def evaluate(self, samples: Samples) -> tuple[float, float | None]:
        """Return cost and accuracy over samples that lie on the device.

        The accuracy is None where targets are values of a regression.
        """
        run, n = self.engine.run, len(samples)
        costs = run.zeros((n,), self.engine.dtype)
        hits = run.zeros((n,), self.engine.dtype)

        def score(forward: Forward, rows: slice) -> None:
            block = samples[rows]
            for name, array in block.arrays().items():
                run.copy(array, forward.work.place_for(name)[: len(block)])
            forward.replay()
            run.copy(forward.score.costs[: len(block)], costs[rows])
            run.copy(forward.score.hits[: len(block)], hits[rows])

        for start in range(0, n, self.most):
            stop = min(start + self.most, n)
            self._through(start, stop, samples.x.dtype, score, samples)
        cost = float(run.download(costs).mean(dtype=np.float64))
        if samples.scoring is None:
            return cost, None
        return cost, float(run.download(hits).mean(dtype=np.float64))

    def gradients(self, samples: Samples) -> list[dict[str, Array]]:
        """Return each layer's gradients of the mean cost, by the names of its arrays.

        They are where the inputs are.
        """
        engine, n = self.engine, len(samples)
        run = engine.run
        flat = run.zeros(engine.flat.shape, engine.dtype)
        for start in range(0, n, self.most):
            block = samples[start : start + self.most]
            backward = self.backward(len(block), samples.x.dtype)
            backward.work.place(block)
            backward.replay()
            run.elementwise("sum + g / n", flat, sum=flat, g=backward.flat, n=n)
        if isinstance(samples.x, np.ndarray):
            flat = run.download(flat)
        else:
            run.hand_out(flat)
        return [engine.views(i, flat) for i in range(len(engine.layers))]

    def backward(self, rows: int, dtype: Any) -> Backward:
        """Return what runs exactly ``rows`` samples of a dtype backward; the last few are kept."""
        key = rows, scale(dtype)
        if key not in self._backwards:
            while len(self._backwards) >= _KEPT:
                del self._backwards[next(iter(self._backwards))]
            self._backwards[key] = Backward(self.engine, *key)
        return self._backwards[key]


class Forward:
    """Forward for some rows, compiled; with a score of targets like those of samples, if given."""

    def __init__(
        self, engine: Engine, rows: int, scale: float, lane: int, samples: Samples | None
    ) -> None:
        self._engine, self._samples = engine, samples
        if samples is not None and samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.work = Workspace(engine, rows, scale)
        self.score = Score(engine, self.work, groups=rows, rows=rows)
        self.inputs, self.outputs = self.work.inputs, self.work.outputs
        self._memories = Interior(engine, rows, scale).memories(self.work)
        # Where z has memory of its own it is the smaller, as a rule, and no number of it is finite
        # where an input is not. Elsewhere a sigmoid or a maximum may have made it so again.
        first = self._memories[0]
        kept = engine.layers[0].keeps_z
        #: What is not finite, in a sample's row, where the inputs are not.
        self.telling = (first.z if kept else first.inputs).values
        # Forward alone, a dense network is products and little else.
        work = rows * sum(engine.multiplications) if engine.reuses else 0
        #: Compute the outputs for what is there.
        self.replay = engine.run.compile(self.step, work, lane=lane)

    def step(self) -> None:
        """Do what is compiled."""
        meet(self._engine.run, [self._engine.forward([self._memories])])
        if self._samples is not None:
            self.work.complete(self._samples, len(self.outputs))
            self.score.record(self._samples.scoring)
