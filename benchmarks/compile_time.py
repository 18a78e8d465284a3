"""Where compile time goes: capture, differentiation, passes, scheduling and lowering of whole training steps.

    python benchmarks/compile_time.py [--rounds 7] [--backend numpy]
    python benchmarks/compile_time.py --deep 4 48

Prints the median of each stage in milliseconds of CPU time, which other programs disturb less than the clock, and the
number of nodes, primitives, kernels and calls. The first round of a process, which also loads the compiler, is reported
apart. With `--deep`, the first step of a small GPT of so many layers on the cpu backend, in processes of their own:
with an empty object cache, and with the one that this left."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import graphtorch as torch
from graphtorch import nn


def mlp() -> tuple[nn.Module, tuple[Any, ...], Any]:
    """MLP 784-128-10, batch 64, SGD with momentum"""
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return model, (torch.randn(64, 784), torch.randint(0, 10, (64,))), torch.optim.SGD(model.parameters(), 0.1, 0.9)


def lenet() -> tuple[nn.Module, tuple[Any, ...], Any]:
    """LeNet on 3x32x32, batch 4, SGD with momentum"""
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    return model, (torch.randn(4, 3, 32, 32), torch.randint(0, 10, (4,))), torch.optim.SGD(model.parameters(), 0.1, 0.9)


class Block(nn.Module):
    """A transformer block without attention's heads: enough to repeat a structure many times."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)

    def forward(self, x: Any) -> Any:
        return x + self.down(nn.functional.gelu(self.up(self.norm(x))))


def blocks(count: int) -> Callable[[], tuple[nn.Module, tuple[Any, ...], Any]]:
    """A stack of residual blocks with a classifier, AdamW."""

    def make() -> tuple[nn.Module, tuple[Any, ...], Any]:
        model = nn.Sequential(*(Block(32) for _ in range(count)), nn.Linear(32, 10))
        return model, (torch.randn(8, 32), torch.randint(0, 10, (8,))), torch.optim.AdamW(model.parameters(), 1e-3)

    make.__doc__ = f"{count} residual blocks of width 32, AdamW"
    return make


class GptBlock(Block):
    """With four heads of attention."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.norm1 = nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Any) -> Any:
        b, t, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, 4, w // 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax((q @ k.transpose(-2, -1)) * (w // 4) ** -0.5, -1)
        return super().forward(x + self.out((weights @ v).transpose(1, 2).reshape(b, t, w)))


def first_step(layers: int) -> dict[str, float]:
    """CPU seconds of the first step of a GPT of width 32 on 2x16 tokens with AdamW, and the native functions in it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(64, 32), *(GptBlock(32) for _ in range(layers)), nn.Linear(32, 64))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)

    @torch.compile(backend="cpu")
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x).view(-1, 64), y.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    x, y = torch.randint(0, 64, (2, 16)), torch.randint(0, 64, (2, 16))
    start = time.process_time()
    step(x, y)
    seconds = time.process_time() - start
    executable = step.specializations[0].compiled.executable
    assert not executable.fallbacks
    functions = {f.name for f in executable.functions.values()}
    return {"seconds": seconds, "steps": len(executable.schedule.steps), "functions": len(functions)}


def deep(layers: int) -> None:
    """Print two first steps, with an empty and with a filled cache."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "GRAPHTORCH_CACHE": cache, "GRAPHTORCH_NUM_THREADS": "1"}
        for which in ("empty", "filled"):
            command = [sys.executable, __file__, "--first-step", str(layers)]
            done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
            found = json.loads(done.stdout)
            print(
                f"GPT of {layers} layers, {which} cache: {found['seconds']:.2f} s, {found['steps']} kernels and calls, "
                f"{found['functions']} different native functions"
            )


def stages(make: Callable[[], tuple[nn.Module, tuple[Any, ...], Any]], backend: str) -> tuple[dict[str, float], str]:
    """Compile a fresh step once, stage by stage; milliseconds, and what it became."""
    from graphtorch.autodiff.gradient import ExpandGradients
    from graphtorch.frontend.compiler import collection_paused
    from graphtorch.frontend.tree import flatten
    from graphtorch.ir.passes import default_pipeline
    from graphtorch.lowering.backend import get_backend
    from graphtorch.schedule import build_schedule

    torch.manual_seed(0)
    model, data, optimizer = make()

    @torch.compile
    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    times: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        with collection_paused():
            start = time.process_time()
            result = function()
            times[name] = (time.process_time() - start) * 1e3
        return result

    leaves: list[Any] = []
    tree = flatten((data, {}), leaves)
    captured = timed("capture", lambda: step.capture(tree, leaves, {}))[0]
    joint = timed("differentiate", lambda: ExpandGradients().run(captured.graph))
    optimized = timed("passes", lambda: default_pipeline(check=False).run(joint))
    donations = {output: position for position, output in captured.written}
    schedule = timed("schedule", lambda: build_schedule(optimized, donations))
    both = timed("schedule and lower", lambda: get_backend(backend).compile(optimized, donations))
    times["lower"] = times.pop("schedule and lower") - times["schedule"]
    del both
    kernels = len(schedule.kernels)
    return times, (
        f"{len(captured.graph.nodes)} recorded nodes, {len(optimized.nodes)} optimized, {schedule.primitive_count} "
        "primitives, "
        f"{kernels} kernels and {len(schedule.steps) - kernels} calls"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--deep", type=int, nargs="+", metavar="LAYERS")
    parser.add_argument("--first-step", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first_step:
        print(json.dumps(first_step(options.first_step)))
        return
    if options.deep:
        for layers in options.deep:
            deep(layers)
        return
    first, _ = stages(mlp, options.backend)
    print(f"first compilation of the process (MLP, with loading the compiler): {sum(first.values()):.1f} ms")
    for make in (mlp, lenet, blocks(4), blocks(16)):
        rounds = [stages(make, options.backend) for _ in range(options.rounds)]
        medians = {name: statistics.median(times[name] for times, _ in rounds) for name in rounds[0][0]}
        print(f"\n{make.__doc__}\n  {rounds[0][1]}")
        print(
            "  "
            + ", ".join(f"{name} {value:.1f}" for name, value in medians.items())
            + f"; in all {sum(medians.values()):.1f} ms"
        )


if __name__ == "__main__":
    main()
