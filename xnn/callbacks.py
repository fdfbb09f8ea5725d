"""Callbacks, which run between epochs or between groups of steps.

A callback is a `Callback`, or a plain function that is called with the `Training` after each epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from . import checks
from .history import History

__all__ = ["Callback", "EarlyStopping", "ReduceOnPlateau", "Training"]


class Training(Protocol):
    """What a callback sees of the running training.

    It does not hold the network: a function given as a callback gets it from its own scope.

    Attributes
    ----------
    epoch, epochs
        The epoch that has ended, from 0, and the total number of epochs.
    step, steps
        The number of steps done in the epoch, and its total.
    resumed
        Whether training was resumed from a checkpoint.
    history, figures
        The figures so far, and the names of those recorded.
    rate_factor
        The factor applied to learning rates, initially 1; a callback may set it.
    """

    epoch: int
    """The epoch that has ended, from 0."""
    epochs: int
    """The total number of epochs."""
    step: int
    """The number of steps done in the epoch."""
    steps: int
    """The total number of steps in the epoch."""
    resumed: bool
    """Whether training was resumed from a checkpoint."""
    history: History
    """The figures so far."""
    figures: frozenset[str]
    """Which of ``History.FIGURES`` are recorded."""
    rate_factor: float
    """The factor applied to learning rates, initially 1; a callback may set it."""

    def stop(self, reason: str) -> None:
        """End training after this epoch; ``reason`` becomes ``history.stopped``."""

    def snapshot(self) -> Any:
        """Return a copy of all parameters."""

    def restore(self, snapshot: Any) -> None:
        """Set all parameters to those of a snapshot."""

    def save(self, path: str | os.PathLike[str]) -> bool:
        """Write a checkpoint from which `Network.fit` can resume; for `Callback.steps_end`.

        Returns False, and writes nothing, if parameters are not finite. Raises `OSError` if the
        file cannot be written, `ValueError` if a callback's state cannot be stored.
        """


class Callback:
    """Base class of callbacks; each method does nothing unless overridden.

    Examples
    --------
    >>> import numpy as np
    >>> import xnn
    >>> class Enough(xnn.Callback):
    ...     def epoch_end(self, training):
    ...         if training.history.accuracy[-1] > 0.9:
    ...             training.stop("good enough")
    >>> x = np.random.default_rng(0).random((200, 2))
    >>> y = (x[:, 0] > x[:, 1]).astype(int)
    >>> net = xnn.Network([2, xnn.Dense(2, "softmax")], seed=0)
    >>> net.fit(x, y, epochs=100, optimizer=0.5, callbacks=[Enough()]).stopped
    'good enough'
    """

    def begin(self, training: Training) -> None:
        """Run before the first epoch."""

    def epoch_end(self, training: Training) -> None:
        """Run after each epoch, when its figures are in ``training.history``."""

    def steps_end(self, training: Training) -> None:
        """Run between groups of steps, and after `epoch_end` of all callbacks.

        A group is up to some hundreds of steps. Within an epoch the network has the parameters
        being trained, not their averages.
        """

    def end(self, training: Training) -> None:
        """Run when training has ended, for whatever reason, if `begin` has been called."""

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must keep of this callback.

        Values are arrays of numbers, or JSON-serialisable.
        """
        return {}

    def resume(self, training: Training, state: Mapping[str, Any]) -> None:
        """Continue, after `begin`, from a `state` that was saved. Raises `ValueError` if it cannot.

        Called only if that state was not empty.
        """


#: What ``fit(callbacks=…)`` takes.
CallbackLike = Callback | Callable[[Training], object]


def checked(given: Sequence[CallbackLike]) -> list[Callback]:
    """Return the callbacks, with functions wrapped. Raises `ValueError` for anything else."""
    if not isinstance(given, list | tuple):
        raise ValueError(f"callbacks is {given!r}, but must be a list")
    for callback in given:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise ValueError(f"callbacks has {callback!r}, neither a callback nor a function")
    return [c if isinstance(c, Callback) else _AfterEpoch(c) for c in given]


class _AfterEpoch(Callback):
    """A plain function as a callback."""

    def __init__(self, function: Callable[[Training], object]) -> None:
        self.function = function

    def epoch_end(self, training: Training) -> None:
        self.function(training)


def figure_name(monitor: str | None) -> str | None:
    """Return ``monitor`` if it is None or names a figure, else raise `ValueError`."""
    if monitor is not None and monitor not in History.FIGURES:
        known = ", ".join(History.FIGURES)
        raise ValueError(f"monitor is {monitor!r}, but must be one of {known}")
    return monitor


def usual(training: Training) -> str | None:
    """Return the default figure to monitor, one of validation data; None without any."""
    names = ("validation_accuracy", "validation_cost")
    return next((name for name in names if name in training.figures), None)


def recorded(monitor: str, training: Training) -> str:
    """Return ``monitor`` if the training records it, else raise `ValueError`."""
    if monitor not in training.figures:
        raise ValueError(
            f"monitor is {monitor!r}, but this training records no such figure; "
            "give validation_data for validation figures, and labels for accuracies"
        )
    return monitor


