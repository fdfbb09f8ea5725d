"""Networks as ONNX files, for other libraries to run.

Images are ``(n, height, width, channels)`` here and in the model's inputs and outputs, but
``(n, channels, height, width)`` in ONNX's layers. They are transposed between the two, once each
way around consecutive image layers.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import layers as kinds
from . import saving
from .activations import LEAK
from .backends import Window
from .layers import Layer
from .parameters import Shape
from .version import __version__

_OPSET = 7  # the oldest that ONNX Runtime promises to run
_IR = 4  # the oldest in which constants need not be inputs
_FUNCTIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "exp": "Exp"}

Arrays = Mapping[str, NDArray[Any]]


def write(
    path: str | os.PathLike[str],
    layers: Sequence[Layer],
    shapes: Sequence[Shape],
    arrays: Sequence[Arrays],
) -> None:
    """Write layers, with the shapes before and after each and each one's arrays, to ``path``.

    Raises `ImportError` if onnx is not installed, `ValueError` for a layer without an ONNX
    equivalent, `OSError` if the file cannot be written.
    """
    saving.replace(path, _model(layers, shapes, arrays).SerializeToString())


def _model(layers: Sequence[Layer], shapes: Sequence[Shape], arrays: Sequence[Arrays]) -> Any:
    try:
        from onnx import TensorProto, helper
    except ImportError:
        raise ImportError("export to ONNX needs onnx: pip install onnx") from None
    graph = _Graph()
    for number, (layer, own) in enumerate(zip(layers, arrays, strict=True), start=1):
        try:
            _add(graph, layer, shapes[number - 1], shapes[number], own)
        except NotImplementedError as error:
            raise ValueError(f"layers[{number}]: {error}") from None
    graph.channels_last()
    graph.node("Identity", outputs=["outputs"])
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", *shape])
        for name, shape in (("inputs", shapes[0]), ("outputs", shapes[-1]))
    ]
    made = helper.make_graph(graph.nodes, "xnn", ends[:1], ends[1:], graph.constants)
    return helper.make_model(
        made,
        producer_name="xnn",
        producer_version=__version__,
        ir_version=_IR,
        opset_imports=[helper.make_opsetid("", _OPSET)],
    )


class _Graph:
    """A chain of ONNX nodes: each takes the output of the last."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self._last = "inputs"
        self._first = False  # whether channels come first

    def node(
        self,
        kind: str,
        *constants: NDArray[Any],
        outputs: Sequence[str] = (),
        **attributes: Any,
    ) -> None:
        """Add a node, with constants as further inputs."""
        from onnx import helper, numpy_helper

        number, names = len(self.nodes), [self._last]
        for i, constant in enumerate(constants):
            names.append(f"{number}.{i}")
            self.constants.append(numpy_helper.from_array(constant, names[-1]))
        outputs = list(outputs) or [f"{number}"]
        self.nodes.append(helper.make_node(kind, names, outputs, **attributes))
        self._last = outputs[0]

    def channels_first(self) -> None:
        """Transpose images to ONNX's layout, if they are not in it."""
        if not self._first:
            self.node("Transpose", perm=[0, 3, 1, 2])
            self._first = True

    def channels_last(self) -> None:
        """Transpose images to xnn's layout, if they are not in it."""
        if self._first:
            self.node("Transpose", perm=[0, 2, 3, 1])
            self._first = False

    def window(self, kind: str, window: Window, *constants: NDArray[Any], **more: Any) -> None:
        """Add a node that moves a window over images."""
        self.channels_first()
        (top, bottom), (left, right) = window.padding
        more |= {"kernel_shape": list(window.size), "strides": list(window.stride)}
        self.node(kind, *constants, pads=[top, left, bottom, right], **more)

    def reshape(self, shape: Shape) -> None:
        """Add a node that reshapes samples, row by row."""
        self.channels_last()
        self.node("Reshape", np.array([0, *shape], np.int64))  # 0: as many samples as there are

    def function(self, name: str) -> None:
        """Add an activation function."""
        if name == "softmax":
            self.node("Softmax", axis=1)
        elif name == "leaky_relu":
            self.node("LeakyRelu", alpha=LEAK)
        elif name in _FUNCTIONS:
            self.node(_FUNCTIONS[name])
        elif name != "linear":
            raise NotImplementedError(f"activation {name} has no ONNX equivalent")


def _add(graph: _Graph, layer: Layer, inputs: Shape, outputs: Shape, arrays: Arrays) -> None:
    """Add a layer as it acts in prediction."""
    own = {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}
    match layer:
        case kinds.Augmentation() | kinds.Dropout(scale_training=True):
            return
        case kinds.Dropout():
            graph.node("Mul", np.array(1 - float(layer.rate), np.float32))
        case kinds.Dense(bias=True):
            graph.node("Gemm", own["weights"], own["biases"], transB=1)
        case kinds.Dense():
            graph.node("MatMul", np.ascontiguousarray(own["weights"].T))
        case kinds.Conv2D():
            kernels = np.ascontiguousarray(own["weights"].transpose(0, 3, 1, 2))
            biases = [own["biases"]] if layer.bias else []
            dilations, group = list(layer.window.dilation), int(layer.groups)
            graph.window("Conv", layer.window, kernels, *biases, dilations=dilations, group=group)
        case kinds.MaxPool2D():
            graph.window("MaxPool", layer.window)
        case kinds.AveragePool2D():
            graph.window("AveragePool", layer.window)  # over the pixels inside the image
        case kinds.GlobalAveragePool2D():
            graph.window("AveragePool", Window((inputs[0], inputs[1])))
            graph.reshape(outputs)
        case kinds.BatchNorm():
            if len(inputs) == 3:
                graph.channels_first()
            moments = [own[name] for name in ("weights", "biases", "mean", "variance")]
            graph.node("BatchNormalization", *moments, epsilon=float(layer.eps))
        case kinds.Flatten() | kinds.Reshape():
            graph.reshape(outputs)
        case kinds.Activation():
            pass
        case _:
            raise NotImplementedError(f"{type(layer).__name__} has no ONNX equivalent")
    graph.function(layer.function.name)
