"""The command line: ``xnn train``, ``evaluate``, ``predict``, ``export`` and ``info``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from . import datasets, images, optimizers
from .backends import DeviceError
from .checkpoints import Checkpoints
from .info import facts
from .layers import Dense
from .network import Network, default_rate, load
from .version import __version__

_CONTEXT = {"help_option_names": ["-h", "--help"], "show_default": True}
_MODEL = "digits.safetensors"
#: Errors in what was asked for, and failures while doing it.
_REFUSED = (DeviceError, ImportError, OSError, ValueError)
_FAILED = (FloatingPointError, MemoryError)
#: Data sets, and the number of pixels per image.
_PIXELS = {"mnist": images.SIDE**2, "digits": 64}
_ACTIVATIONS = click.Choice(["sigmoid", "tanh", "relu", "leaky_relu", "linear"])
#: Costs, each with the activation of its output layer.
_OUTPUTS = {"quadratic": "sigmoid", "cross_entropy": "sigmoid", "log_likelihood": "softmax"}
_OPTIMIZERS: dict[str, Callable[..., optimizers.Optimizer]] = {
    "sgd": optimizers.SGD,
    "adam": optimizers.Adam,
    "rmsprop": optimizers.RMSprop,
}
_RATES = (
    "Learning rate.  [default: 0.1 for sgd, 0.5 with the quadratic cost; 0.001 for adam, "
    "0.01 for rmsprop]"
)
_POSITIVE = click.IntRange(min=1)
_INTERRUPTED = 130  # the shells' exit status for Ctrl-C


class _Commands(click.Group):
    """Commands whose errors are one line and an exit status: 2 if refused, 1 if failed."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (*_REFUSED, *_FAILED) as error:
            click.echo(f"xnn: {_line(error)}", err=True)
            ctx.exit(2 if isinstance(error, _REFUSED) else 1)
        except KeyboardInterrupt:
            click.echo("\nxnn: interrupted", err=True)
            ctx.exit(_INTERRUPTED)


def _line(error: BaseException) -> str:
    """Return an error's message as one line."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_device = click.option(
    "--device", help="cpu, gpu, gpu:N or auto; default XNN_DEVICE, else the CPU."
)
_model = click.argument("model", type=click.Path(path_type=Path), default=_MODEL)


def _data(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a data set."""
    kinds = click.Choice(list(_PIXELS))
    where = "Folder of MNIST's files, mnist.npz or mnist.pkl.gz; default XNN_DATA, else a download."
    command = click.option("--data", metavar="PATH", help=where)(command)
    told = "MNIST, or scikit-learn's 8 × 8 digits."
    return click.option("--dataset", type=kinds, default="mnist", help=told)(command)


def _network(model: str | Path, device: str | None) -> Network:
    """Return the network in a file. Raises `FileNotFoundError`, which says how to train one."""
    if not Path(model).exists():
        raise FileNotFoundError(f"{model}: no such model; train one with xnn train {model}")
    return load(model, device=device)


def _load(dataset: str, data: str | None) -> Any:
    """Return training, validation and test pairs."""
    if dataset == "digits" and data is not None:
        raise ValueError("--data is for MNIST; the digits come with scikit-learn")
    return datasets.digits() if dataset == "digits" else datasets.mnist(data)


@click.group(cls=_Commands, context_settings=_CONTEXT)
@click.version_option(__version__, message="xnn %(version)s")
def main() -> None:
    """Neural networks on a CPU or an NVIDIA GPU.

    \b
    Completion of commands and options, in bash (zsh and fish are similar):
        eval "$(_XNN_COMPLETE=bash_source xnn)"
    """  # noqa: D301 - click's mark for a paragraph not to rewrap


