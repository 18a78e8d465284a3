"""The code of one call of a specialisation, written once: arguments in, results out, and nothing decided on the way.

What a call does is known when a function has been captured: which leaf of the arguments is which input, which arrays
stand behind parameters, whose version to raise, where the results go. `write_replay` writes that down as one Python
function without loops, after the cheap forms of the guards. It returns `MISS` where one of these fails; the caller then
checks the guards themselves, which costs more and tells what changed."""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from graphtorch.autograd.graph import edge_of
from graphtorch.frontend.arithmetic import ComputedNumber
from graphtorch.frontend.arrangement import laid_out
from graphtorch.frontend.descriptions import Alias, Computed, Constant, Made, Output
from graphtorch.frontend.kept import KeptGradients, keepable
from graphtorch.frontend.places import assignment
from graphtorch.frontend.program import BrokenNode, run_deferred
from graphtorch.frontend.sources import (
    ArgumentSource,
    GradSource,
    IntegerArgument,
    NumberSource,
    SizeSource,
    SlotSource,
    Source,
    TensorSource,
    carrier,
    gradient_of,
)
from graphtorch.frontend.state_recorder import plain_entry
from graphtorch.frontend.tree import Leaf, unflatten
from graphtorch.frontend.watch import Fact, Settled, memory
from graphtorch.ir.passes import verify_by_default
from graphtorch.lowering.backend import Executable, InputMismatchError
from graphtorch.tensor.devices import CPU
from graphtorch.tensor.remote import contiguous
from graphtorch.tensor.tensor import Tensor

if TYPE_CHECKING:
    from graphtorch.frontend.compiler import Specialization

MISS: Any = object()  # what a replay returns for a call that it does not know to fit

Replay = Callable[[tuple[Any, ...], dict[str, Any]], Any]


def write_replay(specialization: Specialization) -> Replay:
    """The function `replay(args, kwargs)` of a specialisation that has run before."""
    return _Writer(specialization).run()


