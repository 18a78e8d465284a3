"""How many floating-point operations eager code costs: `torch.utils.flop_counter.FlopCounterMode`.

Products and convolutions are counted, two operations a multiplication and addition, forwards and backwards; everything
else counts as nothing. Attention is counted as its two products, which it is made of here (PyTorch leaves out its
implementation for CPUs)."""

from __future__ import annotations

import math
import warnings
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from graphtorch.nn import Module
from graphtorch.ops.modes import OpOverloadPacket, TorchDispatchMode, aten
from graphtorch.tensor.tensor import Tensor
from graphtorch.utils._pytree import tree_map
from graphtorch.utils.module_tracker import ModuleTracker

__all__ = ["FlopCounterMode", "register_flop_formula"]

Formula = Callable[..., int]
flop_registry: dict[Any, Formula] = {}


def _shape(value: Any) -> Any:
    return tuple(value.shape) if isinstance(value, Tensor) else value


def shape_wrapper(f: Formula) -> Formula:
    """A formula on shapes as one on tensors."""

    def on_tensors(*args: Any, out_val: Any = None, **kwargs: Any) -> int:
        args, kwargs, out_shape = tree_map(_shape, (args, kwargs, out_val))
        return f(*args, out_shape=out_shape, **kwargs)

    return on_tensors


def register_flop_formula(targets: Any, get_raw: bool = False) -> Callable[[Formula], Formula]:
    """Decorate a formula for operators such as `torch.ops.aten.mm` (or a list of them). It gets the shapes of the
    operands and, as `out_shape`, of the result; with `get_raw`, the tensors and `out_val`.

    Raises ValueError for what is no operator, RuntimeError for one that has a formula."""

    def register(formula: Formula) -> Formula:
        found = formula if get_raw else shape_wrapper(formula)
        for target in targets if isinstance(targets, list | tuple) else [targets]:
            if not isinstance(target, OpOverloadPacket):
                raise ValueError(
                    "register_flop_formula(targets): expected each target to be OpOverloadPacket (i.e. "
                    f"torch.ops.mylib.foo), JitFunction, or HigherOrderOperator, got {target} which is of type "
                    f"{type(target)}"
                )
            if target in flop_registry:
                raise RuntimeError(f"duplicate registrations for {target}")
            flop_registry[target] = found
        return found

    return register


