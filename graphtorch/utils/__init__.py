"""Tools around training. See https://docs.pytorch.org/docs/stable/data.html for `graphtorch.utils.data`."""

from __future__ import annotations

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    # Submodules load on first use, so that `import graphtorch` stays quick.
    if name in ("_pytree", "checkpoint", "data", "dlpack", "hooks", "model_zoo", "safetensors", "tensorboard"):
        return importlib.import_module(f"graphtorch.utils.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
