"""Batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import checks
from ..backends import Array, Backend
from ..parameters import Layout, Parameter, Rows, Shape
from .base import Gradient, Layer, Memory, Site


@dataclass(frozen=True, eq=False)
class BatchNorm(Layer):
    """``γ (x - μ) / √(σ² + ε) + β``, channel by channel (Ioffe and Szegedy 2015).

    In training μ and σ² are mean and variance of the mini-batch, and running averages of both are
    kept; otherwise they are those averages, which belong to the network like its weights.
    ``weights`` are the γ, ``biases`` the β; neither decays.

    Parameters
    ----------
    momentum
        The share of the running averages that stays at each step, at least 0 and less than 1
        (1 minus what PyTorch calls so).
    epsilon
        ε, a positive number.

    Raises
    ------
    ValueError
        For values out of these ranges; by `Network.fit` where a channel would have one number in a
        mini-batch, as vectors have in one of a single sample.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    mixes = True

    def __post_init__(self) -> None:
        wanted = "a number of at least 0 and less than 1"
        checks.number("momentum", self.momentum, wanted, least=0, below=1)
        checks.positive("epsilon", self.epsilon)

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
        return 1 if prod(inputs[:-1]) > 1 else 2  # of one number there is no variance

    def room(self, run: Backend, site: Site) -> _Room:
        channels, dtype = site.shape[-1], site.dtype
        rows = site.batch * prod(site.shape) // channels
        one = (1, channels)
        return _Room(
            ones=run.upload(np.ones((1, rows), dtype)),
            mean=run.zeros(one, dtype),
            variance=run.zeros(one, dtype),
            inverse=run.zeros(one, dtype),
            normal=run.zeros((rows, channels), dtype),
            work=run.zeros((rows, channels), dtype),
            sums=(run.zeros(one, dtype), run.zeros(one, dtype)),
        )

    def forward(self, run: Backend, at: Memory) -> None:
        room, x, out = at.own, _channels(at, at.inputs), _channels(at, at.outputs)
        (gamma, beta), running = (_rows(p.matrix(at.flat)) for p in at.parameters)
        mean, variance = running
        if at.training:
            mean, variance = room.mean, room.variance
            n = len(x)
            run.gemm(room.ones, x, out=mean, alpha=1 / n)
            run.elementwise("(x - m)**2", room.work, x=x, m=mean)
            run.gemm(room.ones, room.work, out=variance, alpha=1 / n)
            keep, unbiased = float(self.momentum), n / max(1, n - 1)
            run.elementwise("k * r + (1 - k) * m", running[0], k=keep, r=running[0], m=mean)
            formula = "k * r + (1 - k) * u * v"
            run.elementwise(formula, running[1], k=keep, r=running[1], u=unbiased, v=variance)
        epsilon = float(self.epsilon)
        run.elementwise("1 / sqrt(v + e)", room.inverse, v=variance, e=epsilon)
        run.elementwise("(x - m) * i", room.normal, x=x, m=mean, i=room.inverse)
        run.elementwise("g * x + b", out, g=gamma, x=room.normal, b=beta)

    def backward(self, run: Backend, at: Memory, gradient: Gradient) -> None:
        """Compute the gradients, and ``∂C/∂x`` through μ and σ² in training (ibid., section 3)."""
        assert at.delta is not None
        room, delta = at.own, _channels(at, at.delta)
        run.elementwise("d * x", room.work, d=delta, x=room.normal)
        parameter = at.parameters[0]
        if at.input_delta is not None:  # first, for the gradient may land in γ itself
            below, gamma = _channels(at, at.input_delta), parameter.matrix(at.flat)[:1]
            if at.training:
                to_beta, to_gamma = room.sums
                run.gemm(room.ones, delta, out=to_beta, alpha=1 / len(delta))
                run.gemm(room.ones, room.work, out=to_gamma, alpha=1 / len(delta))
                means = {"b": to_beta, "s": to_gamma, "x": room.normal}
                formula = "g * (d - b - x * s) * i"
                run.elementwise(formula, below, g=gamma, d=delta, i=room.inverse, **means)
            else:
                run.elementwise("g * d * i", below, g=gamma, d=delta, i=room.inverse)
        gradient(parameter.part(slice(0, 1)), room.ones, room.work, 1.0)
        gradient(parameter.part(slice(1, 2)), room.ones, delta, 1.0)


@dataclass(frozen=True)
class _Room:
    ones: Array  # (1, n): one for each number of a channel
    mean: Array  # (1, channels)
    variance: Array  # (1, channels)
    inverse: Array  # (1, channels): 1 / √(σ² + ε)
    normal: Array  # (n, channels): (x - μ) / √(σ² + ε)
    work: Array  # (n, channels)
    sums: tuple[Array, Array]  # each (1, channels)


def _channels(at: Memory, rows: Rows) -> Array:
    """Return activations or deltas as a matrix with a column for each channel."""
    return rows.values if len(at.shape) == 1 else rows.values.reshape(-1, at.shape[-1])


def _rows(matrix: Array) -> tuple[Array, Array]:
    return matrix[:1], matrix[1:]
