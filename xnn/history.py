"""The figures of a training run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass
class History:
    """Lists of figures, one per epoch.

    Costs do not include weight decay. Lists stay empty if there is nothing to record: without
    validation data, or accuracies in a regression.

    Attributes
    ----------
    cost, accuracy
        On the training data, accumulated during the epoch while the weights change. There is an
        accuracy if targets are labels or one-hot rows, or yes and no for a single output.
    validation_cost, validation_accuracy
        On the validation data, at the end of the epoch.
    seconds
        The duration of each epoch, including validation.
    stopped
        Why training ended before its last epoch; None if it did not.
    interrupted
        Whether Ctrl-C ended it.
    """

    FIGURES: ClassVar[tuple[str, ...]] = (
        "cost",
        "accuracy",
        "validation_cost",
        "validation_accuracy",
    )

    cost: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    validation_cost: list[float] = field(default_factory=list)
    validation_accuracy: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    stopped: str | None = None
    interrupted: bool = False

    def __repr__(self) -> str:
        """Return the figures of the last epoch."""
        epochs = "1 epoch" if len(self) == 1 else f"{len(self)} epochs"
        figures = [f"{epochs} in {sum(self.seconds):.3g} s"]
        figures += [
            f"{name} {getattr(self, name)[-1]:.4g}" for name in self.FIGURES if getattr(self, name)
        ]
        figures += [f"stopped: {self.stopped}"] if self.stopped else []
        return f"<History: {', '.join(figures)}>"

    def __len__(self) -> int:
        """Return the number of completed epochs."""
        return len(self.cost)

    def table(self) -> dict[str, list[float]]:
        """Return the lists that are not empty, by name, as ``pandas.DataFrame`` takes them."""
        lists = {name: getattr(self, name) for name in (*self.FIGURES, "seconds")}
        return {name: list(values) for name, values in lists.items() if values}

    def record(self, prefix: str, cost: float, accuracy: float | None) -> None:
        """Append a cost, and an accuracy if there is one."""
        getattr(self, f"{prefix}cost").append(cost)
        if accuracy is not None:
            getattr(self, f"{prefix}accuracy").append(accuracy)

    def saved(self) -> dict[str, Any]:
        """Return a JSON-serialisable copy."""
        return asdict(self)

    @classmethod
    def restored(cls, saved: Mapping[str, Any], epochs: int, figures: Collection[str]) -> History:
        """Return the history that `saved` returned after ``epochs`` epochs with these figures.

        Raises `ValueError` or `TypeError` for anything else.
        """
        history = cls(**saved)
        for name in (*cls.FIGURES, "seconds"):
            values = getattr(history, name)
            count = epochs if name in figures or name == "seconds" else 0
            numbers = isinstance(values, list) and all(isinstance(v, float) for v in values)
            if not numbers or len(values) != count:
                raise ValueError(f"its history of {name} is not of length {count}")
        if not isinstance(history.stopped, str | None):
            raise ValueError(f"stopped in its history is {history.stopped!r}, but must be a text")
        if not isinstance(history.interrupted, bool):
            raise ValueError(f"interrupted in its history is {history.interrupted!r}, not a bool")
        return history
