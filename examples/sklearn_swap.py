"""A scikit-learn script, and the same with one import changed: timed and compared.

python examples/sklearn_swap.py
python examples/sklearn_swap.py --dataset mnist --epochs 10
python examples/sklearn_swap.py --device gpu
"""

import argparse
import sys
import time
import warnings

import xnn


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dataset", default="digits", choices=["digits", "mnist"])
    parser.add_argument("--epochs", type=int, default=50, metavar="N", help="(default 50)")
    parser.add_argument("--device", default="cpu", help="of xnn: cpu (default), gpu, auto …")
    args = parser.parse_args()
    try:
        xnn.backends.select(args.device)
        data = load_data(args.dataset)
        before = fit("sklearn.neural_network", *data, args.epochs)
        after = fit("xnn.estimators", *data, args.epochs, device=args.device)
    except (xnn.DeviceError, ImportError, OSError, ValueError) as error:
        print(f"sklearn_swap.py: {error}", file=sys.stderr)
        return 2
    print(f"{before / after:.1f} times as fast")
    return 0


def load_data(name):
    """Return images as float64 from 0 to 1 and labels, for training and test."""
    train, _, test = getattr(xnn.datasets, name)()
    most = 255 if name == "mnist" else 1
    return [(x.astype("float64") / most, y) for x, y in (train, test)]


def fit(module, train, test, epochs, **beyond) -> float:
    """Train, print the results, and return the seconds it took."""
    if module == "xnn.estimators":
        from xnn.estimators import MLPClassifier
    else:
        from sklearn.neural_network import MLPClassifier

    model = MLPClassifier(max_iter=epochs, random_state=0, **beyond)
    began = time.perf_counter()
    with warnings.catch_warnings(action="ignore"):  # about convergence
        model.fit(*train)
    seconds = time.perf_counter() - began
    score = model.score(*test)
    print(f"from {module} import MLPClassifier")
    print(f"  {seconds:.2f} s, loss {model.loss_:.6f}, {score:.2%} right")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
