"""`Core`: what a network consists of and does, for samples that have been checked.

A `Network` is this and the face that users see; whatever else is built on networks uses the core,
where samples are checked once, and then used as often as one likes.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import checks, costs, layers, saving
from .backends import DeviceError, select
from .engine import Engine, array_shapes
from .history import History
from .inference import Evaluation, Inference
from .initializers import as_given
from .layers import Dense, Layer
from .parameters import Shape
from .samples import Samples, check_samples
from .steps import Recipe, Trainer
from .training import Saved, train

_SMALL = 8 * 1024 * 1024  # bytes of samples that are worth a copy of them, to compile nothing anew
_OFTEN = 10  # times that samples of a kind will come, which have come twice
_TRAINING = "training"  # what is a checkpoint's of a file, and not the network's


class Core:
    """An engine, what runs it, and how all of it is stored.

    Engine and `inference` are new ones where the network goes to another device.
    """

    engine: Engine
    inference: Inference

    def __init__(
        self,
        described: Sequence[Layer],
        inputs: Shape,
        cost: Any,
        *,
        rng: np.random.Generator,
        device: str | None,
        dtype: Any,
        precision: str,
    ) -> None:
        kind = as_dtype(dtype)
        if precision == "tf32" and kind == np.float64:
            raise ValueError("precision is 'tf32', which is one of float32, but dtype is float64")
        self.rng, self.precision = rng, precision
        self._last: tuple[Any, Trainer | None] = None, None  # of what kind, and for the next one
        chosen = costs.get(cost, described[-1].function)
        self.engine = Engine(described, inputs, chosen, select(device, precision), kind)
        self.inference = Inference(self.engine)

    # What it does.

    def samples(self, x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> Samples:
        """Return inputs and targets, checked, see `check_samples`."""
        engine = self.engine
        function = engine.layers[-1].function
        size = engine.shapes[0], engine.outputs
        return check_samples(engine.run, x, y, size, function, engine.cost, engine.dtype, names)

    def settle(self, samples: Samples) -> Samples:
        """Return samples on the network's device, where they fit."""
        with self.engine.lock:
            return self.engine.settle(samples)

    def evaluate(self, samples: Samples) -> Evaluation:
        """Return cost and accuracy, see `Inference.evaluate`."""
        with self.engine.lock:
            return self.inference.evaluate(samples)

    def train(
        self, samples: Samples, *, recipe: Recipe, again: bool = False, **options: Any
    ) -> History:
        """Train as `xnn.training.train` does; where the device fails, go to the CPU.

        Where it is ``again`` with the same recipe, its optimizer goes on from where it ended, and
        nothing is compiled anew for samples of the same kind.
        """
        options |= {"recipe": recipe, "rng": self.rng, "write": self._write}
        try:
            trainer = self._trainer(samples, recipe) if again else None
            return train(self.inference, samples, trainer=trainer, **options)
        except DeviceError as error:
            self._last = None, None
            if error.parameters is None:  # before the first step
                raise
            self._become({**self._state_of(error.parameters), "device": "cpu"})
            what = "the network is on the CPU now, with the weights"
            told = DeviceError(f"{error}; {what} {error.parameters_of}")
            told.history = error.history
            raise told from None

    def _trainer(self, samples: Samples, recipe: Recipe) -> Trainer | None:
        """Return what trains on samples of this kind, where they have come before."""
        engine, kind, (last, trainer) = self.engine, (recipe, samples.kind()), self._last
        if kind != last:
            trainer = None
        elif trainer is None and engine.fits(samples) and samples.nbytes <= _SMALL:
            with engine.lock:
                trainer = Trainer(engine, samples, recipe, epochs=_OFTEN, again=True)
        self._last = kind, trainer
        return trainer

    def go_to(self, device: str) -> None:
        """Go to a device, unless it is there."""
        if select(device, self.precision).device != self.engine.run.device:
            with self.engine.lock:
                self._become({**self.state(), "device": device})

    # How it is stored.

    def state(self) -> dict[str, Any]:
        """Return all that the network is: what `restored` takes."""
        with self.engine.lock:
            return self._state_of(self.engine.run.download(self.engine.flat))

    def _state_of(self, flat: NDArray[Any]) -> dict[str, Any]:
        """Return the state with parameters from a flat buffer of the host."""
        engine, arrays = self.engine, {}
        for i in range(len(engine.layers)):
            for name, view in engine.views(i, flat).items():
                arrays[f"{i}.{name}"] = np.ascontiguousarray(view)
        shape = engine.shapes[0]
        description = {
            "inputs": shape[0] if len(shape) == 1 else list(shape),
            "layers": [layer.describe() for layer in engine.layers],
            "cost": engine.cost.name,
            "dtype": str(engine.dtype),
        }
        return {
            "description": description,
            "arrays": arrays,
            "device": engine.run.device,
            "precision": self.precision,
            "rng": copy.deepcopy(self.rng),
        }

    def _become(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(restored(state)))

    def _write(self, path: str | os.PathLike[str], saved: Saved) -> None:
        """Write a checkpoint: the network's file, and the training in it."""
        state = self._state_of(saved.flat)
        training = {f"{_TRAINING}.{name}": array for name, array in saved.arrays.items()}
        description = {**state["description"], _TRAINING: dict(saved.facts)}
        saving.write(path, {**state["arrays"], **training}, description)

    def saved(self, path: Path) -> Saved:
        """Return what a checkpoint of this network holds. Raises `ValueError` for any other."""
        name, engine = str(path), self.engine
        arrays, description = saving.read(path)
        facts = description.pop(_TRAINING, None)
        if not isinstance(facts, dict):
            raise ValueError(f"{name}: a network, but not one to go on training with")
        try:  # with what layers have come to say of themselves since it was written
            made = [layers.from_description(layer) for layer in description["layers"]]
            description["layers"] = [layer.describe() for layer in made]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: not a network that xnn can read: {error}") from None
        for told, value in self.state()["description"].items():
            if description.get(told) != value:
                came = f"{description.get(told)!r} there, but {value!r} here"
                raise ValueError(f"{name}: of another network: {told} is {came}")
        flat = np.zeros(engine.flat.shape, engine.dtype)
        try:
            for i in range(len(engine.layers)):
                for view_name, view in engine.views(i, flat).items():
                    full = f"{i}.{view_name}"
                    view[...] = as_given(full, arrays[full], view.shape, engine.dtype)
        except (KeyError, ValueError) as error:
            raise ValueError(f"{name}: not a network that xnn can read: {error}") from None
        named = {
            key.removeprefix(f"{_TRAINING}."): array
            for key, array in arrays.items()
            if key.startswith(f"{_TRAINING}.")
        }
        return Saved(flat, named, facts, name)


