"""The relation between groups under random reads, merges and absorptions, against a graph searched anew each time."""

from __future__ import annotations

import random

import networkx as nx
import pytest

from graphtorch.schedule.groups import Dependence, Group


class Plain:
    """The same relation as a graph of group numbers, an edge from a group to each that it reads."""

    def __init__(self) -> None:
        self.graph: nx.DiGraph = nx.DiGraph()

    def depends(self, a: Group, b: Group) -> bool:
        return a is not b and nx.has_path(self.graph, a.index, b.index)

    def would_cycle(self, merged: list[Group], reads: list[Group]) -> bool:
        made = self.graph.copy()
        made.add_edges_from((merged[0].index, g.index) for g in reads)
        for other in merged[1:]:
            made = nx.contracted_nodes(made, merged[0].index, other.index, self_loops=True, copy=True)
        return not nx.is_directed_acyclic_graph(made)

    def merge(self, into: Group, other: Group) -> None:
        self.graph = nx.contracted_nodes(self.graph, into.index, other.index, self_loops=False, copy=True)


def check(dependence: Dependence, plain: Plain) -> None:
    groups = list(dependence.groups.values())
    for a in groups:
        assert {g.index for g in dependence.of(a.direct)} == set(plain.graph.successors(a.index))
        assert {g.index for g in dependence.of(a.readers)} == set(plain.graph.predecessors(a.index))
        for b in groups:
            assert bool(a.ancestors & b.bit) == plain.depends(a, b)
    order = {g.index: i for i, g in enumerate(dependence.in_order())}
    assert len(order) == len(groups)
    assert all(order[a] > order[b] for a, b in plain.graph.edges)


@pytest.mark.parametrize("seed", range(20))
def test_random_changes(seed: int) -> None:
    draw = random.Random(seed)
    dependence, plain = Dependence(), Plain()
    done = {"read": 0, "merge": 0, "refused": 0, "absorb": 0}
    for _ in range(90):
        groups = list(dependence.groups.values())
        kind = draw.random()
        if kind < 0.4 or len(groups) < 3:
            group = dependence.new()
            plain.graph.add_node(group.index)
            reads = draw.sample(groups, min(len(groups), draw.randrange(3)))
        else:
            group = draw.choice(groups)
            reads = draw.sample(groups, draw.randrange(1, 3))
        if kind < 0.6 or len(groups) < 3:
            bits = sum(g.bit for g in reads if g is not group)
            others = [g for g in reads if g is not group]
            cycle = dependence.would_cycle([group], bits)
            assert cycle == plain.would_cycle([group], others)
            if not cycle:
                dependence.read(group, bits)
                plain.graph.add_edges_from((group.index, g.index) for g in others)
                done["read"] += 1
        elif kind < 0.85:
            other = draw.choice(groups)
            if other is not group:
                cycle = dependence.would_cycle([group, other], 0)
                assert cycle == plain.would_cycle([group, other], [])
                done["refused" if cycle else "merge"] += 1
                if not cycle:
                    dependence.merge(group, other)
                    plain.merge(group, other)
        else:
            single = [g for g in groups if len(dependence.of(g.readers)) == 1]
            if single:
                group = draw.choice(single)
                readers = dependence.of(group.readers)
                dependence.absorb(group, readers[0])
                below = list(plain.graph.successors(group.index))
                plain.graph.remove_node(group.index)
                plain.graph.add_edges_from((readers[0].index, g) for g in below)
                done["absorb"] += 1
        check(dependence, plain)
    assert all(done.values()), done
