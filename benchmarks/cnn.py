"""A small convolutional network on a CPU: training steps and memory, compared with PyTorch.

Convolutions of 20 and 40 filters of 5×5, each with 2×2 max pooling, 100 hidden neurons. PyTorch
uses the memory format, the threads and the mode (eager) that are fastest for it; xnn runs both with
and without a C++ compiler. Each peer runs in a process of its own, is warmed up first, and reports
the median step time of some epochs, and the accuracy on its training images, which shows that it
did the work. Memory is what a first epoch adds to the process's peak, in a process that does
nothing else and has returned freed memory. `python -m benchmarks gpu` runs the same network on a
GPU.
"""

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np

from . import harness, networks
from .mlp import best_threads

BATCHES = {"LeNet, batch 10": 10, "LeNet, batch 64": 64, "LeNet, batch 256": 256}
RATE = 0.05
SAMPLES = 5120  # a measured round, and once before it
WANTED = {
    "LeNet, batch 10": {"PyTorch eager": 2},
    "LeNet, batch 64": {"PyTorch eager": 1},
    "LeNet, batch 256": {"PyTorch eager": 1},
}
# Target: the most memory that training may add, as a fraction of PyTorch's.
WANTED_MEMORY = 1.5


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="how often to run each peer")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def main(args) -> int:
    where, tables = {**harness.machine(), "data": networks.data_name()}, {}
    for task in BATCHES:
        jobs = {peer: lambda _, task=task, peer=peer: work(task, peer) for peer in PEERS}
        *_, measured = harness.turns(jobs, args.rounds)
        tables[task] = {peer: harness.medians(runs) for peer, runs in measured.items()}
        for peer, figures in tables[task].items():
            if "absent" not in figures:
                figures |= work(task, peer, "memory")
    reached = True
    for task, results in tables.items():
        reached &= harness.print_table(task, results, WANTED[task], "a step")
        memory = {peer: f["memory"] for peer, f in results.items() if "memory" in f}
        told = ", ".join(f"{peer} {size / 2**20:.0f} MiB" for peer, size in memory.items())
        print(f"  memory that training adds: {told}\n")
        theirs = memory.get("PyTorch eager")
        reached &= theirs is None or memory["xnn"] <= WANTED_MEMORY * theirs
    if not args.no_write:
        harness.write("cnn", {**where, "results": tables})
    return 0 if reached else 1


def work(task: str, peer: str, *what: str) -> dict:
    """Return the figures of a peer in a process of its own."""
    trainer, environment = PEERS[peer]
    return harness.worker("cnn", task, trainer, *what, **environment)


# Workers. Each takes the batch size, images and labels, and whether to look for the fastest mode.
# It returns a function that trains one round and returns the seconds per step, and one that returns
# the accuracy.
Trainer = Callable[..., tuple[Callable[[], float], Callable[[], float]]]


def train_xnn(batch, x, y, search=True):
    net = networks.xnn_network(networks.LENET, "relu")

    def epoch():
        # Three, because the number of epochs decides how steps are compiled.
        history = net.fit(x, y, epochs=3, batch_size=batch, optimizer=RATE, progress=False)
        return median(history.seconds) / (len(x) / batch)

    return epoch, lambda: net.evaluate(x, y).accuracy


def train_torch(batch, x, y, search=True):
    import torch

    images = torch.from_numpy(x.astype(np.float32) / 255).reshape(-1, 1, 28, 28)
    labels = torch.from_numpy(y).long()

    def make(memory_format):
        net = networks.torch_network(networks.LENET, "relu").to(memory_format=memory_format)
        optimizer = torch.optim.SGD(net.parameters(), lr=RATE)

        def step(index):
            inputs = images[index].contiguous(memory_format=memory_format)
            loss = torch.nn.functional.cross_entropy(net(inputs), labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return net, step

    best = torch.contiguous_format
    if search:
        times, some = {}, torch.arange(batch)
        for memory_format in (torch.contiguous_format, torch.channels_last):
            _, step = make(memory_format)
            times[memory_format] = best_threads(torch, lambda step=step: repeat(step, some))
        best = min(times, key=lambda memory_format: times[memory_format][0])
        torch.set_num_threads(times[best][1])
    net, step = make(best)

    def epoch():
        began = time.perf_counter()
        for index in torch.randperm(len(x)).split(batch):
            step(index)
        return (time.perf_counter() - began) / (len(x) / batch)

    def accuracy():
        with torch.no_grad():
            return float((net(images).argmax(1) == labels).float().mean())

    return epoch, accuracy


def repeat(step: Callable, index) -> None:
    for _ in range(max(2, 640 // len(index))):
        step(index)


TRAINERS: dict[str, Trainer] = {"xnn": train_xnn, "PyTorch eager": train_torch}
# The trainer, and its environment variables.
PEERS: dict[str, tuple[str, dict[str, str]]] = {
    "xnn": ("xnn", {}),
    "xnn, no compiler": ("xnn", {"XNN_CXX": ""}),
    "PyTorch eager": ("PyTorch eager", {}),
}


def measure(task: str, peer: str) -> dict:
    batch = BATCHES[task]
    x, y = networks.data()
    x, y = x[:SAMPLES], y[:SAMPLES]
    epoch, accuracy = TRAINERS[peer](batch, x, y)
    epoch()
    seconds = [epoch() for _ in range(3)]
    reached = accuracy()
    if networks.data_name() == "MNIST" and reached < 0.5:
        raise RuntimeError(f"{peer} does not learn: accuracy {reached:.1%}")
    return {"seconds": median(seconds), "samples": batch, "accuracy": reached}


def measure_memory(task: str, peer: str) -> dict:
    """Measure what training on two mini-batches adds to the peak of memory, in bytes; on Linux."""
    batch = BATCHES[task]
    x, y = networks.data()
    x, y = x[: 2 * batch].copy(), y[: 2 * batch].copy()
    TRAINERS[peer](1, x[:2], y[:2], search=False)[0]()  # loads all libraries
    give_back()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = memory("VmRSS")
    TRAINERS[peer](batch, x, y, search=False)[0]()
    return {"memory": memory("VmHWM") - before}


def give_back() -> None:
    """Return freed memory to the system, so that new allocations show; with glibc."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


if __name__ == "__main__":
    task, peer, *what = sys.argv[1:]
    print(json.dumps((measure_memory if what else measure)(task, peer)))