def restored(state: dict[str, Any]) -> Core:
    """Return the network whose `Core.state` that was. Raises `ValueError` where it was none's."""
    described = state["description"]
    made = [layers.from_description(layer) for layer in described["layers"]]
    inputs, made = stack([described["inputs"], *made])
    arrays, dtype = dict(state["arrays"]), as_dtype(described["dtype"])
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
    how = {name: state[name] for name in ("rng", "device", "precision")}
    core = Core(made, inputs, described["cost"], dtype=dtype, **how)
    for i, own in enumerate(checked):
        core.engine.put(i, own)
    return core


def revived(state: dict[str, Any]) -> Core:
    """Return what was pickled: on its device, or on the CPU where that is not to be had."""
    try:
        return restored(state)
    except DeviceError:
        return restored({**state, "device": "cpu"})


def read(path: str | os.PathLike[str], **how: Any) -> Core:
    """Return the network of a file, or of a checkpoint; ``how`` are rng, device and precision.

    Raises `ValueError` that names the file where it holds none, `OSError` where it cannot be read.
    """
    arrays, description = saving.read(path)
    own = {name: array for name, array in arrays.items() if not name.startswith(f"{_TRAINING}.")}
    try:
        return restored({"description": description, "arrays": own, **how})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fsdecode(path)}: not a network that xnn can read: {error}") from None


def stack(given: Any) -> tuple[Shape, list[Layer]]:
    """Return the shape of the inputs and the layers, from what `Network` was given.

    Raises `ValueError` where that is no such list.
    """
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


def as_dtype(given: Any) -> np.dtype[Any]:
    """Return float32 or float64, as given. Raises `ValueError` for any other."""
    try:
        kind: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError):
        kind = np.dtype(object)
    if given is None or kind not in (np.float32, np.float64):
        raise ValueError(f"dtype is {given!r}, but must be 'float32' or 'float64'")
    return kind
