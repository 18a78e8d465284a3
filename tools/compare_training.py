"""Trains the same programs in PyTorch and in graphtorch from one seed, and compares the losses of every step.

    python tools/compare_training.py [--steps 200] [--only lenet,gpt] [--modes compiled,eager] [--backends numpy,cpu]
    python tools/compare_training.py --accuracy

The programs: LeNet, ResNet-18, an LSTM classifier and a character GPT with dropout, each with two optimizers or more.
They are written once, for a module that is either library. Initial weights, dropout and the order of updates come from
the seed; what may differ is rounding. How much of a difference is rounding's own, PyTorch shows itself: it runs again
with its other convolutions (oneDNN off), with two threads, in the channels-last order of memory, and from weights of
which each is one rounding step off, up or down at random.

The losses must agree to four significant digits (a relative difference of 5e-4) at every step; otherwise the exit
status is not 0. Some of the programs are chaotic in float32: PyTorch does not agree with itself to so many digits. Then
ten times its own difference is allowed, and float64, in which nothing is lost to rounding, must agree.

`--accuracy` compares the first step's gradients and the next steps' weights with float64's instead: a library that
rounds more than PyTorch would show there, before chaos hides it.

Prints a table in Markdown, the one in docs/training.md.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gzip
import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import graphtorch

RTOL = 5e-4
SHAKESPEARE = Path(__file__).resolve().parent.parent / "examples" / "data" / "shakespeare.txt.gz"

Batch = tuple[np.ndarray, ...]


# -- models, for either library ---------------------------------------------------------------------------------------


def lenet(library: Any) -> Any:
    """LeNet-5 as LeCun et al. published it in 1998: smooth functions and averages."""
    nn = library.nn
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


def lenet_relu(library: Any) -> Any:
    """The network of PyTorch's CIFAR-10 tutorial: LeNet with ReLU and the largest of each window."""
    nn = library.nn
    return nn.Sequential(
        nn.Conv2d(3, 6, 5),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2, 2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def resnet18(library: Any) -> Any:
    """ResNet-18 in its form for small images (a first convolution of 3 x 3, no pooling), a quarter of the channels."""
    nn = library.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inside: int, outside: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(outside)
            self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(outside)
            self.relu = nn.ReLU(inplace=True)
            self.shortcut = nn.Sequential()
            if stride != 1 or inside != outside:
                conv = nn.Conv2d(inside, outside, 1, stride, bias=False)
                self.shortcut = nn.Sequential(conv, nn.BatchNorm2d(outside))

        def forward(self, x: Any) -> Any:
            inner = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            inner += self.shortcut(x)
            return self.relu(inner)

    widths = (16, 32, 64, 128)
    layers: list[Any] = [nn.Conv2d(3, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
    inside = widths[0]
    for i, width in enumerate(widths):
        layers += [Block(inside, width, 1 if i == 0 else 2), Block(width, width, 1)]
        inside = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inside, 10))


def lstm(library: Any) -> Any:
    """Two layers with dropout between them, and a classifier of the last state."""
    nn = library.nn

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(20, 16)
            self.core = nn.LSTM(16, 32, num_layers=2, dropout=0.2, batch_first=True)
            self.head = nn.Linear(32, 5)

        def forward(self, tokens: Any) -> Any:
            return self.head(self.core(self.embed(tokens))[0][:, -1])

    return Net()


def gpt(library: Any, vocabulary: int = 64, block: int = 32, width: int = 64, heads: int = 4) -> Any:
    """A small GPT-2 with dropout everywhere: on embeddings, attention and after each part."""
    nn = library.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1 = nn.LayerNorm(width)
            self.attention = nn.MultiheadAttention(width, heads, dropout=0.1, batch_first=True)
            self.norm2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            self.dropout = nn.Dropout(0.1)
            self.register_buffer("mask", library.ones(block, block, dtype=library.bool).triu(1))

        def forward(self, x: Any) -> Any:
            h = self.norm1(x)
            x = x + self.dropout(self.attention(h, h, h, attn_mask=self.mask, need_weights=False)[0])
            return x + self.dropout(self.mlp(self.norm2(x)))

    class GPT(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Embedding(block, width)
            self.dropout = nn.Dropout(0.1)
            self.blocks = nn.Sequential(Block(), Block())
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            x = self.dropout(self.tokens(tokens) + self.positions.weight)
            return self.head(self.norm(self.blocks(x))).flatten(0, 1)

    return GPT()


# -- data -------------------------------------------------------------------------------------------------------------


def images(count: int, size: int) -> Iterator[Batch]:
    """Ten kinds of pattern under noise."""
    rng = np.random.default_rng(0)
    patterns = rng.normal(size=(10, 3, size, size))
    while True:
        labels = rng.integers(0, 10, count)
        yield patterns[labels] * 0.5 + rng.normal(size=(count, 3, size, size)), labels


def sequences() -> Iterator[Batch]:
    """Tokens; the label says in which fifth of the vocabulary their mean lies, or is wrong: a loss that never comes
    near 0 keeps relative differences from saying little."""
    rng = np.random.default_rng(0)
    while True:
        labels = rng.integers(0, 5, 16)
        tokens = np.clip(labels[:, None] * 4 + rng.integers(-4, 8, (16, 12)), 0, 19)
        yield tokens, np.where(rng.random(16) < 0.4, rng.integers(0, 5, 16), labels)


def characters() -> Iterator[Batch]:
    """Windows of the excerpt of Shakespeare."""
    text = gzip.decompress(SHAKESPEARE.read_bytes()).decode()
    alphabet = sorted(set(text))
    tokens = np.array([alphabet.index(c) for c in text])
    rng = np.random.default_rng(0)
    while True:
        starts = rng.integers(0, len(tokens) - 33, 8)
        windows = tokens[starts[:, None] + np.arange(33)]
        yield windows[:, :-1].copy(), windows[:, 1:].reshape(-1).copy()


@dataclass
class Task:
    """A program: a model, its data, and the optimizers it is trained with (a name, a class and options each)."""

    model: Callable[[Any], Any]
    data: Callable[[], Iterator[Batch]]
    optimizers: tuple[tuple[str, dict[str, Any]], ...]
    clip: float | None = None


TASKS = {
    "lenet": Task(
        lenet,
        lambda: images(32, 32),
        (("SGD", {"lr": 0.01, "momentum": 0.9}), ("Adam", {"lr": 1e-3})),
    ),
    "lenet_relu": Task(
        lenet_relu,
        lambda: images(8, 32),
        (("SGD", {"lr": 0.01, "momentum": 0.9}), ("Adagrad", {"lr": 1e-3}), ("Adam", {"lr": 3e-4})),
    ),
    # Small steps of large batches: what a ReLU that rounding decides changes stays small.
    "resnet18": Task(
        resnet18,
        lambda: images(128, 16),
        (("SGD", {"lr": 1e-4}), ("AdamW", {"lr": 1e-5})),
    ),
    "resnet18_fast": Task(
        resnet18,
        lambda: images(16, 16),
        (("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4}), ("AdamW", {"lr": 1e-4})),
    ),
    "lstm": Task(
        lstm,
        sequences,
        (("RMSprop", {"lr": 1e-3}), ("NAdam", {"lr": 2e-3})),
        clip=1.0,
    ),
    "gpt": Task(
        gpt,
        characters,
        (("AdamW", {"lr": 2e-3, "weight_decay": 0.1}), ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True})),
        clip=1.0,
    ),
}


# -- running ----------------------------------------------------------------------------------------------------------


def losses(
    library: Any,
    task: Task,
    optimizer: tuple[str, dict[str, Any]],
    steps: int,
    dtype: str,
    compile: Any = None,
    nudge: int | None = None,
) -> np.ndarray:
    """The loss of every step; with `nudge`, from weights that are one rounding step off, up or down by that seed."""
    before = library.get_default_dtype()
    library.set_default_dtype(getattr(library, dtype))
    try:
        library.manual_seed(0)
        model = task.model(library)
    finally:
        library.set_default_dtype(before)
    if nudge is not None:
        rng = np.random.default_rng(nudge)
        with library.no_grad():
            for parameter in model.parameters():
                values = parameter.numpy()
                towards = np.where(rng.random(values.shape) < 0.5, -np.inf, np.inf).astype(dtype)
                parameter.copy_(library.from_numpy(np.nextafter(values, towards)))
    name, options = optimizer
    update = getattr(library.optim, name)(model.parameters(), **options)

    def step(inputs: Any, targets: Any) -> Any:
        update.zero_grad()
        loss = library.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        if task.clip is not None:
            library.nn.utils.clip_grad_norm_(model.parameters(), task.clip)
        update.step()
        return loss

    run = step if compile is None else compile(step)
    found = []
    for arrays in itertools.islice(task.data(), steps):
        cast = (array.astype(dtype) if array.dtype.kind == "f" else array for array in arrays)
        inputs, targets = map(library.from_numpy, cast)
        found.append(run(inputs, targets).item())
    return np.array(found)


def in_mode(task: Task, optimizer: Any, steps: int, dtype: str, mode: str, backend: str) -> np.ndarray:
    """graphtorch's losses, eager or compiled."""

    def compile(function: Any) -> Any:
        return graphtorch.compile(function, backend=backend, fullgraph=True)

    return losses(graphtorch, task, optimizer, steps, dtype, compile if mode == "compiled" else None)


@contextlib.contextmanager
def threads(torch: Any, count: int) -> Iterator[None]:
    """PyTorch on so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread(torch: Any) -> contextlib.AbstractContextManager[None]:
    """PyTorch on one thread: its threads cost more than they bring for sizes like these."""
    return threads(torch, 1)


def itself(torch: Any, task: Task, optimizer: Any, steps: int, dtype: str, expected: np.ndarray) -> dict[str, float]:
    """How far PyTorch's losses lie from `expected`, its own, if something changes that ought not to matter."""

    def against(other: Task = task, **options: Any) -> float:
        return difference(losses(torch, other, optimizer, steps, dtype, **options), expected)[0]

    with one_thread(torch):
        found = {f"weights one rounding off ({seed})": against(nudge=seed) for seed in (0, 1)}
        with torch.backends.mkldnn.flags(enabled=False):
            found["oneDNN off"] = against()
        last = dataclasses.replace(task, model=lambda lib: task.model(lib).to(memory_format=lib.channels_last))
        found["channels last"] = against(last)
    with threads(torch, 2):
        found["two threads"] = against()
    return found


def difference(found: np.ndarray, expected: np.ndarray) -> tuple[float, int]:
    """The largest relative difference and the step it is at; infinite for NaN."""
    relative = np.abs(found - expected) / np.abs(expected)
    relative = np.where(np.isnan(relative), np.inf, relative)
    at = int(relative.argmax())
    return float(relative[at]), at


def accuracy(torch: Any, names: Sequence[str], backends: Sequence[str]) -> None:
    """Print how far the first step's gradients and three steps' weights lie from float64's, in rounding errors.

    An error is the root of the mean square over a parameter, divided by that of the parameter itself and 2^-24; shown
    are the median and the largest of all parameters."""
    print("| program | optimizer | run | gradients | weights after 3 steps |")
    print("|---|---|---|---|---|")
    for name in names:
        task = TASKS[name]
        for optimizer in task.optimizers:
            start = partial(first_steps, task=task, optimizer=optimizer)
            exact = start(torch, dtype="float64")
            runs = {"PyTorch": partial(start, torch), "eager": partial(start, graphtorch)}
            runs |= {f"compiled, {b}": partial(start, graphtorch, backend=b) for b in backends}
            for label, run in runs.items():
                with one_thread(torch):
                    shown = [rounding_errors(*pair) for pair in zip(run(), exact, strict=True)]
                print(f"| {name} | {optimizer[0]} | {label} | {shown[0]} | {shown[1]} |", flush=True)


def first_steps(
    library: Any,
    task: Task,
    optimizer: tuple[str, dict[str, Any]],
    dtype: str = "float32",
    backend: str | None = None,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The first step's gradients and the weights after three, from weights and data that float32 represents."""
    library.manual_seed(0)
    model = task.model(library).to(getattr(library, dtype))
    name, options = optimizer
    update = getattr(library.optim, name)(model.parameters(), **options)

    def step(inputs: Any, targets: Any) -> Any:
        update.zero_grad()
        loss = library.nn.functional.cross_entropy(model(inputs), targets)
        loss.backward()
        update.step()
        return loss

    run = step if backend is None else graphtorch.compile(step, backend=backend, fullgraph=True)
    gradients: list[np.ndarray] = []
    for arrays in itertools.islice(task.data(), 3):
        cast = (a.astype("float32").astype(dtype) if a.dtype.kind == "f" else a for a in arrays)
        run(*map(library.from_numpy, cast))
        gradients = gradients or [p.grad.numpy().astype(np.float64) for p in model.parameters()]
    return gradients, [p.detach().numpy().astype(np.float64) for p in model.parameters()]


def rounding_errors(found: Sequence[np.ndarray], exact: Sequence[np.ndarray]) -> str:
    """Median and largest error of the parameters, in float32's rounding errors."""

    def size(array: np.ndarray) -> float:
        return float(np.sqrt(np.mean(array**2)))

    errors = [size(a - e) / (size(e) * 2**-24) for a, e in zip(found, exact, strict=True) if size(e) > 0]
    return f"{np.median(errors):.2f}, {np.max(errors):.2f}"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--only", default=",".join(TASKS), help="programs (default: %(default)s)")
    parser.add_argument("--dtypes", default="float32,float64", help="(default: %(default)s)")
    parser.add_argument("--modes", default="compiled", help="compiled, eager or both (default: %(default)s)")
    parser.add_argument("--backends", default="numpy,cpu", help="of compiled runs (default: %(default)s)")
    parser.add_argument("--accuracy", action="store_true", help="compare the first steps with float64's")
    args = parser.parse_args(argv)
    try:
        import torch
    except ImportError:
        sys.exit("PyTorch is not installed")
    backends = args.backends.split(",")
    if args.accuracy:
        accuracy(torch, args.only.split(","), backends)
        return

    print("| program | optimizer | type | run | first loss | last loss | largest difference | PyTorch to itself |")
    print("|---|---|---|---|---|---|---|---|")
    failed = False
    for name in args.only.split(","):
        task = TASKS[name]
        for optimizer, dtype in itertools.product(task.optimizers, args.dtypes.split(",")):
            with one_thread(torch):
                expected = losses(torch, task, optimizer, args.steps, dtype)
            own = itself(torch, task, optimizer, args.steps, dtype, expected)
            kind, worst_own = max(own.items(), key=lambda item: item[1])
            runs = [(mode, backend) for mode in args.modes.split(",") for backend in backends]
            for mode, backend in runs if "compiled" in args.modes else runs[:1]:
                found = in_mode(task, optimizer, args.steps, dtype, mode, backend)
                worst, at = difference(found, expected)
                failed |= worst > allowed(worst_own)
                label = f"{mode}, {backend}" if mode == "compiled" else mode
                print(
                    f"| {name} | {optimizer[0]} | {dtype} | {label} | {expected[0]:.6g} | {expected[-1]:.6g} | "
                    f"{worst:.1e} (step {at}) | {worst_own:.1e} ({kind}) |",
                    flush=True,
                )
    if failed:
        sys.exit(f"losses differ by more than {RTOL:g} and more than rounding explains")


def allowed(itself: float) -> float:
    """Four significant digits or, where PyTorch does not agree with itself to so many, ten times its own difference."""
    return max(RTOL, 10 * itself)


if __name__ == "__main__":
    main()
