"""Training by SGD and Adam with scikit-learn's shuffles, figures and stopping rules."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split

from ..callbacks import Callback, Training
from ..network import Network
from ..samples import Samples
from ..steps import Recipe
from .inputs import some
from .solvers import AdamSolver, SGDSolver, Solver

_LEAST_RATE = 1e-6  # at which training with an adaptive rate stops


def orders(n: int, random_state: np.random.RandomState | None) -> Iterator[NDArray[np.intp]]:
    """Yield scikit-learn's order of the samples in each epoch: the previous order, shuffled.

    Without ``random_state`` the order stays as given.
    """
    order = np.arange(n)
    while True:
        if random_state is not None:
            index = np.arange(n)
            random_state.shuffle(index)
            order = order[index]
        yield order


def solver_of(estimator: Any) -> Solver:
    """Return the optimizer that the estimator's arguments describe."""
    rate, alpha = estimator.learning_rate_init, estimator.alpha
    if estimator.solver == "sgd":
        return SGDSolver(rate, alpha, estimator.momentum, estimator.nesterovs_momentum)
    return AdamSolver(rate, alpha, (estimator.beta_1, estimator.beta_2), estimator.epsilon)


def fit(
    estimator: Any, network: Network, samples: Samples, y: Any, stratify: Any, incremental: bool
) -> None:
    """Train the estimator's network; ``y`` are the targets for its validation score."""
    if not incremental or not hasattr(estimator, "_optimizer"):
        estimator._optimizer = solver_of(estimator)
    if estimator.early_stopping and incremental:
        raise ValueError("partial_fit does not support early_stopping=True")
    engine = network.core.engine
    validation = None
    if estimator.early_stopping:
        training, held = train_test_split(
            np.arange(len(samples)),
            random_state=estimator._random_state,
            test_size=estimator.validation_fraction,
            stratify=stratify,
        )
        if len(held) < 2:
            raise ValueError(
                "The validation set is too small. Increase 'validation_fraction' or the size of "
                "your dataset."
            )
        weights = None if samples.weights is None else samples.weights[held]
        validation = some(engine.backend, samples.x, held), y[held], weights
        samples = Samples(
            some(engine.backend, samples.x, training),
            None if samples.labels is None else samples.labels[training],
            None if samples.values is None else samples.values[training],
            samples.scoring,
            None if samples.weights is None else samples.weights[training],
        )
    batch_size = estimator.batch_size
    if batch_size == "auto":
        batch_size = 200
    elif batch_size > len(samples):
        warnings.warn(
            "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
            stacklevel=4,
        )
    watch = Watch(estimator, len(samples), engine.lock, validation)
    estimator.n_iter_ = 0
    history = network.core.train(
        samples,
        epochs=1 if incremental else estimator.max_iter,
        recipe=Recipe(estimator._optimizer, min(batch_size, len(samples)), by_weight=True),
        orders=orders(len(samples), estimator._random_state if estimator.shuffle else None),
        callbacks=[watch, *(estimator.callbacks or ())],
        progress=False,
        finite=False,
        again=incremental,
    )
    if history.interrupted:
        warnings.warn("Training interrupted by user.", stacklevel=4)
    elif history.stopped is None and not incremental:
        warnings.warn(
            f"Stochastic Optimizer: Maximum iterations ({estimator.max_iter}) reached and the "
            "optimization hasn't converged yet.",
            ConvergenceWarning,
            stacklevel=4,
        )


class Watch(Callback):
    """Records the estimator's figures, and decides when to reduce the rate or end training."""

    def __init__(
        self,
        estimator: Any,
        n: int,
        lock: AbstractContextManager[bool],
        validation: tuple[Any, Any, Any] | None,
    ) -> None:
        self.estimator, self.n, self.lock, self.validation = estimator, n, lock, validation

    def epoch_end(self, training: Training) -> None:
        mlp, solver = self.estimator, self.estimator._optimizer
        mlp.n_iter_ += 1
        mlp.t_ += self.n
        with self.lock:
            penalty = solver.penalty() / self.n
        mlp.loss_ = training.history.cost[-1] * mlp._cost_share() + penalty
        mlp.loss_curve_.append(mlp.loss_)
        if mlp.verbose:
            print(f"Iteration {mlp.n_iter_}, loss = {mlp.loss_:.8f}")
        if not self._better(training):
            mlp._no_improvement_count += 1
        else:
            mlp._no_improvement_count = 0
        if mlp.solver == "sgd" and mlp.learning_rate == "invscaling":
            solver.learning_rate = mlp.learning_rate_init / (mlp.t_ + 1) ** mlp.power_t
        if mlp._no_improvement_count > mlp.n_iter_no_change:
            self._stalled(training)

    def end(self, training: Training) -> None:
        if self.validation is not None:
            training.restore(self.estimator._best)

    def _better(self, training: Training) -> bool:
        """Note the best figure, and return whether this epoch counts as an improvement."""
        mlp = self.estimator
        if self.validation is None:
            enough = not mlp.loss_ > mlp.best_loss_ - mlp.tol
            if mlp.loss_ < mlp.best_loss_:
                mlp.best_loss_ = mlp.loss_
            return enough
        score = mlp._validation_score(*self.validation)
        mlp.validation_scores_.append(score)
        if mlp.verbose:
            print(f"Validation score: {score:f}")
        enough = not score < mlp.best_validation_score_ + mlp.tol
        if score > mlp.best_validation_score_:
            mlp.best_validation_score_ = score
            mlp._best = training.snapshot()
        return enough

    def _stalled(self, training: Training) -> None:
        mlp, solver = self.estimator, self.estimator._optimizer
        what = "Training loss" if self.validation is None else "Validation score"
        reason = (
            f"{what} did not improve more than tol={mlp.tol:f} "
            f"for {mlp.n_iter_no_change} consecutive epochs."
        )
        if mlp.solver != "sgd" or mlp.learning_rate != "adaptive":
            then = "Stopping."
        elif solver.learning_rate <= _LEAST_RATE:
            then = "Learning rate too small. Stopping."
        else:
            solver.learning_rate /= 5
            then = f"Setting learning rate to {solver.learning_rate:f}"
            mlp._no_improvement_count = 0
        if mlp.verbose:
            print(reason, then)
        if then.endswith("Stopping."):
            training.stop(reason)
