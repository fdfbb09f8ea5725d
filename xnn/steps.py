"""Training steps, compiled.

Several steps are compiled in a row, a *chunk*: their inputs are gathered in one go, and their costs
taken in one go, which for small networks costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Array, Replay
from .engine import Engine
from .layers import Gradient
from .optimizers import Optimizer
from .parameters import Parameter, Rows
from .samples import Samples, scale
from .workspace import Score, Workspace


@dataclass
class _Chunk:
    """Some training steps in a row, compiled."""

    steps: int
    works: list[Workspace]  # one, or those of a single step that comes in parts
    rows: list[int]  # how many of each are in use
    index: Array
    rates: Array
    costs: Array  # (steps,) summed over each mini-batch
    hits: Array
    replay: Replay


class _Resident:
    """Samples that lie on the device. In an epoch their order crosses, no more."""

    def __init__(self, engine: Engine, samples: Samples) -> None:
        self.run = engine.run
        self.samples = engine.upload(samples)

    def begin(self, order: NDArray[np.intp], chunks: Sequence[_Chunk]) -> None:
        """Begin an epoch of these chunks."""
        self._order, self._at = self.run.upload(order), 0

    def prepare(self, chunk: _Chunk) -> None:
        """Set what the next chunk of the epoch is to read."""
        at, self._at = self._at, self._at + len(chunk.index)
        self.run.copy(self._order[at : self._at], chunk.index)

    def load(self, work: Workspace, index: Array) -> None:
        """Fill a workspace, within a step."""
        work.gather(self.samples, index)


class _Streamed:
    """Samples of the host that do not fit. They cross chunk by chunk, one ahead."""

    def __init__(self, engine: Engine, samples: Samples, rows: int) -> None:
        self.samples = samples
        self._feeds = {
            name: engine.run.feed(array, rows) for name, array in samples.arrays().items()
        }

    def begin(self, order: NDArray[np.intp], chunks: Sequence[_Chunk]) -> None:
        ends = np.cumsum([rows for chunk in chunks for rows in chunk.rows])
        self._lots = iter(np.split(order, ends[:-1]))
        self._send()

    def prepare(self, chunk: _Chunk) -> None:
        for work, rows in zip(chunk.works, chunk.rows, strict=True):
            self._send()
            for name, feed in self._feeds.items():
                feed.take(work.place_for(name)[:rows])

    def load(self, work: Workspace, index: Array) -> None:
        work.complete(self.samples, len(index))

    def _send(self) -> None:
        lot = next(self._lots, None)
        if lot is not None:
            for feed in self._feeds.values():
                feed.send(lot)


@dataclass(frozen=True)
class Recipe:
    """How to train: what `Network.fit` was told, checked."""

    optimizer: Optimizer
    batch: int
    part: int | None = None  # how many samples of a mini-batch are run at a time; None is all
    smoothing: float = 0.0  # see `Workspace`
    by_weight: bool = False  # whether a mini-batch's mean is over weights, and not over samples


class Trainer:
    """Training steps over samples, compiled.

    ``key``, of 32 bits, decides all that layers do at random.
    """

    def __init__(
        self,
        engine: Engine,
        samples: Samples,
        recipe: Recipe,
        key: int = 0,
    ) -> None:
        self.engine, self.recipe = engine, recipe
        run, n = engine.run, len(samples)
        if samples.labels is not None:
            _ = engine.one_hot  # made before anything is compiled
        self.batch = batch = min(recipe.batch, n)
        self.part = part = min(recipe.part or batch, batch)
        self.steps = -(-n // batch)
        start = recipe.optimizer.start
        self.updates = start(run, engine.flat, engine.trained, n, parts=part < batch)
        row = run.padded(engine.sizes[0] + 1, engine.dtype) * engine.dtype.itemsize
        full, last = divmod(n, batch)
        most = max(1, min(run.chunk_bytes // (batch * row), run.chunk_steps, full))
        if part < batch:
            most = 1
        whole, rest = divmod(full, most)
        self._source: _Resident | _Streamed
        if engine.fits(samples):
            self._source = _Resident(engine, samples)
        else:
            self._source = _Streamed(engine, samples, batch * most)
        self.samples = self._source.samples
        self.dice = run.upload(np.array([key, 0], np.uint32))
        works = self._works(batch, most)
        self.plan: list[_Chunk] = [self._chunk(works, batch, most)] * whole
        if rest:
            self.plan.append(self._chunk(works, batch, rest))
        if last:
            self.plan.append(self._chunk(self._works(last, 1), last, 1))
        self._costs = run.zeros((self.steps,), engine.dtype)
        self._hits = run.zeros((self.steps,), engine.dtype)
        self._sizes = np.full(self.steps, batch)
        self._sizes[-1] = last or batch
        self._swapped = False  # whether the network has what is trained; see `Updates.swap`

    @contextmanager
    def stepping(self) -> Iterator[None]:
        """Return what to run an epoch's steps within: there the network has what is trained."""
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
        """Return all that goes from step to step, after so many steps of an epoch, on the host.

        First the network's parameters, then the rest by names that `restore` knows. They are those
        of the time between epochs, also where this is none.
        """
        run = self.engine.run
        with self.engine.lock:
            stepping = self._swapped
            if stepping:
                self._swap()
            try:
                updates = {f"optimizer.{name}": v for name, v in self.updates.saved().items()}
                figures = {name: run.download(v[:steps]) for name, v in self._figures().items()}
                dice = {"dice": run.download(self.dice)}
                return run.download(self.engine.flat), {**updates, **figures, **dice}
            finally:
                if stepping:
                    self._swap()

    def restore(self, saved: Mapping[str, NDArray[Any]], steps: int) -> None:
        """Set all but the network's parameters to what `saved` gave after so many steps.

        Raises `ValueError` where it is of another training.
        """
        run, rest = self.engine.run, dict(saved)
        for name, into in [*self._figures().items(), ("dice", self.dice)]:
            given, out = rest.pop(name), into[:steps] if name != "dice" else into
            if (given.shape, given.dtype) != (out.shape, out.dtype):
                raise ValueError(f"{name} has shape {given.shape} and dtype {given.dtype}")
            run.copy(run.upload(given), out)
        self.updates.restore({name.removeprefix("optimizer."): v for name, v in rest.items()})

    def _figures(self) -> dict[str, Array]:
        return {"costs": self._costs, "hits": self._hits}

    def epoch(
        self, order: NDArray[np.intp], rates: NDArray[np.float64], first: int = 0
    ) -> Iterator[int]:
        """Train on all samples in ``order``; yield after each chunk how many steps are done.

        ``rates`` holds the learning rate of each step; ``first`` steps have been done before.
        """
        run = self.engine.run
        with np.errstate(over="ignore"):
            rates = rates.astype(self.engine.dtype)
        if not np.isfinite(rates).all():
            raise ValueError(f"learning_rate is too large for {self.engine.dtype}")
        rates = run.upload(rates)
        plan = self._remaining(first)
        self._source.begin(order[first * self.batch :], plan)
        step = first
        for chunk in plan:
            done = slice(step, step + chunk.steps)
            with self.engine.lock:
                self._source.prepare(chunk)
                run.copy(rates[done], chunk.rates)
                chunk.replay()
                run.copy(chunk.costs, self._costs[done])
                run.copy(chunk.hits, self._hits[done])
            step = done.stop
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

    def _remaining(self, first: int) -> list[_Chunk]:
        """Return the chunks of an epoch from a step on, which need not begin one of the plan."""
        remaining, start = [], 0
        for chunk in self.plan:
            stop = start + chunk.steps
            if start < first < stop:
                remaining.append(self._chunk(chunk.works, self.batch, stop - first))
            elif first <= start:
                remaining.append(chunk)
            start = stop
        return remaining

    def _works(self, batch: int, steps: int) -> list[Workspace]:
        """Return room for steps of ``batch`` samples: in one piece, or for one step in parts."""
        part = min(self.part, batch)
        whole, rest = divmod(batch, part)
        sizes = [(part, steps * whole)] + ([(rest, 1)] if rest else [])
        options = {"backward": True, "dice": self.dice, "smoothing": self.recipe.smoothing}
        factor = scale(self.samples.x.dtype)
        return [Workspace(self.engine, n, times, factor, **options) for n, times in sizes]

    def _chunk(self, works: list[Workspace], batch: int, steps: int) -> _Chunk:
        """Compile so many steps, which run through all workspaces or the first rows of the one."""
        engine, run, weighted = self.engine, self.engine.run, self.samples.weights is not None
        rows = [len(work.outputs) for work in works] if len(works) > 1 else [steps * batch]
        index = run.zeros((sum(rows),), np.intp)
        rates = run.zeros((steps,), engine.dtype)
        scores = [Score(engine, work, steps, n) for work, n in zip(works, rows, strict=True)]
        source, updates = self._source, self.updates

        def parts(i: int) -> Iterator[tuple[Workspace, int]]:
            """Yield the mini-batches that a step consists of."""
            for work, n in zip(works, rows, strict=True):
                times = n // work.batch // steps
                for at in range(i * times, (i + 1) * times):
                    yield work, at

        def train() -> None:
            start = 0
            for work, n in zip(works, rows, strict=True):
                source.load(work, index[start : start + n])
                start += n
            if weighted and self.recipe.by_weight:
                updates.weigh(self._share_out(works, rows, batch, steps))
            step = updates.begin(rates, batch)
            for i in range(steps):
                step.at = i
                for number, (work, at) in enumerate(parts(i)):
                    memories, place = work.memories(at), work.rows(at)
                    engine.forward(memories)
                    engine.backward(
                        memories,
                        Rows.plain(work.targets[place]),
                        _Again(step.gradient) if number else step.gradient,
                        work.weights[place][:, None] if weighted else None,
                    )
                    if engine.random:
                        run.advance(self.dice)
                step.apply()
            for score in scores:
                score.record(source.samples.scoring, weighted)
            for score in scores[1:]:
                scores[0].add(score)

        first = scores[0]
        return _Chunk(steps, works, rows, index, rates, first.costs, first.hits, run.compile(train))

    def _share_out(self, works: list[Workspace], rows: list[int], batch: int, steps: int) -> Array:
        """Scale the weights of each mini-batch to a mean of 1; return what their sums were."""
        run, dtype = self.engine.run, self.engine.dtype
        totals, part = run.scratch((steps,), dtype), run.scratch((steps,), dtype)
        run.elementwise("0", totals)
        tables = [
            work.weights[:n].reshape(steps, n // steps) for work, n in zip(works, rows, strict=True)
        ]
        for table in tables:
            run.row_sums(table, part)
            run.elementwise("t + p", totals, t=totals, p=part)
        for table in tables:
            run.elementwise("w * m / t", table, w=table, m=batch, t=totals[:, None])
        return totals


@dataclass(frozen=True)
class _Again:
    """Takes gradients that are to be added to those that a step has had."""

    gradient: Gradient

    def __call__(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        self.gradient(parameter, left, right, factor, again=True)
