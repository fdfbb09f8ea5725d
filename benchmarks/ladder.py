"""Chapter 6's ladder of eight networks, through `xnn.book.network3` at the book's settings.

As in the book, a rung's figure is the test accuracy in the epoch with the best accuracy on
validation images; for the last rung, that of five networks' votes. Each network trains in a process
of its own, in float32. Rungs 1 to 4 take most of an hour on a CPU. The others have five times the
images and would take many hours: on a CPU they train on the first 10,000 images, expanded, for a
few epochs, compared with the same networks in PyTorch. On a GPU all rungs are run in full. The file
keeps the rungs that a run leaves out, so that it can be made in several runs.
"""

import contextlib
import io
import json
import re
import sys
import time
from dataclasses import asdict, dataclass, replace
from functools import cache

import numpy as np

import xnn
from xnn.book import expand_mnist, network3

from . import gpu, harness

BATCH = 10
SHORT = 10_000  # images of a reduced rung, before they are expanded

# Target: by how much figures may differ, in percentage points.
POINTS = {"the book": 0.25, "PyTorch": 0.5}


@dataclass(frozen=True)
class Task:
    """A network, how it is trained, and on how many of MNIST's images."""

    maps: tuple[int, ...] = ()  # of each convolution, 5×5 with 2×2 pooling
    hidden: tuple[int, ...] = (100,)
    activation: str = "sigmoid"
    dropout: float = 0.0
    eta: float = 0.1
    lmbda: float = 0.0
    epochs: int = 60
    images: int = 50_000
    expanded: bool = False
    device: str = "cpu"
    seed: int = 1
    dtype: str = "float32"


@dataclass(frozen=True)
class Rung:
    """A task and the book's figure; ``short`` is its number of epochs when reduced."""

    name: str
    book: float
    task: Task
    short: int = 0
    networks: int = 1


RELU = Task(maps=(20, 40), activation="relu", eta=0.03, lmbda=0.1)
EXPANDED = replace(RELU, expanded=True)
DROPOUT = replace(EXPANDED, hidden=(1000, 1000), dropout=0.5, lmbda=0.0, epochs=40)

RUNGS = {
    1: Rung("one hidden layer of 100", 0.9780, Task()),
    2: Rung("a convolution before it", 0.9878, Task(maps=(20,))),
    3: Rung("two convolutions", 0.9906, Task(maps=(20, 40))),
    4: Rung("rectified linear units, λ = 0.1", 0.9923, RELU),
    5: Rung("expanded training images", 0.9937, EXPANDED, 10),
    6: Rung("a second hidden layer of 100", 0.9943, replace(EXPANDED, hidden=(100, 100)), 10),
    7: Rung("two hidden layers of 1,000 with dropout", 0.9960, DROPOUT, 5),
    8: Rung("five of those, by vote", 0.9967, DROPOUT, 5, networks=5),
}


def add_arguments(parser) -> None:
    every = list(RUNGS)
    told = "which (default: all)"
    parser.add_argument("--rungs", type=int, nargs="+", choices=every, default=every, help=told)
    parser.add_argument("--device", default="cpu", help="cpu (default), or gpu: all rungs in full")
    parser.add_argument("--epochs", type=int, help="of reduced rungs (10, 10, 5, 5)")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def main(args) -> int:
    where = gpu.place(args.device)
    if where is None:
        return 2
    path = harness.RESULTS / "ladder.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    reached = True
    for number in args.rungs:
        rung = planned(RUNGS[number], args.device, args.epochs)
        result = {**where, "name": rung.name, "book": rung.book, **asdict(rung.task)}
        result["figures"] = {peer: climbed(rung, peer) for peer in peers(rung.task)}
        reached &= printed(number, result)
        results[str(number)] = result
        if not args.no_write:  # after each rung, because they take long
            harness.write("ladder", {"results": dict(sorted(results.items()))}, path.parent)
    return 0 if reached else 1


