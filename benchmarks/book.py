"""Chapter 1's run through `xnn.book.network`, compared with the book's loop over single samples.

Both take the same data in the book's form and the same seeds, and count correct answers on the test
images after each epoch; each runs in a process of its own, with libraries loaded. The time is that
of an epoch, with everything that xnn does before the first spread over the 30 of the run.

Besides speed, the printed lines are compared: the loop runs all 30 epochs once unchanged and once
with its first bias one bit larger, which shows how much of a line is due to the last bit.
"""

import contextlib
import io
import json
import random
import re
import sys
import time
from itertools import pairwise

import numpy as np

from . import harness

TASK = "784-30-10, 30 epochs"
EPOCHS = 30
LOOP_EPOCHS = 2  # enough to time one
LOOP, NUDGED = "book's loop", "book's loop, a bias one bit larger"

# Target: how many times as fast as the loop.
WANTED = {"xnn.book, float64": 12, "xnn.book, float32": 18}
POINTS = 0.5  # by how much a line may differ, in points of a hundred


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="how often to run each")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def main(args) -> int:
    where = {**harness.machine(), "data": "MNIST"}
    results = harness.rounds("book", TASK, [*WANTED, LOOP], args.rounds)
    for peer in (LOOP, NUDGED):
        print(f"{peer}: all {EPOCHS} epochs", file=sys.stderr)
        results[peer] = {**results.get(peer, {}), **harness.worker("book", "lines", peer)}
    reached = True
    for peer, wanted in WANTED.items():
        ratio = results[LOOP]["seconds"] / results[peer]["seconds"]
        reached &= ratio >= wanted
        print(f"{peer}: {results[peer]['seconds']:.3f} s an epoch, {ratio:.1f}× (asked: {wanted}×)")
    print("  epoch" + "".join(f"{peer:>38}" for peer in results))
    for epoch, right in enumerate(zip(*(r["right"] for r in results.values()), strict=True)):
        print(f"{epoch:7}" + "".join(f"{n:38}" for n in right))
    ours, theirs = (results[peer]["right"] for peer in ("xnn.book, float64", LOOP))
    apart = max(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / 100
    reached &= ours[0] == theirs[0] and apart <= POINTS
    print(f"float64 and the loop: at most {apart:.2f} points apart")
    if not args.no_write:
        harness.write("book", {**where, "results": results})
    return 0 if reached else 1


# Workers: what runs in the processes.


class Loop:
    """The book's chapter 1 in the order of its arithmetic, one pair of columns after the other."""

    def __init__(self, sizes):
        self.biases = [np.random.randn(y, 1) for y in sizes[1:]]
        self.weights = [np.random.randn(y, x) for x, y in pairwise(sizes)]

    def forward(self, a):
        for b, w in zip(self.biases, self.weights, strict=True):
            a = sigmoid(np.dot(w, a) + b)
        return a

    def train(self, data, epochs, batch_size, eta, test_data):
        for epoch in range(epochs):
            self.epoch(data, batch_size, eta)
            right = sum(int(np.argmax(self.forward(x)) == y) for x, y in test_data)
            print(f"Epoch {epoch}: {right} / {len(test_data)}")

    def epoch(self, data, batch_size, eta):
        random.shuffle(data)
        for start in range(0, len(data), batch_size):
            self.step(data[start : start + batch_size], eta)

    def step(self, batch, eta):
        sum_b = [np.zeros(b.shape) for b in self.biases]
        sum_w = [np.zeros(w.shape) for w in self.weights]
        for x, y in batch:
            in_b, in_w = self.gradient(x, y)
            sum_b = [s + g for s, g in zip(sum_b, in_b, strict=True)]
            sum_w = [s + g for s, g in zip(sum_w, in_w, strict=True)]
        rate = eta / len(batch)
        self.weights = [w - rate * s for w, s in zip(self.weights, sum_w, strict=True)]
        self.biases = [b - rate * s for b, s in zip(self.biases, sum_b, strict=True)]

    def gradient(self, x, y):
        activations, zs = [x], []
        for b, w in zip(self.biases, self.weights, strict=True):
            zs.append(np.dot(w, activations[-1]) + b)
            activations.append(sigmoid(zs[-1]))
        delta = (activations[-1] - y) * slope(zs[-1])
        in_b, in_w = [delta], [np.dot(delta, activations[-2].T)]
        for layer in range(2, len(activations)):
            delta = np.dot(self.weights[-layer + 1].T, delta) * slope(zs[-layer])
            in_b.insert(0, delta)
            in_w.insert(0, np.dot(delta, activations[-layer - 1].T))
        return in_b, in_w


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def slope(z):
    return sigmoid(z) * (1 - sigmoid(z))


def measure(task: str, peer: str) -> dict:
    from xnn.book import mnist_loader, network

    training_data, _, test_data = mnist_loader.load_data_wrapper()
    network.Network([784, 1, 10]).SGD(training_data[:1], 1, 1, 3.0)  # loads SciPy
    random.seed(1)
    np.random.seed(1)
    if peer in WANTED:
        net = network.Network([784, 30, 10], dtype=peer.rpartition(" ")[2])
        train, epochs = net.SGD, EPOCHS
    else:
        loop = Loop([784, 30, 10])
        if peer == NUDGED:
            loop.biases[0][0, 0] = np.nextafter(loop.biases[0][0, 0], np.inf)
        train, epochs = loop.train, EPOCHS if task == "lines" else LOOP_EPOCHS
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        began = time.perf_counter()
        train(training_data, epochs, 10, 3.0, test_data)
        seconds = time.perf_counter() - began
    right = [int(n) for n in re.findall(r"^Epoch \d+: (\d+) / 10000$", printed.getvalue(), re.M)]
    return {"right": right} if task == "lines" else {"seconds": seconds / epochs, "right": right}


if __name__ == "__main__":
    print(json.dumps(measure(*sys.argv[1:])))
