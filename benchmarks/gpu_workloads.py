"""What benchmarks/gpu.py times: operators, and whole training steps, written for any library with PyTorch's interface.

A workload is a function of (torch, device, sizes) that returns what is called again and again, and what that moves and
computes at least. `CORE` and `MORE` have what is worth measuring on an H200, `TOY` what Triton's interpreter runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Work:
    """One thing to time.

    forward     from `inputs` to a result
    backward    whether gradients of the inputs (or of an optimizer's parameters) are wanted
    gradient    what the result's gradient is, unless that is a loss
    optimizer   what then steps
    bytes       what must at least be read and written, flops what must be computed
    """

    forward: Callable[..., Any]
    inputs: list[Any]
    backward: bool = False
    gradient: Any = None
    optimizer: Any = None
    bytes: float = 0.0
    flops: float = 0.0
    keep: list[Any] = field(default_factory=list)


def of(torch: Any, name: str) -> Any:
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]


def width(name: str) -> int:
    return 4 if name == "fp32" else 2


def images(torch: Any, held: Any) -> Any:
    """A tensor or module as each library has it best: PyTorch with channels side by side, graphtorch as it comes."""
    return held.to(memory_format=torch.channels_last) if torch.__name__ == "torch" else held


def single(torch: Any, x: Any) -> Any:
    """In float32 at least: the reference runs the same code in float64."""
    return x if x.dtype == torch.float64 else x.float()


# -- operators --------------------------------------------------------------------------------------------------------


def pointwise(torch: Any, device: str, n: int, dtype: str) -> Work:
    x, y = (torch.randn(n, device=device).to(of(torch, dtype)) for _ in range(2))
    return Work(lambda a, b: torch.sigmoid(a * 1.5 + b) * torch.tanh(b) - a, [x, y], bytes=3 * n * width(dtype))


def softmax(torch: Any, device: str, rows: int, columns: int, dtype: str) -> Work:
    x = torch.randn(rows, columns, device=device).to(of(torch, dtype))
    return Work(lambda a: torch.softmax(a, -1), [x], bytes=2 * rows * columns * width(dtype))


def layer_norm(torch: Any, device: str, rows: int, columns: int, dtype: str, backward: bool = False) -> Work:
    d = of(torch, dtype)
    x = torch.randn(rows, columns, device=device).to(d).requires_grad_(backward)
    w, b = (torch.ones(columns, device=device).to(d).requires_grad_(backward) for _ in range(2))
    g = torch.randn(rows, columns, device=device).to(d) if backward else None
    passes = 4 if backward else 2  # backward: x and the gradient are read, the result and x's gradient written

    def forward(x: Any, w: Any, b: Any) -> Any:
        return torch.nn.functional.layer_norm(x, (columns,), w, b)

    return Work(forward, [x, w, b], backward, g, bytes=passes * rows * columns * width(dtype))


def cross_entropy(torch: Any, device: str, rows: int, classes: int, dtype: str) -> Work:
    x = torch.randn(rows, classes, device=device).to(of(torch, dtype)).requires_grad_()
    y = torch.randint(0, classes, (rows,), device=device)
    function = torch.nn.functional.cross_entropy
    # Rows this long are read once for the sums and once for the gradient.
    return Work(lambda x, y: function(single(torch, x), y), [x, y], True, bytes=3 * rows * classes * width(dtype))


def adamw(torch: Any, device: str, parameters: int, pieces: int) -> Work:
    each = parameters // pieces
    held = [torch.nn.Parameter(torch.randn(each, device=device)) for _ in range(pieces)]
    for p in held:
        p.grad = torch.randn(each, device=device)
    optimizer = torch.optim.AdamW(held, lr=1e-3)
    # Reads the parameter, its gradient and two averages, writes all but the gradient.
    return Work(lambda: None, [], optimizer=optimizer, bytes=7 * 4 * each * pieces, keep=held)


def matmul(torch: Any, device: str, m: int, n: int, k: int, dtype: str) -> Work:
    a, b = (torch.randn(*s, device=device).to(of(torch, dtype)) for s in ((m, k), (k, n)))
    moved = (m * k + k * n + m * n) * width(dtype)
    return Work(lambda a, b: a @ b, [a, b], bytes=moved, flops=2.0 * m * n * k)


def attention(torch: Any, device: str, batch: int, heads: int, tokens: int, head: int, backward: bool = False) -> Work:
    made = [
        torch.randn(batch, heads, tokens, head, device=device).to(torch.bfloat16).requires_grad_(backward)
        for _ in range(3)
    ]
    g = torch.randn(batch, heads, tokens, head, device=device).to(torch.bfloat16) if backward else None

    def forward(q: Any, k: Any, v: Any) -> Any:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)

    flops = 2.0 * batch * heads * tokens**2 * head  # half of the square is masked
    return Work(forward, made, backward, g, flops=flops * (3.5 if backward else 1))


def convolution(
    torch: Any, device: str, batch: int, channels: int, size: int, kernel: int, backward: bool = False
) -> Work:
    shapes = [(batch, channels, size, size), (channels, channels, kernel, kernel), (batch, channels, size, size)]
    x, w, g = (images(torch, torch.randn(*shape, device=device).to(torch.bfloat16)) for shape in shapes)

    def forward(x: Any, w: Any) -> Any:
        return torch.nn.functional.conv2d(x, w, padding=kernel // 2)

    flops = 2.0 * batch * size**2 * channels**2 * kernel**2
    inputs = [x.requires_grad_(backward), w.requires_grad_(backward)]
    return Work(forward, inputs, backward, g if backward else None, flops=flops * (3 if backward else 1))


# -- training steps ---------------------------------------------------------------------------------------------------


def mlp(torch: Any, device: str, batch: int, inputs: int, hidden: int, classes: int) -> Work:
    nn = torch.nn
    model = nn.Sequential(
        nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, classes)
    ).to(device)
    x, y = torch.randn(batch, inputs, device=device), torch.randint(0, classes, (batch,), device=device)
    weights = inputs * hidden + hidden * hidden + hidden * classes
    return training(torch, device, model, x, y, 6.0 * batch * weights)


def resnet18(torch: Any, device: str, batch: int, size: int, width: int, classes: int) -> Work:
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, inside: int, outside: int, stride: int) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
            self.norm1 = nn.BatchNorm2d(outside)
            self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(outside)
            self.short = nn.Identity()
            if stride != 1 or inside != outside:
                self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(self.norm2(self.conv2(y)) + self.short(x))

    layers = [nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    before = width
    for i in range(4):
        for j in range(2):
            layers.append(Block(before, width << i, 2 if i and not j else 1))
            before = width << i
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, classes)]
    model = images(torch, nn.Sequential(*layers).to(device))
    x = images(torch, torch.randn(batch, 3, size, size, device=device))
    y = torch.randint(0, classes, (batch,), device=device)
    made = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return training(torch, device, model, x, y, 3 * 3.6e9 * batch * (size / 224) ** 2 * (width / 64) ** 2, made)


def gpt(torch: Any, device: str, batch: int, tokens: int, layers: int, heads: int, width: int, vocabulary: int) -> Work:
    nn, functional = torch.nn, torch.nn.functional

    class Layer(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, _ = x.shape
            q, k, v = self.qkv(self.norm1(x)).split(width, 2)
            q, k, v = (z.view(b, t, heads, width // heads).transpose(1, 2) for z in (q, k, v))
            seen = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(seen.transpose(1, 2).reshape(b, t, width))
            return x + self.down(functional.gelu(self.up(self.norm2(x))))

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.words, self.places = nn.Embedding(vocabulary, width), nn.Embedding(tokens, width)
            self.layers = nn.ModuleList([Layer() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
            self.head.weight = self.words.weight

        def forward(self, x: Any) -> Any:
            h = self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))
            for layer in self.layers:
                h = layer(h)
            return self.head(self.norm(h)).flatten(0, 1)

    model = Model().to(device)
    x, y = (torch.randint(0, vocabulary, (batch, tokens), device=device) for _ in range(2))
    weights = sum(math.prod(p.shape) for p in model.parameters())
    flops = 6.0 * weights * batch * tokens + 6.0 * layers * batch * tokens**2 * width
    return training(torch, device, model, x, y.flatten(), flops)


def training(torch: Any, device: str, model: Any, x: Any, y: Any, flops: float, optimizer: Any = None) -> Work:
    """A step in bfloat16 autocast."""
    made = torch.optim.AdamW(model.parameters(), lr=1e-4) if optimizer is None else optimizer

    def forward(x: Any, y: Any) -> Any:
        with torch.autocast(device.partition(":")[0], dtype=torch.bfloat16):
            return torch.nn.functional.cross_entropy(model(x).float(), y)

    return Work(forward, [x, y], True, optimizer=made, flops=flops, keep=[model])


BUILDERS: dict[str, Callable[..., Work]] = {
    f.__name__: f
    for f in (
        *(pointwise, softmax, layer_norm, cross_entropy, adamw, matmul, attention, convolution, mlp, resnet18, gpt),
    )
}

# What must be known: one line a requirement. The order is the one of measuring.
CORE: list[tuple[str, tuple[Any, ...]]] = [
    ("matmul", (4096, 4096, 4096, "bf16")),
    ("matmul", (8192, 8192, 8192, "bf16")),
    ("attention", (4, 32, 4096, 64)),
    ("attention", (4, 16, 4096, 128)),
    ("attention", (4, 16, 4096, 128, True)),
    ("pointwise", (1 << 26, "bf16")),
    ("softmax", (8192, 4096, "bf16")),
    ("layer_norm", (8192, 4096, "bf16")),
    ("layer_norm", (8192, 4096, "bf16", True)),
    ("cross_entropy", (8192, 32768, "bf16")),
    ("adamw", (100_000_000, 100)),
    ("gpt", (32, 1024, 12, 12, 768, 50304)),
    ("resnet18", (256, 224, 64, 1000)),
    ("mlp", (16384, 784, 4096, 10)),
]

_MATMULS = [(1024,) * 3, (2048,) * 3, (4096,) * 3, (8192,) * 3, (16, 8192, 8192), (8192, 8192, 16), (8192, 64, 8192)]
_HEADS = [(64, 32), (128, 16)]  # size of a head, and how many

_ALL: list[tuple[str, tuple[Any, ...]]] = [
    ("pointwise", (1 << 26, "fp32")),
    ("softmax", (8192, 4096, "fp32")),
    *(("convolution", (128, c, s, 3, b)) for c, s in ((64, 56), (128, 28), (256, 14), (512, 7)) for b in (False, True)),
    ("convolution", (128, 256, 14, 1, False)),
    *(("matmul", (*s, d)) for d in ("bf16", "fp32") for s in _MATMULS),
    *(
        ("attention", (16384 // t, n, t, h, *((True,) if b else ())))
        for h, n in _HEADS
        for t in (1024, 2048, 4096, 8192)
        for b in (False, True)
    ),
]
MORE: list[tuple[str, tuple[Any, ...]]] = [case for case in _ALL if case not in CORE]

TOY: list[tuple[str, tuple[Any, ...]]] = [
    ("pointwise", (1500, "fp32")),
    ("softmax", (4, 40, "bf16")),
    ("layer_norm", (4, 32, "bf16", True)),
    ("cross_entropy", (6, 50, "bf16")),
    ("adamw", (600, 3)),
    ("matmul", (24, 20, 32, "bf16")),
    ("attention", (1, 2, 16, 16, True)),
    ("convolution", (1, 4, 6, 3, True)),
    ("mlp", (8, 12, 16, 4)),
    ("resnet18", (2, 16, 4, 5)),
    ("gpt", (1, 8, 1, 2, 16, 32)),
]
