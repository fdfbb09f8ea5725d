"""Checkpoints: files from which a training that was ended, by whatever, goes on."""

from __future__ import annotations

import math
import os
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import checks, saving
from .callbacks import Callback, Training, figure_name, recorded, usual

_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")
_EVERY = re.compile(r"(\d+(?:\.\d+)?) (epoch|step|minute)s?")
BEST = "best.safetensors"


class Checkpoints(Callback):
    """Write checkpoints of a training to a folder as it goes on.

    One is all that it takes to go on, by ``fit(resume=…)``, as if there had been no end: a network
    file, which `xnn.load` reads, with the optimizer's state, the random generators, the place
    within the epoch, the history and the callbacks' state. They are numbered,
    ``checkpoint-000001.safetensors`` and so on; ``best.safetensors`` is that of the best epoch.
    There is one too when training ends of itself. One that cannot be written, because a disk is
    full for instance, is told by a `RuntimeWarning`, once, and training goes on.

    Parameters
    ----------
    folder
        Where to; made where it is not there. It is for one training at a time.
    every
        ``"2 epochs"``, ``"500 steps"``, ``"10 minutes"``, or a number of epochs. Steps are looked
        at some dozens at a time.
    keep
        How many to keep, beside the best.
    monitor
        What tells the best epoch, as in `EarlyStopping`; None is the validation accuracy, or else
        the validation cost, where there is one.

    Raises
    ------
    ValueError
        For values that are none of these, and before the first epoch where the training will not
        record the figure, or is a new one but the folder has checkpoints.
    OSError
        Where the folder cannot be made.

    Examples
    --------
    >>> import numpy as np
    >>> import xnn
    >>> x = np.random.default_rng(0).random((200, 2))
    >>> y = (x[:, 0] > x[:, 1]).astype(int)
    >>> keeps = xnn.Checkpoints("runs/1", every="2 epochs")
    >>> net = xnn.Network([2, 8, 2], seed=0)
    >>> history = net.fit(x, y, epochs=4, callbacks=[keeps])
    >>> keeps.newest().name
    'checkpoint-000002.safetensors'
    >>> again = xnn.Network([2, 8, 2], seed=0)  # in another process, on another day
    >>> history = again.fit(x, y, epochs=6, callbacks=[keeps], resume="runs/1")
    >>> len(history)
    6
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        every: int | str = 1,
        keep: int = 3,
        monitor: str | None = None,
    ) -> None:
        self.folder = Path(folder)
        self.every = every
        told = _EVERY.fullmatch(every if isinstance(every, str) else f"{every} epochs")
        count = float(told[1]) if told and not isinstance(every, bool) else 0
        if not told or count <= 0 or (told[2] != "minute" and count != int(count)):
            wanted = "'2 epochs', '500 steps', '10 minutes' or the like, or a number of epochs"
            raise ValueError(f"every is {every!r}, but must be {wanted}")
        self._count, self._unit = count, told[2]
        self.keep = checks.whole("keep", keep)
        self.monitor = figure_name(monitor)

    def newest(self) -> Path | None:
        """Return the newest checkpoint in the folder, for ``fit(resume=…)``; None without any."""
        return newest(self.folder)

    def begin(self, training: Training) -> None:
        given = self.monitor
        self._figure = usual(training) if given is None else recorded(given, training)
        if not training.resumed and self.newest() is not None:
            raise ValueError(
                f"{self.folder}: has checkpoints already; go on from them by resume, "
                "or take another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        saving.sweep(self.folder)
        self._failed = False
        self._steps, self._time = 0, time.monotonic()

    def steps_end(self, training: Training) -> None:
        if self._due(training):
            self._time = time.monotonic()
            with self._told("a checkpoint could not be written"):
                found = _numbered(self.folder)
                name = f"checkpoint-{max(found, default=0) + 1:06d}.safetensors"
                over = max(0, len(found) + 1 - self.keep)
                if training.save(self.folder / name) and over:
                    self._drop([found[n] for n in sorted(found)[:over]])
        if self._figure is not None and training.step == training.steps:
            values = getattr(training.history, self._figure)
            better = max if "accuracy" in self._figure else min
            numbers = [value for value in values if not math.isnan(value)] or values
            if values.index(better(numbers)) == len(values) - 1:
                with self._told("a checkpoint could not be written"):
                    training.save(self.folder / BEST)

    def _due(self, training: Training) -> bool:
        ended = training.step == training.steps
        last = training.epoch + 1 == training.epochs or training.history.stopped is not None
        if ended and last:
            return True
        if self._unit == "epoch":
            return ended and (training.epoch + 1) % self._count == 0
        before, self._steps = self._steps, training.epoch * training.steps + training.step
        if self._unit == "step":
            return self._steps // self._count > before // self._count
        return time.monotonic() - self._time >= 60 * self._count

    def _drop(self, paths: list[Path]) -> None:
        with self._told("an old checkpoint could not be deleted"):
            for path in paths:
                path.unlink(missing_ok=True)

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        """Warn, once, of what the file system does not do, and go on."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._failed = True
                warnings.warn(f"{what} ({error}); training goes on", RuntimeWarning, stacklevel=4)


def newest(folder: str | os.PathLike[str]) -> Path | None:
    """Return the newest checkpoint in a folder, None where there is none."""
    found = _numbered(Path(folder))
    return found[max(found)] if found else None


def find(path: str | os.PathLike[str]) -> Path:
    """Return a file that is given, or the newest checkpoint of a folder that is given.

    Raises `FileNotFoundError` where there is none.
    """
    if not Path(os.fsdecode(path)).is_dir():
        return Path(os.fsdecode(path))
    found = newest(path)
    if found is None:
        raise FileNotFoundError(f"{os.fsdecode(path)}: there is no checkpoint in this folder")
    return found


def _numbered(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder, if it is there, by their numbers."""
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return {}
    names = ((path, _NAME.fullmatch(path.name)) for path in paths)
    return {int(name[1]): path for path, name in names if name}
