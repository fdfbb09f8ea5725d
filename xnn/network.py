"""`Network`: what a user holds."""

from __future__ import annotations

import copy
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checkpoints, checks, costs, layers, saving
from .backends import Array, DeviceError, select
from .callbacks import CallbackLike
from .engine import Engine, array_shapes
from .history import History
from .inference import Inference
from .initializers import as_given
from .layers import Dense, Layer, shown
from .optimizers import SGD, Optimizer
from .parameters import Shape
from .samples import Samples, advice, check_inputs, check_samples, check_weights
from .steps import Recipe
from .training import Saved, train

_TRAINING = "training"  # what is a checkpoint's of a file, and not the network's


class Evaluation(NamedTuple):
    """How good a network is on some samples."""

    cost: float
    """The mean over samples, without weight decay."""
    accuracy: float | None
    """The share of samples classified right; None where targets are values of a regression."""


class Gradients(NamedTuple):
    """The gradient of the mean cost, a list of one array a layer; unpacks as in the book."""

    biases: list[NDArray[Any] | None]
    """Shaped as `Network.biases`; None for a layer without."""
    weights: list[NDArray[Any] | None]
    """Shaped as `Network.weights`; None for a layer without."""


class Network:
    """A feedforward neural network.

    Parameters
    ----------
    layers
        The number of inputs, or their shape ``(height, width, channels)``; then the layers. A
        number stands for the book's first layer,
        ``Dense(number, activation="sigmoid", initializer="normal")``. Its weights of standard
        deviation 1 learn poorly with many inputs or neurons; those of ``Dense(number)`` are
        Glorot's.
    cost
        ``"quadratic"``, ``"cross_entropy"``, ``"log_likelihood"``, ``"log_loss"``, ``"poisson"``,
        ``"mean_squared_error"`` or ``"mean_absolute_error"``; None is log-likelihood after softmax
        and else quadratic.
    seed
        Decides first weights and shuffles, and with them a whole training run. None takes a new
        one from the operating system.
    device
        ``"cpu"``, ``"gpu"``, ``"gpu:1"`` …, or ``"auto"``: a GPU if one works. None is what the
        environment variable ``XNN_DEVICE`` names, else the CPU.
    dtype
        ``"float32"`` or ``"float64"``.
    precision
        How matrix products of float32 are computed: ``"float32"``, exactly so; or ``"tf32"``, by
        tensor cores with 10 bits of the 23 on GPUs that have them, as before on others.

    Raises
    ------
    ValueError
        For arguments that make no network.
    xnn.DeviceError
        Where the device is not to be had.

    Examples
    --------
    >>> import numpy as np
    >>> import xnn
    >>> net = xnn.Network([784, 30, 10], seed=0)  # the book's
    >>> net.predict(np.zeros((5, 784))).shape
    (5, 10)
    >>> net = xnn.Network([784, xnn.Dense(100, "relu"), xnn.Dense(10, "softmax")], seed=0)
    >>> net.cost
    'log_likelihood'
    >>> [weights.shape for weights in net.weights]
    [(100, 784), (10, 100)]
    """

    def __init__(
        self,
        layers: Sequence[int | Layer],
        cost: str | None = None,
        *,
        seed: int | None = None,
        device: str | None = None,
        dtype: Any = "float32",
        precision: str = "float32",
    ) -> None:
        inputs, described = _layers(layers)
        self._rng = generator(seed)
        self._build(inputs, described, cost, device, dtype, precision)
        for i, layer in enumerate(described):
            try:
                drawn = layer.draw(self._engine.shapes[i], self._rng)
                for name, array in drawn.items():
                    as_given(f"initializer's {name}", array, array.shape, self.dtype)
            except ValueError as error:
                kind = type(layer).__name__
                raise ValueError(f"layers[{i + 1}]: {kind}: {error}") from None
            self._engine.put(i, drawn)

    def _build(
        self,
        inputs: Shape,
        described: Sequence[Layer],
        cost: Any,
        device: str | None,
        dtype: Any,
        precision: str,
    ) -> None:
        kind = _dtype(dtype)
        if precision == "tf32" and kind == np.float64:
            raise ValueError("precision is 'tf32', which is one of float32, but dtype is float64")
        chosen = costs.get(cost, described[-1].function)
        self._engine = Engine(described, inputs, chosen, select(device, precision), kind)
        self._precision = precision
        self._inference = Inference(self._engine)
        self._lock = self._engine.lock

    # What it is.

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers' descriptions."""
        return self._engine.layers

    @property
    def sizes(self) -> list[int]:
        """The number of inputs, then of each layer's outputs."""
        return list(self._engine.sizes)

    @property
    def shapes(self) -> list[Shape]:
        """The shape of a sample before the first layer, then behind each."""
        return list(self._engine.shapes)

    @property
    def cost(self) -> str:
        """The cost's name."""
        return self._engine.cost.name

    @property
    def device(self) -> str:
        """``"cpu"``, or the GPU's name."""
        return self._engine.run.device

    @property
    def dtype(self) -> Any:
        """The dtype of parameters and outputs."""
        return self._engine.dtype

    @property
    def inference(self) -> Inference:
        """What runs it, for what is built on networks."""
        return self._inference

    @property
    def weights(self) -> Arrays:
        """Each layer's weights; None for a layer without.

        They are ``(units, inputs)`` of `Dense`, ``(filters, height, width, channels / groups)`` of
        `Conv2D`, and ``(channels,)`` of `BatchNorm`.

        These are live views on the device: what is written to one, element by element or as
        ``net.weights[0] = array``, is in the network. May be set to a sequence of such arrays.
        """
        return self._arrays("weights")

    @weights.setter
    def weights(self, values: Sequence[ArrayLike | None]) -> None:
        self.weights.assign(values)

    @property
    def biases(self) -> Arrays:
        """Each layer's biases, one a unit, filter or channel, live like `weights`; or None."""
        return self._arrays("biases")

    @biases.setter
    def biases(self, values: Sequence[ArrayLike | None]) -> None:
        self.biases.assign(values)

    def __repr__(self) -> str:
        engine = self._engine
        total = sum(parameter.size for parameter in engine.trained)
        rows = [("input", shown(engine.shapes[0]), "", "", "")]
        for i, layer in enumerate(engine.layers):
            kind, name = type(layer).__name__.lower(), getattr(layer, "activation", "")
            size = sum(parameter.size for parameter in engine.parameters[i] if parameter.trained)
            told = f"{size:,}" if size else ""
            inputs, outputs = map(shown, engine.shapes[i : i + 2])
            rows.append((kind, inputs, f"→ {outputs}", name, told))
        kinds, froms, tos, names, totals = (
            max(map(len, column)) for column in zip(*rows, strict=True)
        )
        lines = [
            f"Network: {total:,} parameters, {self.cost} cost, {engine.dtype} on {self.device}"
        ]
        for kind, n, to, name, told in rows:
            line = f"  {kind:<{kinds}}  {n:>{froms}} {to:<{tos}}  {name:<{names}}  {told:>{totals}}"
            lines.append(line.rstrip())
        return "\n".join(lines)

    # What it does.

    def fit(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        epochs: int = 30,
        batch_size: int = 10,
        optimizer: Optimizer | float | None = None,
        sample_weight: ArrayLike | None = None,
        class_weight: Mapping[int, float] | str | None = None,
        label_smoothing: float = 0.0,
        micro_batch_size: int | None = None,
        validation_data: tuple[ArrayLike, ArrayLike] | None = None,
        callbacks: Sequence[CallbackLike] = (),
        shuffle: bool = True,
        progress: bool | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train on mini-batches and return the history.

        Parameters
        ----------
        x
            Samples ``(n, inputs)`` of any real dtype, or of more dimensions with as many numbers a
            sample. Where inputs are images, ``(n, height, width, channels)``, without channels
            where there is one, or rows ``(n, inputs)`` of the same order. ``uint8`` is taken as
            pixels and scaled to 0…1 batch by batch. What lies on the network's GPU, by CuPy or
            DLPack, is used where it is; what does not fit there stays here and crosses as it is
            used.
        y
            Labels ``(n,)``, integers from 0 to outputs - 1; or rows ``(n, outputs)``; or, for one
            output, numbers ``(n,)``.
        epochs, batch_size
            How often to go through all samples, and how many to a step. The last step of an epoch
            takes what is left.
        optimizer
            Such as ``xnn.SGD(3.0)``; a number is its learning rate; None is ``SGD(0.5)`` for the
            quadratic cost and ``SGD(0.1)`` for all others.
        sample_weight
            How much each sample counts, ``(n,)``: its cost and its gradient are multiplied by this.
        class_weight
            How much each class counts: a mapping of classes to weights, or ``"balanced"``.
        label_smoothing
            The share of each target that is given to all classes alike, at least 0, less than 1.
        micro_batch_size
            How many samples of a mini-batch to run at a time, where all at once take too much
            memory. Their gradients add up to the same step, but for a network with `BatchNorm`,
            which takes mean and variance of each part by itself.
        validation_data
            A pair like ``(x, y)``, evaluated after each epoch.
        callbacks
            `xnn.Callback` objects, or functions called after each epoch with the running training.
        shuffle
            Whether each epoch goes through the samples in a new order.
        progress
            Whether to show a progress bar; None shows one on a terminal only.
        resume
            A checkpoint, or a folder of them of which the newest is taken, that `Checkpoints` wrote
            in a training with the same arguments; None begins anew. Training goes on from there,
            and on a CPU ends with the same weights, bit for bit, as if it had not been ended;
            ``epochs`` counts from the very beginning.

        Raises
        ------
        ValueError
            For bad input, before any work.
        FloatingPointError
            Where training diverges. The network then has the weights with which the epoch began, or
            those before it where epochs are so short that several are run as one, or
            `EarlyStopping`'s best.
        xnn.DeviceError
            Where a GPU fails. The network is then on the CPU.

        Notes
        -----
        Ctrl-C ends training: the network keeps its weights, the history its epochs. Other threads
        may use the network meanwhile; they see it as it is between some steps and the next.

        Examples
        --------
        >>> import numpy as np
        >>> import xnn
        >>> x = np.random.default_rng(0).random((500, 2))
        >>> y = (x[:, 0] > x[:, 1]).astype(int)  # labels 0 and 1
        >>> train, validation = (x[:400], y[:400]), (x[400:], y[400:])
        >>> net = xnn.Network([2, 8, xnn.Dense(2, "softmax")], seed=0)
        >>> history = net.fit(*train, epochs=10, optimizer=0.5, validation_data=validation)
        >>> len(history.cost)
        10
        >>> history.validation_accuracy[-1] > 0.9
        True
        """
        samples = self._samples(x, y)
        weights, engine = (sample_weight, class_weight), self._engine
        samples = check_weights(engine.run, samples, *weights, engine.outputs, engine.dtype)
        for said in advice(engine.run, samples, engine.layers[-1].function):
            warnings.warn(said, stacklevel=2)
        below = "a number of at least 0 and less than 1"
        checks.number("label_smoothing", label_smoothing, below, least=0, below=1)
        if label_smoothing and samples.scoring is None:
            raise ValueError("label_smoothing is given, but the targets are no classes")
        recipe = Recipe(
            _optimizer(optimizer, self.cost),
            checks.whole("batch_size", batch_size),
            None
            if micro_batch_size is None
            else checks.whole("micro_batch_size", micro_batch_size),
            float(label_smoothing),
        )
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, tuple | list) or len(validation_data) != 2:
                raise ValueError(
                    "validation_data must be a pair (x, y), "
                    f"but is a {type(validation_data).__name__}"
                )
            validation = self._samples(*validation_data, ("validation x", "validation y"))
        shuffle = checks.truth("shuffle", shuffle)
        if progress is not None:
            checks.truth("progress", progress)
        source = None if resume is None else checkpoints.find(resume)
        return self._train(
            samples,
            recipe=recipe,
            epochs=checks.whole("epochs", epochs),
            orders=_orders(len(samples), self._rng if shuffle else None),
            shuffled=shuffle,
            validation=validation,
            callbacks=callbacks,
            progress=progress,
            resume=None if source is None else lambda: self._saved(source),
        )

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the outputs ``(n, outputs)`` for samples as `fit` takes them.

        That goes for ``uint8`` too: it is taken as pixels and scaled to 0…1.

        For an array that lies on the network's GPU, of CuPy or of any library that speaks DLPack,
        they are an array of CuPy there.

        Raises `ValueError` where ``x`` does not fit or holds NaN.

        Examples
        --------
        >>> import numpy as np
        >>> import xnn
        >>> net = xnn.Network([(28, 28, 1), xnn.Flatten(), xnn.Dense(10, "softmax")], seed=0)
        >>> pixels = np.full((3, 28, 28), 255, np.uint8)
        >>> outputs = net.predict(pixels)
        >>> outputs.shape
        (3, 10)
        >>> np.array_equal(outputs, net.predict(np.ones((3, 28, 28))))
        True
        """
        inference = self._inference
        if type(x) is np.ndarray:
            outputs = inference.answer(x)
            if outputs is not None:
                return outputs
        wanted = self._engine.run, x, self._engine.shapes[0], self.dtype
        rows = check_inputs(*wanted, finite=False)
        found = inference.predict(rows, finite=True)
        if found is None:  # then it is worth a look, which says where
            found = inference.predict(check_inputs(*wanted))
        result: NDArray[Any] = found
        if len(self._engine.shapes[-1]) > 1:
            return result.reshape(len(rows), *self._engine.shapes[-1])
        if type(x) is np.ndarray and x.shape == rows.shape and len(x) == 1:
            inference.make_ready(x)
        return result

    def classify(self, x: ArrayLike) -> NDArray[np.intp]:
        """Return for each sample the class with the largest output, shape ``(n,)``.

        Where there is one output, class 1 is an output above ½. Outputs that are images count row
        by row, pixel by pixel, channel by channel, as for `evaluate`.
        """
        classes: NDArray[np.intp] = chosen(self.predict(x), self._engine.outputs)
        return classes

    def evaluate(self, x: ArrayLike, y: ArrayLike) -> Evaluation:
        """Return mean cost and accuracy on samples and targets as `fit` takes them.

        Raises `ValueError` where these do not fit or hold NaN.
        """
        return self._evaluate(self._samples(x, y))

    def backprop(self, x: ArrayLike, y: ArrayLike) -> Gradients:
        """Return the gradient of the mean cost over samples and targets as `fit` takes them.

        Raises `ValueError` where these do not fit or hold NaN.
        """
        samples = self._samples(x, y)
        with self._engine.lock:
            found = self._inference.gradients(samples)
        return Gradients(
            [arrays.get("biases") for arrays in found], [arrays.get("weights") for arrays in found]
        )

    # Where it goes.

    def to(self, device: str) -> Network:
        """Move the network to a device and return it.

        Arrays taken from `weights` or `biases` before belong to the device that it leaves.

        Raises `ValueError` for a name that is none, `xnn.DeviceError` where it is not to be had.
        """
        if select(device, self._precision).device != self.device:
            with self._lock:
                self._restore({**self.__getstate__(), "device": device})
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: parameters, and what it is in the header.

        The file is the old one or the new one at each moment, also where the process is killed.
        Raises `OSError` where it cannot be written; a file already there is then unharmed.
        """
        state = self.__getstate__()
        saving.write(path, state["arrays"], state["description"])

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network as it predicts to an ONNX file, in float32, of opset 7.

        The model takes ``inputs`` ``(n, …)`` and gives ``outputs`` ``(n, …)``, of the shapes that
        the network has; ``uint8`` pixels are to be divided by 255 beforehand. What acts in training
        alone is left out.

        Raises `ImportError` where onnx is not installed, `OSError` where the file cannot be
        written; one already there is then unharmed.
        """
        from . import onnx

        arrays = self.__getstate__()["arrays"]
        own: list[dict[str, NDArray[Any]]] = [{} for _ in self.layers]
        for full, array in arrays.items():
            number, name = full.split(".")
            own[int(number)][name] = array
        onnx.write(path, self.layers, self.shapes, own)

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return self._state(self._engine.run.download(self._engine.flat))

    def _state(self, flat: NDArray[Any]) -> dict[str, Any]:
        """Return all that the network is, with its parameters from a flat buffer of the host."""
        arrays = {}
        for i in range(len(self.layers)):
            for name, view in self._engine.views(i, flat).items():
                arrays[f"{i}.{name}"] = np.ascontiguousarray(view)
        description = {
            "inputs": self.sizes[0] if len(self.shapes[0]) == 1 else list(self.shapes[0]),
            "layers": [layer.describe() for layer in self.layers],
            "cost": self.cost,
            "dtype": str(self.dtype),
        }
        return {
            "description": description,
            "arrays": arrays,
            "device": self.device,
            "precision": self._precision,
            "rng": copy.deepcopy(self._rng),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Become what was pickled: on its device, or on the CPU where that is not to be had."""
        try:
            self._restore(state)
        except DeviceError:
            self._restore({**state, "device": "cpu"})

    def _restore(self, state: dict[str, Any]) -> None:
        described = state["description"]
        self._rng = state["rng"]
        made = [layers.from_description(d) for d in described["layers"]]
        inputs, made = _layers([described["inputs"], *made])
        arrays, dtype = dict(state["arrays"]), _dtype(described["dtype"])
        checked: list[dict[str, Any]] = []
        for i, wanted in enumerate(array_shapes(made, inputs)):
            # Shapes first: no memory on a description's word alone.
            names = {name: f"{i}.{name}" for name in wanted}
            checked.append(
                {
                    name: as_given(full, arrays.pop(full), wanted[name], dtype)
                    for name, full in names.items()
                }
            )
        if arrays:
            raise ValueError(f"arrays {', '.join(sorted(arrays))} belong to no layer")
        where = state["device"], described["dtype"], state["precision"]
        self._build(inputs, made, described["cost"], *where)
        for i, own in enumerate(checked):
            self._engine.put(i, own)

    def _write(self, path: str | os.PathLike[str], saved: Saved) -> None:
        """Write a checkpoint: the network's file, and the training in it."""
        state = self._state(saved.flat)
        training = {f"{_TRAINING}.{name}": array for name, array in saved.arrays.items()}
        description = {**state["description"], _TRAINING: dict(saved.facts)}
        saving.write(path, {**state["arrays"], **training}, description)

    def _saved(self, path: Path) -> Saved:
        """Return what a checkpoint of this network holds."""
        name = str(path)
        arrays, description = saving.read(path)
        facts = description.pop(_TRAINING, None)
        if not isinstance(facts, dict):
            raise ValueError(f"{name}: a network, but not one to go on training with")
        try:  # with what layers have come to say of themselves since it was written
            made = [layers.from_description(layer) for layer in description["layers"]]
            description["layers"] = [layer.describe() for layer in made]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: not a network that xnn can read: {error}") from None
        own = self.__getstate__()["description"]
        for told, value in own.items():
            if description.get(told) != value:
                came = f"{description.get(told)!r} there, but {value!r} here"
                raise ValueError(f"{name}: of another network: {told} is {came}")
        engine = self._engine
        flat = np.zeros(engine.flat.shape, engine.dtype)
        try:
            for i in range(len(self.layers)):
                for view_name, view in engine.views(i, flat).items():
                    full = f"{i}.{view_name}"
                    view[...] = as_given(full, arrays[full], view.shape, engine.dtype)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name}: not a network that xnn can read: {error}") from None
        training = {key: arrays[key] for key in arrays if key.startswith(f"{_TRAINING}.")}
        named = {key.removeprefix(f"{_TRAINING}."): array for key, array in training.items()}
        return Saved(flat, named, facts, name)

    # What other rooms build on: samples are checked once, and then used as often as they like.

    def _samples(self, x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> Samples:
        engine = self._engine
        function = engine.layers[-1].function
        size = engine.shapes[0], engine.outputs
        return check_samples(engine.run, x, y, size, function, engine.cost, engine.dtype, names)

    def _train(self, samples: Samples, **options: Any) -> History:
        """Train as `xnn.training.train` does; where the device fails, go to the CPU."""
        try:
            return train(self._inference, samples, rng=self._rng, write=self._write, **options)
        except DeviceError as error:
            if error.parameters is None:  # before the first step
                raise
            self._restore({**self._state(error.parameters), "device": "cpu"})
            what = "the network is on the CPU now, with the weights from before the epoch"
            raise DeviceError(f"{error}; {what}") from None

    def _arrays(self, name: str) -> Arrays:
        engine = self._engine
        layers = range(len(engine.layers))
        return Arrays(name, engine, [engine.views(i, engine.flat).get(name) for i in layers])

    def _settle(self, samples: Samples) -> Samples:
        """Return samples on the network's device, where they fit."""
        with self._engine.lock:
            return self._engine.settle(samples)

    def _evaluate(self, samples: Samples) -> Evaluation:
        with self._engine.lock:
            return Evaluation(*self._inference.evaluate(samples))


class Arrays(Sequence[Array]):
    """The weights or the biases of all layers; ``arrays[i] = values`` writes into the network."""

    def __init__(self, name: str, engine: Engine, views: list[Array | None]) -> None:
        self._name = name
        self._engine = engine
        self._views = views

    def __len__(self) -> int:
        return len(self._views)

    def __getitem__(self, i: Any) -> Any:
        found, engine = self._views[i], self._engine
        with engine.lock:
            for view in found if isinstance(found, list) else [found]:
                if view is not None:
                    engine.run.hand_out(view)
        return found

    def __setitem__(self, i: int, values: ArrayLike | None) -> None:
        index = range(len(self))[i]
        self._write([(index, values)])

    def __repr__(self) -> str:
        return repr(self._views)

    def columns(self) -> Arrays:
        """Return the same arrays, each of one dimension, as columns ``(units, 1)``."""
        views = [None if view is None else view[:, None] for view in self._views]
        return Arrays(self._name, self._engine, views)

    def assign(self, values: Sequence[ArrayLike | None]) -> None:
        """Write one array a layer; all are checked before the first is written.

        Raises `ValueError` where number, shape or numbers do not fit.
        """
        values = list(values)
        if len(values) != len(self):
            raise ValueError(
                f"{self._name} has {len(values)} arrays, but there are {len(self)} layers"
            )
        self._write(list(enumerate(values)))

    def _write(self, values: list[tuple[int, Any]]) -> None:
        engine, checked = self._engine, []
        for i, value in values:
            view, name = self._views[i], f"{self._name}[{i}]"
            if view is None and value is not None:
                raise ValueError(f"{name} is given, but that layer has none")
            if view is not None:
                host = engine.run.download(value) if isinstance(value, type(view)) else value
                checked.append((view, as_given(name, host, view.shape, engine.dtype)))
        with engine.lock:
            for view, array in checked:
                engine.run.copy(engine.run.upload(array), view)


def chosen(outputs: Array, count: int) -> Any:
    """Return the class that each sample's outputs ``(n, …)``, ``count`` of them, tell: ``(n,)``."""
    rows = outputs.reshape(len(outputs), count)
    return rows.argmax(axis=1) if count > 1 else (rows[:, 0] > 0.5).astype(np.intp)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    precision: str = "float32",
    seed: int | None = None,
) -> Network:
    """Return the network that `Network.save` wrote, or that of a checkpoint.

    ``device`` and ``precision`` say where and how it is to run, as for `Network`; ``seed`` decides
    shuffles from here on.

    Raises `ValueError` that names the file where it holds no network, `OSError` where it cannot be
    read.
    """
    select(device, precision)
    rng = generator(seed)
    arrays, description = saving.read(path)
    own = {name: array for name, array in arrays.items() if not name.startswith(f"{_TRAINING}.")}
    try:
        return restored(description, own, device=device, precision=precision, rng=rng)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fsdecode(path)}: not a network that xnn can read: {error}") from None


