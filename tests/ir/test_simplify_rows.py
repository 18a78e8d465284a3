"""Every row of `simplify`: it fires where its law says, not where it must not, and keeps the results."""

import numpy as np
import pytest
from ir_support import assert_same_bits, example_arrays, graph_of, run_graph

import graphtorch
from graphtorch.ir.passes import DeadCodeElimination, Simplify
from graphtorch.ir.passes.rows import TABLE
from graphtorch.ir.rewrite import EXACT, EXTREMES
from graphtorch.ir.verifier import verify

X = "(%x: f32[3, 4] argument)"
I = "(%x: i32[3, 4] argument)"  # noqa: E741
XY = "(%x: f32[3, 4] argument, %y: f32[3, 4] argument)"

# (row, inputs, nodes, the operators that remain)
FIRES = [
    ("add-zero", I, ["%0 = add(%x, 0)"], ""),
    ("add-zero", I, ["%0 = add(%x, 0.0)"], "cast"),
    ("add-zero", X, ["%0 = add(%x, -0.0)"], ""),
    ("add-zero", X, ["%0 = exp(%x)", "%1 = add(0, %0)"], "exp"),
    ("add-zero", X, ["%0 = mul(%x, %x)", "%1 = add(%0, %0)", "%2 = add(%1, 0.0)"], "mul add"),
    ("add-zero", I, ["%0 = full((2, 3, 4), 0, dtype=i32, device=@cpu)", "%1 = add(%x, %0)"], "expand"),
    ("sub-zero", X, ["%0 = sub(%x, 0)"], ""),
    ("sub-self", I, ["%0 = sub(%x, %x)"], "full"),
    ("add-neg", XY, ["%0 = neg(%y)", "%1 = add(%x, %0)"], "sub"),
    ("add-neg", XY, ["%0 = neg(%y)", "%1 = add(%x, %0, alpha=3)"], "sub"),
    ("add-neg", XY, ["%0 = neg(%x)", "%1 = add(%0, %y)"], "sub"),
    ("sub-neg", XY, ["%0 = neg(%y)", "%1 = sub(%x, %0)"], "add"),
    ("mul-one", X, ["%0 = mul(%x, 1)"], ""),
    ("mul-one", I, ["%0 = mul(1.0, %x)"], "cast"),
    ("mul-one", X, ["%0 = full((4,), 1, dtype=f32, device=@cpu)", "%1 = mul(%x, %0)"], ""),
    ("mul-zero", I, ["%0 = mul(%x, 0)"], "full"),
    ("mul-minus-one", X, ["%0 = mul(%x, -1)"], "neg"),
    ("div-one", X, ["%0 = div(%x, 1)"], ""),
    ("div-one", I, ["%0 = div(%x, 1)"], "cast"),
    ("div-power-of-two", X, ["%0 = div(%x, -8)"], "mul"),
    ("div-power-of-two", X, ["%0 = div(%x, 0.25)"], "mul"),
    ("pow-small", X, ["%0 = pow(%x, 2)"], "mul"),
    ("pow-small", X, ["%0 = pow(%x, 1.0)"], ""),
    ("pow-small", X, ["%0 = pow(%x, 0)"], "full"),
    ("pow-small", I, ["%0 = pow(%x, 2)"], "mul"),
    ("pow-product", X, ["%0 = pow(%x, 3)"], "mul mul"),
    ("pow-product", X, ["%0 = pow(%x, -1)"], "reciprocal"),
    ("neg-neg", X, ["%0 = neg(%x)", "%1 = neg(%0)"], ""),
    ("not-not", "(%x: bool[5] argument)", ["%0 = logical_not(%x)", "%1 = logical_not(%0)"], ""),
    ("not-not", I, ["%0 = bitwise_not(%x)", "%1 = bitwise_not(%0)"], ""),
    ("abs-neg", X, ["%0 = neg(%x)", "%1 = abs(%0)"], "abs"),
    ("idempotent", X, ["%0 = floor(%x)", "%1 = floor(%0)"], "floor"),
    ("idempotent", X, ["%0 = abs(%x)", "%1 = abs(%0)"], "abs"),
    ("self-pair", X, ["%0 = maximum(%x, %x)"], ""),
    ("where-same", "(%c: bool[4] argument, %x: f32[3, 4] argument)", ["%0 = where(%c, %x, %x)"], ""),
    (
        "where-same",
        X,
        ["%0 = full((2, 1, 1), False, dtype=bool, device=@cpu)", "%1 = where(%0, 2.0, %x)"],
        "expand",
    ),
    ("where-same", X, ["%0 = full((4,), True, dtype=bool, device=@cpu)", "%1 = where(%0, 2.0, %x)"], "full"),
    ("clone-unneeded", X, ["%0 = clone(%x)", "%1 = exp(%0)"], "exp"),
    ("cast-same", X, ["%0 = cast(%x, dtype=f32)"], ""),
    ("cast-cast", X, ["%0 = cast(%x, dtype=f64)", "%1 = cast(%0, dtype=f32)"], ""),
    ("cast-cast", X, ["%0 = cast(%x, dtype=f64)", "%1 = cast(%0, dtype=bf16)"], "cast"),
    ("cast-cast", "(%x: u8[9] argument)", ["%0 = cast(%x, dtype=f32)", "%1 = cast(%0, dtype=i16)"], "cast"),
    ("cast-cast", "(%x: i8[9] argument)", ["%0 = cast(%x, dtype=i64)", "%1 = cast(%0, dtype=u8)"], "cast"),
    ("cast-cast", "(%x: bool[5] argument)", ["%0 = cast(%x, dtype=f16)", "%1 = cast(%0, dtype=i64)"], "cast"),
    ("permute-identity", X, ["%0 = permute(%x, dims=(0, 1))"], ""),
    ("permute-identity", "(%x: f32[5] argument)", ["%0 = t(%x)"], ""),
    ("permute-permute", X, ["%0 = t(%x)", "%1 = transpose(%0, dim0=0, dim1=1)"], ""),
    (
        "permute-permute",
        "(%x: f32[2, 3, 4] argument)",
        ["%0 = permute(%x, dims=(2, 0, 1))", "%1 = transpose(%0, dim0=0, dim1=1)"],
        "permute",
    ),
    ("view-identity", X, ["%0 = view(%x, size=(3, -1))"], ""),
    ("view-view", X, ["%0 = view(%x, size=(2, 6))", "%1 = unsqueeze(%0, dim=0)"], "view"),
    ("view-view", X, ["%0 = unsqueeze(%x, dim=1)", "%1 = squeeze(%0, dim=(1,))"], ""),
    ("expand-identity", X, ["%0 = expand(%x, size=(-1, 4))"], ""),
    (
        "expand-expand",
        "(%x: f32[3, 1] argument)",
        ["%0 = expand(%x, size=(3, 4))", "%1 = expand(%0, size=(2, 3, 4))"],
        "expand",
    ),
    ("slice-identity", X, ["%0 = slice(%x, dim=1, start=0, end=9)"], ""),
    (
        "slice-slice",
        "(%x: f32[20] argument)",
        ["%0 = slice(%x, start=1, end=18, step=3)", "%1 = slice(%0, start=1, end=6, step=2)"],
        "slice",
    ),
    (
        "slice-slice",
        "(%x: f32[20] argument)",
        ["%0 = slice(%x, start=1, end=18, step=3)", "%1 = slice(%0, start=2, end=2)"],
        "slice",
    ),
    ("select-unsqueeze", X, ["%0 = unsqueeze(%x, dim=1)", "%1 = select(%0, dim=1, index=0)"], ""),
    (
        "select-slice",
        X,
        ["%0 = slice(%x, dim=1, start=1, end=4, step=2)", "%1 = select(%0, dim=1, index=-1)"],
        "select",
    ),
    ("flip-flip", X, ["%0 = flip(%x, dims=(0, 1))", "%1 = flip(%0, dims=(1,))"], "flip"),
    ("flip-flip", X, ["%0 = flip(%x, dims=(1,))", "%1 = flip(%0, dims=(1,))"], ""),
    ("cat-one", X, ["%0 = cat((%x,))", "%1 = exp(%0)"], "exp"),
    (
        "transpose-of-product",
        "(%a: f32[3, 4] argument, %b: f32[4, 5] argument)",
        ["%0 = mm(%a, %b)", "%1 = t(%0)"],
        "permute permute mm",
    ),
    ("sum-of-one", "(%x: f32[3, 1] argument)", ["%0 = sum(%x, dim=(1,))"], "view add"),
    ("sum-of-one", "(%x: i32[1, 3] argument)", ["%0 = sum(%x, dim=(0,), keepdim=True)"], "cast"),
    ("reduction-of-one", "(%x: f32[3, 1] argument)", ["%0 = amax(%x, dim=(1,))"], "view"),
    (
        "sum-of-expand",
        "(%x: f32[3, 1] argument)",
        ["%0 = expand(%x, size=(2, 3, 4))", "%1 = sum(%0, dim=(0, 1, 2))"],
        "view sum mul view",
    ),
    (
        "sum-of-expand",
        "(%x: i32[3, 1] argument)",
        ["%0 = expand(%x, size=(2, 3, 4))", "%1 = sum(%0, dim=(2,))"],
        "cast view mul expand view",
    ),
    (
        "extremum-of-expand",
        "(%x: f32[3, 1] argument)",
        ["%0 = expand(%x, size=(3, 4))", "%1 = amax(%0, dim=(1,), keepdim=True)"],
        "",
    ),
    ("log-of-softmax", X, ["%0 = softmax(%x, dim=1)", "%1 = log(%0)"], "log_softmax"),
]

