"""What `benchmarks/eager.py --survey` times: the operators that programs use, at three sizes, and training steps.

A case is a function of the library and of a size; it gives what to call and the tensors that get gradients. Sizes are
numbers of elements: shapes are chosen to have about as many."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

SIZES = {"1K": 1 << 10, "64K": 1 << 16, "1M": 1 << 20}

# (library, number of elements) -> (call, leaves); without leaves only the forward is timed.
Builder = Callable[[Any, int], tuple[Callable[[], Any], list[Any]]]


def _leaf(tensor: Any) -> Any:
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def _pointwise(apply: Callable[..., Any], operands: int = 1, positive: bool = False, dtype: str = "float32") -> Builder:
    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        def make() -> Any:
            drawn = torch.rand(n) * 0.9 + 0.05 if positive else torch.randn(n)
            return _leaf(drawn.to(getattr(torch, dtype)))

        leaves = [make() for _ in range(operands)]
        return lambda: apply(torch, *leaves), leaves

    return build


def _shaped(apply: Callable[..., Any], *shapes: Callable[[int], tuple[int, ...]], dtype: str = "float32") -> Builder:
    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        leaves = [_leaf(torch.randn(*shape(n)).to(getattr(torch, dtype))) for shape in shapes]
        return lambda: apply(torch, *leaves), leaves

    return build


def _rows(n: int) -> tuple[int, int]:
    """A matrix of rows of up to 1024 elements."""
    width = min(1024, max(16, math.isqrt(n)))
    return n // width, width


def _width(n: int) -> tuple[int]:
    return (_rows(n)[1],)


def _square(n: int) -> tuple[int, int]:
    side = math.isqrt(n)
    return side, side


def _images(n: int) -> tuple[int, int, int, int]:
    """Batch, channels, height, width."""
    side = 8 if n <= 1 << 12 else 16 if n <= 1 << 16 else 32
    channels = 4 if n <= 1 << 12 else 16
    return n // (channels * side * side), channels, side, side


def _module(make: Callable[[Any, int], Any], shape: Callable[[int], tuple[int, ...]]) -> Builder:
    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        torch.manual_seed(0)
        module = make(torch, n)
        x = _leaf(torch.randn(*shape(n)))

        def call() -> Any:
            made = module(x)
            return made[0] if isinstance(made, tuple) else made

        return call, [x, *module.parameters()]

    return build


def _indexed(apply: Callable[..., Any]) -> Builder:
    """Rows of 64 features and as many indices as rows: edges of a graph, tokens of a text."""

    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        rows = max(4, n // 64)
        torch.manual_seed(0)
        x = _leaf(torch.randn(rows, 64))
        places = torch.randint(0, rows, (rows,))
        return lambda: apply(torch, x, places), [x]

    return build


def _plain(apply: Callable[[Any, int], Any]) -> Builder:
    return lambda torch, n: (lambda: apply(torch, n), [])


def _heads(n: int) -> tuple[int, int, int, int]:
    """Batch, heads, tokens, features."""
    tokens = 16 if n <= 1 << 12 else 64 if n <= 1 << 16 else 128
    return max(1, n // (4 * tokens * 16)), 4 if n > 1 << 10 else 1, tokens, 16


def _classes(apply: Callable[..., Any]) -> Builder:
    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        rows, width = _rows(n)
        x, y = _leaf(torch.randn(rows, width)), torch.randint(0, width, (rows,))
        return lambda: apply(torch, x, y), [x]

    return build


def _targets(apply: Callable[..., Any]) -> Builder:
    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        x, y = _leaf(torch.randn(n)), torch.rand(n)
        return lambda: apply(torch, x, y), [x]

    return build


def _grid(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
    shape = _images(n)
    x, where = _leaf(torch.randn(*shape)), _leaf(torch.rand(shape[0], shape[2], shape[3], 2) * 2 - 1)
    return lambda: torch.nn.functional.grid_sample(x, where, align_corners=False), [x, where]


def _update(apply: Callable[..., Any], operands: int = 1) -> Builder:
    """In-place operators: no gradients."""

    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        given = [torch.rand(n) for _ in range(operands)]
        return lambda: apply(torch, *given), []

    return build


def _optimizer(name: str, **options: Any) -> Builder:
    def build(torch: Any, n: int) -> tuple[Callable[[], Any], list[Any]]:
        parameters = [torch.nn.Parameter(torch.randn(n // 8)) for _ in range(8)]
        for parameter in parameters:
            parameter.grad = torch.randn(n // 8)
        optimizer = getattr(torch.optim, name)(parameters, **options)
        return optimizer.step, []

    return build


def _half(name: str) -> str:
    return {"float16": "f16", "bfloat16": "bf16"}[name]


CASES: dict[str, Builder] = {
    **{
        name: _pointwise(lambda torch, x, name=name: getattr(torch, name)(x), positive=positive)
        for positive, names in (
            (False, "neg abs exp sin cos tan tanh sigmoid square sign floor round erf sinh atan expm1 relu"),
            (True, "sqrt rsqrt log log1p log2 reciprocal lgamma digamma erfinv asin acos logit"),
        )
        for name in names.split()
    },
    **{
        f"F.{name}": _pointwise(lambda torch, x, name=name: getattr(torch.nn.functional, name)(x))
        for name in [
            "leaky_relu",
            "elu",
            "selu",
            "celu",
            "gelu",
            "silu",
            "mish",
            "softplus",
            "softsign",
            "hardtanh",
            "hardsigmoid",
            "hardswish",
            "relu6",
            "logsigmoid",
            "tanhshrink",
            "softshrink",
            "hardshrink",
        ]
    },
    "F.gelu tanh": _pointwise(lambda torch, x: torch.nn.functional.gelu(x, approximate="tanh")),
    "F.glu": _shaped(lambda torch, x: torch.nn.functional.glu(x), _rows),
    "F.prelu": _shaped(lambda torch, x, w: torch.nn.functional.prelu(x, w), _images, lambda n: (_images(n)[1],)),
    "add": _pointwise(lambda torch, x, y: x + y, 2),
    "add alpha": _pointwise(lambda torch, x, y: torch.add(x, y, alpha=0.5), 2),
    "add row": _shaped(lambda torch, x, y: x + y, _rows, _width),
    "mul": _pointwise(lambda torch, x, y: x * y, 2),
    "mul number": _pointwise(lambda torch, x: x * 2.0),
    "mul column": _shaped(lambda torch, x, y: x * y, _rows, lambda n: (_rows(n)[0], 1)),
    "div": _pointwise(lambda torch, x, y: x / y, 2, True),
    "pow 2": _pointwise(lambda torch, x: x**2),
    "pow 3": _pointwise(lambda torch, x: x**3),
    "pow 1.5": _pointwise(lambda torch, x: x**1.5, 1, True),
    "pow": _pointwise(lambda torch, x, y: x**y, 2, True),
    "maximum": _pointwise(lambda torch, x, y: torch.maximum(x, y), 2),
    "minimum number": _pointwise(lambda torch, x: x.clamp(max=0.5)),
    "clamp": _pointwise(lambda torch, x: x.clamp(-1.0, 1.0)),
    "clamp tensors": _pointwise(lambda torch, x, y, z: torch.clamp(x, y, z), 3),
    "lerp": _pointwise(lambda torch, x, y: torch.lerp(x, y, 0.3), 2),
    "addcmul": _pointwise(lambda torch, x, y, z: torch.addcmul(x, y, z, value=0.5), 3),
    "addcdiv": _pointwise(lambda torch, x, y, z: torch.addcdiv(x, y, z, value=0.5), 3, True),
    "where": _pointwise(lambda torch, x, y: torch.where(x > 0, x, y), 2),
    "masked_fill": _pointwise(lambda torch, x: x.masked_fill(x > 0, 0.0)),
    "atan2": _pointwise(lambda torch, x, y: torch.atan2(x, y), 2),
    "fmod": _pointwise(lambda torch, x: torch.fmod(x, 0.3)),
    "remainder": _pointwise(lambda torch, x: x % 0.3),
    "floor_divide": _plain(lambda torch, n: torch.arange(n) // 3),
    "logaddexp": _pointwise(lambda torch, x, y: torch.logaddexp(x, y), 2),
    "hypot": _pointwise(lambda torch, x, y: torch.hypot(x, y), 2),
    "x > 0": _pointwise(lambda torch, x: x > 0),
    "isnan": _pointwise(lambda torch, x: x.isnan()),
    "nan_to_num": _pointwise(lambda torch, x: x.nan_to_num()),
    "clone": _pointwise(lambda torch, x: x.clone()),
    "to float64": _pointwise(lambda torch, x: x.double()),
    "to bfloat16": _pointwise(lambda torch, x: x.bfloat16()),
    "to float16": _pointwise(lambda torch, x: x.half()),
    "to int64": _pointwise(lambda torch, x: x.long()),
    "int64 add": _pointwise(lambda torch, x, y: x + y, 2, dtype="int64"),
    "int64 == 0": _pointwise(lambda torch, x: x == 0, dtype="int64"),
    **{
        f"{_half(d)} {name}": _pointwise(apply, count, True, d)
        for d in ("bfloat16", "float16")
        for name, count, apply in (
            ("to float32", 1, lambda torch, x: x.float()),
            ("add", 2, lambda torch, x, y: x + y),
            ("mul", 2, lambda torch, x, y: x * y),
            ("mul number", 1, lambda torch, x: x * 0.3),
            ("div", 2, lambda torch, x, y: x / y),
            ("exp", 1, lambda torch, x: x.exp()),
            ("tanh", 1, lambda torch, x: x.tanh()),
            ("relu", 1, lambda torch, x: x.relu()),
            ("gelu", 1, lambda torch, x: torch.nn.functional.gelu(x)),
            ("silu", 1, lambda torch, x: torch.nn.functional.silu(x)),
            ("sqrt", 1, lambda torch, x: x.sqrt()),
            ("sum", 1, lambda torch, x: x.sum()),
            ("mean", 1, lambda torch, x: x.mean()),
            ("max", 1, lambda torch, x: x.max()),
            ("where", 2, lambda torch, x, y: torch.where(x > y, x, y)),
            ("clone", 1, lambda torch, x: x.clone()),
        )
    },
    **{
        f"{_half(d)} {name}": _shaped(apply, *shapes, dtype=d)
        for d in ("bfloat16", "float16")
        for name, apply, shapes in (
            ("matmul", lambda torch, x, y: x @ y, (_square, _square)),
            ("softmax", lambda torch, x: x.softmax(-1), (_rows,)),
            ("layer_norm", lambda torch, x: torch.nn.functional.layer_norm(x, x.shape[-1:]), (_rows,)),
        )
    },
    **{
        name: _pointwise(lambda torch, x, name=name: getattr(x, name)(), positive=True)
        for name in ["sum", "mean", "max", "min", "argmax", "std", "var", "norm", "prod", "median", "unique"]
    },
    "sum rows": _shaped(lambda torch, x: x.sum(-1), _rows),
    "sum columns": _shaped(lambda torch, x: x.sum(0), _rows),
    "mean rows": _shaped(lambda torch, x: x.mean(-1), _rows),
    "max rows": _shaped(lambda torch, x: x.max(-1)[0], _rows),
    "max columns": _shaped(lambda torch, x: x.max(0)[0], _rows),
    "amax rows": _shaped(lambda torch, x: x.amax(-1), _rows),
    "argmax rows": _shaped(lambda torch, x: x.argmax(-1), _rows),
    "var rows": _shaped(lambda torch, x: x.var(-1), _rows),
    "std columns": _shaped(lambda torch, x: x.std(0), _rows),
    "norm rows": _shaped(lambda torch, x: x.norm(dim=-1), _rows),
    "F.normalize": _shaped(lambda torch, x: torch.nn.functional.normalize(x), _rows),
    "cosine_similarity": _shaped(lambda torch, x, y: torch.nn.functional.cosine_similarity(x, y), _rows, _rows),
    "logsumexp rows": _shaped(lambda torch, x: x.logsumexp(-1), _rows),
    "softmax": _shaped(lambda torch, x: x.softmax(-1), _rows),
    "softmax columns": _shaped(lambda torch, x: x.softmax(0), _rows),
    "log_softmax": _shaped(lambda torch, x: x.log_softmax(-1), _rows),
    "cumsum rows": _shaped(lambda torch, x: x.cumsum(-1), _rows),
    "cumprod rows": _shaped(lambda torch, x: x.cumprod(-1), _rows),
    "sort rows": _shaped(lambda torch, x: x.sort(-1)[0], _rows),
    "argsort rows": _shaped(lambda torch, x: x.argsort(-1), _rows),
    "topk rows": _shaped(lambda torch, x: x.topk(4, -1)[0], _rows),
    "matmul": _shaped(lambda torch, x, y: x @ y, _square, _square),
    "bmm": _shaped(
        lambda torch, x, y: x @ y, lambda n: (max(1, n // 1024), 32, 32), lambda n: (max(1, n // 1024), 32, 32)
    ),
    "einsum": _shaped(
        lambda torch, x, y: torch.einsum("bij,bkj->bik", x, y),
        lambda n: (max(1, n // 1024), 32, 32),
        lambda n: (max(1, n // 1024), 32, 32),
    ),
    "cdist": _shaped(lambda torch, x, y: torch.cdist(x, y), lambda n: (n // 64, 16), lambda n: (64, 16)),
    "F.linear": _module(lambda torch, n: torch.nn.Linear(_rows(n)[1], 128), _rows),
    "nn.Conv2d 3x3": _module(lambda torch, n: torch.nn.Conv2d(_images(n)[1], 16, 3, padding=1), _images),
    "nn.Conv1d": _module(lambda torch, n: torch.nn.Conv1d(16, 16, 3, padding=1), lambda n: (max(1, n // 2048), 16, 64)),
    "nn.ConvTranspose2d": _module(lambda torch, n: torch.nn.ConvTranspose2d(_images(n)[1], 8, 4, 2, 1), _images),
    "nn.MaxPool2d": _module(lambda torch, n: torch.nn.MaxPool2d(2), _images),
    "nn.AvgPool2d": _module(lambda torch, n: torch.nn.AvgPool2d(2), _images),
    "nn.AdaptiveAvgPool2d": _module(lambda torch, n: torch.nn.AdaptiveAvgPool2d(1), _images),
    "nn.BatchNorm2d": _module(lambda torch, n: torch.nn.BatchNorm2d(_images(n)[1]), _images),
    "nn.BatchNorm2d eval": _module(lambda torch, n: torch.nn.BatchNorm2d(_images(n)[1]).eval(), _images),
    "nn.BatchNorm1d": _module(lambda torch, n: torch.nn.BatchNorm1d(_rows(n)[1]), _rows),
    "nn.GroupNorm": _module(lambda torch, n: torch.nn.GroupNorm(4, _images(n)[1]), _images),
    "nn.InstanceNorm2d": _module(lambda torch, n: torch.nn.InstanceNorm2d(_images(n)[1]), _images),
    "nn.LayerNorm": _module(lambda torch, n: torch.nn.LayerNorm(_rows(n)[1]), _rows),
    "nn.RMSNorm": _module(lambda torch, n: torch.nn.RMSNorm(_rows(n)[1]), _rows),
    "nn.Dropout": _module(lambda torch, n: torch.nn.Dropout(0.1), _rows),
    "F.dropout p=0": _pointwise(lambda torch, x: torch.nn.functional.dropout(x, 0.0)),
    "nn.LSTM": _module(
        lambda torch, n: torch.nn.LSTM(16, 32), lambda n: (8 if n < 1 << 12 else 32, max(1, n // 4096 * 2), 16)
    ),
    "nn.GRU": _module(
        lambda torch, n: torch.nn.GRU(16, 32), lambda n: (8 if n < 1 << 12 else 32, max(1, n // 4096 * 2), 16)
    ),
    "nn.RNN": _module(
        lambda torch, n: torch.nn.RNN(16, 32), lambda n: (8 if n < 1 << 12 else 32, max(1, n // 4096 * 2), 16)
    ),
    "nn.LSTMCell": _module(lambda torch, n: torch.nn.LSTMCell(64, 64), lambda n: (max(1, n // 256), 64)),
    "nn.GRUCell": _module(lambda torch, n: torch.nn.GRUCell(64, 64), lambda n: (max(1, n // 256), 64)),
    "nn.TransformerEncoderLayer": _module(
        lambda torch, n: torch.nn.TransformerEncoderLayer(64, 4, 128, batch_first=True),
        lambda n: (max(1, n // 2048), 16 if n < 1 << 12 else 32, 64),
    ),
    "attention": _shaped(
        lambda torch, q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v), _heads, _heads, _heads
    ),
    "attention causal": _shaped(
        lambda torch, q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True),
        _heads,
        _heads,
        _heads,
    ),
    "nn.Embedding": _indexed(lambda torch, x, i: torch.nn.functional.embedding(i, x)),
    "x[i]": _indexed(lambda torch, x, i: x[i]),
    "index_select": _indexed(lambda torch, x, i: x.index_select(0, i)),
    "index_add": _indexed(lambda torch, x, i: torch.zeros_like(x).index_add(0, i, x)),
    "gather": _indexed(lambda torch, x, i: x.gather(0, i[:, None].expand(-1, 64))),
    "scatter_add": _indexed(lambda torch, x, i: torch.zeros_like(x).scatter_add(0, i[:, None].expand(-1, 64), x)),
    "scatter_reduce amax": _indexed(
        lambda torch, x, i: torch.zeros_like(x).scatter_reduce(0, i[:, None].expand(-1, 64), x, "amax")
    ),
    "scatter": _indexed(lambda torch, x, i: torch.zeros_like(x).scatter(0, i[:, None].expand(-1, 64), x)),
    "x[mask]": _shaped(lambda torch, x: x[x > 0], _rows),
    "x[1:, ::2]": _shaped(lambda torch, x: x[1:, ::2].clone(), _rows),
    "cat": _shaped(lambda torch, x, y: torch.cat((x, y), 1), _rows, _rows),
    "stack": _shaped(lambda torch, x, y: torch.stack((x, y)), _rows, _rows),
    "transpose copy": _shaped(lambda torch, x: x.t().contiguous(), _square),
    "permute copy": _shaped(lambda torch, x: x.permute(0, 2, 3, 1).contiguous(), _images),
    "flip": _shaped(lambda torch, x: x.flip(-1), _rows),
    "roll": _shaped(lambda torch, x: x.roll(1, -1), _rows),
    "repeat": _shaped(lambda torch, x: x.repeat(1, 2), _rows),
    "repeat_interleave": _shaped(lambda torch, x: x.repeat_interleave(2, 1), _rows),
    "F.pad": _shaped(lambda torch, x: torch.nn.functional.pad(x, (1, 1, 1, 1)), _images),
    "F.pad reflect": _shaped(lambda torch, x: torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"), _images),
    "tril": _shaped(lambda torch, x: x.tril(), _square),
    "interpolate nearest": _shaped(lambda torch, x: torch.nn.functional.interpolate(x, scale_factor=2), _images),
    "interpolate bilinear": _shaped(
        lambda torch, x: torch.nn.functional.interpolate(x, scale_factor=2, mode="bilinear"), _images
    ),
    "interpolate bicubic": _shaped(
        lambda torch, x: torch.nn.functional.interpolate(x, scale_factor=2, mode="bicubic"), _images
    ),
    "grid_sample": _grid,
    "pixel_shuffle": _shaped(lambda torch, x: torch.nn.functional.pixel_shuffle(x, 2), _images),
    "F.unfold": _shaped(lambda torch, x: torch.nn.functional.unfold(x, 3, padding=1), _images),
    "one_hot": _plain(lambda torch, n: torch.nn.functional.one_hot(torch.arange(n // 64) % 64, 64)),
    "cross_entropy": _classes(lambda torch, x, y: torch.nn.functional.cross_entropy(x, y)),
    "nll_loss": _classes(lambda torch, x, y: torch.nn.functional.nll_loss(x, y)),
    "mse_loss": _targets(lambda torch, x, y: torch.nn.functional.mse_loss(x, y)),
    "l1_loss": _targets(lambda torch, x, y: torch.nn.functional.l1_loss(x, y)),
    "smooth_l1_loss": _targets(lambda torch, x, y: torch.nn.functional.smooth_l1_loss(x, y)),
    "huber_loss": _targets(lambda torch, x, y: torch.nn.functional.huber_loss(x, y)),
    "bce": _targets(lambda torch, x, y: torch.nn.functional.binary_cross_entropy(x.sigmoid(), y)),
    "bce with logits": _targets(lambda torch, x, y: torch.nn.functional.binary_cross_entropy_with_logits(x, y)),
    "kl_div": _targets(lambda torch, x, y: torch.nn.functional.kl_div(x, y, reduction="sum")),
    "gaussian_nll": _targets(lambda torch, x, y: torch.nn.functional.gaussian_nll_loss(x, y, y + 0.1)),
    "zeros": _plain(lambda torch, n: torch.zeros(n)),
    "full": _plain(lambda torch, n: torch.full((n,), 2.0)),
    "arange": _plain(lambda torch, n: torch.arange(n)),
    "linspace": _plain(lambda torch, n: torch.linspace(0, 1, n)),
    "rand": _plain(lambda torch, n: torch.rand(n)),
    "randn": _plain(lambda torch, n: torch.randn(n)),
    "randint": _plain(lambda torch, n: torch.randint(0, 10, (n,))),
    "randperm": _plain(lambda torch, n: torch.randperm(n)),
    "bernoulli": _update(lambda torch, x: torch.bernoulli(x)),
    "x.add_(y)": _update(lambda torch, x, y: x.add_(y, alpha=1e-3), 2),
    "x.mul_(0.9)": _update(lambda torch, x: x.mul_(0.999)),
    "x.clamp_": _update(lambda torch, x: x.clamp_(0.1, 0.9)),
    "x.zero_": _update(lambda torch, x: x.zero_()),
    "x.copy_": _update(lambda torch, x, y: x.copy_(y), 2),
    "x.lerp_": _update(lambda torch, x, y: x.lerp_(y, 0.01), 2),
    "x.addcdiv_": _update(lambda torch, x, y, z: x.addcdiv_(y, z, value=1e-3), 3),
    "optim.SGD momentum": _optimizer("SGD", lr=1e-3, momentum=0.9),
    "optim.Adam": _optimizer("Adam", lr=1e-3),
    "optim.AdamW": _optimizer("AdamW", lr=1e-3),
    "optim.RMSprop": _optimizer("RMSprop", lr=1e-3),
}


# -- training steps ---------------------------------------------------------------------------------------------------


def _step(torch: Any, model: Any, optimizer: Any, loss: Callable[[], Any]) -> Callable[[], Any]:
    def step() -> Any:
        optimizer.zero_grad()
        found = loss()
        found.backward()
        optimizer.step()
        return found

    return step


def _cnn(torch: Any) -> Callable[[], Any]:
    """Two residual blocks with batch norm on 3x16x16 images, batch 16."""
    nn = torch.nn

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, channels: int) -> None:
            super().__init__()
            self.first = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.second = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
            self.norms = nn.ModuleList([nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)])

        def forward(self, x: Any) -> Any:
            inner = torch.relu(self.norms[0](self.first(x)))
            return torch.relu(x + self.norms[1](self.second(inner)))

    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Block(16), nn.MaxPool2d(2), Block(16), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10),
    )  # fmt: skip
    x, y = torch.randn(16, 3, 16, 16), torch.randint(0, 10, (16,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    return _step(torch, model, optimizer, lambda: nn.functional.cross_entropy(model(x), y))


def _gpt(torch: Any) -> Callable[[], Any]:
    """Two pre-norm blocks of width 64, four heads, 64 tokens, batch 8."""
    nn, F = torch.nn, torch.nn.functional

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self, width: int) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x: Any) -> Any:
            b, t, c = x.shape
            q, k, v = (p.view(b, t, 4, c // 4).transpose(1, 2) for p in self.qkv(self.norms[0](x)).split(c, 2))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(mixed.transpose(1, 2).reshape(b, t, c))
            return x + self.down(F.gelu(self.up(self.norms[1](x))))

    model = nn.ModuleDict(
        {
            "tokens": nn.Embedding(128, 64),
            "places": nn.Embedding(64, 64),
            "blocks": nn.Sequential(Block(64), Block(64)),
            "norm": nn.LayerNorm(64),
            "head": nn.Linear(64, 128, bias=False),
        }
    )
    tokens, places = torch.randint(0, 128, (8, 65)), torch.arange(64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def loss() -> Any:
        x = model["tokens"](tokens[:, :-1]) + model["places"](places)
        logits = model["head"](model["norm"](model["blocks"](x)))
        return F.cross_entropy(logits.view(-1, 128), tokens[:, 1:].reshape(-1))

    return _step(torch, model, optimizer, loss)


def _lstm(torch: Any) -> Callable[[], Any]:
    """A language model: embedding 32, two LSTM layers of 64, 32 tokens, batch 16."""
    nn = torch.nn
    embedding, recurrent, head = nn.Embedding(64, 32), nn.LSTM(32, 64, 2, batch_first=True), nn.Linear(64, 64)
    tokens = torch.randint(0, 64, (16, 33))
    model = nn.ModuleList([embedding, recurrent, head])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss() -> Any:
        logits = head(recurrent(embedding(tokens[:, :-1]))[0])
        return nn.functional.cross_entropy(logits.reshape(-1, 64), tokens[:, 1:].reshape(-1))

    return _step(torch, model, optimizer, loss)


def _vae(torch: Any) -> Callable[[], Any]:
    """784-256-16, batch 64."""
    nn, F = torch.nn, torch.nn.functional
    encoder, decoder = nn.Sequential(nn.Linear(784, 256), nn.ReLU()), nn.Sequential(nn.Linear(16, 256), nn.ReLU())
    mean, spread, out = nn.Linear(256, 16), nn.Linear(256, 16), nn.Linear(256, 784)
    model = nn.ModuleList([encoder, decoder, mean, spread, out])
    x = torch.rand(64, 784)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss() -> Any:
        hidden = encoder(x)
        mu, logvar = mean(hidden), spread(hidden)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)
        found = F.binary_cross_entropy(torch.sigmoid(out(decoder(z))), x, reduction="sum")
        return found - 0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())

    return _step(torch, model, optimizer, loss)


def _diffusion(torch: Any) -> Callable[[], Any]:
    """Denoising with group norm, SiLU, a time embedding and one up and down, 1x16x16 images, batch 16."""
    nn, F = torch.nn, torch.nn.functional
    embed = nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 32))
    first, down, up = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 32, 3, 2, 1), nn.Conv2d(32, 32, 3, padding=1)
    last, norms = nn.Conv2d(64, 1, 3, padding=1), nn.ModuleList([nn.GroupNorm(8, 32) for _ in range(3)])
    model = nn.ModuleList([embed, first, down, up, last, norms])
    x, frequencies = torch.randn(16, 1, 16, 16), torch.exp(torch.linspace(0, -4, 8))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

    def loss() -> Any:
        t, noise = torch.rand(16), torch.randn_like(x)
        angles = t[:, None] * frequencies
        time = embed(torch.cat((angles.sin(), angles.cos()), 1))[:, :, None, None]
        keep = torch.cos(t * 1.5)[:, None, None, None]
        noisy = keep * x + (1 - keep**2).sqrt() * noise
        high = F.silu(norms[0](first(noisy)) + time)
        low = F.silu(norms[1](down(high)) + time)
        wide = F.silu(norms[2](up(F.interpolate(low, scale_factor=2.0, mode="nearest"))))
        return F.mse_loss(last(torch.cat((high, wide), 1)), noise)

    return _step(torch, model, optimizer, loss)


def _policy(torch: Any) -> Callable[[], Any]:
    """A PPO update: two networks of two layers of 64, batch 64, clipped ratio, entropy, gradients clipped."""
    nn = torch.nn
    actor = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 2))
    critic = nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 1))
    model = nn.ModuleList([actor, critic])
    x, actions, old = torch.randn(64, 4), torch.randint(0, 2, (64,)), torch.randn(64)
    advantage, returns = torch.randn(64), torch.randn(64)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def loss() -> Any:
        chosen = torch.distributions.Categorical(logits=actor(x))
        ratio = (chosen.log_prob(actions) - old).exp()
        better = torch.min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage).mean()
        value = (critic(x).squeeze(1) - returns).pow(2).mean()
        return 0.5 * value - better - 0.01 * chosen.entropy().mean()

    return _step(torch, model, optimizer, loss)


def _graph(torch: Any) -> Callable[[], Any]:
    """Two graph convolutions and an attention over edges: 512 nodes, 4096 edges, 32 features."""
    nn, F = torch.nn, torch.nn.functional
    lines = nn.ModuleList([nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(64, 1), nn.Linear(32, 8)])
    x, edges, y = torch.randn(512, 32), torch.randint(0, 512, (2, 4096)), torch.randint(0, 8, (512,))
    optimizer = torch.optim.Adam(lines.parameters(), lr=1e-3)

    def loss() -> Any:
        source, target = edges
        degree = torch.zeros(512).scatter_add(0, target, torch.ones(4096)).clamp(min=1)
        h = lines[0](x)
        h = F.relu(torch.zeros_like(h).index_add(0, target, h[source]) / degree[:, None])
        h = lines[1](h)
        score = F.leaky_relu(lines[2](torch.cat((h[source], h[target]), 1)).squeeze(1), 0.2)
        top = torch.full((512,), -1e9).scatter_reduce(0, target, score.detach(), "amax")
        weight = (score - top[target]).exp()
        weight = weight / torch.zeros(512).scatter_add(0, target, weight)[target]
        h = torch.zeros_like(h).index_add(0, target, h[source] * weight[:, None])
        return F.cross_entropy(lines[3](h), y)

    return _step(torch, lines, optimizer, loss)


STEPS: dict[str, Callable[[Any], Callable[[], Any]]] = {
    "step: CNN": _cnn,
    "step: GPT": _gpt,
    "step: LSTM": _lstm,
    "step: VAE": _vae,
    "step: diffusion": _diffusion,
    "step: PPO": _policy,
    "step: graph network": _graph,
}
