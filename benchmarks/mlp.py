"""Small fully connected networks on a CPU, compared with peers.

What is measured is training, training with one call per step, and predictions of a few digits.

Each peer trains the same network on MNIST in its fastest mode, in a process of its own; it is
warmed up first, and reports the median of some epochs and the accuracy on the training data, which
shows that it did the work. If MNIST is unavailable, random pixels are used instead.
"""

import itertools
import json
import os
import random
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from . import book, harness, networks

# What is measured: layers, activations, batch size, optimizer and its learning rate.
TRAINING = {
    "784-30-10, batch 10": ([784, 30, 10], "sigmoid", 10, "sgd", 3.0),
    "784-512-512-10, batch 256": ([784, 512, 512, 10], "relu", 256, "sgd", 0.05),
    "784-100-10, Adam, batch 200": ([784, 100, 10], "relu", 200, "adam", 0.001),
}
# Each step is a call with a mini-batch of NumPy arrays.
STEPPING = "784-30-10, Adam, batch 10, a call per step"
# How many digits are predicted in a call.
PREDICTIONS = {"784-30-10, one digit": 1, "784-30-10, 64 digits": 64}
EPOCHS = 3
WARM_UP = 2.0  # seconds of calls, in which peers may compile

# Target: the least ratio of xnn's speed to a peer's.
WANTED = {
    "784-30-10, batch 10": {
        "JAX jit+scan": 1.25,
        "PyTorch eager": 10,
        "scikit-learn": 8,
        "book's loop": 15,
    },
    "784-512-512-10, batch 256": {
        "JAX jit+scan": 0.9,
        "PyTorch eager": 0.9,
        "PyTorch compiled": 0.9,
        "scikit-learn": 0.9,
    },
    "784-100-10, Adam, batch 200": {"PyTorch eager": 1.8, "scikit-learn": 1.8},
    STEPPING: {"PyTorch eager": 1, "JAX jit": 1, "scikit-learn": 1},
    "784-30-10, one digit": {"PyTorch module call": 4, "scikit-learn": 20},
    "784-30-10, 64 digits": {"PyTorch module call": 1, "JAX jit": 1, "scikit-learn": 1},
}


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="how often to run each peer")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def main(args) -> int:
    where, tables = {**harness.machine(), "data": networks.data_name()}, {}
    for task in TRAINING:
        small = task == "784-30-10, batch 10"
        peers = [peer for peer in TRAINERS if small or peer != "book's loop"]
        tables[task] = harness.rounds("mlp", task, peers, args.rounds)
    tables[STEPPING] = harness.rounds("mlp", STEPPING, list(STEPPERS), args.rounds)
    for task in PREDICTIONS:
        tables[task] = harness.rounds("mlp", task, list(PREDICTORS), args.rounds)
    reached = True
    for task, results in tables.items():
        unit = "a call" if task in PREDICTIONS else "a step"
        reached &= harness.print_table(task, results, WANTED[task], unit)
    if not args.no_write:
        harness.write("mlp", {**where, "results": tables})
    return 0 if reached else 1


# Workers: what runs in the processes.

# Trains for a number of epochs and returns the seconds that each took.
Epochs = Callable[[int], list[float]]
# From sizes, activation, batch size, optimizer, rate, x and y to that, and to a function that
# returns the accuracy.
Trainer = Callable[..., tuple[Epochs, Callable[[], float]]]


def timed(epoch: Callable[[], object]) -> Epochs:
    def epochs(count: int) -> list[float]:
        seconds = []
        for _ in range(count):
            began = time.perf_counter()
            epoch()
            seconds.append(time.perf_counter() - began)
        return seconds

    return epochs


def train_xnn(sizes, activation, batch, optimizer, rate, x, y):
    import xnn

    net = networks.xnn_network(sizes, activation)
    chosen = xnn.Adam(rate) if optimizer == "adam" else xnn.SGD(rate)

    def epochs(count):
        options = {"batch_size": batch, "optimizer": chosen, "progress": False}
        return net.fit(x, y, epochs=count, **options).seconds

    return epochs, lambda: net.evaluate(x, y).accuracy


