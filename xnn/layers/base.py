"""What a layer is."""

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

#: What is done once for all lanes.
Meeting = Callable[[], None]


class Gradient(Protocol):
    """Takes a parameter's gradient, summed over the mini-batch, as two matrices and a number.

    The gradient is ``factor · left @ right``. ``again`` says that it is to be added to what the
    parameter has had in this step.
    """

    def __call__(
        self, parameter: Parameter, left: Array, right: Array, factor: float, again: bool = False
    ) -> None: ...


@dataclass(frozen=True)
class Site:
    """Where and what for a layer is to run.

    Inputs are held divided by ``scale``; a matrix product multiplies by it at no cost.
    """

    batch: int
    shape: Shape  # of the layer's inputs
    dtype: Any
    scale: float
    training: bool  # or as `Network.predict` sees it
    backward: bool  # or forward alone


@dataclass(frozen=True)
class Memory(Site):
    """The arrays of one layer for one mini-batch, all made beforehand. Batches come first."""

    inputs: Rows  # with a column of ones (over scale) behind, where the layer asks for it
    z: Rows  # the weighted inputs; the outputs themselves where the layer works in place
    outputs: Rows  # a = σ(z)
    parameters: tuple[Parameter, ...]
    flat: Array  # the buffer in which they lie
    own: Any  # what `Layer.room` made
    rng_state: Array | None  # what random numbers come of, …
    number: int  # … and the layer's place in the network, so that each has its own
    first: int = 0  # the place of the first of these samples in its mini-batch
    delta: Rows | None = None  # ∂C/∂a, then ∂C/∂z; None where nothing runs backward
    input_delta: Rows | None = None  # ∂C/∂a of the layer below; None for the first layer

    def uniform(self, backend: Backend, out: Array) -> None:
        """Fill ``out`` ``(batch, numbers)`` with this step's random numbers of these samples."""
        assert self.rng_state is not None
        backend.uniform(self.rng_state, self.number, out, self.first * out.shape[1])


class Layer(ABC):
    """One kind of layer: its shape, its first weights, forward and backward.

    A layer is a description: it holds no parameters, cannot be changed, and may serve in several
    networks. The arrays come in a `Memory`.
    """

    #: Whether z has memory of its own, apart from the outputs.
    keeps_z: ClassVar[bool] = False
    #: Whether inputs may come divided by a scale, see `Memory`.
    scales: ClassVar[bool] = False
    #: Whether training takes random numbers.
    random: ClassVar[bool] = False

    @cached_property
    def function(self) -> Activation:
        """σ, applied to the layer's weighted input z; linear where it has no ``activation``."""
        return activations.get(getattr(self, "activation", "linear"))

    @property
    def wants_ones(self) -> bool:
        """Whether there is to be a column of ones behind the inputs."""
        return False

    @abstractmethod
    def outputs(self, inputs: Shape) -> Shape:
        """Return the shape of the outputs for inputs of a shape.

        Raises `ValueError` where the layer cannot take such inputs.
        """

    def parameters(self, inputs: Shape, layout: Layout) -> tuple[Parameter, ...]:
        """Return where the layer's parameters lie."""
        return ()

    def views(
        self, inputs: Shape, parameters: Sequence[Parameter], flat: Array
    ) -> dict[str, Array]:
        """Return the arrays of the layer in a flat buffer, by the names that users know."""
        return {}

    def draw(self, inputs: Shape, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        """Return first values for `views`, those of which are zero left out."""
        return {}

    def multiplications(self, inputs: Shape) -> int:
        """Return how many multiplications a sample takes in the layer's matrix product."""
        return 0

    def least_samples(self, inputs: Shape) -> int:
        """Return how many samples at a time training takes at least."""
        return 1

    def room(self, backend: Backend, site: Site) -> Any:
        """Return the layer's own arrays, those beside `Memory`'s: they become its ``own``."""
        return None

    @abstractmethod
    def forward(self, backend: Backend, at: Memory) -> None:
        """Compute ``at.outputs`` from ``at.inputs``."""

    @abstractmethod
    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        """From ∂C/∂z in ``at.delta``, compute ``at.input_delta`` and the gradients."""

    # A mini-batch may be divided into lanes, each with its samples' memory, which run at the same
    # time. Only a layer in which samples are not each for itself takes notice of that.

    def forward_lane(
        self, backend: Backend, lanes: Sequence[Memory], number: int
    ) -> Iterator[Meeting]:
        """Do `forward` for one of the lanes.

        Yield, where they are to wait for each other, what is to be done when all have come.
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
        """Turn ∂C/∂a in ``at.delta`` into ∂C/∂z."""
        assert at.delta is not None
        self.function.backward(backend, at.outputs, at.delta, "e", e=at.delta)

    def describe(self) -> dict[str, Any]:
        """Return what JSON can hold and `xnn.layers.from_description` makes a layer of."""
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        if not isinstance(fields.get("initializer", ""), str):
            fields["initializer"] = "auto"  # arrays: they are in the network by now
        plain = {name: _plain(value) for name, value in fields.items()}
        return {"kind": type(self).__name__.lower(), **plain}


def _plain(value: Any) -> Any:
    """Return NumPy's numbers as Python's, tuples as lists."""
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    return value.item() if isinstance(value, np.generic) else value


def vector(inputs: Shape, what: str) -> int:
    """Return the length of a sample that is a vector. Raises `ValueError` for any other."""
    if len(inputs) != 1:
        raise ValueError(f"{what} takes vectors, but gets {shown(inputs)}; put Flatten() before it")
    return inputs[0]


def image(inputs: Shape, what: str) -> tuple[int, int, int]:
    """Return height, width and channels. Raises `ValueError` where a sample is no image."""
    if len(inputs) != 3:
        raise ValueError(
            f"{what} takes images (height, width, channels), but gets {shown(inputs)}; "
            "put Reshape((height, width, channels)) before it, or give the network's inputs so"
        )
    return inputs


def shown(shape: Shape) -> str:
    """Return a shape as people write it: 28×28×1."""
    return "×".join(map(str, shape))
