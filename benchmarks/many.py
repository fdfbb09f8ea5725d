"""Many small networks on a CPU, each with initial weights and shuffles of its own.

That is how the influence of chance is found, or the best of some settings: 20 to 100 networks that
have nothing to do with each other. xnn trains them one by one, in as many threads as there are
cores, or in as many processes, whichever is faster; so does JAX, which can also train all at once
(`vmap`). PyTorch trains all at once, as batched products; scikit-learn one by one, in processes.
Measured is the time from the data to the trained networks, after runs as warm-up, in which JAX and
xnn compile; it is given per training step of one network. All but scikit-learn draw shuffles by
NumPy or PyTorch.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from statistics import median

import numpy as np

from . import harness, networks
from .mlp import best_threads

BATCH = 10
RATE = 3.0
REPEATS = 3
CORES = os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """Networks of sigmoid layers with the quadratic cost, as in the book's chapter 1."""

    sizes: tuple[int, ...]
    networks: int
    samples: int
    epochs: int
    least: float
    """The accuracy on the training data that each network has to reach."""


@cache
def data(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST, as bytes; or 7×7 pixels of it, each the mean of 16; or means of its quarters.

    Where there are three outputs, only of zeros, ones and twos.
    """
    x, y = networks.data()
    x, y = (array[y < task.sizes[-1]][: task.samples] for array in (x, y))
    if task.sizes[0] == 784:
        return x, y
    side = int(task.sizes[0] ** 0.5)
    step = 28 // side
    means = x.reshape(-1, side, step, side, step).mean((2, 4)) / 255
    return means.reshape(len(x), -1).astype(np.float32), y


def as_floats(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return the same as float32, as peers take them."""
    x, y = data(task)
    return (x / 255).astype(np.float32) if x.dtype == np.uint8 else x, y


TASKS = {
    "20 times 784-30-10": Task((784, 30, 10), 20, 10_000, 2, 0.85),
    "50 times 49-30-10": Task((49, 30, 10), 50, 1_000, 20, 0.8),
    "100 times 4-10-3": Task((4, 10, 3), 100, 150, 100, 0.5),
}

# Target: the least ratio of xnn's speed to a peer's.
WANTED = {
    task: {
        "JAX jit+scan": 1,
        "JAX vmap+scan": 1,
        "PyTorch, stacked": 1,
        "scikit-learn, processes": 1,
    }
    for task in TASKS
}


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="how often to run each peer")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def main(args) -> int:
    where = {**harness.machine(), "data": networks.data_name()}
    tables, reached = {}, True
    for task in TASKS:
        tables[task] = harness.rounds("many", task, list(PEERS), args.rounds)
        reached &= harness.print_table(task, tables[task], WANTED[task], "a step")
    if not args.no_write:
        harness.write("many", {**where, "results": tables})
    return 0 if reached else 1


# Workers: what runs in the processes. Each returns a function from seeds to trained networks, and
# one from such a network to the classes that it gives the data.

Peer = tuple[Callable[[range], list], Callable[[object], np.ndarray]]


def train_xnn(task: Task) -> Peer:
    x, _ = data(task)
    return _fastest(_ways(partial(_xnn, task)), range(task.networks)), lambda net: net.classify(x)


