"""Write the API reference to docs/_build/: `nox -s docs`."""

import types
import warnings
from pathlib import Path
from typing import Generic, TypeVar

import numpy.typing
import pdoc

HERE = Path(__file__).parent
# With all modules that their `__all__` names.
MODULES = ("xnn", "xnn.callbacks", "xnn.estimators", "xnn.book", "xnn.book.expand_mnist")

# Signatures show these names, and not the dozen types that they stand for.
for name in ("ArrayLike", "NDArray"):
    shown = types.new_class(name, (Generic[TypeVar("T")],))
    shown.__module__ = "builtins"  # whose names are shown without it
    setattr(numpy.typing, name, shown)
warnings.filterwarnings("error", category=UserWarning)
pdoc.render.configure(docformat="numpy", template_directory=HERE, show_source=False)
pdoc.pdoc(*MODULES, output_directory=HERE.parent / "_build")
