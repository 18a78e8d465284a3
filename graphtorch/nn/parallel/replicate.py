"""A module for each of several devices: `replicate`."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from graphtorch.nn.modules.module import Module
from graphtorch.nn.parallel.scatter_gather import _place

__all__ = ["replicate"]


def replicate(network: Module, devices: Sequence[Any], detach: bool = False) -> list[Module]:
    """Copies of a module, one a device, whose parameters are the module's own, moved: gradients of all come together.

    With `detach`, they are outside of its history."""
    tensors = [*network.parameters(), *network.buffers()]
    return [_replica(network, {id(t): (t.detach() if detach else t).to(_place(d)) for t in tensors}) for d in devices]


def _replica(module: Module, moved: dict[int, Any]) -> Module:
    made = copy.copy(module)
    own = made.__dict__
    own["_parameters"] = {}
    own["_buffers"] = {k: None if b is None else moved[id(b)] for k, b in module._buffers.items()}
    own["_modules"] = {k: None if m is None else _replica(m, moved) for k, m in module._modules.items()}
    for name, parameter in module._parameters.items():
        own[name] = None if parameter is None else moved[id(parameter)]  # no parameter of the replica's, as in PyTorch
    return made
