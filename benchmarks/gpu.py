"""Training on an NVIDIA GPU compared with peers, within nine minutes; writes gpu-<its name>.json.

Needs NumPy, SciPy and CuPy, and measures PyTorch and JAX if they are installed. Every peer runs in
a process of its own (see `gpu_workers`), in rounds as long as time allows. It measures a small
network and a large one, in float32 and in TF32, compared with the bare matrix products of the large
one; a convolutional one, compared with PyTorch; what a step consists of; steps per second by
mini-batch size; and the time from the start of a process to the end of its first epoch. An epoch of
the large network goes over MNIST eight times, since the 12 steps of one pass are too short to time.
"""

import json
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from . import harness, networks
from .gpu_workers import CUBLAS, Task

BARE = "bare matrix products"
PEERS = (
    "PyTorch eager",
    "PyTorch CUDA graph",
    "PyTorch CUDA graph, unrolled",
    "PyTorch reduce-overhead",
    "JAX jit+scan",
    "JAX jit+scan, unrolled",
)
# Compiles for half a minute.
COMPILED = ("PyTorch reduce-overhead",)
# Compiles for longer still, and so comes last, once.
SLOWEST = "PyTorch max-autotune"
CONVOLUTIONAL_PEERS = ("PyTorch eager", "PyTorch CUDA graph")
# The larger a step, the less it matters how it is launched.
LARGE_PEERS = tuple(peer for peer in PEERS if "unrolled" not in peer)
SWEEP_PEERS = (
    "PyTorch eager",
    "PyTorch CUDA graph, unrolled",
    "JAX jit+scan, unrolled",
)

# Targets: the least ratios of xnn's speed to a peer's, and the most seconds.
_LARGE = {BARE: 0.85, **dict.fromkeys(LARGE_PEERS, 1.0)}
WANTED = {
    "784-30-10, batch 10": {
        "PyTorch eager": 10,
        "PyTorch CUDA graph": 1.5,
        "JAX jit+scan": 1.0,
        "JAX jit+scan, unrolled": 1.0,
    },
    "784-2048-2048-10, batch 4,096": _LARGE,
    "784-2048-2048-10, batch 4,096, TF32": _LARGE,
    "LeNet, batch 64": {"PyTorch eager": 1.0},
    "LeNet, batch 1,024": {"PyTorch eager": 0.5},
    "LeNet, batch 1,024, TF32": {"PyTorch eager": 0.5},
}
WANTED_STEP = 25e-6
WANTED_START = 5.0

# Seconds that a single process may take.
LIMIT = 120
SLOWEST_LIMIT = 75


def add_arguments(parser) -> None:
    parser.add_argument("--device", default="gpu", help="gpu (default), gpu:1, or cpu to try it")
    parser.add_argument("--seconds", type=float, default=500, help="time limit for everything")
    parser.add_argument("--rounds", type=int, default=5, help="at most, as time allows")
    parser.add_argument("--alone", action="store_true", help="leave the peers out")
    parser.add_argument(
        "--quick", action="store_true", help="minimal work, as a smoke test; checks no target"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, default=harness.RESULTS)
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")
    parser.add_argument("--commit", help="the commit measured, if git is unavailable")


def main(args) -> int:
    small, *others = tasks(args.device, args.quick)
    card = worker("card", "xnn", small)
    if "refused" in card:
        print(card["refused"], file=sys.stderr)
        return 2
    where = harness.machine("cupy-cuda12x", "cupy-cuda13x", "nvidia-cublas", "nvidia-cublas-cu12")
    where |= {"gpu": card, "data": networks.data_name()}
    if args.commit:
        where["commit"] = args.commit
    peers = [] if args.alone else [p for p in PEERS if not (args.quick and p in COMPILED)]
    jobs, once = planned(small, others, peers, args.quick)
    count = 1 if args.quick else args.rounds
    # Figures of a CPU are not results.
    name = f"gpu-{slug(card['name'])}"
    write = not args.no_write and (args.device != "cpu" or args.output != harness.RESULTS)
    for measured in harness.turns(jobs, count, args.seconds, once):
        content = {**where, **collected(measured)}
        if write:  # after each job, so that there is something if the next one hangs
            harness.write(name, content, args.output, told=False)
    if write:
        harness.write(name, content, args.output)
    print(f"{card['name']}\n")
    reached = printed(content, title(small))
    return 0 if reached or args.quick else 1


