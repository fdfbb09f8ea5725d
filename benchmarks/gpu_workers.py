"""The processes of `python -m benchmarks gpu`: each runs one peer, or one measurement of xnn.

For all peers, data are on the device before the clock starts: bytes for xnn, float32 for the
others. The order of an epoch's samples is drawn before the clock starts, and transferred after; but
xnn draws it within the measured time, and checks that everything is finite. Every epoch is timed to
the end of its last step. float32 means products of exactly that:

- xnn: ``precision="float32"``, where cuBLAS is in its default mode;
- PyTorch: ``set_float32_matmul_precision("highest")``, and ``cudnn.allow_tf32 = False``, which is
  True by default;
- JAX: ``jax_default_matmul_precision = "float32"``, since its own default is TF32 here.

TF32 is ``"tf32"``, ``"high"`` (and True) and ``"tensorfloat32"``. For convolutions PyTorch lets
cuDNN try its algorithms, and uses the faster memory format.
"""

import inspect
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from statistics import median

import numpy as np

from . import networks

#: xnn without its own kernels for small products.
CUBLAS = "xnn, all products by cuBLAS"
#: The most training steps that are unrolled into one CUDA graph, for xnn too.
SEVERAL = 64
#: Seconds after which a sweep starts no further task.
SWEEP_SECONDS = 80


@dataclass(frozen=True)
class Task:
    """A network to train, and how."""

    sizes: list[int | str]  # see `networks`
    activation: str
    batch: int
    rate: float
    steps: int  # in an epoch
    epochs: int = 5  # that are timed
    precision: str = "float32"
    device: str = "gpu"

    @property
    def samples(self) -> int:
        return self.batch * self.steps

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images and labels, MNIST's repeated if an epoch takes more."""
        x, y = networks.data()
        return np.resize(x, (self.samples, 784)), np.resize(y, self.samples)

    def order(self, rng: np.random.Generator) -> np.ndarray:
        """Return the rows of an epoch's mini-batches, ``(steps, batch)``."""
        return rng.permutation(self.samples).reshape(self.steps, self.batch)


class AbsentError(Exception):
    """A peer is unavailable; the message says why."""


# Trains an epoch on rows in this order, waits until it is done, and returns nothing.
Epoch = Callable[[np.ndarray], None]
# Returns the network's outputs, on the host; before softmax where there is one.
Outputs = Callable[[np.ndarray], np.ndarray]


