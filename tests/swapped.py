"""A pytest plugin that runs scikit-learn's own tests of its perceptrons on those of xnn.

`nox -s sklearn` runs them, as does:
python -m pytest -c /dev/null -p tests.swapped --pyargs sklearn.neural_network.tests.test_mlp
"""

import pytest
import sklearn.neural_network

from xnn import estimators

#: Tests that cannot pass, and why; docs/estimators.md lists each.
EXCEPTIONS = {"test_gradient": "calls scikit-learn's private _loss_grad_lbfgs"}

sklearn.neural_network.MLPClassifier = estimators.MLPClassifier
sklearn.neural_network.MLPRegressor = estimators.MLPRegressor


def pytest_collection_modifyitems(items):
    for item in items:
        if item.name in EXCEPTIONS:
            item.add_marker(pytest.mark.xfail(reason=EXCEPTIONS[item.name], strict=True))
