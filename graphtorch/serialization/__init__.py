"""Checkpoints: `save` and `load` in PyTorch's zip format, so that files travel both ways.

`export` writes a captured function as a program, which `program` loads and runs; `safetensors` has its weights.

`unpickler` reads the pickle inside with an allow-list of its own, `archive` the zip container with every offset and
size checked; `writer` makes both. Loading rebuilds tensors and plain containers and executes nothing."""

from graphtorch.serialization.reader import load
from graphtorch.serialization.writer import save

__all__ = ["load", "save"]
