"""The reference names what there is, and all of it; its examples run."""

import ast
import builtins
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import pytest

import xnn

ROOT = Path(__file__).parent.parent
PUBLIC = {
    "xnn",
    "xnn.callbacks",
    "xnn.datasets",
    "xnn.schedules",
    "xnn.estimators",
    "xnn.book",
    "xnn.book.expand_mnist",
    "xnn.book.mnist_loader",
    "xnn.book.network",
    "xnn.book.network2",
    "xnn.book.network3",
}


def _documented(module):
    """Yield what has docstrings in a public module, and where else their names may be from."""
    yield module, ()
    for thing in (getattr(module, name) for name in module.__all__):
        home = (inspect.getmodule(thing),)
        if inspect.isclass(thing):
            yield thing, (thing, *home)
            for name, member in vars(thing).items():
                known = inspect.isroutine(member) or isinstance(member, property)
                if known and not name.startswith("_") and not name.endswith("_request"):
                    yield member, (thing, *home)
        elif inspect.isfunction(thing):
            yield thing, home


def _is_there(name, places):
    for place in places:
        thing = place
        for part in name.split("."):
            thing = getattr(thing, part, None) if thing is not None else None
        if thing is not None:
            return True
    try:
        pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return False
    return True


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_names_in_docstrings_are_there(name):
    """What stands between single backticks is a reference, as NumPy's style has it."""
    module = importlib.import_module(name)
    for thing, homes in _documented(module):
        text = re.sub(r"``.*?``", "", inspect.getdoc(thing) or "", flags=re.DOTALL)
        for referred in re.findall(r"`([^`]+)`", text):
            assert _is_there(referred, (*homes, module, xnn, builtins)), f"{thing}: {referred}"


def test_the_pages_are_of_the_public_modules():
    """`docs/pdoc/build.py` names these, or their packages do."""
    text = (ROOT / "docs" / "pdoc" / "build.py").read_text(encoding="utf-8")
    given = set(ast.literal_eval(re.search(r"MODULES = (\(.*?\))", text)[1]))
    named = {
        f"{package}.{name}"
        for package in given
        for name in importlib.import_module(package).__all__
        if inspect.ismodule(getattr(importlib.import_module(package), name))
    }
    assert given | named == PUBLIC
