"""`python -m benchmarks mlp` and the like: measure, print a table, write JSON."""

import argparse
import sys

from . import accuracy, book, cnn, estimators, gpu, ladder, mlp, plot, report, wide

COMMANDS = {
    module.__name__.rpartition(".")[2]: module
    for module in (mlp, cnn, wide, gpu, estimators, accuracy, book, ladder, plot, report)
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, module in COMMANDS.items():
        module.add_arguments(commands.add_parser(name, help=module.__doc__.splitlines()[0]))
    args = parser.parse_args()
    return COMMANDS[args.command].main(args)


if __name__ == "__main__":
    sys.exit(main())
