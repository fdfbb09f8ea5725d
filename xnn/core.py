"""`Core`: what a network consists of and does, for samples that have been checked.

A `Network` wraps it for users; whatever else is built on networks uses the core, where samples are
checked once and can then be used repeatedly.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any, Unpack

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
from .samples import Samples, check_samples, check_weights
from .steps import Recipe, Trainer
from .training import Options, Saved, train

_SMALL = 8 * 1024 * 1024  # bytes of samples that are cheaper to copy than to recompile for
_OFTEN = 10  # expected further uses of samples of a kind that has come twice
_TRAINING = "training"  # the prefix of what a checkpoint has beyond the network


class Core:
    """An engine, what runs it, and how all of it is stored.

    Moving the network to another device replaces `engine` and `inference`.
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
            raise ValueError("precision is 'tf32', which needs float32, but dtype is float64")
        self.rng, self.precision = rng, precision
        self._last: tuple[Any, Trainer | None] = None, None  # the last kind, and its trainer
        chosen = costs.get(cost, described[-1].function)
        self.engine = Engine(described, inputs, chosen, select(device, precision), kind)
        self.inference = Inference(self.engine)

    # What it does.

    def samples(self, x: Any, y: Any, names: tuple[str, str] = ("x", "y")) -> Samples:
        """Return inputs and targets, checked; see `check_samples`."""
        engine = self.engine
        function = engine.layers[-1].function
        shapes = engine.shapes[0], engine.shapes[-1]
        return check_samples(
            engine.backend, x, y, shapes, function, engine.cost, engine.dtype, names
        )

    def weighed(
        self,
        samples: Samples,
        sample_weight: Any,
        class_weight: Any = None,
        name: str = "sample_weight",
    ) -> Samples:
        """Return samples with weights, checked; see `check_weights`."""
        engine = self.engine
        how = sample_weight, class_weight, engine.outputs, engine.dtype
        return check_weights(engine.backend, samples, *how, name)

    def settle(self, samples: Samples) -> Samples:
        """Return samples on the network's device, if they fit."""
        with self.engine.lock:
            return self.engine.settle(samples)

    def evaluate(self, samples: Samples) -> Evaluation:
        """Return cost and accuracy; see `Inference.evaluate`."""
        with self.engine.lock:
            return self.inference.evaluate(samples)

    def train(
        self, samples: Samples, *, recipe: Recipe, again: bool = False, **options: Unpack[Options]
    ) -> History:
        """Train as `xnn.training.train` does; if the device fails, move to the CPU.

        With ``again`` and the same recipe, the optimizer continues from where it ended, and nothing
        is recompiled for samples of the same kind.
        """
        try:
            return train(
                self.inference,
                samples,
                recipe=recipe,
                rng=self.rng,
                write=self._write,
                trainer=self._trainer(samples, recipe) if again else None,
                **options,
            )
        except DeviceError as error:
            self._last = None, None
            if error.parameters is None:  # before the first step
                raise
            raise self.rescued(error, error.parameters, error.parameters_of) from None

    def rescued(self, error: DeviceError, flat: NDArray[Any], of: str) -> DeviceError:
        """Move to the CPU, with these parameters, when the device has failed.

        Return the error that says so; ``of`` says what parameters they are.
        """
        self._become({**self._state_of(self.engine, flat), "device": "cpu"})
        what = "the network is now on the CPU, with the weights"
        told = DeviceError(f"{error}; {what} {of}")
        told.history = error.history
        return told

    def _trainer(self, samples: Samples, recipe: Recipe) -> Trainer | None:
        """Return the `Trainer` for samples of this kind if they have come before, else None."""
        engine, kind, (last, trainer) = self.engine, (recipe, samples.kind()), self._last
        if kind != last:
            trainer = None
        elif trainer is None and engine.fits(samples) and samples.nbytes <= _SMALL:
            with engine.lock:
                trainer = Trainer(engine, samples, recipe, epochs=_OFTEN, again=True)
        self._last = kind, trainer
        return trainer

    def go_to(self, device: str) -> None:
        """Move to a device, unless already there."""
        if select(device, self.precision).device != self.engine.backend.device:
            # Not while holding this engine's lock: making another takes `engine._adding`, and a
            # fork takes that first and then the locks of the engines.
            self._become({**self.state(), "device": device})

    # How it is stored.

    def state(self) -> dict[str, Any]:
        """Return the complete state of the network, which `restored` takes."""
        engine = self.engine
        return self._state_of(engine, _flat(engine))

    def arrays(self) -> list[dict[str, NDArray[Any]]]:
        """Return copies of each layer's arrays, by name, on the host."""
        engine = self.engine
        return _arrays(engine, _flat(engine))

    def put(self, named: Mapping[str, Any], *, strict: bool = True) -> None:
        """Set all arrays, named as in `state`; if not ``strict``, those that are given.

        Raises `ValueError` if arrays do not fit or, if ``strict``, names differ, before any is set.
        """
        engine = self.engine
        on_host = {
            name: engine.backend.download(array) if isinstance(array, type(engine.flat)) else array
            for name, array in named.items()
        }
        wanted = array_shapes(engine.layers, engine.shapes[0])
        with engine.lock:
            for i, own in enumerate(_placed(wanted, on_host, engine.dtype, strict)):
                engine.put(i, own)

    def _state_of(self, engine: Engine, flat: NDArray[Any]) -> dict[str, Any]:
        """Return the state, with parameters from a flat buffer laid out as by ``engine``.

        That is the network's engine, or was until another thread moved the network.
        """
        shape = engine.shapes[0]
        description = {
            "inputs": shape[0] if len(shape) == 1 else list(shape),
            "layers": [layer.describe() for layer in engine.layers],
            "cost": engine.cost.name,
            "dtype": str(engine.dtype),
        }
        return {
            "description": description,
            "arrays": {
                f"{i}.{name}": array
                for i, own in enumerate(_arrays(engine, flat))
                for name, array in own.items()
            },
            "device": engine.backend.device,
            "precision": self.precision,
            "rng": copy.deepcopy(self.rng),
        }

    def _become(self, state: dict[str, Any]) -> None:
        vars(self).update(vars(restored(state)))

    def _write(self, path: str | os.PathLike[str], saved: Saved) -> None:
        """Write a checkpoint: a network file that also holds the training."""
        state = self._state_of(self.engine, saved.flat)
        training = {f"{_TRAINING}.{name}": array for name, array in saved.arrays.items()}
        description = {**state["description"], _TRAINING: dict(saved.facts)}
        saving.write(path, {**state["arrays"], **training}, description)

    def saved(self, path: Path) -> Saved:
        """Return the training in a checkpoint of this network. Raises `ValueError` for another."""
        name, engine = str(path), self.engine
        arrays, description = saving.read(path)
        facts = description.pop(_TRAINING, None)
        if not isinstance(facts, dict):
            raise ValueError(f"{name}: a network, but not a checkpoint to resume training from")
        try:  # older files may describe layers with fewer arguments
            made = [layers.from_description(layer) for layer in description["layers"]]
            description["layers"] = [layer.describe() for layer in made]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{name}: not a network that xnn can read: {error}") from None
        for told, value in self.state()["description"].items():
            if description.get(told) != value:
                came = f"{description.get(told)!r} there, but {value!r} here"
                raise ValueError(f"{name}: from another network: {told} is {came}")
        own, training = _parted(arrays)
        flat = np.zeros(engine.flat.shape, engine.dtype)
        try:
            placed = _placed(array_shapes(engine.layers, engine.shapes[0]), own, engine.dtype)
        except ValueError as error:
            raise ValueError(f"{name}: not a network that xnn can read: {error}") from None
        for i, values in enumerate(placed):
            for view_name, view in engine.views(i, flat).items():
                view[...] = values[view_name]
        return Saved(flat, training, facts, name)


