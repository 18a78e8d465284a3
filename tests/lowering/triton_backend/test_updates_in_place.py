"""Programs of one launch run in any order: none may write what another one reads, and no update in place may be made by
several of them. Triton's interpreter, which runs one after another, shows such mistakes only sometimes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Load, Schedule, View
from graphtorch.lowering.triton import execution
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.groups import GroupedKernel
from graphtorch.lowering.triton.tiling import is_zero, post_order
from graphtorch.runtime.cuda.driver import use_driver
from graphtorch.runtime.cuda.simulated import SimulatedDriver

pytest.importorskip("triton")


def loads_of(kernel: Kernel) -> list[Load]:
    return [e for e in post_order(s.value for s in kernel.stores) if isinstance(e, Load)]


def operands(call: ExternCall) -> set[Buffer]:
    """What a product reads from other tiles than the one that it makes."""
    views = [item for arg in call.args for item in (arg if type(arg) is tuple else (arg,)) if isinstance(item, View)]
    prologues = call.prologues.values() if isinstance(call, FusedCall) else ()
    return {v.buffer for v in views} | {load.access.buffer for k in prologues for load in loads_of(k)}


def races(kernel: Kernel, elsewhere: frozenset[Buffer] = frozenset()) -> Iterator[str]:
    """The stores of a kernel that other programs' loads or stores are in the way of."""
    if isinstance(kernel, GroupedKernel):
        for member in kernel.members:
            yield from races(member)
        return
    sized = [i for i, a in enumerate(kernel.axes) if not (type(a.size) is int and a.size == 1)]
    parallel = [i for i in sized if not kernel.axes[i].reduction]
    read: dict[Buffer, set[tuple[Any, ...]]] = {}
    for load in loads_of(kernel):
        access = load.access
        read.setdefault(access.buffer, set()).add((access.offset, *(access.strides[i] for i in sized)))
    for store in kernel.stores:
        access = store.access
        if access.buffer in elsewhere:
            yield f"{kernel.name} writes {access.buffer.name}, which other tiles read"
        if access.buffer not in read:
            continue
        if any(is_zero(access.strides[i]) for i in parallel):
            yield f"{kernel.name} updates {access.buffer.name} several times"
        if read[access.buffer] != {(access.offset, *(access.strides[i] for i in sized))}:
            yield f"{kernel.name} reads other elements of {access.buffer.name} than it writes"


def races_of(schedule: Schedule) -> list[str]:
    found: list[str] = []
    for step in schedule.steps:
        if isinstance(step, Kernel):
            found += races(step)
        elif isinstance(step, FusedCall) and step.epilogue is not None:
            found += races(step.epilogue, frozenset(operands(step)))
    return found


@pytest.fixture
def schedules(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Schedule]]:
    """The schedules that kernels are generated from, on a device that runs none."""
    made: list[Schedule] = []
    prepare = execution.prepare_schedule

    def noted(schedule: Schedule) -> Schedule:
        made.append(prepare(schedule))
        return made[-1]

    monkeypatch.setattr(execution, "prepare_schedule", noted)
    use_driver(SimulatedDriver(1, memory=64 << 30, executes=False))
    try:
        yield made
    finally:
        use_driver(None)


def block(inside: int, outside: int, stride: int) -> nn.Module:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.norm1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False), nn.BatchNorm2d(outside)
            self.conv2, self.norm2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False), nn.BatchNorm2d(outside)
            self.short = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

        def forward(self, x: Any) -> Any:
            y = torch.relu(self.norm1(self.conv1(x)))
            return torch.relu(self.norm2(self.conv2(y)) + self.short(x))

    return Block()


def images() -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), block(16, 32, 2), block(32, 32, 1))
    return nn.Sequential(model, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)), torch.randn(64, 3, 56, 56)


def rows() -> tuple[nn.Module, Any]:
    model = nn.Sequential(nn.Linear(24, 48), nn.LayerNorm(48), nn.GELU(), nn.BatchNorm1d(48), nn.Linear(48, 10))
    return model, torch.randn(20000, 24)


def attended() -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(32, 2, 64, 0.1, "gelu", batch_first=True)
    return nn.Sequential(nn.Linear(8, 32), layer, nn.Flatten(1), nn.Linear(32 * 64, 10)), torch.randn(512, 64, 8)


@pytest.mark.parametrize("make", [images, rows, attended])
@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_no_launch_races_with_itself(
    make: Callable[[], Any], autocast: bool, optimizer: str, schedules: list[Schedule]
) -> None:
    model, x = make()
    model, x, y = model.to("cuda"), x.to("cuda"), torch.zeros(len(x), dtype=torch.int64).to("cuda")
    how = {"momentum": 0.9} if optimizer == "SGD" else {}
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1, **how)

    @torch.compile
    def step(x: Any, y: Any) -> Any:
        made.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(model(x).float(), y)
        loss.backward()
        made.step()
        return loss

    step(x, y)
    assert max(len(s.steps) for s in schedules) > 20
    assert [r for s in schedules for r in races_of(s)] == []
