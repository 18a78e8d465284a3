"""Products with neighbours in them: which kernels they take in, and that values stay what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from programs import arrays, close, f32, i64, mlp_step, trace

import graphtorch
from graphtorch.ir.graph import Graph
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.nn import functional as F
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.triton.backend import InterpretedBackend, TritonExecutable
from graphtorch.lowering.triton.compiler import compile_all, compile_one, disassemble, resources
from graphtorch.lowering.triton.fused import FusedCall
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.placement import Coordinate, pieces_of
from graphtorch.lowering.triton.shapes import Config, candidates, fit, parts
from graphtorch.lowering.triton.templates import describable, generate_call, product_candidates
from graphtorch.lowering.triton.tiling import Limits

TOLERANCE = {"float16": 6e-3, "bfloat16": 6e-2, "float32": 3e-5, "float64": 1e-12, "int64": 0}
SMALL = Limits(pointwise=256, persistent=8, rows=16, looped=16)


def typed(kind: str, *shape: Any) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def run(
    graph: Graph, inputs: list[Any], tolerance: float = 3e-5, limits: Limits | None = None, donations: Any = None
) -> TritonExecutable:
    """Run a graph on copies of the inputs and compare with the reference."""
    expected = interpret(graph, [np.array(x) if isinstance(x, np.ndarray) else x for x in inputs])
    executable = InterpretedBackend(limits).compile(graph, donations)
    mine = [np.array(x) if isinstance(x, np.ndarray) else x for x in inputs]
    for actual, wanted in zip(executable.run(mine), expected, strict=True):
        scale = max(float(np.max(np.abs(wanted.astype(np.float64)), initial=1.0)), 1.0)
        close(actual, wanted, tolerance, tolerance * scale)
    (program,) = executable._programs.values()
    assert not program.launches.unsupported
    return executable


def launches(executable: TritonExecutable) -> int:
    (program,) = executable._programs.values()
    return len(program.launches.launches)


# -- digits ----------------------------------------------------------------------------------------------------------


def coordinates(*sizes: Any) -> list[Coordinate]:
    steps = [1]
    for size in reversed(sizes[1:]):
        steps.insert(0, steps[0] * size)
    return [Coordinate(f"c{i}", n, s, "") for i, (n, s) in enumerate(zip(sizes, steps, strict=True))]


@pytest.mark.parametrize(
    ("axes", "sizes"),
    [
        ([(24, 1)], (4, 6)),
        ([(4, 6), (6, 1)], (4, 6)),
        ([(6, 1), (4, 6)], (4, 6)),
        ([(2, 12), (3, 4), (4, 1)], (6, 4)),
        ([(2, 12), (12, 1)], (8, 3)),
        ([(2, 30), (5, 6), (6, 1)], (2, 5, 6)),
        ([(1, 7), (60, 1)], (2, 30)),
    ],
)
def test_digits_say_where_an_axis_lies(axes: list[tuple[int, int]], sizes: tuple[int, ...]) -> None:
    pieces = pieces_of(axes, coordinates(*sizes))
    assert pieces is not None
    for flat in range(int(np.prod(sizes))):
        index = np.unravel_index(flat, sizes)
        found = [sum(int(index[p.coordinate]) // p.divisor % p.size * p.weight for p in run) for run in pieces]
        assert found == [flat // stride % size for size, stride in axes]
        assert all(int(index[p.coordinate]) // p.divisor < p.size for run in pieces for p in run if p.top)


@pytest.mark.parametrize(
    ("axes", "sizes"),
    [([(4, 6), (6, 2)], (4, 6)), ([(3, 8), (8, 1)], (4, 6)), ([(4, 6)], (4, 6)), ([(4, 0), (6, 1)], (4, 6))],
)
def test_no_digits_where_points_are_no_elements(axes: list[tuple[int, int]], sizes: tuple[int, ...]) -> None:
    assert pieces_of(axes, coordinates(*sizes)) is None


# -- epilogues --------------------------------------------------------------------------------------------------------


def linear(x: Any, w: Any, b: Any, r: Any) -> Any:
    return F.gelu(F.linear(x, w, b)) + r


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16", "float64"])
@pytest.mark.parametrize(("rows", "inside", "outside"), [((2, 9), 20, 33), ((1, 1), 1, 1), ((2, 16), 32, 64)])
@pytest.mark.parametrize("limits", [None, SMALL])
def test_linear_with_bias_activation_and_residual_is_one_launch(
    kind: str, rows: tuple[int, ...], inside: int, outside: int, limits: Limits | None
) -> None:
    shapes = [(*rows, inside), (outside, inside), (outside,), (*rows, outside)]
    graph = trace(linear, *(typed(kind, *s) for s in shapes))
    executable = run(graph, arrays(graph), TOLERANCE[kind], limits)
    assert launches(executable) == 1
    assert any("computed on the tiles of mm" in line for line in executable.schedule.report)


def test_epilogue_of_symbolic_sizes() -> None:
    rows, width = symbol("rows", hint=19), symbol("width", hint=21)
    graph = trace(linear, f32(2, rows, 20), f32(width, 20), f32(width), f32(2, rows, width))
    for values in ({"rows": 19, "width": 21}, {"rows": 2, "width": 64}):
        executable = run(graph, arrays(graph, bindings=values), limits=SMALL)
        assert launches(executable) == 1


def test_batched_product_with_transposed_result() -> None:
    graph = trace(
        lambda x, y, z: ((x @ y).transpose(1, 2) * 2 + z, (x @ y).sum()), f32(3, 5, 18), f32(3, 18, 7), f32(3, 7, 5)
    )
    executable = run(graph, arrays(graph), limits=SMALL)
    assert any("computed on the tiles of bmm" in line for line in executable.schedule.report)


@pytest.mark.parametrize("kind", ["int64", "float32"])
def test_heads_are_split_and_merged_on_the_way(kind: str) -> None:
    def program(x: Any, w: Any, y: Any) -> Any:
        return ((x @ w).view(2, 6, 4, 5).transpose(1, 2) * y).contiguous()

    graph = trace(program, typed(kind, 12, 9), typed(kind, 9, 20), typed(kind, 2, 4, 6, 5))
    assert launches(run(graph, arrays(graph), TOLERANCE[kind], SMALL)) == 1


def test_result_that_is_read_elsewhere_is_stored_too() -> None:
    graph = trace(lambda x, y: ((x @ y).tanh(), x @ y, (x @ y).sum(0)), f32(20, 6), f32(6, 18))
    run(graph, arrays(graph), limits=SMALL)


def test_random_numbers_and_folds_stay_correct_beside_products() -> None:
    def program(x: Any, w: Any, g: Any) -> Any:
        made = x @ w
        return graphtorch.softmax(made, -1), (made * g).sum(0), made.amax(1) + 1

    graph = trace(program, f32(21, 6), f32(6, 17), f32(21, 17))
    run(graph, arrays(graph), limits=SMALL)


@pytest.mark.parametrize("limits", [None, SMALL])
def test_training_step_updates_in_epilogues(limits: Limits | None) -> None:
    graph, donations = mlp_step(9, 40, 20, 4)
    executable = run(graph, arrays(graph), 1e-4, limits, donations)
    calls = [s for s in executable.schedule.steps if isinstance(s, FusedCall)]
    written = {b.name for c in calls for b in c.writes()}
    assert {"p0", "p2"} <= written  # the weights' updates
    assert any("where" in line and "on the tiles of mm" in line for line in executable.schedule.report)


def test_siblings_go_to_the_product_that_they_follow() -> None:
    graph = trace(lambda x, y: ((x @ y).exp() + 1, (y @ x).exp() + 1), f32(18, 18), f32(18, 18))
    assert launches(run(graph, arrays(graph), 1e-4, SMALL)) == 2


def test_update_that_moves_much_memory_runs_by_itself() -> None:
    """A product's programs are few: what waits for memory has more of them."""

    def program(p: Any, m: Any, v: Any, x: Any, g: Any) -> Any:
        slope = x.t() @ g
        m = m * 0.9 + slope * 0.1
        v = v * 0.99 + slope * slope * 0.01
        return p - 0.1 * m / (v.abs().sqrt() + 0.1), m, v

    graph = trace(program, *[f32(18, 20)] * 3, f32(33, 18), f32(33, 20))
    executable = run(graph, arrays(graph), 1e-4, SMALL, {0: 0, 1: 1, 2: 2})
    assert any("bytes for each element" in line for line in executable.schedule.report)


