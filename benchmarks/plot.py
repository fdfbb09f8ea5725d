"""Draw steps a second by the size of a mini-batch, from each gpu-*.json, for docs/."""

import json
from pathlib import Path

from . import harness

DOCS = Path(__file__).parent.parent / "docs"


def add_arguments(parser) -> None:
    parser.add_argument("--results", metavar="DIR", type=Path, default=harness.RESULTS)
    parser.add_argument("--output", metavar="DIR", type=Path, default=DOCS)


def main(args) -> int:
    found = sorted(args.results.glob("gpu-*.json"))
    for path in found:
        drawn = draw(json.loads(path.read_text()), args.output / f"{path.stem}.png")
        print(f"Drawn: {drawn}")
    if not found:
        print(f"No gpu-*.json in {args.results}: nothing has been measured on a GPU yet")
    return 0


def draw(measured: dict, path: Path) -> Path:
    """Draw one GPU's measurements and return where."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log")
    batches: set[int] = set()
    for (peer, figures), marker in zip(measured["sweep"].items(), "osD^vP*X", strict=False):
        points = [(batch, 1 / seconds) for batch, seconds in figures.get("points", ())]
        if points:
            ours = peer == "xnn"
            axes.plot(
                *zip(*points, strict=True),
                label=peer,
                marker=marker,
                linewidth=2.5 if ours else 1.5,
                zorder=3 if ours else 2,
            )
            batches |= {batch for batch, _ in points}
    ticks = sorted(batches)
    axes.set_xticks(ticks, [f"{batch:,}" for batch in ticks])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.set_xlabel("samples in a mini-batch")
    axes.set_ylabel("training steps a second")
    axes.set_title(f"784-30-10 on {measured['gpu']['name']}, {measured['date']}")
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