def train_jax(sizes, activation, batch, optimizer, rate, x, y):
    import jax
    import jax.numpy as jnp

    inputs, targets = jnp.asarray(x, jnp.float32) / 255, jax.nn.one_hot(jnp.asarray(y), 10)
    first = networks.jax_network(sizes)
    zeros = jax.tree.map(jnp.zeros_like, first)
    state = first, zeros, zeros, 0.0

    def step(state, index):
        a, t = inputs[index], targets[index]
        if optimizer == "adam":
            return networks.jax_adam_step(activation, rate, state, a, t)
        return networks.jax_step(activation, rate, state[0], a, t), *state[1:]

    def scan(unroll):
        def one(state, index):
            return step(state, index), None

        return jax.jit(lambda p, order: jax.lax.scan(one, p, order, unroll=unroll)[0])

    # Unrolled or not, whichever is faster.
    some, times = np.arange(100 * batch).reshape(100, batch) % len(x), {}
    for unroll in (1, 8):
        tried = scan(unroll)
        jax.block_until_ready(tried(state, some))
        began = time.perf_counter()
        jax.block_until_ready(tried(state, some))
        times[unroll] = time.perf_counter() - began
    run = scan(min(times, key=times.get))
    last = jax.jit(step)
    rng = np.random.default_rng(0)

    def epoch():
        nonlocal state
        order = rng.permutation(len(x))
        whole = len(x) // batch * batch
        state = run(state, order[:whole].reshape(-1, batch))
        if whole < len(x):
            state = last(state, order[whole:])
        jax.block_until_ready(state)

    def accuracy():
        outputs = networks.jax_outputs(activation, state[0], inputs)
        return float((outputs.argmax(1) == jnp.asarray(y)).mean())

    return timed(epoch), accuracy


def train_torch(sizes, activation, batch, optimizer, rate, x, y, compiled=False):
    import torch

    inputs = torch.from_numpy(x.astype(np.float32) / 255)
    labels = torch.from_numpy(y)
    targets = torch.eye(10)[labels]
    net = networks.torch_network(sizes, activation)
    ways = {"foreach": False}, {"foreach": True}, {"fused": True}

    def use(way):
        nonlocal chosen
        kind = torch.optim.Adam if optimizer == "adam" else torch.optim.SGD
        chosen = kind(net.parameters(), lr=rate, **way)

    chosen = None
    use(ways[0])

    def step(a, t):
        loss = networks.torch_cost(activation, net(a), t)
        chosen.zero_grad()
        loss.backward()
        chosen.step()

    run = torch.compile(step) if compiled else step

    def epoch():
        for index in torch.randperm(len(x)).split(batch):
            run(inputs[index], targets[index])

    def accuracy():
        with torch.no_grad():
            return float((net(inputs).argmax(1) == labels).float().mean())

    def work():
        for _ in range(200):
            run(inputs[:batch], targets[:batch])

    use(best_way(torch, ways if optimizer == "adam" and not compiled else ways[:1], use, work))
    net.load_state_dict(networks.torch_network(sizes, activation).state_dict())
    return timed(epoch), accuracy


def best_way(torch, ways, use: Callable, work: Callable) -> dict:
    """Return the fastest of some ways to step, and set the number of threads that suits it."""
    times = []
    for way in ways:
        use(way)
        seconds, threads = best_threads(torch, work)
        times.append((seconds, threads, way))
    _, threads, way = min(times, key=lambda time: time[0])
    torch.set_num_threads(threads)
    return way


def best_threads(torch, work: Callable) -> tuple[float, int]:
    """Set the number of threads that is fastest, one or all; return the seconds and the number."""
    times = {}
    for threads in (1, os.cpu_count() or 1):
        torch.set_num_threads(threads)
        work()
        began = time.perf_counter()
        work()
        times[threads] = time.perf_counter() - began
    threads = min(times, key=times.get)
    torch.set_num_threads(threads)
    return times[threads], threads