def test_operand_that_would_be_overwritten_is_left_alone() -> None:
    graph = trace(lambda p, x: (p - 0.5 * (p @ x),), f32(18, 18), f32(18, 18))
    executable = run(graph, arrays(graph), 1e-4, SMALL, {0: 0})
    assert any("overwrites an operand" in line for line in executable.schedule.report)


def test_dropout_in_the_epilogue_draws_the_same_numbers() -> None:
    """As without the product in front: random numbers belong to elements, not to launches."""

    def masked(x: Any, w: Any) -> Any:
        return F.dropout(x @ w, 0.25) + 1

    def plain(x: Any, w: Any) -> Any:
        return F.dropout(graphtorch.ones(40, 33), 0.25)

    made = []
    for program in (masked, plain):
        graphtorch.manual_seed(5)
        graph = trace(program, f32(40, 6), f32(6, 33))
        executable = InterpretedBackend(SMALL).compile(graph)
        made.append(executable.run(arrays(graph))[0])
        assert launches(executable) == 1
    np.testing.assert_array_equal(made[0] != 1, made[1] != 0)


# -- operands computed where they are loaded --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("limits", [None, SMALL])
def test_cheap_operand_is_computed_in_the_product(kind: str, limits: Limits | None) -> None:
    def program(x: Any, s: Any, w: Any, y: Any) -> Any:
        return (x * s + 1).relu() @ w, x.t() @ (y - 2)

    graph = trace(program, typed(kind, 33, 21), typed(kind, 21), typed(kind, 21, 17), typed(kind, 33, 18))
    executable = run(graph, arrays(graph), TOLERANCE[kind], limits)
    assert launches(executable) == 2
    assert sum("loads it" in line for line in executable.schedule.report) == 2


