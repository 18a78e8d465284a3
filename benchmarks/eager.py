"""Eager execution beside PyTorch's: single operators, and a training step of a small network.

    python benchmarks/eager.py [--rounds 15] [--with graphtorch,torch]

Each library runs in a process of its own with one thread, and the two take turns: a round times every case once in
each. Prints the medians over the rounds in microseconds and the ratios of the medians."""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Case = Callable[[], Any]
SLICE = 0.02  # seconds a case is timed for in a round


def cases(torch: Any) -> dict[str, Case]:
    """What is timed, by name."""
    a, b = torch.ones(10), torch.ones(10)
    w = torch.ones(10, requires_grad=True)
    m, n = torch.ones(8, 8), torch.ones(8, 8)
    wide = torch.ones(4, 6)
    return {
        "add, 10 elements": lambda: torch.add(a, b),
        "a + b, 10 elements": lambda: a + b,
        "a * 2.0": lambda: a * 2.0,
        "a.add_(b)": lambda: a.add_(b),
        "a.exp()": lambda: a.exp(),
        "a.sum()": lambda: a.sum(),
        "m @ n, 8x8": lambda: m @ n,
        "x.view(24)": lambda: wide.view(24),
        "x.t()": lambda: wide.t(),
        "x[1]": lambda: wide[1],
        "relu, recorded": lambda: torch.relu(w),
        "a + w, recorded": lambda: a + w,
        "(w * a).sum().backward()": lambda: (w * a).sum().backward(),
        "MLP 784-128-10, batch 64, SGD step": mlp_step(torch),
    }


def mlp_step(torch: Any) -> Case:
    """Zero gradients, forward, cross entropy, backward, SGD with momentum."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss()
    x, y = torch.randn(64, 784), torch.randint(0, 10, (64,))

    def step() -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def serve(library: str) -> None:
    """The child: times the case named on each input line and answers with seconds a call."""
    torch = importlib.import_module(library)
    if hasattr(torch, "set_num_threads"):
        torch.set_num_threads(1)
    known = cases(torch)
    for line in sys.stdin:
        case = known[line.rstrip("\n")]
        case()
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < SLICE:
            for _ in range(5):
                case()
            count += 5
        print(spent / count, flush=True)


class Contender:
    """One library in its own process."""

    def __init__(self, library: str) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", library],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": path},
        )

    def time(self, name: str) -> float:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(name + "\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--with", dest="libraries", default="graphtorch,torch")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
        return
    libraries = arguments.libraries.split(",")
    contenders = [Contender(library) for library in libraries]
    names = list(cases(importlib.import_module("graphtorch")))
    spent: dict[tuple[int, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for name in names:
            for i, contender in enumerate(contenders):
                spent.setdefault((i, name), []).append(contender.time(name))
    for contender in contenders:
        contender.process.communicate()
    print(f"| | {' | '.join(libraries)} | ratio |\n|---|{'---|' * (len(libraries) + 1)}")
    for name in names:
        medians = [statistics.median(spent[i, name]) * 1e6 for i in range(len(libraries))]
        print(f"| {name} | {' | '.join(f'{m:.2f}' for m in medians)} | {medians[0] / medians[-1]:.2f} |")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    main()
