"""Random modules with random constructor arguments and inputs, as descriptions that either library can build."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Case:
    """A module's class, its arguments, and the shapes (or functions of a NumPy generator) of its inputs."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Any, ...] = ()
    train: bool = True
    dtype: str = "float32"

    def __str__(self) -> str:
        given = [*map(repr, self.args), *(f"{k}={v!r}" for k, v in self.kwargs.items())]
        mode = "train" if self.train else "eval"
        return f"{self.name}({', '.join(given)}) on {self.inputs} {self.dtype} {mode}"


def _integers(high: int, *shape: int) -> tuple[str, int, tuple[int, ...]]:
    return ("integers", high, shape)


def _convolution(r: random.Random) -> Case:
    dims = r.choice((1, 1, 2, 2, 2, 3))
    transposed = r.random() < 0.4
    groups = r.choice((1, 1, 2))
    inside, outside = groups * r.randint(1, 3), groups * r.randint(1, 3)
    kernel = tuple(r.randint(1, 3) for _ in range(dims)) if r.random() < 0.5 else r.randint(1, 3)
    kwargs: dict[str, Any] = {"groups": groups, "bias": r.random() < 0.7, "dilation": r.choice((1, 1, 2))}
    kwargs["stride"] = r.choice((1, 1, 2, tuple(r.randint(1, 2) for _ in range(dims))))
    if transposed:
        kwargs["padding"] = r.randint(0, 1)
        strides = kwargs["stride"] if isinstance(kwargs["stride"], tuple) else (kwargs["stride"],) * dims
        kwargs["output_padding"] = tuple(r.randint(0, max(s, kwargs["dilation"]) - 1) for s in strides)
    else:
        kwargs["padding"] = r.choice((0, 1, tuple(r.randint(0, 2) for _ in range(dims))))
        if kwargs["stride"] == 1 and r.random() < 0.3:
            kwargs["padding"] = r.choice(("same", "valid"))
        elif r.random() < 0.3:
            kwargs["padding_mode"] = r.choice(("zeros", "reflect", "replicate", "circular"))
    sizes = [r.randint(6, 8) for _ in range(dims)]
    shape = (inside, *sizes) if r.random() < 0.2 else (2, inside, *sizes)
    kind = f"Conv{'Transpose' if transposed else ''}{dims}d"
    return Case(kind, (inside, outside, kernel), kwargs, (shape,))


def _norm(r: random.Random) -> Case:
    dims = r.choice((1, 2, 3))
    channels = r.choice((2, 4, 6))
    sizes = [r.randint(2, 4) for _ in range(dims)]
    batch, instance = f"BatchNorm{dims}d", f"InstanceNorm{dims}d"
    kind = r.choice((batch, instance, "GroupNorm", "LayerNorm", "RMSNorm", "LocalResponseNorm"))
    train = r.random() < 0.6
    shape = (3, channels, *sizes)
    eps = r.choice((1e-5, 1e-3))
    affine = r.random() < 0.6
    if kind.startswith(("Batch", "Instance")):
        kwargs = {"eps": eps, "momentum": r.choice((0.1, 0.5, None)), "affine": affine}
        kwargs["track_running_stats"] = r.random() < 0.5
        return Case(kind, (channels,), kwargs, (shape,), train)
    if kind == "GroupNorm":
        return Case(kind, (r.choice((1, 2, channels)), channels), {"eps": eps, "affine": affine}, (shape,), train)
    if kind == "LocalResponseNorm":
        return Case(kind, (r.randint(1, 3),), {"alpha": 1e-2, "beta": r.choice((0.5, 0.75)), "k": 1.0}, (shape,))
    last = tuple(shape[r.randint(1, len(shape) - 1) :])
    kwargs = {"eps": eps, "elementwise_affine": affine}
    if kind == "LayerNorm":
        kwargs["bias"] = r.random() < 0.5
    return Case(kind, (last,), kwargs, (shape,), train)


def _pool(r: random.Random) -> Case:
    dims = r.choice((1, 2, 3))
    sizes = [r.randint(5, 8) for _ in range(dims)]
    shape = (2, 3, *sizes)
    kind = r.choice(("MaxPool", "AvgPool", "AdaptiveAvgPool", "AdaptiveMaxPool", "LPPool"))
    if kind.startswith("Adaptive"):
        size = r.choice((1, 2, 3, tuple(r.randint(1, 4) for _ in range(dims))))
        return Case(f"{kind}{dims}d", (size,), {}, (shape,))
    kernel = r.randint(2, 3)
    kwargs: dict[str, Any] = {"stride": r.choice((None, 1, 2)), "ceil_mode": r.random() < 0.4}
    if kind == "LPPool":
        return Case(f"{kind}{dims}d", (r.choice((1.5, 2.0, 3.0)), kernel), kwargs, (shape,))
    kwargs["padding"] = r.randint(0, 1)
    if kind == "MaxPool":
        kwargs["dilation"] = r.choice((1, 1, 2))
        kwargs["return_indices"] = r.random() < 0.3
    else:
        kwargs["count_include_pad"] = r.random() < 0.5
        if dims > 1 and r.random() < 0.3:
            kwargs["divisor_override"] = r.randint(1, 5)
    return Case(f"{kind}{dims}d", (kernel,), kwargs, (shape,))