def place(device: str) -> dict | None:
    """Describe the machine; if its GPU is unavailable, print why and return None."""
    where = {**harness.machine("cupy-cuda12x", "cupy-cuda13x"), "data": "MNIST"}
    if device != "cpu":
        where["gpu"] = worker("card", "xnn", tasks(device, quick=True)[0])
        if "refused" in where["gpu"]:
            print(where["gpu"]["refused"], file=sys.stderr)
            return None
    return where


def tasks(device: str, quick: bool) -> list[Task]:
    """Return the small network, the large ones, and those with convolutions."""
    small = Task([784, 30, 10], "sigmoid", 10, 3.0, 5000, device=device)
    large = Task([784, 2048, 2048, 10], "relu", 4096, 0.1, 96, device=device)
    lenet = Task(networks.LENET, "relu", 64, 0.05, 768, epochs=3, device=device)
    wide = replace(lenet, batch=1024, steps=48)
    if quick:
        small = replace(small, steps=100, epochs=2)
        large = replace(large, sizes=[784, 64, 64, 10], batch=100, steps=10, epochs=2)
        lenet, wide = (replace(task, batch=20, steps=10, epochs=2) for task in (lenet, wide))
    if device == "cpu":
        return [small, large, lenet]
    tf32 = [replace(task, precision="tf32") for task in (large, wide)]
    return [small, large, tf32[0], lenet, wide, tf32[1]]


