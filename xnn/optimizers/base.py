"""The base class of optimizers.

An optimizer is a description of how to step; `Optimizer.start` creates the state of one training
run (a velocity, a buffer for gradients). While a mini-batch runs backward, each layer passes on two
matrices whose product is the gradient of its parameters, and the optimizer decides where that
product goes: straight into the weights, into the velocity, or into a buffer of its own. So plain
SGD costs one matrix product per layer, without a further pass over memory.

η is the learning rate, m the mini-batch's size, n the number of training samples, λ the weight
decay, μ the momentum. Biases do not decay.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from .. import checks, schedules
from ..backends import Array, Backend
from ..parameters import Parameter
from ..schedules import LearningRate


@dataclass(frozen=True)
class Subject:
    """What an optimizer works on in one training run."""

    backend: Backend
    flat: Array
    """All parameters …"""
    parameters: Sequence[Parameter]
    """… and where they lie in it."""
    examples: int | None
    """The number n of training samples, or None if nobody knows."""
    parts: bool = False
    """Whether a step's gradients come in parts, all computed at the same parameters."""


class Updates(ABC):
    """The state of an optimizer in one training run."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.backend, self.flat = subject.backend, subject.flat

    @abstractmethod
    def begin(self, rates: Array, batch: int) -> UpdateStep:
        """Begin a step for each of ``rates`` ``(steps,)``, on mini-batches of ``batch`` samples.

        Called during compilation: what it does is repeated at each replay.
        """

    def weigh(self, totals: Array) -> None:  # noqa: B027 - most have no use for weights
        """Take the sum of weights ``(steps,)`` of each mini-batch of the next `begin`.

        Called if means over mini-batches divide by the sum of weights; see `xnn.steps.Recipe`.
        """

    def swap(self) -> None:  # noqa: B027 - most have nothing to swap
        """Swap the parameters being trained with those the network has between epochs, or back.

        Called before and after each epoch.
        """

    def state(self) -> dict[str, Array]:
        """Return the state besides the parameters: the live arrays, by name.

        It goes with the parameters that the network has between epochs; see `swap`.
        """
        return {}

    def saved(self) -> dict[str, NDArray[Any]]:
        """Return a copy of the state on the host."""
        return {name: self.backend.download(array) for name, array in self.state().items()}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Set the state to one saved by another run of such an optimizer on such a network.

        Raises `ValueError`, and changes nothing, for any other state.
        """
        state = self.state()
        wanted = {name: (array.shape, array.dtype) for name, array in state.items()}
        given = {name: (array.shape, array.dtype) for name, array in saved.items()}
        if given != wanted:
            raise ValueError(f"the optimizer's state is {given}, but must be {wanted}")
        for name, array in state.items():
            self.backend.copy(self.backend.upload(saved[name]), array)

    def zeros(self) -> Array:
        """Return a buffer of zeros, laid out like the parameters."""
        return self.backend.zeros(self.flat.shape, self.flat.dtype)

    def decaying(self, decay: float) -> Array:
        """Return a buffer with ``decay`` for each weight and 0 for each bias."""
        return decaying(self.backend, self.flat, self.subject.parameters, decay)


class UpdateStep(ABC):
    """One training step of an optimizer, or several compiled in a row."""

    at: int = 0  # which of them

    @abstractmethod
    def gradient(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None:
        """Take ``factor · left @ right``, a parameter's gradient summed over the mini-batch.

        ``again`` adds it to what this step has already been given for the parameter.
        """

    @abstractmethod
    def add(self, gradient: Array) -> None:
        """Add a gradient of all parameters, summed over samples of the mini-batch: a flat buffer.

        Called after all calls of `gradient`, and only if the subject's ``parts`` is true.
        """

    def apply(self) -> None:  # noqa: B027 - nothing is left if gradients go into the weights
        """Update the parameters, once all gradients are complete."""


class Optimizer(ABC):
    """How to step: what `Network.fit` takes as ``optimizer``."""

    learning_rate: LearningRate

    def rates(self, epoch: int, steps: int, epochs: int = 1) -> NDArray[Any]:
        """Return the learning rate of each step from an epoch on, ``(epochs * steps,)``."""
        return schedules.rates(self.learning_rate, epoch, steps, epochs)

    @abstractmethod
    def start(self, subject: Subject) -> Updates:
        """Return the state for one training run."""


def check(optimizer: Any) -> None:
    """Raise `ValueError` if an argument common to all optimizers is out of range."""
    schedules.check(optimizer.learning_rate)
    checks.not_negative("weight_decay", optimizer.weight_decay)
    for name in ("clip_norm", "clip_value"):
        value = getattr(optimizer, name)
        if value is not None:
            checks.number(name, value, "a positive number or None", above=0)


def item(values: Array, at: int) -> Array:
    """Return ``values[at]`` as a view of shape ``()``."""
    return values[at : at + 1].reshape(())


def decaying(backend: Backend, flat: Array, parameters: Sequence[Parameter], decay: float) -> Array:
    """Return a buffer like ``flat``, with ``decay`` for each weight and 0 for each bias."""
    rates = backend.zeros(flat.shape, flat.dtype)
    for parameter in parameters:
        backend.elementwise("decay", parameter.matrix(rates)[:, : parameter.weights], decay=decay)
    return rates
