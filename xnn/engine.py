"""Layers bound to a device: their parameters, forward and backward.

All parameters are in one flat buffer. Activations and deltas come from a workspace. A training step
is written in plain Python, layer by layer, and compiled by the backend (`Backend.compile`), so that
none of this Python runs during training.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property, partial
from math import prod
from typing import Any

import numpy as np

from .backends import Array, Backend
from .costs import Cost
from .layers import Augmentation, Gradient, Layer, Meeting, Memory
from .parameters import Layout, Parameter, Rows, Shape
from .samples import Samples, SparseRows

# Uses of a weight per sample from which on it counts as reused.
_REUSE = 4
# A forward pass has to wake threads that training steps find waiting: it must be this much longer.
_WAKING = 5


class _Pause(threading.local):
    """Pauses the networks of all other threads, between two chunks.

    This is done while the process forks: the child has no other threads, so that whatever they were
    doing, and their locks, would stay as they were. And when the process exits: OpenBLAS then waits
    for its own threads, for ever if it is given work meanwhile.
    """

    def __init__(self) -> None:
        self.held: list[Any] = []

    def begin(self, seconds: float = -1) -> None:
        """Begin; networks that do not pause within ``seconds`` are left running."""
        self._take(_adding, seconds)
        for engine in list(_engines):
            self._take(engine.lock, seconds)

    def _take(self, lock: Any, seconds: float) -> None:
        if lock.acquire(timeout=seconds):
            self.held.append(lock)

    def end(self) -> None:
        while self.held:
            self.held.pop().release()


_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_adding = threading.RLock()
_pause = _Pause()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_pause.begin, after_in_parent=_pause.end, after_in_child=_pause.end)
atexit.register(_pause.begin, 10.0)


class Engine:
    """A network's layers on a device.

    Parameters
    ----------
    layers, inputs, cost
        What the network is; ``inputs`` is the shape of a sample.
    backend
        The backend of its device.
    dtype
        ``float32`` or ``float64``.
    """

    def __init__(
        self, layers: Sequence[Layer], inputs: Shape, cost: Cost, backend: Backend, dtype: Any
    ) -> None:
        self.layers = tuple(layers)
        self.cost = cost
        self.backend = backend
        self.dtype = np.dtype(dtype)
        #: The shape of a sample before the first layer, and after each.
        self.shapes = shapes(self.layers, inputs)
        self.sizes = [prod(shape) for shape in self.shapes]
        layout = Layout(lambda columns: backend.padded(columns, self.dtype))
        #: Each layer's parameters, with their places in `flat`.
        self.parameters = [
            layer.parameters(shape, layout)
            for layer, shape in zip(self.layers, self.shapes, strict=False)
        ]
        self.flat = backend.zeros((layout.size,), self.dtype)
        #: Held while computing, chunk by chunk: a device serves one thread at a time, and the work
        #: of another during the compilation of a step would become part of that step.
        self.lock = threading.RLock()
        with _adding:
            _engines.add(self)

    @property
    def outputs(self) -> int:
        return self.sizes[-1]

    @cached_property
    def one_hot(self) -> Array:
        """Row i is the target of class i, ``(outputs, outputs)``."""
        return self.backend.upload(np.eye(self.outputs, dtype=self.dtype))

    def upload(self, samples: Samples) -> Samples:
        """Return samples as arrays on the device."""
        up = {name: self.backend.upload(array) for name, array in samples.arrays().items()}
        return replace(samples, **up)

    @property
    def random(self) -> bool:
        """Whether training uses random numbers."""
        return any(layer.random for layer in self.layers)

    def fits(self, samples: Samples) -> bool:
        """Return whether all samples fit on the device, or some arrays are there already."""
        arrays = samples.arrays().values()
        if isinstance(samples.x, SparseRows):
            return False
        there = any(not isinstance(array, np.ndarray) for array in arrays)
        return there or self.backend.fits(samples.nbytes)

    def settle(self, samples: Samples) -> Samples:
        """Return samples on the device if they fit, else as they are."""
        return self.upload(samples) if self.fits(samples) else samples

    @property
    def multiplications(self) -> list[int]:
        """The multiplications per sample in each layer's matrix product."""
        pairs = zip(self.layers, self.shapes, strict=False)
        return [layer.multiplications(shape) for layer, shape in pairs]

    def stage(self, batch: int) -> AbstractContextManager[None]:
        """Return a context manager for training on such mini-batches; see `Backend.stage`."""
        return self.backend.stage(batch * max(self.multiplications))

    def lanes(self, rows: int, *, backward: bool) -> int:
        """Return into how many lanes a pass over ``rows`` samples is to be divided.

        Backward, each lane has gradients of its own. If weights are used only once per sample,
        these are as large as the work, and BLAS divides the products instead.
        """
        if backward and not self.reuses:
            return 1
        work = rows * sum(self.multiplications)
        lanes = self.backend.lanes(work if backward else work // _WAKING)
        return min(rows, lanes)

    @property
    def reuses(self) -> bool:
        """Whether a sample uses each weight many times, as convolutions do."""
        return bool(sum(self.multiplications) >= _REUSE * self.flat.size)

    @property
    def trained(self) -> list[Parameter]:
        """The parameters that optimizers change."""
        return [parameter for own in self.parameters for parameter in own if parameter.trained]

    def forward(self, lanes: Sequence[Sequence[Memory]], number: int = 0) -> Iterator[Meeting]:
        """Run a lane of a mini-batch forward; see `Layer.forward_lane` and `meet`."""
        first = lanes[number][0]
        if first.scale != 1 and not self.layers[0].scales:
            inputs = first.inputs.values
            self.backend.elementwise("x * s", inputs, x=inputs, s=first.scale)
        for layer, *places in zip(self.layers, *lanes, strict=True):
            yield from layer.forward_lane(self.backend, places, number)

    def backward(
        self,
        lanes: Sequence[Sequence[Memory]],
        targets: Rows,
        gradient: Gradient,
        weights: Array | None = None,
        number: int = 0,
    ) -> Iterator[Meeting]:
        """Run a lane backward, after `forward`; pass each gradient to ``gradient``.

        ``targets`` are those of the lane; ``weights`` ``(batch, 1)`` are its sample weights.
        """
        last, function = lanes[number][-1], self.layers[-1].function
        assert last.delta is not None
        self.cost.output_delta(self.backend, function, last.outputs, targets, out=last.delta)
        if weights is not None:
            delta = last.delta.values
            self.backend.elementwise("d * w", delta, d=delta, w=weights)
        for layer, *places in reversed(list(zip(self.layers, *lanes, strict=True))):
            if places[number] is not last:
                layer.delta(self.backend, places[number])
            yield from layer.backward_lane(self.backend, places, number, gradient)

    def views(self, number: int, flat: Array) -> dict[str, Array]:
        """Return views of a layer's arrays in a flat buffer, by name."""
        return self.layers[number].views(self.shapes[number], self.parameters[number], flat)

    def put(self, number: int, arrays: Mapping[str, Any]) -> None:
        """Set a layer's arrays from checked arrays on the host."""
        views = self.views(number, self.flat)
        with self.lock:
            for name, values in arrays.items():
                self.backend.copy(self.backend.upload(values), views[name])


def meet(backend: Backend, lanes: Sequence[Iterator[Meeting]]) -> None:
    """Run lanes in parallel, except for what is done once for all where they meet."""
    met: dict[int, Meeting | None] = {}

    def go_on(number: int) -> None:
        met[number] = next(lanes[number], None)

    while True:
        backend.together(*(partial(go_on, number) for number in range(len(lanes))))
        meeting = met[0]
        if meeting is None:
            return
        meeting()


def shapes(layers: Sequence[Layer], inputs: Shape) -> list[Shape]:
    """Return the shape of a sample before the first layer, and after each.

    Raises `ValueError`, naming the layer that does not fit.
    """
    found, learning = [inputs], False
    for number, layer in enumerate(layers, start=1):
        try:
            if isinstance(layer, Augmentation) and learning:
                raise ValueError(f"{type(layer).__name__} must come before all layers that learn")
            outputs = layer.outputs(found[-1])
        except ValueError as error:
            raise ValueError(f"layers[{number}]: {error}") from None
        learning |= bool(layer.parameters(found[-1], Layout(lambda columns: columns)))
        found.append(outputs)
    return found


def array_shapes(layers: Sequence[Layer], inputs: Shape) -> list[dict[str, Shape]]:
    """Return the names and shapes of each layer's arrays, without allocating memory.

    Raises `ValueError` if layers do not fit.
    """
    layout = Layout(lambda columns: columns)
    pairs = list(zip(layers, shapes(layers, inputs), strict=False))
    placed = [layer.parameters(shape, layout) for layer, shape in pairs]
    nothing = np.broadcast_to(np.zeros(()), (layout.size,))
    return [
        {name: view.shape for name, view in layer.views(shape, own, nothing).items()}
        for (layer, shape), own in zip(pairs, placed, strict=True)
    ]