class _Watching(Callback):
    """Base class of what acts when a figure has stopped improving."""

    def __init__(self, monitor: str | None, patience: int, min_delta: float) -> None:
        self.monitor = figure_name(monitor)
        self.patience = checks.whole("patience", patience)
        self.min_delta = checks.not_negative("min_delta", min_delta)
        self.best: float | None = None
        self.best_epoch: int | None = None
        self._busy = False  # whether a training is running

    def begin(self, training: Training) -> None:
        if self._busy:  # in another thread
            kind = type(self).__name__
            raise ValueError(f"this {kind} is in use by another training: give each its own")
        given = self.monitor
        found = usual(training) if given is None else recorded(given, training)
        if found is None:
            raise ValueError("there is nothing to watch: give validation_data, or name a monitor")
        self._figure = found
        self.best = self.best_epoch = None
        self._busy = True

    def end(self, training: Training) -> None:
        self._busy = False

    def better(self, training: Training) -> bool:
        """Note the figure of the epoch that has ended, and return whether it is the best so far.

        Any number is better than NaN.
        """
        figure = getattr(training.history, self._figure)[-1]
        best = self.best
        if best is not None and (math.isnan(figure) or not math.isnan(best)):
            gain = figure - best if "accuracy" in self._figure else best - figure
            if not gain > self.min_delta:
                return False
        self.best, self.best_epoch = figure, training.epoch
        return True

    def state(self) -> dict[str, Any]:
        return {"monitor": self._figure, "best": self.best, "best_epoch": self.best_epoch}

    def resume(self, training: Training, state: Mapping[str, Any]) -> None:
        if state["monitor"] != self._figure:
            raise ValueError(f"monitor was {state['monitor']!r}, but is {self._figure!r}")
        if state["best"] is not None:
            if not isinstance(state["best"], float):
                raise ValueError(f"the best {self._figure} was {state['best']!r}")
            self.best = state["best"]
            self.best_epoch = checks.whole("best_epoch", state["best_epoch"], least=0)


class EarlyStopping(_Watching):
    """Stop when a figure has stopped improving, and restore the best weights.

    With a larger patience, ``fit(resume=…)`` continues a training that this callback has stopped.

    Parameters
    ----------
    monitor
        ``"validation_accuracy"`` or ``"accuracy"``, which should rise, or ``"validation_cost"`` or
        ``"cost"``, which should fall. None is the validation accuracy if it is recorded, else (as
        in a regression) the validation cost.
    patience
        Stop after this many epochs in a row without improvement.
    min_delta
        Only changes by more than this count as improvement.
    restore
        Whether the network ends with the weights of the best epoch.

    Attributes
    ----------
    best
        The best figure of the last training; None before any.
    best_epoch
        The epoch in which it was reached, from 0; None before any.

    Raises
    ------
    ValueError
        For values out of range; before the first epoch, if the training does not record the
        figure, or, with None, has no validation data.
    """

    def __init__(
        self,
        monitor: str | None = None,
        patience: int = 10,
        min_delta: float = 0.0,
        restore: bool = True,
    ) -> None:
        super().__init__(monitor, patience, min_delta)
        self.restore = checks.truth("restore", restore)

    def begin(self, training: Training) -> None:
        super().begin(training)
        self._snapshot: Any = None
        self._stopped: str | None = None  # why, if this has ended training

    def epoch_end(self, training: Training) -> None:
        if self.better(training):
            self._snapshot = training.snapshot() if self.restore else None
        elif self._exhausted(training):
            assert self.best_epoch is not None
            best = f"{self.best_epoch + 1}/{training.epochs}"
            self._stopped = f"{self._figure} was best in epoch {best}"
            training.stop(self._stopped)

    def _exhausted(self, training: Training) -> bool:
        return self.best_epoch is not None and training.epoch - self.best_epoch >= self.patience

    def state(self) -> dict[str, Any]:
        weights = {} if self._snapshot is None else {"weights": self._snapshot}
        return {**super().state(), "stopped": self._stopped, **weights}

    def resume(self, training: Training, state: Mapping[str, Any]) -> None:
        super().resume(training, state)
        reason = state.get("stopped")
        if reason is not None and self._exhausted(training):
            self._stopped = reason
            training.stop(reason)
        elif training.history.stopped == reason:  # there is more patience now
            training.history.stopped = None
        if "weights" in state:
            weights, wanted = state["weights"], training.snapshot()
            if weights.dtype != wanted.dtype or weights.shape != wanted.shape:
                raise ValueError(f"the best weights have shape {weights.shape}")
            if not np.isfinite(weights).all():
                raise ValueError("the best weights hold NaN or infinity")
            self._snapshot = np.array(weights)

    def end(self, training: Training) -> None:
        snapshot, self._snapshot = self._snapshot, None
        super().end(training)
        if snapshot is not None:
            training.restore(snapshot)


class ReduceOnPlateau(_Watching):
    """Reduce the learning rate whenever a figure has stopped improving.

    A learning rate schedule, if any, continues, multiplied by the factor.

    Parameters
    ----------
    monitor
        As in `EarlyStopping`.
    factor
        What to multiply the learning rate by: above 0 and below 1.
    patience
        Multiply after this many epochs in a row without improvement, then restart the count.
    min_delta
        Only changes by more than this count as improvement.

    Attributes
    ----------
    best
        The best figure of the last training; None before any.
    best_epoch
        The epoch in which it was reached, from 0; None before any.

    Raises
    ------
    ValueError
        For values out of range; before the first epoch, if the training does not record the
        figure.
    """

    def __init__(
        self,
        monitor: str | None = "validation_cost",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(monitor, patience, min_delta)
        wanted = "a number above 0 and below 1"
        self.factor = checks.number("factor", factor, wanted, above=0, below=1)

    def begin(self, training: Training) -> None:
        super().begin(training)
        self._waited = 0

    def epoch_end(self, training: Training) -> None:
        self._waited = 0 if self.better(training) else self._waited + 1
        if self._waited >= self.patience:
            training.rate_factor *= self.factor
            self._waited = 0

    def state(self) -> dict[str, Any]:
        return {**super().state(), "waited": self._waited}

    def resume(self, training: Training, state: Mapping[str, Any]) -> None:
        super().resume(training, state)
        self._waited = checks.whole("waited", state["waited"], least=0)
