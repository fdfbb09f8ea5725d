"""scikit-learn's multilayer perceptrons on xnn: `MLPClassifier` and `MLPRegressor`.

In the place of ``sklearn.neural_network``'s they take the same arguments and give the same results,
on any device that xnn has. Needs scikit-learn: ``pip install scikit-learn``.
"""

try:
    import sklearn.utils.validation as _validation

    _validation.validate_data  # noqa: B018 - those before 1.6 have it elsewhere
except (ImportError, AttributeError):
    raise ImportError(
        "xnn.estimators needs scikit-learn 1.7 or newer: pip install -U scikit-learn"
    ) from None

from .classifier import MLPClassifier
from .conversion import from_sklearn
from .regressor import MLPRegressor

__all__ = ["MLPClassifier", "MLPRegressor", "from_sklearn"]
