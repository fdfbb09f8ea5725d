"""The book's ``network3.py`` (Nielsen, chapter 6), without Theano: convolutions and dropout.

As in the book, a layer has its weights, ``w`` and ``b``, before it is part of a network. From then
on they are those of the underlying `xnn.Network`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import checks, layers
from ..callbacks import Training
from ..datasets import mnist
from ..network import Network as Net
from ..samples import Samples
from ..steps import Recipe
from ._feedforward import sgd, sigmoid

__all__ = [
    "ConvPoolLayer",
    "FullyConnectedLayer",
    "Network",
    "ReLU",
    "SoftmaxLayer",
    "linear",
    "load_data_shared",
    "sigmoid",
    "size",
    "tanh",
]

Pair = tuple[NDArray[Any], NDArray[Any]]


def linear(z: Any) -> Any:
    """Return z."""
    return z


def ReLU(z: Any) -> Any:
    """Return the larger of z and 0."""
    return np.maximum(0.0, z)


tanh = np.tanh

_NAMES: dict[Callable[[Any], Any], str] = {
    sigmoid: "sigmoid",
    tanh: "tanh",
    ReLU: "relu",
    linear: "linear",
}


def load_data_shared(filename: str | os.PathLike[str] = "../data/mnist.pkl.gz") -> list[Pair]:
    """Return training, validation and test data: pairs of images ``(n, 784)`` and labels ``(n,)``.

    The file must be in the book's form, such as `xnn.book.expand_mnist` writes; it is not executed.
    If the book's ``mnist.pkl.gz`` is missing, MNIST is found as by `xnn.datasets.mnist`.

    Raises `ValueError` for a file of another form, `OSError` if there is none.
    """
    path = Path(filename)
    missing = path.name == "mnist.pkl.gz" and not path.exists()
    pairs = mnist(validation=None) if missing else mnist(path, validation=None)
    return [(x / 255 if x.dtype == np.uint8 else x, y) for x, y in pairs]


def size(data: Pair) -> int:
    """Return the number of samples in ``data``."""
    return len(data[0])


class _Layer:
    """A layer with weights ``w`` and biases ``b``, kept by the network once there is one."""

    def __init__(self, w: NDArray[Any], b: NDArray[Any]) -> None:
        self._first: tuple[NDArray[Any], NDArray[Any]] | None = (w, b)
        self._net: Net | None = None
        self._number = 0
        self._inputs: tuple[int, ...] = ()

    @property
    def w(self) -> NDArray[Any]:
        """A copy of the weights in the book's form; may be set."""
        if self._first is not None:
            return self._first[0]
        return self._to_book(self._host("weights"))

    @w.setter
    def w(self, values: ArrayLike) -> None:
        self._set(np.asarray(values), self.b)

    @property
    def b(self) -> NDArray[Any]:
        """A copy of the biases; may be set."""
        return self._first[1] if self._first is not None else self._host("biases")

    @b.setter
    def b(self, values: ArrayLike) -> None:
        self._set(self.w, np.asarray(values))

    @property
    def params(self) -> list[NDArray[Any]]:
        """``w`` and ``b``."""
        return [self.w, self.b]

    def _set(self, w: NDArray[Any], b: NDArray[Any]) -> None:
        for name, new, old in (("w", w, self.w), ("b", b, self.b)):
            if new.shape != old.shape:
                raise ValueError(f"{name} has shape {new.shape}, but must have shape {old.shape}")
        if self._net is None:
            self._first = w, b
        else:
            self._net.weights[self._number] = self._from_book(w)
            self._net.biases[self._number] = b

    def _host(self, name: str) -> NDArray[Any]:
        assert self._net is not None
        array = getattr(self._net, name)[self._number]
        return np.array(self._net.core.engine.backend.host(array))

    def _join(self, net: Net, number: int, inputs: tuple[int, ...]) -> None:
        """Become a layer of a network, which takes over the weights."""
        assert self._first is not None
        (w, b), self._net, self._number, self._inputs = self._first, net, number, inputs
        net.weights[number], net.biases[number] = self._from_book(w), b
        self._first = None

    def _layers(self) -> list[layers.Layer]:
        """Return the equivalent layers of xnn, of which one has weights."""
        raise NotImplementedError

    def _to_book(self, weights: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError

    def _from_book(self, w: NDArray[Any]) -> NDArray[Any]:
        raise NotImplementedError


class ConvPoolLayer(_Layer):
    """A convolution, then max pooling, then an activation function.

    ``filter_shape`` is (filters, input maps, height, width); ``image_shape`` is (mini-batch, input
    maps, height, width). ``w`` has the filter's shape and is flipped, as in Theano.

    Raises `ValueError` for shapes that do not fit each other.
    """

    def __init__(
        self,
        filter_shape: tuple[int, int, int, int],
        image_shape: tuple[int, int, int, int],
        poolsize: tuple[int, int] = (2, 2),
        activation_fn: Callable[[Any], Any] = sigmoid,
    ) -> None:
        for name, shape in (("filter_shape", filter_shape), ("image_shape", image_shape)):
            if not isinstance(shape, tuple | list) or len(shape) != 4:
                raise ValueError(f"{name} is {shape!r}, but must have four numbers")
        if filter_shape[1] != image_shape[1]:
            raise ValueError(
                f"filter_shape has {filter_shape[1]} input maps, but image_shape {image_shape[1]}"
            )
        self.filter_shape, self.image_shape = tuple(filter_shape), tuple(image_shape)
        self.poolsize, self.activation_fn = poolsize, activation_fn
        self._name = _name(activation_fn)
        n_out = filter_shape[0] * np.prod(filter_shape[2:]) // np.prod(poolsize)
        w = np.random.normal(0, np.sqrt(1.0 / n_out), self.filter_shape)
        super().__init__(w, np.random.normal(0, 1.0, (filter_shape[0],)))

    def _layers(self) -> list[layers.Layer]:
        filters, _, height, width = self.filter_shape
        down, across = self.poolsize
        return [
            layers.Conv2D(filters, (height, width), initializer="zeros"),
            layers.MaxPool2D((down, across)),
            layers.Activation(self._name),
        ]

    def _to_book(self, weights: NDArray[Any]) -> NDArray[Any]:
        return np.ascontiguousarray(np.moveaxis(weights, 3, 1)[:, :, ::-1, ::-1])

    def _from_book(self, w: NDArray[Any]) -> NDArray[Any]:
        return np.moveaxis(w[:, :, ::-1, ::-1], 1, 3)


class _Full(_Layer):
    """A fully connected layer, with optional dropout before it."""

    def __init__(self, w: NDArray[Any], b: NDArray[Any], name: str, p_dropout: float) -> None:
        checks.share("p_dropout", p_dropout)
        self.n_in, self.n_out = w.shape
        self.p_dropout = p_dropout
        self._name = name
        super().__init__(w, b)

    def _layers(self) -> list[layers.Layer]:
        dropout = layers.Dropout(self.p_dropout, scale_training=False)
        dense = layers.Dense(self.n_out, self._name, "zeros")
        return [dropout, dense] if self.p_dropout else [dense]

    def _to_book(self, weights: NDArray[Any]) -> NDArray[Any]:
        """Return ``(n_in, n_out)``: the book has images map by map, xnn pixel by pixel."""
        rows = weights.T.reshape(*self._inputs, self.n_out)
        if len(self._inputs) == 3:
            rows = np.moveaxis(rows, 2, 0)
        return rows.reshape(self.n_in, self.n_out)

    def _from_book(self, w: NDArray[Any]) -> NDArray[Any]:
        if len(self._inputs) == 3:
            height, width, maps = self._inputs
            w = np.moveaxis(w.reshape(maps, height, width, self.n_out), 0, 2)
        return w.reshape(self.n_in, self.n_out).T


class FullyConnectedLayer(_Full):
    """A fully connected layer; ``w`` is ``(n_in, n_out)``.

    ``p_dropout`` is the probability of dropping each input in training.
    """

    def __init__(
        self,
        n_in: int,
        n_out: int,
        activation_fn: Callable[[Any], Any] = sigmoid,
        p_dropout: float = 0.0,
    ) -> None:
        shape = checks.whole("n_in", n_in), checks.whole("n_out", n_out)
        self.activation_fn = activation_fn
        w = np.random.normal(0.0, np.sqrt(1.0 / n_out), shape)
        super().__init__(w, np.random.normal(0.0, 1.0, (n_out,)), _name(activation_fn), p_dropout)


class SoftmaxLayer(_Full):
    """The last layer, with the log-likelihood cost; weights and biases are initially zero."""

    def __init__(self, n_in: int, n_out: int, p_dropout: float = 0.0) -> None:
        shape = checks.whole("n_in", n_in), checks.whole("n_out", n_out, least=2)
        super().__init__(np.zeros(shape), np.zeros(n_out), "softmax", p_dropout)


class Network:
    """A network of the layers above, trained on mini-batches of ``mini_batch_size``.

    Raises `ValueError` if layers do not fit, or the last is not a `SoftmaxLayer`.
    """

    def __init__(
        self,
        layers: Sequence[ConvPoolLayer | FullyConnectedLayer | SoftmaxLayer],
        mini_batch_size: int,
        *,
        device: str | None = None,
        dtype: Any = "float64",
    ) -> None:
        self.layers = list(layers)
        self.mini_batch_size = checks.whole("mini_batch_size", mini_batch_size)
        if not self.layers or not isinstance(self.layers[-1], SoftmaxLayer):
            raise ValueError("the last of layers must be a SoftmaxLayer")
        if any(not isinstance(layer, _Layer) or layer._net is not None for layer in self.layers):
            raise ValueError("layers must be layers of this module that are not in a network yet")
        described, joints = _describe(self.layers)
        seed = int(np.random.randint(2**31))  # for dropout
        self._net = Net(described, seed=seed, device=device, dtype=dtype)
        for layer, (number, inputs) in zip(self.layers, joints, strict=True):
            layer._join(self._net, number, inputs)

    @property
    def params(self) -> list[NDArray[Any]]:
        """Copies of the weights and biases of all layers."""
        return [array for layer in self.layers for array in layer.params]

    def SGD(
        self,
        training_data: Pair,
        epochs: int,
        mini_batch_size: int,
        eta: float,
        validation_data: Pair,
        test_data: Pair | None,
        lmbda: float = 0.0,
    ) -> None:
        """Train on mini-batches in the order of the data, and print what the book's code prints.

        The three data sets are pairs of images ``(n, inputs)`` and labels ``(n,)``. Samples after
        the last whole mini-batch are left out, as in the book. The cost includes ½ λ Σ w² divided
        by the number of mini-batches.

        Raises `ValueError` for data of another form.
        """
        checks.whole("mini_batch_size", mini_batch_size)
        named = (("training_data", training_data), ("validation_data", validation_data))
        training, validation = (self._samples(*pair, mini_batch_size) for pair in named)
        test = self._samples("test_data", test_data, mini_batch_size) if test_data else None
        validation = self._net.core.settle(validation)
        test = None if test is None else self._net.core.settle(test)
        batches = len(training) // mini_batch_size
        best, best_iteration, best_test = 0.0, 0, 0.0

        def report(training: Training) -> None:
            nonlocal best, best_iteration, best_test
            first = batches * training.epoch
            for iteration in range(-(-first // 1000) * 1000, first + batches, 1000):
                print(f"Training mini-batch number {iteration}")
            accuracy = self._net.core.evaluate(validation).accuracy
            assert accuracy is not None
            print(f"Epoch {training.epoch}: validation accuracy {accuracy:.2%}")
            if accuracy >= best:
                print("This is the best validation accuracy to date.")
                best, best_iteration = accuracy, first + batches - 1
                if test is not None:
                    best_test = self._net.core.evaluate(test).accuracy or 0.0
                    print(f"The corresponding test accuracy is {best_test:.2%}")

        order = np.arange(len(training))
        self._net.core.train(
            training,
            # λ over the number of mini-batches; `SGD` divides by the number of samples.
            recipe=Recipe(sgd(eta, lmbda * mini_batch_size), mini_batch_size),
            epochs=checks.whole("epochs", epochs, least=0),
            orders=iter([order] * epochs),
            callbacks=[report],
            progress=False,
        )
        print("Finished training network.")
        print(f"Best validation accuracy of {best:.2%} obtained at iteration {best_iteration}")
        print(f"Corresponding test accuracy of {best_test:.2%}")

    def _samples(self, name: str, data: Any, mini_batch_size: int) -> Samples:
        """Return checked samples, only those in whole mini-batches."""
        form = "a pair of images (n, inputs) and labels (n,), as load_data_shared gives"
        if not isinstance(data, tuple | list) or len(data) != 2 or np.ndim(data[1]) != 1:
            raise ValueError(f"{name} is not in the book's form: {form}")
        x, y = data
        whole = len(y) // mini_batch_size * mini_batch_size
        if not whole:
            raise ValueError(
                f"{name} has {checks.counted(len(y), 'sample')}, fewer than a mini-batch"
            )
        x, y = x[:whole], y[:whole]
        shape = self._net.shapes[0]
        if len(shape) == 3:  # the book has images map by map
            maps, rows = (shape[2], *shape[:2]), (int(np.prod(shape)),)
            came = tuple(getattr(x, "shape", None) or np.shape(x))
            if shape[2] > 1 and came[1:] not in (rows, maps):
                wanted = f"(n, {rows[0]}) or (n, {', '.join(map(str, maps))}), map by map"
                raise ValueError(f"{name}'s x has shape {came}, but must have shape {wanted}")
            if shape[2] > 1 or came[1:] == maps:
                x = np.moveaxis(np.reshape(x, (whole, *maps)), 1, 3)
        return self._net.core.samples(x, y, (f"{name}'s x", f"{name}'s y"))


def _describe(given: Sequence[Any]) -> tuple[list[Any], list[tuple[int, tuple[int, ...]]]]:
    """Return a description of the network, and each layer's index of weights and input shape."""
    first, joints = given[0], []
    images: tuple[int, ...] = ()
    if isinstance(first, ConvPoolLayer):
        maps, height, width = first.image_shape[1:]
        images = height, width, maps
    described: list[Any] = [images or first.n_in]
    for i, layer in enumerate(given):
        inputs = images
        if isinstance(layer, ConvPoolLayer):
            height, width, maps = images or (0, 0, 0)
            if layer.image_shape[1:] != (maps, height, width):
                raise ValueError(
                    f"layers[{i}] has image_shape {layer.image_shape}, but gets "
                    f"{maps} maps of {height}×{width}"
                )
            joints.append((len(described) - 1, inputs))
        elif images:
            described.append(layers.Flatten())
            if layer.n_in != int(np.prod(images)):
                raise ValueError(
                    f"layers[{i}] has n_in {layer.n_in}, but gets {int(np.prod(images))} numbers"
                )
            images = ()
        made = layer._layers()
        if not isinstance(layer, ConvPoolLayer):
            joints.append((len(described) + len(made) - 2, inputs or (layer.n_in,)))
            if i and not inputs and layer.n_in != given[i - 1].n_out:
                raise ValueError(
                    f"layers[{i}] has n_in {layer.n_in}, but gets {given[i - 1].n_out} numbers"
                )
        described += made
        for part in made if images else ():
            images = part.outputs(images)
    return described, joints


def _name(function: Callable[[Any], Any]) -> str:
    """Return the name of an activation function. Raises `ValueError` for an unknown one."""
    name = _NAMES.get(function)
    if name is None:
        known = "linear, ReLU, sigmoid or tanh of xnn.book.network3"
        raise ValueError(f"activation_fn is {function!r}, but must be {known}")
    return name