def _ways(one: Callable[[int], object]) -> list[Callable[[range], list]]:
    """Return how to train networks one by one: in threads, or in processes, which are kept."""
    processes = ProcessPoolExecutor(CORES, multiprocessing.get_context("spawn"))

    def in_threads(seeds):
        with ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(one, seeds))

    def in_processes(seeds):
        return list(processes.map(one, seeds, chunksize=-(-len(seeds) // (4 * CORES))))

    return [in_threads, in_processes]


def _xnn(task: Task, seed: int):
    """Return a trained network."""
    import xnn

    dense = [xnn.Dense(w.shape[0], initializer=(w, b)) for w, b in networks.start(task.sizes, seed)]
    net = xnn.Network([task.sizes[0], *dense], seed=seed)
    options = {"batch_size": BATCH, "optimizer": RATE, "progress": False}
    net.fit(*data(task), epochs=task.epochs, **options)
    return net


def _fastest(ways: list[Callable[[range], list]], seeds: range) -> Callable[[range], list]:
    """Return the fastest of some ways to train."""
    times = []
    for way in ways:
        way(seeds)  # compiles
        began = time.perf_counter()
        way(seeds)
        times.append(time.perf_counter() - began)
    return ways[times.index(min(times))]


def _jax(task: Task, unroll: int):
    """Return a function from a network's parameters and its mini-batches to trained parameters."""
    import jax
    import jax.numpy as jnp

    x, y = as_floats(task)
    inputs, targets = jnp.asarray(x), jax.nn.one_hot(y, task.sizes[-1])

    def step(parameters, index):
        made = networks.jax_step("sigmoid", RATE, parameters, inputs[index], targets[index])
        return made, None

    return lambda start, order: jax.lax.scan(step, start, order, unroll=unroll)[0]


def _jax_start(task: Task, seed: int):
    """Return a network's parameters, and the mini-batches of all its epochs."""
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(task.samples) for _ in range(task.epochs)]
    start = [(w.T, b) for w, b in networks.start(task.sizes, seed)]
    return start, np.concatenate(orders).astype(np.int32).reshape(-1, BATCH)


def _jax_classes(task: Task):
    x, _ = as_floats(task)
    return lambda net: np.asarray(networks.jax_outputs("sigmoid", net, x).argmax(1))


@cache
def _jax_compiled(task: Task, unroll: int):
    import jax

    return jax.jit(_jax(task, unroll))


def _jax_one(task: Task, unroll: int, seed: int):
    """Return a trained network."""
    import jax

    return jax.tree.map(np.asarray, _jax_compiled(task, unroll)(*_jax_start(task, seed)))


def train_jax_one_by_one(task: Task) -> Peer:
    ways = [way for unroll in (1, 8) for way in _ways(partial(_jax_one, task, unroll))]
    return _fastest(ways, range(task.networks)), _jax_classes(task)


def train_jax_vmap(task: Task) -> Peer:
    import jax

    def way(unroll: int):
        run = jax.jit(jax.vmap(_jax(task, unroll)))

        def train(seeds):
            starts = [_jax_start(task, seed) for seed in seeds]
            trained = run(*jax.tree.map(lambda *arrays: np.stack(arrays), *starts))
            on_host = jax.tree.map(np.asarray, trained)
            return [jax.tree.map(lambda array, i=i: array[i], on_host) for i in range(len(seeds))]

        return train

    return _fastest([way(1), way(8)], range(task.networks)), _jax_classes(task)


def train_torch(task: Task) -> Peer:
    import torch

    inputs, labels = map(torch.from_numpy, as_floats(task))
    targets = torch.eye(task.sizes[-1])[labels]

    def train(seeds, epochs=task.epochs, samples=task.samples):
        starts = [networks.start(task.sizes, seed) for seed in seeds]
        layers = []
        for arrays in zip(*starts, strict=True):
            weights = torch.from_numpy(np.stack([w.T for w, _ in arrays]))
            biases = torch.from_numpy(np.stack([b[None, :] for _, b in arrays]))
            layers.append((weights.requires_grad_(), biases.requires_grad_()))
        chosen = torch.optim.SGD([p for layer in layers for p in layer], lr=RATE)
        for _ in range(epochs):
            orders = torch.stack([torch.randperm(task.samples) for _ in seeds])
            for index in orders[:, :samples].split(BATCH, dim=1):
                a = inputs[index]
                for weights, biases in layers:
                    a = torch.sigmoid(torch.baddbmm(biases, a, weights))
                cost = ((a - targets[index]) ** 2).sum() / 2 / BATCH
                chosen.zero_grad()
                cost.backward()
                chosen.step()
        return [[(w[i], b[i]) for w, b in layers] for i in range(len(seeds))]

    def classes(net):
        with torch.no_grad():
            a = inputs
            for weights, biases in net:
                a = torch.sigmoid(a @ weights + biases)
        return a.argmax(1).numpy()

    samples = min(task.samples, 200 * BATCH)
    epochs = max(1, 200 * BATCH // samples)
    best_threads(torch, lambda: train(range(task.networks), epochs, samples))
    return train, classes


def train_sklearn(task: Task) -> Peer:
    import warnings

    from joblib import Parallel, delayed
    from sklearn.neural_network import MLPClassifier

    (inputs, labels), hidden, epochs = as_floats(task), task.sizes[1:-1], task.epochs

    def one(seed: int):
        warnings.simplefilter("ignore")  # that it has not converged
        net = MLPClassifier(
            hidden,
            activation="logistic",
            solver="sgd",
            alpha=0,
            batch_size=BATCH,
            learning_rate_init=0.5,
            momentum=0,
            nesterovs_momentum=False,
            max_iter=epochs,
            n_iter_no_change=epochs,
            random_state=seed,
        )
        return net.fit(inputs, labels)

    pool = Parallel(n_jobs=CORES)  # its processes are kept
    return lambda seeds: pool(delayed(one)(seed) for seed in seeds), lambda net: net.predict(inputs)


PEERS = {
    "xnn": train_xnn,
    "JAX jit+scan": train_jax_one_by_one,
    "JAX vmap+scan": train_jax_vmap,
    "PyTorch, stacked": train_torch,
    "scikit-learn, processes": train_sklearn,
}


def measure(name: str, peer: str) -> dict:
    task = TASKS[name]
    train, classes = PEERS[peer](task)
    seeds = range(task.networks)
    nets = train(seeds)
    right = [float((classes(net) == data(task)[1]).mean()) for net in nets]
    if networks.data_name() == "MNIST" and min(right) < task.least:
        raise RuntimeError(f"{peer} does not learn: accuracy {min(right):.1%}")
    seconds = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        train(seeds)
        seconds.append(time.perf_counter() - began)
    steps = task.networks * task.epochs * task.samples // BATCH
    return {"seconds": median(seconds) / steps, "samples": BATCH, "accuracy": median(right)}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
