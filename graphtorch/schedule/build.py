"""`build_schedule`: from a graph to kernels and calls in execution order, with buffers, in-place updates and a
report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.lowering.kernel import Access, Axis, Buffer, ExternCall, Kernel, Load, Schedule, Store, View
from graphtorch.ops.record import lookup
from graphtorch.schedule.construct import KernelBuilder, Strides
from graphtorch.schedule.effects import failures_first
from graphtorch.schedule.fusion import Fusion, Step
from graphtorch.schedule.groups import Group, Limits
from graphtorch.schedule.indexing import (
    Layout,
    Placement,
    contiguous,
    loop_strides,
    product,
    resolve,
    row_major,
    same_type,
)
from graphtorch.schedule.merging import absorb, merge_siblings, roots_read
from graphtorch.schedule.ordering import order_for_memory
from graphtorch.schedule.primitives import copy_node, lower_to_primitives
from graphtorch.schedule.report import describe, kernel_lines
from graphtorch.tensor.symint import same_shape, same_size


def build_schedule(graph: Graph, donations: Mapping[int, int] | None = None, limits: Limits | None = None) -> Schedule:
    """Lower a graph to primitives, fuse them and order the kernels.

    donations   output index -> input index: the output is the new value of that input, whose memory it overwrites.
                Where reads of the old value make that impossible, the output is computed into memory of its own and
                copied at the end. Either way the schedule's output is a View of the input's buffer.

    Raises ValueError for a donation between values of different types, or of one input to two outputs.
    """
    return _Scheduler(lower_to_primitives(graph), dict(donations or {}), limits).run()


class _Scheduler:
    def __init__(self, graph: Graph, donations: dict[int, int], limits: Limits | None) -> None:
        self.graph = graph
        self.donations = donations
        self.fusion = Fusion(graph, limits)
        self.buffers: dict[Value, Buffer] = {}
        self.names: dict[str, int] = {}  # with the last number that was appended to each
        self.targets: dict[Value, Buffer] = {}  # a computed value -> the input buffer that it overwrites
        self.copies: list[tuple[Value, Buffer]] = []  # at the end: the value's buffer into the input's
        self.reading: dict[Group, dict[Value, list[tuple[Node, Value]]]] = {}  # who reads which buffers in a kernel
        self.saved: dict[Value, Value] = {}  # an output -> its copy, made before an input is overwritten
        self.own: set[Value] = set()  # what outputs that overwrite no input lie in
        self.report: list[str] = []
        if len(set(donations.values())) != len(donations):
            raise ValueError(f"an input is donated to several outputs: {donations}")
        for output, source in donations.items():
            new, old = graph.outputs[output].type, graph.inputs[source].type
            if new.dtype is not old.dtype or not same_shape(new.shape, old.shape):
                raise ValueError(f"output {output} is {new} and can't overwrite input {source}, which is {old}")

    def run(self) -> Schedule:
        graph, fusion = self.graph, self.fusion
        fusion.run()
        self._outputs_in_memory()
        kept = {self._output(v)[0] for v in graph.outputs}
        merge_siblings(fusion)
        absorb(fusion, kept)
        merge_siblings(fusion)
        inputs = [self._buffer(v, "input", v.name) for v in graph.inputs]
        self._donate(inputs)
        for index, value in enumerate(graph.outputs):
            if index in self.donations:
                continue  # in the input's buffer, or a temporary one that is copied into it
            root = self._output(value)[0]
            if root not in self.buffers and root not in self.targets:
                self._buffer(root, "output", graph.output_names[index] if root is value else root.name)
        groups = fusion.dependence.in_order()
        needed = self._needed(groups)
        steps = [self._step(g, i, needed) for i, g in enumerate(groups)]
        steps.extend(self._copy_back(value, to, len(steps) + i) for i, (value, to) in enumerate(self.copies))
        steps, line = order_for_memory(steps)
        if line:
            self.report.append(line)
        steps = failures_first(steps)
        outputs: list[View] = []
        for index, value in enumerate(graph.outputs):
            if index in self.donations:
                old = inputs[self.donations[index]]
                outputs.append(View(old, old.shape, row_major(old.shape), 0))
            else:
                root, layout = self._output(value)
                outputs.append(View(self._buffer_of(root), layout.shape, layout.strides, layout.offset))
        report = kernel_lines(steps, fusion) + self.report
        return Schedule(steps, inputs, outputs, report, len(graph.nodes))

    def _output(self, value: Value) -> tuple[Value, Layout]:
        """The buffer that an output lies in, and how."""
        saved = self.saved.get(value)
        if saved is not None:
            return saved, contiguous(value.type.shape)
        return self.fusion.reads(value, (), in_memory=True)[0]

    # -- outputs and donations ---------------------------------------------------------------------------------------

    def _outputs_in_memory(self) -> None:
        """Every output becomes a view of a buffer. What shows the old value of a donated input is copied before it is
        overwritten."""
        fusion, graph = self.fusion, self.graph
        donated = {graph.inputs[i] for i in self.donations.values()}
        for index, value in enumerate(graph.outputs):
            ((root, _),) = fusion.make_readable(value, in_memory=True)
            unchanged = index in self.donations and value is graph.inputs[self.donations[index]]
            if root in donated and not unchanged:
                self.saved[value] = fusion.copy(value, "it shows an input before its update")
            elif any(not step.op.is_view for step in fusion.roots[value][1]):
                self.saved[value] = fusion.copy(value, "an output that is no view has memory of its own")

    def _donate(self, inputs: list[Buffer]) -> None:
        """Decide for each donation whether its kernel may write into the input.

        Law: it may if every other reader of the old value runs before, and the kernel itself reads it only at the
        element that it writes.
        """
        fusion, graph = self.fusion, self.graph
        readers: dict[Value, set[int]] = {}
        for group in fusion.dependence.groups.values():
            for root in roots_read(fusion, group):
                if root.node is None:
                    readers.setdefault(root, set()).add(group.index)
        self.own = {self._output(v)[0] for i, v in enumerate(graph.outputs) if i not in self.donations}
        for output, source in self.donations.items():
            value, old, buffer = graph.outputs[output], graph.inputs[source], inputs[source]
            name = graph.output_names[output]
            if value is old:
                continue
            root, layout = self._output(value)
            if same_type(root.type, value.type) and layout.is_contiguous:
                why = self._refuse_donation(root, old, readers.get(old, set()))
            else:
                why = "it is a view of another value"
            if why is None:
                self.targets[root] = buffer
                group = fusion.home[root]
                before = sum(1 << index for index in readers.get(old, ()) if index != group.index)
                fusion.dependence.read(group, before)
            else:
                self.copies.append((value, buffer))
                self.report.append(f"{name} is copied into {buffer.name} at the end: {why}")

    def _refuse_donation(self, value: Value, old: Value, readers: set[int]) -> str | None:
        fusion = self.fusion
        group = fusion.home.get(value)
        if group is None:
            return "it is another input"
        if value in self.targets:
            return "it overwrites another input too"
        if value in self.own:
            return "it is an output of its own as well"
        for index in readers:
            if index == group.index:
                if group.call is not None or not self._same_point(group, value, old):
                    return "its kernel reads other elements of the old value"
            elif fusion.dependence.groups[index].ancestors & group.bit:
                return "the old value is needed after it"
        return None

    def _same_point(self, group: Group, value: Value, old: Value) -> bool:
        """Whether every access of `group` to `old` is at the element at which `value` is stored, once a parallel point:
        what lies along a reduction axis may be read again by a later pass over that axis."""
        fusion = self.fusion
        stored = loop_strides(tuple(resolve(d) for d in fusion.place[value]), row_major(value.type.shape))
        group.refresh()
        if group.reduced & stored.keys():
            return False
        return all(
            same_size(offset, 0)
            and strides.keys() == stored.keys()
            and all(same_size(strides[loop], stored[loop]) for loop in stored)
            for offset, strides in self._loads(group, old)
        )

    def _loads(self, group: Group, of: Value) -> Iterator[tuple[Any, Strides]]:
        """Offset and strides of each access of a group to a value's buffer, as `KernelBuilder` will make them."""
        fusion = self.fusion
        reading = self.reading.get(group)
        if reading is None:
            reading = self.reading[group] = {}
            for node in group.nodes:
                for value in node.operands():
                    root = fusion.roots[value][0]
                    if root in fusion.inlined or fusion.home.get(root) is not group:
                        for read in {read for read, _ in fusion.reads(value)}:
                            reading.setdefault(read, []).append((node, value))
        for node, value in reading.get(of, ()):
            domain = tuple(resolve(dim) for dim in fusion.domain[node])
            shape = (node.args[0] if node.op.kind == "reduction" else node.results[0]).type.shape
            yield from self._loads_at(value, (shape,), domain, of)

    def _loads_at(
        self, value: Value, steps: tuple[Step, ...], domain: Placement, of: Value
    ) -> Iterator[tuple[Any, Strides]]:
        root, steps, layout = self.fusion.route(value, steps)
        if layout is not None:
            if root is of:
                yield layout.offset, loop_strides(domain, layout.strides)
            return
        assert root.node is not None
        if root.node.op.kind != "source":
            for operand in root.node.operands():
                yield from self._loads_at(operand, (root.type.shape, *steps), domain, of)

    def _copy_back(self, value: Value, to: Buffer, index: int) -> Kernel:
        """A kernel that copies a value's buffer over an input."""
        root, layout = self._output(value)
        shape = value.type.shape
        axes = tuple(Axis(f"i{d}", size) for d, size in enumerate(shape))
        load = Load(Access(self._buffer_of(root), layout.offset, layout.strides))
        node = copy_node(lookup("clone"), value, origin="the new value of a donated input")
        if layout.is_contiguous and shape:
            axes = (Axis("i0", product(shape)),)
            load = Load(Access(self._buffer_of(root), layout.offset, (1,)))
        strides = row_major([axis.size for axis in axes])
        return Kernel(f"k{index}", axes, [Store(Access(to, 0, strides), load)], [node], ["a donated input's new value"])

    # -- buffers and steps -------------------------------------------------------------------------------------------

    def _buffer(self, value: Value, kind: str, name: str) -> Buffer:
        """A new buffer for a value, with a name of its own."""
        base = "".join(c if c.isalnum() or c == "_" else "_" for c in name) or ("t" if kind == "temporary" else kind)
        if base[0].isdigit():
            base = f"_{base}"
        unique, count = base, self.names.get(base, 0)
        while unique in self.names:
            count += 1
            unique = f"{base}_{count}"
        self.names[unique] = 0
        self.names[base] = count
        made = self.buffers[value] = Buffer(unique, value.type.dtype, value.type.shape, kind, value)
        return made

    def _buffer_of(self, value: Value) -> Buffer:
        """Where a value lies: an input, a result that overwrote one, an output or a temporary."""
        target = self.targets.get(value)
        if target is not None:
            return target
        return self.buffers.get(value) or self._buffer(value, "temporary", value.name)

    def _needed(self, groups: list[Group]) -> set[Value]:
        """The values that must be in memory: read by another group, returned, or copied at the end."""
        needed = {self._output(v)[0] for v in self.graph.outputs}
        for group in groups:
            needed |= roots_read(self.fusion, group)
        return needed

    def _step(self, group: Group, index: int, needed: set[Value]) -> Kernel | ExternCall:
        if group.call is not None:
            return self._call(group.call, index, needed)
        stored = [
            (node.results[0], self._buffer_of(node.results[0]))
            for node in sorted(group.nodes, key=self.fusion.sequence.__getitem__)
            if node.results[0] in needed
        ]
        kernel = KernelBuilder(self.fusion, group, self._buffer_of).build(f"k{index}", stored)
        return kernel

    def _call(self, node: Node, index: int, needed: set[Value]) -> ExternCall:
        def view(value: Any) -> Any:
            if type(value) is not Value:
                return value
            ((root, layout),) = self.fusion.reads(value, (), in_memory=True)
            return View(self._buffer_of(root), layout.shape, layout.strides, layout.offset)

        args = tuple(tuple(view(i) for i in a) if type(a) is tuple else view(a) for a in node.args)
        outputs = tuple(self._buffer_of(r) if r in needed else None for r in node.results)
        return ExternCall(f"c{index}", node.op, args, outputs, [node], [f"{describe(node)} runs as a call"])
