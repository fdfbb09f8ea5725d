"""Compiled training steps.

Several consecutive steps are compiled as a *chunk*, so that inputs are gathered and costs collected
once per chunk: for small networks these take longer than the arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Array, Replay
from .engine import Engine
from .optimizers import Optimizer, Subject, Updates, UpdateStep
from .passes import Pass, split
from .samples import Samples, scale
from .workspace import Score, Workspace

_RNG_STATE = "dice"  # what files call it
_UPDATE = 40  # the time of an optimizer's update of a parameter, in multiplications
_EPOCH = 2  # the overhead of an epoch, in overheads of a chunk


@dataclass
class _Chunk:
    """Some consecutive training steps, compiled."""

    steps: int
    through: Pass
    work: Workspace
    index: Array  # of the samples, step by step
    rates: Array
    costs: Array  # (steps,) summed over each mini-batch
    hits: Array
    replay: Replay


class _Resident:
    """Samples that lie on the device. An epoch transfers only their order.

    With ``come``, only memory for such samples is allocated, and `put` fills it.
    """

    def __init__(self, engine: Engine, samples: Samples, come: bool = False) -> None:
        self.backend = engine.backend
        if come:
            room = {n: self.backend.zeros(a.shape, a.dtype) for n, a in samples.arrays().items()}
            self.samples = replace(samples, **room)
        else:
            self.samples = engine.upload(samples)

    def put(self, samples: Samples) -> None:
        """Replace the samples with others of the same kind."""
        for name, room in self.samples.arrays().items():
            self.backend.copy(samples.arrays()[name], room)

    def begin(self, order: NDArray[np.intp], chunks: Sequence[_Chunk]) -> None:
        """Begin an epoch of these chunks."""
        self._order, self._at = self.backend.upload(order), 0

    def prepare(self, chunk: _Chunk) -> None:
        """Set the indices for the next chunk of the epoch."""
        at, self._at = self._at, self._at + len(chunk.index)
        self.backend.copy(self._order[at : self._at], chunk.index)

    def load(self, work: Workspace, index: Array) -> None:
        """Fill a workspace, within a step."""
        work.gather(self.samples, index)


class _Streamed:
    """Samples on the host that do not fit. They are transferred chunk by chunk, one ahead."""

    def __init__(self, engine: Engine, samples: Samples, rows: int) -> None:
        self.samples = samples
        self._feeds = {
            name: engine.backend.feed(array, rows) for name, array in samples.arrays().items()
        }

    def begin(self, order: NDArray[np.intp], chunks: Sequence[_Chunk]) -> None:
        ends = np.cumsum([len(chunk.index) for chunk in chunks])
        self._lots = iter(np.split(order, ends[:-1]))
        self._send()

    def prepare(self, chunk: _Chunk) -> None:
        self._send()
        for name, feed in self._feeds.items():
            feed.take(chunk.work.place_for(name)[: len(chunk.index)])

    def load(self, work: Workspace, index: Array) -> None:
        work.complete(self.samples, len(index))

    def _send(self) -> None:
        lot = next(self._lots, None)
        if lot is not None:
            for feed in self._feeds.values():
                feed.send(lot)


@dataclass(frozen=True)
class Recipe:
    """How to train: checked arguments of `Network.fit`."""

    optimizer: Optimizer
    batch: int
    most: int | None = None  # how many samples are run at a time, see `Pass`
    smoothing: float = 0.0  # see `Workspace`
    by_weight: bool = False  # whether mini-batch means divide by the sum of weights


def check_sizes(engine: Engine, n: int, recipe: Recipe) -> None:
    """Raise `ValueError` if a mini-batch of n samples, or a part of one, is too small."""
    batch = min(recipe.batch, n)
    sizes = {batch: f"mini-batches have {batch}"}
    if last := n % batch:
        sizes[last] = f"batch_size {batch} leaves {last} of {n} samples"
    if recipe.most is not None:
        for rows in list(sizes):
            *_, (_, part) = split(0, rows, recipe.most)
            what = f"micro_batch_size {recipe.most} leaves {part} of a mini-batch of {rows}"
            sizes.setdefault(part, what)
    for number, layer in enumerate(engine.layers, start=1):
        least = layer.least_samples(engine.shapes[number - 1])
        if (fewest := min(sizes)) < least:
            raise ValueError(
                f"layers[{number}]: {type(layer).__name__} needs more than 1 value per channel "
                f"in training, so at least {least} samples at a time, but {sizes[fewest]}"
            )


def _lengths(
    engine: Engine, batch: int, full: int, epochs: int, join: bool, recorded: Callable[[int], int]
) -> tuple[int, int]:
    """Return how many epochs to run as one, and how many steps to compile together.

    An epoch has ``full`` whole mini-batches. If it may ``join`` others, all their steps are
    compiled together. ``recorded`` returns how many of some steps will be recorded.
    """
    backend = engine.backend
    widest = max(engine.sizes[0] + 1, engine.outputs)
    row = backend.padded(widest, engine.dtype) * engine.dtype.itemsize
    heavy = batch * sum(engine.multiplications)
    held = backend.chunk_bytes(heavy) // (batch * row)
    whole = heavy + _UPDATE * engine.flat.size
    most = max(1, min(held, backend.chunk_steps, backend.chunk_multiplications // max(1, whole)))
    if recorded(most) > backend.recorded_steps:
        most = min(most, backend.recorded_steps)
    # A divisor of the number of epochs, so that one plan serves all.
    several = [laps for laps in range(2, most // full + 1) if join and not epochs % laps]
    # Fewer steps may be quicker to compile, but not in loops.
    longest = min(most, full)
    least = 1 if recorded(longest) == longest else longest // 2 + 1
    choices = [(1, steps) for steps in range(least, longest + 1)]
    choices += [(laps, laps * full) for laps in several]

    def takes(choice: tuple[int, int]) -> float:
        """Return the total overhead: of compilation, per chunk and per epoch."""
        laps, steps = choice
        chunks, rest = divmod(laps * full, steps)
        each = chunks + (rest > 0) + _EPOCH
        compiled = recorded(steps) + recorded(rest)
        return backend.compile_cost * compiled + epochs / laps * each

    return min(choices, key=takes)


class Trainer:
    """Compiled training steps over samples.

    ``key``, of 32 bits, seeds all randomness in layers; ``epochs`` is their total number. If they
    may be ``joined`` and are short, `laps` of them are run as one, since with few samples the
    overhead of an epoch dominates. With ``again`` it can be reused for other samples of this kind,
    by `put` or `renew`; these must fit on the device. ``updates`` are those of another trainer with
    this optimizer, to go on with.
    """

    def __init__(
        self,
        engine: Engine,
        samples: Samples,
        recipe: Recipe,
        key: int = 0,
        epochs: int = 1,
        joined: bool = False,
        again: bool = False,
        updates: Updates | None = None,
    ) -> None:
        self.engine, self.recipe, self.epochs, self._again = engine, recipe, epochs, again
        backend, n = engine.backend, len(samples)
        if samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.batch = batch = min(recipe.batch, n)
        self.steps = -(-n // batch)
        full, last = divmod(n, batch)
        fits = engine.fits(samples)
        heavy, times = self._multiplications(batch), epochs * self.steps
        join = joined and fits and not last
        recorded = partial(backend.recorded, multiplications=heavy, of=times)
        self.laps, most = _lengths(engine, batch, full, epochs, join, recorded)
        whole, rest = divmod(full * self.laps, most)
        self._source: _Resident | _Streamed
        if fits:
            self._source = _Resident(engine, samples, come=again)
        else:
            self._source = _Streamed(engine, samples, batch * most)
        self.samples = self._source.samples
        self.rng_state = backend.upload(np.array([key, 0], np.uint32))
        passes = {size: self._pass(size) for size in (batch, last) if size}
        self._lanes = passes[batch].lanes
        if updates is None:
            parts = any(made.divided for made in passes.values())
            subject = Subject(backend, engine.flat, engine.trained, n, parts)
            updates = recipe.optimizer.start(subject)
        self.updates = updates
        work = self._work(most * batch)
        self.plan: list[_Chunk] = [self._chunk(passes[batch], work, most)] * whole
        if rest:
            self.plan.append(self._chunk(passes[batch], work, rest))
        if last:
            self.plan.append(self._chunk(passes[last], self._work(last), 1))
        self._costs = backend.zeros((self.steps * self.laps,), engine.dtype)
        self._hits = backend.zeros((self.steps * self.laps,), engine.dtype)
        self._sizes = np.full(self.steps, batch)
        self._sizes[-1] = last or batch
        self._ordered = False  # whether a sole chunk has the indices of its samples; see `once`
        self._swapped = False  # whether the network has the trained parameters; see `Updates.swap`

    def put(self, samples: Samples) -> None:
        """Replace the samples with others of the same kind."""
        assert isinstance(self._source, _Resident)
        self._source.put(samples)

    def once(self, samples: Samples, rate: float) -> tuple[float, float | None]:
        """Make a step on samples of the same kind, which are one mini-batch.

        Return its mean cost and accuracy before the step. Nothing else is noted of it.
        """
        (chunk,), backend, n = self.plan, self.engine.backend, len(samples)
        rates = self._rates(np.full(1, rate))
        with self.engine.lock:
            if not self._ordered:
                self._source.begin(np.arange(n), self.plan)
                self._source.prepare(chunk)
                self._ordered = True
            self.put(samples)
            backend.copy(rates, chunk.rates)
            needed = backend.needs_stage(chunk.replay)
            with self.stage() if needed else nullcontext(), self.stepping():
                chunk.replay()
            cost, hits = (float(backend.download(v)[0]) for v in (chunk.costs, chunk.hits))
        return cost / n, None if samples.scoring is None else hits / n

    def renew(self, samples: Samples, key: int) -> None:
        """Take samples of the same kind, and a key. The optimizer keeps its state."""
        self.put(samples)
        self.engine.backend.copy(np.array([key, 0], np.uint32), self.rng_state)

    def stage(self) -> AbstractContextManager[None]:
        """Return a context manager for training; see `Backend.stage`."""
        return self.engine.stage(1 if self._lanes > 1 else self.batch)

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Return a context manager in which the network has the parameters being trained.

        Outside of it they may be averages; see `xnn.optimizers.Averaged`.
        """
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        with self.engine.lock:
            self.updates.swap()
            self._swapped = not self._swapped

    def saved(self, steps: int) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
        """Return the training state after ``steps`` steps of an epoch, on the host.

        First the network's parameters, then the rest, by names that `restore` knows. Even within an
        epoch, the parameters are those that the network has between epochs.
        """
        backend = self.engine.backend
        with self.engine.lock:
            stepping = self._swapped
            if stepping:
                self._swap()
            try:
                updates = {f"optimizer.{name}": v for name, v in self.updates.saved().items()}
                figures = {name: backend.download(v[:steps]) for name, v in self._figures().items()}
                random = {_RNG_STATE: backend.download(self.rng_state)}
                return backend.download(self.engine.flat), {**updates, **figures, **random}
            finally:
                if stepping:
                    self._swap()

    def restore(self, saved: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Set all but the network's parameters to what `saved` returned after ``steps`` steps.

        Raises `ValueError` if it is from another training.
        """
        backend, rest = self.engine.backend, dict(saved)
        with self.engine.lock:
            for name, into in [*self._figures().items(), (_RNG_STATE, self.rng_state)]:
                given, out = rest.pop(name), into[:steps] if name != _RNG_STATE else into
                if (given.shape, given.dtype) != (out.shape, out.dtype):
                    raise ValueError(f"{name} has shape {given.shape} and dtype {given.dtype}")
                backend.copy(backend.upload(given), out)
            self.updates.restore({name.removeprefix("optimizer."): v for name, v in rest.items()})

    def _figures(self) -> dict[str, Array]:
        return {"costs": self._costs, "hits": self._hits}

    def epoch(
        self, order: NDArray[np.intp], rates: NDArray[np.float64], first: int = 0
    ) -> Iterator[int]:
        """Train on all samples in ``order``; yield after each chunk how many steps are done.

        ``rates`` holds the learning rate of each step; the first ``first`` steps are skipped. If
        epochs are joined, ``order`` and ``rates`` cover `laps` of them.
        """
        backend = self.engine.backend
        rates = self._rates(rates)
        with self.engine.lock:
            rates = backend.upload(rates)
            plan = self._remaining(first)
            self._source.begin(order[first * self.batch :], plan)
        step = first
        for chunk in plan:
            done = slice(step, step + chunk.steps)
            with self.engine.lock:
                self._source.prepare(chunk)
                backend.copy(rates[done], chunk.rates)
                chunk.replay()
                backend.copy(chunk.costs, self._costs[done])
                backend.copy(chunk.hits, self._hits[done])
            step = done.stop
            yield step

    def figures(self, steps: int) -> tuple[list[tuple[float, float | None]], int | None]:
        """Return mean cost and accuracy of each epoch, over its first ``steps`` steps.

        The last item is the first step whose cost is not finite, or None.
        """
        of_each = min(steps, self.steps)
        samples = int(self._sizes[:of_each].sum())
        with self.engine.lock:
            costs, hits = (
                self.engine.backend.download(v[:steps]) for v in self._figures().values()
            )
        mean = (costs.reshape(-1, of_each).sum(axis=1, dtype=np.float64) / samples).tolist()
        right = (hits.reshape(-1, of_each).sum(axis=1, dtype=np.float64) / samples).tolist()
        if self.samples.scoring is None:
            right = [None] * len(mean)
        # Usually the means suffice.
        fine = all(map(math.isfinite, mean))
        bad = None if fine else next(iter(np.flatnonzero(~np.isfinite(costs)).tolist()), None)
        return list(zip(mean, right, strict=True)), bad

    def _rates(self, rates: NDArray[np.float64]) -> NDArray[Any]:
        """Return rates in the network's dtype, checked."""
        with np.errstate(over="ignore"):
            rates = rates.astype(self.engine.dtype)
        if not np.isfinite(rates).all():
            raise ValueError(f"learning_rate is too large for {self.engine.dtype}")
        return rates

    def _remaining(self, first: int) -> list[_Chunk]:
        """Return the chunks of an epoch from a step on, which may lie within one of the plan."""
        remaining, start = [], 0
        for chunk in self.plan:
            stop = start + chunk.steps
            if start < first < stop:
                remaining.append(self._chunk(chunk.through, chunk.work, stop - first))
            elif first <= start:
                remaining.append(chunk)
            start = stop
        return remaining

    def _pass(self, batch: int) -> Pass:
        factor, most = scale(self.samples.x.dtype), self.recipe.most
        return Pass(self.engine, batch, factor, rng_state=self.rng_state, most=most)

    def _work(self, rows: int) -> Workspace:
        factor = scale(self.samples.x.dtype)
        return Workspace(self.engine, rows, factor, smoothing=self.recipe.smoothing)

    def _chunk(self, through: Pass, work: Workspace, steps: int) -> _Chunk:
        """Compile ``steps`` steps through the first rows of a workspace."""
        engine, backend = self.engine, self.engine.backend
        weighted = self.samples.weights is not None
        batch = through.rows
        rows = steps * batch
        index, rates = backend.zeros((rows,), np.intp), backend.zeros((steps,), engine.dtype)
        score = Score(engine, work, steps, rows)
        source, updates = self._source, self.updates

        def train() -> None:
            source.load(work, index)
            if weighted and self.recipe.by_weight:
                updates.weigh(self._share_out(work.weights[:rows].reshape(steps, batch)))
            step = updates.begin(rates, batch)
            backend.repeat(steps, partial(self._step, through, work, step))
            score.record(source.samples.scoring, weighted)

        heavy = self._multiplications(batch)
        replay = backend.compile(train, heavy, self.epochs * self.steps)
        return _Chunk(steps, through, work, index, rates, score.costs, score.hits, replay)

    def _multiplications(self, batch: int) -> int:
        """Return how many multiplications a step takes forward, or as many as it is worth."""
        engine, heavy = self.engine, batch * sum(self.engine.multiplications)
        # If used again, the optimizer's time is worth optimising too.
        return heavy + _UPDATE * engine.flat.size if self._again else heavy

    def _step(self, through: Pass, work: Workspace, step: UpdateStep, at: int) -> None:
        """Do one training step of a chunk that is being compiled."""
        step.at = at
        through.run(work, at * through.rows, step.gradient, self.samples.weights is not None)
        for gradient in through.asides:
            step.add(gradient)
        if self.engine.random:
            self.engine.backend.advance(self.rng_state)
        step.apply()

    def _share_out(self, weights: Array) -> Array:
        """Scale weights ``(steps, batch)`` to a mean of 1 in each row, and return their sums.

        Rows of zeros stay zero.
        """
        backend, dtype = self.engine.backend, self.engine.dtype
        steps, batch = weights.shape
        totals = backend.scratch((steps,), dtype)
        backend.row_sums(weights, totals)
        formula = "w * m / (t + (1 - sign(t) ** 2))"
        backend.elementwise(formula, weights, w=weights, m=batch, t=totals[:, None])
        return totals