_ACTIVATIONS: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "CELU": lambda r: {"alpha": r.choice((0.5, 1.0, 2.0))},
    "ELU": lambda r: {"alpha": r.choice((0.5, 1.0))},
    "GELU": lambda r: {"approximate": r.choice(("none", "tanh"))},
    "GLU": lambda r: {"dim": r.choice((-1, 1))},
    "Hardshrink": lambda r: {"lambd": r.choice((0.3, 0.5))},
    "Hardsigmoid": lambda r: {"inplace": False},
    "Hardswish": lambda r: {},
    "Hardtanh": lambda r: {"min_val": -r.choice((0.5, 1.0)), "max_val": 0.7},
    "LeakyReLU": lambda r: {"negative_slope": r.choice((0.01, 0.2))},
    "LogSigmoid": lambda r: {},
    "LogSoftmax": lambda r: {"dim": r.choice((0, 1, -1))},
    "Mish": lambda r: {},
    "PReLU": lambda r: {"num_parameters": r.choice((1, 4)), "init": 0.3},
    "RReLU": lambda r: {"lower": 0.1, "upper": 0.4},
    "ReLU6": lambda r: {},
    "SELU": lambda r: {},
    "SiLU": lambda r: {},
    "Softmax": lambda r: {"dim": r.choice((0, 1, -1))},
    "Softmin": lambda r: {"dim": 1},
    "Softplus": lambda r: {"beta": r.choice((1.0, 2.0)), "threshold": r.choice((20.0, 1.0))},
    "Softshrink": lambda r: {"lambd": r.choice((0.1, 0.5))},
    "Softsign": lambda r: {},
    "Tanhshrink": lambda r: {},
    "Threshold": lambda r: {"threshold": 0.1, "value": r.choice((0.0, -2.0))},
    "Dropout": lambda r: {"p": r.choice((0.0, 0.3, 1.0))},
    "Dropout1d": lambda r: {"p": 0.4},
    "AlphaDropout": lambda r: {"p": 0.3},
    "FeatureAlphaDropout": lambda r: {"p": 0.3},
}


def _activation(r: random.Random) -> Case:
    name = r.choice(sorted(_ACTIVATIONS))
    return Case(name, (), _ACTIVATIONS[name](r), ((3, 4, 6),), r.random() < 0.7)


def _loss(r: random.Random) -> Case:
    reduction = {"reduction": r.choice(("mean", "sum", "none"))}
    shape = r.choice(((5,), (4, 3), (2, 3, 4)))
    chance = ("chances", shape)
    signs = ("signs", shape)
    classes = r.randint(2, 5)
    scores = (4, classes) if r.random() < 0.6 else (3, classes, 2)
    targets = _integers(classes, scores[0], *scores[2:])
    smooth = r.choice((0.0, 0.1))
    choices = [
        Case("L1Loss", (), reduction, (shape, shape)),
        Case("MSELoss", (), reduction, (shape, shape)),
        Case("SmoothL1Loss", (), {**reduction, "beta": r.choice((0.5, 1.0))}, (shape, shape)),
        Case("HuberLoss", (), {**reduction, "delta": r.choice((0.5, 1.0))}, (shape, shape)),
        Case("BCELoss", (), reduction, (chance, chance)),
        Case("BCEWithLogitsLoss", (), reduction, (shape, chance)),
        Case("KLDivLoss", (), {**reduction, "log_target": r.random() < 0.5}, (shape, chance)),
        Case("PoissonNLLLoss", (), {**reduction, "full": r.random() < 0.5}, (shape, ("counts", shape))),
        Case("GaussianNLLLoss", (), {**reduction, "full": r.random() < 0.5}, (shape, shape, chance)),
        Case("HingeEmbeddingLoss", (), {**reduction, "margin": 0.7}, (shape, signs)),
        Case("SoftMarginLoss", (), reduction, (shape, signs)),
        Case("CosineEmbeddingLoss", (), {**reduction, "margin": 0.2}, ((4, 3), (4, 3), ("signs", (4,)))),
        Case("MarginRankingLoss", (), {**reduction, "margin": 0.2}, (shape, shape, signs)),
        Case("TripletMarginLoss", (), {**reduction, "p": 1.0, "swap": r.random() < 0.5}, ((4, 3),) * 3),
        Case("CrossEntropyLoss", (), {**reduction, "label_smoothing": smooth, "ignore_index": r.choice((-100, 1))},
             (scores, targets)),
        Case("CrossEntropyLoss", (), {**reduction, "label_smoothing": smooth}, (scores, ("chances", scores))),
        Case("NLLLoss", (), {**reduction, "ignore_index": r.choice((-100, 0))}, (scores, targets)),
        Case("MultiMarginLoss", (), {**reduction, "p": r.choice((1, 2)), "margin": 0.8},
             ((4, classes), _integers(classes, 4))),
        Case("MultiLabelSoftMarginLoss", (), reduction, ((4, 3), ("chances", (4, 3)))),
        Case("MultiLabelMarginLoss", (), reduction, ((4, 3), ("labels", 3, (4, 3)))),
    ]  # fmt: skip
    return r.choice(choices)


