"""The README and the pages in docs/ agree with the code."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import xnn
from benchmarks import harness, report

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


BRIDGE = (ROOT / "docs" / "from-the-book.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("page", "tables"),
    [*zip(report.PAGES, (3, 6, 2, 1), strict=True)],
    ids=lambda v: getattr(v, "stem", ""),
)
def test_tables_are_those_of_the_results(page, tables):
    text = page.read_text(encoding="utf-8")
    assert text.count("made by python -m benchmarks report") == tables
    assert report.fill(text) == text


def test_the_bridge_shows_lines_that_are_there():
    blocks = re.findall(r"```python\n# (xnn/\S+)\n(.*?)```", BRIDGE, re.DOTALL)
    assert len(blocks) >= 6
    for path, code in blocks:
        lines = [line.strip() for line in (ROOT / path).read_text(encoding="utf-8").splitlines()]
        lines = [line.partition("  #")[0] for line in lines]
        for line in code.splitlines():
            assert line.strip() in lines, f"{path}: {line}"


def test_experiments_of_the_bridge_are_those_of_the_example():
    run = [sys.executable, str(ROOT / "examples" / "book.py"), "--list"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    listed = subprocess.run(run, capture_output=True, text=True, check=True, env=environment)
    names = [line.split()[0] for line in listed.stdout.splitlines()]
    assert re.findall(r"^\| `([\w-]+)` \|", BRIDGE, re.MULTILINE) == names


def test_python_of_the_readme_runs(mnist, tmp_path, monkeypatch, device, capsys):
    """As printed, except for the number of epochs."""
    monkeypatch.chdir(tmp_path)
    *blocks, book = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(re.sub(r"epochs=\d+", "epochs=1", block), names)
    assert xnn.load("digits.safetensors").sizes == [784, 30, 10]
    assert names["net"].evaluate(*mnist[2]).accuracy > 0.85
    drawn = str(names["net"]).replace(f"on {device}", "on cpu")
    assert f"```\n{drawn}\n```" in README
    exec(book.replace("(training_data, 30,", "(training_data, 1,"), {})
    assert re.search(r"\nEpoch 0: \d+ / 10000\n$", capsys.readouterr().out)


def test_recipes_run_and_do_what_they_say(mnist, tmp_path, monkeypatch, capsys):
    """As printed, except for the number of epochs."""
    pytest.importorskip("sklearn")
    pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(re.sub(r"epochs=(5|20|100)\b", "epochs=2", block), names)
    found = SimpleNamespace(**names)
    right = np.trace(found.confusion) / 10_000
    assert found.confusion.sum() == 10_000
    assert len(found.wrong) == round(10_000 * (1 - right))
    assert len(found.recall) >= 1
    assert found.activations.shape == (10_000, 100)
    assert found.head.evaluate(found.activations, found.y_test % 2 == 0).accuracy > 0.95
    assert found.net.evaluate(found.x, found.y_train).accuracy > 0.9
    clear = found.x_test[:100] / 255
    assert np.abs(found.misled - clear).max() < 0.1 + 1e-6
    before, after = map(float, capsys.readouterr().out.split()[1:3])
    assert before > 0.9
    assert after < 0.2
    assert np.abs(found.predicted - found.prices).mean() < found.spread / 5
    assert min(found.accuracies) > 0.8
    assert found.best[0] > 0.9
    assert 0.001 < found.rate < 2
    assert xnn.load("digits.safetensors").sizes == [784, 100, 10]


def test_commands_and_files_of_the_readme_exist():
    for path in re.findall(r"\]\(([\w/.-]+)\)", README):
        assert (ROOT / path).exists(), path
    for command in re.findall(r"python -m benchmarks (\w+)", README):
        assert (ROOT / "benchmarks" / f"{command}.py").exists()
    noxfile = (ROOT / "noxfile.py").read_text(encoding="utf-8")
    sessions = set(re.findall(r"^def (\w+)\(", noxfile, re.MULTILINE))
    sessions |= set(re.findall(r'name="([\w-]+)"', noxfile))
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        named = re.findall(r"nox -s ([\w-]+)", page.read_text(encoding="utf-8"))
        assert set(named) <= sessions, page


def test_what_asks_for_pytorch_is_named_after_it():
    """By that name `nox -s torch` finds it."""
    asked = 0
    for path in (ROOT / "tests").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                asks = 'importorskip("torch"' in ast.unparse(node).replace("'", '"')
                asked += asks
                assert not asks or "pytorch" in path.stem + node.name, f"{path.name}: {node.name}"
    assert asked > 10


def test_what_the_readme_lists_is_what_there_is():
    from xnn import activations, costs, initializers

    rows = dict(re.findall(r"^\| ([\w ]+) \| (.*) \|$", README, re.MULTILINE))
    assert set(re.findall(r"\w+", rows["Activations"])) == set(activations.ACTIVATIONS)
    assert set(re.findall(r"\w+", rows["Costs"])) == set(costs.NAMES)
    assert set(initializers.INITIALIZERS) <= set(re.findall(r"`(\w+)`", rows["Initializers"]))
    assert {"Step", "Cosine", "OneCycle", "WarmUp"} <= set(
        re.findall(r"`(\w+)`", rows["Learning rates"])
    )


@pytest.mark.parametrize("name", ["mlp", "accuracy", "book"])
def test_results_say_where_they_are_from(name):
    measured = json.loads((harness.RESULTS / f"{name}.json").read_text())
    assert {"date", "commit", "data", "python", "processor", "cores"} <= set(measured)
    assert measured["data"] == "MNIST"


@pytest.mark.parametrize(("name", "own"), [("ladder", {"device"}), ("record", {"networks"})])
def test_what_is_made_in_pieces_says_where_each_is_from(name, own):
    measured = json.loads((harness.RESULTS / f"{name}.json").read_text())
    for piece in measured["results"].values():
        assert {"date", "commit", "data", "python", "processor", "cores"} | own <= set(piece)


def test_the_walk_through_a_step_names_what_there_is():
    """Functions and methods, and the files that they are in."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walk = text.partition("### From `fit`")[2].partition("\n## ")[0]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "xnn").rglob("*.py")]
    named = re.findall(r"`(\w+)\.(\w+)`", walk)
    methods = {(kind, name) for kind, name in named if name != "py"}
    assert len(methods) > 12
    for kind, name in methods:
        bodies = [text.partition(f"class {kind}")[2] for text in sources if f"class {kind}" in text]
        assert any(f"def {name}(" in body.partition("\nclass ")[0] for body in bodies), (kind, name)
    for name, file in re.findall(r"`([\w.]+)` \(`([\w/]+\.py)`\)", walk):
        kind = name.partition(".")[0]
        assert re.search(rf"(def|class) {kind}\b", (ROOT / "xnn" / file).read_text()), (name, file)


def test_every_public_name_is_documented():
    for name in xnn.__all__:
        thing = getattr(xnn, name)
        told = (thing.__doc__ or "").strip()
        assert len(told) > 20 or name == "__version__", name
        assert not told.startswith(f"{name}("), name  # what a dataclass says of itself
