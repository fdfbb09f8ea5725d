"""The best on MNIST: one network, or several that vote.

python examples/record.py
python examples/record.py --device gpu
python examples/record.py --device gpu --ensemble 3
python examples/record.py --networks 5x5 3x3 --ensemble 2 --checkpoint runs --resume

On a GPU this trains one of the networks of An et al. 2020 (arXiv 2008.10400), with --ensemble 3 one
of each kind: convolutions of 5×5, 3×3 or 7×7 with batch normalisation and no pooling. Each would
take about an hour on two CPU cores. The paper trains for 150 epochs; here the learning rate rises
and falls once in 20, and images are changed less. On a CPU it trains a smaller network of the same
kind, which halves the images early; with --ensemble 3 three of them.

Images are changed at random in training, and weights averaged. A network ends with the weights of
the epoch with the lowest cost on validation data, 5,000 images held out; training stops after 50
epochs without improvement. The test images decide nothing.

With --checkpoint runs, a network is saved as runs/5x5-0/best.safetensors, which xnn.load reads, and
the newest epoch beside it. With --resume too, interrupted trainings continue from there, and
finished ones are not repeated.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import mnist

import xnn

VALIDATION = 5_000
AUGMENTATION = xnn.RandomAffine(shift=2, rotation=10, scale=0.1, shear=5)


def main() -> int:
    args = parse_arguments()
    try:
        on_cpu = xnn.backends.select(args.device).device == "cpu"
        names = args.networks or (["small"] if on_cpu else ["5x5", "3x3", "7x7"])
        *data, test = xnn.datasets.mnist(args.data, validation=VALIDATION)
        nets, histories = [], []
        for i in range(args.ensemble):
            net, history = trained(names[i % len(names)], args.seed + i, data, args)
            nets.append(net)
            histories.append(history)
            print(f"Test accuracy {net.evaluate(*test).accuracy:.2%}", flush=True)
            if history.interrupted:
                return 130
        ensemble = xnn.Ensemble(nets, "majority")
        if len(nets) > 1:
            print(f"{len(nets)} networks by majority: test accuracy {ensemble.accuracy(*test):.2%}")
    except mnist.EXPECTED as error:
        print(f"record.py: {error}", file=sys.stderr)
        return 2
    return 0 if all(epochs_to(args.target, history) for history in histories) else 1


def trained(name: str, seed: int, data, args: argparse.Namespace):
    """Return a network that has been trained, and the history of its training."""
    layers, options = RECIPES[name](args.epochs)
    # On a GPU, TF32 is accurate enough here, and several times as fast; a CPU does not have it.
    shape, precision = (28, 28, 1), "tf32"
    net = xnn.Network([shape, *layers], seed=seed, device=args.device, precision=precision)
    print(f"{name}, seed {seed}, epochs: {options['epochs']}\n{net}", flush=True)
    # Of 5,000 images some are right by chance; their cost says more.
    stopping = xnn.EarlyStopping("validation_cost", patience=50)
    callbacks, resume = [print_epoch, stopping], None
    if args.checkpoint:
        of_epochs = "" if args.epochs is None else f"-{args.epochs}"
        folder = Path(args.checkpoint, f"{name}-{seed}{of_epochs}")
        checkpoints = xnn.Checkpoints(folder, keep=1, monitor="validation_cost")
        callbacks.append(checkpoints)
        resume = checkpoints.newest() if args.resume else None
    train, validation = data
    history = net.fit(
        *train, validation_data=validation, callbacks=callbacks, resume=resume, **options
    )
    epochs = epochs_to(args.target, history)
    told = f"after {sum(history.seconds[:epochs]):.1f} s" if epochs else "was not reached"
    told += f"; {sum(history.seconds):.1f} s in all"
    if stopping.best_epoch is not None:  # None after Ctrl-C in the first epoch
        told += f"; cost least in epoch {stopping.best_epoch + 1}"
    print(f"{args.target} % {told}")
    return net, history


def print_epoch(training) -> None:
    accuracy = training.history.validation_accuracy[-1]
    print(f"Epoch {training.epoch + 1}: {accuracy:.2%} on validation data", flush=True)


def epochs_to(target: float, history: xnn.History) -> int | None:
    """Return the epochs to a target accuracy in percent on validation data; None if not reached."""
    accuracies = enumerate(history.validation_accuracy, start=1)
    return next((epoch for epoch, value in accuracies if 100 * value >= target), None)


def recipe(kernel: int, filters: Sequence[int], pooled: int, of: int, epochs: int | None):
    """Return the layers, and arguments of `fit`, for convolutions with these numbers of filters.

    After ``pooled`` of them the images are halved. There are ``of`` epochs unless ``epochs`` says
    otherwise.
    """
    layers: list[xnn.Layer] = [AUGMENTATION]
    for number, n in enumerate(filters, start=1):
        layers += [xnn.Conv2D(n, kernel, bias=False), xnn.BatchNorm(), xnn.Activation("relu")]
        if number == pooled:
            layers.append(xnn.MaxPool2D(2))
    layers += [xnn.Flatten(), xnn.Dense(10, "linear", bias=False)]
    layers += [xnn.BatchNorm(), xnn.Activation("softmax")]
    epochs = of if epochs is None else epochs
    optimizer = xnn.Averaged(xnn.Adam(xnn.schedules.OneCycle(0.003, epochs)))
    return layers, {"epochs": epochs, "batch_size": 120, "optimizer": optimizer}


#: Functions of a number of epochs, or None, that return layers and arguments of `fit`.
RECIPES = {
    "small": partial(recipe, 3, (48, 48, 96, 96, 192), 2, 24),
    "3x3": partial(recipe, 3, range(32, 177, 16), 0, 20),
    "5x5": partial(recipe, 5, range(32, 161, 32), 0, 20),
    "7x7": partial(recipe, 7, range(48, 193, 48), 0, 20),
}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--target", type=float, default=99.5, metavar="PERCENT", help="(default 99.5)")
    add("--ensemble", type=int, default=1, metavar="N", help="number of networks (default 1)")
    kinds = "taken in turn (default: small on a CPU, else 5x5 3x3 7x7)"
    add("--networks", nargs="+", choices=RECIPES, help=kinds)
    add("--epochs", type=int, metavar="N", help="maximum epochs (default 24 for small, else 20)")
    add("--device", help="cpu, gpu, gpu:N or auto (default: XNN_DEVICE, else cpu)")
    add("--data", metavar="PATH", help="a folder with MNIST's files, mnist.npz or mnist.pkl.gz")
    add("--seed", type=int, default=0, metavar="N", help="seed of the first (default 0)")
    add("--checkpoint", metavar="DIR", help="write checkpoints to subfolders of this one")
    add("--resume", action="store_true", help="continue from the newest checkpoints, if any")
    args = parser.parse_args()
    if args.resume and not args.checkpoint:
        parser.error("--resume needs the folder of the checkpoints: --checkpoint DIR")
    return args


if __name__ == "__main__":
    sys.exit(main())
