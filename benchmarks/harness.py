"""Peers side by side: each in its own process, round by round, medians."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"


def worker(module: str, *arguments: str) -> dict:
    """Run ``python -m benchmarks.<module> <arguments>`` and return what its last line says."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=RESULTS.parent.parent)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["failed"])[-1]
        if "ModuleNotFoundError" in last:
            return {"absent": last.rpartition(": ")[2]}
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def rounds(module: str, task: str, peers: list[str], count: int) -> dict[str, dict]:
    """Measure all peers ``count`` times in turn; return each one's figures, seconds as medians."""
    measured: dict[str, list[dict]] = {peer: [] for peer in peers}
    for number in range(count):
        for peer in peers:
            if measured[peer] and "absent" in measured[peer][0]:
                continue
            print(f"\r{task}: round {number + 1}/{count}, {peer:30}", end="", file=sys.stderr)
            measured[peer].append(worker(module, task, peer))
    print(f"\r{'':60}\r", end="", file=sys.stderr)
    results = {}
    for peer, runs in measured.items():
        results[peer] = runs[-1]
        if "absent" not in runs[-1]:
            seconds = [run["seconds"] for run in runs]
            results[peer] = {**runs[-1], "seconds": median(seconds), "runs": seconds}
    return results


def machine() -> dict:
    """Describe where and with what the figures were measured."""
    model = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), "")
    versions = {}
    for package in ("numpy", "scipy", "torch", "jax", "scikit-learn", "cupy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _git("describe", "--always", "--dirty"),
        "python": platform.python_version(),
        "processor": model or platform.processor(),
        "cores": os.cpu_count(),
        "versions": versions,
    }


def write(name: str, content: dict) -> Path:
    """Write results as JSON and return where."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(content, indent=2) + "\n")
    return path


def _git(*arguments: str) -> str:
    try:
        command = ["git", *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=RESULTS.parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
