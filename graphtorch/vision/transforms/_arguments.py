"""Checks of the arguments of transforms."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

from graphtorch import Tensor


def two_sizes(size: Any, message: str) -> Sequence[int]:
    """(height, width) of one number, a sequence of one or a sequence of two. Raises ValueError with the message."""
    if isinstance(size, numbers.Integral | float):
        return int(size), int(size)
    if isinstance(size, Sequence) and len(size) == 1:
        return size[0], size[0]
    if len(size) != 2:
        raise ValueError(message)
    found: Sequence[int] = size
    return found


def check_sequence(value: Any, name: str, lengths: tuple[int, ...]) -> None:
    """Raises TypeError or ValueError for what is no sequence of one of these lengths."""
    message = f"{name} should be a sequence of length {' or '.join(map(str, lengths))}."
    if not isinstance(value, Sequence):
        raise TypeError(message)
    if len(value) not in lengths:
        raise ValueError(message)


def angles(value: Any, name: str, lengths: tuple[int, ...] = (2,)) -> list[float]:
    """A range of degrees; one number stands for that much either way."""
    if isinstance(value, numbers.Real):
        if value < 0:
            raise ValueError(f"If {name} is a single number, it must be positive.")
        return [-float(value), float(value)]
    check_sequence(value, name, lengths)
    return [float(degrees) for degrees in value]


def checked_fill(fill: Any) -> Any:
    """A fill given to a constructor. Raises TypeError."""
    if fill is None:
        return 0
    if not isinstance(fill, Sequence | numbers.Number):
        raise TypeError("Fill should be either a sequence or a number.")
    return fill


def fill_for(img: Any, fill: Any, channels: int) -> Any:
    """The fill as the operations want it: tensors get a float for each channel."""
    if not isinstance(img, Tensor):
        return fill
    return [float(fill)] * channels if isinstance(fill, int | float) else [float(value) for value in fill]


def check_ranges(scale: Any, ratio: Any) -> None:
    """Raises TypeError unless both are sequences; warns if one is upside down."""
    import warnings

    for name, value in (("Scale", scale), ("Ratio", ratio)):
        if not isinstance(value, Sequence):
            raise TypeError(f"{name} should be a sequence")
    if scale[0] > scale[1] or ratio[0] > ratio[1]:
        warnings.warn("Scale and ratio should be of kind (min, max)", stacklevel=3)
