"""Training on mini-batches as they come, for loops of one's own."""

from __future__ import annotations

import math
import time
import warnings
from typing import Any

from numpy.typing import ArrayLike, NDArray

from .backends import DeviceError
from .core import Core
from .engine import Engine
from .inference import Evaluation
from .optimizers import Optimizer, Subject, Updates
from .samples import Samples, advice
from .steps import Recipe, Trainer, check_sizes

_KINDS = 8  # of mini-batches for which steps are kept compiled
_MANY = 100  # steps of a kind, after which thousands more are expected
_EXPECTED = 10_000
_KEEP = 10.0  # seconds between copies of everything to the host, in case the device fails


class Stepper:
    """Makes one training step per call; what `Network.stepper` returns.

    Calling it with samples and targets as `Network.fit` takes them, and perhaps a
    ``sample_weight``, makes one step of the optimizer on all of them, and returns their
    `Evaluation`: cost and accuracy before the step, in training mode. As in a `History`, weights
    multiply the costs whose mean it is, and do not change the accuracy. The optimizer's velocity or
    moments go on from call to call, whatever happens to the network in between; with
    `xnn.Averaged`, what is written to the network goes into the averages.

    Mini-batches may differ in size, but the steps for the last eight kinds alone are kept
    compiled: of a size and dtype, with labels or rows, with or without weights. Each kind is
    compiled again, to kernels, when it has come a hundred times.

    Raises `ValueError` for bad input, before the step; `FloatingPointError` if the cost is NaN or
    infinite: the network's weights have then become useless; `xnn.DeviceError` if a GPU fails:
    network and optimizer are then on the CPU, as they were before a step at most ten seconds
    earlier, and ``steps`` counts from there.
    """

    def __init__(self, core: Core, optimizer: Optimizer, smoothing: float) -> None:
        #: How many steps have been made.
        self.steps = 0
        self._core, self._optimizer, self._smoothing = core, optimizer, smoothing
        self._engine: Engine | None = None  # before the first step
        #: Copies of the parameters and of the optimizer's state, after which step, and when.
        self._kept: tuple[NDArray[Any], dict[str, NDArray[Any]]] | None = None
        self._kept_at, self._came = 0, -math.inf
        self._start(core.engine)  # the state is another at the first step, but this may be refused

    def __call__(
        self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Evaluation:
        """Make a step; see `Stepper`."""
        core = self._core
        engine = core.engine
        samples = core.weighed(core.samples(x, y), sample_weight)
        if not self.steps:
            for said in advice(engine.backend, samples, engine.layers[-1].function):
                warnings.warn(said, stacklevel=2)
        if self._smoothing and samples.scoring is None:
            raise ValueError("label_smoothing is given, but the targets are not classes")
        try:
            with engine.lock:
                if engine is not self._engine:  # the first step, or the network has moved
                    self._begin(engine, self._state())
                self._keep(engine)
                evaluation = self._step(samples)
        except DeviceError as error:
            if self._kept is None or core.engine is not engine:
                raise
            flat, state = self._kept
            told = core.rescued(error, flat, f"from after step {self._kept_at}")
            self.steps = self._kept_at
            self._begin(core.engine, state)
            raise told from None
        if not math.isfinite(evaluation.cost):
            raise FloatingPointError(
                f"training diverged: the cost of step {self.steps} is NaN or infinite; the weights "
                "are of no use any more: set others, and try a lower learning rate with a new "
                "stepper"
            )
        return evaluation

    def _start(self, engine: Engine) -> Updates:
        """Return an optimizer's state before the first step."""
        backend, parameters = engine.backend, engine.trained
        return self._optimizer.start(
            Subject(backend, engine.flat, parameters, None, parts=engine.reuses)
        )

    def _begin(self, engine: Engine, state: dict[str, NDArray[Any]] | None) -> None:
        """Begin on an engine, with an optimizer in this state, or one that has made no step."""
        self._engine = engine
        self._trainers: dict[Any, Trainer] = {}
        self._counts: dict[Any, int] = {}
        self._updates = self._start(engine)
        if state is not None:
            self._updates.restore(state)

    def _state(self) -> dict[str, NDArray[Any]] | None:
        """Return the optimizer's state on the host; the last kept if its device has failed."""
        if self._engine is None:
            return None
        try:
            return self._updates.saved()
        except DeviceError:
            return None if self._kept is None else self._kept[1]

    def _keep(self, engine: Engine) -> None:
        """Copy parameters and optimizer to the host, if it is time and all is well."""
        now = time.monotonic()
        if now - self._came >= _KEEP and engine.backend.finite(engine.flat):
            self._kept = engine.backend.download(engine.flat), self._updates.saved()
            self._kept_at, self._came = self.steps, now

    def _step(self, samples: Samples) -> Evaluation:
        trainer = self._trainer(samples)
        (rate,) = self._optimizer.rates(self.steps, 1)
        found = Evaluation(*trainer.once(samples, rate))
        self.steps += 1
        return found

    def _trainer(self, samples: Samples) -> Trainer:
        """Return the compiled step for mini-batches like this."""
        engine, kind = self._core.engine, samples.kind()
        trainer = self._trainers.pop(kind, None)
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        if trainer is None or count == _MANY:
            recipe = Recipe(self._optimizer, len(samples), smoothing=self._smoothing)
            check_sizes(engine, len(samples), recipe)
            if not engine.fits(samples):
                raise ValueError(f"x and y do not fit on {engine.backend.device}: give fewer rows")
            key = int(self._core.rng.integers(2**32)) if engine.random else 0
            steps = 1 if count < _MANY else _EXPECTED
            trainer = Trainer(
                engine, samples, recipe, key, steps, again=True, updates=self._updates
            )
        while len(self._trainers) >= _KINDS:
            oldest = next(iter(self._trainers))
            del self._trainers[oldest]
        self._trainers[kind] = trainer  # now the most recent
        return trainer
