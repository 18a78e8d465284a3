"""Whole steps on the CPU: the cpu and numpy backends beside PyTorch eager, torch.compile and JAX, those that are there.

    python benchmarks/cpu.py [workload ...] [--with cpu,numpy,eager,compile,whole,jax] [--seconds 3] [--rounds 2]

`compile` is torch.compile of the step as a user writes it, `whole` of the step in PyTorch's functional form, whose
backward is inside the compiled graph (benchmarks/cpu_peers.py). Each contender runs in a process of its own with the
same data; contenders take turns, so that a drift of the machine's speed meets all alike. Prints the median step time
and its spread, the ratio to the best peer, the fraction reached of the machine's copy bandwidth or matrix product rate,
the time to the first finished step in a cold and in a warm process (without imports), and peak memory."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import cpu_peers
import numpy as np

Step = Callable[[], Any]


def classifier(torch: Any, model: Any, x: np.ndarray, classes: int, optimizer: Any) -> tuple[Any, tuple[Any, ...]]:
    """One training step of a classifier on one batch."""
    rng = np.random.default_rng(0)
    criterion = torch.nn.CrossEntropyLoss()

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    step.model, step.extra = model, ()  # type: ignore[attr-defined]
    return step, (torch.from_numpy(x), torch.from_numpy(rng.integers(0, classes, len(x))))


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def mlp(torch: Any) -> Any:
    """MLP 784-128-10, batch 64, SGD."""
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    return classifier(torch, model, normal(64, 784), 10, torch.optim.SGD(model.parameters(), lr=1e-4))


def wide_mlp(torch: Any) -> Any:
    """MLP 784-2048-2048-10, batch 256, Adam."""
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 2048), nn.ReLU(), nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 10))
    return classifier(torch, model, normal(256, 784), 10, torch.optim.Adam(model.parameters(), lr=1e-6))


def lenet(torch: Any, batch: int) -> Any:
    nn = torch.nn
    model = nn.Sequential(
        nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-5, momentum=0.9)
    return classifier(torch, model, normal(batch, 3, 32, 32), 10, optimizer)


def lenet4(torch: Any) -> Any:
    """LeNet on 32x32x3, batch 4, SGD with momentum."""
    return lenet(torch, 4)


def lenet128(torch: Any) -> Any:
    """LeNet on 32x32x3, batch 128, SGD with momentum."""
    return lenet(torch, 128)


def gpt(torch: Any) -> Any:
    """GPT: 4 layers, width 256, 4 heads, 128 tokens, vocabulary 512, batch 8, AdamW."""
    nn, width, heads, tokens, vocabulary, batch = torch.nn, 256, 4, 128, 512, 8

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any, mask: Any) -> Any:
            b, t, w = x.shape
            q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, heads, w // heads).permute(2, 0, 3, 1, 4).unbind(0)
            scores = (q @ k.transpose(-2, -1)) * (w // heads) ** -0.5
            weights = torch.softmax(scores.masked_fill(mask, float("-inf")), -1)
            x = x + self.out((weights @ v).transpose(1, 2).reshape(b, t, w))
            return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tokens, self.places = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
            self.blocks = nn.ModuleList([Block() for _ in range(4)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)

        def forward(self, ids: Any, places: Any, mask: Any) -> Any:
            x = self.tokens(ids) + self.places(places)
            for block in self.blocks:
                x = block(x, mask)
            return self.head(self.norm(x))

    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    rng = np.random.default_rng(0)
    places = torch.arange(tokens)
    mask = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)

    def step(ids: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        logits = model(ids, places, mask)
        loss = nn.functional.cross_entropy(logits.view(-1, vocabulary), targets.view(-1))
        loss.backward()
        optimizer.step()
        return loss

    given = [torch.from_numpy(rng.integers(0, vocabulary, (batch, tokens))) for _ in range(2)]
    step.model, step.extra = model, (places, mask)  # type: ignore[attr-defined]
    return step, tuple(given)


def chain(torch: Any) -> Any:
    """Pointwise chain gelu(x * a + b) * sigmoid(c) + x on 16M elements."""
    x, c = torch.from_numpy(normal(16384, 1024)), torch.from_numpy(normal(16384, 1024))
    a, b = torch.from_numpy(normal(1024)), torch.from_numpy(normal(1024))

    def step(x: Any, a: Any, b: Any, c: Any) -> Any:
        t = x * a + b
        return 0.5 * t * (1 + torch.tanh(0.7978845608 * (t + 0.044715 * t * t * t))) * torch.sigmoid(c) + x

    return step, (x, a, b, c)


def norms(torch: Any) -> Any:
    """softmax and layer_norm, forward and backward, on 4096x1024."""
    x = torch.from_numpy(normal(4096, 1024))
    weight, bias = torch.from_numpy(1 + normal(1024)), torch.from_numpy(normal(1024))
    g = torch.from_numpy(normal(4096, 1024))
    for t in (x, weight, bias):
        t.requires_grad_(True)

    def step(x: Any, weight: Any, bias: Any, g: Any) -> Any:
        y = torch.softmax(torch.nn.functional.layer_norm(x, (1024,), weight, bias), -1)
        return torch.autograd.grad(y, (x, weight, bias), g)

    return step, (x, weight, bias, g)


def adamw(torch: Any) -> Any:
    """AdamW over 10M parameters."""
    parameters = [torch.nn.Parameter(torch.from_numpy(normal(1000, 1000))) for _ in range(10)]
    for p in parameters:
        p.grad = torch.from_numpy(normal(1000, 1000))
    optimizer = torch.optim.AdamW(parameters, lr=1e-3)

    def step() -> Any:
        optimizer.step()

    step.parameters = parameters  # type: ignore[attr-defined]
    return step, ()


WORKLOADS = {f.__name__: f for f in (mlp, wide_mlp, lenet4, lenet128, gpt, chain, norms, adamw)}
CONTENDERS = ("cpu", "numpy", "interpreted", "eager", "compile", "whole", "jax")  # interpreted: ours without compiling
PEERS = ("eager", "compile", "whole", "jax")
TRAINED = ("mlp", "wide_mlp", "lenet4", "lenet128", "gpt")  # what has a form of its own for `whole`

# What a step can't do without: operations of its matrix products and convolutions, or bytes read and written.
OPERATIONS = {
    "mlp": 64 * 2 * (784 * 128 * 2 + 128 * 10 * 3),
    "wide_mlp": 256 * 2 * (784 * 2048 * 2 + 2048 * 2048 * 3 + 2048 * 10 * 3),
    "gpt": 1024 * 6 * (4 * 12 * 256 * 256 + 256 * 512) + 4 * 8 * 4 * 6 * 2 * 128 * 128 * 64,
}
BYTES = {"chain": 3 * 4 * 2**24, "norms": 3 * 4 * 2**22, "adamw": 7 * 4 * 10**7}


# -- one contender, in a process of its own ---------------------------------------------------------------------------


def contender(name: str, workload: str, seconds: float) -> None:
    """Measure, and print the result as JSON."""
    if name in ("cpu", "numpy", "interpreted", "jax"):
        import graphtorch as torch
    else:
        import torch
    if name == "jax":
        importlib.import_module("jax.numpy")  # its import is not part of the first step
    torch.manual_seed(0)
    step, given = WORKLOADS[workload](torch)
    if name == "cpu":
        from graphtorch.lowering.backend import get_backend

        reason = get_backend("cpu").unavailable()
        assert reason is None, reason
        _ = torch.compile  # loads the compiler: an import too
    if name == "jax":
        arrays = tuple(t.detach().numpy() for t in given)
        parameters = step.model.parameters() if workload in TRAINED else getattr(step, "parameters", [])
        weights = [p.detach().numpy().copy() for p in parameters]
    if name == "whole":
        step = cpu_peers.whole_step(torch, workload, step.model, step.extra)
        images = workload.startswith("lenet")
        given = tuple(t.to(memory_format=torch.channels_last) if images and t.ndim == 4 else t for t in given)
    start = time.perf_counter()
    if name == "jax":
        step, given = cpu_peers.jax_step(workload, arrays, weights), ()
    elif name not in ("eager", "interpreted"):
        step = torch.compile(step, backend=name) if name in ("cpu", "numpy") else torch.compile(step)
    result = step(*given)
    first = time.perf_counter() - start
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = time.perf_counter()
        result = step(*given)
        times.append(time.perf_counter() - start)
    times = times[len(times) // 5 :]
    ordered = sorted(times)
    value = result[0] if isinstance(result, tuple) else result
    print(
        json.dumps(
            {
                "first": first,
                "median": statistics.median(times),
                "low": ordered[len(ordered) // 10],
                "high": ordered[-1 - len(ordered) // 10],
                "memory": peak_memory(),
                "value": None if value is None else float(value.sum()),
            }
        )
    )


def peak_memory() -> float:
    """The most this process held, in MiB. Linux's ru_maxrss also counts the parent from before `exec`."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def machine() -> dict[str, float]:
    """Copy bandwidth in GB/s (read and written bytes) with a thread a core, and float32 matrix products in GFLOP/s, by
    NumPy."""
    source = np.ones(1 << 25, np.float32)
    target = np.zeros_like(source)
    parts = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pairs = list(zip(np.array_split(target, parts), np.array_split(source, parts), strict=True))

    def copy() -> None:
        threads = [threading.Thread(target=np.copyto, args=pair) for pair in pairs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    a = np.ones((1024, 1024), np.float32)

    def best(function: Callable[[], Any]) -> float:
        found = []
        for _ in range(10):
            start = time.perf_counter()
            function()
            found.append(time.perf_counter() - start)
        return min(found)

    return {
        "copy, GB/s": 2 * source.nbytes / best(copy) / 1e9,
        "sgemm, GFLOP/s": 2 * 1024**3 / best(lambda: a @ a) / 1e9,
    }


def measure(name: str, workload: str, seconds: float, cache: str) -> dict[str, Any] | str:
    """Run one contender; its figures, or the last line of its error."""
    environment = {**os.environ, "GRAPHTORCH_CACHE": cache}
    command = [sys.executable, __file__, "--contender", name, workload, "--seconds", str(seconds)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        return (done.stderr.strip().splitlines() or ["failed"])[-1]
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def report(workload: str, names: list[str], seconds: float, rounds: int, rates: dict[str, float]) -> list[str]:
    """Rounds over the contenders of one workload: the first meets an empty cache."""
    results: dict[str, list[dict[str, Any]]] = {}
    lines = [f"{workload}: {(WORKLOADS[workload].__doc__ or '').strip()}"]
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(rounds):
            for name in names:
                if name == "whole" and workload not in TRAINED:
                    continue  # the same as `compile`
                found = measure(name, workload, seconds, cache)
                if isinstance(found, str):
                    lines.append(f"  {name}: {found}")
                else:
                    results.setdefault(name, []).append(found)
    medians = {n: statistics.median([r["median"] for r in rs]) for n, rs in results.items()}
    peers = [m for n, m in medians.items() if n in PEERS]
    copy, sgemm = rates.values()
    for name, found in results.items():
        ratio = f"{medians[name] / min(peers):6.2f}x" if peers else "      -"
        low, high = min(r["low"] for r in found), max(r["high"] for r in found)
        reached = ""
        if workload in OPERATIONS:
            reached = f"{OPERATIONS[workload] / medians[name] / 1e9 / sgemm:4.0%} of sgemm"
        elif workload in BYTES:
            reached = f"{BYTES[workload] / medians[name] / 1e9 / copy:4.0%} of copy "
        lines.append(
            f"  {name:8} {medians[name] * 1e3:9.3f} ms [{low * 1e3:.3f}, {high * 1e3:.3f}]  {ratio}  {reached:13}"
            f"  first step {found[0]['first']:6.3f} / {found[-1]['first']:6.3f} s  {found[-1]['memory']:6.0f} MiB"
            f"  value {found[-1]['value']}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workloads", nargs="*", help=f"of {', '.join(WORKLOADS)}; all if none is given")
    parser.add_argument("--with", dest="contenders", default="cpu,numpy,eager", help=f"of {', '.join(CONTENDERS)}")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each contender and round")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each contender; the first has an empty cache")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contender(options.contender, options.workloads[0], options.seconds)
        return
    rates = machine()
    for name, value in rates.items():
        print(f"{name}: {value:.1f}")
    names = options.contenders.split(",")
    for workload in options.workloads or WORKLOADS:
        print("\n".join(report(workload, names, options.seconds, options.rounds, rates)), flush=True)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main()
