"""`torch.nn.parallel`: modules for several devices, which here do their work on one.

See https://docs.pytorch.org/docs/stable/nn.html#module-torch.nn.parallel
"""

from __future__ import annotations

from typing import Any

from graphtorch.nn.modules.module import Module
from graphtorch.nn.modules.parallel import DataParallel
from graphtorch.nn.parallel.parallel_apply import parallel_apply
from graphtorch.nn.parallel.replicate import replicate
from graphtorch.nn.parallel.scatter_gather import gather, scatter

__all__ = [
    "DataParallel",
    "DistributedDataParallel",
    "data_parallel",
    "gather",
    "parallel_apply",
    "replicate",
    "scatter",
]


class DistributedDataParallel(Module):
    """Refused, as there is no communication between processes: programs that import the name, and wrap their model only
    when they run in several processes, work in one. See torch.nn.parallel.DistributedDataParallel.

    Raises RuntimeError.
    """

    def __init__(self, module: Module, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        raise RuntimeError("graphtorch has no distributed package: torch.distributed.is_available() is False")


def data_parallel(
    module: Module,
    inputs: Any,
    device_ids: Any = None,
    output_device: Any = None,
    dim: int = 0,
    module_kwargs: dict[str, Any] | None = None,
) -> Any:
    """Call `module` on the inputs (a tuple of them, or one). See torch.nn.parallel.data_parallel."""
    given = inputs if isinstance(inputs, tuple) else (inputs,)
    return module(*given, **(module_kwargs or {}))
