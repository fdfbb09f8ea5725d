"""What may happen between epochs.

A callback is a `Callback`, or a plain function that is called with the `Training` after each epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from . import checks
from .history import History


class Training(Protocol):
    """What a callback sees of the training under way."""

    epoch: int  #: the epoch that has ended, from 0
    epochs: int  #: how many there are to be
    history: History
    figures: frozenset[str]  #: which of ``History.FIGURES`` it records

    def stop(self, reason: str) -> None:
        """End training after this epoch; ``reason`` becomes ``history.stopped``."""

    def snapshot(self) -> Any:
        """Return a copy of all parameters."""

    def restore(self, snapshot: Any) -> None:
        """Set all parameters to a copy made before."""


class Callback:
    """Something that happens around epochs; each method does nothing unless it is written anew."""

    def begin(self, training: Training) -> None:
        """Do something before the first epoch."""

    def epoch_end(self, training: Training) -> None:
        """Do something after an epoch, when its figures are in ``training.history``."""

    def end(self, training: Training) -> None:
        """Do something after the last epoch, also where training was stopped or interrupted."""


#: What ``fit(callbacks=…)`` takes.
CallbackLike = Callback | Callable[[Training], object]


class EarlyStopping(Callback):
    """Stop when a figure has not got better for some epochs, and go back to the best weights.

    Parameters
    ----------
    monitor
        ``"validation_accuracy"`` or ``"accuracy"``, which should grow, or ``"validation_cost"`` or
        ``"cost"``, which should fall.
    patience
        Stop after so many epochs in a row without a better figure.
    min_delta
        How much better counts.
    restore
        Whether the network ends with the weights that it had at its best.

    Attributes
    ----------
    best
        The best figure of the last training; None before.
    best_epoch
        The epoch in which it was met, from 0; None before.

    Raises `ValueError` for values out of range, and before the first epoch where the training will
    not record the figure.
    """

    def __init__(
        self,
        monitor: str = "validation_accuracy",
        patience: int = 10,
        min_delta: float = 0.0,
        restore: bool = True,
    ) -> None:
        if monitor not in History.FIGURES:
            raise ValueError(
                f"monitor is {monitor!r}, but must be one of {', '.join(History.FIGURES)}"
            )
        self.monitor = monitor
        self.patience = checks.whole("patience", patience)
        self.min_delta = checks.number("min_delta", min_delta, "a number of at least 0", least=0)
        self.restore = restore
        self.best: float | None = None
        self.best_epoch: int | None = None

    def begin(self, training: Training) -> None:
        if self.monitor not in training.figures:
            raise ValueError(
                f"monitor is {self.monitor!r}, but this training records no such figure; "
                "give validation_data for validation figures, and labels for accuracies"
            )
        self.best = self.best_epoch = None
        self._snapshot: Any = None

    def epoch_end(self, training: Training) -> None:
        figure = getattr(training.history, self.monitor)[-1]
        if self.best is None or self.best_epoch is None or self._gain(figure) > self.min_delta:
            self.best, self.best_epoch = figure, training.epoch
            self._snapshot = training.snapshot() if self.restore else None
        elif training.epoch - self.best_epoch >= self.patience:
            training.stop(f"{self.monitor} was best in epoch {self.best_epoch}")

    def end(self, training: Training) -> None:
        if self._snapshot is not None:
            training.restore(self._snapshot)
            self._snapshot = None

    def _gain(self, figure: float) -> float:
        """Return by how much ``figure`` is better than the best."""
        assert self.best is not None
        gain = figure - self.best
        return gain if "accuracy" in self.monitor else -gain
