"""An optimizer on other parameters and other state for a while, with its own put back afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphtorch.optim.optimizer import Optimizer
from graphtorch.tensor.tensor import Tensor

__all__ = ["swap_in_optimizer_params_and_state"]

_NAME = "swap_in_optimizer_params_and_state"


@contextmanager
def swap_in_optimizer_params_and_state(
    optimizer: Optimizer, swapin_parameters: dict[str, Tensor], swapin_optim_state: dict[str, Any]
) -> Iterator[None]:
    """Let `optimizer` see other parameters, in the order of its own, and the state and options of a state dict.

    What steps write into the tensors stays; what they put elsewhere in the state is dropped.

    Raises:
        RuntimeError: the optimizer has made no step yet, or parameters, groups and state do not fit together.
    """
    if not optimizer.state:
        raise RuntimeError(f"{_NAME} requires initialized optimizer state.")
    if not isinstance(swapin_optim_state, dict) or not {"state", "param_groups"} <= swapin_optim_state.keys():
        raise RuntimeError(f"{_NAME} requires a state dict with 'state' and 'param_groups'.")
    given, groups = swapin_optim_state["state"], swapin_optim_state["param_groups"]
    own = optimizer.param_groups
    if [len(g["params"]) for g in groups] != [len(g["params"]) for g in own]:
        raise RuntimeError(f"{_NAME} requires as many groups, and parameters of each, as the optimizer has.")
    places = [place for group in groups for place in group["params"]]
    if len(places) != len(swapin_parameters):
        raise RuntimeError(f"{_NAME} requires {len(places)} parameters, but got {len(swapin_parameters)}.")
    if not given.keys() <= set(places):
        raise RuntimeError(f"{_NAME}: the state has entries of no parameter: {sorted(given.keys() - set(places))}.")
    parameters = dict(zip(places, swapin_parameters.values(), strict=True))
    before, options = optimizer.state, [dict(group) for group in own]
    try:
        for live, group in zip(own, groups, strict=True):
            live.update(group, params=[parameters[place] for place in group["params"]])
        optimizer.state = defaultdict(dict, {parameters[place]: dict(given.get(place, {})) for place in places})
        yield
    finally:
        optimizer.state = before
        for live, kept in zip(own, options, strict=True):
            live.clear()
            live.update(kept)