@main.command()
@_model
@click.option(
    "--hidden",
    type=int,
    multiple=True,
    default=[30],
    help="Neurons of a hidden layer; repeat for more layers.",
)
@click.option("--activation", type=_ACTIVATIONS, default="sigmoid", help="Of the hidden layers.")
@click.option(
    "--cost",
    type=click.Choice(list(_OUTPUTS)),
    default="cross_entropy",
    help="The outputs are softmax for log_likelihood, else sigmoid.",
)
@click.option("--epochs", type=_POSITIVE, default=30)
@click.option("--batch-size", type=_POSITIVE, default=10, help="Samples per step.")
@click.option("--optimizer", type=click.Choice(list(_OPTIMIZERS)), default="sgd")
@click.option("--lr", type=float, help=_RATES)
@click.option("--seed", type=int, default=0, help="For weights and shuffles.")
@click.option("--dtype", type=click.Choice(["float32", "float64"]), default="float32")
@click.option("--checkpoint", metavar="DIR", help="Write checkpoints to a folder.")
@click.option("--every", help="How often: '500 steps', '10 minutes' …  [default: 1 epoch]")
@click.option("--resume", is_flag=True, help="Continue from the newest checkpoint, if any.")
@_data
@_device
@_as_json
def train(
    model: Path,
    hidden: tuple[int, ...],
    activation: str,
    cost: str,
    epochs: int,
    batch_size: int,
    optimizer: str,
    lr: float | None,
    seed: int,
    dtype: str,
    checkpoint: str | None,
    every: str | None,
    resume: bool,
    dataset: str,
    data: str | None,
    device: str | None,
    as_json: bool,
) -> None:
    """Train a network on digits and save it to MODEL.

    MODEL defaults to digits.safetensors.

    Example: xnn train --hidden 100 --epochs 10
    """
    if not model.absolute().parent.is_dir():
        raise FileNotFoundError(f"{model}: no such folder to save to")
    if model.is_dir():
        raise IsADirectoryError(f"{model}: is a folder, not a file to save to")
    if resume and checkpoint is None:
        raise click.UsageError("--resume needs the folder of the checkpoints: --checkpoint DIR")
    if every and checkpoint is None:
        raise click.UsageError("--every needs a folder for the checkpoints: --checkpoint DIR")
    (x, y), validation, test = _load(dataset, data)
    layers = [Dense(units, activation) for units in hidden]
    outputs = Dense(10, _OUTPUTS[cost])
    if lr is None and optimizer == "sgd":
        lr = default_rate(cost)
    net = Network([x.shape[1], *layers, outputs], cost, seed=seed, device=device, dtype=dtype)
    keeps = None if checkpoint is None else Checkpoints(checkpoint, every=every or 1)
    newest = keeps.newest() if keeps and resume else None
    trained: list[int] = []
    callbacks: list[Any] = [
        *([keeps] if keeps else []),
        lambda training: trained.append(training.epoch),
    ]
    if not as_json:
        callbacks.append(_print_epoch)
        click.echo(net)
    history = net.fit(
        x,
        y,
        epochs=epochs,
        batch_size=batch_size,
        optimizer=_OPTIMIZERS[optimizer](**({} if lr is None else {"learning_rate": lr})),
        validation_data=validation,
        callbacks=callbacks,
        progress=False if as_json else None,
        resume=newest,
    )
    if newest is not None and not trained and not history.interrupted:
        already = f"{newest} has already reached epoch {len(history.cost)}"
        click.echo(f"xnn: nothing to train: {already}, and --epochs is the total", err=True)
    net.save(model)
    found = net.evaluate(*test)
    if as_json:
        told = {"model": str(model), **found._asdict(), "history": history.saved()}
        click.echo(json.dumps(told))
    else:
        click.echo(f"{model}: test accuracy {found.accuracy:.2%}")
    if history.interrupted:
        raise click.exceptions.Exit(_INTERRUPTED)


def _print_epoch(training: Any) -> None:
    history = training.history
    cost, accuracy = history.cost[-1], history.validation_accuracy[-1]
    told = f"cost {cost:.4g}, validation accuracy {accuracy:.2%}"
    click.echo(f"epoch {training.epoch + 1}/{training.epochs}: {told}")


