"""The convolutional layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import activations, checks, initializers
from ..backends import Array, Backend, Window
from ..initializers import Initializer
from ..parameters import Layout, Parameter, Rows, Shape
from . import geometry
from .base import Gradient, Layer, Memory, Site, image
from .geometry import Padding, fitting, pair


@dataclass(frozen=True, eq=False)
class Conv2D(Layer):
    """A convolution: each output depends on a window of images ``(height, width, channels)``.

    As in most libraries it is a cross-correlation: kernels are not flipped. It is computed by
    gathering windows into the rows of a matrix, and one matrix product (Chellapilla et al. 2006).

    Parameters
    ----------
    filters
        The number of output channels.
    kernel_size
        The window's size: a number, or a pair (height, width).
    activation
        σ, as in `Dense`.
    stride, dilation
        The step of the window in pixels, and the spacing of its pixels: numbers or pairs.
    padding
        Zeros around the images: ``"valid"`` adds none; ``"same"`` as many as keep height and width
        with a stride of 1, an odd one below or to the right; or a number or pair for each side.
    groups
        Into how many groups channels and filters are split; each filter sees only its group.
    bias
        Whether there are biases, one per filter.
    initializer
        Initial weights, as in `Dense`; arrays are ``(filters, height, width, channels / groups)``.

    Raises
    ------
    ValueError
        For a value that is none of these.

    Examples
    --------
    >>> import xnn
    >>> net = xnn.Network(
    ...     [
    ...         (28, 28, 1),
    ...         xnn.Conv2D(20, 5, "relu"),
    ...         xnn.MaxPool2D(2),
    ...         xnn.Flatten(),
    ...         xnn.Dense(10, "softmax"),
    ...     ]
    ... )
    >>> net.shapes
    [(28, 28, 1), (24, 24, 20), (12, 12, 20), (2880,), (10,)]
    >>> net.weights[0].shape, net.biases[0].shape
    ((20, 5, 5, 1), (20,))
    """

    filters: int
    kernel_size: int | tuple[int, int]
    activation: str = "linear"
    _: KW_ONLY
    stride: int | tuple[int, int] = 1
    padding: Padding = "valid"
    dilation: int | tuple[int, int] = 1
    groups: int = 1
    bias: bool = True
    initializer: Initializer = "auto"

    scales = True

    def __post_init__(self) -> None:
        checks.whole("filters", self.filters)
        for name in ("kernel_size", "stride", "dilation"):
            pair(name, getattr(self, name))
        checks.whole("groups", self.groups)
        if self.filters % self.groups:
            raise ValueError(f"filters is {self.filters}, but must be a multiple of groups")
        checks.truth("bias", self.bias)
        activations.get(self.activation)
        if self.activation == "softmax":
            raise ValueError("activation is 'softmax', but that is only for Dense and Activation")
        initializers.check(self.initializer, self.bias)
        self.window  # noqa: B018 - checks padding

    @cached_property
    def window(self) -> Window:
        """The window that the arguments describe."""
        return geometry.window(self.kernel_size, self.stride, self.padding, self.dilation)

    def outputs(self, inputs: Shape) -> Shape:
        channels = image(inputs, "Conv2D")[2]
        if channels % self.groups:
            raise ValueError(f"groups is {self.groups}, but the images have {channels} channels")
        return (*fitting(self.window, inputs, "Conv2D"), int(self.filters))

    def _kernel_shape(self, inputs: Shape) -> tuple[int, int, int, int]:
        return (int(self.filters), *self.window.size, inputs[2] // int(self.groups))

    def parameters(self, inputs: Shape, layout: Layout) -> tuple[Parameter, ...]:
        filters, *rest = self._kernel_shape(inputs)
        return (layout.place(filters, int(np.prod(rest)), int(self.bias)),)

    def views(
        self, inputs: Shape, parameters: Sequence[Parameter], flat: Array
    ) -> dict[str, Array]:
        n, matrix = parameters[0].weights, parameters[0].matrix(flat)
        weights = matrix[:, :n].reshape(self._kernel_shape(inputs))
        return {"weights": weights} | ({"biases": matrix[:, n]} if self.bias else {})

    def draw(self, inputs: Shape, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        shape = self._kernel_shape(inputs)
        return initializers.draw(self.initializer, self.activation, rng, shape, self.bias)

    def multiplications(self, inputs: Shape) -> int:
        filters, *rest = self._kernel_shape(inputs)
        return int(np.prod(self.window.counts(*inputs[:2]))) * filters * int(np.prod(rest))

    def room(self, backend: Backend, site: Site) -> _Room:
        groups, dtype = int(self.groups), np.dtype(site.dtype)
        places = int(np.prod(self.window.counts(*site.shape[:2])))
        size = int(np.prod(self._kernel_shape(site.shape)[1:]))
        row = backend.padded(size + self.bias, dtype) * dtype.itemsize
        most = max(1, backend.columns_bytes // (places * row))
        samples = -(-site.batch // -(-site.batch // most))  # pieces of equal size, but for the last
        ones = 1 / site.scale if self.bias else None
        # Runs contiguous in both image and matrix are copied at once: a row of the window, or one
        # of its pixels at a row of positions, whichever is longer.
        across = self.window.counts(*site.shape[:2])[1]
        by_rows = backend.by_rows or self.window.size[1] * site.shape[2] // groups >= across
        make = Rows.zeros if by_rows else Rows.by_columns
        columns = make(backend, samples * places, size, dtype, ones)
        spread = Rows.zeros(backend, samples * places, size, dtype) if site.backward else None
        return _Room(samples, places, groups, columns, spread)

    def _pieces(self, at: Memory, among: Parameter) -> Iterator[_Piece]:
        """Yield the pieces of a mini-batch, each with its rows of the weights ``among``."""
        room, channels = at.own, at.shape[2]
        for start in range(0, at.batch, room.samples):
            stop = min(start + room.samples, at.batch)
            for group in range(room.groups):
                filters = _share(group, room.groups, int(self.filters))
                yield _Piece(
                    samples=slice(start, stop),
                    places=slice(start * room.places, stop * room.places),
                    columns=room.columns[: (stop - start) * room.places],
                    channels=_share(group, room.groups, channels),
                    filters=filters,
                    parameter=among.part(filters),
                )

    def _gather(self, backend: Backend, at: Memory, piece: _Piece) -> None:
        images = at.inputs.shaped(at.shape)[piece.samples, :, :, piece.channels]
        backend.unfold(images, piece.columns.values, self.window)

    def forward(self, backend: Backend, at: Memory) -> None:
        """Compute ``a = σ([columns 1] [W b]ᵀ)``."""
        z = at.z.values.reshape(-1, int(self.filters))
        for piece in self._pieces(at, at.parameters[0]):
            self._gather(backend, at, piece)
            matrix, out = piece.parameter.matrix(at.flat), z[piece.places, piece.filters]
            backend.gemm(piece.columns.augmented, matrix.T, out=out, alpha=at.scale)
        self.function.forward(backend, at.z, out=at.outputs)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        """Spread ``δ W`` over the windows of the inputs; ``∂C/∂[W b] = δᵀ [columns 1]``."""
        assert at.delta is not None
        deltas = at.delta.values.reshape(-1, int(self.filters))
        pieces = list(self._pieces(at, at.parameters[0]))
        if at.input_delta is not None:  # first, since the gradient may go straight into W
            below = at.input_delta.shaped(at.shape)
            for piece in pieces:
                weights = piece.parameter.matrix(at.flat)[:, : piece.parameter.weights]
                spread = at.own.spread.values[: len(piece.columns.values)]
                backend.gemm(deltas[piece.places, piece.filters], weights, out=spread)
                backend.fold(spread, below[piece.samples, :, :, piece.channels], self.window)
        for piece in pieces:
            if len(pieces) > 1:  # else the columns are still those of the forward pass
                self._gather(backend, at, piece)
            left, right = deltas[piece.places, piece.filters].T, piece.columns.augmented
            gradient(piece.parameter, left, right, at.scale, again=piece.samples.start > 0)


@dataclass(frozen=True)
class _Room:
    """Columns for a piece of a mini-batch, small enough to stay in a cache."""

    samples: int  # of a piece
    places: int  # positions of the window on a sample
    groups: int
    columns: Rows  # (samples · places, window [+ 1])
    spread: Rows | None  # δ W, of the same shape


@dataclass(frozen=True)
class _Piece:
    """Some samples of a mini-batch, and one group of their channels."""

    samples: slice
    places: slice  # into the window positions of all samples
    columns: Rows
    channels: slice
    filters: slice
    parameter: Parameter


def _share(group: int, groups: int, of: int) -> slice:
    return slice(group * of // groups, (group + 1) * of // groups)
