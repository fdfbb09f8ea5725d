"""scikit-learn's multilayer perceptrons on xnn: `MLPClassifier` and `MLPRegressor`.

They replace those of ``sklearn.neural_network``: they take the same arguments and give the same
results, on any device that xnn supports. Needs scikit-learn: ``pip install scikit-learn``.
"""

try:
    from sklearn import __version__ as _version
except ImportError:
    _version = "0.0"
if tuple(map(int, _version.split(".")[:2])) < (1, 7):
    raise ImportError("xnn.estimators needs scikit-learn 1.7 or newer: pip install -U scikit-learn")

from .classifier import MLPClassifier
from .conversion import from_sklearn
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]
