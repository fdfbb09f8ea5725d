"""A network as it is: outputs, cost and accuracy, gradients."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Array
from .engine import Engine, meet
from .passes import Backward
from .samples import Samples, SparseRows, scale
from .workspace import Interior, Score, Workspace

_BYTES = 16 * 1024 * 1024  # what samples that run in one go may take, with all between the layers
_KEPT = 4  # sizes for which what runs backward is kept: whoever asks once often asks again


class Inference:
    """Runs an engine forward, a block of samples at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        sample = sum(engine.sizes) * engine.dtype.itemsize
        #: The most samples in one go, a power of two.
        self.most = 1 << min(12, max(6, (_BYTES // sample).bit_length() - 1))
        self._forwards: dict[tuple[int, float], Forward] = {}
        self._backwards: dict[tuple[int, float], Backward] = {}
        #: What takes one sample as it comes, by its shape ``(1, inputs)`` and dtype.
        self.ready: dict[tuple[tuple[int, ...], Any], Callable[[Any], Any | None]] = {}

    def forward(self, rows: int, dtype: Any) -> Forward:
        """Return what runs ``rows`` samples of a dtype forward, or more, up to `most`."""
        # Powers of two, so that there are few of them however many sizes are asked for.
        key = min(1 << (rows - 1).bit_length(), self.most), scale(dtype)
        if key not in self._forwards:
            self._forwards[key] = Forward(self.engine, *key)
        return self._forwards[key]

    def predict(self, x: Array, finite: bool = False) -> Array:
        """Return the outputs ``(n, outputs)`` for checked inputs ``(n, inputs)``.

        They are where the inputs are: on the host, or on the device. Where ``finite``, that the
        inputs are finite has not been checked, and the answer is None where they are not, see
        `make_ready`.
        """
        engine, shape = self.engine, (len(x), self.engine.outputs)
        host = isinstance(x, np.ndarray | SparseRows)
        result = np.empty(shape, engine.dtype) if host else engine.run.zeros(shape, engine.dtype)
        for start in range(0, len(x), self.most):
            rows = x[start : start + self.most]
            with engine.lock:
                forward = self.forward(len(rows), x.dtype)
                forward.run(rows)
                if finite and not forward.finite(len(rows)):
                    return None
                outputs, out = forward.outputs[: len(rows)], result[start : start + self.most]
                if host:
                    out[...] = engine.run.download(outputs)
                else:
                    engine.run.copy(outputs, out)
        return result if host else engine.run.hand_out(result)

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
            work = forward.work
            (telling,) = forward.telling
            self.ready[x.shape, x.dtype] = self.engine.run.function(
                forward.step,
                takes=work.inputs,
                gives=work.outputs,
                checks=telling[0],
            )

    def evaluate(self, samples: Samples) -> tuple[float, float | None]:
        """Return cost and accuracy over samples that lie on the device.

        The accuracy is None where targets are values of a regression.
        """
        run, n = self.engine.run, len(samples)
        costs = run.zeros((n,), self.engine.dtype)
        hits = run.zeros((n,), self.engine.dtype)
        scores: dict[int, Score] = {}
        for start in range(0, n, self.most):
            block = samples[start : start + self.most]
            rows = slice(start, start + len(block))
            forward = self.forward(len(block), samples.x.dtype)
            size = forward.rows
            if size not in scores:
                scores[size] = Score(self.engine, forward.work, groups=size, rows=size)
            forward.work.place(block)
            forward.replay()
            scores[size].record(samples.scoring)
            run.copy(scores[size].costs[: len(block)], costs[rows])
            run.copy(scores[size].hits[: len(block)], hits[rows])
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
    """Forward for some rows, compiled."""

    def __init__(self, engine: Engine, rows: int, scale: float) -> None:
        self.rows, self.work = rows, Workspace(engine, rows, scale)
        self.inputs = self.work.inputs
        self.outputs = self.work.outputs
        self.engine, count = engine, engine.lanes(rows, backward=False)
        self._starts = [rows * lane // count for lane in range(count)]
        self._lanes = [
            Interior(engine, stop - start, scale).memories(self.work, start)
            for start, stop in pairwise([*self._starts, rows])
        ]
        # Where z has memory of its own it is the smaller, as a rule, and no number of it is finite
        # where an input is not. Elsewhere a sigmoid or a maximum may have made it so again.
        kept = engine.layers[0].keeps_z
        #: What is not finite, in a lane's row, where the inputs are not.
        self.telling = [(at.z if kept else at.inputs).values for at, *_ in self._lanes]
        # Forward alone, a dense network is products and little else.
        work = rows * sum(engine.multiplications) if engine.reuses else 0
        self._replay = engine.run.compile(self.step, work)

    def step(self) -> None:
        """Do what is compiled."""
        lanes = [self.engine.forward(self._lanes, lane) for lane in range(len(self._lanes))]
        meet(self.engine.run, lanes)

    def run(self, x: Array) -> None:
        """Compute the outputs for as many inputs, or fewer."""
        copies = [
            partial(self.engine.run.copy, x[start:stop], self.inputs[start : min(stop, len(x))])
            for start, stop in pairwise([*self._starts, self.rows])
            if start < len(x)
        ]
        self.engine.run.together(*copies)
        self.replay()

    def replay(self) -> None:
        """Compute the outputs for what is there."""
        with self.engine.stage(1) if len(self._lanes) > 1 else nullcontext():
            self._replay()

    def finite(self, rows: int) -> bool:
        """Return whether the first rows of what was put in are finite."""
        return all(
            self.engine.run.finite(telling[: max(0, rows - start)])
            for start, telling in zip(self._starts, self.telling, strict=True)
        )
