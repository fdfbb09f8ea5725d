"""Draw pictures for docs/: the time of a step for each peer on a CPU; on GPUs, steps per second."""

import json
from pathlib import Path

from . import harness

DOCS = Path(__file__).parent.parent / "docs"


def add_arguments(parser) -> None:
    parser.add_argument("--results", metavar="DIR", type=Path, default=harness.RESULTS)
    parser.add_argument("--output", metavar="DIR", type=Path, default=DOCS)


def main(args) -> int:
    if (args.results / "mlp.json").exists():
        measured = [json.loads((args.results / f"{n}.json").read_text()) for n in ("mlp", "cnn")]
        print(f"Drawn: {draw_peers(*measured, args.output / 'speed.svg')}")
    found = sorted(args.results.glob("gpu-*.json"))
    for path in found:
        drawn = draw(json.loads(path.read_text()), args.output / f"{path.stem}.png")
        print(f"Drawn: {drawn}")
    if not found:
        print(f"No gpu-*.json in {args.results}: nothing has been measured on a GPU yet")
    return 0


def draw_peers(mlp: dict, cnn: dict, path: Path) -> Path:
    """Draw the time of a training step for each peer; return the path."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    tasks = {
        "784-30-10, mini-batch 10": mlp["results"]["784-30-10, batch 10"],
        "784-100-10, Adam, mini-batch 200": mlp["results"]["784-100-10, Adam, batch 200"],
        "convolutional, mini-batch 10": cnn["results"]["LeNet, batch 10"],
    }
    names, ours = {"book's loop": "plain NumPy"}, {"xnn": "#d62728", "xnn, no compiler": "#ec9a9a"}
    bars = [len(results) for results in tasks.values()]
    # The same bytes each time: letters as outlines, no date.
    with mpl.rc_context({"svg.hashsalt": "xnn", "font.size": 9}):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        FigureCanvasSVG(figure)
        for axes, (title, results) in zip(
            figure.subplots(len(tasks), height_ratios=bars), tasks.items(), strict=True
        ):
            order = sorted(results, key=lambda peer: -results[peer]["seconds"])
            took = [results[peer]["seconds"] * 1e6 for peer in order]
            colours = [ours.get(peer, "#9aa5b1") for peer in order]
            drawn = axes.barh([names.get(peer, peer) for peer in order], took, color=colours)
            axes.bar_label(drawn, [f"{t:,.0f} µs" for t in took], padding=4)
            axes.set_title(title, loc="left", fontweight="bold", fontsize=9)
            axes.set_xlim(0, 1.12 * max(took))
            axes.xaxis.set_visible(False)
            axes.spines[["top", "right", "bottom"]].set_visible(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
    return path


def draw(measured: dict, path: Path) -> Path:
    """Draw one GPU's measurements; return the path."""
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
