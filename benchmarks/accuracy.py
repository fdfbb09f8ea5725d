"""What the book's networks reach on MNIST's test images; takes some minutes.

784-30-10 with the settings of chapter 1, three seeds; 784-100-10 with cross-entropy, weights of
standard deviation 1/√n and weight decay λ = 5, as in chapter 3.
"""

import time

import xnn

from . import harness

# Targets: for the mean over seeds, and for each.
WANTED = {"784-30-10": (0.948, 0.940), "784-100-10": (0.978, 0.0)}


def add_arguments(parser) -> None:
    parser.add_argument("--data", metavar="PATH", help="where MNIST is, if not in the usual places")
    parser.add_argument("--device", default="cpu")


def main(args) -> int:
    where = {**harness.machine(), "data": "MNIST"}
    train, validation, test = xnn.datasets.mnist(args.data)

    def chapter_1(seed):
        net = xnn.Network([784, 30, 10], seed=seed, device=args.device)
        return net, {"epochs": 30, "optimizer": xnn.SGD(3.0)}

    def chapter_3(seed):
        layers = [784, *(xnn.Dense(n, initializer="scaled_normal") for n in (100, 10))]
        net = xnn.Network(layers, "cross_entropy", seed=seed, device=args.device)
        return net, {"epochs": 60, "optimizer": xnn.SGD(0.1, lmbda=5.0)}

    results, reached = {}, True
    for name, make in (("784-30-10", chapter_1), ("784-100-10", chapter_3)):
        runs = []
        for seed in range(3):
            net, options = make(seed)
            began = time.perf_counter()
            history = net.fit(*train, batch_size=10, validation_data=validation, **options)
            runs.append(
                {
                    "seed": seed,
                    "accuracy": net.evaluate(*test).accuracy,
                    "seconds": round(time.perf_counter() - began, 2),
                    "validation_accuracy": history.validation_accuracy,
                }
            )
            print(f"{name}, seed {seed}: {runs[-1]['accuracy']:.2%} in {runs[-1]['seconds']} s")
        accuracies = [run["accuracy"] for run in runs]
        mean, least = sum(accuracies) / len(accuracies), min(accuracies)
        good = mean >= WANTED[name][0] and least >= WANTED[name][1]
        reached &= good
        print(f"{name}: mean {mean:.2%}, least {least:.2%}{'' if good else ', LESS THAN ASKED'}")
        results[name] = {"mean": mean, "least": least, "runs": runs}
    harness.write("accuracy", {**where, "results": results})
    return 0 if reached else 1
