"""Checkpoints: files from which an interrupted training can be resumed."""

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
    """Write checkpoints of a training to a folder.

    A checkpoint holds all that ``fit(resume=…)`` needs to continue as if uninterrupted: it is a
    network file, which `xnn.load` reads, with the optimizer's state, the random generators, the
    position within the epoch, the history and the callbacks' state. Checkpoints are numbered,
    ``checkpoint-000001.safetensors`` and so on; ``best.safetensors`` is that of the best epoch. One
    is also written when training ends normally. If one cannot be written, because the disk is full
    for instance, a single `RuntimeWarning` is issued and training continues.

    Parameters
    ----------
    folder
        The folder to write to; created if missing. It serves one training at a time.
    every
        ``"2 epochs"``, ``"500 steps"``, ``"10 minutes"``, or a number of epochs. Steps and minutes
        are checked between groups of steps, which are some hundreds for small networks.
    keep
        How many to keep, besides the best.
    monitor
        The figure that decides the best epoch, as in `EarlyStopping`; None is the validation
        accuracy if it is recorded, else the validation cost, if any.

    Raises
    ------
    ValueError
        For values that are none of these; before the first epoch, if the training does not record
        the figure, or if it is a new training but the folder has checkpoints.
    OSError
        If the folder cannot be created.

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
        """Return the newest checkpoint in the folder, for ``fit(resume=…)``; None if none."""
        return newest(self.folder)

    def begin(self, training: Training) -> None:
        given = self.monitor
        self._figure = usual(training) if given is None else recorded(given, training)
        if not training.resumed and self.newest() is not None:
            raise ValueError(
                f"{self.folder}: already has checkpoints; continue from them with resume, "
                "or use another folder"
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
        """Warn, once, of a failure of the file system, and continue."""
        try:
            yield
        except OSError as error:
            if not self._failed:
                self._failed = True
                warnings.warn(f"{what} ({error}); training continues", RuntimeWarning, stacklevel=4)


def newest(folder: str | os.PathLike[str]) -> Path | None:
    """Return the newest checkpoint in a folder; None if there is none."""
    found = _numbered(Path(folder))
    return found[max(found)] if found else None


def find(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if it is a file, or the newest checkpoint in it if it is a folder.

    Raises `FileNotFoundError` if the folder has none.
    """
    if not Path(os.fsdecode(path)).is_dir():
        return Path(os.fsdecode(path))
    found = newest(path)
    if found is None:
        raise FileNotFoundError(f"{os.fsdecode(path)}: no checkpoint in this folder")
    return found


def _numbered(folder: Path) -> dict[int, Path]:
    """Return the checkpoints in a folder, if it exists, by number."""
    try:
        paths = list(folder.iterdir())
    except FileNotFoundError:
        return {}
    names = ((path, _NAME.fullmatch(path.name)) for path in paths)
    return {int(name[1]): path for path, name in names if name}
