"""``python -m xnn`` is the command ``xnn``."""

from .cli import main

main(prog_name="xnn")