def restored(description: dict[str, Any], arrays: dict[str, NDArray[Any]], **state: Any) -> Network:
    """Return a network of its description and arrays, named ``"0.weights"`` and so on."""
    network = Network.__new__(Network)
    network._restore({"description": description, "arrays": arrays, **state})
    return network


def _layers(given: Any) -> tuple[Shape, list[Layer]]:
    """Return the shape of the inputs and the layers, from what the constructor was given."""
    wanted = "a list such as [784, 30, 10]: the number of inputs, then the layers"
    if not isinstance(given, list | tuple):
        raise ValueError(f"layers is {given!r}, but must be {wanted}")
    if len(given) < 2:
        raise ValueError(f"layers has {len(given)} entries, but must be {wanted}")
    shape = given[0]
    if isinstance(shape, tuple | list):
        if len(shape) not in (1, 3):
            wanted = "a number of inputs, or (height, width, channels)"
            raise ValueError(f"layers[0] is {shape!r}, but must be {wanted}")
        given = [prod(checks.whole("layers[0]", n) for n in shape), *given[1:]]
    for i, entry in enumerate(given):
        number = isinstance(entry, int | np.integer) and not isinstance(entry, bool)
        if not (number and entry >= 1) and not (i and isinstance(entry, Layer)):
            kinds = "a whole number of at least 1" + (" or a layer" if i else ", the inputs")
            raise ValueError(f"layers[{i}] is {entry!r}, but must be {kinds}")
    inputs = tuple(map(int, shape)) if isinstance(shape, tuple | list) else (int(given[0]),)
    return inputs, [
        entry if isinstance(entry, Layer) else Dense(int(entry), "sigmoid", "normal")
        for entry in given[1:]
    ]