@main.command()
@_model
@_data
@_device
@_as_json
def evaluate(
    model: Path, dataset: str, data: str | None, device: str | None, as_json: bool
) -> None:
    """Show the cost and accuracy of MODEL on test images.

    MODEL defaults to digits.safetensors.

    Example: xnn evaluate digits.safetensors
    """
    net = _network(model, device)
    inputs = net.sizes[0]
    if inputs != _PIXELS[dataset]:
        fits = (f"; try --dataset {name}" for name, pixels in _PIXELS.items() if pixels == inputs)
        wanted = f"images of {dataset} have {_PIXELS[dataset]} pixels{next(fits, '')}"
        raise ValueError(f"{model}: takes {inputs} numbers, but {wanted}")
    x, y = _load(dataset, data)[-1]
    found = net.evaluate(x, y)
    told = {"model": str(model), "samples": len(x), **found._asdict()}
    accuracy = "" if found.accuracy is None else f", accuracy {found.accuracy:.2%}"
    words = f"{model}: cost {found.cost:.4g}{accuracy} on {len(x):,} images"
    click.echo(json.dumps(told) if as_json else words)


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-m", "--model", default=_MODEL, help="The network.")
@_device
@_as_json
def predict(files: tuple[Path, ...], model: str, device: str | None, as_json: bool) -> None:
    """Read the handwritten digit in each picture.

    A picture shows one digit, of any size, dark on light or light on dark. The digit is printed
    with, in brackets, the network's output for it: 1 if it is certain. If some pictures cannot be
    read, the others still are, and the exit status is 2.

    Example: xnn predict three.png seven.png --model digits.safetensors
    """
    net = _network(model, device)
    if net.sizes[0] != images.SIDE**2:
        wanted = f"{images.SIDE} × {images.SIDE} = {images.SIDE**2} pixels, as in MNIST"
        raise ValueError(f"{model}: takes {net.sizes[0]} numbers, but digits are {wanted}")
    told: list[dict[str, Any]] = []
    status = 0
    for path in files:
        try:
            image = images.digit(path)
        except (OSError, ValueError) as error:
            click.echo(f"xnn: {_line(error)}", err=True)
            told.append({"file": str(path), "error": _line(error)})
            status = 2
            continue
        outputs = net.predict(image[np.newaxis]).ravel()
        best = int(outputs.argmax())
        told.append({"file": str(path), "digit": best, "outputs": outputs.tolist()})
        if not as_json:
            click.echo(f"{path}: {best} ({outputs[best]:.2f})")
    if as_json:
        click.echo(json.dumps(told))
    raise click.exceptions.Exit(status)


@main.command()
@click.argument(
    "files", metavar="[MODEL] OUT", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@_as_json
def export(files: tuple[Path, ...], as_json: bool) -> None:
    """Write MODEL to OUT as ONNX.

    MODEL defaults to digits.safetensors.

    Example: xnn export digits.safetensors digits.onnx
    """
    *models, out = files
    if len(models) > 1:
        raise click.UsageError("give at most one MODEL and one OUT")
    if out.suffix.lower() != ".onnx":  # perhaps a MODEL, which must not be overwritten
        raise click.UsageError(f"{out}: OUT, the file to write, must be named .onnx")
    model = models[0] if models else Path(_MODEL)
    net = _network(model, "cpu")
    net.export_onnx(out)
    told = {"model": str(model), "out": str(out), "bytes": out.stat().st_size}
    click.echo(json.dumps(told) if as_json else f"{out}: {told['bytes']:,} bytes of ONNX")


@main.command()
@click.argument("model", type=click.Path(path_type=Path), required=False)
@_as_json
def info(model: Path | None, as_json: bool) -> None:
    """Show what xnn runs on, or what MODEL is.

    Without MODEL: versions, available devices, and what is missing to use a GPU.

    Example: xnn info digits.safetensors
    """
    if model is None:
        found = facts()
        click.echo(json.dumps(found, indent=2) if as_json else _table(found))
        return
    net = _network(model, "cpu")
    told = {
        "model": str(model),
        "shapes": [list(shape) for shape in net.shapes],
        "layers": [layer.describe() for layer in net.layers],
        "cost": net.cost,
        "dtype": str(net.dtype),
    }
    click.echo(json.dumps(told, indent=2) if as_json else net)


def _table(found: dict[str, Any]) -> str:
    rows = []
    for name, value in found.items():
        if name == "GPUs":
            rows += [(gpu["device"], _gpu(gpu)) for gpu in value]
        else:
            rows.append((name, value))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _gpu(gpu: dict[str, Any]) -> str:
    free, memory = (f"{gpu[name] / 2**30:.1f}" for name in ("free", "memory"))
    graphs = "CUDA graphs" if gpu["graphs"] is True else f"no CUDA graphs: {gpu['graphs']}"
    return (
        f"{gpu['name']}, compute capability {gpu['compute_capability']}, "
        f"{free} of {memory} GiB free, {graphs}"
    )
