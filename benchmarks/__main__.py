"""`python -m benchmarks mlp` and the like: measure, print a table, write JSON."""

import argparse
import sys

from . import accuracy, mlp


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for module in (mlp, accuracy):
        name = module.__name__.rpartition(".")[2]
        module.add_arguments(commands.add_parser(name, help=module.__doc__.splitlines()[0]))
    args = parser.parse_args()
    return {"mlp": mlp, "accuracy": accuracy}[args.command].main(args)


if __name__ == "__main__":
    sys.exit(main())
