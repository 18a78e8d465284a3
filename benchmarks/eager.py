"""Eager execution beside PyTorch's: single operators, and a training step of a small network.

    python benchmarks/eager.py [--rounds 15] [--with graphtorch,torch] [--threads 1]
    python benchmarks/eager.py --survey [--only "TEXT;TEXT"] [--sizes 1K,64K,1M] [--first 40] [--rounds 1]

Each library runs in a process of its own with as many threads, and the two take turns: a round times every case once
in each. Prints the medians over the rounds in microseconds and the ratios of the medians. `--survey` times the
operators of `eager_cases.py` forwards (under no_grad) and forwards and backwards, and training steps; it prints the
worst ratios first, and what share of all lies below some limits."""

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

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from eager_cases import CASES, SIZES, STEPS

Case = Callable[[], Any]
SLICE = 0.02  # seconds a case is timed for in a round
WARM = 15  # calls before that: what is written once a signature has been met by then


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


def survey_case(torch: Any, name: str) -> Case:
    """A case of the survey by its name: `operator, size, direction`, or a training step."""
    torch.manual_seed(0)
    if name in STEPS:
        return STEPS[name](torch)
    operator, size, direction = name.rsplit(", ", 2)
    forward, leaves = CASES[operator](torch, SIZES[size])
    if direction == "forward":

        def run() -> Any:
            with torch.no_grad():
                return forward()

        return run
    cotangent = torch.ones_like(forward())
    return lambda: torch.autograd.grad(forward(), leaves, cotangent)


def survey_names(only: list[str], sizes: list[str]) -> list[str]:
    """The cases whose names contain one of the texts."""
    torch = importlib.import_module("graphtorch")
    names = list(STEPS)
    for operator, build in CASES.items():
        forward, leaves = build(torch, 1 << 10)
        differentiable = any(leaf.requires_grad for leaf in leaves) and forward().requires_grad
        for direction in ("forward", "forward and backward") if differentiable else ("forward",):
            names += [f"{operator}, {size}, {direction}" for size in sizes]
    return [n for n in names if not only or any(text in n for text in only)]


def serve(library: str, threads: int) -> None:
    """The child: times the case named on each input line and answers with seconds a call."""
    torch = importlib.import_module(library)
    if hasattr(torch, "set_num_threads"):
        torch.set_num_threads(threads)
    known = cases(torch)
    for line in sys.stdin:
        name = line.rstrip("\n")
        case = known[name] if name in known else survey_case(torch, name)
        for _ in range(WARM):
            case()
        count, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < SLICE:
            repeats = 5 if count and spent / count < SLICE / 10 else 1
            for _ in range(repeats):
                case()
            count += repeats
        print(spent / count, flush=True)


class Contender:
    """One library in its own process."""

    def __init__(self, library: str, count: int) -> None:
        root = str(Path(__file__).resolve().parent.parent)
        path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
        threads = {"GRAPHTORCH_NUM_THREADS": str(count)} | dict.fromkeys(
            ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), str(count)
        )
        self.process = subprocess.Popen(
            [sys.executable, __file__, "--serve", library, "--threads", str(count)],
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
    parser.add_argument("--threads", type=int, default=1, help="of each library")
    parser.add_argument("--survey", action="store_true", help="many operators, at several sizes")
    parser.add_argument("--only", default="", help="of the survey: names that contain one of these texts")
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--first", type=int, default=40, help="rows of the survey's table")
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.threads)
        return
    libraries = arguments.libraries.split(",")
    contenders = [Contender(library, arguments.threads) for library in libraries]
    names = list(cases(importlib.import_module("graphtorch")))
    if arguments.survey:
        names = survey_names(list(filter(None, arguments.only.split(";"))), arguments.sizes.split(","))
    spent: dict[tuple[int, str], list[float]] = {}
    for _ in range(arguments.rounds):
        for name in names:
            for i, contender in enumerate(contenders):
                spent.setdefault((i, name), []).append(contender.time(name))
    for contender in contenders:
        contender.process.communicate()
    medians = {n: [statistics.median(spent[i, n]) * 1e6 for i in range(len(libraries))] for n in names}
    ratios = {name: found[0] / found[-1] for name, found in medians.items()}
    if arguments.survey:
        names.sort(key=ratios.__getitem__, reverse=True)
    print(f"| | {' | '.join(libraries)} | ratio |\n|---|{'---|' * (len(libraries) + 1)}")
    for name in names[: arguments.first if arguments.survey else None]:
        print(f"| {name} | {' | '.join(f'{m:.2f}' for m in medians[name])} | {ratios[name]:.2f} |")
    if arguments.survey:
        print(f"\n{len(names)} cases, geometric mean {statistics.geometric_mean(ratios.values()):.2f}")
        for limit in (1, 2, 3, 5, 10):
            print(f"at most {limit}: {sum(r <= limit for r in ratios.values()) / len(names):.0%}")


if __name__ == "__main__":
    main()