def test_operand_with_epilogue_of_symbolic_sizes() -> None:
    rows = symbol("rows", hint=19)
    graph = trace(lambda x, w, b: ((x * 2) @ w + b).relu(), f32(rows, 20), f32(20, 18), f32(18))
    executable = run(graph, arrays(graph, bindings={"rows": 19}), limits=SMALL)
    assert launches(executable) == 1


# -- convolutions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize(("groups", "stride"), [(1, 1), (2, 2)])
def test_convolution_with_bias_residual_and_gradients(kind: str, groups: int, stride: int) -> None:
    def program(x: Any, w: Any, b: Any, r: Any, s: Any) -> Any:
        return (F.conv2d(x * s.view(1, -1, 1, 1), w, b, stride, 1, groups=groups) + r).relu()

    size = 7 if stride == 1 else 4
    channels = 2 * groups
    shapes = [(2, channels, 7, 7), (6, 2, 3, 3), (6,), (2, 6, size, size), (channels,)]
    graph = trace(program, *(typed(kind, *s) for s in shapes))
    executable = run(graph, arrays(graph), TOLERANCE[kind], SMALL)
    assert launches(executable) <= 2
    assert any("on the tiles of conv2d" in line for line in executable.schedule.report)


# -- split sums -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_long_sum_is_split_in_two_launches(kind: str) -> None:
    def program(x: Any, w: Any, b: Any) -> Any:
        return (x @ w + b).relu()

    graph = trace(program, typed(kind, 5, 2100), typed(kind, 2100, 19), typed(kind, 19))
    executable = run(graph, arrays(graph), TOLERANCE[kind] * 4)
    assert launches(executable) == 2
    assert any("split into 4 parts" in line for line in executable.schedule.report)
    graph = trace(lambda x, y: x.transpose(1, 2) @ y, typed(kind, 2, 5200, 3), typed(kind, 2, 5200, 5))
    assert launches(run(graph, arrays(graph), TOLERANCE[kind] * 4)) == 2


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_sum_over_a_symbolic_batch_is_split(kind: str) -> None:
    """A weight's gradient: as many parts as the captured batch asks for, of which smaller batches leave some empty."""
    rows = symbol("rows", hint=4096)
    graph = trace(
        lambda x, g, w: w - 0.1 * (x.t() @ g), typed(kind, rows, 32), typed(kind, rows, 16), typed(kind, 32, 16)
    )
    for limits in (None, SMALL):
        executable = InterpretedBackend(limits).compile(graph)
        assert any("is split into" in line for line in executable.schedule.report)
        for count in (700, 65, 1):
            given = arrays(graph, bindings={"rows": count})
            x, g, w = (a.astype(np.float64) for a in given)
            (found,) = executable.run([np.array(a) for a in given])
            wanted = w - 0.1 * (x.T @ g)
            scale = TOLERANCE[kind] * max(float(np.abs(wanted).max()), 1.0)
            np.testing.assert_allclose(found.astype(np.float64), wanted, TOLERANCE[kind], scale)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_product_of_few_symbolic_rows_is_split(kind: str) -> None:
    """A skinny product: as many parts as the captured number of rows asks for."""
    rows = symbol("rows", hint=5)

    def program(x: Any, w: Any, b: Any) -> Any:
        return (x @ w + b).relu()

    graph = trace(program, typed(kind, rows, 2100), typed(kind, 2100, 19), typed(kind, 19))
    for limits in (None, SMALL):
        executable = InterpretedBackend(limits).compile(graph)
        assert any("is split into" in line for line in executable.schedule.report)
        for count in (5, 1, 37):
            x, w, b = given = arrays(graph, bindings={"rows": count})
            (found,) = executable.run([np.array(a) for a in given])
            wanted = np.maximum(x.astype(np.float64) @ w.astype(np.float64) + b.astype(np.float64), 0)
            scale = 4 * TOLERANCE[kind] * max(float(np.abs(wanted).max()), 1.0)
            np.testing.assert_allclose(found.astype(np.float64), wanted, 4 * TOLERANCE[kind], scale)


