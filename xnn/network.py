"""`Network`, the main class of the library."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checkpoints, checks, saving
from .backends import Array, select
from .callbacks import CallbackLike
from .core import Core, as_dtype, read, revived, stack
from .engine import Engine
from .history import History
from .inference import Evaluation
from .initializers import as_given
from .layers import Layer, shown
from .optimizers import Optimizer, as_optimizer
from .parameters import Shape
from .samples import advice, check_inputs
from .stepper import Stepper
from .steps import Recipe


class Gradients(NamedTuple):
    """The gradient of the mean cost, as lists of one array per layer; unpacks as in the book."""

    biases: list[NDArray[Any] | None]
    """Shaped like `Network.biases`; None for a layer without biases."""
    weights: list[NDArray[Any] | None]
    """Shaped like `Network.weights`; None for a layer without weights."""


class Network:
    """A feedforward neural network.

    Parameters
    ----------
    layers
        The number of inputs, or their shape ``(height, width, channels)``; then the layers. A
        number stands for the book's first layer,
        ``Dense(number, activation="sigmoid", initializer="normal")``. Its weights of standard
        deviation 1 learn poorly with many inputs or neurons; ``Dense(number)`` uses Glorot's.
    cost
        ``"quadratic"``, ``"cross_entropy"``, ``"log_likelihood"``, ``"log_loss"``, ``"poisson"``,
        ``"mean_squared_error"`` or ``"mean_absolute_error"``; None is log-likelihood after softmax,
        else quadratic.
    seed
        Determines initial weights and shuffles, and with them a whole training run. None draws a
        seed from the operating system.
    device
        ``"cpu"``, ``"gpu"``, ``"gpu:1"`` …, or ``"auto"``: a GPU if one works. None is the device
        named by the environment variable ``XNN_DEVICE``, else the CPU.
    dtype
        ``"float32"`` or ``"float64"``.
    precision
        How float32 matrix products are computed: ``"float32"``, in full precision; or ``"tf32"``,
        on tensor cores with 10 of the 23 mantissa bits; devices without these use full precision.

    Raises
    ------
    ValueError
        For invalid arguments.
    xnn.DeviceError
        If the device is unavailable.

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

    #: What runs and stores it, for code built on networks.
    core: Core

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
        inputs, described = stack(layers)
        rng = generator(seed)
        how = {"device": device, "dtype": dtype, "precision": precision}
        self.core = Core(described, inputs, cost, rng=rng, **how)
        for i, layer in enumerate(described):
            try:
                drawn = layer.draw(self._engine.shapes[i], rng)
                for name, array in drawn.items():
                    as_given(f"initializer's {name}", array, array.shape, self.dtype)
            except ValueError as error:
                kind = type(layer).__name__
                raise ValueError(f"layers[{i + 1}]: {kind}: {error}") from None
            self._engine.put(i, drawn)

    @property
    def _engine(self) -> Engine:
        return self.core.engine

    # What it is.

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, as given or as implied by numbers."""
        return self._engine.layers

    @property
    def sizes(self) -> list[int]:
        """The number of inputs, then of each layer's outputs."""
        return list(self._engine.sizes)

    @property
    def shapes(self) -> list[Shape]:
        """The shape of a sample before the first layer, then after each."""
        return list(self._engine.shapes)

    @property
    def cost(self) -> str:
        """The cost's name: ``"cross_entropy"`` after softmax is ``"log_likelihood"``."""
        return self._engine.cost.name

    @property
    def device(self) -> str:
        """``"cpu"``, or the GPU's name."""
        return self._engine.backend.device

    @property
    def dtype(self) -> Any:
        """The dtype of parameters and outputs."""
        return self._engine.dtype

    @property
    def weights(self) -> Arrays:
        """Each layer's weights; None for a layer without weights.

        Shapes are ``(units, inputs)`` for `Dense`, ``(filters, height, width, channels / groups)``
        for `Conv2D`, and ``(channels,)`` for `BatchNorm`.

        These are live views on the device: writing to one, element by element or as
        ``net.weights[0] = array``, changes the network. May be set to a sequence of such arrays.
        `state_dict` returns copies of all arrays of a layer.
        """
        return self._arrays("weights")

    @weights.setter
    def weights(self, values: Sequence[ArrayLike | None]) -> None:
        self.weights.assign(values)

    @property
    def biases(self) -> Arrays:
        """Each layer's biases, one per unit, filter or channel, live like `weights`; or None."""
        return self._arrays("biases")

    @biases.setter
    def biases(self, values: Sequence[ArrayLike | None]) -> None:
        self.biases.assign(values)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Return copies of all arrays of all layers, on the host, by name.

        Names are ``"0.weights"``, ``"0.biases"`` and so on, as in files. For `BatchNorm` they
        include the running ``"1.mean"`` and ``"1.variance"``, which `weights` and `biases` lack.
        """
        arrays: dict[str, NDArray[Any]] = self.core.state()["arrays"]
        return arrays

    def load_state_dict(self, state: Mapping[str, ArrayLike], *, strict: bool = True) -> None:
        """Set all arrays from a `state_dict` of this network or of one with the same shapes.

        The dtype may differ. With ``strict=False``, arrays that only one side has are ignored, so
        that a network can take over the layers that it shares with another.

        Raises `ValueError`, and sets nothing, if an array is missing or unknown (with
        ``strict=False``, if none is known), of another shape or not finite.
        """
        if not isinstance(state, Mapping):
            raise ValueError(f"state is {state!r}, but must be a mapping like state_dict()")
        if not checks.truth("strict", strict) and not state:
            raise ValueError("state is empty, but must have arrays of this network")
        self.core.put(state, strict=strict)

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
        validation_data: Sequence[ArrayLike] | None = None,
        callbacks: Sequence[CallbackLike] = (),
        shuffle: bool = True,
        progress: bool | None = None,
        resume: str | os.PathLike[str] | None = None,
    ) -> History:
        """Train on mini-batches and return the history.

        Parameters
        ----------
        x
            Samples ``(n, inputs)`` of any real dtype, or with more dimensions if the numbers per
            sample match. For image inputs, ``(n, height, width, channels)``, where a single channel
            may be omitted, or rows ``(n, inputs)`` in the same order. ``uint8`` is taken as pixels
            and scaled to 0…1 batch by batch. Arrays on the network's GPU, from CuPy or by DLPack,
            are used in place; host arrays too large for it are transferred as they are used.
        y
            Labels ``(n,)``, integers from 0 to outputs - 1; or rows ``(n, outputs)``, or images for
            image outputs; or, for a single output, numbers ``(n,)``. ``uint8`` is not scaled here.
            For vector outputs, targets with more dimensions are flattened to rows.
        epochs, batch_size
            The number of passes over all samples, and the number of samples per step. The last step
            of an epoch takes the remainder.
        optimizer
            For example ``xnn.SGD(3.0)``. A number is the learning rate of SGD; None is ``SGD(0.5)``
            for the quadratic cost, ``SGD(0.1)`` for all others. Nothing is kept between calls:
            averages restart, and schedules begin at epoch 0.
        sample_weight
            Weights ``(n,)`` by which the cost and the gradient of each sample are multiplied.
        class_weight
            A mapping of classes to weights, 1 for classes not named, or ``"balanced"``. Ignored in
            validation figures.
        label_smoothing
            s, at least 0 and less than 1: targets y become (1 - s) y + s / k, with k classes. One
            output stands for two classes.
        micro_batch_size
            How many samples of a mini-batch to run at a time, to save memory. Their gradients add
            up to the same step, except with `BatchNorm`, which normalises each part separately.
        validation_data
            A pair like ``(x, y)``, or ``(x, y, sample_weight)``, evaluated after each epoch.
        callbacks
            `xnn.Callback` objects, or functions called after each epoch with the running training.
        shuffle
            Whether each epoch goes through the samples in a new order.
        progress
            Whether to show a progress bar; None shows one only on a terminal or in a notebook.
        resume
            A checkpoint that `Checkpoints` wrote in a training with the same arguments, or a folder
            of them, whose newest is used; None starts a new training. On a CPU the resumed training
            ends with the same weights, bit for bit, as an uninterrupted one. ``epochs`` is the
            total, including those before the checkpoint.

        Raises
        ------
        ValueError
            For bad input, before any work.
        FloatingPointError
            If training diverges. The network then has the weights from the start of the epoch, or
            from an earlier epoch if epochs are so short that several are run as one, or
            `EarlyStopping`'s best. The error's ``history`` holds the epochs until then.
        xnn.DeviceError
            If a GPU fails. The network is then on the CPU, with the weights that the message
            states: of the last epoch, or of one that ended some ten seconds earlier. The error's
            ``history`` holds the epochs until then.

        Notes
        -----
        Ctrl-C ends training: the network keeps its current weights, or gets `EarlyStopping`'s best;
        the history keeps its epochs. Other threads may use the network during training; they see
        its state between groups of steps.

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
        engine = self._engine
        samples = self.core.weighed(self.core.samples(x, y), sample_weight, class_weight)
        for said in advice(engine.backend, samples, engine.layers[-1].function):
            warnings.warn(said, stacklevel=2)
        checks.share("label_smoothing", label_smoothing)
        if label_smoothing and samples.scoring is None:
            raise ValueError("label_smoothing is given, but the targets are not classes")
        recipe = Recipe(
            as_optimizer(default_rate(self.cost) if optimizer is None else optimizer),
            checks.whole("batch_size", batch_size),
            None
            if micro_batch_size is None
            else checks.whole("micro_batch_size", micro_batch_size),
            float(label_smoothing),
        )
        validation = None
        if validation_data is not None:
            if not isinstance(validation_data, tuple | list) or len(validation_data) not in (2, 3):
                raise ValueError(
                    "validation_data must be a pair (x, y), or (x, y, sample_weight), "
                    f"but is {_kind(validation_data)}"
                )
            x, y, *weights = validation_data
            validation = self.core.samples(x, y, ("validation x", "validation y"))
            if weights:
                name = "validation sample_weight"
                validation = self.core.weighed(validation, weights[0], name=name)
        shuffle = checks.truth("shuffle", shuffle)
        if progress is not None:
            checks.truth("progress", progress)
        source = None if resume is None else checkpoints.find(resume)
        return self.core.train(
            samples,
            recipe=recipe,
            epochs=checks.whole("epochs", epochs),
            orders=_orders(len(samples), self.core.rng if shuffle else None),
            shuffled=shuffle,
            validation=validation,
            callbacks=callbacks,
            progress=progress,
            resume=None if source is None else lambda: self.core.saved(source),
        )

    def stepper(
        self, optimizer: Optimizer | float | None = None, *, label_smoothing: float = 0.0
    ) -> Stepper:
        """Return a function that makes one training step on the samples it is called with.

        It is for mini-batches that come one at a time: from a stream, a simulation or a loader of
        one's own, as in online and reinforcement learning. Arguments are as in `fit`, but a
        learning rate's schedule counts steps instead of epochs, and the book's ``lmbda``, which
        depends on the number of samples, is refused.

        Raises `ValueError` if they are out of range.

        Examples
        --------
        >>> import numpy as np
        >>> import xnn
        >>> rng = np.random.default_rng(0)
        >>> net = xnn.Network([2, 8, xnn.Dense(2, "softmax")], seed=0)
        >>> step = net.stepper(xnn.Adam(0.01))
        >>> for _ in range(300):
        ...     x = rng.random((32, 2))
        ...     cost, accuracy = step(x, (x[:, 0] > x[:, 1]).astype(int))
        >>> accuracy > 0.9
        True
        """
        checks.share("label_smoothing", label_smoothing)
        chosen = as_optimizer(default_rate(self.cost) if optimizer is None else optimizer)
        return Stepper(self.core, chosen, float(label_smoothing))

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the outputs ``(n, outputs)`` for samples as `fit` takes them.

        As there, ``uint8`` is taken as pixels and scaled to 0…1.

        For an array on the network's GPU, from CuPy or any library that supports DLPack, the
        outputs are a CuPy array there.

        Raises `ValueError` if ``x`` does not fit or is not finite.

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
        inference = self.core.inference
        if type(x) is np.ndarray:
            outputs = inference.answer(x)
            if outputs is not None:
                return outputs
        wanted = self._engine.backend, x, self._engine.shapes[0], self.dtype
        rows = check_inputs(*wanted, finite=False)
        found = inference.predict(rows, finite=True)
        if found is None:  # not finite: the full check says where
            found = inference.predict(check_inputs(*wanted))
        if type(x) is np.ndarray:
            inference.note(x)
        result: NDArray[Any] = found
        return result.reshape(len(rows), *self._engine.shapes[-1])

    def classify(self, x: ArrayLike) -> NDArray[np.intp]:
        """Return for each sample the class with the largest output, shape ``(n,)``.

        With a single output, class 1 is an output above ½. Image outputs are numbered row by row,
        pixel by pixel, channel by channel, as in `evaluate`.
        """
        classes: NDArray[np.intp] = chosen(self.predict(x), self._engine.outputs)
        return classes

    def evaluate(
        self, x: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> Evaluation:
        """Return mean cost and accuracy on samples and targets as `fit` takes them.

        ``sample_weight`` ``(n,)`` weights the samples in these means.
        Raises `ValueError` if arguments do not fit or are not finite.
        """
        return self.core.evaluate(self.core.weighed(self.core.samples(x, y), sample_weight))

    def backprop(self, x: ArrayLike, y: ArrayLike) -> Gradients:
        """Return the gradient of the mean cost over samples and targets as `fit` takes them.

        Raises `ValueError` if they do not fit or are not finite.
        """
        samples = self.core.samples(x, y)
        with self._engine.lock:
            found = self.core.inference.gradients(samples)
        return Gradients(
            [arrays.get("biases") for arrays in found], [arrays.get("weights") for arrays in found]
        )

    def input_gradient(self, x: ArrayLike, y: ArrayLike) -> NDArray[Any]:
        """Return the gradient of each sample's cost with respect to its inputs, shaped like ``x``.

        It shows which inputs matter (saliency maps, Simonyan et al. 2014, arXiv 1312.6034), and how
        to change them to mislead the network (adversarial examples, Goodfellow et al. 2015, arXiv
        1412.6572). Samples and targets are as `fit` takes them; for ``uint8`` pixels it is the
        gradient with respect to the scaled ones, from 0 to 1.

        Raises `ValueError` if they do not fit or are not finite.

        Examples
        --------
        >>> import numpy as np
        >>> import xnn
        >>> net = xnn.Network([4, 3, 2], seed=0)
        >>> x, y = np.random.default_rng(0).random((5, 4)), np.array([0, 1, 1, 0, 1])
        >>> gradient = net.input_gradient(x, y)
        >>> gradient.shape
        (5, 4)
        >>> bool(net.evaluate(x - 0.1 * gradient, y).cost < net.evaluate(x, y).cost)
        True
        """
        samples = self.core.samples(x, y)
        with self._engine.lock:
            found: NDArray[Any] = self.core.inference.input_gradients(samples)
        return found.reshape(x.shape if hasattr(x, "shape") else np.shape(x))

    # Where it goes.

    def to(self, device: str) -> Network:
        """Move the network to a device and return it.

        Arrays taken from `weights` or `biases` earlier stay on the old device, detached.

        Raises `ValueError` for an unknown name, `xnn.DeviceError` if the device is unavailable.
        """
        self.core.go_to(device)
        return self

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the network to a safetensors file: parameters, and its description in the header.

        The write is atomic, even if the process is killed. Raises `OSError` if the file cannot be
        written, `ValueError` if weights are not finite; an existing file is then left as it was.
        """
        state = self.core.state()
        for name, array in state["arrays"].items():
            if not np.isfinite(array).all():  # such a file would be refused
                raise ValueError(f"{name} hold NaN or infinity; set finite values first")
        saving.write(path, state["arrays"], state["description"])

    def export_onnx(self, path: str | os.PathLike[str]) -> None:
        """Write the network, for prediction, to an ONNX file, in float32 and with opset 7.

        The model takes ``inputs`` ``(n, …)`` and returns ``outputs`` ``(n, …)``, in the network's
        shapes; divide ``uint8`` pixels by 255 beforehand. Layers that act only in training are left
        out.

        Raises `ImportError` if onnx is not installed, `OSError` if the file cannot be written; an
        existing file is then left as it was.
        """
        from . import onnx

        onnx.write(path, self.layers, self.shapes, self.core.arrays())

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "core": self.core.state()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore from a pickle: on its device, or on the CPU if that is unavailable."""
        vars(self).update({**state, "core": revived(state["core"])})

    def _arrays(self, name: str) -> Arrays:
        engine = self._engine
        layers = range(len(engine.layers))
        return Arrays(name, engine, [engine.views(i, engine.flat).get(name) for i in layers])


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
                    engine.backend.hand_out(view)
        return found

    def __setitem__(self, i: Any, values: Any) -> None:
        index = range(len(self))[i]
        if isinstance(index, range):
            name = f"{self._name}[{i.start or ''}:{i.stop or ''}]" if i.step is None else self._name
            self._write(list(zip(index, _as_many(name, values, len(index)), strict=True)))
        else:
            self._write([(index, values)])

    def __add__(self, other: Sequence[Any]) -> list[Any]:
        return [*self, *other]

    def __radd__(self, other: Sequence[Any]) -> list[Any]:
        return [*other, *self]

    def __repr__(self) -> str:
        return repr(self._views)

    def columns(self) -> Arrays:
        """Return the same one-dimensional arrays as columns ``(units, 1)``."""
        views = [None if view is None else view[:, None] for view in self._views]
        return Arrays(self._name, self._engine, views)

    def assign(self, values: Sequence[ArrayLike | None]) -> None:
        """Write one array per layer; all are checked before the first is written.

        Raises `ValueError` if their number, shapes or values do not fit.
        """
        self._write(list(enumerate(_as_many(self._name, values, len(self)))))

    def _write(self, values: list[tuple[int, Any]]) -> None:
        engine, checked = self._engine, []
        for i, value in values:
            view, name = self._views[i], f"{self._name}[{i}]"
            if view is None and value is not None:
                raise ValueError(f"{name} is given, but that layer has none")
            if view is not None:
                host = engine.backend.download(value) if isinstance(value, type(view)) else value
                checked.append((view, as_given(name, host, view.shape, engine.dtype)))
        with engine.lock:
            for view, array in checked:
                engine.backend.copy(engine.backend.upload(array), view)


def _as_many(name: str, values: Any, count: int) -> list[Any]:
    """Return values as a list of ``count``, one per layer, or raise `ValueError`."""
    try:
        listed = list(values)
    except TypeError:
        raise ValueError(f"{name} is {values!r}, but must be arrays, one per layer") from None
    if len(listed) != count:
        raise ValueError(
            f"{name} has length {len(listed)}, but must have length {count}: one array per layer"
        )
    return listed


def _kind(value: Any) -> str:
    """Return a description of a value's type and, for tuples and lists, its length."""
    of = f" of {len(value)}" if isinstance(value, tuple | list) else ""
    return f"a {type(value).__name__}{of}"


def chosen(outputs: Array, count: int) -> Any:
    """Return the class of each sample, ``(n,)``, from its ``count`` outputs ``(n, …)``."""
    rows = outputs.reshape(len(outputs), count)
    return rows.argmax(axis=1) if count > 1 else (rows[:, 0] > 0.5).astype(np.intp)


def load(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    dtype: Any = None,
    precision: str = "float32",
    seed: int | None = None,
) -> Network:
    """Return the network in a file that `Network.save` wrote, or in a checkpoint.

    ``device`` and ``precision`` are as for `Network`; ``dtype`` is ``"float32"``, ``"float64"``, or
    None for that of the file; ``seed`` determines later shuffles.

    Raises `ValueError`, naming the file, if it holds no network, `OSError` if it cannot be read.
    """
    select(device, precision)
    if dtype is not None:
        as_dtype(dtype)
    how = {"device": device, "dtype": dtype, "precision": precision}
    return with_core(read(path, rng=generator(seed), **how))


def with_core(core: Core) -> Network:
    """Return the network that has this core."""
    network = Network.__new__(Network)
    network.core = core
    return network


def generator(seed: Any) -> np.random.Generator:
    """Return the random generator for a network's ``seed``."""
    return np.random.default_rng(None if seed is None else checks.whole("seed", seed, least=0))


def default_rate(cost: str) -> float:
    """Return SGD's default learning rate."""
    return 0.5 if cost == "quadratic" else 0.1  # its gradients are smaller


def _orders(n: int, rng: np.random.Generator | None) -> Iterator[NDArray[np.intp]]:
    """Yield the order of the samples in each epoch: random, or as given without ``rng``."""
    while True:
        yield np.arange(n) if rng is None else rng.permutation(n)
