"""Ensembles of networks, and cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .checkpoints import Checkpoints
from .inference import Evaluation
from .network import Network, chosen, generator
from .samples import classes


class Ensemble:
    """Several networks whose outputs are combined.

    Parameters
    ----------
    networks
        At least one, all with the same number of outputs.
    vote
        ``"average"``: of their outputs; or ``"majority"``: each network votes for one class, and
        the larger average output breaks ties.

    Raises
    ------
    ValueError
        For anything else.

    Examples
    --------
    >>> import numpy as np
    >>> import xnn
    >>> x = np.random.default_rng(0).random((200, 2))
    >>> y = (x[:, 0] > x[:, 1]).astype(int)
    >>> networks = [xnn.Network([2, 8, xnn.Dense(2, "softmax")], seed=seed) for seed in range(3)]
    >>> for net in networks:
    ...     history = net.fit(x, y, epochs=10, optimizer=0.5)
    >>> ensemble = xnn.Ensemble(networks, vote="majority")
    >>> ensemble.classify(x[:5]).shape
    (5,)
    >>> ensemble.accuracy(x, y) > 0.9
    True
    """

    def __init__(
        self, networks: Sequence[Network], vote: Literal["average", "majority"] = "average"
    ) -> None:
        listed = isinstance(networks, Sequence) and all(isinstance(n, Network) for n in networks)
        if not listed or not networks:
            raise ValueError("networks must be at least one network, in a list")
        self.networks = list(networks)
        outputs = {net.shapes[-1] for net in self.networks}
        if len(outputs) > 1:
            raise ValueError(
                f"networks have outputs of shapes {sorted(outputs)}, but must all have the same"
            )
        if vote not in ("average", "majority"):
            raise ValueError(f"vote is {vote!r}, but must be 'average' or 'majority'")
        self.vote = vote

    def __repr__(self) -> str:
        told = list(map(repr, self.networks))
        each = [told[0]] if len(set(told)) == 1 else told
        alike = ", each" if len(told) > len(each) else ""
        return "\n".join([f"Ensemble of {len(told)} by {self.vote}{alike}:", *each])

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the average of the networks' outputs, for samples as in `Network.predict`."""
        found: list[Any] = [net.predict(x) for net in self.networks]
        if isinstance(found[0], np.ndarray):
            return _mean(found)
        total, *others = found
        engine = self.networks[0].core.engine
        with engine.lock:
            for outputs in others:
                engine.backend.elementwise("t + o", total, t=total, o=engine.backend.adopt(outputs))
            engine.backend.elementwise("t / n", total, t=total, n=len(self.networks))
        averaged: NDArray[Any] = engine.backend.hand_out(total)
        return averaged

    def classify(self, x: ArrayLike) -> NDArray[np.intp]:
        """Return the elected class of each sample, shape ``(n,)``."""
        found: list[Any] = [net.predict(x) for net in self.networks]
        pairs = zip(self.networks, found, strict=True)
        voted = self._count([net.core.engine.backend.host(outputs) for net, outputs in pairs])
        if isinstance(found[0], np.ndarray):
            return voted
        backend = self.networks[0].core.engine.backend
        there: NDArray[np.intp] = backend.hand_out(backend.upload(voted))
        return there

    def accuracy(self, x: ArrayLike, y: ArrayLike) -> float:
        """Return the share of samples classified as in ``y``, labels ``(n,)`` or one-hot rows.

        Raises `ValueError` as `Network.evaluate` does, and for targets that are not classes.
        """
        engine = self.networks[0].core.engine
        backend, samples = engine.backend, self.networks[0].core.samples(x, y)
        if engine.outputs == 1 and np.isin(backend.host(samples.values), (0, 1)).all():
            samples = replace(samples, scoring="threshold")  # after any activation
        wanted = classes(backend, samples)
        if wanted is None:
            raise ValueError("y has numbers that are not classes: give labels (n,) or one-hot rows")
        return float((backend.host(self.classify(x)) == wanted).mean())

    def _count(self, outputs: list[NDArray[Any]]) -> NDArray[np.intp]:
        """Return the elected class of each sample, from each network's outputs ``(n, …)``."""
        n, count = len(outputs[0]), self.networks[0].core.engine.outputs
        votes = np.zeros((n, max(2, count)))
        for one in outputs:
            votes[np.arange(n), chosen(one, count)] += 1
        average = _mean(outputs).reshape(n, count)
        if count == 1:
            average = np.hstack([1 - average, average])
        if self.vote == "average" or n == 0:
            return np.asarray(average.argmax(axis=1))
        # Averages add less than one vote, so that they only break ties.
        spread = np.ptp(average) or 1.0
        return np.asarray((votes + (average - average.min()) / (2 * spread)).argmax(axis=1))


