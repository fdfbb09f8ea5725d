"""Write the API reference to docs/_build/: `nox -s docs`."""

import re
import types
import warnings
from pathlib import Path
from typing import Generic, TypeVar

import numpy.typing
import pdoc

HERE = Path(__file__).resolve().parent
PAGES = HERE.parent / "_build"
# With all modules that their `__all__` names.
MODULES = ("xnn", "xnn.callbacks", "xnn.estimators", "xnn.book", "xnn.book.expand_mnist")

# Signatures show these names, and not the dozen types that they stand for.
for name in ("ArrayLike", "NDArray"):
    shown = types.new_class(name, (Generic[TypeVar("T")],))
    shown.__module__ = "builtins"  # whose names are shown without it
    setattr(numpy.typing, name, shown)
warnings.filterwarnings("error", category=UserWarning)
pdoc.render.configure(docformat="numpy", template_directory=HERE, show_source=False)
pdoc.pdoc(*MODULES, output_directory=PAGES)

texts = {
    page: re.sub("<script.*?</script>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for page in PAGES.rglob("*.html")
}
places = {page: set(re.findall(r' id="(.+?)"', text)) for page, text in texts.items()}
for page, text in texts.items():
    for path, place in re.findall(r'<a [^>]*href="(?!https?:)([^"#]*)#?([^"]*)"', text):
        there = (page.parent / path).resolve() if path else page
        if there not in texts or (place and place not in places[there]):
            raise SystemExit(f"{page}: a link to {path}#{place}, which is not there")
