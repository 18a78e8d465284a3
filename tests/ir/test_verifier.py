"""The verifier: a list of broken graphs with the exact message for each, and what it accepts."""

import pytest

from graphtorch.ir.graph import Graph, Node, Value
from graphtorch.ir.parser import parse_graph
from graphtorch.ir.passes import PassPipeline
from graphtorch.ir.verifier import VerificationError, verify
from graphtorch.ops.record import Operator, lookup
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import SymbolScope, symbol
from graphtorch.tensor.type import TensorType

TEXT = """graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
  %0: f32[2, 3] = add(%x, %y)  # train.py:3
  %1: f32[2, 3] = mul(%0, 2.0)
  %2: f32[3, 2] = permute(%1, dims=(1, 0))
  return a=%2, b=%0
}
"""


def with_argument(graph, index, position, value):
    """Replace one argument of a node, which no pass may do to a node of a graph."""
    node = graph.nodes[index]
    node.args = (*node.args[:position], value, *node.args[position + 1 :])


def swap(graph):
    graph.nodes[0], graph.nodes[1] = graph.nodes[1], graph.nodes[0]


def use_foreign_input(graph):
    with_argument(graph, 1, 0, Value(TensorType(dtypes.float32, (2, 3)), "z"))


def use_foreign_node(graph):
    other = parse_graph(TEXT)
    with_argument(graph, 1, 0, other.nodes[0].result)


def give_a_wrong_type(graph):
    graph.nodes[1].result.type = TensorType(dtypes.float64, (2, 3))


def give_a_wrong_shape(graph):
    graph.inputs[1].type = TensorType(dtypes.float32, (4,))


def list_a_node_twice(graph):
    graph.nodes.append(graph.nodes[0])


def take_a_foreign_result(graph):
    graph.nodes[1].results = (graph.nodes[0].result,)


def make_an_unregistered_operator(graph):
    op = lookup("mul")
    fake = Operator("mul", op.parameters, op.results, op.type_rule, op.numpy)
    graph.nodes[1].op = fake


def drop_an_argument(graph):
    graph.nodes[1].args = graph.nodes[1].args[:1]


def drop_an_output_name(graph):
    graph.output_names.pop()


def output_a_foreign_value(graph):
    graph.outputs[1] = Value(TensorType(dtypes.float32, ()), "z")


def output_a_constant(graph):
    graph.outputs[1] = 3


def name_inputs_alike(graph):
    graph.inputs[1].name = "x"


def list_an_input_twice(graph):
    graph.inputs[1] = graph.inputs[0]


def make_an_input_of_a_result(graph):
    graph.inputs[1] = graph.nodes[0].result


def drop_an_input_kind(graph):
    graph.input_kinds.pop()


def make_a_number_of_a_matrix(graph):
    graph.inputs[1].type = TensorType(dtypes.float32, (3,), is_number=True)


def disagree_on_a_symbol(graph):
    graph.inputs[0].type = TensorType(dtypes.float32, (symbol("n"), 3))
    graph.inputs[1].type = TensorType(dtypes.float32, (symbol("n", lower=5),))


