"""Comparisons for tests, `torch.testing`."""

from __future__ import annotations

import math
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
