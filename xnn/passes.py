"""Forward and backward through a network, divided where that is faster.

The samples of a pass are divided into *parts*, which run one after another in the same arrays, and
those of a part into *lanes*, which a device may run in parallel.
Gradients are summed: those of the first lane at their destination, those of the others aside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass

from .backends import Array, Backend
from .engine import Engine, meet
from .layers import Gradient, Meeting, Memory
from .parameters import Parameter, Rows
from .workspace import Interior, Score, Workspace


class Pass:
    """Forward and backward for ``rows`` samples of a workspace, within a step.

    With ``rng_state`` it is one for training, see `Interior`. At most ``most`` samples run at a
    time; None runs all at once.
    """

    def __init__(
        self,
        engine: Engine,
        rows: int,
        scale: float,
        *,
        rng_state: Array | None = None,
        most: int | None = None,
    ) -> None:
        self.engine, self.rows = engine, rows
        lanes = engine.lanes(rows, backward=True)
        made: dict[tuple[int, int], Interior] = {}
        #: The parts, each a list of lanes: where each begins, and how it is run. The parts share
        #: the memory of their lanes.
        self._parts: list[list[tuple[int, Interior]]] = []
        for start, size in split(0, rows, rows if most is None else most):
            part: list[tuple[int, Interior]] = []
            for lane, (first, own) in enumerate(split(start, start + size, -(-size // lanes))):
                if (lane, own) not in made:
                    interior = Interior(engine, own, scale, backward=True, rng_state=rng_state)
                    made[lane, own] = interior
                part.append((first, made[lane, own]))
            self._parts.append(part)
            lanes = len(part)  # the last part is smaller, but has no more lanes than the others
        backend = engine.backend
        #: The summed gradients of each lane but the first, laid out like the parameters.
        self.asides = [backend.zeros(engine.flat.shape, engine.dtype) for _ in range(1, self.lanes)]

    @property
    def lanes(self) -> int:
        """The number of lanes."""
        return len(self._parts[0])

    @property
    def multiplications(self) -> int:
        """The number of multiplications forward; backward takes up to twice as many."""
        return self.rows * sum(self.engine.multiplications)

    @property
    def divided(self) -> bool:
        """Whether gradients come in more than one piece."""
        return self.lanes > 1 or len(self._parts) > 1

    def run(self, work: Workspace, start: int, gradient: Gradient, weighted: bool = False) -> None:
        """Run the samples of ``work`` from row ``start`` on, forward and backward.

        The first lane's gradients go to ``gradient``, those of the others to `asides`. If
        ``weighted``, samples have the weights in the workspace.
        """
        backend = self.engine.backend
        takers = [gradient, *(_Into(backend, flat) for flat in self.asides)]
        for number, part in enumerate(self._parts):
            lanes = [interior.memories(work, start + first, first) for first, interior in part]
            into = [_Again(taker) for taker in takers] if number else takers
            places = [slice(start + first, start + first + own.rows) for first, own in part]
            weights = [work.weights[place][:, None] if weighted else None for place in places]
            targets = [Rows.plain(work.targets[place]) for place in places]
            meet(
                backend,
                [
                    self._lane(lanes, lane, targets[lane], into[lane], weights[lane])
                    for lane in range(len(lanes))
                ],
            )

    def _lane(
        self,
        lanes: list[list[Memory]],
        number: int,
        targets: Rows,
        gradient: Gradient,
        weights: Array | None,
    ) -> Iterator[Meeting]:
        yield from self.engine.forward(lanes, number)
        yield from self.engine.backward(lanes, targets, gradient, weights, number)


class Backward:
    """A compiled pass over ``rows`` samples.

    ``flat`` receives the gradient summed over them, laid out like the parameters, and ``costs`` the
    cost of each; with ``input_delta``, ``work.input_delta`` receives ∂C/∂x of each. ``then`` is
    called with ``flat`` in the same step.
    """

    def __init__(
        self,
        engine: Engine,
        rows: int,
        scale: float,
        weighted: bool = False,
        then: Callable[[Array], None] | None = None,
        input_delta: bool = False,
    ) -> None:
        backend = engine.backend
        self.work = work = Workspace(engine, rows, scale, input_delta=input_delta)
        self.flat = flat = backend.zeros(engine.flat.shape, engine.dtype)
        through, score = Pass(engine, rows, scale), Score(engine, work, groups=rows, rows=rows)
        self.costs = score.costs

        def step() -> None:
            through.run(work, 0, _Into(backend, flat), weighted)
            for aside in through.asides:
                backend.elementwise("a + b", flat, a=flat, b=aside)
            score.record(None, weighted)
            if then is not None:
                then(flat)

        self._engine, self._lanes = engine, through.lanes
        self._replay = backend.compile(step, through.multiplications)

    def replay(self) -> None:
        """Compute `flat` and `costs`."""
        with self._engine.stage(1) if self._lanes > 1 else nullcontext():
            self._replay()


def split(first: int, stop: int, most: int) -> Iterator[tuple[int, int]]:
    """Yield start and size of as few parts as possible, of equal size except for the last."""
    count = -(-(stop - first) // most)
    size = -(-(stop - first) // count)
    for start in range(first, stop, size):
        yield start, min(size, stop - start)


@dataclass(frozen=True)
class _Into:
    """Writes gradients to a flat buffer."""

    backend: Backend
    flat: Array

    def __call__(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        into = parameter.matrix(self.flat)
        self.backend.gemm(left, right, into, alpha=factor, beta=float(again))


@dataclass(frozen=True)
class _Again:
    """Adds gradients to those that the step already has."""

    gradient: Gradient

    def __call__(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        self.gradient(parameter, left, right, factor, again=True)
