"""Layers bound to a device: their parameters, forward and backward.

All parameters are one flat buffer. Activations and deltas come from a workspace. A training step is
written as a reader would write it, layer by layer, and compiled by the backend
(`Backend.compile`), so that none of this Python runs while training does.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .backends import Array, Backend
from .costs import Cost
from .layers import Gradient, Layer, Memory
from .parameters import Parameter, Rows
from .samples import Samples


class Engine:
    """A network's layers on a device.

    Parameters
    ----------
    layers, inputs, cost
        What the network is.
    run
        The backend of its device.
    dtype
        ``float32`` or ``float64``.
    """

    def __init__(
        self, layers: Sequence[Layer], inputs: int, cost: Cost, run: Backend, dtype: Any
    ) -> None:
        self.layers = tuple(layers)
        self.cost = cost
        self.run = run
        self.dtype = np.dtype(dtype)
        self.sizes = [inputs]
        self.parameters: list[Parameter] = []
        start = 0
        for layer in self.layers:
            parameter = layer.parameter(
                self.sizes[-1], start, lambda columns: run.padded(columns, self.dtype)
            )
            self.parameters.append(parameter)
            self.sizes.append(layer.outputs(self.sizes[-1]))
            start = parameter.stop
        self.flat = run.zeros((start,), self.dtype)
        #: Held by whatever computes, chunk by chunk: a device is for one thread at a time.
        self.lock = threading.RLock()

    @property
    def outputs(self) -> int:
        return self.sizes[-1]

    @cached_property
    def one_hot(self) -> Array:
        """Row i is the target of class i, ``(outputs, outputs)``."""
        return self.run.upload(np.eye(self.outputs, dtype=self.dtype))

    def upload(self, samples: Samples) -> Samples:
        """Return samples as arrays of the device."""
        up = {name: self.run.upload(array) for name, array in samples.arrays().items()}
        return replace(samples, **up)

    def fits(self, samples: Samples) -> bool:
        """Return whether samples may lie on the device as a whole; some may lie there already."""
        arrays = samples.arrays().values()
        there = any(not isinstance(array, np.ndarray) for array in arrays)
        return there or self.run.fits(sum(array.nbytes for array in arrays))

    def settle(self, samples: Samples) -> Samples:
        """Return samples on the device where they fit, else as they are."""
        return self.upload(samples) if self.fits(samples) else samples

    def stage(self, batch: int) -> AbstractContextManager[None]:
        """Return what to train within, with mini-batches of so many samples."""
        return self.run.stage(batch * max(parameter.size for parameter in self.parameters))

    def forward(self, memories: Sequence[Memory]) -> None:
        """Run a mini-batch forward."""
        for layer, memory in zip(self.layers, memories, strict=True):
            layer.forward(self.run, memory)

    def backward(self, memories: Sequence[Memory], targets: Rows, gradient: Gradient) -> None:
        """Run a mini-batch backward, after `forward`; hand each gradient to ``gradient``."""
        last, function = memories[-1], self.layers[-1].function
        assert last.delta is not None
        self.cost.output_delta(self.run, function, last.outputs, targets, out=last.delta)
        for layer, memory in zip(reversed(self.layers), reversed(memories), strict=True):
            if memory is not last:
                layer.delta(self.run, memory)
            layer.backward(self.run, memory, gradient)

    def split(self, flat: Array) -> list[tuple[NDArray[Any], NDArray[Any] | None]]:
        """Return the weights and biases of each layer in a flat buffer, as arrays of the host."""
        down = self.run.download
        return [
            (down(w), None if b is None else down(b))
            for w, b in (self.views(parameter, flat) for parameter in self.parameters)
        ]

    def put(self, parameter: Parameter, weights: Any, biases: Any | None) -> None:
        """Set a layer's weights and biases to arrays of the host, which have been checked."""
        for view, values in zip(self.views(parameter, self.flat), (weights, biases), strict=True):
            if view is not None:
                self.run.copy(self.run.upload(values), view)

    def views(self, parameter: Parameter, flat: Array) -> tuple[Array, Array | None]:
        """Return views of a layer's weights and biases in a flat buffer."""
        matrix = parameter.matrix(flat)
        n = parameter.weights
        return matrix[:, :n], matrix[:, n] if parameter.bias else None
