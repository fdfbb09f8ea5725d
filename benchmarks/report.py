"""Write the tables of README.md and of pages in docs/ from benchmarks/results/."""

import json
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from . import harness, ladder

ROOT = Path(__file__).parent.parent
DOCS = ("benchmarks", "from-the-book", "estimators")
PAGES = [ROOT / "README.md", *(ROOT / "docs" / f"{page}.md" for page in DOCS)]


def add_arguments(parser) -> None:
    pass


def main(args) -> int:
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def fill(text: str) -> str:
    """Return a page's text with each of its tables regenerated between its two markers."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name}: made by python -m benchmarks report -->", f"<!-- /{name} -->"
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        text = f"{before}{begin}\n{table()}{end}{after}"
    return text


def elsewhere() -> str:
    """Return the summaries of other machines, whose results are in subfolders."""
    folders = sorted(path.parent for path in harness.RESULTS.glob("*/mlp.json"))
    return "\n".join(map(summary, folders)) or "Not measured yet.\n"


def summary(folder: Path | None = None) -> str:
    """Return the ratios to each peer's fastest mode, and in a sentence those of `wide`."""
    peers = ("JAX", "PyTorch", "scikit-learn", "book's loop")
    heads = ("JAX", "PyTorch", "scikit-learn", "plain NumPy")
    lines = [f"| | µs, xnn | {' | '.join(heads)} |", "|---|---:|" + "---:|" * len(heads)]
    names = ("mlp", "cnn", "wide", *(["many"] if _is_there("many", folder) else []))
    measured = {name: _read(name, folder) for name in names}
    tables = [measured[name]["results"] for name in names if name != "wide"]
    for task, results in [row for table in tables for row in table.items()]:
        ours = results["xnn"]["seconds"]
        cells = [task, f"{ours * 1e6:,.1f}"]
        for peer in peers:
            best = [f["seconds"] for name, f in results.items() if name.startswith(peer)]
            cells.append(f"{min(best) / ours:.1f}" if best else "")
        lines.append(f"| {' | '.join(cells)} |")
    ratios = {
        name: sorted(
            results["PyTorch eager"][name] / results["xnn"][name]
            for results in measured["wide"]["results"].values()
        )
        for name in ("seconds", "answers")
    }
    told = [
        f"{min(r):.2g} to {max(r):.2g} times as fast, median {median(r):.2g}"
        for r in ratios.values()
    ]
    said = (
        f"{len(ratios['seconds'])} networks of many kinds, compared with PyTorch eager: "
        f"a training step {told[0]}; predicting all samples in one call {told[1]}."
    )
    others = [f"`{name}` at {measured[name]['commit']}" for name in names if name != "mlp"]
    where = f"{_where(measured['mlp'])} (This is for `mlp`; {', '.join(others)}.)"
    return "\n".join([where, "", *lines, "", said, ""])


def mlp() -> str:
    measured = _read("mlp")
    lines = []
    for task, results in measured["results"].items():
        lines += _speeds(task, results, "a call" if "digit" in task else "a training step")
    return "\n".join([_where(measured), "", *lines])


def cnn() -> str:
    if not _is_there("cnn"):
        return "Not measured yet.\n"
    measured = _read("cnn")
    lines = []
    for task, results in measured["results"].items():
        lines += _speeds(task, results, "a training step")
        added = ", ".join(
            f"{peer} {figures['memory'] / 2**20:.0f} MiB"
            for peer, figures in results.items()
            if "memory" in figures
        )
        lines += [f"Memory added by training: {added}.", ""]
    return "\n".join([_where(measured), "", *lines])


def many() -> str:
    """Return the tables of each machine that has results."""
    folders = [harness.RESULTS, *sorted(harness.RESULTS.glob("*/"))]
    lines = []
    for folder in folders:
        if _is_there("many", folder):
            measured = _read("many", folder)
            lines += [_where(measured), ""]
            for task, results in measured["results"].items():
                lines += _speeds(task, results, "a training step of one")
    return "\n".join(lines) or "Not measured yet.\n"