BROKEN = [
    (
        swap,
        """\
broken graph 'g': mul: operand 'input' is %0, which is defined later
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
>   %1: f32[2, 3] = mul(%0, 2.0)
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %2: f32[3, 2] = permute(%1, dims=(1, 0))""",
    ),
    (
        use_foreign_input,
        """\
broken graph 'g': mul: operand 'input' is %?z, which is no input of this graph
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %1: f32[2, 3] = mul(%?z, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        use_foreign_node,
        """\
broken graph 'g': mul: operand 'input' is %?0, a result of a node (add) that is not in this graph
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %1: f32[2, 3] = mul(%?0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        give_a_wrong_type,
        """\
broken graph 'g': mul: %1 has type f64[2, 3], the type rule gives f32[2, 3]
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %1: f64[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        give_a_wrong_shape,
        """\
broken graph 'g': add: the type rule refuses: The size of tensor a (3) must match the size of tensor b (4) at \
non-singleton dimension 1
  graph g(%x: f32[2, 3] argument, %y: f32[4] argument) {
>   %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))""",
    ),
    (
        list_a_node_twice,
        """\
broken graph 'g': the node of %0 is in the graph twice
    %1: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
>   %0: f32[2, 3] = add(%x, %y)  # train.py:3
    return a=%2, b=%0
  }""",
    ),
    (
        take_a_foreign_result,
        """\
broken graph 'g': mul: result %0 does not point back to its node
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %0: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%?1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        make_an_unregistered_operator,
        """\
broken graph 'g': mul: the operator is not registered
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %1: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        drop_an_argument,
        """\
broken graph 'g': mul: 1 arguments for mul(Tensor|Number input, Tensor|Number other)
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %1: f32[2, 3] = mul(%0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        lambda graph: with_argument(graph, 1, 1, "two"),
        """\
broken graph 'g': mul: argument 'other' is "two", expected a value or a number
  graph g(%x: f32[2, 3] argument, %y: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
>   %1: f32[2, 3] = mul(%0, "two")
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
    return a=%2, b=%0""",
    ),
    (
        lambda graph: with_argument(graph, 2, 1, [1, 0]),
        """\
broken graph 'g': permute: argument 'dims' is [1, 0], expected a tuple, each an int
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)
>   %2: f32[3, 2] = permute(%1, dims=[1, 0])
    return a=%2, b=%0
  }""",
    ),
    (
        lambda graph: with_argument(graph, 2, 0, None),
        """\
broken graph 'g': permute: argument 'input' is None, expected a value
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)
>   %2: f32[3, 2] = permute(None, dims=(1, 0))
    return a=%2, b=%0
  }""",
    ),
    (
        drop_an_output_name,
        """\
broken graph 'g': 2 outputs have 1 names
    %1: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
>   return a=%2
  }""",
    ),
    (
        output_a_foreign_value,
        """\
broken graph 'g': the output 'b' is %?z, which is no input of this graph
    %1: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
>   return a=%2, b=%?z
  }""",
    ),
    (
        output_a_constant,
        """\
broken graph 'g': the output 'b' is 3, not a value
    %1: f32[2, 3] = mul(%0, 2.0)
    %2: f32[3, 2] = permute(%1, dims=(1, 0))
>   return a=%2, b=3
  }""",
    ),
    (
        name_inputs_alike,
        """\
broken graph 'g': two inputs have the name 'x'
> graph g(%x: f32[2, 3] argument, %x_1: f32[3] argument) {
    %0: f32[2, 3] = add(%x, %x_1)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)""",
    ),
    (
        list_an_input_twice,
        """\
broken graph 'g': the input %x is listed twice
> graph g(%x: f32[2, 3] argument, %x: f32[2, 3] argument) {
    %0: f32[2, 3] = add(%x, %?y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)""",
    ),
    (
        make_an_input_of_a_result,
        """\
broken graph 'g': the input %0 is the result of a node (add)
> graph g(%x: f32[2, 3] argument, %0: f32[2, 3] argument) {
    %0: f32[2, 3] = add(%x, %?y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)""",
    ),
    (
        drop_an_input_kind,
        """\
broken graph 'g': 2 inputs have 1 kinds
> graph g(%x: f32[2, 3] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)""",
    ),
    (
        make_a_number_of_a_matrix,
        """\
broken graph 'g': the number %y has type f32[3] number; a number is f64[], c128[], i64[] or bool[]
> graph g(%x: f32[2, 3] argument, %y: f32[3] number argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)""",
    ),
    (
        disagree_on_a_symbol,
        """\
broken graph 'g': the symbol n is at least 2 in one place and 5 in another
> graph g[n >= 2](%x: f32[n, 3] argument, %y: f32[n] argument) {
    %0: f32[2, 3] = add(%x, %y)  # train.py:3
    %1: f32[2, 3] = mul(%0, 2.0)""",
    ),
]


@pytest.mark.parametrize(("breaks", "message"), BROKEN)
def test_broken_graphs(breaks, message):
    graph = parse_graph(TEXT)
    verify(graph)
    breaks(graph)
    with pytest.raises(VerificationError) as caught:
        verify(graph)
    assert str(caught.value) == message


def test_the_pass_is_named():
    graph = parse_graph(TEXT)
    swap(graph)
    with pytest.raises(VerificationError, match=r"^broken graph 'g' after pass 'dce': mul: operand 'input' is %0"):
        verify(graph, after="pass 'dce'")


def test_a_pipeline_verifies_when_asked(monkeypatch):
    graph = parse_graph(TEXT)
    swap(graph)
    monkeypatch.delenv("GRAPHTORCH_VERIFY", raising=False)
    PassPipeline.parse("cse").run(graph)
    with pytest.raises(VerificationError):
        PassPipeline.parse("cse", check=True).run(graph)
    monkeypatch.setenv("GRAPHTORCH_VERIFY", "1")
    with pytest.raises(VerificationError):
        PassPipeline.parse("cse").run(graph)


def test_run_time_numbers_are_numbers():
    graph = Graph()
    x = graph.add_input(TensorType(dtypes.float32, (2,)), "x")
    lr = graph.add_input(TensorType(dtypes.float64, (), is_number=True), "lr", "number")
    graph.add(lookup("add"), (x, x, lr))
    verify(graph)


def test_verification_records_no_guards():
    scope = SymbolScope()
    n, m = scope.symbol(4), scope.symbol(4)
    graph = Graph()
    x = graph.add_input(TensorType(dtypes.float32, (n,)), "x")
    y = graph.add_input(TensorType(dtypes.float32, (m,)), "y")
    (z,) = graph.add(lookup("add"), (x, y, 1))
    graph.add_output(z)
    recorded = list(scope.guards)
    assert recorded  # the type rule asked whether the sizes agree
    scope.guards.clear()
    scope._decided.clear()
    verify(graph)
    assert scope.guards == []


def test_several_results_point_back():
    graph = Graph()
    x = graph.add_input(TensorType(dtypes.float32, (2, 3)), "x")
    node = Node(lookup("add"), (x, x, 1), [x.type, x.type])
    graph.nodes.append(node)
    with pytest.raises(VerificationError, match="2 results, the type rule gives 1"):
        verify(graph)
