"""Names that programs written for several devices import."""

from __future__ import annotations

import pytest

import graphtorch
from graphtorch import nn
from graphtorch.nn.modules.utils import (
    _pair,
    _reverse_repeat_tuple,
    _single,
    _triple,
    consume_prefix_in_state_dict_if_present,
)
from graphtorch.nn.parallel import DataParallel, DistributedDataParallel, data_parallel


def test_data_parallel() -> None:
    module, x = nn.Linear(3, 2), graphtorch.randn(4, 3)
    assert nn.parallel.DataParallel is DataParallel is nn.DataParallel
    assert graphtorch.equal(DataParallel(module)(x), module(x)) and graphtorch.equal(
        data_parallel(module, x), module(x)
    )
    with pytest.raises(RuntimeError, match="no distributed package"):
        DistributedDataParallel(module)


def test_a_wrapped_model_s_state_loads() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    state = DataParallel(module).state_dict()
    consume_prefix_in_state_dict_if_present(state, "module.")
    assert [*state] == [*module.state_dict()] and set(state._metadata) == set(module.state_dict()._metadata)  # type: ignore[attr-defined]
    module.load_state_dict(state)


def test_tuples() -> None:
    assert (_single(3), _pair(3), _pair((1, 2)), _triple([1, 2, 3])) == ((3,), (3, 3), (1, 2), (1, 2, 3))
    assert _reverse_repeat_tuple((1, 2), 2) == (2, 2, 1, 1)


def test_places_of_classes() -> None:
    assert nn.modules.activation.MultiheadAttention is nn.MultiheadAttention
    assert graphtorch.optim.lr_scheduler._LRScheduler is graphtorch.optim.lr_scheduler.LRScheduler