def test_sums_over_a_symbolic_batch_compile() -> None:
    rows = symbol("rows", hint=8192)
    graph = trace(lambda x, g: x.t() @ g, typed("bfloat16", rows, 768), typed("bfloat16", rows, 768))
    plan = plan_for(build_schedule(graph))
    assert len(plan.launches) == 2
    for target in ("sm_80", "sm_90", "sm_100", "gfx942"):
        made = compile_all([s.function for s in plan.launches], target)
        if target != "gfx942":
            assert all(resources(c).stack == 0 for c in made)


def test_gradient_of_a_convolution_kernel_is_split() -> None:
    from graphtorch.ops.convolution import conv2d_weight_grad

    def program(x: Any, g: Any) -> Any:
        made = conv2d_weight_grad(x, g, (3, 2, 3, 3), (1, 1), (1, 1), (1, 1), 1)
        return made * 2

    graph = trace(program, f32(16, 2, 16, 16), f32(16, 3, 16, 16))
    executable = run(graph, arrays(graph), 2e-4)
    assert any("is split into" in line for line in executable.schedule.report)


def test_parts_only_where_blocks_are_few() -> None:
    assert parts(4096, 4096, 4096, 1, dtypes.bfloat16) == 1
    assert parts(16, 16, 65536, 1, dtypes.bfloat16) == 32
    assert parts(16, 16, 65536, 256, dtypes.bfloat16) == 1
    assert parts(16, 16, 512, 1, dtypes.float32) == 1
    assert parts(16, 16, 65536, 1, dtypes.int64) == 1
    # 144 blocks of 128 by 128 would take two multiprocessors' time on a device of 132.
    assert parts(768, 3072, 32768, 1, dtypes.bfloat16) > 1


# -- configurations ---------------------------------------------------------------------------------------------------


def product(graph: Graph) -> Any:
    (step,) = build_schedule(graph).steps
    return step


def matmul_graph(m: int, n: int, k: int, kind: str = "bfloat16", turned: bool = False) -> Graph:
    if turned:
        return trace(lambda x, y: x.t() @ y.t(), typed(kind, k, m), typed(kind, n, k))
    return trace(lambda x, y: x @ y, typed(kind, m, k), typed(kind, k, n))


def test_candidates_begin_with_the_default_and_differ() -> None:
    for shape in [(4096, 4096, 4096), (16, 4096, 4096), (1, 1, 1)]:
        for kind in ("bfloat16", "float32"):
            found = product_candidates(product(matmul_graph(*shape, kind)), {})
            assert found[0] == fit(*shape, getattr(dtypes, kind))
            assert len(set(found)) == len(found)
            assert all(c.block_m <= max(16, 2 * shape[0]) for c in found)
    assert any(c.descriptors and c.programs for c in product_candidates(product(matmul_graph(4096, 4096, 4096)), {}))
    assert len(candidates(64, 64, 64, dtypes.float64)) == 1