class _Writer:
    def __init__(self, specialization: Specialization) -> None:
        self.specialization = specialization
        self.captured = specialization.captured
        self.guards = specialization.guards
        self.name = self.guards.name
        executable = specialization.compiled.executable
        # Executables that look at shapes themselves make it enough that an array is the one that was checked.
        self.checked = bool(executable.checks_inputs)
        self.contiguous = bool(executable.contiguous_results)
        self.leaf_count = 0
        self.snapshots: set[str] = set()
        self.lines: list[str] = []

    def run(self) -> Replay:
        positional, keywords = self.specialization.tree.children
        self._unpack(positional, "args", known=True)
        if keywords.children:
            self._unpack(keywords, "kwargs", known=True)
        else:
            self._miss_if("kwargs")
        arguments = {s.index for s in self.captured.sources if isinstance(s, ArgumentSource)}
        self.lines += [f"x{i} = a{i}._data" for i in sorted(arguments)]
        conditions, watched = self._conditions()
        self._miss_if(f"not ({' and '.join(map(self._local, conditions))})" if conditions else "False")
        if watched:
            settled = self.specialization.settled = Settled(self.guards.watch, self.guards.scope, watched)
            self._miss_if(
                f"({self.name(memory().take)}(places).tobytes() != seen and not {self.name(settled.refresh)}())"
                " or (rest is not None and not rest())"
            )
        arithmetic = self.captured.arithmetic
        if arithmetic:
            self.lines += map(self._local, arithmetic.source(self.guards, f"return {self.name(MISS)}"))
        source = [
            "def replay(args, kwargs):",
            "  try:",
            *(f"    {line}" for line in self.lines),
            # A name is missing where a condition that would have bound it was not reached.
            "  except (ArithmeticError, LookupError, AttributeError, RuntimeError, TypeError, ValueError, NameError):",
            f"    return {self.name(MISS)}",
        ]
        self.lines = []
        self._call()
        source += [f"  {line}" for line in self.lines]
        scope = self.guards.scope
        exec(compile("\n".join(source), "<graphtorch replay>", "exec"), scope)
        replay: Replay = scope.pop("replay")
        return replay

    def _miss_if(self, condition: str) -> None:
        self.lines.append(f"if {condition}: return {self.name(MISS)}")

    # -- arguments ---------------------------------------------------------------------------------------------------

    def _unpack(self, tree: Any, value: str, known: bool = False) -> None:
        """Take a container apart into the variables a0, a1, ... of its leaves. `known`: its type is certain."""
        if not known:
            self._miss_if(f"{value}.__class__ is not {self.name(tree.type)}")
        names: list[str] = []
        before = self.lines
        self.lines = []
        for child in tree.children:
            if type(child) is Leaf:
                names.append(f"a{self.leaf_count}")
                self.leaf_count += 1
            else:
                names.append(f"{value}_{len(names)}")
                self._unpack(child, names[-1])
        inner_lines, self.lines = self.lines, before
        targets = "".join(f"{n}, " for n in names)
        if tree.keys is None:
            if names:
                self.lines.append(f"({targets}) = {value}")
            else:
                self._miss_if(value)
        elif issubclass(tree.type, dict):
            self._miss_if(f"[*{value}] != {self.name(list(tree.keys))}")
            if names:
                self.lines.append(f"({targets}) = {value}.values()")
        else:  # a dataclass
            self.lines += [f"{n} = {value}.{k}" for n, k in zip(names, tree.keys, strict=True)]
        self.lines += inner_lines

    def _local(self, text: str) -> str:
        """An expression over `leaves` as one over the variables."""
        return re.sub(r"\bleaves\[(\d+)\]", r"a\1", re.sub(r"\bleaves\[(\d+)\]\._data\b", self._array, text))

    def _array(self, match: re.Match[str]) -> str:
        variable = f"x{match[1]}"
        return variable if any(line.startswith(f"{variable} = ") for line in self.lines) else f"a{match[1]}._data"

    def _conditions(self) -> tuple[list[str], list[tuple[str, tuple[Fact, ...]]]]:
        """What each call evaluates, and what only calls do that find watched objects changed, with these."""
        found = list(self.guards.required)
        watched: list[tuple[str, tuple[Fact, ...]]] = []
        for guard in self.guards.guards.values():
            condition = guard.cheap
            if guard.checked and not self.checked:
                found.append(guard.expression)
            elif guard.facts:
                watched.append((condition or "True", guard.facts))
            elif condition:
                found.append(condition)
        return found, watched

    # -- the call ----------------------------------------------------------------------------------------------------

    def _tensor(self, source: Source) -> str:
        """The tensor (or number) of an input."""
        if isinstance(source, ArgumentSource):
            return f"a{source.index}"
        if isinstance(source, TensorSource):
            return self.name(source.tensor)
        if isinstance(source, GradSource):
            return f"{self._tensor(source.owner)}.{gradient_of(source.owner)}"
        if isinstance(source, SizeSource):
            return self.name(source.sample)
        if isinstance(source, ComputedNumber):
            return f"h{source.index}"
        if isinstance(source, SlotSource):  # what was there before the call puts something else there
            return f"q{self.captured.sources.index(source)}"
        if isinstance(source, IntegerArgument):
            return f"{self.name(Tensor._wrap)}({self.name(carrier)}(a{source.index}))"
        assert isinstance(source, NumberSource)
        expression = plain_entry(self.guards, source.container, source.key)
        plain = f"dict.__getitem__({self.name(source.container)}, {source.key!r})"
        found = self.guards.locals.get(expression) or plain
        return found if source.index is None else f"{found}[{source.index}]"

    def _input(self, source: Source) -> str:
        """What the executable gets for an input."""
        if isinstance(source, ArgumentSource):
            return f"x{source.index}"
        if isinstance(source, NumberSource | ComputedNumber):
            return self._tensor(source)
        if isinstance(source, IntegerArgument):
            return f"{self.name(carrier)}(a{source.index})"
        if isinstance(source, TensorSource) and self.checked:
            # Guards have compared the array with this one.
            snapshot = self.guards.snapshot_names.get(("data", id(source.tensor)))
            if snapshot is not None:
                self.snapshots.add(snapshot)
                return snapshot
        return f"{self._tensor(source)}._data"

    def _call(self) -> None:
        specialization, captured = self.specialization, self.captured
        leaves = f"[{', '.join(f'a{i}' for i in range(self.leaf_count))}]"
        simple = self._is_simple()
        for place, source in enumerate(captured.sources):
            if isinstance(source, SlotSource):
                self.lines.append(f"q{place} = {self.name(source.slot)}.tensor")
        if not simple:
            self.lines.append(f"found = [{', '.join(self._tensor(s) for s in captured.sources)}]")
        inputs = [self._input(s) for s in captured.sources]
        changing = tuple(i for i, text in enumerate(inputs) if text not in self.snapshots)
        given = f"[{', '.join(inputs)}]"
        kept = self._kept_gradients()
        if len(inputs) - len(changing) > 4:
            # The arrays that guards have found unchanged are a list that lies ready.
            given = "inputs"
            specialization.fixed = [None if i in changing else text for i, text in enumerate(inputs)]
            specialization.collect_fixed()
            self.lines += ["inputs = fixed.copy()", *(f"inputs[{i}] = {inputs[i]}" for i in changing)]
        compiled = specialization.compiled
        if compiled.copies:
            run, more = self.name(compiled.run), f", {self.name(specialization._written)}"
        elif given == "inputs" and type(compiled.executable).run_again is not Executable.run_again:
            run, more = self.name(compiled.executable.run_again), f", fixed, {self.name(changing)}"
            if kept:
                wanted = self.name(tuple(index for _, index in kept))
                more += f", {wanted}, free"
                self._look_at_gradients()
        else:
            run, more = self.name(compiled.executable.run), ""
        self.lines += [
            "try:",
            f"  arrays = {run}({given}{more})",
            f"except {self.name(InputMismatchError)}:",
            f"  return {self.name(MISS)}",
        ]
        if verify_by_default():  # here, for the executable has its share in the check
            check = self.name(self.guards.check)
            self.lines.append(f"assert {check}({leaves}), 'a cheap form held where its guard did not'")
        if not simple:
            numbers = ""
            if captured.arithmetic:
                computed = [f"{event}: h{event}" for event in captured.arithmetic.events if isinstance(event, int)]
                numbers = f", {{{', '.join(computed)}}}"
            self.lines.append(f"return {self.name(specialization.finish)}({leaves}, found, arrays{numbers})")
            return
        self.lines.append(f"{self.name(specialization)}.calls += 1")
        counted = [captured.sources[p] for p, _ in captured.written if p not in captured.quiet]
        watched = [s for s in counted if isinstance(s, TensorSource) and self._is_watched(s.tensor)]
        if watched and specialization.settled is not None:
            specialization.settled.counts([s.tensor for s in watched], specialization.writer)
            self.lines.append(f"{self.name(specialization.writer)}.count += 1")
        for source in counted:
            if source in watched:
                continue
            tensor = self._tensor(source)
            self.lines += [
                f"storage = {tensor}._storage",
                f"if storage is None: storage = {tensor}._shared_storage()",
                "storage.version += 1",
            ]
        made: dict[int, str] = {}
        results = [self._result(r, made) for r in captured.results]
        if kept and "free" in more:
            self._keep_gradients(kept)
        else:
            kept = []
        done = [index for _, index in kept]
        grads = [
            (self._tensor(s), "None" if r is None else self._result(r, made))
            for s, r in captured.grads
            if not (isinstance(r, Output) and r.index in done)
        ]
        self.lines += [f"{leaf}._gradient = {gradient}" for leaf, gradient in grads]
        for change in captured.changes:
            given = self._result(change.spec, made)
            self.lines.append(assignment(self.guards, change.namespace, change.key, given))
            if change.slot is not None and not isinstance(change.spec, Constant | Computed):
                self.lines.append(f"{self.name(change.slot)}.tensor = {given}")
        if captured.deferred:
            self.lines.append(f"{self.name(run_deferred)}({self.name(captured.deferred)})")
        names = iter(results)
        returned = self._tree(captured.tree, names)
        if returned is None:
            returned = f"{self.name(unflatten)}({self.name(captured.tree)}, iter([{', '.join(results)}]))"
        self.lines.append(f"return {returned}")

    # -- gradients that stay where they are ----------------------------------------------------------------------------

    def _kept_gradients(self) -> list[tuple[Tensor, int]]:
        """The parameters whose gradients may be written in the same memory by each run, and which outputs these are."""
        captured, compiled = self.captured, self.specialization.compiled
        if not (self._is_simple() and compiled.executable.keeps and not compiled.copies and keepable()):
            return []
        given = [*captured.results, *(r for _, r in captured.grads), *(c.spec for c in captured.changes)]
        uses = Counter(spec.index for spec in given if isinstance(spec, Output))
        return [
            (source.tensor, spec.index)
            for source, spec in captured.grads
            if isinstance(source, TensorSource)
            and isinstance(spec, Output)
            and uses[spec.index] == 1
            and not (spec.number or spec.requires_grad or spec.error or spec.strides or spec.order)
            and captured.graph.outputs[spec.index].type.device.type == "cuda"
        ]

    def _look_at_gradients(self) -> None:
        """Before the run: `free` are the resident gradients if nobody else has them, and `words` what memory said."""
        self.kept = KeptGradients(self.guards.scope)
        take = self.name(memory().take)
        self.lines += [
            "free = resident",
            "if free is not None:",
            f"  words = {take}(gradient_places).tobytes()",
            "  known = words == gradient_words or words == dropped_words",
            f"  if not known and not {self.name(self.kept.free)}(): free = None",
        ]

    def _keep_gradients(self, kept: list[tuple[Tensor, int]]) -> None:
        """After the run: parameters get new gradients only if the old ones are not theirs any more."""
        outputs = self.captured.graph.outputs
        self.kept.describe([(leaf, index, outputs[index].type.dtype) for leaf, index in kept])
        self.lines += [
            f"if free is None or arrays.resident is not free or not known: {self.name(self.kept.assign)}(arrays)",
            f"elif words != gradient_words: {self.name(self.kept.restore)}()",
        ]

    def _is_watched(self, tensor: Tensor) -> bool:
        """Whether it would be noticed if a tensor got another storage."""
        fact = self.guards.watch.attributes(tensor)
        settled = self.specialization.settled
        return fact is not None and settled is not None and fact in settled.facts

    def _is_simple(self) -> bool:
        """Whether results are tensors without a history, and whatever needs no look at the call."""
        captured = self.captured
        if self.specialization.joint is not None or captured.histories or captured.own_grads or captured.attributes:
            return False
        if captured.flags:
            return False
        for spec in (*captured.results, *(g for _, g in captured.grads), *(c.spec for c in captured.changes)):
            if isinstance(spec, Output):
                if spec.requires_grad and not (spec.is_leaf or spec.error):
                    return False
                if spec.within is not None:
                    return False
            elif isinstance(spec, Alias):
                if spec.steps or spec.is_leaf:
                    return False
            elif not (spec is None or isinstance(spec, Constant | Made | Computed)):
                return False
        return True

    def _result(self, spec: Any, made: dict[int, str]) -> str:
        """A variable or name for a result."""
        if isinstance(spec, Constant):
            return self.name(spec.value)
        if isinstance(spec, Computed):
            return f"h{spec.index}"
        if isinstance(spec, Made):
            return f"{self.name(copy.deepcopy)}({self.name(spec.value)})"
        if isinstance(spec, Alias):
            tensor = self._tensor(spec.source)
            if isinstance(spec.source, GradSource):  # what it was before gradients are assigned
                self.lines.append(f"g{len(self.lines)} = {tensor}")
                return f"g{len(self.lines) - 1}"
            return tensor
        if spec.number:
            return f"{self.name(_number)}(arrays[{spec.index}])"
        variable = made.get(spec.index)
        if variable is not None:
            return variable
        variable = made[spec.index] = f"r{spec.index}"
        array = f"arrays[{spec.index}]"
        ordered = spec.strides is not None or spec.order is not None
        if ordered:
            array = f"{self.name(laid_out)}({array}, {self.name(spec.strides)}, {self.name(spec.order)})"
        self.lines += [
            f"{variable} = {self.name(object.__new__)}({self.name(Tensor)})",
            f"{variable}._data = array = {array}",
            f"{variable}._dtype = {self.name(self.captured.graph.outputs[spec.index].type.dtype)}",
        ]
        if not ordered and not (self.contiguous and spec.index not in self.specialization._written):
            repair = f"{variable}._data = {self.name(contiguous)}(array)"
            self.lines.append(f"if not array.flags.c_contiguous: {repair}")
        if self.captured.graph.outputs[spec.index].type.device is not CPU:
            self.lines.append(f"{variable}._device = array.place")
        if spec.is_leaf or spec.error:
            self.lines.append(f"{variable}._requires_grad = True")
        if spec.error:
            node = f"{self.name(BrokenNode)}({self.name(spec.broken)}, {self.name(spec.error)}, {self._leads(spec)})"
            self.lines.append(f"{variable}._node = {node}")
        return variable

    def _leads(self, spec: Output) -> str:
        """The edges of a used-up history; those to parameters are the same at each call."""
        fixed = [s for s in spec.leads if isinstance(s, TensorSource) and s.tensor.is_leaf]
        always = self.name(tuple(edge_of(s.tensor) for s in fixed))
        others = [s for s in spec.leads if s not in fixed]
        if not others:
            return always
        return f"(*{always}, {', '.join(f'{self.name(edge_of)}({self._tensor(s)})' for s in others)})"

    def _tree(self, tree: Any, names: Any) -> str | None:
        """The results in their containers, for the plain ones."""
        if type(tree) is Leaf:
            return str(next(names))
        if tree.type not in (tuple, list, dict):
            return None
        children = [self._tree(c, names) for c in tree.children]
        if any(c is None for c in children):
            return None
        if tree.type is dict:
            keys = [self.name(k) for k in tree.keys]
            return "{" + ", ".join(f"{k}: {c}" for k, c in zip(keys, children, strict=True)) + "}"
        inside = "".join(f"{c}, " for c in children)
        return f"[{inside}]" if tree.type is list else f"({inside})"


def _number(array: Any) -> Any:
    """A run-time number as a Python number."""
    return array.item() if hasattr(array, "item") else array
