"""Programs of one launch run in any order: none may write what another one reads, and no update in place may be made by
several of them. Triton's interpreter, which runs one after another, shows such mistakes only sometimes. Launches run in
the order of the plan: what one reads must be there, and not yet be overwritten by what shares its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import graphtorch as torch
from graphtorch import nn
from graphtorch.lowering.kernel import Buffer, ExternCall, Kernel, Load, Schedule, View, post_order
from graphtorch.lowering.triton.columns import RowKernel
from graphtorch.lowering.triton.fused import DELTA, FusedCall
from graphtorch.lowering.triton.groups import GroupedKernel
from graphtorch.lowering.triton.launch import LaunchPlan, make_plan
from graphtorch.lowering.triton.tiling import is_zero
from graphtorch.schedule.memory import nbytes

pytest.importorskip("triton")


def loads_of(kernel: Kernel) -> list[Load]:
    return [e for e in post_order(s.value for s in kernel.stores) if isinstance(e, Load)]


def operands(call: ExternCall) -> set[Buffer]:
    """What a call reads from other tiles than the one that it makes."""
    args = list(call.args)
    if isinstance(call, FusedCall) and call.result is not None:
        args[DELTA] = call.result  # what one of its launches writes, and the next one reads
    views = [item for arg in args for item in (arg if type(arg) is tuple else (arg,)) if isinstance(item, View)]
    prologues = call.prologues.values() if isinstance(call, FusedCall) else ()
    return {v.buffer for v in views} | {load.access.buffer for k in prologues for load in loads_of(k)}


def races(kernel: Kernel, elsewhere: frozenset[Buffer] = frozenset()) -> Iterator[str]:
    """The stores of a kernel that other programs' loads or stores are in the way of."""
    if isinstance(kernel, GroupedKernel):
        for member in kernel.members:
            yield from races(member)
            others = [m for m in kernel.members if m is not member]
            touched = {b for m in others for b in (*m.reads(), *m.writes())}
            yield from (f"{kernel.name}: several touch {b.name}" for b in member.writes() if b in touched)
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
            continue
        if isinstance(step, FusedCall) and step.epilogue is not None:
            found += races(step.epilogue, frozenset(operands(step)))
        found += [f"{step.name} writes its operand {b.name}" for b in step.writes() if b in operands(step)]
    return found


def takes_over(step: Kernel | ExternCall, made: Buffer, old: Buffer) -> bool:
    """Whether a result may lie where an operand does: one kernel touches both, each program at elements of its own."""
    if not isinstance(step, Kernel):
        return False
    kernels = step.members if isinstance(step, GroupedKernel) else [step]
    (writer,) = [k for k in kernels if made in k.writes()]
    if isinstance(writer, RowKernel) or any(k is not writer and old in (*k.reads(), *k.writes()) for k in kernels):
        return False
    sized = [i for i, a in enumerate(writer.axes) if not (type(a.size) is int and a.size == 1)]
    places = {
        (a.offset, *(a.strides[i] for i in sized))
        for a in [
            *(load.access for load in loads_of(writer) if load.access.buffer is old),
            *(store.access for store in writer.stores if store.access.buffer in (made, old)),
        ]
    }
    (place,) = places if len(places) == 1 else [None]
    return place is not None and all(
        is_zero(stride) == writer.axes[i].reduction for i, stride in zip(sized, place[1:], strict=True)
    )


def overwritten(plan: LaunchPlan, schedule: Schedule) -> list[str]:
    """What steps of a plan read that is not there: not made yet, or overwritten by what lies in the same memory; and
    what they write over what other programs read."""
    found: list[str] = []
    there = set(schedule.inputs)
    ranges = {b: (start, start + nbytes(b, plan.bindings)) for b, start in plan.offsets.items()}

    def shares(one: Buffer, other: Buffer) -> bool:
        (start, end), (begin, stop) = ranges[one], ranges[other]
        return one is not other and start < stop and begin < end

    for step in schedule.steps:
        reads, writes = [b for b in step.reads() if b.kind != "random"], step.writes()
        found += [f"{step.name} reads {b.name}, which is gone" for b in reads if b not in there]
        for made in writes:
            for other in (*reads, *writes):
                if shares(made, other) and not (ranges[made] == ranges[other] and takes_over(step, made, other)):
                    found.append(f"{step.name} writes {made.name} over {other.name}")
            there = {b for b in there if not shares(made, b)} | {made}
    found += [f"the result {v.buffer.name} is gone" for v in schedule.outputs if v.buffer not in there]
    return found


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
    assert [r for s in schedules for r in overwritten(make_plan(s, {}), s)] == []


# The training steps of benchmarks/gpu.py in their sizes, with fewer layers where all are alike.
STEPS = {
    "gpt": (32, 1024, 2, 12, 768, 50304),
    "resnet18": (256, 224, 64, 1000),
    "mlp": (16384, 784, 4096, 10),
}


@pytest.mark.parametrize("name", STEPS)
def test_no_launch_of_the_benchmark_races(
    name: str, schedules: list[Schedule], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "benchmarks"))
    from gpu_workloads import BUILDERS

    work = BUILDERS[name](torch, "cuda", *STEPS[name])

    @torch.compile
    def step(*given: Any) -> Any:
        work.optimizer.zero_grad()
        loss = work.forward(*given)
        loss.backward()
        work.optimizer.step()
        return loss

    schedules.clear()
    step(*work.inputs)
    (schedule,) = schedules
    assert len(schedule.steps) > 20
    assert races_of(schedule) == []
    assert overwritten(make_plan(schedule, {}), schedule) == []


@pytest.mark.parametrize("shape", [(1, 6, 3), (2, 6, 3), (1, 8, 5, 4), (1, 64, 40)])
@pytest.mark.parametrize("of", [torch.float32, torch.float64, torch.bfloat16])
def test_no_launch_of_a_group_norm_races(shape: tuple[int, ...], of: torch.dtype, schedules: list[Schedule]) -> None:
    """Its sums go over groups of channels, and over channels; kernels with both are cut into many."""
    x = torch.randn(shape, device="cuda", requires_grad=True)
    norm = nn.GroupNorm(2, shape[1], device="cuda")
    weights = torch.randn(shape, dtype=of, device="cuda")

    @torch.compile
    def step(x: Any, weights: Any) -> Any:
        y = norm(x)
        return y, *torch.autograd.grad(y, (x, *norm.parameters()), weights.to(y.dtype))

    schedules.clear()
    step(x, weights)
    (schedule,) = schedules
    assert races_of(schedule) == []
    assert overwritten(make_plan(schedule, {}), schedule) == []


def test_what_is_gone_is_noticed(schedules: list[Schedule]) -> None:
    """The checks themselves: steps in the wrong order, and two buffers in one place."""
    x = torch.ones(64, 64, device="cuda")
    torch.compile(lambda x: (x @ x).softmax(-1) @ x)(x)
    schedule = schedules[-1]
    plan = make_plan(schedule, {})
    assert overwritten(plan, schedule) == []
    assert "which is gone" in overwritten(plan, replace(schedule, steps=schedule.steps[::-1]))[0]
    first = next(iter(schedule.steps[0].writes()))
    plan.offsets[schedule.steps[1].writes()[0]] = plan.offsets[first]
    assert f"over {first.name}" in overwritten(plan, schedule)[0]