def train_sklearn(sizes, activation, batch, optimizer, rate, x, y):
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")  # that one epoch does not converge
    inputs = x.astype(np.float32) / 255
    net = MLPClassifier(
        tuple(sizes[1:-1]),
        activation="logistic" if activation == "sigmoid" else "relu",
        solver=optimizer,
        alpha=0,
        batch_size=batch,
        learning_rate_init=0.1 if activation == "sigmoid" else rate,
        momentum=0,
        nesterovs_momentum=False,
        max_iter=1,
        warm_start=True,
    )
    return timed(lambda: net.fit(inputs, y)), lambda: net.score(inputs, y)


def train_book(sizes, activation, batch, optimizer, rate, x, y):
    """Train as the book's chapter 1 does, sample by sample, with column vectors."""
    loop = book.Loop(sizes)
    loop.weights = [w.astype(np.float64) for w, _ in networks.start(sizes)]
    loop.biases = [b[:, None].astype(np.float64) for _, b in networks.start(sizes)]
    columns, targets = (x / 255)[:, :, None], np.eye(10)[y][:, :, None]
    pairs = list(zip(columns, targets, strict=True))
    random.seed(0)

    def accuracy():
        return float((loop.forward((x / 255).T).argmax(0) == y).mean())

    return timed(lambda: loop.epoch(pairs, batch, rate)), accuracy


TRAINERS: dict[str, Trainer] = {
    "xnn": train_xnn,
    "JAX jit+scan": train_jax,
    "PyTorch eager": train_torch,
    "PyTorch compiled": lambda *a: train_torch(*a, compiled=True),
    "scikit-learn": train_sklearn,
    "book's loop": train_book,
}


# From scaled images and labels to a function that makes a step on some, and to one that returns
# the accuracy.


def step_xnn(x, y):
    import xnn

    net = networks.xnn_network([784, 30, 10], "relu")
    return net.stepper(xnn.Adam(0.001)), lambda: net.evaluate(x, y).accuracy


def step_torch(x, y, compiled=False):
    import torch

    net, chosen = networks.torch_network([784, 30, 10], "relu"), None

    def use(way):
        nonlocal chosen
        chosen = torch.optim.Adam(net.parameters(), lr=0.001, **way)

    def step(a, t):
        loss = networks.torch_cost("relu", net(a), t)
        chosen.zero_grad()
        loss.backward()
        chosen.step()

    run = torch.compile(step) if compiled else step

    def call(a, t):
        run(torch.from_numpy(a), torch.from_numpy(t))

    def accuracy():
        with torch.no_grad():
            return float((net(torch.from_numpy(x)).argmax(1).numpy() == y).mean())

    ways = [{"foreach": False}, {"foreach": True}, {"fused": True}]

    def work():
        for _ in range(200):
            call(x[:10], y[:10])

    use(best_way(torch, ways[:1] if compiled else ways, use, work))
    net.load_state_dict(networks.torch_network([784, 30, 10], "relu").state_dict())
    return call, accuracy


def step_jax(x, y):
    import jax
    import jax.numpy as jnp

    first = networks.jax_network([784, 30, 10])
    zeros = [jax.tree.map(jnp.zeros_like, first) for _ in range(2)]
    state = first, *zeros, 0.0

    @jax.jit
    def step(state, a, t):
        return networks.jax_adam_step("relu", 0.001, state, a, jax.nn.one_hot(t, 10))

    def call(a, t):
        nonlocal state
        state = step(state, a, t)

    return call, lambda: float((networks.jax_outputs("relu", state[0], x).argmax(1) == y).mean())


def step_sklearn(x, y):
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier((30,), alpha=0, batch_size=10)
    net.partial_fit(x[:10], y[:10], classes=np.arange(10))
    return net.partial_fit, lambda: net.score(x, y)


STEPPERS = {
    "xnn": step_xnn,
    "JAX jit": step_jax,
    "PyTorch eager": step_torch,
    "PyTorch compiled": lambda x, y: step_torch(x, y, compiled=True),
    "scikit-learn": step_sklearn,
}


