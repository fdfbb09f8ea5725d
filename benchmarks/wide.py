"""Networks of many kinds on a CPU: training steps and predictions, compared with PyTorch.

They range from a tutorial's four samples to a network for colour images. PyTorch has the same
modules (by `xnn.to_torch`), the memory format, the Adam and the threads that are fastest for its
step, and predicts within ``torch.inference_mode()``, with the threads that are fastest for that.
Each peer runs in a process of its own and is warmed up first; figures are the median step time of
some epochs, and that of calls that predict all samples, after a second of such calls.
"""

import itertools
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np

from . import harness, networks
from .mlp import best_threads

PEERS = ("xnn", "PyTorch eager")
_SECONDS = 2.0  # that a peer trains for, at least


@dataclass(frozen=True)
class Kind:
    """A network and how it is trained, with Adam."""

    inputs: tuple[int, ...]
    layers: Callable[[], list]
    batch: int
    samples: int = 4096


def main(args) -> int:
    where, results = {**harness.machine(), "data": networks.data_name()}, {}
    jobs = {
        (kind, peer): lambda _, kind=kind, peer=peer: harness.worker("wide", kind, peer)
        for kind in KINDS
        for peer in PEERS
    }
    *_, measured = harness.turns(jobs, args.rounds)
    for kind in KINDS:
        results[kind] = {}
        for peer in PEERS:
            runs = measured[kind, peer]
            answers = median(run["answers"] for run in runs) if "answers" in runs[-1] else None
            results[kind][peer] = {**harness.medians(runs), "answers": answers}
        harness.print_table(kind, results[kind], {}, "a step")
    if not args.no_write:
        harness.write("wide", {**where, "results": results})
    return 0


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="how often to run each peer")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def _dense(*units: int, activation: str = "relu", last: str = "softmax", behind=()) -> list:
    import xnn

    hidden = [layer for n in units[:-1] for layer in (xnn.Dense(n, activation), *behind)]
    return [*hidden, xnn.Dense(units[-1], last)]


def _normalised(*units: int) -> list:
    import xnn

    hidden = [(xnn.Dense(n, "linear"), xnn.BatchNorm(), xnn.Activation("relu")) for n in units[:-1]]
    return [layer for layers in hidden for layer in layers] + _dense(units[-1])


def _convolutional(*filters: int, normalised: bool = False) -> list:
    import xnn

    layers: list = []
    for n in filters:
        if normalised:
            layers += [xnn.Conv2D(n, 3, padding="same", bias=False), xnn.BatchNorm()]
            layers.append(xnn.Activation("relu"))
        else:
            layers.append(xnn.Conv2D(n, 3, "relu"))
        layers.append(xnn.MaxPool2D(2))
    return [*layers, xnn.Flatten(), *_dense(10)]


def _dropped(*units: int) -> list:
    import xnn

    return _dense(*units, behind=(xnn.Dropout(0.2),))


IMAGE = (28, 28, 1)
KINDS = {
    "2-2-1, exclusive or": Kind(
        (2,), lambda: _dense(2, 1, activation="sigmoid", last="sigmoid"), 4, 4
    ),
    "20-50-50-10, batch 32": Kind((20,), lambda: _dense(50, 50, 10), 32),
    "784-30-10, batch 1": Kind((784,), lambda: _dense(30, 10, activation="sigmoid"), 1),
    "784-128-10, batch 32": Kind((784,), lambda: _dense(128, 10), 32),
    "784-128-64-10, batch 128": Kind((784,), lambda: _dense(128, 64, 10), 128),
    "784-100-100-100-100-100-10, batch 32": Kind((784,), lambda: _dense(*[100] * 5, 10), 32),
    "784-256-256-10 with batch normalisation, batch 64": Kind(
        (784,), lambda: _normalised(256, 256, 10), 64
    ),
    "784-512-512-10 with dropout, batch 128": Kind((784,), lambda: _dropped(512, 512, 10), 128),
    "784-1024-1024-10, batch 1,000": Kind((784,), lambda: _dense(1024, 1024, 10), 1000, 4000),
    "28×28, convolutions 32 and 64, batch 32": Kind(
        IMAGE, lambda: _convolutional(32, 64), 32, 2048
    ),
    "28×28, convolutions 32 and 64, batch 128": Kind(
        IMAGE, lambda: _convolutional(32, 64), 128, 2048
    ),
    "28×28, convolutions 16 and 32 with batch normalisation, batch 64": Kind(
        IMAGE, lambda: _convolutional(16, 32, normalised=True), 64, 2048
    ),
    "32×32×3, convolutions 32, 64 and 64, batch 64": Kind(
        (32, 32, 3), lambda: _convolutional(32, 64, 64), 64, 1024
    ),
}


