"""The best accuracy on MNIST's test images, by runs of examples/record.py, three networks each.

`3x3` is one kind of network with three seeds, `kinds` one network of each kind. Finished and
partial trainings are kept in a folder and not repeated, so that the work can be spread over several
runs on one machine; the file keeps the runs that are left out. The time of a network is accurate
only if nothing else ran.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from statistics import mean

from . import gpu, harness

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "examples" / "record.py"
RUNS = {"3x3": ["3x3"], "kinds": ["3x3", "5x5", "7x7"]}
NETWORKS = 3

# Targets: for the mean of a run's networks, and for their vote.
WANTED = {"3x3": {"mean": 0.9970}, "kinds": {"vote": 0.9985}}

_NETWORK = re.compile(
    r"^(?P<name>\S+, seed \d+, epochs: \d+)$"
    r".*?"
    r"; (?P<seconds>[\d.]+) s in all; cost least in epoch (?P<epoch>\d+)$"
    r".*?"
    r"^Test accuracy (?P<accuracy>[\d.]+)%$",
    re.MULTILINE | re.DOTALL,
)
_VOTE = re.compile(
    r"^\d+ networks by majority: test accuracy (?P<vote>[\d.]+)%$"
    r"\n^All of them misclassify the same (?P<wrong>\d+) of \d+ images$",
    re.MULTILINE,
)


def add_arguments(parser) -> None:
    add = parser.add_argument
    add("--runs", nargs="+", choices=RUNS, default=list(RUNS), help="(default: both)")
    add("--device", default="cpu", help="cpu (default) or gpu")
    add("--data", metavar="PATH", help="where MNIST is, if not in the usual places")
    add("--epochs", type=int, help="of each network (default: those of the example)")
    add("--checkpoint", default="runs", metavar="DIR", help="for checkpoints (default: runs)")
    add("--no-write", action="store_true", help="print, but write no JSON")
    add("--commit", help="the commit that is run, if git is unavailable")


def main(args) -> int:
    where = gpu.place(args.device)
    if where is None:
        return 2
    if args.commit:
        where["commit"] = args.commit
    path = harness.RESULTS / harness.INTO / "record.json"
    results = json.loads(path.read_text())["results"] if path.exists() else {}
    reached = True
    for name in args.runs:
        options = ["--data", args.data] if args.data else []
        options += ["--epochs", str(args.epochs)] if args.epochs else []
        figures = trained(name, args.device, args.checkpoint, *options)
        if figures is None:
            return 2
        reached &= printed(name, figures)
        results[name] = {**where, **figures}
        if not args.no_write:  # after each run, because they take long
            harness.write("record", {"results": results})
    return 0 if reached else 1


def trained(name: str, device: str, folder: str, *options: str) -> dict | None:
    """Return the results of a run's networks, and of their vote; None if the example failed."""
    command = [sys.executable, str(EXAMPLE), "--ensemble", str(NETWORKS), "--device", device]
    command += ["--networks", *RUNS[name], "--checkpoint", folder, "--resume", *options]
    # It also runs from a checkout without installation.
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}
    lines = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=environment
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode not in (0, 1):  # 1 means that a target on validation images was missed
        return None
    return read("".join(lines))


def read(said: str) -> dict:
    """Return the figures in the example's output."""
    networks = [
        {
            "name": told["name"],
            "accuracy": _fraction(told["accuracy"]),
            "epoch": int(told["epoch"]),
            "seconds": float(told["seconds"]),
        }
        for told in _NETWORK.finditer(said)
    ]
    vote = _VOTE.search(said)
    if len(networks) != NETWORKS or vote is None:
        raise RuntimeError("examples/record.py did not print its results")
    figure = mean(network["accuracy"] for network in networks)
    told = {"vote": _fraction(vote["vote"]), "wrong": int(vote["wrong"])}
    return {"networks": networks, "mean": round(figure, 6), **told}


def printed(name: str, figures: dict) -> bool:
    """Print and return whether a run reached its targets."""
    good = True
    for figure, least in WANTED[name].items():
        met = figures[figure] >= least
        told = f"asked: at least {least:.2%}{'' if met else ', MISSED'}"
        print(f"{name}: {figure} {figures[figure]:.3%} ({told})")
        good &= met
    return good


def _fraction(percent: str) -> float:
    return round(float(percent) / 100, 4)
