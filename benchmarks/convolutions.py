"""Convolutions on the CPU, shape by shape: forward, gradient of the data, gradient of the weight; ours and PyTorch's.

    python benchmarks/convolutions.py [word ...] [--seconds 0.3] [--rounds 2] [--steps] [--threads 2]

Words choose the shapes whose names contain one of them. Each library runs in a process of its own, in turn, for every
shape; printed are the lower medians in milliseconds, what fraction of PyTorch's time ours takes, and our rate in
GFLOP/s, counting multiplications and additions of the definition. `--steps` runs training steps of ResNet-18 instead
(32x32 images, batch 32, SGD with momentum): ours compiled with backend="cpu", PyTorch eager. With one thread the times
are the processor's, so that figures stand while other work runs on the machine.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

# name: (input, weight, stride, padding, dilation, groups, transposed)
Shape = tuple[tuple[int, ...], tuple[int, ...], int, int, int, int, bool]


def shape(
    input: tuple[int, ...], weight: tuple[int, ...], stride: int = 1, padding: int = 0, dilation: int = 1,
    groups: int = 1, transposed: bool = False,
) -> Shape:  # fmt: skip
    return input, weight, stride, padding, dilation, groups, transposed


SHAPES: dict[str, Shape] = {
    "LeNet 1": shape((32, 3, 32, 32), (6, 3, 5, 5)),
    "LeNet 2": shape((32, 6, 14, 14), (16, 6, 5, 5)),
    "CIFAR stem 3->64": shape((32, 3, 32, 32), (64, 3, 3, 3), 1, 1),
    "CIFAR 64, 32x32": shape((32, 64, 32, 32), (64, 64, 3, 3), 1, 1),
    "CIFAR 64->128 stride 2": shape((32, 64, 32, 32), (128, 64, 3, 3), 2, 1),
    "CIFAR 128, 16x16": shape((32, 128, 16, 16), (128, 128, 3, 3), 1, 1),
    "CIFAR 64->128 1x1 stride 2": shape((32, 64, 32, 32), (128, 64, 1, 1), 2),
    "CIFAR 256, 8x8": shape((32, 256, 8, 8), (256, 256, 3, 3), 1, 1),
    "CIFAR 512, 4x4": shape((32, 512, 4, 4), (512, 512, 3, 3), 1, 1),
    "ResNet stem 7x7 stride 2": shape((4, 3, 224, 224), (64, 3, 7, 7), 2, 3),
    "ResNet 64, 56x56": shape((4, 64, 56, 56), (64, 64, 3, 3), 1, 1),
    "ResNet 128, 28x28": shape((4, 128, 28, 28), (128, 128, 3, 3), 1, 1),
    "ResNet 256, 14x14": shape((4, 256, 14, 14), (256, 256, 3, 3), 1, 1),
    "ResNet 512, 7x7": shape((4, 512, 7, 7), (512, 512, 3, 3), 1, 1),
    "ResNet 256->512 stride 2": shape((4, 256, 14, 14), (512, 256, 3, 3), 2, 1),
    "ResNet-50 1x1 64->256, 56x56": shape((4, 64, 56, 56), (256, 64, 1, 1)),
    "ResNet-50 1x1 512->128, 28x28": shape((4, 512, 28, 28), (128, 512, 1, 1)),
    "ResNet-50 1x1 512->2048, 7x7": shape((4, 512, 7, 7), (2048, 512, 1, 1)),
    "one image 64, 56x56": shape((1, 64, 56, 56), (64, 64, 3, 3), 1, 1),
    "one image 512, 7x7": shape((1, 512, 7, 7), (512, 512, 3, 3), 1, 1),
    "depthwise 32, 112x112": shape((4, 32, 112, 112), (32, 1, 3, 3), 1, 1, 1, 32),
    "depthwise 96, 112x112 stride 2": shape((4, 96, 112, 112), (96, 1, 3, 3), 2, 1, 1, 96),
    "depthwise 192, 28x28": shape((4, 192, 28, 28), (192, 1, 3, 3), 1, 1, 1, 192),
    "depthwise 384, 14x14": shape((4, 384, 14, 14), (384, 1, 3, 3), 1, 1, 1, 384),
    "depthwise 960, 7x7": shape((4, 960, 7, 7), (960, 1, 3, 3), 1, 1, 1, 960),
    "32 groups of 4, 56x56": shape((4, 128, 56, 56), (128, 4, 3, 3), 1, 1, 1, 32),
    "dilation 2, 64, 32x32": shape((4, 64, 32, 32), (64, 64, 3, 3), 1, 2, 2),
    "5x5 32->64, 28x28": shape((16, 32, 28, 28), (64, 32, 5, 5), 1, 2),
    "1d 64->128, 1024, kernel 9": shape((8, 64, 1024), (128, 64, 9), 1, 4),
    "1d 256, 128, kernel 3": shape((8, 256, 128), (256, 256, 3), 1, 1),
    "3d 16->32, 16x28x28": shape((2, 16, 16, 28, 28), (32, 16, 3, 3, 3), 1, 1),
    "3d 64, 8x14x14": shape((2, 64, 8, 14, 14), (64, 64, 3, 3, 3), 1, 1),
    "transposed 128->64, 16x16 stride 2": shape((8, 128, 16, 16), (128, 64, 4, 4), 2, 1, 1, 1, True),
    "transposed 512->256, 4x4 stride 2": shape((8, 512, 4, 4), (512, 256, 4, 4), 2, 1, 1, 1, True),
}
PARTS = ("forward", "data", "weight")


def normal(*sizes: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(sizes).astype(np.float32)


def convolve(torch: Any, x: Any, w: Any, which: Shape) -> Any:
    _, _, stride, padding, dilation, groups, transposed = which
    name = f"conv{'_transpose' if transposed else ''}{x.dim() - 2}d"
    function = getattr(torch.nn.functional, name)
    if transposed:
        return function(x, w, None, stride, padding, 0, groups, dilation)
    return function(x, w, None, stride, padding, dilation, groups)


def work(which: Shape, result: tuple[int, ...]) -> float:
    """Multiplications and additions of one pass."""
    taps = math.prod(which[1][1:])
    return 2.0 * taps * math.prod(which[0] if which[6] else result)


def ours(which: Shape, part: str) -> tuple[Callable[[], Any], tuple[int, ...]]:
    import graphtorch as torch

    x, w = torch.from_numpy(normal(*which[0])), torch.from_numpy(normal(*which[1]))
    size = tuple(convolve(torch, x[:1], w, which).shape)
    size = (x.shape[0], *size[1:])
    g = torch.from_numpy(normal(*size))
    x.requires_grad_(True)
    w.requires_grad_(True)

    def forward(x: Any, w: Any, g: Any) -> Any:
        with torch.no_grad():
            return convolve(torch, x, w, which)

    def data(x: Any, w: Any, g: Any) -> Any:
        return torch.autograd.grad(convolve(torch, x, w, which), x, g)[0]

    def weight(x: Any, w: Any, g: Any) -> Any:
        return torch.autograd.grad(convolve(torch, x, w, which), w, g)[0]

    step = torch.compile({"forward": forward, "data": data, "weight": weight}[part], backend="cpu")
    return (lambda: step(x, w, g)), size


def theirs(which: Shape, part: str) -> tuple[Callable[[], Any], tuple[int, ...]]:
    import torch

    x, w = torch.from_numpy(normal(*which[0])), torch.from_numpy(normal(*which[1]))
    _, _, stride, padding, dilation, groups, transposed = which
    count = x.dim() - 2
    with torch.no_grad():
        result = convolve(torch, x, w, which)
    g = torch.from_numpy(normal(*result.shape))
    each = [[n] * count for n in (stride, padding, dilation)]
    mask = [part == "data", part == "weight", False]

    def forward() -> Any:
        with torch.no_grad():
            return convolve(torch, x, w, which)

    def backward() -> Any:
        return torch.ops.aten.convolution_backward(g, x, w, None, *each, transposed, [0] * count, groups, mask)

    return (forward if part == "forward" else backward), tuple(result.shape)


def residual_network(torch: Any) -> tuple[Callable[[], Any], Any]:
    """A training step of ResNet-18 on 32x32 images, batch 32, SGD with momentum."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, channels: int, out: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(channels, out, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
            self.norm1, self.norm2 = nn.BatchNorm2d(out), nn.BatchNorm2d(out)
            self.shortcut = nn.Sequential()
            if stride != 1 or channels != out:
                self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(self.norm2(self.conv2(y)) + self.shortcut(x))

    layers: list[Any] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    before = 64
    for out, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
        layers.append(Block(before, out, stride))
        before = out
    model = nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(512, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    criterion = nn.CrossEntropyLoss()
    x = torch.from_numpy(normal(32, 3, 32, 32))
    y = torch.from_numpy(np.random.default_rng(0).integers(0, 10, 32))

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step, (x, y)


def measure(run: Callable[[], Any], seconds: float, threads: int) -> dict[str, float]:
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    run()
    first = clock() - start
    for _ in range(2):
        run()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times) < 5:
        start = clock()
        run()
        times.append(clock() - start)
    return {"first": first, "median": statistics.median(times), "low": sorted(times)[len(times) // 10]}


def contender(library: str, name: str, part: str, seconds: float, threads: int) -> None:
    """Measure, and print the result as JSON."""
    if library == "torch":
        import torch

        torch.set_num_threads(threads)
    if part == "step":
        if library == "torch":
            step, given = residual_network(torch)
        else:
            import graphtorch

            step, given = residual_network(graphtorch)
            step = graphtorch.compile(step, backend="cpu")
        print(json.dumps(measure(lambda: step(*given), seconds, threads)))
        return
    found = {}
    for one in PARTS if part == "all" else [part]:
        run, size = (theirs if library == "torch" else ours)(SHAPES[name], one)
        found[one] = {**measure(run, seconds, threads), "work": work(SHAPES[name], size)}
    print(json.dumps(found))


def ask(library: str, name: str, part: str, seconds: float, threads: int) -> Any:
    """Run a contender in a process of its own."""
    environment = {**os.environ, "GRAPHTORCH_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, __file__, "--contender", library, name, part]
    command += ["--seconds", str(seconds), "--threads", str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="parts of shapes' names; all shapes if none is given")
    parser.add_argument("--seconds", type=float, default=0.3, help="for each measurement")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="all")
    parser.add_argument("--steps", action="store_true", help="training steps of ResNet-18 instead")
    parser.add_argument("--contender", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        contender(*options.contender, options.seconds, options.threads)
        return
    if options.steps:
        times: dict[str, list[float]] = {"ours": [], "torch": []}
        for _ in range(options.rounds):
            for library, found in times.items():
                result = ask(library, "", "step", max(options.seconds, 3), options.threads)
                found.append(result["median"])
                print(f"{library}: {result['median'] * 1e3:.2f} ms a step, the first {result['first']:.2f} s")
        ratio = statistics.median(times["ours"]) / statistics.median(times["torch"])
        print(f"ours / PyTorch eager: {ratio:.2f}")
        return
    print("| shape | forward | data | weight |\n|---|---|---|---|")
    for name in SHAPES:
        if options.words and not any(w in name for w in options.words):
            continue
        rounds: dict[str, list[Any]] = {"ours": [], "torch": []}
        for _ in range(options.rounds):
            for library, results in rounds.items():
                results.append(ask(library, name, options.part, options.seconds, options.threads))
        cells = []
        for part in rounds["ours"][0]:
            mine, other = (min(r[part]["median"] for r in rounds[n]) * 1e3 for n in ("ours", "torch"))
            rate = rounds["ours"][0][part]["work"] / mine / 1e6
            cells.append(f"{mine:.3f} / {other:.3f} = {mine / other:.2f} ({rate:.0f})")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    main()