def data(kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Return samples and labels: exclusive or for 2 inputs, MNIST's for 784, else random ones."""
    if kind.inputs == (2,):
        x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
        return x, np.array([[0], [1], [1], [0]], np.float32)
    if np.prod(kind.inputs) == 784:
        x, y = (array[: kind.samples] for array in networks.data())
        return (x.astype(np.float32) / 255).reshape(-1, *kind.inputs), y
    rng = np.random.default_rng(0)
    shape = kind.samples, *kind.inputs
    return rng.random(shape, np.float32), rng.integers(0, 10, kind.samples)


def _xnn(kind: Kind, x, y):
    import xnn

    net = xnn.Network([kind.inputs, *kind.layers()], seed=0, device="cpu")
    # Enough steps for compiling to pay off, for networks whose steps are short.
    dense = len(kind.inputs) == 1 and kind.batch <= 128
    steps = 6000 if len(x) < 100 else min(5000, 160_000 // kind.batch) if dense else 1
    epochs = max(3, steps * kind.batch // len(x))
    optimizer = xnn.Adam()

    def train() -> float:
        """Train for some epochs; return the seconds of a step."""
        history = net.fit(
            x, y, epochs=epochs, batch_size=kind.batch, optimizer=optimizer, progress=False
        )
        return median(history.seconds) / -(-len(x) // kind.batch)

    return train, lambda: net.predict(x)


def _torch(kind: Kind, x, y):
    import torch

    import xnn

    images = len(kind.inputs) == 3
    inputs = torch.from_numpy(np.ascontiguousarray(np.moveaxis(x, 3, 1)) if images else x)
    targets = torch.from_numpy(y)
    cost = torch.nn.MSELoss() if y.ndim == 2 else torch.nn.CrossEntropyLoss()

    def make(order, fused):
        modules = list(
            xnn.to_torch(xnn.Network([kind.inputs, *kind.layers()], seed=0, device="cpu"))
        )
        if isinstance(modules[-1], torch.nn.Softmax):
            modules.pop()  # which belongs to the cost
        net = torch.nn.Sequential(*modules)
        net = net.to(memory_format=order) if images else net
        held = inputs.contiguous(memory_format=order) if images else inputs
        optimizer = torch.optim.Adam(net.parameters(), fused=fused)

        def step(index) -> None:
            loss = cost(net(held[index]), targets[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        return net, held, step

    def predict():
        with torch.inference_mode():
            return net(held)

    some = torch.arange(min(kind.batch, len(x)))
    orders = (torch.contiguous_format, torch.channels_last) if images else (None,)
    times = {}
    for way in itertools.product(orders, (False, True)):
        _, _, step = make(*way)
        times[way] = best_threads(torch, lambda step=step: [step(some) for _ in range(5)])
    best = min(times, key=lambda way: times[way][0])
    net, held, step = make(*best)
    net.eval()
    _, answering = best_threads(torch, lambda: [predict() for _ in range(5)])

    def train() -> float:
        torch.set_num_threads(times[best][1])
        net.train()
        epochs, began = (
            max(1, 300 * kind.batch // len(x)) if len(x) < 100 else 1,
            time.perf_counter(),
        )
        for _ in range(epochs):
            for index in torch.randperm(len(x)).split(kind.batch):
                step(index)
        return (time.perf_counter() - began) / epochs / -(-len(x) // kind.batch)

    def answer():
        if net.training:
            torch.set_num_threads(answering)
            net.eval()
        return predict()

    return train, answer


def measure(kind: str, peer: str) -> dict:
    task = KINDS[kind]
    x, y = data(task)
    train, answer = {"xnn": _xnn, "PyTorch eager": _torch}[peer](task, x, y)
    train()
    seconds, began = [], time.perf_counter()
    while len(seconds) < 3 or time.perf_counter() - began < _SECONDS:
        seconds.append(train())
    _calls(answer)
    answers = _calls(answer)
    batch = min(task.batch, len(x))
    return {"seconds": median(seconds), "samples": batch, "answers": median(answers)}


def _calls(answer) -> list[float]:
    """Return the seconds of each call in a second, or of nine."""
    seconds: list[float] = []
    until = time.perf_counter() + 1
    while len(seconds) < 9 or time.perf_counter() < until:
        began = time.perf_counter()
        answer()
        seconds.append(time.perf_counter() - began)
    return seconds


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
