"""Tensors as text, character for character as PyTorch prints them.

One format is chosen for a whole tensor, from the smallest and largest nonzero finite magnitudes (compared in float64,
whatever the dtype): integers with a bare point, fixed point, or scientific notation. Large tensors show only the ends
of each dimension, and then only those ends decide on the format. Source:
https://docs.pytorch.org/docs/stable/generated/torch.set_printoptions.html
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PrinterOptions", "get_printoptions", "printoptions", "set_printoptions", "tensor_str"]

Array = NDArray[Any]


@dataclass
class PrinterOptions:
    """How tensors are printed; see `set_printoptions`."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


_options = PrinterOptions()

_PROFILES: dict[str, dict[str, Any]] = {
    "default": {"precision": 4, "threshold": 1000, "edgeitems": 3, "linewidth": 80},
    "short": {"precision": 2, "threshold": 1000, "edgeitems": 2, "linewidth": 80},
    "full": {"precision": 4, "threshold": math.inf, "edgeitems": 3, "linewidth": 80},
}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Changes how tensors are printed from now on; what is None stays as it is, except `sci_mode`.

    Args:
        precision: digits after the point.
        threshold: number of elements above which a tensor is summarised.
        edgeitems: elements shown at each end of a dimension in a summary.
        linewidth: columns at which lines of elements are broken.
        profile: ``"default"``, ``"short"`` or ``"full"``: a set of the above, which single options then override.
        sci_mode: True or False forces scientific notation on or off; None (also when left out) decides per tensor.
    """
    changes = dict(_PROFILES.get(profile, {})) if profile is not None else {}
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    changes.update((name, value) for name, value in given.items() if value is not None)
    for name, value in changes.items():
        setattr(_options, name, value)
    _options.sci_mode = sci_mode


def get_printoptions() -> dict[str, Any]:
    """The current options, as keyword arguments for `set_printoptions`."""
    return asdict(_options)


@contextmanager
def printoptions(**kwargs: Any) -> Iterator[None]:
    """Changes the options within a ``with`` block; takes the arguments of `set_printoptions`."""
    saved = get_printoptions()
    set_printoptions(**kwargs)
    try:
        yield
    finally:
        set_printoptions(**saved)


def tensor_str(
    array: Array,
    *,
    dtype_name: str,
    default_dtype_name: str,
    device: str = "cpu",
    requires_grad: bool = False,
    grad_fn_name: str | None = None,
    indent: int = 0,
    prefix: str = "tensor(",
) -> str:
    """The text of ``repr(tensor)``.

    Args:
        array: the values, any shape; bool, integer, real or complex floating point, or an ml_dtypes dtype. On the
            ``"meta"`` device only its shape is looked at.
        dtype_name: PyTorch's name of the dtype without ``torch.``, such as ``"bfloat16"``.
        default_dtype_name: the name of the default dtype; this dtype, its complex counterpart, int64 and bool go
            without saying.
        device: printed unless it is ``"cpu"``.
        requires_grad: whether to say so; left out where a `grad_fn_name` says it.
        grad_fn_name: name of the backward node, such as ``"AddBackward0"``.
        indent: column at which the text will stand; later lines are indented by that much more.
        prefix: what opens the text; its last line gives the indentation of the lines that follow.
    """
    heading, newline, opening = prefix.rpartition("\n")
    column = indent + len(opening)
    size = f"size={tuple(array.shape)}"
    dtype = f"dtype=torch.{dtype_name}"
    suffixes = [] if device == "cpu" else [f"device='{device}'"]
    if device == "meta" or array.size == 0:
        # With no elements to infer a dtype from, only the default one goes without saying.
        contents = "..." if device == "meta" else "[]"
        if device == "meta" or array.ndim != 1:
            suffixes.append(size)
        if dtype_name != default_dtype_name:
            suffixes.append(dtype)
    else:
        contents = _contents(array, column)
        if not _options.edgeitems:
            suffixes.append(size)
        default_complex = "complex128" if default_dtype_name == "float64" else "complex64"
        if dtype_name not in (default_dtype_name, default_complex, "int64", "bool"):
            suffixes.append(dtype)
    if grad_fn_name is not None:
        suffixes.append(f"grad_fn=<{grad_fn_name}>")
    elif requires_grad:
        suffixes.append("requires_grad=True")
    return heading + newline + _with_suffixes(opening + contents, suffixes, column)


def _with_suffixes(text: str, suffixes: list[str], indent: int) -> str:
    """Appends the suffixes and the closing parenthesis, each suffix on the same line if it fits."""
    # PyTorch counts two columns more than there are for a text of one line, and keeps to it.
    used = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if used + len(suffix) + 2 > _options.linewidth:
            text += ",\n" + " " * indent + suffix
            used = indent + len(suffix)
        else:
            text += ", " + suffix
            used += len(suffix) + 2
    return text + ")"


def _contents(array: Array, indent: int) -> str:
    summarize = array.size > _options.threshold
    shown = _edges(array) if summarize else array
    if array.dtype.kind == "c":
        formatter: _RealFormatter | _ComplexFormatter = _ComplexFormatter(
            _RealFormatter(shown.real), _RealFormatter(shown.imag)
        )
    else:
        formatter = _RealFormatter(shown)
    return _nested_str(array, indent, summarize, formatter)


def _edges(array: Array) -> Array:
    """The elements that a summary shows, as a smaller array of the same rank."""
    count = _options.edgeitems
    if not count:
        # PyTorch's choice where a summary shows nothing: a vector is looked at as a whole, anything else not at all.
        return array if array.ndim <= 1 else array[:0]
    for axis, size in enumerate(array.shape):
        if size > 2 * count:
            array = np.take(array, [*range(count), *range(size - count, size)], axis)
    return array


class _RealFormatter:
    """Turns real numbers, integers or bools into text of one width, chosen from the values it is made with."""

    def __init__(self, array: Array) -> None:
        self.floating = array.dtype.kind not in "biu"
        self.integral = True
        self.scientific = False
        self.width = 1
        values = array.reshape(-1)
        if self.floating:
            # Every floating-point dtype converts to float64 without loss.
            values = values.astype(np.float64)
            values = values[np.isfinite(values) & (values != 0)]
            if values.size == 0:
                return
            magnitudes = np.abs(values)
            smallest, largest = float(magnitudes.min()), float(magnitudes.max())
            self.integral = bool((values == np.ceil(values)).all())
            if _options.sci_mode is None:
                self.scientific = largest / smallest > 1000.0 or largest > 1.0e8 or smallest < 1.0e-4
            else:
                self.scientific = _options.sci_mode
        self.width = max((len(self._text(value)) for value in values.tolist()), default=1)

    def _text(self, value: Any) -> str:
        if not self.floating:
            return str(value)
        if self.scientific:
            return f"{value:.{_options.precision}e}"
        if self.integral:
            # The point tells a tensor of floating point apart; infinities and NaN do without.
            return f"{value:.0f}." if math.isfinite(value) else f"{value:.0f}"
        return f"{value:.{_options.precision}f}"

    def __call__(self, value: Any) -> str:
        return self._text(value).rjust(self.width)


class _ComplexFormatter:
    """Turns complex numbers into text; real and imaginary parts have each their own format."""

    def __init__(self, real: _RealFormatter, imag: _RealFormatter) -> None:
        self.real, self.imag = real, imag
        self.width = real.width + imag.width + 1  # the j

    def __call__(self, value: complex) -> str:
        imag = self.imag(value.imag).lstrip() + "j"
        sign = "" if imag[0] in "+-" else "+"
        return self.real(value.real) + sign + imag


def _nested_str(array: Array, indent: int, summarize: bool, formatter: _RealFormatter | _ComplexFormatter) -> str:
    if array.ndim == 0:
        return formatter(_items(array))
    if array.ndim == 1:
        return _vector_str(array, indent, summarize, formatter)
    count, size = _options.edgeitems, array.shape[0]

    def rows(indices: range) -> list[str]:
        return [_nested_str(array[i], indent + 1, summarize, formatter) for i in indices]

    if summarize and size > 2 * count:
        parts = [*rows(range(count)), "...", *rows(range(size - count, size))]
    else:
        parts = rows(range(size))
    return "[" + ("," + "\n" * (array.ndim - 1) + " " * (indent + 1)).join(parts) + "]"


def _vector_str(vector: Array, indent: int, summarize: bool, formatter: _RealFormatter | _ComplexFormatter) -> str:
    count, size = _options.edgeitems, vector.shape[0]
    if summarize and not count:
        texts = ["..."]
    elif summarize and size > 2 * count:
        head, tail = _items(vector[:count]), _items(vector[-count:])
        texts = [*map(formatter, head), " ...", *map(formatter, tail)]
    else:
        texts = [*map(formatter, _items(vector))]
    per_line = max(1, math.floor((_options.linewidth - indent) / (formatter.width + 2)))
    lines = [", ".join(texts[i : i + per_line]) for i in range(0, len(texts), per_line)]
    return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"


def _items(array: Array) -> Any:
    """The elements as Python numbers; ``tolist`` of an ml_dtypes array would give scalars of that dtype."""
    return array.tolist() if array.dtype.kind in "biufc" else array.astype(np.float64).tolist()
