"""Where PyTorch keeps parts of its loader: `collate` is what programs import of it."""

from graphtorch.utils.data._utils import collate

__all__ = ["collate"]