@pytest.mark.parametrize("turned", [False, True])
def test_descriptor_and_persistent_forms_give_the_product(turned: bool) -> None:
    from graphtorch.lowering.triton.interpreter import interpret as run_triton

    graph = matmul_graph(40, 24, 48, "float32", turned)
    call = product(graph)
    assert describable(call, {})
    inputs = arrays(graph)
    (expected,) = interpret(graph, inputs)
    for config in (
        Config(16, 16, 16, descriptors=True),
        Config(16, 16, 16, programs=3),
        Config(16, 16, 16, programs=3, descriptors=True),
        Config(16, 16, 16, programs=3, descriptors=True, specialized=True),
    ):
        (function,) = generate_call(call, {}, None, config)
        out = np.full((40, 24), np.nan, np.float32)
        where = {"x0": inputs[0], "x1": inputs[1]}
        addresses = [where.get(b.name, out).ctypes.data for b in function.buffers]
        integers = [size for _, size in function.integers]
        grid = function.grid({})
        assert grid[0] == (3 if config.programs else 6)
        signature = function.signature()
        run_triton(function.source, function.name, signature, [*addresses, *integers], function.constants, grid)
        close(out, expected, 1e-5, 1e-5)


def test_descriptors_need_aligned_rows() -> None:
    assert not describable(product(matmul_graph(40, 24, 44)), {})
    assert describable(product(matmul_graph(40, 24, 48)), {})


# -- machine code -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def test_fused_products_compile_for_every_target() -> None:
    half = "bfloat16"
    graph = trace(linear, *(typed(half, *s) for s in [(8, 256, 512), (1024, 512), (1024,), (8, 256, 1024)]))
    (launch,) = plan_for(build_schedule(graph)).launches
    assert launch.function.constants["BLOCK_M"] * launch.function.constants["BLOCK_N"] == 128 * 128
    expected = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma"}
    for to, instruction in expected.items():
        compiled = compile_one(launch.function, to)
        assert instruction in compiled.assembly
        if to.startswith("sm_"):
            assert resources(compiled).stack == 0
            assert "ld.global.v4" in compiled.assembly and "st.global.v4" in compiled.assembly


def test_split_and_computed_operands_compile() -> None:
    def program(x: Any, w: Any, y: Any) -> Any:
        return (x * 2) @ w + 1, F.conv2d(y, w.view(64, 32, 2, 2)).relu()

    graph = trace(program, typed("bfloat16", 64, 4096), typed("bfloat16", 4096, 2), typed("bfloat16", 2, 32, 9, 9))
    made = [s.function for s in plan_for(build_schedule(graph)).launches]
    for compiled in compile_all(made, "sm_90"):
        assert resources(compiled).stack == 0
    compile_all(made, "gfx942")


def test_descriptors_copy_through_the_tensor_memory_accelerator() -> None:
    call = product(matmul_graph(4096, 4096, 4096))
    wanted = next(c for c in product_candidates(call, {}) if c.descriptors and c.programs)
    (function,) = generate_call(call, {}, None, wanted)
    compiled = compile_one(function, "sm_90")
    assert "cp.async.bulk.tensor" in compiled.assembly and "wgmma.mma_async" in compiled.assembly
    assert compiled.global_scratch > 0  # where the descriptors lie
    assert resources(compiled).stack == 0
    assert "cp.async.bulk.tensor" in compile_one(function, "sm_100").assembly


def test_specialized_warps_copy_while_others_compute() -> None:
    call = product(matmul_graph(4096, 4096, 4096))
    wanted = [c for c in product_candidates(call, {}) if c.specialized]
    assert wanted
    for config in wanted:
        (function,) = generate_call(call, {}, None, config)
        compiled = compile_one(function, "sm_90")
        assert "setmaxnreg" in compiled.assembly and "wgmma.mma_async" in compiled.assembly
        assert compiled.threads == 12 * 32  # four that copy, twice four that compute: what a launch must start
        assert resources(compiled).stack == 0