def _dtype(given: Any) -> np.dtype[Any]:
    """Return the dtype that a network may have."""
    try:
        kind: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError):
        kind = np.dtype(object)
    if given is None or kind not in (np.float32, np.float64):
        raise ValueError(f"dtype is {given!r}, but must be 'float32' or 'float64'")
    return kind


def generator(seed: Any) -> np.random.Generator:
    """Return the generator that a network's ``seed`` means."""
    return np.random.default_rng(None if seed is None else checks.whole("seed", seed, least=0))


def default_rate(cost: str) -> float:
    """Return SGD's learning rate where none is given."""
    return 0.5 if cost == "quadratic" else 0.1  # its gradients are smaller


def _orders(n: int, rng: np.random.Generator | None) -> Iterator[NDArray[np.intp]]:
    """Yield the order of the samples in each epoch: a new one, or without ``rng`` as they come."""
    while True:
        yield np.arange(n) if rng is None else rng.permutation(n)


def _optimizer(given: Any, cost: str) -> Optimizer:
    if isinstance(given, Optimizer):
        return given
    if given is None:
        return SGD(default_rate(cost))
    if isinstance(given, int | float | np.number):
        return SGD(given)  # type: ignore[arg-type]
    raise ValueError(
        f"optimizer is {given!r}, but must be one such as xnn.SGD(3.0) or xnn.Adam(), or a rate"
    )
