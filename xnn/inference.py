"""A network as it is: outputs, cost and accuracy, gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .backends import Array
from .engine import Engine, meet
from .passes import Backward, split
from .samples import Samples, SparseRows, scale
from .workspace import Interior, Score, Workspace

_MOST = 64 * 1024 * 1024  # bytes of a block, however many parameters there are
_SPAN = 3_000_000_000  # multiplications
_KEPT = 4  # sizes for which what runs backward is kept: whoever asks once often asks again


class Evaluation(NamedTuple):
    """How good a network is on some samples."""

    cost: float
    """The mean over samples, by their weights where they have some; without weight decay."""
    accuracy: float | None
    """The share classified right, weighted too; None where targets are values of a regression."""


class Inference:
    """Runs an engine forward, a block of samples at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._forwards: dict[tuple[Any, ...], Forward] = {}
        self._backwards: dict[tuple[int, float, bool], Backward] = {}
        #: What takes one sample as it comes, by its shape ``(1, inputs)`` and dtype.
        self.ready: dict[tuple[tuple[int, ...], Any], Callable[[Any], Any | None]] = {}

    def _most(self, samples: int) -> int:
        """Return how many of some samples are to run in one go, a power of two."""
        engine = self.engine
        size = engine.backend.block_bytes(samples * sum(engine.multiplications))
        # Parameters are read once for each block: it is to be as much as they, within bounds.
        size = max(size, min(2 * engine.flat.nbytes, _MOST))
        sample = sum(engine.sizes) * engine.dtype.itemsize
        return 1 << int(min(12, max(4, (size // sample).bit_length() - 1)))

    def forward(
        self, rows: int, of: int, dtype: Any, lane: int = 0, samples: Samples | None = None
    ) -> Forward:
        """Return the `Forward` for ``rows`` samples of a dtype, of which there are ``of`` in all.

        Where there are samples, targets like theirs are scored. What is for one lane may run beside
        what is for another.
        """
        # Powers of two, so that there are few of them however many sizes are asked for.
        most = self._most(of)
        rows = min(1 << (rows - 1).bit_length(), most)
        kind = None if samples is None else (*samples.arrays(), samples.scoring)
        key = rows, most, scale(dtype), lane, kind
        if key not in self._forwards:
            self._forwards[key] = Forward(self.engine, rows, of, scale(dtype), lane, samples)
        return self._forwards[key]

    def predict(self, x: Array, finite: bool = False) -> Array:
        """Return the outputs ``(n, outputs)`` for checked inputs ``(n, inputs)``.

        They are where the inputs are: on the host, or on the device. Where ``finite``, that the
        inputs are finite has not been checked, and the answer is None where they are not, see
        `make_ready`.
        """
        engine, shape = self.engine, (len(x), self.engine.outputs)
        backend, host = engine.backend, isinstance(x, np.ndarray | SparseRows)
        result = np.empty(shape, engine.dtype) if host else backend.zeros(shape, engine.dtype)
        if not self._through([x], [result], check=finite):
            return None
        return result if host else backend.hand_out(result)

    def _through(
        self,
        given: Sequence[Array],
        wanted: Sequence[Array],
        samples: Samples | None = None,
        check: bool = False,
    ) -> bool:
        """Run the rows of what is given, in lanes; return False where they are not finite.

        What is wanted are outputs; or, where there are samples, what `Score` has of each.
        """
        engine, x, fine = self.engine, given[0], [True]

        def work(forward: Forward, rows: slice) -> None:
            arrays = [array[rows] for array in given], [array[rows] for array in wanted]
            if not forward.blocks(*arrays, check):
                fine[0] = False

        most = self._most(len(x))
        if not isinstance(x, SparseRows):  # of which no more are to be written out
            # So many at a time, that Ctrl-C is heard and other threads get their turn.
            most = max(most, _SPAN // max(1, sum(engine.multiplications)))
        for start in range(0, len(x), most):
            stop = min(start + most, len(x))
            lanes = engine.lanes(stop - start, backward=False)
            with engine.lock, engine.stage(1) if lanes > 1 else nullcontext():
                together = []
                shares = split(start, stop, -(-(stop - start) // lanes))
                for lane, (first, own) in enumerate(shares):
                    forward = self.forward(own, len(x), x.dtype, lane, samples)
                    together.append(partial(work, forward, slice(first, first + own)))
                engine.backend.together(*together)
            if not fine[0]:
                return False
        return True

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
        key = x.shape, x.dtype
        with self.engine.lock:
            forward = self.forward(1, 1, x.dtype)
            self.ready[key] = self.engine.backend.function(
                forward.step,
                takes=forward.inputs,
                gives=forward.outputs,
                checks=forward.telling[0],
                improve=partial(self.ready.__setitem__, key),
            )

    def evaluate(self, samples: Samples) -> Evaluation:
        """Return cost and accuracy over samples of host or device."""
        backend, n = self.engine.backend, len(samples)
        costs, hits = (backend.zeros((n,), self.engine.dtype) for _ in range(2))
        alike = replace(samples, weights=None)
        self._through(list(alike.arrays().values()), [costs, hits], alike)
        weights = None if samples.weights is None else backend.host(samples.weights)

        def mean(values: Array) -> float:
            each = backend.download(values).astype(np.float64)
            return float(np.average(each, weights=weights))

        return Evaluation(mean(costs), None if samples.scoring is None else mean(hits))

    def gradients(self, samples: Samples) -> list[dict[str, Array]]:
        """Return each layer's gradients of the mean cost, by the names of its arrays.

        They are where the inputs are.
        """
        engine, n = self.engine, len(samples)
        backend = engine.backend
        flat = backend.zeros(engine.flat.shape, engine.dtype)
        for _, backward in self._backwards_of(samples):
            backend.elementwise("sum + g / n", flat, sum=flat, g=backward.flat, n=n)
        flat = self._handed_out(flat, samples)
        return [engine.views(i, flat) for i in range(len(engine.layers))]

    def input_gradients(self, samples: Samples) -> Array:
        """Return for each sample the gradient of its cost by its inputs, ``(n, inputs)``.

        They are where the inputs are.
        """
        engine = self.engine
        found = engine.backend.zeros((len(samples), engine.sizes[0]), engine.dtype)
        for rows, backward in self._backwards_of(samples, input_delta=True):
            assert backward.work.input_delta is not None
            engine.backend.copy(backward.work.input_delta.values, found[rows])
        return self._handed_out(found, samples)

    def _backwards_of(
        self, samples: Samples, input_delta: bool = False
    ) -> Iterator[tuple[slice, Backward]]:
        """Run samples forward and backward, a block at a time; yield each when it is done."""
        most = self._most(0)  # as for little work: backward, Python goes from block to block
        for start in range(0, len(samples), most):
            block = samples[start : start + most]
            backward = self.backward(len(block), samples.x.dtype, input_delta)
            backward.work.place(block)
            backward.replay()
            yield slice(start, start + len(block)), backward

    def _handed_out(self, found: Array, samples: Samples) -> Array:
        """Return what was found on the device, where the samples are."""
        backend = self.engine.backend
        return backend.download(found) if samples.on_host else backend.hand_out(found)

    def backward(self, rows: int, dtype: Any, input_delta: bool = False) -> Backward:
        """Return the `Backward` for exactly ``rows`` samples of a dtype; the last few are kept."""
        key = rows, scale(dtype), input_delta
        found = self._backwards.pop(key, None)
        if found is None:
            found = Backward(self.engine, rows, scale(dtype), input_delta=input_delta)
        while len(self._backwards) >= _KEPT:
            del self._backwards[next(iter(self._backwards))]
        self._backwards[key] = found  # behind all others
        return found


class Forward:
    """Forward for some rows, compiled; with a score of targets like those of samples, if given."""

    def __init__(
        self, engine: Engine, rows: int, of: int, scale: float, lane: int, samples: Samples | None
    ) -> None:
        self._engine, self._samples = engine, None if samples is None else samples.none()
        if samples is not None and samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.work = work = Workspace(engine, rows, scale)
        self.score = Score(engine, work, groups=rows, rows=rows)
        self.inputs, self.outputs = work.inputs, work.outputs
        self._memories = Interior(engine, rows, scale).memories(work)
        # Where z has memory of its own no number of it is finite where an input is not. Elsewhere a
        # sigmoid or a maximum may have made it so again.
        first = self._memories[0]
        tell = [first.inputs, first.z] if engine.layers[0].keeps_z else [first.inputs]
        #: What is not finite, in a sample's row, where the inputs are not.
        self.telling = min((rows.values for rows in tell), key=lambda values: values.shape[1])
        takes, gives = [self.inputs], [self.outputs]
        if samples is not None:
            takes = [work.place_for(name) for name in samples.arrays()]
            gives = [self.score.costs, self.score.hits]
        #: Run all rows of arrays, see `Backend.blockwise`.
        self.blocks = engine.backend.blockwise(
            self.step, takes, gives, self.telling, of * sum(engine.multiplications), lane
        )

    def step(self) -> None:
        """Run forward, and score: the function that is compiled."""
        meet(self._engine.backend, [self._engine.forward([self._memories])])
        if self._samples is not None:
            self.work.complete(self._samples, len(self.outputs))
            self.score.record(self._samples.scoring)