def _flat(engine: Engine) -> NDArray[Any]:
    """Return a copy of an engine's flat buffer, on the host."""
    with engine.lock:
        flat: NDArray[Any] = engine.backend.download(engine.flat)
    return flat


def _arrays(engine: Engine, flat: NDArray[Any]) -> list[dict[str, NDArray[Any]]]:
    """Return each layer's arrays, by name, from a flat buffer on the host."""
    views = (engine.views(i, flat) for i in range(len(engine.layers)))
    return [{name: np.ascontiguousarray(view) for name, view in own.items()} for own in views]


def restored(state: dict[str, Any]) -> Core:
    """Return the network with this `Core.state`. Raises `ValueError` if the state is invalid."""
    described = state["description"]
    made = [layers.from_description(layer) for layer in described["layers"]]
    inputs, made = stack([described["inputs"], *made])
    dtype = as_dtype(described["dtype"])
    # Shapes first: allocate no memory just because a description says so.
    placed = _placed(array_shapes(made, inputs), state["arrays"], dtype)
    how = {name: state[name] for name in ("rng", "device", "precision")}
    core = Core(made, inputs, described["cost"], dtype=dtype, **how)
    for i, own in enumerate(placed):
        core.engine.put(i, own)
    return core


def _placed(
    wanted: Sequence[Mapping[str, Shape]],
    named: Mapping[str, Any],
    dtype: Any,
    strict: bool = True,
) -> list[dict[str, NDArray[Any]]]:
    """Return each layer's arrays, checked, from arrays named ``"0.weights"`` and so on.

    Raises `ValueError` if one does not fit; if ``strict``, also if one is missing or belongs to no
    layer; if not, only if none belongs to any layer.
    """
    left, placed = dict(named), []
    for i, shapes in enumerate(wanted):
        own = {}
        for name, shape in shapes.items():
            full = f"{i}.{name}"
            if full in left:
                own[name] = as_given(full, left.pop(full), shape, dtype)
            elif strict:
                raise ValueError(f"array {full} is missing")
        placed.append(own)
    if left and (strict or not any(placed)):
        raise ValueError(f"no layer has {', '.join(sorted(map(str, left)))}")
    return placed


