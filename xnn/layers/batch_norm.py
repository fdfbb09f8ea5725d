"""Batch normalisation."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..backends import Array, Backend
from ..parameters import Layout, Parameter, Rows, Shape
from .base import Gradient, Layer, Meeting, Memory, Site


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """``γ (x - μ) / √(σ² + ε) + β``, channel by channel (Ioffe and Szegedy 2015).

    In training μ and σ² are mean and variance of the mini-batch, and running averages are kept of
    the mean and of the unbiased variance, Σ (x - μ)² / (n - 1). Otherwise they are those averages,
    which are part of the network like its weights.
    ``weights`` are the γ, ``biases`` the β; neither decays.

    Parameters
    ----------
    momentum
        The share of the running averages that is kept at each step, at least 0 and less than 1
        (1 minus PyTorch's momentum).
    eps
        ε, a positive number.

    Raises
    ------
    ValueError
        For values out of these ranges. Also raised by `Network.fit` if a channel would have only
        one number in a mini-batch, as with vectors and a single sample.
    """

    momentum: float = 0.9
    eps: float = 1e-5

    def __post_init__(self) -> None:
        checks.share("momentum", self.momentum)
        checks.positive("eps", self.eps)

    def outputs(self, inputs: Shape) -> Shape:
        return inputs

    def parameters(self, inputs: Shape, layout: Layout) -> tuple[Parameter, ...]:
        channels = inputs[-1]
        return layout.place(2, 0, channels), layout.place(2, 0, channels, trained=False)

    def views(
        self, inputs: Shape, parameters: Sequence[Parameter], flat: Array
    ) -> dict[str, Array]:
        learnt, running = (parameter.matrix(flat) for parameter in parameters)
        return {
            "weights": learnt[0],
            "biases": learnt[1],
            "mean": running[0],
            "variance": running[1],
        }

    def draw(self, inputs: Shape, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
        return {"weights": np.ones(inputs[-1]), "variance": np.ones(inputs[-1])}

    def least_samples(self, inputs: Shape) -> int:
        return 1 if prod(inputs[:-1]) > 1 else 2  # one number has no variance

    def room(self, backend: Backend, site: Site) -> _Room:
        channels, dtype = site.shape[-1], site.dtype
        rows = site.batch * prod(site.shape) // channels
        one = (1, channels)
        return _Room(
            ones=backend.upload(np.ones((1, rows), dtype)),
            work=backend.zeros((rows, channels), dtype),
            **{name: backend.zeros(one, dtype) for name in _Room.ROWS},
        )

    def forward(self, backend: Backend, at: Memory) -> None:
        room, running = at.own, _rows(at.parameters[1].matrix(at.flat))
        self._settle(backend, at, running[0], running[1])
        self._normalise(backend, at, room)

    def forward_lane(
        self, backend: Backend, lanes: Sequence[Memory], number: int
    ) -> Iterator[Meeting]:
        at, first = lanes[number], lanes[0].own
        if not at.training:
            self.forward(backend, at)
            return
        room, x, n = at.own, _channels(at, at.inputs), _count(lanes)
        backend.gemm(room.ones, x, out=room.mean, alpha=1 / n)
        yield lambda: _add_up(backend, lanes, "mean")
        backend.elementwise("(x - m)**2", room.work, x=x, m=first.mean)
        backend.gemm(room.ones, room.work, out=room.variance, alpha=1 / n)
        yield lambda: self._take_averages(backend, lanes, n)
        self._normalise(backend, at, first)

    def _take_averages(self, backend: Backend, lanes: Sequence[Memory], n: int) -> None:
        """Prepare the mini-batch's mean and variance, and update the running averages."""
        _add_up(backend, lanes, "variance")
        at, (mean, variance) = lanes[0], _rows(lanes[0].parameters[1].matrix(lanes[0].flat))
        room, keep, unbiased = at.own, float(self.momentum), n / max(1, n - 1)
        backend.elementwise("k * r + (1 - k) * m", mean, k=keep, r=mean, m=room.mean)
        formula = "k * r + (1 - k) * u * v"
        backend.elementwise(formula, variance, k=keep, r=variance, u=unbiased, v=room.variance)
        self._settle(backend, at, room.mean, room.variance)

    def _settle(self, backend: Backend, at: Memory, mean: Array, variance: Array) -> None:
        """Compute what a lane normalises with from a mean and a variance."""
        room, gamma = at.own, at.parameters[0].matrix(at.flat)[:1]
        if mean is not room.mean:
            backend.copy(mean, room.mean)
        backend.elementwise("1 / sqrt(v + e)", room.inverse, v=variance, e=float(self.eps))
        backend.elementwise("g * i", room.scale, g=gamma, i=room.inverse)

    def _normalise(self, backend: Backend, at: Memory, room: _Room) -> None:
        x, out = _channels(at, at.inputs), _channels(at, at.outputs)
        beta = at.parameters[0].matrix(at.flat)[1:]
        backend.elementwise("(x - m) * s + b", out, x=x, m=room.mean, s=room.scale, b=beta)

    def backward(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        self._sum_up(backend, at, at.own)
        self._hand_over(backend, at, gradient)
        if at.input_delta is not None:
            delta, below = _channels(at, at.delta), _channels(at, at.input_delta)
            backend.elementwise("s * d", below, s=at.own.scale, d=delta)

    def backward_lane(
        self, backend: Backend, lanes: Sequence[Memory], number: int, gradient: Gradient
    ) -> Iterator[Meeting]:
        """Compute the gradients, and ``∂C/∂x`` through μ and σ² in training (ibid., section 3)."""
        at, first = lanes[number], lanes[0].own
        if not at.training:
            self.backward(backend, at, gradient)
            return
        self._sum_up(backend, at, first)
        yield lambda: self._end_sums(backend, lanes, gradient)
        if at.input_delta is not None:
            by_mean, by_deviation = first.by_mean, first.by_deviation
            backend.elementwise(
                "s * (d - b - (x - m) * t)",
                _channels(at, at.input_delta),
                s=first.scale,
                d=_channels(at, at.delta),
                b=by_mean,
                x=_channels(at, at.inputs),
                m=first.mean,
                t=by_deviation,
            )

    def _sum_up(self, backend: Backend, at: Memory, first: _Room) -> None:
        """Sum a lane's deltas d, and d (x - μ)."""
        room, x, delta = at.own, _channels(at, at.inputs), _channels(at, at.delta)
        backend.gemm(room.ones, delta, out=room.to_beta)
        backend.elementwise("d * (x - m)", room.work, d=delta, x=x, m=first.mean)
        backend.gemm(room.ones, room.work, out=room.to_gamma)

    def _hand_over(self, backend: Backend, at: Memory, gradient: Gradient) -> None:
        """Pass on the gradients of γ and β: the sums, for γ divided by the deviation."""
        room, parameter = at.own, at.parameters[0]
        backend.elementwise("g * i", room.to_gamma, g=room.to_gamma, i=room.inverse)
        one = room.ones[:, :1]
        gradient(parameter.part(slice(0, 1)), one, room.to_gamma, 1.0)
        gradient(parameter.part(slice(1, 2)), one, room.to_beta, 1.0)

    def _end_sums(self, backend: Backend, lanes: Sequence[Memory], gradient: Gradient) -> None:
        """Add up the lanes' sums, and compute from them what `backward_lane` needs next."""
        _add_up(backend, lanes, "to_beta", "to_gamma")
        room, n = lanes[0].own, _count(lanes)
        self._hand_over(backend, lanes[0], gradient)
        backend.elementwise("b / n", room.by_mean, b=room.to_beta, n=n)
        backend.elementwise("g * i / n", room.by_deviation, g=room.to_gamma, i=room.inverse, n=n)


@dataclass(frozen=True)
class _Room:
    """Arrays for a lane; those of the first lane hold the values common to all."""

    ROWS: ClassVar = (
        *("mean", "variance", "inverse", "scale"),
        *("to_beta", "to_gamma", "by_mean", "by_deviation"),
    )

    ones: Array  # (1, n): one for each number of a channel
    work: Array  # (n, channels)
    # (1, channels) each:
    mean: Array
    variance: Array
    inverse: Array  # 1 / √(σ² + ε)
    scale: Array  # γ / √(σ² + ε)
    to_beta: Array  # the gradients, summed over samples
    to_gamma: Array
    by_mean: Array  # the contribution to ∂C/∂x through μ, and …
    by_deviation: Array  # … through σ, per x - μ


def _channels(at: Memory, rows: Rows | None) -> Array:
    """Return activations or deltas as a matrix with a column for each channel."""
    assert rows is not None
    return rows.values if len(at.shape) == 1 else rows.values.reshape(-1, at.shape[-1])


def _rows(matrix: Array) -> tuple[Array, Array]:
    return matrix[:1], matrix[1:]


def _count(lanes: Sequence[Memory]) -> int:
    """Return the number of values per channel."""
    return sum(at.own.ones.size for at in lanes)


def _add_up(backend: Backend, lanes: Sequence[Memory], *names: str) -> None:
    """Add the sums of the other lanes to those of the first."""
    for name in names:
        total = getattr(lanes[0].own, name)
        for at in lanes[1:]:
            backend.elementwise("a + b", total, a=total, b=getattr(at.own, name))