# (inputs, nodes): what must stay as it is.
STAYS = [
    (X, ["%0 = add(%x, 0)"]),  # -0.0 + 0 is 0.0
    (X, ["%0 = add(%x, 0.0)"]),
    (X, ["%0 = sub(%x, -0.0)"]),
    (X, ["%0 = sub(%x, %x)"]),  # inf - inf
    (X, ["%0 = mul(%x, 0)"]),  # 0 * nan
    (XY, ["%0 = add(%x, %y, alpha=0)"]),
    (X, ["%0 = div(%x, 3)"]),
    (X, ["%0 = div(%x, 2, rounding_mode=\"floor\")"]),
    (X, [f"%0 = div(%x, {2.0**-140!r})"]),  # the divisor is subnormal in float32
    (X, ["%0 = div(%x, %x)"]),
    (X, ["%0 = pow(%x, 0.5)"]),  # pow(-inf, 0.5) is inf
    (I, ["%0 = pow(%x, 2.0)"]),
    ("(%x: c64[3] argument)", ["%0 = mul(%x, 1)"]),
    (X, ["%0 = cast(%x, dtype=f16)", "%1 = cast(%0, dtype=f32)"]),
    (X, ["%0 = cast(%x, dtype=f64)", "%1 = cast(%0, dtype=i32)"]),
    ("(%x: i64[3] argument)", ["%0 = cast(%x, dtype=f64)", "%1 = cast(%0, dtype=i64)"]),
    ("(%x: u8[3] argument)", ["%0 = cast(%x, dtype=f32)", "%1 = cast(%0, dtype=i8)"]),
    ("(%x: u8[3] argument)", ["%0 = neg(%x)", "%1 = abs(%0)"]),
    ("(%x: f32[3] argument)", ["%0 = logical_not(%x)", "%1 = logical_not(%0)"]),
    (X, ["%0 = clone(%x)"]),
    (X, ["%0 = t(%x)", '%1 = clone(%0, memory_format="contiguous_format")', "%2 = view(%1, size=(12,))"]),
    (X, ["%0 = round(%x, decimals=2)", "%1 = round(%0, decimals=1)"]),
    (X, ["%0 = slice(%x, dim=0, start=1, end=3)", "%1 = slice(%0, dim=1, start=1, end=3)"]),
    (X, ["%0 = unsqueeze(%x, dim=1)", "%1 = select(%0, dim=0, index=0)"]),
    ("(%x: f16[1] argument)", ["%0 = expand(%x, size=(100001,))", "%1 = sum(%0, dim=(0,))"]),
    ("(%x: f32[0, 1] argument)", ["%0 = expand(%x, size=(0, 0))", "%1 = sum(%0, dim=(1,))"]),
    (X, ["%0 = softmax(%x, dim=1)", "%1 = log(%0)"]),
]


