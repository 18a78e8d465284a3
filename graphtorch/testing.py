"""Comparisons for tests, `torch.testing`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.tensor import Tensor, dtypes

# dtype -> (relative, absolute) tolerance; others compare exactly. See torch.testing.assert_close.
_TOLERANCES = {
    "float16": (1e-3, 1e-5),
    "bfloat16": (1.6e-2, 1e-5),
    "float32": (1.3e-6, 1e-5),
    "float64": (1e-7, 1e-7),
    "complex64": (1.3e-6, 1e-5),
    "complex128": (1e-7, 1e-7),
}


def assert_close(
    actual: Any,
    expected: Any,
    *,
    allow_subclasses: bool = True,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = False,
    check_device: bool = True,
    check_dtype: bool = True,
    check_layout: bool = True,
    check_stride: bool = False,
    msg: Any = None,
) -> None:
    """Raise AssertionError, which says how far off it is, unless `|actual - expected| <= atol + rtol * |expected|`
    everywhere. Tensors, arrays, numbers, and sequences and mappings of them. See torch.testing.assert_close.

    Raises ValueError where only one of the tolerances is given, TypeError for things that can't be compared.
    """
    if (rtol is None) != (atol is None):
        absent = "rtol" if rtol is None else "atol"
        raise ValueError(f"Both 'rtol' and 'atol' must be either specified or omitted, but got no {absent}.")
    given = None if rtol is None or atol is None else (rtol, atol)
    options = _Options(given, equal_nan, check_device, check_dtype, check_stride)
    try:
        options.compare(actual, expected, ())
    except AssertionError as error:
        if msg is None:
            raise
        raise AssertionError(msg(str(error)) if callable(msg) else msg) from None


class _Options:
    """What counts as close, for one call."""

    def __init__(
        self, tolerance: tuple[float, float] | None, equal_nan: bool, device: bool, dtype: bool, stride: bool
    ) -> None:
        self.tolerance = tolerance
        self.equal_nan = equal_nan
        self.device, self.dtype, self.stride = device, dtype, stride

    def compare(self, actual: Any, expected: Any, place: tuple[Any, ...]) -> None:
        """Raise AssertionError for a difference; `place` is where in the given containers this is."""
        where = f"\n\nThe failure occurred for item {''.join(f'[{p!r}]' for p in place)}" if place else ""
        if isinstance(actual, Mapping) and isinstance(expected, Mapping):
            missing, surplus = sorted(set(expected) - set(actual)), sorted(set(actual) - set(expected))
            if missing or surplus:
                lines = "".join(
                    f"\n{title} keys in the actual mapping: {keys}"
                    for title, keys in (("Missing", missing), ("Additional", surplus))
                    if keys
                )
                raise AssertionError(f"The keys of the mappings do not match:{lines}{where}")
            for key in sorted(expected, key=str):
                self.compare(actual[key], expected[key], (*place, key))
        elif _is_sequence(actual) and _is_sequence(expected):
            if len(actual) != len(expected):
                raise AssertionError(f"The length of the sequences mismatch: {len(actual)} != {len(expected)}{where}")
            for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
                self.compare(a, b, (*place, i))
        elif actual is None and expected is None:
            return
        elif isinstance(actual, bool | np.bool_) and isinstance(expected, bool | np.bool_):
            if actual != expected:
                raise AssertionError(f"Booleans mismatch: {actual} is not {expected}{where}")
        elif _is_number(actual) and _is_number(expected):
            self._numbers(actual, expected, where)
        elif isinstance(actual, Tensor | np.ndarray) and isinstance(expected, Tensor | np.ndarray):
            self._tensors(_tensor(actual), _tensor(expected), where)
        else:
            raise TypeError(
                f"No comparison pair was able to handle inputs of type {type(actual)} and {type(expected)}."
            )

    def _numbers(self, actual: Any, expected: Any, where: str) -> None:
        if self.dtype and type(actual) is not type(expected):
            raise AssertionError(f"The (d)types do not match: {type(actual)} != {type(expected)}.{where}")
        exact = all(isinstance(x, int | np.integer) for x in (actual, expected))
        rtol, atol = self.tolerance or ((0.0, 0.0) if exact else (1e-7, 1e-7))
        if actual == expected or (self.equal_nan and _isnan(actual) and _isnan(expected)):
            return
        off = abs(actual - expected)
        if math.isfinite(off) and off <= atol + rtol * abs(expected):
            return
        raise AssertionError(_scalars_differ(actual, expected, rtol, atol) + where)

    def _tensors(self, a: Tensor, b: Tensor, where: str) -> None:
        checks = {"shape": True, "device": self.device, "dtype": self.dtype, "stride()": self.stride}
        for name, wanted in checks.items():
            mine, other = (x.stride() if name == "stride()" else getattr(x, name) for x in (a, b))
            if wanted and mine != other:
                raise AssertionError(f"The values for attribute '{name}' do not match: {mine} != {other}.{where}")
        of = dtypes.promote_types(a.dtype, b.dtype)
        loosest = [_TOLERANCES.get(d.name, (0.0, 0.0)) for d in (a.dtype, b.dtype)]
        rtol, atol = self.tolerance or (max(t[0] for t in loosest), max(t[1] for t in loosest))
        mine, other = (_array(x.detach().to(of)) for x in (a, b))
        with np.errstate(all="ignore"):
            if mine.dtype.kind == "b":
                mine, other = mine.astype(np.int64), other.astype(np.int64)
            close = np.isclose(mine, other, rtol=rtol, atol=atol, equal_nan=self.equal_nan)
            if close.all():
                return
            if mine.ndim == 0:
                raise AssertionError(_scalars_differ(mine.item(), other.item(), rtol, atol) + where)
            off = np.abs(mine - other)
            ratio = off.astype(np.float32) / np.abs(other).astype(np.float32) if off.dtype.kind in "iu" else None
            relative = np.where(close, 0, off / np.abs(other) if ratio is None else ratio)
            off = np.where(close, 0, off)
        count = int((~close).sum())
        exact = rtol == atol == 0
        lines = [
            f"Tensor-likes are not {'equal' if exact else 'close'}!\n",
            f"Mismatched elements: {count} / {close.size} ({count / close.size:.1%})",
        ]
        for title, differences, limit in (("absolute", off, atol), ("relative", relative, rtol)):
            at = tuple(int(i) for i in np.unravel_index(int(np.argmax(differences)), differences.shape))
            allowed = "" if exact else f" (up to {limit} allowed)"
            lines.append(f"Greatest {title} difference: {differences[at].item()} at index {at}{allowed}")
        raise AssertionError("\n".join(lines) + where)


def _scalars_differ(actual: Any, expected: Any, rtol: float, atol: float) -> str:
    exact = rtol == atol == 0
    off = abs(actual - expected)
    relative = off / abs(expected) if expected else math.inf
    limits = ["", ""] if exact else [f" (up to {limit} allowed)" for limit in (atol, rtol)]
    return (
        f"Scalars are not {'equal' if exact else 'close'}!\n\nExpected {expected} but got {actual}.\n"
        f"Absolute difference: {off}{limits[0]}\nRelative difference: {relative}{limits[1]}"
    )


def _is_sequence(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | complex | np.number) and not isinstance(value, bool)


def _isnan(value: Any) -> bool:
    return bool(value != value)


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else Tensor._wrap(value)


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    array = tensor._host("assert_close")
    return array.astype(np.float32) if tensor.dtype is dtypes.bfloat16 else array


def assert_allclose(
    actual: Any,
    expected: Any,
    rtol: float | None = None,
    atol: float | None = None,
    equal_nan: bool = True,
    msg: Any = "",
) -> None:
    """`assert_close` without checks of device, dtype and stride (deprecated in PyTorch)."""
    loose = {"check_device": False, "check_dtype": False, "check_stride": False}
    assert_close(actual, expected, rtol=rtol, atol=atol, equal_nan=equal_nan, msg=msg or None, **loose)


def make_tensor(
    *shape: Any,
    dtype: dtypes.dtype,
    device: Any,
    low: float | None = None,
    high: float | None = None,
    requires_grad: bool = False,
    noncontiguous: bool = False,
    exclude_zero: bool = False,
    memory_format: Any = None,
) -> Tensor:
    """A tensor of random numbers from `[low, high)`: by default from -9 to 9, for bools both.

    Raises ValueError for limits that are NaN, in the wrong order or beyond the dtype, for `requires_grad` of a dtype
    without gradients, and for `noncontiguous` with a `memory_format`. See torch.testing.make_tensor.
    """
    import graphtorch

    sizes = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    if noncontiguous and memory_format is not None:
        raise ValueError(
            "The parameters `noncontiguous` and `memory_format` are mutually exclusive, "
            f"but got {noncontiguous=} and {memory_format=}"
        )
    counts = not (dtype.is_floating_point or dtype.is_complex)
    if requires_grad and counts:
        raise ValueError(f"`requires_grad=True` is not supported for boolean and integral dtypes, but got {dtype=}")
    noncontiguous = noncontiguous and math.prod(sizes) > 1
    if noncontiguous:
        sizes = (*sizes[:-1], 2 * sizes[-1])
    if dtype is dtypes.bool_:
        first, last = _limits(low, high, (0, 2), (0, 2), dtype)
    elif counts:
        own = dtypes.iinfo(dtype)
        # 64 bits have no number for the exclusive limit.
        limits = own.min, own.max + (1 if dtype is not dtypes.int64 else 0)
        first, last = _limits(low, high, (-9, 10), limits, dtype)
    else:
        first, last = _limits(low, high, (-9, 9), (dtypes.finfo(dtype).min, dtypes.finfo(dtype).max), dtype)
    if counts:
        result = graphtorch.randint(math.ceil(first), math.ceil(last), sizes, device=device, dtype=dtype)
    else:
        result = graphtorch.empty(sizes, device=device, dtype=dtype)
        drawn = graphtorch.view_as_real(result) if dtype.is_complex else result
        if last - first >= dtypes.finfo(drawn.dtype).max:
            drawn.uniform_(first / 2, last / 2).mul_(2)
        else:
            drawn.uniform_(first, last)
    if noncontiguous:
        result = result[..., 1::2]
    elif memory_format is not None:
        result = result.clone(memory_format=memory_format)
    if exclude_zero:
        result[result == 0] = 1 if counts else dtypes.finfo(dtype).tiny
    made: Tensor = result
    return made.requires_grad_(requires_grad) if not counts else made


def _limits(
    low: float | None, high: float | None, default: tuple[int, int], limits: tuple[float, float], dtype: dtypes.dtype
) -> tuple[float, float]:
    """The interval of `make_tensor`, checked and within what a dtype can be."""
    low, high = default[0] if low is None else low, default[1] if high is None else high
    if any(isinstance(value, float) and math.isnan(value) for value in (low, high)):
        raise ValueError(f"`low` and `high` cannot be NaN, but got {low=} and {high=}")
    if low == high and (dtype.is_floating_point or dtype.is_complex):
        warnings.warn(
            "Passing `low==high` to `torch.testing.make_tensor` for floating or complex types is deprecated since 2.1 "
            "and will be removed in 2.3. Use `torch.full(...)` instead.",
            FutureWarning,
            stacklevel=3,
        )
    elif low >= high:
        raise ValueError(f"`low` must be less than `high`, but got {low} >= {high}")
    elif high < limits[0] or low >= limits[1]:
        raise ValueError(
            f"The value interval specified by `low` and `high` is [{low}, {high}), but {dtype} only supports "
            f"[{limits[0]}, {limits[1]})"
        )
    return min(max(low, limits[0]), limits[1]), min(max(high, limits[0]), limits[1])
