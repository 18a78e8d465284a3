"""The text of graphs: golden forms, round trips of everything a graph can hold, messages for text that is no graph."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_support import graph_from_samples

import graphtorch
from graphtorch.ir.equality import first_difference, graph_equal, same_constant
from graphtorch.ir.export import from_json, to_json
from graphtorch.ir.graph import Graph, Location
from graphtorch.ir.parser import ParseError, parse_graph
from graphtorch.ir.printer import print_graph
from graphtorch.ir.verifier import verify
from graphtorch.ops.build import operator
from graphtorch.ops.record import REGISTRY, lookup
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU, device
from graphtorch.tensor.symint import SymbolScope
from graphtorch.tensor.type import TensorType

F32 = dtypes.float32


def assert_round_trip(graph):
    text = print_graph(graph)
    again = parse_graph(text)
    assert first_difference(graph, again) is None, text
    assert print_graph(again) == text
    document = to_json(graph)
    again = from_json(document)
    assert first_difference(graph, again) is None
    assert print_graph(again) == text


TEXT = '''\
graph step[s0 >= 2 ~ 64](
  %x: f32[s0, 784] argument,
  %fc1.weight: f32[784, 784] parameter,
  %lr: f64[] number number,
) {
  %0: f32[s0, 784] = add(%x, 1.5)  # train.py:21 in fc1 "h = x + 1.5"
  %scaled: f32[s0, 784] = mul(%0, %lr)
  %1: f32[2*s0, 784] = cat((%0, %scaled))  # "/home/me/my code/a.py":3 from "backward of exp"
  %2: f32[(s0 + 1)//2, 784] = slice(%1, end=s0, step=4)
  return loss=%0, new fc1.weight=%fc1.weight
}
'''


def test_text():
    graph = parse_graph(TEXT)
    assert print_graph(graph) == TEXT
    assert str(graph) == TEXT
    assert_round_trip(graph)
    assert graph.inputs[2].is_number and graph.input_kinds == ["argument", "parameter", "number"]
    first, _, third, _ = graph.nodes
    assert first.location == Location("train.py", 21, "h = x + 1.5", "fc1")
    assert third.location.file == "/home/me/my code/a.py" and third.origin == "backward of exp"
    assert graph.symbols["s0"].lower == 2 and graph.symbols["s0"].hint == 64
    assert graph.output_names == ["loss", "new fc1.weight"]


def test_short_and_empty():
    graph = parse_graph("graph g() { return }")
    assert print_graph(graph) == "graph g() {\n  return\n}\n"
    assert_round_trip(graph)


def test_types_can_be_left_out():
    graph = parse_graph("graph g(%x: f32[2, 3] argument) { %y = transpose(%x, dim0=0, dim1=-1) return y=%y }")
    assert str(graph.outputs[0].type) == "f32[3, 2]"
    assert graph.nodes[0].args[1:] == (0, 1)  # normalised
    verify(graph)


def test_comments_are_skipped_unless_they_are_provenance():
    text = """# a graph
    graph g(%x: f32[2] argument) {  # the header
      # %9 = a line that is commented out
      %0: f32[2] = add(%x, 1)  # adds one
      return y=%0
    }
    # the end
    """
    graph = parse_graph(text)
    assert graph.nodes[0].location == Location() and len(graph.nodes) == 1


def test_provenance_can_be_left_out():
    graph = parse_graph(TEXT)
    assert "train.py" not in print_graph(graph, provenance=False)
    again = parse_graph(print_graph(graph, provenance=False))
    assert not graph_equal(graph, again)
    assert graph_equal(graph, again, provenance=False)


@pytest.mark.parametrize(
    "constant",
    [
        None,
        True,
        0,
        -7,
        10**30,
        0.0,
        -0.0,
        1.5,
        -1e-320,
        1e300,
        math.inf,
        -math.inf,
        math.nan,
        -math.nan,
        struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000ABC))[0],
        complex(1, -0.0),
        complex(math.nan, -math.inf),
        "text",
        'quotes " and \\ and \n and # and ü and \u2028',
        "",
        (),
        (1,),
        (1, -2, 3),
        ((1, 2), (3,)),
        [1, 2],
        [],
        dtypes.bfloat16,
        dtypes.bool_,
        CPU,
        device("cuda", 1),
        slice(None, 3, -1),
        Ellipsis,
        {"a": 1, "b": (2.0, None)},
    ],
    ids=repr,
)
def test_constants(constant, holder):
    graph = Graph("g")
    x = graph.add_input(TensorType(F32, (2,)), "x")
    graph.add(holder, (x, constant))
    graph.add(holder, (x, (constant, constant)))
    graph.add_output(graph.nodes[0].result)
    assert_round_trip(graph)


@pytest.fixture
def holder():
    """An operator that takes anything as an attribute."""
    operator("holds(Tensor input, any thing=7)", type=lambda input, thing: input.type, numpy=lambda input, thing: input)
    yield REGISTRY["holds"]
    del REGISTRY["holds"], graphtorch.ops.FUNCTIONS["holds"]
    del graphtorch.Tensor.holds


def test_symbolic_attributes(holder):
    scope = SymbolScope()
    n, m = scope.symbol(8), scope.symbol(5, lower=4, name="m")
    graph = Graph("g")
    x = graph.add_input(TensorType(F32, (n, 2 * m + 1, n // 2)), "x")
    for size in (n, -n, (n + 1) // 2, (n * m) % 3, 3 * (n // 2), n**2 * m - 4, (n, (m, (n + m) // 7))):
        graph.add(holder, (x, size))
    graph.add_output(x)
    assert_round_trip(graph)
    assert "m >= 4 ~ 5" in print_graph(graph)
    assert scope.guards == []


def test_opaque_attributes_print_and_do_not_parse(holder):
    graph = Graph("g")
    graph.add(holder, (graph.add_input(TensorType(F32, ()), "x"), object()))
    text = print_graph(graph)
    assert "thing=<object>" in text
    with pytest.raises(ParseError, match="an opaque constant, which text can't represent"):
        parse_graph(text)
    with pytest.raises(TypeError, match="no JSON form for an attribute of type object"):
        to_json(graph)


def test_arguments_follow_the_signature():
    graph = Graph("g")
    x = graph.add_input(TensorType(F32, (2, 3)), "x")
    graph.add(lookup("add"), (x, x, 1))
    graph.add(lookup("add"), (x, x, 1.0))
    b = graph.add_input(TensorType(dtypes.bool_, (2, 3)), "b")
    graph.add(lookup("add"), (b, b, True))
    graph.add(lookup("clamp"), (x, None, 2))
    graph.add(lookup("index"), (x, (None, graph.add_input(TensorType(dtypes.int64, (4,)), "i"))))
    graph.add_output(x)
    text = print_graph(graph)
    assert "add(%x, %x)\n" in text and "alpha=1.0" in text and "alpha=True" in text
    assert "clamp(%x, max=2)" in text and "index(%x, (None, %i))" in text
    assert_round_trip(graph)


def test_names_are_made_unique():
    graph = Graph("a graph")
    t = TensorType(F32, (2,), device("cuda", 0))
    a, b = graph.add_input(t, "x", "my kind"), graph.add_input(t, "weird name %")
    first, second, third = (graph.add(lookup("add"), (a, b, 1))[0] for _ in range(3))
    second.name, third.name = "0", "x"
    graph.add_output(first, "one output")
    graph.add_output(third, "odd=name")
    text = print_graph(graph)
    assert 'graph "a graph"(%x: f32[2]@cuda:0 "my kind", %"weird name %": f32[2]@cuda:0 argument) {' in text
    assert "%1: f32[2]@cuda:0 = " in text and "%0: f32[2]@cuda:0 = " in text and "%x_1: " in text
    assert 'return one output=%1, "odd=name"=%x_1' in text
    assert_round_trip(graph)


def test_long_headers_and_outputs_break_into_lines():
    graph = Graph("g")
    for i in range(6):
        graph.add_output(graph.add_input(TensorType(F32, (2,)), f"a_long_name_{i}"), f"an output with a long name {i}")
    assert max(map(len, print_graph(graph).splitlines())) < 100
    assert_round_trip(graph)


ERRORS = [
    ("grap g() { return }", 1, 1, "expected 'graph', found 'grap'"),
    ("graph g(%x f32[2] argument) { return }", 1, 12, "expected ':', found 'f32'"),
    ("graph g(%x: f33[2] argument) { return }", 1, 13, "'f33' is not a dtype; expected one of bool, u8, "),
    ("graph g(%x: f32[n] argument) { return }", 1, 17, "unknown name 'n'"),
    ("graph g(%x: f32[1.5] argument) { return }", 1, 17, "expected a size"),
    ("graph g(%x: f32[2]@tpu argument) { return }", 1, 19, "Expected one of cpu, cuda, ipu, xpu"),
    ("graph g(%x: f32[2]) { return }", 1, 19, "expected the input's kind, found ')'"),
    ("graph g(%x: f32[2] argument, %x: f32[2] argument) { return }", 1, 30, "%x is defined twice"),
    ("graph g[s0 >= 1.5]() { return }", 1, 15, "expected an integer"),
    ("graph g[f32 >= 2]() { return }", 1, 9, "not a symbol name: 'f32'"),
    ("graph g() {\n  %0 = ad(1)\n  return }", 2, 8, "unknown operator 'ad'; did you mean add"),
    ("graph g(%x: f32[2] argument) {\n  %0 = add(%y, 1)\n  return }", 2, 12, "%y is not defined before this line"),
    ("graph g(%x: f32[2] argument) {\n  %0 = add(%x)\n  return }", 2, 8, "add needs an argument 'other'"),
    ("graph g(%x: f32[2] argument) {\n  %0 = neg(%x, 1)\n  return }", 2, 16, "too many positional arguments for neg("),
    ("graph g(%x: f32[2] argument) {\n  %0 = neg(%x, a=1)\n  return }", 2, 16, "neg has no parameter 'a'"),
    ("graph g(%x: f32[2] argument) {\n  %0 = neg(%x, input=%x)\n  return }", 2, 16, "argument 'input' is given twice"),
    ("graph g(%x: f32[2] argument) {\n  %0 = add(%x, 1 + %x)\n  return }", 2, 18, "'+' is for sizes"),
    ("graph g(%x: f32[2] argument) {\n  %0 = add(%x, -%x)\n  return }", 2, 16, "only a number has a negative"),
    ("graph g(%x: f32[2] argument) {\n  %0 = add(%x, 1//0)\n  return }", 2, 17, "integer division or modulo by zero"),
    ("graph g(%x: f32[2] argument) {\n  %0, %1: f32[2] = neg(%x)\n  return }", 2, 3, "2 results with 1 types"),
    ("graph g(%x: f32[2] argument) {\n  %0 = t(%x, $)\n  return }", 2, 14, "unexpected '$'"),
    ("graph g(%x: f32[2] argument) {\n  %0 = permute(%x, dims=(0, 0))\n  return }", 2, 8, "permute: permute("),
    ("graph g(%x: f32[2] argument) { return %x }", 1, 39, "expected an output such as loss=%0, found '%x'"),
    ("graph g(%x: f32[2] argument) { return y=%z }", 1, 41, "%z is not defined before this line"),
    ("graph g() { return", 1, 19, "expected '}', found the end of the text"),
    ("graph g() { return } x", 1, 22, "expected the end of the text, found 'x'"),
]


@pytest.mark.parametrize(("text", "line", "column", "message"), ERRORS)
def test_parse_errors(text, line, column, message):
    with pytest.raises(ParseError) as caught:
        parse_graph(text)
    error = caught.value
    assert (error.line, error.column) == (line, column), error
    first, source, marker = str(error).split("\n")
    assert first.startswith(f"line {line}, column {column}: {message}")
    assert source == "  " + text.split("\n")[line - 1]
    assert marker == "  " + " " * (column - 1) + "^"


DIFFERENT = [
    ("name", lambda text: text.replace("graph step", "graph stop")),
    ("symbol", lambda text: text.replace("s0 >= 2", "s0 >= 3")),
    ("input", lambda text: text.replace("%lr", "%rate")),
    ("kind", lambda text: text.replace("argument", "buffer")),
    ("constant", lambda text: text.replace("1.5)", "2.5)")),
    ("operator", lambda text: text.replace("= mul(", "= sub(")),
    ("operand", lambda text: text.replace("mul(%0,", "mul(%x,")),
    ("type", lambda text: text.replace("%0: f32[s0", "%0: f64[s0")),
    ("location", lambda text: text.replace("train.py:21", "train.py:22")),
    ("origin", lambda text: text.replace("backward of", "forward of")),
    ("output", lambda text: text.replace("loss=%0", "loss=%scaled")),
    ("output name", lambda text: text.replace("loss=", "cost=")),
]


@pytest.mark.parametrize(("what", "change"), DIFFERENT, ids=[what for what, _ in DIFFERENT])
def test_different_graphs_are_not_equal(what, change):
    assert change(TEXT) != TEXT
    assert not graph_equal(parse_graph(TEXT), parse_graph(change(TEXT)))


def test_names_of_values_do_not_matter():
    assert graph_equal(parse_graph(TEXT), parse_graph(TEXT.replace("%scaled", "%other")))


@pytest.mark.parametrize(
    ("a", "b"), [(1, 1.0), (1, True), (0.0, -0.0), (None, 0), ((1,), [1]), ((1, 0.0), (1, -0.0)), ("a", "b")], ids=repr
)
def test_constants_that_are_not_the_same(a, b):
    assert same_constant(a, a) and same_constant(b, b) and not same_constant(a, b)


def test_nan_is_the_same_as_itself_to_the_bit():
    assert same_constant(math.nan, float("nan")) and not same_constant(math.nan, -math.nan)


# -- graphs from the operators' samples -------------------------------------------------------------------------------

SAMPLED = sorted(name for name, op in REGISTRY.items() if op.samples is not None and not op.random)


@pytest.mark.parametrize("name", SAMPLED)
def test_every_operator_round_trips_and_verifies(name):
    graph = graph_from_samples([REGISTRY[name]])
    verify(graph)
    assert_round_trip(graph)


names = st.text(max_size=8)
locations = st.builds(Location, names, st.integers(0, 10**6), names, names)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(SAMPLED), min_size=1, max_size=8),
    st.data(),
    st.integers(0, 2**32 - 1),
)
def test_random_graphs_round_trip(operators, data, seed):
    random = np.random.default_rng(seed)
    graph = graph_from_samples([REGISTRY[name] for name in operators], random)
    for i, node in enumerate(graph.nodes[:4]):
        node.location = data.draw(locations, label=f"location {i}")
        node.origin = data.draw(names, label=f"origin {i}")
        node.result.name = data.draw(names, label=f"name {i}")
    graph.name = data.draw(names, label="name")
    graph.input_kinds[:1] = [data.draw(names, label="kind")] if graph.inputs else []
    graph.output_names[:1] = [data.draw(names, label="output")] if graph.outputs else []
    verify(graph)
    assert_round_trip(graph)
