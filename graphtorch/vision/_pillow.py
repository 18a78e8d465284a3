"""Pillow, the optional package that images are read and drawn with: imported by the functions that need it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image


def is_image(value: object) -> bool:
    """Whether it is a Pillow image. Imports nothing: without Pillow loaded nobody can hold one."""
    module = sys.modules.get("PIL.Image")
    return module is not None and isinstance(value, module.Image)


def image_module() -> Any:
    """The module PIL.Image. Raises ImportError with what to install."""
    try:
        import PIL.Image
    except ImportError:
        raise ImportError("Images need the package pillow, which is not installed: pip install pillow") from None
    return PIL.Image


def from_array(array: np.ndarray, mode: str | None = None) -> Image:
    """An image of an (H, W) or (H, W, C) array; the mode is what the array's type and channels say, or a name for
    that which fits as many channels."""
    found: Image = image_module().fromarray(np.ascontiguousarray(array))
    if mode is None or mode == found.mode:
        return found
    named: Image = image_module().frombytes(mode, found.size, np.ascontiguousarray(array).tobytes())
    return named