def _mean(outputs: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the mean of arrays, computed in the memory of the first."""
    total, *others = outputs
    for one in others:
        total += one
    total /= len(outputs)
    return total


def folds(n: int, k: int = 5, seed: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Return an iterator over k pairs of indices: of samples to train on, and of those held out.

    Each sample is held out once.

    Raises `ValueError` if there are fewer samples than folds.
    """
    checks.whole("k", k, least=2)
    if checks.whole("n", n, least=0) < k:
        raise ValueError(f"k is {k}, but there are {n} samples")
    parts = np.array_split(generator(seed).permutation(n), k)
    return (
        (np.concatenate(parts[:i] + parts[i + 1 :]), held_out) for i, held_out in enumerate(parts)
    )


def cross_validate(
    make: Callable[[], Network], x: Any, y: Any, k: int = 5, seed: int | None = None, **options: Any
) -> list[tuple[Network, Evaluation]]:
    """Train k networks, each with a different part of the samples held out, and evaluate on it.

    ``make`` returns an untrained network. ``options`` are those of `Network.fit`, with
    ``sample_weight`` for all samples; the evaluations do not use these weights. ``x`` and ``y`` are
    arrays on the host.

    Raises `ValueError` if ``make`` does not return a new network, for checkpoints, which belong to
    a single training, and as `folds` and `Network.fit` do. Ctrl-C raises `KeyboardInterrupt`, since
    an interrupted network cannot be compared with the others.

    Examples
    --------
    >>> import numpy as np
    >>> import xnn
    >>> x = np.random.default_rng(0).random((200, 2))
    >>> y = (x[:, 0] > x[:, 1]).astype(int)
    >>> make = lambda: xnn.Network([2, xnn.Dense(2, "softmax")], seed=0)
    >>> found = xnn.cross_validate(make, x, y, k=4, seed=0, epochs=10, optimizer=0.5)
    >>> len(found), min(evaluation.accuracy for _, evaluation in found) > 0.8
    (4, True)
    """
    x, y, weights = np.asarray(x), np.asarray(y), options.pop("sample_weight", None)
    if weights is not None and np.shape(weights) != (len(x),):
        raise ValueError(
            f"sample_weight has shape {np.shape(weights)}, but must have shape ({len(x)},)"
        )
    callbacks = options.get("callbacks", ())
    written = isinstance(callbacks, Sequence) and any(
        isinstance(callback, Checkpoints) for callback in callbacks
    )
    if written or options.get("resume") is not None:
        raise ValueError("checkpoints belong to a single training: use none in cross_validate")
    results: list[tuple[Network, Evaluation]] = []
    for train, held_out in folds(len(x), k, seed):
        net = make() if callable(make) else None
        if not isinstance(net, Network):
            raise ValueError(
                "make must be a function that returns a new network: "
                "lambda: xnn.Network([784, 30, 10])"
            )
        if any(net is other for other, _ in results):
            raise ValueError("make returned the same network again, which is already trained")
        own = None if weights is None else np.asarray(weights)[train]
        history = net.fit(x[train], y[train], sample_weight=own, **options)
        if history.interrupted:
            raise KeyboardInterrupt
        results.append((net, net.evaluate(x[held_out], y[held_out])))
    return results