def make(signature, nodes):
    return graph_of(signature, *nodes, returns=f"y={nodes[-1].split(' ')[0]}")


def missing_operator(nodes):
    names = [line.split("= ")[1].split("(")[0] for line in nodes]
    return [name for name in names if name not in graphtorch.ops.REGISTRY]


@pytest.mark.parametrize(("name", "signature", "nodes", "remaining"), FIRES)
def test_row_fires_and_keeps_the_result(name, signature, nodes, remaining):
    row = TABLE.rows[name]
    graph = make(signature, nodes)
    text = str(graph)
    log = []
    simplified = Simplify(extremes=row.exactness == EXTREMES).run(graph, log)
    verify(simplified)
    assert name in [firing.row for firing in log]
    assert str(graph) == text, "the input was changed"
    simplified = DeadCodeElimination().run(simplified)
    # An output that would be the input itself becomes a clone, unless it was a view of it before.
    remains = [n.op.name for n in simplified.nodes if n.origin != "an output of its own"]
    assert remains == remaining.split()
    for seed in range(4):
        arrays = example_arrays(graph, special=row.exactness == EXACT, seed=seed)
        (before,), (after,) = run_graph(graph, arrays), run_graph(simplified, arrays)
        if row.exactness == EXACT:
            assert_same_bits(before, after)
        else:
            assert before.dtype == after.dtype and before.shape == after.shape
            np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("signature", "nodes"), STAYS)
def test_no_row_fires_where_results_would_differ(signature, nodes):
    graph = make(signature, nodes)
    log = []
    assert Simplify().run(graph, log) is graph
    assert log == []


def test_every_row_has_an_example():
    assert {name for name, *_ in FIRES} == set(TABLE.rows)


def test_every_row_is_about_known_operators():
    for row in TABLE.rows.values():
        for operator in row.operators:
            assert operator in graphtorch.ops.REGISTRY, f"{row.name}: {operator}"


def test_only_exact_rows_without_rounding():
    graph = make(X, ["%0 = pow(%x, 3)", "%1 = neg(%0)", "%2 = neg(%1)"])
    log = []
    Simplify(rounding=False).run(graph, log)
    assert [f.row for f in log] == ["neg-neg"]


def test_firings_say_where():
    graph = graph_of(X, '%0 = pow(%x, 2)  # train.py:7 in net "y = x ** 2"', returns="y=%0")
    log = []
    simplified = Simplify().run(graph, log)
    assert str(log[0]) == "simplify: pow-small on pow at train.py:7"
    (node,) = simplified.nodes
    assert node.location.text == "y = x ** 2" and node.origin == "pow-small"