def _parted(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[Any]]]:
    """Split a file's arrays into the network's and the training's, by name."""
    own, training, prefix = {}, {}, f"{_TRAINING}."
    for name, array in arrays.items():
        if name.startswith(prefix):
            training[name.removeprefix(prefix)] = array
        else:
            own[name] = array
    return own, training


def revived(state: dict[str, Any]) -> Core:
    """Return the network that was pickled: on its device, or on the CPU if that is unavailable."""
    try:
        return restored(state)
    except DeviceError:
        return restored({**state, "device": "cpu"})


def read(path: str | os.PathLike[str], dtype: Any = None, **how: Any) -> Core:
    """Return the network in a file or checkpoint; ``how`` holds rng, device and precision.

    ``dtype`` defaults to that of the file.
    Raises `ValueError`, naming the file, if it holds no network, `OSError` if it cannot be read.
    """
    arrays, description = saving.read(path)
    if dtype is not None:
        description["dtype"] = str(as_dtype(dtype))
    own, _ = _parted(arrays)
    try:
        return restored({"description": description, "arrays": own, **how})
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{os.fsdecode(path)}: not a network that xnn can read: {error}") from None


def stack(given: Any) -> tuple[Shape, list[Layer]]:
    """Return the input shape and the layers, from the list that `Network` was given.

    Raises `ValueError` if the list is invalid.
    """
    wanted = "a list such as [784, 30, 10]: the number of inputs, then the layers"
    if not isinstance(given, list | tuple):
        raise ValueError(f"layers is {given!r}, but must be {wanted}")
    if len(given) < 2:
        raise ValueError(f"layers has length {len(given)}, but must be {wanted}")
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
    """Return float32 or float64, as given. Raises `ValueError` for anything else."""
    try:
        kind: np.dtype[Any] = np.dtype(given)
    except (TypeError, ValueError):
        kind = np.dtype(object)
    if given is None or kind not in (np.float32, np.float64):
        raise ValueError(f"dtype is {given!r}, but must be 'float32' or 'float64'")
    return kind