def sweep_tasks(small: Task, quick: bool) -> list[Task]:
    """Return the small network at mini-batches of 1 to 65,536, with epochs of some steps each."""
    sizes = [1, 16, 64] if quick else [4**power for power in range(9)]
    most = 50 if quick else 2048
    return [
        replace(small, batch=batch, steps=max(16, min(most, 2**18 // batch)), epochs=3)
        for batch in sizes
    ]


def title(task: Task) -> str:
    """Return what a task is called in tables."""
    precision = {"float32": "", "tf32": ", TF32"}[task.precision]
    name = "LeNet" if task.sizes == networks.LENET else "-".join(map(str, task.sizes))
    return f"{name}, batch {task.batch:,}{precision}"


def planned(
    small: Task, others: list[Task], peers: list[str], quick: bool
) -> tuple[dict[tuple[str, str], Callable[[float], dict]], set[tuple[str, str]]]:
    """Return all jobs, by task and peer, and which of them run only once."""
    jobs: dict[tuple[str, str], Callable[[float], dict]] = {}

    def plan(name: str, peer: str, job: str, task: Task | list[Task], limit: float = LIMIT) -> None:
        who = "xnn" if peer == BARE else peer
        work = partial(worker, job, who, task)
        jobs[name, peer] = lambda left: attempt(lambda: work(seconds=min(left, limit)), left)

    # xnn's jobs first, and those that compile for long last: there may be no time for them.
    once = set()
    for task in (small, *others):
        plan(title(task), "xnn", "training", task)
    plan(title(small), CUBLAS, "training", small)
    for task in others:
        if not networks.convolutional(task.sizes):
            plan(title(task), BARE, "products", task)
    jobs["first epoch", "xnn"] = lambda left: attempt(lambda: first_epoch(small, left), left)
    for task in (small, *others):
        plan(f"calls of {title(task)}", "xnn", "calls", task)
        once.add((f"calls of {title(task)}", "xnn"))
    slow = []
    for task in (small, *others):
        theirs = CONVOLUTIONAL_PEERS if networks.convolutional(task.sizes) else LARGE_PEERS
        for peer in PEERS if task is small else theirs:
            if peer in COMPILED:
                slow.append((task, peer))
            elif peer in peers:
                plan(title(task), peer, "training", task)
    for peer in ("xnn", *SWEEP_PEERS):
        if peer in ("xnn", *peers):
            plan("sweep", peer, "sweep", sweep_tasks(small, quick))
            once.add(("sweep", peer))
    for task, peer in slow:
        if peer in peers:
            plan(title(task), peer, "training", task)
            once.add((title(task), peer))
    if peers and not quick:
        plan(title(small), SLOWEST, "training", small, SLOWEST_LIMIT)
        once.add((title(small), SLOWEST))
    return jobs, once


def worker(job: str, peer: str, task: Task | list[Task], *, seconds: float = LIMIT, **env) -> dict:
    """Run a job in a process; see `gpu_workers`."""
    described = [asdict(t) for t in task] if isinstance(task, list) else asdict(task)
    return harness.worker("gpu_workers", job, peer, json.dumps(described), seconds=seconds, **env)


def attempt(work: Callable[[], dict], left: float) -> dict:
    """Do some work if there is time left; if it fails, the figures are absent and say why."""
    if left < 1:
        return {"absent": "no time was left"}
    try:
        return work()
    except RuntimeError as error:
        lines = str(error).strip().splitlines()
        print("\n".join(lines[-12:]), file=sys.stderr)
        return {"absent": f"failed: {lines[-1][:200]}"}


def first_epoch(task: Task, left: float) -> dict:
    """Measure from the start of a process to the end of an epoch: with nothing compiled, and again.

    CuPy keeps the kernels that it has compiled, for later processes.
    """
    seconds = []
    with tempfile.TemporaryDirectory() as kernels:
        for _ in range(2):
            began = time.time()
            done = worker(
                *("first epoch", "xnn", replace(task, epochs=0)),
                seconds=min(left, LIMIT) / 2,
                CUPY_CACHE_DIR=kernels,
            )
            seconds.append(done["ended"] - began)
    return {"seconds": seconds[0], "again": seconds[1]}


def collected(measured: dict[tuple[str, str], list[dict]]) -> dict:
    """Return what has been measured in the form that is written: medians, by task and peer."""
    content: dict[str, dict] = {"results": {}, "sweep": {}, "calls": {}, "first epoch": {}}
    for (task, peer), runs in measured.items():
        if not runs:
            continue  # not yet
        if task == "sweep":
            content["sweep"][peer] = runs[-1]
        elif task == "first epoch":
            content["first epoch"] = harness.medians(runs)
        elif task.startswith("calls of "):
            content["calls"][task.removeprefix("calls of ")] = runs[-1]
        else:
            content["results"].setdefault(task, {})[peer] = harness.medians(runs)
    return content


def printed(content: dict, small: str) -> bool:
    """Print what was measured; return whether all targets were reached."""
    reached = True
    for task, results in content["results"].items():
        ours = results["xnn"]
        if "absent" in ours:
            print(f"{task}\n  xnn: {ours['absent']}\n")
            reached = False
            continue
        reached &= harness.print_table(task, results, WANTED.get(task, {}), "a step")
        if ours.get("no graphs"):
            print(f"  xnn without CUDA graphs: {ours['no graphs']}\n")
    for task, figures in content["calls"].items():
        print(f"{task}: what a step consists of")
        for line in calls_table(figures) if "calls" in figures else [figures["absent"]]:
            print(f"  {line}")
        print()
    print("Steps a second, by the size of a mini-batch")
    for line in sweep_table(content["sweep"]):
        print(f"  {line}")
    print()
    ours, began = content["results"][small]["xnn"], content["first epoch"]
    for what, seconds, asked, unit in (
        ("a step of the small network", ours.get("seconds"), WANTED_STEP, 1e-6),
        ("from the start to the end of an epoch", began.get("seconds"), WANTED_START, 1),
    ):
        good = seconds is not None and seconds < asked
        reached &= good
        shown = "absent" if seconds is None else f"{seconds / unit:.1f}"
        per = {1e-6: "µs", 1: "s"}[unit]
        print(
            f"{what}: {shown} {per} (asked: under {asked / unit:.0f}{'' if good else ', MISSED'})"
        )
    return reached


def calls_table(figures: dict) -> list[str]:
    """Return lines that list the calls of a step, and their sum."""
    lines = [f"{'µs each':>9}{'a step':>9}{'µs a step':>11}  call"]
    count = total = 0.0
    for call in figures["calls"]:
        each, often = call["seconds"] * 1e6, call["per_step"]
        lines.append(f"{each:9.2f}{often:9.3g}{each * often:11.2f}  {call['call']}")
        count, total = count + often, total + each * often
    return [*lines, f"{'':9}{count:9.3g}{total:11.2f}  in all, {figures['steps']} steps a replay"]


def sweep_table(sweep: dict) -> list[str]:
    """Return lines with steps a second of each peer."""
    there = {peer: dict(f["points"]) for peer, f in sweep.items() if "points" in f}
    lines = [f"absent: {peer} ({f['absent']})" for peer, f in sweep.items() if "absent" in f]
    if there:
        lines.append(f"{'batch':>7}" + "".join(f"{peer:>30}" for peer in there))
        for batch in sorted(set().union(*there.values())):
            speeds = [points.get(batch) for points in there.values()]
            cells = ["" if not seconds else f"{1 / seconds:,.0f}" for seconds in speeds]
            lines.append(f"{batch:7,}" + "".join(f"{cell:>30}" for cell in cells))
    return lines


def slug(name: str) -> str:
    """Return a name in a form for files: ``NVIDIA H200`` is ``nvidia-h200``."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
