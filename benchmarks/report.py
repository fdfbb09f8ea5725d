"""Write the tables of README.md and docs/from-the-book.md from benchmarks/results/."""

import json
from pathlib import Path

from . import harness

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "docs" / "from-the-book.md"]


def add_arguments(parser) -> None:
    pass


def main(args) -> int:
    for page in PAGES:
        page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


def fill(text: str) -> str:
    """Return a page's text with each of its tables made anew between its two marks."""
    for name, table in (("mlp", mlp), ("accuracy", accuracy), ("book", book)):
        begin, end = f"<!-- {name}: made by python -m benchmarks report -->", f"<!-- /{name} -->"
        if begin not in text:
            continue
        before, _, rest = text.partition(begin)
        _, _, after = rest.partition(end)
        results = json.loads((harness.RESULTS / f"{name}.json").read_text())
        text = f"{before}{begin}\n{table(results)}{end}{after}"
    return text


def mlp(measured: dict) -> str:
    lines = []
    for task, results in measured["results"].items():
        ours = results["xnn"]["seconds"]
        absent = [peer for peer, figures in results.items() if "absent" in figures]
        each = "a call" if "digit" in task else "a training step"
        lines += [f"| {task} | µs {each} | samples a second | xnn is |", "|---|---:|---:|---:|"]
        for peer, figures in results.items():
            if peer in absent:
                continue
            seconds = figures["seconds"]
            speed, ratio = figures["samples"] / seconds, seconds / ours
            times = "" if peer == "xnn" else f"{ratio:.2f} times as fast"
            low, high = (f"{f(figures['runs']) * 1e6:,.1f}" for f in (min, max))
            each = f"{seconds * 1e6:,.1f} ({low} to {high})"
            lines.append(f"| {peer} | {each} | {speed:,.0f} | {times} |")
        lines += ["", f"Absent: {', '.join(absent)}.", ""] if absent else [""]
    return "\n".join([_where(measured), "", *lines])


def accuracy(measured: dict) -> str:
    lines = ["| network | mean of three seeds | least | time |", "|---|---:|---:|---:|"]
    for name, result in measured["results"].items():
        seconds = sum(run["seconds"] for run in result["runs"]) / len(result["runs"])
        row = f"| {name} | {result['mean']:.2%} | {result['least']:.2%} | {seconds:.1f} s |"
        lines.append(row)
    return "\n".join([_where(measured), "", *lines, ""])


def book(measured: dict) -> str:
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
    lines += ["", f"| right of 10,000 after epoch | {' | '.join(results)} |"]
    lines.append("|---|" + "---:|" * len(results))
    for epoch in (0, 1, 2, 3, 4, 9, 14, 19, 24, 29):
        right = (str(figures["right"][epoch]) for figures in results.values())
        lines.append(f"| {epoch} | {' | '.join(right)} |")
    return "\n".join([_where(measured), "", *lines, ""])


def _where(measured: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    return (
        f"Measured {measured['date']} at commit {measured['commit']} on {measured['data']}, "
        f"{measured['cores']} cores of "
        f"{measured['processor']}, Python {measured['python']}, {versions}."
    )
