"""JSON, Graphviz and networkx forms of graphs. Round trips through JSON are tested beside those through text."""

import json
import subprocess
import sys

import pytest

from graphtorch.ir.equality import graph_equal
from graphtorch.ir.export import from_json, to_dot, to_json
from graphtorch.ir.networkx_view import (
    INPUTS,
    OUTPUTS,
    cycle,
    immediate_dominators,
    immediate_post_dominators,
    to_networkx,
)
from graphtorch.ir.parser import parse_graph

TEXT = """graph g[n >= 2 ~ 8](%x: f32[n, 3] argument, %lr: f64[] number number) {
  %0: f32[n, 3] = mul(%x, %lr)  # train.py:3 in net "y = x * lr"
  %1: f32[n, 3] = exp(%0)
  %2: f32[n, 3] = sin(%0)
  %3: f32[n, 3] = add(%1, %2, alpha=inf)
  %4: f32[n, 3] = full((n, 3), 1, dtype=f32, device=@cpu)
  return y=%3, same=%3
}
"""


def test_json():
    graph = parse_graph(TEXT)
    document = json.loads(to_json(graph))
    assert document["format"] == "graphtorch graph" and document["version"] == 1
    assert document["symbols"] == {"n": {"lower": 2, "hint": 8}}
    assert document["inputs"][1] == {
        "name": "lr",
        "kind": "number",
        "type": {"dtype": "float64", "shape": [], "device": "cpu", "number": True},
    }
    assert document["nodes"][0] == {
        "operator": "mul",
        "arguments": {"input": {"value": "x"}, "other": {"value": "lr"}},
        "results": [{"name": "0", "type": {"dtype": "float32", "shape": ["n", 3], "device": "cpu", "number": False}}],
        "location": {"file": "train.py", "line": 3, "text": "y = x * lr", "module": "net"},
    }
    assert document["nodes"][3]["arguments"]["alpha"] == {"float": "inf"}
    assert document["outputs"][0] == {"name": "y", "value": "3"}
    assert graph_equal(from_json(to_json(graph, indent=2)), graph)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "not a graphtorch graph"),
        (lambda d: d.update(version=2), "version 2 of the format; this program reads 1"),
        (lambda d: d["nodes"].reverse(), "the value '1' is used before it is defined"),
        (lambda d: d["inputs"].append(d["inputs"][0]), "two values have the name 'x'"),
        (lambda d: d["nodes"][3]["arguments"].update(alpha={"odd": 1}), "unknown kind of constant 'odd'"),
    ],
)
def test_malformed_json(change, message):
    document = json.loads(to_json(parse_graph(TEXT)))
    change(document)
    with pytest.raises(ValueError) as caught:
        from_json(json.dumps(document))
    assert str(caught.value) == message


def test_dot():
    lines = to_dot(parse_graph(TEXT)).splitlines()
    assert lines[0] == 'digraph "g" {' and lines[-1] == "}"
    assert '  in0 [label="%x: f32[n, 3]\\nargument"' not in lines
    assert any(line.startswith('  in0 [label="%x\\nf32[n, 3]\\nargument"') for line in lines)
    assert '  node0 -> node1 [label="%0: f32[n, 3]"];' in lines
    assert '  node3 -> out0 [label="%3: f32[n, 3]"];' in lines
    assert lines.count('  node3 -> out0 [label="%3: f32[n, 3]"];') == 1
    assert any('tooltip="mul(%x, %lr)\\ntrain.py:3"' in line for line in lines)


def test_networkx():
    graph = parse_graph(TEXT)
    mul, exp, sin, add, full = graph.nodes
    found = to_networkx(graph)
    assert set(found.nodes) == {INPUTS, OUTPUTS, *graph.nodes}
    assert found.nodes[mul] == {"operator": "mul", "label": "%0 = mul"}
    assert found.edges[INPUTS, mul]["values"] == tuple(graph.inputs)
    assert found.edges[mul, exp]["values"] == (mul.result,)
    assert found.edges[add, OUTPUTS]["values"] == (add.result,)
    assert found.edges[INPUTS, full]["values"] == found.edges[full, OUTPUTS]["values"] == ()
    assert immediate_dominators(graph) == {mul: INPUTS, exp: mul, sin: mul, add: mul, full: INPUTS, OUTPUTS: INPUTS}
    assert immediate_post_dominators(graph) == {
        INPUTS: OUTPUTS,
        mul: add,
        exp: add,
        sin: add,
        add: OUTPUTS,
        full: OUTPUTS,
    }


def test_cycles():
    graph = parse_graph(TEXT)
    assert cycle(graph) == []
    mul, exp, *_ = graph.nodes
    mul.args, mul._operands = (exp.result, mul.args[1]), None  # no public way makes a cycle
    assert set(cycle(graph)) == {mul, exp}


def test_networkx_loads_on_first_use():
    code = "import graphtorch.ir.networkx_view, sys; assert 'networkx' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
