"""Special functions and integer functions in terms of pointwise operators: what `rules.py` knows of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

SPECIAL: dict[str, Callable[..., Any]] = {}