@register_flop_formula(aten.mm)
def mm_flop(a_shape: Any, b_shape: Any, *args: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of (m, k) and (k, n)."""
    (m, k), (_, n) = a_shape, b_shape
    return int(2 * m * k * n)


@register_flop_formula(aten.addmm)
def addmm_flop(self_shape: Any, a_shape: Any, b_shape: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of the product alone."""
    return mm_flop(a_shape, b_shape)


@register_flop_formula(aten.bmm)
def bmm_flop(a_shape: Any, b_shape: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of (b, m, k) and (b, k, n)."""
    (b, m, k), (_, _, n) = a_shape, b_shape
    return int(2 * b * m * k * n)


@register_flop_formula(aten.baddbmm)
def baddbmm_flop(self_shape: Any, a_shape: Any, b_shape: Any, out_shape: Any = None, **kwargs: Any) -> int:
    """Of the product alone."""
    return bmm_flop(a_shape, b_shape)


def conv_flop_count(x_shape: Any, w_shape: Any, out_shape: Any, transposed: bool = False) -> int:
    """A product of a filter at each place of the result (of the operand, if transposed)."""
    places = x_shape[2:] if transposed else out_shape[2:]
    channels_out, channels_in, *window = w_shape
    return int(2 * x_shape[0] * math.prod(places) * channels_out * channels_in * math.prod(window))


@register_flop_formula([aten.convolution, aten._convolution])
def conv_flop(
    x_shape: Any, w_shape: Any, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, *args: Any,
    out_shape: Any = None, **kwargs: Any,
) -> int:  # fmt: skip
    """Of a convolution."""
    return conv_flop_count(x_shape, w_shape, out_shape, transposed=transposed)


@register_flop_formula(aten.convolution_backward)
def conv_backward_flop(
    grad_out_shape: Any, x_shape: Any, w_shape: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int, output_mask: Any, out_shape: Any = None,
) -> int:  # fmt: skip
    """Of those gradients that are asked for. That of the weight is counted as if there were a single group, as PyTorch
    does."""
    count = 0
    if output_mask[0]:
        count += conv_flop_count(grad_out_shape, w_shape, x_shape, not transposed)
    if output_mask[1]:
        outer, inner = (x_shape, grad_out_shape) if transposed else (grad_out_shape, x_shape)
        count += 2 * inner[1] * outer[1] * outer[0] * math.prod(outer[2:]) * math.prod(w_shape[2:])
    return count


_SUFFIXES = ("", "K", "M", "B", "T")


def get_suffix_str(number: int) -> str:
    """The suffix that suits a number: 1.01B is shown as 1010M."""
    return _SUFFIXES[max(0, min(len(_SUFFIXES) - 1, (len(str(number)) - 2) // 3))]


def convert_num_with_suffix(number: int, suffix: str) -> str:
    """A number in thousands, millions, ..."""
    return f"{number / 1000 ** _SUFFIXES.index(suffix):.3f}{suffix}"


def convert_to_percent_str(num: int, denom: int) -> str:
    """A share."""
    return "0%" if denom == 0 else f"{num / denom:.2%}"


class FlopCounterMode:
    """A block whose operations are counted, by module and operator; `display` prints a table at its end.

    `custom_mapping`: formulas for further operators. Compiled functions run eagerly inside the block."""

    def __init__(
        self,
        mods: Module | list[Module] | None = None,
        depth: int = 2,
        display: bool = True,
        custom_mapping: dict[Any, Any] | None = None,
    ) -> None:
        if mods is not None:
            warnings.warn("mods argument is not needed anymore, you can stop passing it", stacklevel=2)
        self.flop_counts: dict[str, dict[Any, int]] = defaultdict(lambda: defaultdict(int))
        self.depth = depth
        self.display = display
        self.mode: _Counting | None = None
        self.flop_registry = dict(flop_registry)
        for target, formula in (custom_mapping or {}).items():
            self.flop_registry[target] = formula if getattr(formula, "_get_raw", False) else shape_wrapper(formula)
        self.mod_tracker = ModuleTracker()

    def get_total_flops(self) -> int:
        """The operations in all."""
        return sum(self.flop_counts["Global"].values())

    def get_flop_counts(self) -> dict[str, dict[Any, int]]:
        """The operations by module and operator."""
        return {name: dict(counts) for name, counts in self.flop_counts.items()}

    def get_table(self, depth: int | None = None) -> str:
        """The counts of modules up to a depth, as a table."""
        depth = (999999 if self.depth is None else self.depth) if depth is None else depth
        total = self.get_total_flops()
        suffix = get_suffix_str(total)

        def rows_of(name: str, indent: int) -> list[list[str]]:
            counts = self.flop_counts[name]
            named = [(name, sum(counts.values())), *((f" - {op}", count) for op, count in counts.items())]
            return [
                [" " * indent + text, convert_num_with_suffix(count, suffix), convert_to_percent_str(count, total)]
                for text, count in named
            ]

        rows: list[list[str]] = []
        covered = False
        for name in sorted(self.flop_counts):
            level = name.count(".") + 1
            if name != "Global" and level <= depth:
                rows += rows_of(name, level - 1)
                covered = covered or sum(self.flop_counts[name].values()) >= total
        if "Global" in self.flop_counts and not covered:
            rows = rows_of("Global", 0) + [[" " + first, *rest] for first, *rest in rows]
        return _table(["Module", "FLOP", "% Total"], rows or [["Global", "0", "0%"]])

    def __enter__(self) -> FlopCounterMode:
        self.flop_counts.clear()
        self.mod_tracker.__enter__()
        self.mode = _Counting(self)
        self.mode.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        assert self.mode is not None
        self.mode.__exit__(*error)
        self.mode = None
        self.mod_tracker.__exit__()
        if self.display:
            print(self.get_table(self.depth))


def _table(headers: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they must be, the first to the left; headings no less than two wider than their texts."""
    widths = [max(len(h) + 2, *(len(row[i]) for row in rows)) for i, h in enumerate(headers)]
    lines = [headers, ["-" * w for w in widths], *rows]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(t.rjust(w) for t, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


class _Counting(TorchDispatchMode):
    def __init__(self, counter: FlopCounterMode) -> None:
        self.counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        formula = self.counter.flop_registry.get(packet)
        if formula is not None:
            count = formula(*args, **(kwargs or {}), out_val=made)
            for name in set(self.counter.mod_tracker.parents):
                self.counter.flop_counts[name][packet] += count
        return made
