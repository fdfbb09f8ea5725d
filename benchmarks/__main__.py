"""`python -m benchmarks mlp` and the like: measure, print a table, write JSON."""

import argparse
import sys

from . import (
    accuracy,
    book,
    cnn,
    estimators,
    gpu,
    harness,
    ladder,
    many,
    mlp,
    plot,
    record,
    report,
    wide,
)

MODULES = (mlp, cnn, wide, many, gpu, estimators, accuracy, book, ladder, record, plot, report)
COMMANDS = {module.__name__.rpartition(".")[2]: module for module in MODULES}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--patience",
        type=float,
        default=harness.PATIENCE,
        metavar="SECONDS",
        help="seconds that a table may wait while time is stolen (default: %(default)g)",
    )
    parser.add_argument(
        "--into",
        default=harness.INTO,
        metavar="NAME",
        help="write to this subfolder of benchmarks/results/, for results of another machine",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.__doc__.splitlines()[0]))
    args = parser.parse_args()
    harness.PATIENCE, harness.INTO = args.patience, args.into
    return COMMANDS[args.command].main(args)


if __name__ == "__main__":
    sys.exit(main())
