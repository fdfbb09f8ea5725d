"""The figures of a training run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar


@dataclass
class History:
    """One figure an epoch, in lists.

    A cost is that of the data: weight decay is not in it. Lists stay empty where there is nothing
    to record: no validation data, or no accuracy in a regression.

    Attributes
    ----------
    cost, accuracy
        Of the training data as it was met during the epoch, by weights that were still changing.
        There is an accuracy where targets are labels or one-hot rows, or yes and no for one output.
    validation_cost, validation_accuracy
        Of the validation data, at the epoch's end.
    seconds
        Of each epoch, validation included.
    stopped
        Why training ended before its last epoch; None where it did not.
    interrupted
        Whether that was Ctrl-C.
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
        """Return the last epoch's figures; the lists themselves hold one an epoch."""
        epochs = "1 epoch" if len(self) == 1 else f"{len(self)} epochs"
        figures = [f"{epochs} in {sum(self.seconds):.3g} s"]
        figures += [
            f"{name} {getattr(self, name)[-1]:.4g}" for name in self.FIGURES if getattr(self, name)
        ]
        figures += [f"stopped: {self.stopped}"] if self.stopped else []
        return f"<History: {', '.join(figures)}>"

    def __len__(self) -> int:
        """Return how many epochs were completed."""
        return len(self.cost)

    def table(self) -> dict[str, list[float]]:
        """Return the lists that are not empty, by name: what ``pandas.DataFrame`` takes."""
        lists = {name: getattr(self, name) for name in (*self.FIGURES, "seconds")}
        return {name: list(values) for name, values in lists.items() if values}

    def record(self, prefix: str, cost: float, accuracy: float | None) -> None:
        """Append a cost, and an accuracy where there is one."""
        getattr(self, f"{prefix}cost").append(cost)
        if accuracy is not None:
            getattr(self, f"{prefix}accuracy").append(accuracy)

    def saved(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        return asdict(self)

    @classmethod
    def restored(cls, saved: Mapping[str, Any], epochs: int, figures: Collection[str]) -> History:
        """Return the history that `saved` gave after so many epochs with these figures.

        Raises `ValueError` or `TypeError` where it is anything else.
        """
        history = cls(**saved)
        for name in (*cls.FIGURES, "seconds"):
            values = getattr(history, name)
            count = epochs if name in figures or name == "seconds" else 0
            numbers = isinstance(values, list) and all(isinstance(v, float) for v in values)
            if not numbers or len(values) != count:
                raise ValueError(f"its history of {name} is not one of {count} epochs")
        if not isinstance(history.stopped, str | None):
            raise ValueError(f"its history ended because of {history.stopped!r}")
        if not isinstance(history.interrupted, bool):
            raise ValueError(f"its history has interrupted as {history.interrupted!r}")
        return history
