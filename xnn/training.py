"""Epochs, shuffles and mini-batches: the training loop."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Required, TypedDict

import numpy as np
from numpy.typing import NDArray

from . import checks, saving
from .backends import DeviceError
from .callbacks import Callback, CallbackLike, Training, checked
from .history import History
from .inference import Inference
from .samples import Samples
from .steps import Recipe, Trainer, check_sizes

_GLANCE = 0.5  # seconds between checks of the figures of a running epoch
# In case the device is lost, parameters are copied to the host: up to this many bytes after each
# epoch, more than that only if the last copy is this many seconds old.
_LIGHT = 1024 * 1024
_KEEP = 10.0
_OF_CALLBACKS = "that callbacks left, such as the best"  # of parameters

_StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Saved:
    """The state of a training between two steps: all that is needed to resume it."""

    flat: NDArray[Any]  # the network's parameters
    arrays: Mapping[str, NDArray[Any]]
    facts: Mapping[str, Any]  # JSON-serialisable
    source: str = ""  # its file


class Options(TypedDict, total=False):
    """Arguments of `train` that do not come from the network."""

    epochs: Required[int]
    orders: Required[Iterator[NDArray[np.intp]]]
    validation: Samples | None
    callbacks: Sequence[CallbackLike]
    shuffled: bool
    progress: bool | None
    resume: Callable[[], Saved] | None
    finite: bool


class Run:
    """A running training; what callbacks see (`xnn.callbacks.Training`)."""

    def __init__(
        self,
        trainer: Trainer,
        orders: Iterator[NDArray[np.intp]],
        rng: np.random.Generator,
        epochs: int,
        figures: frozenset[str],
        callbacks: Sequence[Callback],
        shuffled: bool,
        write: Callable[[_StrPath, Saved], None],
        resumed: bool,
        finite: bool,
    ) -> None:
        self.epoch = -1
        self.epochs = epochs
        self.step, self.steps = 0, trainer.steps
        self.resumed = resumed
        self.history = History()
        self.figures = figures
        self.finite = finite  # whether all numbers must be
        self.rate_factor = 1.0
        self.lost = False  # whether the device has failed
        self.trainer = trainer
        self.around = callbacks
        self._between = [c for c in self.around if type(c).steps_end is not Callback.steps_end]
        self._engine = trainer.engine
        self._orders, self._rng, self._shuffled, self._write = orders, rng, shuffled, write
        self._optimizer = trainer.recipe.optimizer
        self._next = 0  # the epoch to begin with
        self._order: NDArray[np.intp] | None = None  # of the running epoch
        self._began = 0.0  # when it began
        flat = self._engine.flat
        # The last finite parameters, on the device …
        self._good = self._engine.backend.zeros(flat.shape, flat.dtype)
        self._good_of = "from before the epoch"
        #: … and as last copied to the host, in case the device fails; and when that was.
        self.kept: Any = None
        self.kept_of = ""
        self._came = -math.inf
        self._keep("from before training")

    @property
    def count(self) -> str:
        """The running epoch, counted from 1: ``1/30`` is the first."""
        return f"{self.epoch + 1}/{self.epochs}"

    def stop(self, reason: str) -> None:
        """End training after this epoch; ``reason`` becomes ``history.stopped``."""
        self.history.stopped = reason

    def snapshot(self) -> Any:
        """Return a copy of all parameters, on the host."""
        with self._engine.lock:
            return self._engine.backend.download(self._engine.flat)

    def restore(self, snapshot: Any) -> None:
        """Set all parameters to those of a snapshot."""
        if self.lost:
            self.kept, self.kept_of = snapshot, _OF_CALLBACKS
            return
        backend = self._engine.backend
        with self._engine.lock:
            backend.copy(backend.upload(snapshot), self._engine.flat)

    def _keep(self, of: str) -> None:
        """Keep the parameters as good ones; ``of`` says from when they are."""
        backend, now = self._engine.backend, time.perf_counter()
        with self._engine.lock:
            backend.copy(self._engine.flat, self._good)
            if self._good.nbytes <= _LIGHT or now - self._came >= _KEEP:
                self.kept, self.kept_of = backend.host(self._good), of
                self._came = now

    def _go_back(self) -> None:
        """Set the parameters to the last good ones."""
        with self._engine.lock:
            self._engine.backend.copy(self._good, self._engine.flat)

    def _finite(self) -> bool:
        """Return whether all parameters are finite."""
        with self._engine.lock:
            return self._engine.backend.finite(self._engine.flat)

    # Going through epochs.

    def go(
        self,
        inference: Inference,
        validation: Samples | None,
        progress: bool | None,
        resume: Callable[[], Saved] | None,
    ) -> History:
        """Train for all remaining epochs, and return the history."""
        begun: list[Callback] = []
        try:
            for callback in self.around:
                callback.begin(self)
                begun.append(callback)
            if resume is not None:
                self.resume(resume())
            bad = self._train(inference, validation, progress)
            before = self.snapshot() if bad is not None or self.history.interrupted else None
        except DeviceError:
            self.lost = True
            raise
        finally:
            self._end(begun)
        if before is None:
            return self.history
        # Report last, since callbacks may have restored other weights.
        same = np.array_equal(before, self.snapshot())
        if bad is None:
            has = "keeps its weights" if same else f"has the weights {_OF_CALLBACKS}"
            print(f"\nxnn: {self.history.stopped}; the network {has}", file=sys.stderr)
            return self.history
        diverged = FloatingPointError(
            f"training diverged in epoch {self.count}, step {bad + 1}/{self.steps}: NaN or "
            f"infinity; the weights are those {self._good_of if same else _OF_CALLBACKS}; "
            "try a lower learning rate"
        )
        diverged.history = self.history  # type: ignore[attr-defined]
        raise diverged

    def _end(self, begun: Sequence[Callback]) -> None:
        """Call `end` of each callback, whatever others raise."""
        if begun:
            try:
                begun[0].end(self)
            finally:
                self._end(begun[1:])

    def _train(
        self, inference: Inference, validation: Samples | None, progress: bool | None
    ) -> int | None:
        """Train; return the step of `epoch` in which it diverged, if it did and must not."""
        samples = len(self.trainer.samples)
        try:
            with self.trainer.stage(), _Bar(samples, self.epochs, progress) as bar:
                over, laps = self.history.stopped is not None, self.trainer.laps
                for epoch in range(self._next, 0 if over else self.epochs, laps):
                    self.epoch = epoch
                    bad = self._train_epochs(bar)
                    if bad is not None:
                        return bad
                    if validation is not None:
                        with self._engine.lock:
                            figures = inference.evaluate(validation)
                        self.history.record("validation_", *figures)
                    each = (time.perf_counter() - self._began) / laps
                    self.history.seconds += [each] * laps
                    bar.show(self, samples, self.history.cost[-1])
                    if self.around:
                        bar.clear()
                    for callback in self.around:
                        callback.epoch_end(self)
                    self._keep(f"from after epoch {self.count}")
                    for callback in self._between:
                        callback.steps_end(self)
                    if self.history.stopped is not None:
                        break
        except KeyboardInterrupt:
            if self.finite and not self._finite():
                self._go_back()  # it had diverged, perhaps the reason for Ctrl-C
            self.stop(f"interrupted in epoch {self.count}")
            self.history.interrupted = True
            _trim(self.history)
        return None

    def _train_epochs(self, bar: _Bar) -> int | None:
        """Train for an epoch, or for all that are joined; `epoch` is then the last of them.

        Return the step of `epoch` in which it diverged, if it did and must not.
        """
        trainer, began, first = self.trainer, time.perf_counter(), self.epoch
        laps = range(first, first + trainer.laps)
        if self._order is None:
            with self._engine.lock:  # the generator is part of the network's state
                self._order = np.concatenate([next(self._orders) for _ in laps])
            self.step, self._began = 0, began
        rates = self._optimizer.rates(first, trainer.steps, trainer.laps) * self.rate_factor
        glanced = began
        with trainer.stepping():
            for done in trainer.epoch(self._order, rates, self.step):
                self.step, now = done, time.perf_counter()
                if done == len(rates):
                    break
                if now - glanced >= _GLANCE:
                    glanced = now
                    ((cost, _),), bad = trainer.figures(done)
                    if self.finite and bad is not None:
                        break
                    bar.show(self, done * trainer.batch, cost)
                for callback in self._between:
                    callback.steps_end(self)
        figures, bad = trainer.figures(self.step)
        if bad is None and not self._finite():
            bad = self.step - 1
        if self.finite and bad is not None:
            self._go_back()
            lap, bad = divmod(bad, trainer.steps)
            if lap:
                self._good_of = f"from before epoch {self.count}"
            self.epoch = first + lap
            return bad
        self.epoch = laps[-1]
        self._good_of = "from before the epoch"
        self._order = None
        for cost, accuracy in figures:
            self.history.record("", cost, accuracy)
        return None

    # Saving and resuming.

    def save(self, path: _StrPath) -> bool:
        """Write a checkpoint; see `xnn.callbacks.Training`."""
        steps = 0 if self._order is None else self.step  # of an epoch that is not over
        flat, arrays = self.trainer.saved(steps)
        if not np.isfinite(flat).all():
            return False
        facts = {
            **self._kind(),
            "epoch": self.epoch + (self._order is None),
            "step": steps,
            "rate_factor": self.rate_factor,
            "seconds": time.perf_counter() - self._began if steps else 0.0,
            "history": self.history.saved(),
            "random": self._rng.bit_generator.state,
            "callbacks": [],
        }
        if steps and self._shuffled:
            assert self._order is not None
            arrays["order"] = self._order.astype(np.int64)
        for callback in self.around:
            state = callback.state()
            if not state:
                continue
            number, kind, values = len(facts["callbacks"]), type(callback).__name__, {}
            for name, given in state.items():
                value = saving.storable(f"{kind}.state()[{name!r}]", given)
                if isinstance(value, np.ndarray):
                    arrays[f"callbacks.{number}.{name}"] = value
                else:
                    values[name] = value
            facts["callbacks"].append({"kind": kind, "values": values})
        self._write(path, Saved(flat, arrays, facts))
        return True

    def resume(self, saved: Saved) -> None:
        """Continue from where a training was saved.

        Raises `ValueError`, naming the file, if that training differs; the network is then left as
        it was.
        """
        try:
            self._resume(saved)
        except KeyError as error:
            raise ValueError(f"{saved.source}: {error} is missing in this checkpoint") from None
        except (AttributeError, OverflowError, TypeError, ValueError) as error:
            raise ValueError(f"{saved.source}: not this training's checkpoint: {error}") from None

    def _resume(self, saved: Saved) -> None:
        told, arrays, samples = saved.facts, dict(saved.arrays), len(self.trainer.samples)
        for name, ours in self._kind().items():
            if told[name] != ours:
                raise ValueError(f"{name} was {told[name]!r}, but is {ours!r}")
        epoch = checks.whole("epoch", told["epoch"], least=0)
        step = checks.whole("step", told["step"], least=0)
        if step >= self.steps:
            raise ValueError(f"step is {step}, but an epoch has {self.steps}")
        order = None
        if step:
            order = np.arange(samples)
            if self._shuffled:
                order = arrays.pop("order").astype(np.intp)
                if not np.array_equal(np.sort(order), np.arange(samples)):
                    raise ValueError("order does not have each sample exactly once")
        history = History.restored(told["history"], epoch, self.figures)
        factor = checks.not_negative("rate_factor", told["rate_factor"])
        if epoch < self.epochs:
            with np.errstate(over="ignore"):
                rates = self._optimizer.rates(epoch, self.steps) * factor
                if not np.isfinite(rates.astype(self._engine.dtype)).all():
                    raise ValueError(f"rate_factor is {factor}, too large")
        seconds = checks.not_negative("seconds", told["seconds"])
        type(self._rng.bit_generator)().state = told["random"]  # may be refused
        self.epoch, self._next, self.step = epoch - 1, epoch, step
        self.history = history
        self._resume_callbacks(told["callbacks"], arrays)
        self.trainer.restore(arrays, step)
        self.rate_factor, self._order = factor, order
        self._began = time.perf_counter() - seconds
        self._rng.bit_generator.state = told["random"]
        self.restore(saved.flat)
        self._came = -math.inf
        self._keep("from the checkpoint")
        if step:
            self._good_of = self.kept_of

    def _resume_callbacks(self, states: list[Any], arrays: dict[str, NDArray[Any]]) -> None:
        """Pass each state to the next callback of its kind, with its arrays, removed from all."""
        left = list(self.around)
        for number, state in enumerate(states):
            kind, values, prefix = state["kind"], dict(state["values"]), f"callbacks.{number}."
            for name in [name for name in arrays if name.startswith(prefix)]:
                values[name.removeprefix(prefix)] = arrays.pop(name)
            found = next((c for c in left if type(c).__name__ == kind), None)
            if found is None:
                raise ValueError(f"there are fewer callbacks of kind {kind} than in the checkpoint")
            left.remove(found)
            found.resume(self, values)

    def _kind(self) -> dict[str, Any]:
        """Return the facts that a checkpoint and a training resumed from it must share."""
        return {
            "samples": len(self.trainer.samples),
            "batch_size": self.trainer.batch,
            "shuffle": self._shuffled,
            "optimizer": type(self._optimizer).__name__,
            "figures": sorted(self.figures),
        }


def train(
    inference: Inference,
    samples: Samples,
    *,
    epochs: int,
    recipe: Recipe,
    orders: Iterator[NDArray[np.intp]],
    rng: np.random.Generator,
    write: Callable[[_StrPath, Saved], None],
    validation: Samples | None = None,
    callbacks: Sequence[CallbackLike] = (),
    shuffled: bool = False,
    progress: bool | None = None,
    resume: Callable[[], Saved] | None = None,
    finite: bool = True,
    trainer: Trainer | None = None,
) -> History:
    """Train the network of ``inference`` on samples, and return the history.

    ``orders`` yields the order of the samples in each epoch; ``shuffled`` says that these are drawn
    from ``rng``, as is all other randomness.

    ``write`` writes a checkpoint, ``resume`` returns the contents of one. A cost or parameter that
    is NaN or infinite ends training with `FloatingPointError`, which names epoch and step; the
    parameters are then those from the start of that epoch, or those that callbacks restore. Ctrl-C
    ends training and leaves the parameters as they are. If the device fails, `DeviceError` carries
    the last good parameters. If ``finite`` is false, training continues with numbers that are not
    finite.

    A ``trainer`` that has trained on samples of this kind with this recipe is reused.
    """
    engine, around = inference.engine, checked(callbacks)
    check_sizes(engine, len(samples), recipe)
    with engine.lock:
        if finite and not engine.backend.finite(engine.flat):
            raise ValueError(
                "the network's weights or biases hold NaN or infinity; set finite values first"
            )
        key = int(rng.integers(2**32)) if engine.random and resume is None else 0
        alone = validation is None and not around and resume is None
        if trainer is None:
            trainer = Trainer(engine, samples, recipe, key, epochs, joined=alone)
        else:
            trainer.renew(samples, key)
        if validation is not None:
            validation = engine.settle(validation)
    figures = _figures(samples, validation)
    resumed = resume is not None
    run = Run(trainer, orders, rng, epochs, figures, around, shuffled, write, resumed, finite)
    try:
        return run.go(inference, validation, progress, resume)
    except DeviceError as error:
        error.parameters, error.parameters_of = run.kept, run.kept_of
        error.history = run.history
        raise


def _figures(samples: Samples, validation: Samples | None) -> frozenset[str]:
    """Return the names of the figures that will be recorded."""
    figures = {"cost"} | ({"accuracy"} if samples.scoring else set())
    if validation is not None:
        figures |= {"validation_cost"} | ({"validation_accuracy"} if validation.scoring else set())
    return frozenset(figures)


def _trim(history: History) -> None:
    """Drop the figures of an epoch that was not completed."""
    complete = len(history.seconds)
    for name in History.FIGURES:
        del getattr(history, name)[complete:]


class _Bar:
    """A progress bar, by default on a terminal and in a notebook."""

    def __init__(self, samples: int, epochs: int, progress: bool | None) -> None:
        self._bar: Any = None
        self._samples = samples
        self._cleared = 0.0  # when the bar last cleared was drawn
        if progress is None:
            notebook = "ipykernel.zmqshell" in sys.modules  # tqdm's own test
            progress = notebook or (sys.stderr is not None and sys.stderr.isatty())
        if progress:
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
        """Show the progress of the running epoch."""
        if self._bar is not None:
            done = self._samples * run.epoch + samples
            told = f"cost {cost:.4g}"
            if run.history.validation_accuracy:
                told += f", validation accuracy {run.history.validation_accuracy[-1]:.2%}"
            self._bar.set_description(f"epoch {run.count}", refresh=False)
            self._bar.set_postfix_str(told, refresh=False)
            self._bar.update(done - self._bar.n)

    def clear(self) -> None:
        """Clear the bar until its next update, so that something can be printed."""
        if self._bar is not None and self._bar.last_print_t != self._cleared:
            self._cleared = self._bar.last_print_t
            self._bar.clear()


__all__ = ["Options", "Run", "Saved", "Training", "train"]