def test_candidates_compile_without_spills() -> None:
    call = product(matmul_graph(4096, 4096, 4096))
    made = [generate_call(call, {}, None, c)[0] for c in product_candidates(call, {})]
    for compiled, config in zip(compile_all(made, "sm_90"), product_candidates(call, {}), strict=True):
        assert resources(compiled).stack == 0, str(config)


# -- precision --------------------------------------------------------------------------------------------------------


@pytest.fixture
def exact() -> Any:
    """The settings as they were."""
    from graphtorch.tensor.precision import settings

    kept = settings.matmul, settings.convolution
    yield settings
    settings.matmul, settings.convolution = kept


def test_tf32_on_request(exact: Any) -> None:
    matmul = matmul_graph(256, 256, 256, "float32")
    image = trace(lambda x, w: F.conv2d(x, w), f32(2, 16, 18, 18), f32(32, 16, 3, 3))
    found: dict[tuple[str, bool], str] = {}
    for allowed in (False, True):
        graphtorch.backends.cuda.matmul.allow_tf32 = allowed
        graphtorch.backends.cudnn.allow_tf32 = allowed
        assert graphtorch.get_float32_matmul_precision() == ("high" if allowed else "highest")
        for name, graph in (("matmul", matmul), ("image", image)):
            functions = [s.function for s in plan_for(build_schedule(graph)).launches]
            for compiled in compile_all(functions, "sm_90"):
                assert resources(compiled).stack == 0
                found[name, allowed] = compiled.assembly
    assert all(("tf32" in text) is allowed for (_, allowed), text in found.items())


def test_precision_is_part_of_what_a_compiled_function_assumes(exact: Any) -> None:
    from graphtorch.lowering.backend import _BACKENDS, register

    backend = register(InterpretedBackend(SMALL))
    try:
        step = graphtorch.compile(lambda x: x @ x, backend=backend.name)
        x = graphtorch.randn(4, 4)
        step(x)
        graphtorch.set_float32_matmul_precision("high")
        step(x)
        graphtorch.set_float32_matmul_precision("highest")
        step(x)
    finally:
        _BACKENDS.pop(backend.name)
    assert len(step.specializations) == 2
    assert "settings" in step.specializations[1].reason


def test_unused_types_are_refused_quietly() -> None:
    graph = trace(lambda x, y: (x @ y).to(dtypes.int64) + 1, f32(5, 6), f32(6, 7))
    run(graph, arrays(graph))
    graph = trace(lambda x, y: x @ y % 3, i64(5, 6), i64(6, 7))
    run(graph, arrays(graph), 0)


def test_what_moves_much_runs_beside_another_program() -> None:
    """A residual in float32 takes as long as a short sum: two programs fit on a multiprocessor."""
    shapes = [("bfloat16", (32768, 768)), ("bfloat16", (768, 768)), ("bfloat16", (768,)), ("float32", (32768, 768))]
    graph = trace(lambda x, w, b, r: F.linear(x, w, b) + r, *(typed(kind, *s) for kind, s in shapes))
    (launch,) = plan_for(build_schedule(graph)).launches
    compiled = compile_one(launch.function, "sm_90")
    assert 2 * resources(compiled).registers * compiled.threads <= 65536 and 2 * compiled.shared <= 227 * 1024


@pytest.mark.parametrize("to", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("turned", [False, True])
def test_full_precision_reads_little_shared_memory(to: str, turned: bool) -> None:
    """Eight by eight sums a thread: some ten products for each load of sixteen bytes, and no spills."""
    (launch,) = plan_for(build_schedule(matmul_graph(4096, 4096, 4096, "float32", turned))).launches
    compiled = compile_one(launch.function, to)
    assert resources(compiled).stack == 0
    sass = disassemble(compiled)
    assert sass.count("FFMA") > 9 * sass.count("LDS")
    assert "STL" not in sass and "LDL" not in sass


@pytest.mark.parametrize("to", ["sm_80", "sm_90"])
def test_full_precision_with_an_epilogue_spills_nothing(to: str) -> None:
    def run(x: Any, w: Any, b: Any, r: Any) -> Any:
        return (x @ w + b).tanh() * r

    types = [TensorType(dtypes.float32, s) for s in ((4096, 1024), (1024, 4096), (4096,), (4096, 4096))]
    (launch,) = plan_for(build_schedule(trace(run, *types))).launches
    compiled = compile_one(launch.function, to)
    assert resources(compiled).stack == 0
