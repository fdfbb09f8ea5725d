"""The experiments of Nielsen's *Neural Networks and Deep Learning*, with its modules from xnn.

python examples/book.py --list             # the experiments
python examples/book.py chapter1           # 784-30-10, 30 epochs
python examples/book.py chapter3 --device gpu --dtype float32
"""

import argparse
import random
import sys

import numpy as np

import xnn
from xnn.book import mnist_loader, network, network2


def chapter1(data, where, hidden=30):
    """784-30-10, quadratic cost, η = 3, mini-batches of 10, 30 epochs."""
    training_data, _, test_data = data
    net = network.Network([784, hidden, 10], **where)
    net.SGD(training_data, 30, 10, 3.0, test_data=test_data)


def chapter1_hundred(data, where):
    """The same with 100 hidden neurons."""
    chapter1(data, where, hidden=100)


def chapter3(data, where):
    """784-100-10, cross-entropy, weights 1/√n, λ = 5, η = 0.1, 60 epochs."""
    training_data, validation_data, test_data = data
    net = network2.Network([784, 100, 10], **where)
    net.SGD(training_data, 60, 10, 0.1, 5.0, validation_data, monitor_evaluation_accuracy=True)
    print(f"Accuracy on test data: {net.accuracy(test_data)} / {len(test_data)}")


def chapter3_overfitting(data, where, lmbda=0.0):
    """784-30-10 on 1,000 images for 400 epochs, η = 0.5, large initial weights."""
    training_data, _, test_data = data
    net = network2.Network([784, 30, 10], cost=network2.CrossEntropyCost, **where)
    net.large_weight_initializer()
    flags = ("evaluation_cost", "evaluation_accuracy", "training_cost", "training_accuracy")
    monitors = {f"monitor_{flag}": True for flag in flags}
    net.SGD(training_data[:1000], 400, 10, 0.5, lmbda, test_data, **monitors)


def chapter3_regularized(data, where):
    """The same with λ = 0.1."""
    chapter3_overfitting(data, where, lmbda=0.1)


def chapter3_weights(data, where):
    """784-30-10, λ = 5, η = 0.1, 30 epochs: weights 1/√n, then large ones."""
    training_data, validation_data, _ = data
    net = network2.Network([784, 30, 10], cost=network2.CrossEntropyCost, **where)
    for kind in ("default", "large"):
        print(f"Train the network using the {kind} starting weights.")
        if kind == "large":
            net.large_weight_initializer()
        net.SGD(training_data, 30, 10, 0.1, 5.0, validation_data, monitor_evaluation_accuracy=True)


def chapter5(data, where):
    """How fast each hidden layer learns at first: the norm of the mean gradient of its biases."""
    for hidden in (2, 3, 4):
        net = network2.Network([784, *[30] * hidden, 10], **where)
        gradients = [net.backprop(x, y)[0] for x, y in data[0][:1000]]
        means = [np.mean(layer, axis=0) for layer in zip(*gradients, strict=True)]
        norms = [f"{np.linalg.norm(mean):.3f}" for mean in means[:-1]]
        print(f"{hidden} hidden layers: {', '.join(norms)}")


EXPERIMENTS = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(chapter1, chapter1_hundred, chapter3, chapter3_overfitting),
        *(chapter3_regularized, chapter3_weights, chapter5),
    )
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("experiment", nargs="?", choices=EXPERIMENTS)
    parser.add_argument("--list", action="store_true", help="list the experiments")
    parser.add_argument("--seed", type=int, default=1, help="(default 1)")
    parser.add_argument("--device", help="cpu, gpu, gpu:N or auto (default: cpu)")
    parser.add_argument("--dtype", default="float64", choices=["float32", "float64"])
    args = parser.parse_args()
    if args.list or args.experiment is None:
        for name, function in EXPERIMENTS.items():
            print(f"{name:22} {function.__doc__}")
        return 0
    try:
        data = mnist_loader.load_data_wrapper()
        random.seed(args.seed)
        np.random.seed(args.seed)
        EXPERIMENTS[args.experiment](data, {"device": args.device, "dtype": args.dtype})
    except (xnn.DeviceError, OSError, ValueError) as error:
        print(f"book.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