def predict_xnn(x):
    import xnn

    sizes = [784, 30, 10]
    dense = [xnn.Dense(w.shape[0], initializer=(w, b)) for w, b in networks.start(sizes)]
    net = xnn.Network([784, *dense])
    return lambda: net.predict(x)


def predict_torch(x):
    import torch

    net, tensor = networks.torch_network([784, 30, 10], "sigmoid"), torch.from_numpy(x)
    best_threads(torch, lambda: [net(tensor) for _ in range(500)])
    return lambda: net(tensor)


def predict_torch_inference(x):
    import torch

    net, tensor = networks.torch_network([784, 30, 10], "sigmoid").eval(), torch.from_numpy(x)

    def call():
        with torch.inference_mode():
            return net(tensor)

    best_threads(torch, lambda: [call() for _ in range(500)])
    return call


def predict_jax(x):
    import jax
    import jax.numpy as jnp

    state = [(jnp.asarray(w.T), jnp.asarray(b)) for w, b in networks.start([784, 30, 10])]

    @jax.jit
    def outputs(a):
        for w, b in state:
            a = jax.nn.sigmoid(a @ w + b)
        return a

    return lambda: outputs(x).block_until_ready()


def predict_sklearn(x):
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    images, labels = networks.data()
    net = MLPClassifier((30,), activation="logistic", max_iter=1)
    net.fit(images[:1000].astype(np.float32) / 255, labels[:1000])
    return lambda: net.predict_proba(x)


PREDICTORS = {
    "xnn": predict_xnn,
    "PyTorch module call": predict_torch,
    "PyTorch inference mode": predict_torch_inference,
    "JAX jit": predict_jax,
    "scikit-learn": predict_sklearn,
}


def measure_training(task: str, peer: str) -> dict:
    sizes, activation, batch, optimizer, rate = TRAINING[task]
    x, y = networks.data()
    slow = peer == "book's loop"
    if slow:
        x, y = x[:5000], y[:5000]
    epochs, accuracy = TRAINERS[peer](sizes, activation, batch, optimizer, rate, x, y)
    if not slow:
        epochs(1)  # warm-up
    seconds = epochs(1 if slow else EPOCHS)
    steps = -(-len(x) // batch)
    reached = accuracy()
    if networks.data_name() == "MNIST" and reached < 0.85:
        raise RuntimeError(f"{peer} does not learn: accuracy {reached:.1%}")
    return {"seconds": median(seconds) / steps, "samples": len(x) / steps, "accuracy": reached}


def measure_stepping(task: str, peer: str) -> dict:
    x, y = (array[:5000] for array in networks.data())
    x = (x / 255).astype(np.float32)
    step, accuracy = STEPPERS[peer](x, y)
    starts, seconds = itertools.cycle(range(0, len(x), 10)), []
    until = time.monotonic() + WARM_UP
    while time.monotonic() < until or len(seconds) < 30:
        began = time.perf_counter()
        for at in itertools.islice(starts, 100):
            step(x[at : at + 10], y[at : at + 10])
        if time.monotonic() >= until:
            seconds.append((time.perf_counter() - began) / 100)
    reached = accuracy()
    if networks.data_name() == "MNIST" and reached < 0.85:
        raise RuntimeError(f"{peer} does not learn: accuracy {reached:.1%}")
    return {"seconds": median(seconds), "samples": 10, "accuracy": reached}


def measure_prediction(task: str, peer: str) -> dict:
    digits = PREDICTIONS[task]
    x = (networks.data()[0][:digits] / 255).astype(np.float32)
    call = PREDICTORS[peer](x)
    until = time.monotonic() + WARM_UP
    while time.monotonic() < until:
        for _ in range(200):
            call()
    seconds = []
    for _ in range(30):
        began = time.perf_counter()
        for _ in range(200):
            call()
        seconds.append((time.perf_counter() - began) / 200)
    return {"seconds": median(seconds), "samples": digits}


if __name__ == "__main__":
    task, peer = sys.argv[1:]
    measures = {STEPPING: measure_stepping, **dict.fromkeys(PREDICTIONS, measure_prediction)}
    print(json.dumps(measures.get(task, measure_training)(task, peer)))
