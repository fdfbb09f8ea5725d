"""Measure peers side by side: each in its own process, in rounds, with medians."""

import datetime
import importlib.metadata
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from statistics import median
from typing import Any

from xnn.backends import compiler_command

from . import quiet

RESULTS = Path(__file__).parent / "results"
PATIENCE = 600.0  # seconds that a table may wait for a quiet machine
INTO = "."  # where in the folder of results to write


def worker(module: str, *arguments: str, seconds: float | None = None, **environment: str) -> dict:
    """Run ``python -m benchmarks.<module> <arguments>`` and return its last line, parsed.

    Raises `RuntimeError` with its errors if it fails or takes longer than ``seconds``.
    """
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=RESULTS.parent.parent,
        env={**os.environ, **environment},
        start_new_session=True,
    )
    try:
        said, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"{' '.join(command)}\ntook longer than {seconds:.0f} s") from None
    finally:
        _end(process)
    if process.returncode != 0:
        last = (errors.strip().splitlines() or ["failed"])[-1]
        if "ModuleNotFoundError" in last:
            return {"absent": last.rpartition(": ")[2]}
        raise RuntimeError(f"{' '.join(command)}\n{errors}")
    return json.loads(said.strip().splitlines()[-1])


def _end(process: subprocess.Popen) -> None:
    """End a process and its children, such as compilers, which would hold its pipes open."""
    with suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.communicate()


def rounds(module: str, task: str, peers: list[str], count: int) -> dict[str, dict]:
    """Measure all peers ``count`` times in turn; return each one's figures, seconds as medians."""
    jobs = {peer: lambda _, peer=peer: worker(module, task, peer) for peer in peers}
    *_, measured = turns(jobs, count)
    return {peer: medians(runs) for peer, runs in measured.items()}


def turns(
    jobs: dict[Any, Callable[[float], dict]],
    count: int,
    seconds: float = math.inf,
    once: Collection = (),
) -> Iterator[dict[Any, list[dict]]]:
    """Run jobs in turn, in rounds; yield after each job the figures of all rounds so far.

    A job is given the number of seconds left, and returns figures, or ``{"absent": why}``, after
    which it is not run again. Jobs in ``once`` run in the first round only; later rounds skip a job
    that took longer before than the time left. Without a time limit, jobs wait for a quiet machine,
    and are repeated if too much time was stolen, at a cost of `PATIENCE` seconds in all;
    ``"stolen"`` is the share that was stolen.
    """
    began, patience = time.monotonic(), PATIENCE if seconds == math.inf else 0.0
    measured: dict[Any, list[dict]] = {name: [] for name in jobs}
    took: dict[Any, float] = {}
    for number in range(count):
        for name, job in jobs.items():
            now = time.monotonic()
            left = seconds - (now - began)
            if number and (name in once or "absent" in measured[name][0] or took[name] > left):
                continue
            words = name if isinstance(name, str) else ": ".join(name)
            print(f"{now - began:5.0f} s  round {number + 1}/{count}  {words}", file=sys.stderr)
            while True:
                patience -= quiet.wait(patience)
                now = time.monotonic()
                with quiet.watched() as stolen:
                    figures = job(left)
                took[name] = time.monotonic() - now
                quiet_enough = "absent" in figures or (stolen.share or 0) <= quiet.SPOILT
                if quiet_enough or took[name] > patience:
                    break
                patience -= took[name]  # and retry
            if stolen.share is not None and "absent" not in figures:
                figures = {**figures, "stolen": stolen.share}
            if "absent" not in figures or number == 0:
                measured[name].append(figures)
            yield measured


def medians(runs: list[dict]) -> dict:
    """Return the figures of the last of several runs, with the median of their seconds.

    The stolen share is the maximum of all.
    """
    if "absent" in runs[-1]:
        return runs[-1]
    seconds = [run["seconds"] for run in runs]
    stolen = {"stolen": max(run["stolen"] for run in runs)} if "stolen" in runs[-1] else {}
    return {**runs[-1], "seconds": median(seconds), "runs": seconds, **stolen}


def print_table(task: str, results: dict[str, dict], wanted: dict[str, float], unit: str) -> bool:
    """Print what was measured; return whether all target ratios were reached."""
    ours = results["xnn"]["seconds"]
    width = max(22, *(len(peer) + 2 for peer in results))
    print(f"{task}\n  {'':{width}}{'µs ' + unit:>12}{'samples/s':>14}{'xnn is':>10}{'asked':>8}")
    reached = True
    for peer, figures in results.items():
        if "absent" in figures:
            print(f"  {peer:{width}}{'absent: ' + figures['absent']}")
            continue
        ratio, asked = figures["seconds"] / ours, wanted.get(peer)
        reached &= asked is None or ratio >= asked
        print(
            f"  {peer:{width}}{figures['seconds'] * 1e6:12.1f}"
            f"{figures['samples'] / figures['seconds']:14,.0f}{ratio:9.2f}×"
            f"{f'{asked}×' if asked else '':>8}"
            + (f"   accuracy {figures['accuracy']:.1%}" if "accuracy" in figures else "")
        )
    print()
    return reached


def machine(*packages: str) -> dict:
    """Describe where and with what the figures were measured; ``packages`` are included."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")
    versions = {}
    for package in ("numpy", "scipy", "torch", "jax", "scikit-learn", *packages):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    command = compiler_command()
    if command is not None:
        told = subprocess.run([*command, "--version"], capture_output=True, text=True).stdout
        versions["kernels by"] = (told.splitlines() or [command[0]])[0]
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "python": platform.python_version(),
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def write(name: str, content: dict, folder: Path | None = None, told: bool = True) -> None:
    """Write results as JSON; print where, if that is to be ``told``."""
    folder = folder or RESULTS / INTO
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    root = RESULTS.parent.parent
    if told:
        print(f"Written to {path.relative_to(root) if path.is_relative_to(root) else path}")


def _commit() -> str:
    """Return the commit, marked as dirty if more than results have been changed since."""
    paths = ":/", ":(top,exclude)benchmarks/results"
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", *paths)
    return _git("describe", "--always") + ("-dirty" if changed not in ("", "unknown") else "")


def _git(*arguments: str) -> str:
    try:
        command = ["git", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=RESULTS.parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
