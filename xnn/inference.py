"""Outputs, cost and accuracy, and gradients of a network, without training."""

from __future__ import annotations

from collections import Counter
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
_KEPT = 4  # sizes for which a compiled `Backward` is kept, as calls often repeat
# Calls with few samples have a function of their own, once so many alike have come. Few are up to
_FEW = 20_000_000  # multiplications, above which there are lanes, and
_FEW_BYTES = 4 * 1024 * 1024  # of inputs and outputs of all layers.
_OFTEN = 8
_FUNCTIONS = 8  # at most, …
_OFTENER = 16  # … unless another kind comes so many times as often: making one takes a millisecond


class Evaluation(NamedTuple):
    """Cost and accuracy of a network on some samples."""

    cost: float
    """The mean over samples, weighted if they have weights; without weight decay."""
    accuracy: float | None
    """The share classified correctly, likewise weighted; None in a regression."""


class Inference:
    """Runs an engine forward, a block of samples at a time."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._forwards: dict[tuple[Any, ...], Forward] = {}
        self._backwards: dict[tuple[int, float, bool], Backward] = {}
        #: Fast functions for few samples, by the shape and dtype of inputs.
        self.ready: dict[tuple[tuple[int, ...], Any], Callable[[Any], Any | None]] = {}
        self._asked: Counter[tuple[tuple[int, ...], Any]] = Counter()  # calls without one

    def _most(self, samples: int) -> int:
        """Return the largest block to run ``samples`` in, a power of two."""
        engine = self.engine
        size = engine.backend.block_bytes(samples * sum(engine.multiplications))
        # Parameters are read once per block, which should be as large as they are, within bounds.
        size = max(size, min(2 * engine.flat.nbytes, _MOST))
        sample = sum(engine.sizes) * engine.dtype.itemsize
        return 1 << int(min(12, max(4, (size // sample).bit_length() - 1)))

    def forward(
        self, rows: int, of: int, dtype: Any, lane: int = 0, samples: Samples | None = None
    ) -> Forward:
        """Return the `Forward` for ``rows`` of ``of`` samples of a dtype.

        If samples are given, targets like theirs are scored. Those of different lanes may run in
        parallel.
        """
        # Powers of two, so that few are needed whatever sizes are requested.
        most = self._most(of)
        rows = min(1 << (rows - 1).bit_length(), most)
        kind = None if samples is None else (*samples.arrays(), samples.scoring)
        key = rows, most, scale(dtype), lane, kind
        if key not in self._forwards:
            self._forwards[key] = Forward(self.engine, rows, of, scale(dtype), lane, samples)
        return self._forwards[key]

    def predict(self, x: Array, finite: bool = False) -> Array:
        """Return the outputs ``(n, outputs)`` for checked inputs ``(n, inputs)``.

        They are where the inputs are: on the host or on the device. With ``finite``, the inputs
        have not been checked for finiteness, and the result is None if they are not finite; see
        `Forward.telling`.
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
        """Run the rows of ``given``, in lanes; return False if they are not finite.

        ``wanted`` receives the outputs or, if there are samples, costs and hits as in `Score`.
        """
        engine, x, fine = self.engine, given[0], [True]

        def work(forward: Forward, rows: slice) -> None:
            arrays = [array[rows] for array in given], [array[rows] for array in wanted]
            if not forward.blocks(*arrays, check):
                fine[0] = False

        most = self._most(len(x))
        if not isinstance(x, SparseRows):  # which must not become dense in larger blocks
            # Few enough at a time to react to Ctrl-C and to let other threads run.
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
        """Return the outputs, ``(n, …)`` in the shape of the last layer's, if `note` has prepared.

        Otherwise, and if ``x`` is not finite, return None.
        """
        ready = self.ready.get((x.shape, x.dtype))
        if ready is None:
            return None
        with self.engine.lock:
            return ready(x)

    def note(self, x: NDArray[Any]) -> None:
        """Note a call for checked inputs ``(n, …)``; often enough, make `answer` ready for such."""
        engine, n, key = self.engine, len(x), (x.shape, x.dtype)
        work, size = n * sum(engine.multiplications), n * sum(engine.sizes) * engine.dtype.itemsize
        if n == 0 or work > _FEW or size > _FEW_BYTES or key in self.ready:
            return
        with engine.lock:
            self._asked[key] += 1
            room = len(self.ready) < _FUNCTIONS
            if self._asked[key] < (_OFTEN if room else _OFTEN * _OFTENER):
                if len(self._asked) > 4 * _FUNCTIONS:
                    self._asked.clear()
                return
            del self._asked[key]
            if not room:
                del self.ready[next(iter(self.ready))]
            forward = Forward(engine, n, n, scale(x.dtype))
            self.ready[key] = engine.backend.function(
                forward.step,
                takes=forward.inputs.reshape(x.shape),
                gives=forward.outputs.reshape(n, *engine.shapes[-1]),
                checks=forward.telling,
                multiplications=work,
                improve=partial(self._improve, key),
            )

    def _improve(self, key: tuple[tuple[int, ...], Any], function: Callable[[Any], Any]) -> None:
        if key in self.ready:  # it may have made room for others
            self.ready[key] = function

    def evaluate(self, samples: Samples) -> Evaluation:
        """Return cost and accuracy over samples on host or device."""
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
        """Return each layer's gradients of the mean cost, by array name.

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
        """Return the gradient of each sample's cost with respect to its inputs, ``(n, inputs)``.

        It is where the inputs are.
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
        """Run samples forward and backward in blocks; yield each block when it is done."""
        most = self._most(0)  # as for little work: Python loops over the blocks here
        for start in range(0, len(samples), most):
            block = samples[start : start + most]
            backward = self.backward(len(block), samples.x.dtype, input_delta)
            backward.work.place(block)
            backward.replay()
            yield slice(start, start + len(block)), backward

    def _handed_out(self, found: Array, samples: Samples) -> Array:
        """Return an array of the device where the samples are."""
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
        self._backwards[key] = found  # now the most recent
        return found


