"""The reference page lists the whole public interface, and nothing else."""

import ast
import builtins
import contextlib
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import click
import pytest

import xnn
from xnn import activations, backends, cli, costs, initializers

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
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
    """Text between single backticks is a reference, as in NumPy's style."""
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


# docs/reference.md: tables whose first column has names, some with their signatures.


def _rows(section):
    """Return the rows of a section's tables: names of the first column, and the rest."""
    text = re.search(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)[1]
    rows = re.findall(r"^\| (`.*?`) \| (.+) \|$", text, re.MULTILINE)
    assert len(rows) == len(re.findall(r"^\| `", text, re.MULTILINE)), section
    return [(re.findall(r"`(.+?)`", names), told) for names, told in rows]


SECTIONS = re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
LISTED = [
    name
    for section in SECTIONS
    for names, _ in _rows(section)
    for name in names
    if name.startswith("xnn.")
]


def test_all_that_is_public_is_on_the_page():
    listed = [pkgutil.resolve_name(name.partition("(")[0]) for name in LISTED]
    for place in PUBLIC:
        module = importlib.import_module(place)
        for name in module.__all__:
            thing = getattr(module, name)
            assert inspect.ismodule(thing) or any(thing is one for one in listed), f"{place}.{name}"
    for kind in (xnn.Network, xnn.Ensemble, xnn.Callback, xnn.callbacks.Training):
        for name, member in vars(kind).items():
            known = inspect.isfunction(member) or isinstance(member, property)
            if known and not name.startswith("_"):
                assert any(member is one for one in listed), f"{kind.__name__}.{name}"


@pytest.mark.parametrize("name", LISTED)
def test_what_the_page_lists_is_as_it_says(name):
    name, call, given = name.partition("(")
    thing = pkgutil.resolve_name(name)
    if not call:
        return
    written, more = given.removesuffix(")"), "…" in given
    made = {}
    exec(f"def f({written.replace(', …', '')}): pass", made)
    told = list(inspect.signature(made["f"]).parameters.values())
    real = [
        one.replace(annotation=one.empty)
        for one in inspect.signature(thing).parameters.values()
        if one.name != "self"
    ]
    assert [one for one in real if not more or one.name in made["f"].__code__.co_varnames] == told


@pytest.mark.parametrize(
    ("section", "known"),
    [
        ("Activations", set(activations.ACTIVATIONS)),
        ("Initial weights", {*initializers.INITIALIZERS, "auto"}),
        ("Costs", set(costs.NAMES)),
    ],
    ids=["activations", "first weights", "costs"],
)
def test_names_that_are_strings(section, known):
    assert {name.strip('"') for names, _ in _rows(section) for name in names} == known


def test_devices_and_variables_of_the_page():
    names = [name for names, _ in _rows("Devices") for name in names]
    for device in (name.strip('"') for name in names if name.startswith('"')):
        with contextlib.suppress(xnn.DeviceError):  # and no ValueError, as for a name that is none
            backends.select(device)
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "xnn").rglob("*.py"))
    variables = set(re.findall(r"\bXNN_[A-Z]+\b", source))
    assert {name for name in names if name.startswith("XNN_")} == variables


def test_commands_and_their_options():
    rows = {names[0].split()[1]: (names[0], told) for names, told in _rows("Command line")}
    assert set(rows) == set(cli.main.commands)
    for name, command in cli.main.commands.items():
        context = click.Context(command, info_name=name)
        usage = [part for part in command.collect_usage_pieces(context) if part != "[OPTIONS]"]
        shown, told = rows[name]
        assert shown.split()[2:] == " ".join(usage).split()
        options = {one for part in command.params for one in part.opts if one.startswith("--")}
        assert set(re.findall(r"`(--[\w-]+)`", told)) == options