def wide() -> str:
    if not _is_there("wide"):
        return "Not measured yet.\n"
    measured, (ours, theirs) = _read("wide"), ("xnn", "PyTorch eager")
    lines = [
        f"| network | µs a step, xnn | {theirs} | xnn is "
        f"| ms to predict all, xnn | {theirs} | xnn is |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for kind, results in measured["results"].items():
        cells = [kind]
        for name, scale in (("seconds", 1e6), ("answers", 1e3)):
            a, b = (results[peer][name] * scale for peer in (ours, theirs))
            digits = 1 if name == "seconds" else 2
            cells += [f"{a:,.{digits}f}", f"{b:,.{digits}f}", f"{b / a:.2f} times as fast"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([_where(measured), "", *lines, ""])


def gpus() -> str:
    """Return the tables of each GPU that has results."""
    found = sorted(harness.RESULTS.glob("gpu-*.json"))
    if not found:
        return "Nothing has been run or measured on a GPU yet.\n"
    return "".join(gpu(_read(path.stem), path.stem) for path in found)


def gpu(measured: dict, name: str) -> str:
    card, began = measured["gpu"], measured["first epoch"]
    about = f"**{card['name']}** ({card['memory'] / 2**30:.0f} GiB; driver {card['driver']})."
    lines = [f"{about} {_where(measured)}", ""]
    for task, results in measured["results"].items():
        lines += _speeds(task, results, "a training step")
    for task, figures in measured["calls"].items():
        if "calls" in figures:
            lines += _calls(task, figures)
    if "seconds" in began:
        lines += [
            "Starting a process and finishing its first epoch of 784-30-10 takes "
            f"{began['seconds']:.1f} s, or {began['again']:.1f} s with kernels in CuPy's cache.",
            "",
        ]
    text = "Training steps per second by mini-batch size"
    return "\n".join([*lines, f"![{text}]({name}.png)", ""])


def _speeds(task: str, results: dict, each: str) -> list[str]:
    """Return the table of a task: how long each peer takes, and how that compares with xnn."""
    there = {peer: figures for peer, figures in results.items() if "absent" not in figures}
    most = max(figures["seconds"] for figures in there.values())
    unit, scale = next(pair for pair in _UNITS if most * pair[1] < 10_000)
    lines = [f"| {task} | {unit} {each} | samples a second | xnn is |", "|---|---:|---:|---:|"]
    for peer, figures in there.items():
        seconds = figures["seconds"]
        ratio = seconds / results["xnn"]["seconds"]
        times = "" if peer == "xnn" else f"{ratio:.2f} times as fast"
        low, high = (f"{f(figures['runs']) * scale:,.1f}" for f in (min, max))
        took = f"{seconds * scale:,.1f} ({low} to {high})"
        lines.append(f"| {peer} | {took} | {figures['samples'] / seconds:,.0f} | {times} |")
    absent = [peer for peer in results if peer not in there]
    return [*lines, "", *([f"Absent: {', '.join(absent)}.", ""] if absent else [])]


def _calls(task: str, figures: dict) -> list[str]:
    """Return the table of what a step consists of."""
    lines = [f"| {task}: a step of xnn | times a step | µs each |", "|---|---:|---:|"]
    for call in figures["calls"]:
        often = f"{call['per_step']:.3g}"
        lines.append(f"| `{call['call']}` | {often} | {call['seconds'] * 1e6:,.2f} |")
    count = sum(call["per_step"] for call in figures["calls"])
    total = sum(call["per_step"] * call["seconds"] for call in figures["calls"])
    return [*lines, f"| in all | {count:.3g} | {total * 1e6:,.2f} a step |", ""]


def accuracy() -> str:
    measured = _read("accuracy")
    lines = ["| network | mean of three seeds | least | time |", "|---|---:|---:|---:|"]
    for name, result in measured["results"].items():
        seconds = sum(run["seconds"] for run in result["runs"]) / len(result["runs"])
        row = f"| {name} | {result['mean']:.2%} | {result['least']:.2%} | {seconds:.1f} s |"
        lines.append(row)
    return "\n".join([_where(measured), "", *lines, ""])


def record() -> str:
    """Return what the best networks on MNIST reached, and where each run was made."""
    if not _is_there("record"):
        return "Not measured yet.\n"
    head = "| three networks | each | mean | by vote | wrong in all | minutes each |"
    rows, places = [head, "|---|---|---:|---:|---:|---:|"], []
    for name, result in _read("record")["results"].items():
        networks = result["networks"]
        each = ", ".join(f"{network['accuracy']:.2%}" for network in networks)
        minutes = sum(network["seconds"] for network in networks) / len(networks) / 60
        told = "; ".join(network["name"] for network in networks)
        figures = f"{result['mean']:.2%} | {result['vote']:.2%} | {result['wrong']}"
        figures += f" | {minutes:.1f}"
        rows.append(f"| {told} | {each} | {figures} |")
        device = result["gpu"]["name"] if "gpu" in result else "the CPU"
        places.append(f"`{name}` on {device}. {_where(result)}")
    return "\n".join([*places, "", *rows, ""])


def book() -> str:
    measured = _read("book")
    results = measured["results"]
    loop = results["book's loop"]["seconds"]
    lines = ["| chapter 1's run | seconds an epoch | |", "|---|---:|---:|"]
    for peer, figures in results.items():
        if "seconds" in figures:
            low, high = min(figures["runs"]), max(figures["runs"])
            times = loop / figures["seconds"]
            ratio = "" if times == 1 else f"{times:.1f} times as fast"
            each = f"{figures['seconds']:.3f} ({low:.3f} to {high:.3f})"
            lines.append(f"| {peer} | {each} | {ratio} |")
    lines += ["", f"| correct of 10,000 after epoch | {' | '.join(results)} |"]
    lines.append("|---|" + "---:|" * len(results))
    for epoch in (0, 1, 2, 3, 4, 9, 14, 19, 24, 29):
        right = (str(figures["right"][epoch]) for figures in results.values())
        lines.append(f"| {epoch} | {' | '.join(right)} |")
    return "\n".join([_where(measured), "", *lines, ""])


def estimators() -> str:
    """Return the table of times, and the table of scores."""
    measured = _read("estimators")
    lines = []
    for task, results in measured["results"].items():
        lines += _speeds(task, results, "a call" if task.startswith("predict") else "a fit")
    lines += ["| mean test score of five seeds | xnn | scikit-learn |", "|---|---:|---:|"]
    for task, scores in measured["scores"].items():
        means = (f"{sum(found) / len(found):.4f}" for found in scores.values())
        lines.append(f"| {task} | {' | '.join(means)} |")
    return "\n".join([_where(measured), "", *lines, ""])


def rungs() -> str:
    """Return the rungs compared with the book, those compared with PyTorch, and where they ran."""
    if not _is_there("ladder"):
        return "Not measured yet.\n"
    heads = {"the book": "in full, at the book's settings", "PyTorch": "10,000 images, expanded"}
    tables: dict[str, list[str]] = {name: [] for name in heads}
    places: dict[str, list[str]] = {}
    for number, result in _read("ladder")["results"].items():
        name, theirs, points = ladder.compared(result)
        ours = f"{result['figures']['xnn']['accuracy']:.2%}"
        beside = "absent | " if theirs is None else f"{theirs:.2%} | {points:+.2f}"
        row = f"| {number}. {result['name']} | {result['epochs']} | {ours} | {beside} |"
        tables[name].append(row)
        device = result["gpu"]["name"] if "gpu" in result else "the CPU"
        places.setdefault(f"on {device}. {_where(result)}", []).append(number)
    lines = []
    for place, numbers in places.items():
        lines.append(f"Rung{'s' if len(numbers) > 1 else ''} {', '.join(numbers)} {place}")
    for name, rows in tables.items():
        if rows:
            head = f"| {heads[name]} | epochs | xnn | {name} | points apart |"
            lines += ["", head, "|---|---:|---:|---:|---:|", *rows]
    return "\n".join([*lines, ""])


_UNITS = (("µs", 1e6), ("ms", 1e3), ("s", 1.0))


def _is_there(name: str, folder: Path | None = None) -> bool:
    return ((folder or harness.RESULTS) / f"{name}.json").exists()


def _read(name: str, folder: Path | None = None) -> dict:
    return json.loads(((folder or harness.RESULTS) / f"{name}.json").read_text())


TABLES = {
    "summary": summary,
    "elsewhere": elsewhere,
    "mlp": mlp,
    "cnn": cnn,
    "wide": wide,
    "many": many,
    "gpu": gpus,
    "accuracy": accuracy,
    "book": book,
    "estimators": estimators,
    "ladder": rungs,
    "record": record,
}


def _where(measured: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    told = (
        f"Measured {measured['date']} at commit {measured['commit']} on {measured['data']}, "
        f"{measured['cores']} cores of "
        f"{measured['processor']}, Python {measured['python']}, {versions}."
    )
    most = max(_stolen(measured), default=None)
    if most is not None:
        told += f" At most {most:.0%} of the cores' time was given to other virtual machines."
    return told


def _stolen(found: dict) -> Iterator[float]:
    """Yield the share of stolen time of each run, see `quiet`."""
    if "stolen" in found:
        yield found["stolen"]
    for value in found.values():
        if isinstance(value, dict):
            yield from _stolen(value)
