"""The command line: ``xnn info``."""

from __future__ import annotations

import json
from typing import Any

import click

from .info import facts
from .version import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="xnn %(version)s")
def main() -> None:
    """Neural networks on a CPU or an NVIDIA GPU."""


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Show what xnn runs on, and what a GPU still needs.

    Example: xnn info
    """
    found = facts()
    click.echo(json.dumps(found, indent=2) if as_json else _table(found))


def _table(found: dict[str, Any]) -> str:
    rows = []
    for name, value in found.items():
        if name == "GPUs":
            rows += [(gpu["device"], _gpu(gpu)) for gpu in value]
        else:
            rows.append((name, value))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _gpu(gpu: dict[str, Any]) -> str:
    free, memory = (f"{gpu[name] / 2**30:.1f}" for name in ("free", "memory"))
    graphs = "CUDA graphs" if gpu["graphs"] is True else f"no CUDA graphs: {gpu['graphs']}"
    return (
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, "
        f"{free} of {memory} GiB free, {graphs}"
    )