def planned(rung: Rung, device: str, epochs: int | None) -> Rung:
    """Return a rung as it is run on a device: reduced if it would take hours on a CPU."""
    task = replace(rung.task, device=device)
    if rung.short and device == "cpu":
        task = replace(task, images=SHORT, epochs=epochs or rung.short)
    return replace(rung, task=task)


def peers(task: Task) -> list[str]:
    """Return who trains a task: a full run is compared with the book, and needs no peer."""
    return list(TRAINERS) if task.images == SHORT else ["xnn"]


def climbed(rung: Rung, peer: str) -> dict:
    """Return a peer's figures of a rung; for several networks, those of their votes."""
    runs = [trained(peer, replace(rung.task, seed=1 + i)) for i in range(rung.networks)]
    if "absent" in runs[0]:
        return runs[0]
    figures = {key: value for key, value in runs[0].items() if key != "classes"}
    if len(runs) == 1:
        return figures
    labels = xnn.datasets.mnist()[2][1]
    accuracy = float((vote([run["classes"] for run in runs]) == labels).mean())
    each = [run["accuracy"] for run in runs]
    return {"accuracy": accuracy, "each": each, "seconds": sum(run["seconds"] for run in runs)}


def vote(classes: list[str]) -> np.ndarray:
    """Return the digits that most networks predict; in a tie, the smallest."""
    said = np.array([list(map(int, digits)) for digits in classes])
    return (said[:, :, None] == np.arange(10)).sum(axis=0).argmax(axis=1)


@cache  # rung 7's network is the first of rung 8's
def trained(peer: str, task: Task) -> dict:
    print(f"{time.strftime('%H:%M:%S')}  {peer}: {task}", file=sys.stderr)
    return harness.worker("ladder", peer, json.dumps(asdict(task)))


def compared(result: dict) -> tuple[str, float | None, float | None]:
    """Return what a rung is compared with, its accuracy, and how many points xnn is above it.

    The last two are None if that is PyTorch and it is not installed.
    """
    figures = result["figures"]
    name, theirs = "the book", {"accuracy": result["book"]}
    if "PyTorch" in figures:
        name, theirs = "PyTorch", figures["PyTorch"]
    if "absent" in theirs:
        return name, None, None
    points = 100 * (figures["xnn"]["accuracy"] - theirs["accuracy"])
    return name, theirs["accuracy"], round(points, 2)


def printed(number: int, result: dict) -> bool:
    """Print a rung's figures; return whether they are within the target."""
    print(f"{number}. {result['name']}: {result['images']:,} images, epochs: {result['epochs']}")
    for peer, figures in result["figures"].items():
        if "absent" not in figures:
            print(f"  {peer}: {figures['accuracy']:.2%} in {figures['seconds']:,.0f} s")
    name, theirs, points = compared(result)
    if points is None:
        print(f"  {name}: absent ({result['figures'][name]['absent']})")
        return True
    good = abs(points) <= POINTS[name]
    asked = f"asked: at most {POINTS[name]}{'' if good else ', MISSED'}"
    print(f"  {points:+.2f} points from {name}'s {theirs:.2%} ({asked})")
    return good


# Workers: what runs in the processes.


def data(task: Task):
    """Return training, validation and test data, of which xnn takes bytes as they are."""
    (x, y), validation, test = xnn.datasets.mnist()
    x, y = x[: task.images], y[: task.images]
    if task.expanded:
        x, y = expand_mnist.expand(x, y)
        order = np.random.default_rng(0).permutation(len(x))  # once for all, like the book's file
        x, y = x[order], y[order]
    return (x, y), validation, test


