"""Examples in docstrings give the output that they show."""

import doctest
import importlib
import pkgutil

import pytest

import xnn

NAMES = [name for _, name, _ in pkgutil.walk_packages(xnn.__path__, "xnn.")]
MODULES = [importlib.import_module(name) for name in NAMES if name != "xnn.__main__"]
FINDER = doctest.DocTestFinder(exclude_empty=True)
EXAMPLES = [test for module in MODULES for test in FINDER.find(module) if test.examples]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda test: test.name)
def test_examples(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = []
    failed, tried = doctest.DocTestRunner().run(example, out=said.append)
    assert tried
    assert not failed, "".join(said)


def test_what_is_used_most_has_examples():
    named = {example.name.rpartition(".")[2] for example in EXAMPLES}
    used = {"Network", "fit", "predict", "Conv2D", "SGD", "Checkpoints", "Ensemble"}
    assert used | {"Callback", "cross_validate", "MLPClassifier", "MLPRegressor"} <= named
