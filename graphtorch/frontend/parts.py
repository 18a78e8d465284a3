"""What the tape would know of a control-flow node, result by result.

Eager execution runs the operators inside of a branch or body one by one: a result depends on what flows into it, and a
backward pass through it frees, and checks, what these operators saved. A node that stands for all of them would depend
on everything and save everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from graphtorch.frontend.recorded import RecordedStorage
from graphtorch.ir.graph import Node, Value
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.frontend.control_flow import _Body
    from graphtorch.frontend.recorder import Recorder

Saved = tuple[RecordedStorage, int, Tensor]


@dataclass(eq=False)
class Part:
    """One result of a control-flow node.

    operands  the values that gradients flow to
    saves     whether something on the way saves anything; None: in one of two branches
    doubtful  what only one of two branches saves
    """

    node: Node
    operands: list[Value]
    saves: bool | None = False
    doubtful: list[Saved] = field(default_factory=list)


@dataclass
class _Inside:
    """What one value of a body comes from: values at its border, and what was saved on the way."""

    borders: dict[Value, None]
    saved: list[Saved]
    doubtful: list[Saved]
    saves: bool | None = False


def _look(recorder: Recorder, value: Value, nodes: set[Node]) -> _Inside:
    found = _Inside({}, [], [])
    seen: set[Value] = set()
    savers: dict[Node | Part, None] = {}
    stack = [value] if value in recorder.tracked else []
    while stack:
        here = stack.pop()
        if here in seen:
            continue
        seen.add(here)
        if here.node not in nodes:
            found.borders[here] = None
            continue
        savers[recorder.saver(here)] = None
        stack.extend(recorder.flows_from(here))
    for saver in savers:
        found.saved += recorder._saved.get(saver, [])
        if isinstance(saver, Part):
            found.doubtful += saver.doubtful
            found.saves = found.saves or saver.saves
        elif saver in recorder._saved:
            found.saves = True
    return found


def note_cond(recorder: Recorder, results: Sequence[Value], bodies: Sequence[_Body]) -> None:
    """Note the parts of a `cond` node."""
    (node,) = {r.node for r in results}
    assert node is not None
    recorder._saved.pop(node, None)
    for i, result in enumerate(results):
        sides = [_look(recorder, body.values[i], set(body.nodes)) for body in bodies]
        by_memory = [{id(storage): (storage, version, t) for storage, version, t in side.saved} for side in sides]
        both = [entry for key, entry in by_memory[0].items() if key in by_memory[1]]
        pairs = (by_memory, by_memory[::-1])
        either = [entry for mine, other in pairs for key, entry in mine.items() if key not in other]
        part = Part(node, list({**sides[0].borders, **sides[1].borders}))
        part.doubtful = [*either, *sides[0].doubtful, *sides[1].doubtful]
        part.saves = sides[0].saves if sides[0].saves == sides[1].saves else None
        recorder.parts[result] = part
        if part.saves is not False:
            recorder._saved[part] = both


def note_scan(
    recorder: Recorder,
    results: Sequence[Value],
    step: _Body,
    count: int,
    operands: Sequence[Tensor],
    placeholders: Sequence[Tensor],
) -> None:
    """Note the parts of a `scan` node, whose first `count` operands are carried. `placeholders` stood for the operands'
    steps in the body."""
    (node,) = {r.node for r in results}
    assert node is not None
    recorder._saved.pop(node, None)
    nodes = set(step.nodes)
    values = [recorder.value_of(t) for t in operands]
    place = {v: i for i, v in enumerate(step.given)}
    memory: Mapping[int, Tensor] = {
        id(p._data.storage): recorder.recorded(t) for p, t in zip(placeholders, operands, strict=True)
    }
    for result, value in zip(results, step.values, strict=True):
        part = Part(node, [])
        saved: dict[int, Saved] = {}
        borders: dict[Value, None] = {}
        pending, done = [value], {value}
        while pending:
            inside = _look(recorder, pending.pop(), nodes)
            part.doubtful += inside.doubtful
            part.saves = part.saves or inside.saves
            for storage, version, tensor in inside.saved:
                held = memory.get(id(storage))
                if held is not None:
                    storage, version, tensor = held._data.storage, held._data.storage.version, held
                saved[id(storage)] = (storage, version, tensor)
            for border in inside.borders:
                i = place.get(border)
                borders[border if i is None else values[i]] = None
                if i is not None and i < count and step.values[i] not in done:  # what the step before made of it
                    done.add(step.values[i])
                    pending.append(step.values[i])
        part.operands = list(borders)
        recorder.parts[result] = part
        if part.saves is not False:
            recorder._saved[part] = list(saved.values())