def network(task: Task) -> network3.Network:
    np.random.seed(task.seed)
    function = {"sigmoid": network3.sigmoid, "relu": network3.ReLU}[task.activation]
    layers, side, before = [], 28, 1
    for maps in task.maps:
        shapes = (maps, before, 5, 5), (BATCH, before, side, side)
        layers.append(network3.ConvPoolLayer(*shapes, (2, 2), function))
        side, before = (side - 4) // 2, maps
    inputs = before * side * side
    for units in task.hidden:
        layers.append(network3.FullyConnectedLayer(inputs, units, function, task.dropout))
        inputs = units
    layers.append(network3.SoftmaxLayer(inputs, 10, task.dropout))
    return network3.Network(layers, BATCH, device=task.device, dtype=task.dtype)


def train_xnn(task: Task) -> dict:
    training, validation, test = data(task)
    net, said = network(task), io.StringIO()
    with contextlib.redirect_stdout(said):
        net.SGD(training, task.epochs, BATCH, task.eta, validation, test, task.lmbda)
    epochs = re.findall(r"^Epoch \d+: validation accuracy (.+)%$", said.getvalue(), re.M)
    best = re.findall(r"^Corresponding test accuracy of (.+)%$", said.getvalue(), re.M)
    accuracy, *validations = (round(float(percent) / 100, 4) for percent in [*best, *epochs])
    classes = net._net.classify(test[0])  # the book's test_mb_predictions
    return {"accuracy": accuracy, "validation": validations, "classes": classes}


def train_torch(task: Task) -> dict:
    """Train as `network3` does, from the same initial weights and in the same order."""
    import torch
    from torch.nn import functional

    torch.manual_seed(task.seed)
    kind = np.dtype(task.dtype).type
    training, validation, test = (
        (torch.from_numpy(x / kind(255)).reshape(-1, 1, 28, 28), torch.from_numpy(y).long())
        for x, y in data(task)
    )
    # A convolution of the book's turns its filters round.
    first = [np.flip(p, (2, 3)).copy() if p.ndim == 4 else p for p in network(task).params]
    parameters = [torch.from_numpy(p).requires_grad_() for p in first]
    weights, biases = parameters[::2], parameters[1::2]
    activation = {"sigmoid": torch.sigmoid, "relu": torch.relu}[task.activation]
    batches = len(training[0]) // BATCH
    optimizer = torch.optim.SGD(
        [{"params": weights, "weight_decay": task.lmbda / batches}, {"params": biases}], task.eta
    )

    def outputs(a, drop=False):
        for w, b in zip(weights, biases, strict=True):
            if w.ndim == 4:
                a = activation(functional.max_pool2d(functional.conv2d(a, w, b), 2))
                continue
            a = a.flatten(1)
            if task.dropout:  # the book scales when nothing is dropped, PyTorch when something is
                a = functional.dropout(a, task.dropout, drop) * (1 - task.dropout)
            a = a @ w + b
            a = a if w is weights[-1] else activation(a)
        return a

    @torch.no_grad()
    def classify(x):
        return torch.cat([outputs(part).argmax(1) for part in x.split(1000)])

    def accuracy(x, y):
        return round(float((classify(x) == y).float().mean()), 4)

    best, validations = 0.0, []
    for _ in range(task.epochs):
        for x, y in zip(*(part.split(BATCH) for part in training), strict=True):
            optimizer.zero_grad()
            functional.cross_entropy(outputs(x, drop=True), y).backward()
            optimizer.step()
        validations.append(accuracy(*validation))
        if validations[-1] == max(validations):
            best = accuracy(*test)
    return {"accuracy": best, "validation": validations, "classes": classify(test[0]).numpy()}


TRAINERS = {"xnn": train_xnn, "PyTorch": train_torch}


def measure(peer: str, task: Task) -> dict:
    began = time.perf_counter()
    figures = TRAINERS[peer](task)
    seconds = round(time.perf_counter() - began, 1)
    return {**figures, "classes": "".join(map(str, figures["classes"])), "seconds": seconds}


if __name__ == "__main__":
    peer, described = sys.argv[1:]
    print(json.dumps(measure(peer, Task(**json.loads(described)))))
