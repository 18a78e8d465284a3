"""Training steps: ours eager, ours compiled, and PyTorch eager where it is importable, measured in turn in one process.

    python benchmarks/training_step.py [--rounds 30]

Prints medians, the spread, ratios of medians, the time to compile, and the import time beyond NumPy's. All contenders
run the same network from the same data; a round times each once, so that a drift of the machine's speed meets all
alike."""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np


def mlp(torch, nn):
    """784-128-10, batch 64, SGD with momentum."""
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((64, 784)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 10, 64))
    return model, x, y


def lenet(torch, nn):
    """LeNet on 32x32x3, batch 4, SGD with momentum."""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.standard_normal((4, 3, 32, 32)).astype(np.float32))
    y = torch.from_numpy(rng.integers(0, 10, 4))
    return model, x, y


def training_step(torch, network) -> tuple[Callable[..., object], object, object]:
    """A step function with its data."""
    torch.manual_seed(0)
    model, x, y = network(torch, torch.nn)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss()

    def step(x, y):
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, x, y


def import_seconds() -> float:
    """The median time of `import graphtorch` in a process that has imported NumPy."""
    program = "import time, numpy; t = time.perf_counter(); import graphtorch; print(time.perf_counter() - t)"
    environment = {
        k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"
    }  # as users import: with bytecode
    times = [float(subprocess.check_output([sys.executable, "-c", program], env=environment)) for _ in range(6)]
    return statistics.median(times[1:])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    print(f"import graphtorch beyond NumPy: {import_seconds() * 1e3:.0f} ms")
    ours = importlib.import_module("graphtorch")
    try:
        peer = importlib.import_module("torch")
        peer.set_num_threads(2)
    except ImportError:
        peer = None
    for network in (mlp, lenet):
        contenders: dict[str, tuple[Callable[..., object], object, object]] = {"eager": training_step(ours, network)}
        step, x, y = training_step(ours, network)
        compiled = ours.compile(step)
        compile_times = []
        for _ in range(5):
            compiled.reset()
            compiled(x, y)
            compile_times.append(compiled.explain().specializations[0].compile_seconds)
        contenders["compiled"] = (compiled, x, y)
        if peer is not None:
            contenders["PyTorch eager"] = training_step(peer, network)
        times: dict[str, list[float]] = {name: [] for name in contenders}
        for r in range(rounds + 3):
            for name, (function, x, y) in contenders.items():
                start = time.perf_counter()
                function(x, y)
                if r >= 3:
                    times[name].append(time.perf_counter() - start)
        medians = {name: statistics.median(t) for name, t in times.items()}
        info = compiled.explain().specializations[0]
        print(f"\n{network.__doc__}")
        print(
            f"  compile: median {statistics.median(compile_times) * 1e3:.1f} ms (first {compile_times[0] * 1e3:.1f}); "
            f"{info.kernels_before_fusion} primitives -> {info.kernels} kernels and calls; "
            f"{info.planned_bytes} bytes planned"
        )
        for name, t in times.items():
            low, high = min(t), max(t)
            ratio = medians["compiled"] / medians[name]
            print(
                f"  {name:14s} {medians[name] * 1e3:8.3f} ms a step ({low * 1e3:.3f} to {high * 1e3:.3f}), compiled "
                f"/ this = {ratio:.2f}"
            )


if __name__ == "__main__":
    main()
