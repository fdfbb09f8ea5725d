"""The base class of layers."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from .. import activations
from ..activations import Activation
from ..backends import Array, Backend
from ..parameters import Layout, Parameter, Rows, Shape

#: Work that is done once for all lanes.
Meeting = Callable[[], None]


class Gradient(Protocol):
    """Takes a parameter's gradient, summed over the mini-batch, as two matrices and a factor.

    The gradient is ``factor · left @ right``. ``again`` adds it to what the parameter has already
    been given in this step.
    """

    def __call__(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None: ...


@dataclass(frozen=True)
class Site:
    """The conditions under which a layer runs.

    Inputs are stored divided by ``scale``; a matrix product multiplies by it at no cost.
    """

    batch: int
    shape: Shape  # of the layer's inputs
    dtype: Any
    scale: float
    training: bool  # or prediction
    backward: bool  # or only forward


@dataclass(frozen=True)
class Memory(Site):
    """The preallocated arrays of one layer for one mini-batch. The batch axis comes first."""

    inputs: Rows  # followed by a column of ones (over scale), if the layer wants it
    z: Rows  # the weighted inputs; the outputs themselves if the layer works in place
    outputs: Rows  # a = σ(z)
    parameters: tuple[Parameter, ...]
    flat: Array  # the buffer that holds them
    own: Any  # what `Layer.room` returned
    rng_state: Array | None  # the state of the random numbers, …
    number: int  # … and the layer's index in the network, so that each has its own
    first: int = 0  # the position of the first of these samples in its mini-batch
    delta: Rows | None = None  # ∂C/∂a, then ∂C/∂z; None if nothing runs backward
    input_delta: Rows | None = None  # ∂C/∂a of the layer below, or ∂C/∂x; None if not needed

    def uniform(self, backend: Backend, out: Array) -> None:
        """Fill ``out`` ``(batch, numbers)`` with this step's random numbers of these samples."""
        assert self.rng_state is not None
        backend.uniform(self.rng_state, self.number, out, self.first * out.shape[1])


class Layer(ABC):
    """Base class of layers: shape, initial weights, forward and backward.

    A layer is a description: it holds no parameters, is immutable, and may be used in several
    networks. The arrays come in a `Memory`.
    """

    #: Whether z has its own memory, separate from the outputs.
    keeps_z: ClassVar[bool] = False
    #: Whether inputs may come divided by a scale; see `Site`.
    scales: ClassVar[bool] = False
    #: Whether training uses random numbers.
    random: ClassVar[bool] = False

    @cached_property
    def function(self) -> Activation:
        """σ, applied to the layer's weighted input z; linear if it has no ``activation``."""
        return activations.get(getattr(self, "activation", "linear"))

    @property
    def wants_ones(self) -> bool:
        """Whether inputs are to be followed by a column of ones."""
        return False

    @abstractmethod
    def outputs(self, inputs: Shape) -> Shape:
        """Return the shape of the outputs for inputs of a shape.

        Raises `ValueError` if the layer cannot take such inputs.
        """

    def parameters(self, inputs: Shape, layout: Layout) -> tuple[Parameter, ...]:
        """Return the places of the layer's parameters."""
        return ()

    def views(
        self, inputs: Shape, parameters: Sequence[Parameter], flat: Array
    ) -> dict[str, Array]:
        """Return the arrays of the layer in a flat buffer, by public name."""
        return {}

    def draw(self, inputs: Shape, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Return initial values for `views`, omitting those that are zero."""
        return {}

    def multiplications(self, inputs: Shape) -> int:
        """Return the number of multiplications per sample in the layer's matrix product."""
        return 0

    def least_samples(self, inputs: Shape) -> int:
        """Return the least number of samples at a time in training."""
        return 1

    def room(self, backend: Backend, site: Site) -> Any:
        """Return the layer's own arrays besides those of `Memory`: they become its ``own``."""
        return None

    @abstractmethod
    def forward(self, backend: Backend, at: Memory) -> None:
        """Compute ``at.outputs`` from ``at.inputs``."""

    @abstractmethod
    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        """From ∂C/∂z in ``at.delta``, compute ``at.input_delta`` and the gradients."""

    # A mini-batch may be divided into lanes, each with the memory of its samples, which run in
    # parallel. Only layers in which samples interact need to know.

    def forward_lane(
        self, backend: Backend, lanes: Sequence[Memory], number: int
    ) -> Iterator[Meeting]:
        """Do `forward` for one of the lanes.

        Where lanes must wait for each other, yield what is to be done when all have arrived.
        """
        self.forward(backend, lanes[number])
        return iter(())

    def backward_lane(
        self, backend: Backend, lanes: Sequence[Memory], number: int, gradient: Gradient
    ) -> Iterator[Meeting]:
        """Do `backward` for one of the lanes, likewise."""
        self.backward(backend, lanes[number], gradient)
        return iter(())

    def delta(self, backend: Backend, at: Memory) -> None:
        """Convert ∂C/∂a in ``at.delta`` to ∂C/∂z, in place."""
        assert at.delta is not None
        self.function.backward(backend, at.outputs, at.delta, "e", e=at.delta)

    def describe(self) -> dict[str, Any]:
        """Return a JSON-serialisable description for `xnn.layers.from_description`."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        if not isinstance(fields.get("initializer", ""), str):
            fields["initializer"] = "auto"  # not arrays, which the network already has
        plain = {name: _plain(value) for name, value in fields.items()}
        return {"kind": type(self).__name__.lower(), **plain}


def _plain(value: Any) -> Any:
    """Return NumPy scalars as Python numbers, tuples as lists."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def vector(inputs: Shape, what: str) -> int:
    """Return the length of a vector sample. Raises `ValueError` for any other shape."""
    if len(inputs) != 1:
        raise ValueError(f"{what} takes vectors, but gets {shown(inputs)}; put Flatten() before it")
    return inputs[0]


def image(inputs: Shape, what: str) -> tuple[int, int, int]:
    """Return height, width and channels. Raises `ValueError` if samples are not images."""
    if len(inputs) != 3:
        raise ValueError(
            f"{what} takes images (height, width, channels), but gets {shown(inputs)}; "
            "put Reshape((height, width, channels)) before it, or give the network that input shape"
        )
    return inputs


def shown(shape: Shape) -> str:
    """Return a shape for messages, such as 28×28×1."""
    return "×".join(map(str, shape))