def torch_peer(task: Task, x, y, how: str = "eager", several: int = 1) -> tuple[Epoch, Outputs]:
    """Train with PyTorch: ``how`` is eager, graph (by hand), or a mode of torch.compile."""
    import torch

    if task.device != "cpu" and not torch.cuda.is_available():
        raise AbsentError("PyTorch sees no GPU")
    if task.device == "cpu" and how == "graph":
        raise AbsentError("only a GPU has CUDA graphs")
    torch.set_float32_matmul_precision("high" if task.precision == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = task.precision == "tf32"
    torch.backends.cudnn.benchmark = True
    if task.device == "cpu":
        torch.set_num_threads(1)
    there = torch.device("cpu" if task.device == "cpu" else "cuda")
    inputs = torch.from_numpy(x).to(there).float().div_(255)
    labels = torch.from_numpy(y).long().to(there)
    targets = torch.eye(10, device=there)[labels] if task.activation == "sigmoid" else labels
    convolutional = networks.convolutional(task.sizes)
    if convolutional:
        inputs = inputs.view(-1, 1, 28, 28)

    def wait() -> None:
        if there.type == "cuda":
            torch.cuda.synchronize()

    def make(order_of_axes) -> tuple:
        net = networks.torch_network(task.sizes, task.activation)
        net = net.to(there, memory_format=order_of_axes)
        # One kernel for all parameters; torch.compile makes its own.
        fused = True if how in ("eager", "graph") else None
        optimizer = torch.optim.SGD(net.parameters(), lr=task.rate, fused=fused)

        def step(index) -> None:
            rows = inputs.index_select(0, index)
            if convolutional:
                rows = rows.contiguous(memory_format=order_of_axes)
            cost = networks.torch_cost(task.activation, net(rows), targets.index_select(0, index))
            cost.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)  # last, so that a graph finds none to begin with

        return net, step

    def seconds(order_of_axes) -> float:
        _, step = make(order_of_axes)
        some = torch.arange(task.batch, device=there)
        for number in range(13):
            if number == 3:  # cuDNN has tried its algorithms
                wait()
                began = time.perf_counter()
            step(some)
        wait()
        return time.perf_counter() - began

    best = torch.contiguous_format
    if convolutional:
        best = min((best, torch.channels_last), key=seconds)
    net, step = make(best)

    def epoch(order: np.ndarray) -> None:
        for index in torch.from_numpy(order).to(there):
            step(index)
        wait()

    def compiled_epoch(order: np.ndarray) -> None:
        for index in torch.from_numpy(order).to(there):
            torch.compiler.cudagraph_mark_step_begin()
            compiled(index)
        wait()

    def outputs(rows: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            a = torch.from_numpy(rows).to(there).float().div_(255).view(-1, *inputs.shape[1:])
            return net(a).cpu().numpy()

    if how == "graph":
        return torch_graph(torch, task, step, divisor(task.steps, several)), outputs
    if how == "eager":
        return epoch, outputs
    for data in (inputs, targets):  # else they would be copied at each step
        torch._dynamo.mark_static_address(data)
    compiled = torch.compile(step, mode=how, dynamic=False)
    return compiled_epoch, outputs


def divisor(number: int, most: int) -> int:
    """Return the largest divisor of ``number`` that is at most ``most``."""
    return max(d for d in range(1, most + 1) if number % d == 0)


def torch_graph(torch, task: Task, step: Callable, several: int) -> Epoch:
    """Return what trains by replaying a CUDA graph of ``several`` whole steps.

    A counter on the device selects the mini-batch: a replay is all that the host does.
    """
    order = torch.zeros((task.steps, task.batch), dtype=torch.int64, device="cuda")
    at = torch.zeros(1, dtype=torch.int64, device="cuda")

    def counted() -> None:
        step(order.index_select(0, at).view(-1))
        at.add_(1)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # PyTorch's documentation asks for a warm-up on a side stream
        for _ in range(3):
            at.zero_()
            counted()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(several):
            counted()

    def epoch(rows: np.ndarray) -> None:
        order.copy_(torch.from_numpy(rows))
        at.zero_()
        for _ in range(task.steps // several):
            graph.replay()
        torch.cuda.synchronize()

    return epoch


def jax_peer(task: Task, x, y, several: int = 1) -> tuple[Epoch, Outputs]:
    """Train with JAX: one compiled scan over the epoch, ``several`` steps per iteration."""
    import jax
    import jax.numpy as jnp

    if task.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        raise AbsentError("JAX sees no GPU")
    exact = {"float32": "float32", "tf32": "tensorfloat32"}[task.precision]
    jax.config.update("jax_default_matmul_precision", exact)
    data = jnp.asarray(x).astype(jnp.float32) / 255, jax.nn.one_hot(jnp.asarray(y), 10)
    state = networks.jax_network(task.sizes)

    @jax.jit
    def run(parameters, data, order):
        def step(parameters, index):
            a, t = (array.at[index].get(mode="promise_in_bounds") for array in data)
            return networks.jax_step(task.activation, task.rate, parameters, a, t), None

        return jax.lax.scan(step, parameters, order, unroll=several)[0]

    def epoch(order: np.ndarray) -> None:
        nonlocal state
        state = jax.block_until_ready(run(state, data, jnp.asarray(order, jnp.int32)))

    def outputs(rows: np.ndarray) -> np.ndarray:
        a = jnp.asarray(rows).astype(jnp.float32) / 255
        return np.asarray(networks.jax_outputs(task.activation, state, a))

    return epoch, outputs


def train(epoch: Epoch, outputs: Outputs, task: Task, x, y) -> tuple[list[float], float]:
    """Return the seconds of each epoch after a first one, and the accuracy after all."""
    rng = np.random.default_rng(0)
    seconds = []
    for _ in range(1 + task.epochs):
        order = task.order(rng)
        began = time.perf_counter()
        epoch(order)
        seconds.append(time.perf_counter() - began)
    rows = slice(0, 50_000)
    return seconds[1:], float((outputs(x[rows]).argmax(1) == y[rows]).mean())


def fitted(task: Task, x, y):
    """Return a network of xnn after `train`'s epochs, and its history."""
    import xnn

    options = {"device": task.device, "precision": task.precision}
    net = networks.xnn_network(task.sizes, task.activation, **options)
    history = net.fit(
        *(x, y),
        epochs=1 + task.epochs,
        batch_size=task.batch,
        optimizer=xnn.SGD(task.rate),
        progress=False,
    )
    return net, history


PEERS: dict[str, Callable[..., tuple[Epoch, Outputs]]] = {
    "PyTorch eager": torch_peer,
    "PyTorch CUDA graph": lambda *a: torch_peer(*a, "graph"),
    "PyTorch CUDA graph, unrolled": lambda *a: torch_peer(*a, "graph", SEVERAL),
    "PyTorch reduce-overhead": lambda *a: torch_peer(*a, "reduce-overhead"),
    "PyTorch max-autotune": lambda *a: torch_peer(*a, "max-autotune"),
    "JAX jit+scan": jax_peer,
    "JAX jit+scan, unrolled": lambda *a: jax_peer(*a, 8),
}


# What a process does: each takes a task and a peer, and returns figures for JSON.


def training(task: Task, peer: str) -> dict:
    """Measure training steps."""
    x, y = task.data()
    figures = {}
    if peer == CUBLAS:
        from xnn.backends.gpu import GpuBackend

        GpuBackend.small_product = 0
    if peer in ("xnn", CUBLAS):
        net, history = fitted(task, x, y)
        seconds, rows = history.seconds[1:], slice(0, 50_000)
        accuracy = net.evaluate(x[rows], y[rows]).accuracy
        backend = net.core.engine.backend
        figures["no graphs"] = getattr(backend, "uncaptured", "only a GPU has CUDA graphs")
    else:
        seconds, accuracy = train(*PEERS[peer](task, x, y), task, x, y)
    return {
        "seconds": median(seconds) / task.steps,
        "samples": task.batch,
        "accuracy": accuracy,
        **figures,
    }


def sweep(tasks: list[Task], peer: str) -> dict:
    """Measure training steps of several tasks in turn, as many as time allows."""
    points: list[list] = []
    began = time.monotonic()
    for task in tasks:
        if points and time.monotonic() - began > SWEEP_SECONDS:
            break
        points.append([task.batch, training(task, peer)["seconds"]])
    return {"points": points}


def products(task: Task, peer: str) -> dict:
    """Measure bare matrix products: those of a training step, of arrays without gaps or biases."""
    from xnn.backends import select

    backend = select(task.device, task.precision)
    rng = np.random.default_rng(0)

    def matrix(rows: int, columns: int):
        return backend.upload(rng.standard_normal((rows, columns), np.float32))

    batch, operands = task.batch, []
    for i, (m, n) in enumerate(itertools.pairwise(task.sizes)):
        a, w, delta = matrix(batch, m), matrix(n, m), matrix(batch, n)
        operands += [(a, w.T), (delta.T, a)]  # forward, and the gradient
        if i > 0:
            operands.append((delta, w))  # the error back
    outs = [backend.zeros((len(a), b.shape[1]), np.float32) for a, b in operands]
    multiplications = sum(a.size * b.shape[1] for a, b in operands)

    def step() -> None:
        for (a, b), out in zip(operands, outs, strict=True):
            backend.gemm(a, b, out)

    with backend.stage(max(a.size * b.shape[1] for a, b in operands)):
        # As long as training is measured: a GPU that gets hot becomes slower.
        seconds = time_replay(backend, backend.compile(step), least=0.3)
    return {
        "seconds": seconds,
        "samples": batch,
        "operations_per_second": 2 * multiplications / seconds,
    }


def calls(task: Task, peer: str) -> dict:
    """Measure what a step of xnn consists of: each operation of a recorded chunk by itself.

    On a GPU an operation is one launch (of a product, cuBLAS may make two), and it is repeated
    within a CUDA graph: the time is the one it takes there, with what lies between two launches.
    """
    import xnn
    from xnn.samples import Samples
    from xnn.steps import Recipe, Trainer

    net = networks.xnn_network(
        task.sizes, task.activation, device=task.device, precision=task.precision
    )
    engine, backend = net.core.engine, net.core.engine.backend
    x, y = task.data()
    samples, recipe = Samples(x, y, None, "argmax"), Recipe(xnn.SGD(task.rate), task.batch)
    steps = Trainer(engine, samples, recipe, epochs=1 + task.epochs).plan[0].steps
    with noted(backend) as operations:  # enough epochs for all steps of one to be a chunk
        trainer = Trainer(engine, samples[: steps * task.batch], recipe, epochs=1_000_000)
    assert [chunk.steps for chunk in trainer.plan] == [steps]
    # Run once, because a product times 0 would cost nothing.
    list(trainer.epoch(np.arange(steps * task.batch), np.full(steps, task.rate)))
    found: dict[str, list] = {}
    for name, arguments, options in operations:
        label = described(backend, name, arguments, options)
        found.setdefault(label, []).append((name, arguments, options))
    result = []
    with engine.stage(task.batch):
        for label, same in found.items():
            name, arguments, options = same[0]
            seconds = time_operation(backend, getattr(backend, name), arguments, options)
            result.append({"call": label, "per_step": len(same) / steps, "seconds": seconds})
    return {"steps": steps, "calls": result}


class noted:  # noqa: N801 - reads as a phrase
    """Within it, all operations requested of a backend are noted, with their arguments."""

    NAMES = (
        *("gemm", "elementwise", "update", "softmax", "row_sums", "argmax", "gather"),
        *("unfold", "fold", "max_pool", "max_pool_backward"),
    )

    def __init__(self, backend) -> None:
        self.backend = backend

    def __enter__(self) -> list[tuple[str, tuple, dict]]:
        from xnn.backends import Backend

        operations: list[tuple[str, tuple, dict]] = []

        def noting(name: str) -> Callable[..., None]:
            operation = getattr(self.backend, name)

            def call(*arguments, **options) -> None:
                operations.append((name, arguments, options))
                operation(*arguments, **options)

            return call

        for name in self.NAMES:
            setattr(self.backend, name, noting(name))
        self.backend.repeat = partial(Backend.repeat, self.backend)  # which skips none of them
        return operations

    def __exit__(self, *_: object) -> None:
        for name in (*self.NAMES, "repeat"):
            delattr(self.backend, name)  # the class has it


def described(backend, name: str, arguments: tuple, options: dict) -> str:
    """Return an operation of a backend in words: what it is, and of what size."""
    given = inspect.signature(getattr(backend, name)).bind(*arguments, **options).arguments
    if name == "gemm":
        (rows, inner), columns = given["a"].shape, given["b"].shape[1]
        return f"gemm ({rows}, {inner}) @ ({inner}, {columns})"
    if name == "update":
        swept = next(value for value in given["operands"].values() if getattr(value, "ndim", 0))
        return f"{given['program']} {tuple(swept.shape)}"
    what = given["formula"] if name == "elementwise" else name
    return f"{what} {tuple(given['out'].shape)}"


def time_operation(backend, operation: Callable, arguments: tuple, options: dict) -> float:
    """Return the seconds that one operation takes among others like it."""
    repeats = 20

    def repeated() -> None:
        for _ in range(repeats):
            operation(*arguments, **options)

    return time_replay(backend, backend.compile(repeated)) / repeats


def time_replay(backend, replay: Callable[[], None], least: float = 0.01) -> float:
    """Return the seconds of a replay: the median of three times as many as take a while."""
    count, took = 1, 0.0
    while took < least:  # which warms up, too
        count *= 2
        took = clocked(backend, replay, count)
    return median(clocked(backend, replay, count) for _ in range(3)) / count


def clocked(backend, replay: Callable[[], None], count: int) -> float:
    backend.synchronize()
    began = time.perf_counter()
    for _ in range(count):
        replay()
    backend.synchronize()
    return time.perf_counter() - began


def first_epoch(task: Task, peer: str) -> dict:
    """Return when the first epoch was done, by the clock."""
    fitted(task, *task.data())
    return {"ended": time.time()}


def card(task: Task, peer: str) -> dict:
    """Describe the GPU; or say, in one line, why it is unavailable."""
    from xnn import DeviceError
    from xnn.backends import gpus, select

    try:
        select(task.device)
    except (DeviceError, ValueError) as error:
        return {"refused": str(error)}
    if task.device == "cpu":
        return {"name": "no GPU"}
    number = int(task.device.partition(":")[2] or 0)
    found = gpus()
    driver = f"{driver_version()} {found['NVIDIA driver']}".strip()
    return {**found["GPUs"][number], "driver": driver, "CuPy": found["CuPy"]}


def driver_version() -> str:
    """Return the version of NVIDIA's driver, empty if unknown."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.split()[0] if said.stdout.split() else ""


JOBS: dict[str, Callable[..., dict]] = {
    "training": training,
    "sweep": sweep,
    "products": products,
    "calls": calls,
    "first epoch": first_epoch,
    "card": card,
}


def main(job: str, peer: str, described: str) -> dict:
    """Do a job for a peer; ``described`` is its task, or a list of tasks, as JSON."""
    read = json.loads(described)
    tasks = [Task(**task) for task in read] if isinstance(read, list) else Task(**read)
    try:
        return JOBS[job](tasks, peer)
    except AbsentError as error:
        return {"absent": str(error)}


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
