"""Epochs, shuffles and mini-batches: the one training loop."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import DeviceError
from .callbacks import Callback, CallbackLike, Training
from .engine import Engine
from .history import History
from .inference import Inference
from .samples import Samples
from .steps import Recipe, Trainer

_GLANCE = 0.5  # seconds between looks at the figures of a running epoch


class Run:
    """A training run under way; what callbacks see (`xnn.callbacks.Training`)."""

    def __init__(
        self, engine: Engine, epochs: int, figures: frozenset[str], finite: bool = True
    ) -> None:
        self.epoch = -1
        self.epochs = epochs
        self.history = History()
        self.figures = figures
        self.finite = finite  # whether all numbers must be
        self.rate_factor = 1.0
        self.lost = False  # whether the device has failed
        self._engine = engine
        self.good = self.snapshot()  # all parameters as they last were finite, on the host

    def stop(self, reason: str) -> None:
        """End training after this epoch; ``reason`` becomes ``history.stopped``."""
        self.history.stopped = reason

    def snapshot(self) -> Any:
        """Return a copy of all parameters, on the host."""
        with self._engine.lock:
            return self._engine.run.download(self._engine.flat)

    def restore(self, snapshot: Any) -> None:
        """Set all parameters to a copy made before."""
        if self.lost:
            self.good = snapshot
            return
        run = self._engine.run
        with self._engine.lock:
            run.copy(run.upload(snapshot), self._engine.flat)


def train(
    inference: Inference,
    samples: Samples,
    *,
    epochs: int,
    recipe: Recipe,
    orders: Iterator[NDArray[np.intp]],
    key: int = 0,
    validation: Samples | None = None,
    callbacks: Sequence[CallbackLike] = (),
    progress: bool | None = None,
    finite: bool = True,
) -> History:
    """Train the network of ``inference`` on samples, and return the history.

    ``orders`` gives for each epoch the order in which to go through the samples.

    A cost or parameter that is NaN or infinite ends training with `FloatingPointError`, which names
    epoch and step; the parameters are then those with which that epoch began. Ctrl-C ends training
    and leaves the parameters as they are. A device that fails is a `DeviceError`, which carries the
    last good parameters. Where ``finite`` is false, numbers that are not finite are gone on with.
    """
    engine = inference.engine
    run = Run(engine, epochs, _figures(samples, validation), finite)
    if finite and not np.isfinite(run.good).all():
        raise ValueError("the network's weights or biases hold NaN or infinity; set them anew")
    with engine.lock:
        trainer = Trainer(engine, samples, recipe, key=key)
        if validation is not None:
            validation = engine.settle(validation)
    around = [c if isinstance(c, Callback) else _AfterEpoch(c) for c in callbacks]
    for callback in around:
        callback.begin(run)
    try:
        _train_epochs(run, inference, trainer, orders, validation, around, progress)
    except DeviceError as error:
        error.parameters = run.good
        raise
    return run.history


def _train_epochs(
    run: Run,
    inference: Inference,
    trainer: Trainer,
    orders: Iterator[NDArray[np.intp]],
    validation: Samples | None,
    around: Sequence[Callback],
    progress: bool | None,
) -> None:
    engine, samples, epochs = inference.engine, trainer.samples, run.epochs
    try:
        with engine.stage(trainer.batch), _Bar(len(samples), epochs, progress) as bar:
            for run.epoch in range(epochs):
                order = next(orders)
                began = time.perf_counter()
                _train_epoch(run, trainer, order, bar)
                if validation is not None:
                    with engine.lock:
                        figures = inference.evaluate(validation)
                    run.history.record("validation_", *figures)
                run.history.seconds.append(time.perf_counter() - began)
                bar.epoch(run)
                for callback in around:
                    callback.epoch_end(run)
                if run.history.stopped is not None:
                    break
                if around:
                    run.good = run.snapshot()  # callbacks may have changed parameters
    except KeyboardInterrupt:
        if run.finite and not np.isfinite(run.snapshot()).all():
            run.restore(run.good)  # it had diverged, and that may be why
        run.stop(f"interrupted in epoch {run.epoch}")
        _trim(run.history)
        print(f"\nxnn: {run.history.stopped}; the network keeps its weights", file=sys.stderr)
    except DeviceError:
        run.lost = True
        raise
    finally:
        for callback in around:
            callback.end(run)


def _figures(samples: Samples, validation: Samples | None) -> frozenset[str]:
    """Return which figures there will be."""
    figures = {"cost"} | ({"accuracy"} if samples.scoring else set())
    if validation is not None:
        figures |= {"validation_cost"} | ({"validation_accuracy"} if validation.scoring else set())
    return frozenset(figures)


def _train_epoch(run: Run, trainer: Trainer, order: Any, bar: _Bar) -> None:
    rates = trainer.recipe.optimizer.rates(run.epoch, trainer.steps) * run.rate_factor
    glanced = time.perf_counter()
    done = 0
    with trainer.stepping():
        for done in trainer.epoch(order, rates):
            now = time.perf_counter()
            if now - glanced >= _GLANCE and done < trainer.steps:
                glanced = now
                cost, _, bad = trainer.figures(done)
                if run.finite and bad is not None:
                    break
                bar.show(run, min(done * trainer.batch, len(order)), cost)
    cost, accuracy, bad = trainer.figures(done)
    parameters = run.snapshot()
    if bad is None and not np.isfinite(parameters).all():
        bad = done - 1
    if run.finite and bad is not None:
        run.restore(run.good)
        raise FloatingPointError(
            f"training diverged in epoch {run.epoch}, step {bad} of {trainer.steps}: NaN or "
            "infinity; the weights are those from before the epoch; try a lower learning rate"
        )
    run.good = parameters
    run.history.record("", cost, accuracy)


def _trim(history: History) -> None:
    """Drop the figures of an epoch that was not completed."""
    complete = len(history.seconds)
    for name in History.FIGURES:
        del getattr(history, name)[complete:]


class _AfterEpoch(Callback):
    """A plain function as a callback."""

    def __init__(self, function: Any) -> None:
        self.epoch_end = function  # type: ignore[method-assign]


class _Bar:
    """A progress bar on the terminal; none where standard error is a file, unless asked for."""

    def __init__(self, samples: int, epochs: int, progress: bool | None) -> None:
        self._bar: Any = None
        self._samples = samples
        if progress or (progress is None and sys.stderr is not None and sys.stderr.isatty()):
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=samples * epochs,
                desc=f"epoch 1/{epochs}",
                unit=" samples",
                unit_scale=True,
                leave=False,
            )

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, run: Run, samples: int, cost: float) -> None:
        """Show how far the running epoch has come."""
        if self._bar is not None:
            done = self._samples * run.epoch + samples
            self._bar.set_description(f"epoch {run.epoch + 1}/{run.epochs}", refresh=False)
            self._bar.set_postfix_str(f"cost {cost:.4g}", refresh=False)
            self._bar.update(done - self._bar.n)

    def epoch(self, run: Run) -> None:
        """Show that an epoch is complete."""
        self.show(run, self._samples, run.history.cost[-1])


__all__ = ["Run", "Training", "train"]
