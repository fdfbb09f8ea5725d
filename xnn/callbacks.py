"""What may happen between epochs.

A callback is a `Callback`, or a plain function that is called with the `Training` after each epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

from .history import History


class Training(Protocol):
    """What a callback sees of the training under way."""

    epoch: int  #: the epoch that has ended, from 0
    epochs: int  #: how many there are to be
    history: History

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
        How many epochs in a row may pass without a better figure.
    min_delta
        How much better counts.
    restore
        Whether the network ends with the weights that it had at its best.

    Raises `ValueError` for values out of range, and at the first epoch where the figure is not
    recorded.
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
        if isinstance(patience, bool) or not isinstance(patience, int) or patience < 1:
            raise ValueError(f"patience is {patience!r}, but must be a whole number of at least 1")
        if not (isinstance(min_delta, int | float) and 0 <= min_delta < math.inf):
            raise ValueError(f"min_delta is {min_delta!r}, but must be a number of at least 0")
        self.monitor = monitor
        self.patience = patience
        self.min_delta = min_delta
        self.restore = restore

    def begin(self, training: Training) -> None:
        self.best = math.inf
        self.best_epoch = -1
        self._snapshot: Any = None

    def epoch_end(self, training: Training) -> None:
        figures = getattr(training.history, self.monitor)
        if not figures:
            raise ValueError(
                f"monitor is {self.monitor!r}, but this training records no such figure; "
                "give validation_data for validation figures, and labels for accuracies"
            )
        figure = -figures[-1] if "accuracy" in self.monitor else figures[-1]
        if figure < self.best - self.min_delta or self.best_epoch < 0:
            self.best, self.best_epoch = figure, training.epoch
            self._snapshot = training.snapshot() if self.restore else None
        elif training.epoch - self.best_epoch >= self.patience:
            training.stop(f"{self.monitor} was best in epoch {self.best_epoch}")

    def end(self, training: Training) -> None:
        if self._snapshot is not None:
            training.restore(self._snapshot)
            self._snapshot = None
