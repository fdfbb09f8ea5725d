"""xnn's estimators compared with scikit-learn's: fit, predict, and the scores that they reach.

Both train in processes of their own, taking turns, from the same seeds. If MNIST is unavailable,
random pixels are used instead.
"""

import json
import sys
import time
import warnings
from statistics import median

import numpy as np

from . import harness, networks

PEERS = ["xnn", "scikit-learn"]
SEEDS = range(5)

#: What is measured, and the target: the least ratio of xnn's speed to scikit-learn's.
WANTED = {
    "fit MNIST": 1.8,
    "fit digits": 2.0,
    "fit regression": 2.0,
    "predict 10,000 rows": 1.0,
    "predict one row": 5.0,
}
#: By how much the scores may differ.
POINTS = 0.003


def add_arguments(parser) -> None:
    parser.add_argument("--rounds", type=int, default=5, help="how often to run each peer")
    parser.add_argument("--epochs", type=int, default=5, help="of MNIST, to time its fit")
    parser.add_argument("--no-write", action="store_true", help="print, but write no JSON")


def main(args) -> int:
    where, tables, reached = {**harness.machine(), "data": networks.data_name()}, {}, True
    for task, asked in WANTED.items():
        jobs = {
            peer: lambda _, task=task, peer=peer: harness.worker(
                "estimators", task, peer, str(args.epochs)
            )
            for peer in PEERS
        }
        *_, measured = harness.turns(jobs, args.rounds)
        tables[task] = {peer: harness.medians(runs) for peer, runs in measured.items()}
        unit = "a call" if task.startswith("predict") else "a fit"
        reached &= harness.print_table(task, tables[task], {"scikit-learn": asked}, unit)
    scores = {}
    for task in ("fit MNIST", "fit digits", "fit regression"):
        scores[task] = {
            peer: [
                harness.worker("estimators", task, peer, str(args.epochs), str(seed))["score"]
                for seed in SEEDS
            ]
            for peer in PEERS
        }
        means = {peer: sum(found) / len(found) for peer, found in scores[task].items()}
        near = abs(means["xnn"] - means["scikit-learn"]) <= POINTS
        reached &= near
        told = ", ".join(f"{peer} {mean:.4f}" for peer, mean in means.items())
        print(f"{task}, mean test score of {len(SEEDS)} seeds: {told}{'' if near else ', APART'}")
    if not args.no_write:
        harness.write("estimators", {**where, "results": tables, "scores": scores})
    return 0 if reached else 1


# Workers: what runs in the processes.


def data(task):
    """Return training and test data of a task, float64."""
    if task == "fit regression":
        from sklearn.datasets import make_regression

        x, y = make_regression(20_000, 8, noise=10.0, random_state=0)
        y = (y - y.mean()) / y.std()
    elif task == "fit digits":
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        x = x / 16
    else:
        x, y = networks.data()
        x = x / 255.0
    order = np.random.default_rng(0).permutation(len(x))
    held = order[: len(x) // 5]
    kept = order[len(x) // 5 :]
    return (x[kept], y[kept]), (x[held], y[held])


def model(task, peer, epochs, seed):
    """Return an estimator with default settings; for MNIST with the given number of epochs."""
    if peer == "xnn":
        import xnn.estimators as module
    else:
        import sklearn.neural_network as module
    if task == "fit regression":
        return module.MLPRegressor(random_state=seed)
    if task == "fit digits":
        return module.MLPClassifier(random_state=seed)
    return module.MLPClassifier(random_state=seed, max_iter=epochs)


def fit(task, peer, epochs, seed):
    train, test = data(task)
    made = model(task, peer, epochs, seed)
    clone = model(task, peer, 1, seed).set_params(max_iter=1)
    clone.fit(train[0][:400], train[1][:400])  # imports, threads
    began = time.perf_counter()
    made.fit(*train)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "samples": len(train[0]) * made.n_iter_, "score": made.score(*test)}


def predict(task, peer):
    (x, y), _ = data(task)
    rows = 1 if "one" in task else 10_000
    made = model(task, peer, 1, 0).fit(x[:2000], y[:2000])
    x = np.ascontiguousarray(x[:rows])
    times = []
    for _ in range(2000 if rows == 1 else 30):
        began = time.perf_counter()
        made.predict(x)
        times.append(time.perf_counter() - began)
    return {"seconds": median(times), "samples": len(x)}


if __name__ == "__main__":
    task, peer, epochs, *seed = sys.argv[1:]
    with warnings.catch_warnings(action="ignore"):  # that training could continue
        if task.startswith("predict"):
            figures = predict(task, peer)
        else:
            figures = fit(task, peer, int(epochs), int(seed[0]) if seed else 0)
    print(json.dumps(figures))
