"""Networks from PyTorch and back.

PyTorch's images are ``(n, channels, height, width)``, xnn's ``(n, height, width, channels)``. So
kernels are transposed, and flattened images have their numbers in another order: the weights of the
next fully connected layer are reordered to match.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import layers as kinds
from .activations import LEAK
from .backends import Window
from .core import restored
from .layers import Layer
from .network import Network, generator, with_core
from .parameters import Shape

_FUNCTIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "ReLU": "relu", "LeakyReLU": "leaky_relu"}
_UNSCALED = "Dropout(scale_training=False) to absorb its factor"
_HOMOGENEOUS = {"linear", "relu", "leaky_relu"}  # σ(k z) = k σ(z) for positive k


def from_torch(
    module: Any,
    inputs: int | Shape | None = None,
    *,
    cost: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    precision: str = "float32",
) -> Network:
    """Return a network equivalent to a ``torch.nn.Sequential``, with its weights.

    Parameters
    ----------
    module
        A ``Sequential`` of ``Linear``, ``Conv2d``, ``MaxPool2d``, ``AvgPool2d``,
        ``AdaptiveAvgPool2d(1)``, ``BatchNorm1d``, ``BatchNorm2d``, ``Dropout``, ``Flatten``,
        ``Identity``, activation functions, and nested ``Sequential``.
    inputs
        The number of inputs or their shape ``(height, width, channels)``; None infers it from the
        first module, which must then be a ``Linear``.
    cost, seed, device, precision
        As for `Network`. By default a module that ends in a ``Linear`` gets the quadratic cost: if
        it was trained with ``CrossEntropyLoss``, append ``Softmax(dim=1)``.

    Returns
    -------
    Network
        With the dtype of the module's parameters.

    Raises
    ------
    ValueError
        For a module without an equivalent layer in xnn.
    """
    modules = _modules(module)
    if inputs is None:
        if not modules or type(modules[0]).__name__ != "Linear":
            raise ValueError("inputs is None, but can only be inferred from a Linear that is first")
        inputs = int(modules[0].in_features)
    shape = tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)
    reader = _Reader(shape)
    for number, one in enumerate(modules):
        try:
            reader.add(one)
        except ValueError as error:
            raise ValueError(f"module {number}, {one}: {error}") from None
    if reader.order is not None:
        raise ValueError("module ends with flattened images, whose order differs in xnn")
    dtypes = {array.dtype for array in reader.arrays.values()} or {np.dtype(np.float32)}
    if len(dtypes) > 1:
        raise ValueError(f"module has parameters of dtypes {sorted(map(str, dtypes))}")
    description = {
        "inputs": inputs,
        "layers": [layer.describe() for layer in reader.layers],
        "cost": cost,
        "dtype": str(dtypes.pop()),
    }
    how = {"device": device, "precision": precision, "rng": generator(seed)}
    return with_core(restored({"description": description, "arrays": reader.arrays, **how}))


def to_torch(net: Network) -> Any:
    """Return a network as a ``torch.nn.Sequential`` in evaluation mode, on the CPU.

    Its ``state_dict()`` has copies of the weights. Images go in and come out in PyTorch's layout,
    ``(n, channels, height, width)``. Augmentation is left out. The factor of a `Dropout` with
    ``scale_training=False`` is folded into the next `Dense`, `Conv2D` or `BatchNorm`.

    Raises `ImportError` if PyTorch is not installed, `ValueError` for a layer without an equivalent
    in PyTorch.
    """
    try:
        import torch
    except ImportError:
        raise ImportError("to_torch needs PyTorch: see pytorch.org to install it") from None
    writer = _Writer(torch, net.core.arrays())
    for number, layer in enumerate(net.layers):
        try:
            writer.add(number, layer, net.shapes[number])
        except ValueError as error:
            raise ValueError(f"layers[{number + 1}]: {error}") from None
    if writer.order is not None:
        raise ValueError("the network ends with flattened images, whose order differs in PyTorch")
    if writer.factor != 1:
        raise ValueError(f"the network ends without weights after {_UNSCALED}")
    return torch.nn.Sequential(*writer.modules).eval()


def _modules(module: Any) -> list[Any]:
    """Return the modules in a ``Sequential``, flattened."""
    if type(module).__name__ != "Sequential":
        raise ValueError(f"module is {type(module).__name__}, but must be a torch.nn.Sequential")
    found: list[Any] = []
    for one in module:
        found += _modules(one) if type(one).__name__ == "Sequential" else [one]
    return found


def _order(shape: Shape) -> NDArray[np.intp]:
    """Return for each number of an image, in xnn's order, its index in PyTorch's order."""
    height, width, channels = shape
    places = np.arange(height * width * channels).reshape(channels, height, width)
    return places.transpose(1, 2, 0).ravel()


class _Reader:
    """Converts PyTorch's modules to xnn's layers and arrays."""

    def __init__(self, shape: Shape) -> None:
        self.layers: list[Layer] = []
        self.arrays: dict[str, NDArray[Any]] = {}
        self.shape = shape
        #: For flattened images, each number's index in PyTorch's order; see `_order`.
        self.order: NDArray[np.intp] | None = None

    def add(self, module: Any) -> None:
        """Add the layer for a module. Raises `ValueError` if xnn has no such layer."""
        name = type(module).__name__
        if name == "Identity":
            return
        made = getattr(self, f"_{name.lower()}", None)
        if name in _FUNCTIONS or name == "Softmax":
            self._put(self._activation(name, module), {})
        elif made is None:
            raise ValueError("xnn has no such layer")
        else:
            self._put(*made(module))

    def _put(self, layer: Layer, arrays: dict[str, Any]) -> None:
        before, self.shape = self.shape, layer.outputs(self.shape)
        number = len(self.layers)
        self.layers.append(layer)
        for name, array in arrays.items():
            self.arrays[f"{number}.{name}"] = np.ascontiguousarray(_host(array))
        if isinstance(layer, kinds.Flatten) and len(before) == 3:
            self.order = _order(before)
        elif isinstance(layer, kinds.Dense):
            self.order = None

    def _activation(self, name: str, module: Any) -> Layer:
        if name == "Softmax":
            _only(module.dim in (1, -1), "dim other than 1")
            return kinds.Activation("softmax")
        if name == "LeakyReLU":
            _only(module.negative_slope == LEAK, f"negative_slope other than {LEAK}")
        return kinds.Activation(_FUNCTIONS[name])

    def _linear(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        weights = _host(module.weight)
        if self.order is not None:
            weights = weights[:, self.order]
        arrays = {"weights": weights, "biases": module.bias}
        layer = kinds.Dense(module.out_features, "linear", bias=module.bias is not None)
        return layer, _given(arrays)

    def _conv2d(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        _only(module.padding_mode == "zeros", "padding_mode other than 'zeros'")
        layer = kinds.Conv2D(
            module.out_channels,
            module.kernel_size,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            groups=module.groups,
            bias=module.bias is not None,
        )
        kernels = _host(module.weight).transpose(0, 2, 3, 1)
        return layer, _given({"weights": kernels, "biases": module.bias})

    def _maxpool2d(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        _only(module.dilation in (1, (1, 1)), "dilation")
        _only(not module.ceil_mode and not module.return_indices, "ceil_mode or return_indices")
        return kinds.MaxPool2D(module.kernel_size, module.stride, module.padding), {}

    def _avgpool2d(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        _only(not module.ceil_mode and module.divisor_override is None, "ceil_mode or a divisor")
        padded = module.padding not in (0, (0, 0))
        _only(not (padded and module.count_include_pad), "average pooling that counts padding")
        return kinds.AveragePool2D(module.kernel_size, module.stride, module.padding), {}

    def _adaptiveavgpool2d(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        _only(module.output_size in (1, (1, 1)), "output_size other than 1")
        return kinds.GlobalAveragePool2D(), {}

    def _batchnorm1d(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        _only(module.running_mean is not None, "track_running_stats=False")
        _only(module.momentum is not None, "momentum=None")
        ones = np.ones(module.num_features, _host(module.running_mean).dtype)
        arrays = {
            "weights": ones if module.weight is None else module.weight,
            "biases": 0 * ones if module.bias is None else module.bias,
            "mean": module.running_mean,
            "variance": module.running_var,
        }
        if self.order is not None:
            arrays = {name: _host(array)[self.order] for name, array in arrays.items()}
        return kinds.BatchNorm(1 - module.momentum, module.eps), arrays

    _batchnorm2d = _batchnorm1d

    def _dropout(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        return kinds.Dropout(module.p), {}

    def _flatten(self, module: Any) -> tuple[Layer, dict[str, Any]]:
        _only(module.start_dim == 1 and module.end_dim == -1, "start_dim or end_dim")
        return kinds.Flatten(), {}


class _Writer:
    """Converts xnn's layers and arrays to PyTorch's modules."""

    def __init__(self, torch: Any, arrays: Sequence[dict[str, NDArray[Any]]]) -> None:
        self.torch = torch
        self.modules: list[Any] = []
        self.order: NDArray[np.intp] | None = None
        #: The factor for the next weights, since PyTorch's dropout scales in training.
        self.factor = 1.0
        self._arrays = arrays

    def add(self, number: int, layer: Layer, inputs: Shape) -> None:
        """Add the modules for a layer. Raises `ValueError` if PyTorch has no such module."""
        own, nn = dict(self._arrays[number]), self.torch.nn
        if self.factor != 1:
            self._fold(layer, own)
        match layer:
            case kinds.Augmentation():
                return
            case kinds.Dropout():
                self._put(nn.Dropout(float(layer.rate)))
                if not layer.scale_training:
                    self.factor *= 1 - float(layer.rate)
            case kinds.Dense():
                if self.order is not None:
                    own["weights"] = own["weights"][:, np.argsort(self.order)]
                    self.order = None
                units = int(layer.units)
                self._put(nn.Linear(inputs[0], units, bias=layer.bias), own)
            case kinds.Conv2D():
                self._convolution(layer, inputs, own)
            case kinds.BatchNorm():
                if self.order is not None:
                    own = {name: array[np.argsort(self.order)] for name, array in own.items()}
                kind = nn.BatchNorm1d if len(inputs) == 1 else nn.BatchNorm2d
                momentum, eps = 1 - float(layer.momentum), float(layer.eps) / self.factor**2
                self._put(kind(inputs[-1], eps=eps, momentum=momentum), own)
                self.factor = 1.0
            case kinds.MaxPool2D():
                window, padding = layer.window, self._pad(layer.window, float("-inf"))
                self._put(nn.MaxPool2d(window.size, window.stride, padding))
            case kinds.AveragePool2D():
                window = layer.window
                if not _even(window):
                    raise ValueError("PyTorch has no average pooling with unequal padding")
                padding = window.padding[0][0], window.padding[1][0]
                counted = {"count_include_pad": False}
                self._put(nn.AvgPool2d(window.size, window.stride, padding, **counted))
            case kinds.GlobalAveragePool2D():
                self._put(nn.AdaptiveAvgPool2d(1))
                self._put(nn.Flatten())
            case kinds.Flatten() | kinds.Reshape():
                self._reshape(inputs, layer.outputs(inputs))
            case kinds.Activation():
                pass
            case _:
                raise ValueError(f"PyTorch has no {type(layer).__name__}")
        name = layer.function.name
        if name == "softmax":
            self._put(nn.Softmax(dim=1))
        elif name == "leaky_relu":
            self._put(nn.LeakyReLU(LEAK))
        elif name != "linear":
            names = {ours: theirs for theirs, ours in _FUNCTIONS.items()}
            if name not in names:
                raise ValueError(f"PyTorch has no module for activation {name}")
            self._put(getattr(nn, names[name])())

    def _fold(self, layer: Layer, own: dict[str, NDArray[Any]]) -> None:
        """Fold the factor of an earlier dropout into a layer's weights, or pass it on."""
        match layer:
            case kinds.Dense() | kinds.Conv2D():
                own["weights"] = own["weights"] * self.factor
                self.factor = 1.0
            case kinds.BatchNorm():  # normalising cancels the factor; ε is rescaled in `add`
                own["mean"] = own["mean"] / self.factor
                own["variance"] = own["variance"] / self.factor**2
            case kinds.Dropout() | kinds.Augmentation() | kinds.Flatten() | kinds.Reshape():
                pass
            case kinds.MaxPool2D() | kinds.AveragePool2D() | kinds.GlobalAveragePool2D():
                pass
            case kinds.Activation() if layer.activation in _HOMOGENEOUS:
                pass
            case _:
                raise ValueError(f"there are no weights between it and {_UNSCALED}")

    def _put(self, module: Any, arrays: dict[str, NDArray[Any]] | None = None) -> None:
        """Add a module, with xnn's arrays as its parameters."""
        names = {
            "weights": "weight",
            "biases": "bias",
            "mean": "running_mean",
            "variance": "running_var",
        }
        self.modules.append(module)
        for name, array in (arrays or {}).items():
            tensor = self.torch.from_numpy(np.array(array))  # a copy
            module.to(tensor.dtype)
            with self.torch.no_grad():
                getattr(module, names[name]).copy_(tensor)

    def _convolution(
        self, layer: kinds.Conv2D, inputs: Shape, own: dict[str, NDArray[Any]]
    ) -> None:
        window = layer.window
        module = self.torch.nn.Conv2d(
            inputs[2],
            int(layer.filters),
            window.size,
            window.stride,
            self._pad(window, 0.0),
            window.dilation,
            int(layer.groups),
            layer.bias,
        )
        self._put(module, {**own, "weights": own["weights"].transpose(0, 3, 1, 2)})

    def _pad(self, window: Window, value: float) -> tuple[int, int]:
        """Return a window's padding; if its sides differ, none, after a separate padding module."""
        down, across = window.padding
        if _even(window):
            return down[0], across[0]
        self._put(self.torch.nn.ConstantPad2d((*across, *down), value))
        return 0, 0

    def _reshape(self, inputs: Shape, outputs: Shape) -> None:
        nn = self.torch.nn
        if len(inputs) == 3 and len(outputs) == 1:
            self._put(nn.Flatten())
            self.order = _order(inputs)
        elif inputs != outputs:
            height, width, channels = outputs
            if len(inputs) == 3 or self.order is not None or min(channels, height * width) > 1:
                raise ValueError("Reshape to images orders numbers differently in PyTorch")
            self._put(nn.Unflatten(1, (channels, height, width)))


def _host(array: Any) -> NDArray[Any]:
    """Return a PyTorch tensor, or a NumPy array, as the latter."""
    if isinstance(array, np.ndarray):
        return array
    host: NDArray[Any] = array.detach().cpu().numpy()
    return host


def _given(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if array is not None}


def _only(true: bool, what: str) -> None:
    if not true:
        raise ValueError(f"xnn has no {what}")


def _even(window: Window) -> bool:
    return all(first == second for first, second in window.padding)
