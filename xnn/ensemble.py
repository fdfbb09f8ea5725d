"""Several networks as one, and networks trained on parts of the data in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .network import Evaluation, Network


class Ensemble:
    """Networks that answer together.

    Parameters
    ----------
    networks
        At least one, all with the same number of outputs.
    vote
        ``"average"``: of their outputs; or ``"majority"``: a network has one vote for a class, and
        of classes with as many votes the one with the larger average wins.

    Raises `ValueError` for anything else.
    """

    def __init__(
        self, networks: Sequence[Network], vote: Literal["average", "majority"] = "average"
    ) -> None:
        self.networks = list(networks)
        if not self.networks or any(not isinstance(net, Network) for net in self.networks):
            raise ValueError("networks must be at least one network")
        outputs = {net.shapes[-1] for net in self.networks}
        if len(outputs) > 1:
            raise ValueError(
                f"networks have outputs of shapes {sorted(outputs)}, but must be alike"
            )
        if vote not in ("average", "majority"):
            raise ValueError(f"vote is {vote!r}, but must be 'average' or 'majority'")
        self.vote = vote

    def __repr__(self) -> str:
        return "\n".join(
            [f"Ensemble of {len(self.networks)} by {self.vote}:", *map(repr, self.networks)]
        )

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Return the networks' outputs for samples as `Network.predict` takes them, averaged."""
        total, *others = (net.predict(x) for net in self.networks)
        for outputs in others:
            total += outputs
        total /= len(self.networks)
        return total

    def classify(self, x: ArrayLike) -> NDArray[np.intp]:
        """Return for each sample the class that is voted for, shape ``(n,)``."""
        average = self.predict(x)
        if average.shape[1] == 1:
            average = np.hstack([1 - average, average])
        if self.vote == "average":
            return np.asarray(average.argmax(axis=1))
        votes = np.zeros(average.shape)
        for net in self.networks:
            votes[np.arange(len(votes)), net.classify(x)] += 1
        # An average is part of a vote, so that it decides between equals alone.
        spread = np.ptp(average) or 1.0
        return np.asarray((votes + (average - average.min()) / (2 * spread)).argmax(axis=1))

    def accuracy(self, x: ArrayLike, y: ArrayLike) -> float:
        """Return the share of samples classified as ``y`` says, labels ``(n,)`` or one-hot rows."""
        labels = np.asarray(y)
        if labels.ndim == 2 and labels.shape[1] > 1:
            labels = labels.argmax(axis=1)
        return float((self.classify(x) == labels.ravel()).mean())


def folds(n: int, k: int = 5, seed: int | None = None) -> Iterator[tuple[Any, Any]]:
    """Yield k times the indices of samples to train on and of others, each sample once among them.

    Raises `ValueError` where there are fewer samples than folds.
    """
    checks.whole("k", k, least=2)
    if n < k:
        raise ValueError(f"k is {k}, but there are {n} samples")
    parts = np.array_split(np.random.default_rng(seed).permutation(n), k)
    for i, held_out in enumerate(parts):
        yield np.concatenate(parts[:i] + parts[i + 1 :]), held_out


def cross_validate(
    make: Callable[[], Network], x: Any, y: Any, k: int = 5, seed: int | None = None, **options: Any
) -> list[tuple[Network, Evaluation]]:
    """Train k networks, each without another part of the samples, and evaluate them on that part.

    ``make`` makes a network that is not trained, ``options`` are those of `Network.fit`; an
    evaluation is on the samples that its network was trained without.

    Raises `ValueError` as `folds` and `Network.fit` do.
    """
    x, y = np.asarray(x), np.asarray(y)
    results = []
    for train, held_out in folds(len(x), k, seed):
        net = make()
        net.fit(x[train], y[train], **options)
        results.append((net, net.evaluate(x[held_out], y[held_out])))
    return results