class Forward:
    """A compiled forward pass for some rows; scores targets like those of samples, if given."""

    def __init__(
        self,
        engine: Engine,
        rows: int,
        of: int,
        scale: float,
        lane: int = 0,
        samples: Samples | None = None,
    ) -> None:
        self._engine, self._samples = engine, None if samples is None else samples.none()
        if samples is not None and samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.work = work = Workspace(engine, rows, scale)
        self.score = Score(engine, work, groups=rows, rows=rows)
        self.inputs, self.outputs = work.inputs, work.outputs
        self._memories = Interior(engine, rows, scale).memories(work)
        # If z has its own memory, none of it is finite unless all inputs are. Otherwise a sigmoid
        # or a maximum may have hidden that.
        first = self._memories[0]
        tell = [first.inputs, first.z] if engine.layers[0].keeps_z else [first.inputs]
        #: An array whose row for a sample is not finite if the sample's inputs are not.
        self.telling = min((rows.values for rows in tell), key=lambda values: values.shape[1])
        takes, gives = [self.inputs], [self.outputs]
        if samples is not None:
            takes = [work.place_for(name) for name in samples.arrays()]
            gives = [self.score.costs, self.score.hits]
        #: Runs all rows of arrays; see `Backend.blockwise`.
        self.blocks = engine.backend.blockwise(
            self.step, takes, gives, self.telling, of * sum(engine.multiplications), lane
        )

    def step(self) -> None:
        """Run forward and score; this is the function that is compiled."""
        meet(self._engine.backend, [self._engine.forward([self._memories])])
        if self._samples is not None:
            self.work.complete(self._samples, len(self.outputs))
            self.score.record(self._samples.scoring)