def _other(r: random.Random) -> Case:
    width, heads = r.choice(((4, 2), (6, 3), (8, 4)))
    bias = r.random() < 0.7
    bidirectional, layers, first = r.random() < 0.4, r.randint(1, 2), r.random() < 0.5
    recurrent = {"num_layers": layers, "bidirectional": bidirectional, "batch_first": first, "bias": bias}
    sides = tuple(r.randint(0, 2) for _ in range(4))
    pad = r.choice(("Reflection", "Replication", "Circular", "Zero"))
    choices = [
        Case("Linear", (width, 3), {"bias": bias}, (r.choice(((width,), (2, width), (2, 3, width))),)),
        Case("Bilinear", (3, 4, 2), {"bias": bias}, ((5, 3), (5, 4))),
        Case("Embedding", (9, 4), {"padding_idx": r.choice((None, 2, -1)), "scale_grad_by_freq": r.random() < 0.5},
             (_integers(9, 2, 5),)),
        Case("EmbeddingBag", (9, 4), {"mode": r.choice(("sum", "mean", "max")), "padding_idx": r.choice((None, 2))},
             (_integers(9, 2, 5),)),
        Case("LSTM", (width, 3), {**recurrent, "proj_size": r.choice((0, 2))}, ((4, 2, width),)),
        Case("GRU", (width, 3), recurrent, ((4, 2, width),)),
        Case("RNN", (width, 3), {**recurrent, "nonlinearity": r.choice(("tanh", "relu"))}, ((4, 2, width),)),
        Case("LSTMCell", (width, 3), {"bias": bias}, ((2, width),)),
        Case("GRUCell", (width, 3), {"bias": bias}, ((2, width),)),
        Case("MultiheadAttention", (width, heads), {"bias": bias, "batch_first": first,
             "add_zero_attn": r.random() < 0.3, "add_bias_kv": r.random() < 0.3}, ((3, 2, width),) * 3),
        Case("TransformerEncoderLayer", (width, heads), {"dim_feedforward": 10, "dropout": 0.0, "batch_first": first,
             "norm_first": r.random() < 0.5, "activation": r.choice(("relu", "gelu"))}, ((3, 2, width),)),
        Case("TransformerDecoderLayer", (width, heads), {"dim_feedforward": 10, "dropout": 0.0,
             "norm_first": r.random() < 0.5}, ((3, 2, width), (4, 2, width))),
        Case(f"{pad}Pad2d", (sides,), {}, ((2, 3, 5, 6),)),
        Case("ConstantPad1d", (sides[:2], 0.5), {}, ((2, 3, 5),)),
        Case("Upsample", (), {"scale_factor": r.choice((2, 1.5)), "mode": r.choice(("nearest", "bilinear", "bicubic"))},
             ((1, 2, 4, 5),)),
        Case("PixelShuffle", (2,), {}, ((1, 8, 3, 2),)),
        Case("PixelUnshuffle", (2,), {}, ((1, 2, 4, 6),)),
        Case("Unfold", (2,), {"stride": r.randint(1, 2), "padding": r.randint(0, 1)}, ((1, 2, 5, 6),)),
        Case("Fold", ((5, 6), 2), {}, ((1, 8, 20),)),
        Case("ChannelShuffle", (2,), {}, ((1, 4, 2, 3),)),
        Case("CosineSimilarity", (), {"dim": r.choice((0, 1)), "eps": 1e-6}, ((4, 3), (4, 3))),
        Case("PairwiseDistance", (), {"p": r.choice((1.0, 2.0, 3.0)), "keepdim": r.random() < 0.5}, ((4, 3), (4, 3))),
        Case("Flatten", (r.randint(0, 1), r.choice((-1, 2))), {}, ((2, 3, 4, 2),)),
        Case("Unflatten", (1, (2, 3)), {}, ((2, 6, 3),)),
    ]  # fmt: skip
    return r.choice(choices)


def case(seed: int) -> Case:
    """The case of a seed."""
    r = random.Random(seed)
    made = r.choice((_convolution, _norm, _pool, _activation, _loss, _other, _other))(r)
    if r.random() < 0.3:
        made.dtype = "float64"
    return made
