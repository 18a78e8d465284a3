"""Compilation for GPUs on a machine without one: every form of kernel, what came out, the cache, the limits."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from programs import f32, i64, mlp_step, trace

import graphtorch
from graphtorch.ir.graph import Graph
from graphtorch.ops.record import REGISTRY
from graphtorch.ops.testing import Sampler
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from test_interpreted import KERNELS, graph_of_call

from graphtorch.lowering import cache
from graphtorch.lowering.triton import compiler
from graphtorch.lowering.triton.codegen import Generated, without_comments
from graphtorch.lowering.triton.compiler import TARGETS, Compiled, compile_all, compile_one, resources
from graphtorch.lowering.triton.errors import ResourceError
from graphtorch.lowering.triton.listing import list_schedule, plan_for


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def half(*shape: Any) -> TensorType:
    return TensorType(dtypes.bfloat16, shape)


def functions(graph: Graph, donations: dict[int, int] | None = None) -> list[Generated]:
    plan = plan_for(build_schedule(graph, donations))
    assert not plan.unsupported
    return [launch.function for launch in plan.launches]


def pointwise() -> Graph:
    return trace(lambda x, y: ((x * 2 + y).tanh() * x).sigmoid(), f32(1024, 1024), f32(1024))


def softmax() -> Graph:
    return trace(lambda x: graphtorch.softmax(x, -1), half(512, 1000))


def long_rows() -> Graph:
    return trace(lambda x: (graphtorch.softmax(x, -1), x.argmax(-1)), f32(512, 32000))


def columns() -> Graph:
    return trace(lambda x: (x.sum(0), x.amax(0)), f32(4096, 768))


def matmul() -> Graph:
    return trace(lambda x, y: x @ y, half(2048, 1024), half(1024, 2048))


@pytest.mark.parametrize("to", TARGETS)
def test_compiles_for_every_target(to: str) -> None:
    wanted = [f for make in (pointwise, softmax, long_rows, columns, matmul) for f in functions(make())]
    for compiled in compile_all(wanted, to):
        assert compiled.binary.startswith(b"\x7fELF")
        assert compiled.assembly
        assert compiled.global_scratch == 0
        used = resources(compiled)
        assert used.stack == used.spilled == 0 < used.registers, f"{compiled.name} spills"


@pytest.mark.parametrize("to", TARGETS)
def test_arrays_on_the_stack_are_no_spilled_registers(to: str) -> None:
    """A Bessel function's cosine keeps the digits of a large argument in an array."""
    (function,) = functions(trace(graphtorch.special.bessel_j0, TensorType(dtypes.float64, (1024,))))
    used = resources(compile_one(function, to))
    assert used.spilled == 0 and (used.stack > 0 or to == "gfx942")


def global_accesses(compiled: Compiled) -> set[str]:
    return set(re.findall(r"\b(?:ld|st)\.global[.\w]*", compiled.assembly))


@pytest.mark.parametrize("make", [pointwise, softmax, columns])
def test_loads_and_stores_are_sixteen_bytes_wide(make: Callable[[], Graph]) -> None:
    for compiled in compile_all(functions(make())):
        wide = {a for a in global_accesses(compiled) if "v4.b32" in a or "v2.b64" in a}
        assert any(a.startswith("ld") for a in wide), (compiled.name, global_accesses(compiled))


def test_products_run_on_tensor_cores() -> None:
    (function,) = functions(matmul())
    expected = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma", "gfx942": "v_mfma"}
    for to, instruction in expected.items():
        assert instruction in compile_one(function, to).assembly


def test_symbolic_sizes_are_arguments() -> None:
    rows, width = symbol("rows", hint=48), symbol("width", hint=1000)
    (function,) = functions(trace(lambda x: graphtorch.softmax(x * 2, -1), f32(rows, width)))
    assert {"size_rows", "size_width"} >= {name for name, _ in function.integers}
    assert "size_rows" not in function.hints() or 48 % 16 == 0
    assert "size_width" not in function.hints()
    assert compile_one(function).binary


def test_training_step_compiles() -> None:
    graph, donations = mlp_step(64, 784, 128, 10)
    for compiled in compile_all(functions(graph, donations)):
        assert resources(compiled).stack == 0


@pytest.mark.parametrize("kind", ["bool_", "uint8", "int8", "int16", "int32", "int64", "float16", "float64"])
def test_every_dtype_compiles(kind: str) -> None:
    d = getattr(dtypes, kind)

    def program(x: Any) -> Any:
        made = [x.sum(1), x.prod(1), x.amax(1), x.amin(1), x.any(1), x.all(1), x == x.flip(0), x.float(), x.bool()]
        if d is not dtypes.bool_:
            made += [x.argmax(1), x.argmin(1), x.abs() * 3 - x, x % 3, x // 3, graphtorch.where(x > 2, x, -x)]
        return made

    compile_all([f.function for f in plan_for(build_schedule(trace(program, f32(8, 40).with_dtype(d)))).launches])


@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_every_function_compiles(kind: str, early: bool) -> None:
    names = "exp expm1 log log1p log2 sqrt rsqrt reciprocal sin cos tan asin acos atan sinh cosh tanh erf sigmoid floor"
    names += " ceil round trunc isnan isinf isfinite sign"

    def program(x: Any, y: Any) -> Any:
        made = [getattr(graphtorch, name)(x) for name in names.split()]
        two = [graphtorch.fmod, graphtorch.remainder, graphtorch.floor_divide, graphtorch.atan2, graphtorch.pow]
        return [*made, *(f(x, y) for f in (*two, graphtorch.maximum, graphtorch.minimum))]

    t = f32(64).with_dtype(getattr(dtypes, kind))
    graph = trace(program, t, t)
    for to in ("sm_90",) if early else ("sm_90", "gfx942"):
        compile_all(functions(graph), to)


def test_integer_powers_and_divisions_compile() -> None:
    graph = trace(lambda x, y: (x**y, x // y, x % y, graphtorch.fmod(x, y), x & y, ~x), i64(64), i64(64))
    compile_all(functions(graph))


def test_every_primitive_compiles() -> None:
    """The interpreter accepts what the compiler's type rules do not."""
    wanted: dict[str, Generated] = {}
    for name in KERNELS:
        op = REGISTRY[name]
        if op.scalar is None:
            continue
        kind = "float32" if "f" in op.categories else "int64" if "i" in op.categories else "bool_"
        assert op.samples is not None
        sample = next(iter(op.samples(Sampler(getattr(dtypes, kind)))))
        graph, _ = graph_of_call(op.function, sample.args, sample.kwargs)
        for launch in plan_for(build_schedule(graph)).launches:
            wanted.setdefault(without_comments(launch.function.source), launch.function)
    assert len(wanted) > 40
    compile_all(wanted.values())


def test_integer_powers_broadcast() -> None:
    graph = trace(lambda x, y: (x**2, 2**y, x**y), i64(6), i64())
    compile_all(functions(graph))


def test_convolutions_and_pooling_compile() -> None:
    def program(x: Any, w: Any) -> Any:
        made = graphtorch.nn.functional.conv2d(x, w, None, 2, 3).relu()
        return graphtorch.nn.functional.max_pool2d(made, 3, 2, 1), graphtorch.nn.functional.avg_pool2d(made, 2)

    for type_ in (f32, half):
        for compiled in compile_all(functions(trace(program, type_(4, 3, 32, 32), type_(16, 3, 7, 7)))):
            assert resources(compiled).stack == 0


def test_moves_of_elements_compile() -> None:
    def program(x: Any, y: Any, at: Any) -> Any:
        made = [graphtorch.cat((x, y), 1), x.flip(0), graphtorch.nn.functional.pad(x, (1, 2)), x.gather(1, at)]
        made += [x.index_select(0, at[0]), graphtorch.embedding(x, at), x.scatter_add(1, at, y)]
        return [*made, x.cumsum(1), at.cumsum(0)]

    compile_all(functions(trace(program, f32(64, 32), f32(64, 32), i64(64, 32))))


def test_sixty_four_bit_indices_compile() -> None:
    def program(x: Any) -> Any:
        return x * 2, x.t() + 1, x.sum(1), x.argmax(1), graphtorch.softmax(x, 0), x[:, :16] @ x[:16, :16]

    made = functions(trace(program, f32(2**21, 4096)))
    assert sum(f.wide for f in made) >= 5
    for compiled in compile_all(made):
        assert resources(compiled).stack == 0


# -- the cache --------------------------------------------------------------------------------------------------------


def entries() -> list[Path]:
    folder = cache.folder("triton")
    assert folder is not None
    return sorted(p for p in folder.rglob("*") if p.is_file())


def test_second_compile_is_read_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    (function,) = functions(pointwise())
    first = compile_one(function)
    assert len(entries()) == 1
    monkeypatch.setattr(compiler, "_compile", lambda *_: pytest.fail("compiled again"))
    assert compile_one(function) == first
    # Comments are not part of what is compiled.
    assert compile_one(replace(function, source=function.source.replace("train.py:12", "other.py:3"))) == first


def test_what_the_code_depends_on_is_in_the_key() -> None:
    (function,) = functions(pointwise())
    variants = [
        function,
        replace(function, source=function.source.replace("2.0", "3.0")),
        replace(function, constants={"X_BLOCK": 512}),
        replace(function, num_warps=8),
        replace(function, num_stages=3),
        replace(function, wide=True, integers=(("n", 3),)),
        replace(function, integers=(("n", 16),), divisible=frozenset(["n"])),
    ]
    keys = {compiler.cache_key(f, t) for f in variants for t in TARGETS.values()}
    assert len(keys) == len(variants) * len(TARGETS)


@pytest.mark.parametrize("damage", [lambda b: b[:-10], lambda b: b[:40] + b"x" + b[41:], lambda b: b""])
def test_damaged_entry_is_compiled_again(damage: Callable[[bytes], bytes]) -> None:
    (function,) = functions(softmax())
    first = compile_one(function)
    (entry,) = entries()
    whole = entry.read_bytes()
    entry.write_bytes(damage(whole))
    assert compile_one(function) == first
    assert entries() == [entry]
    assert entry.read_bytes()[:32] != damage(whole)[:32] or entry.read_bytes() == whole


def test_cache_that_cannot_be_written_only_costs_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(blocked))
    assert compile_one(functions(pointwise())[0]).binary


def test_no_cache_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", "")
    assert cache.folder("triton") is None
    assert compile_one(functions(pointwise())[0]).binary


def test_warm_start_imports_no_triton() -> None:
    """Source generation, and what is in the cache, need Triton's name only."""
    (function,) = functions(pointwise())
    compile_one(function)
    code = """
import sys
from programs import f32, trace
from graphtorch.schedule import build_schedule
from graphtorch.lowering.triton.compiler import compile_all
from graphtorch.lowering.triton.listing import plan_for
graph = trace(lambda x, y: ((x * 2 + y).tanh() * x).sigmoid(), f32(1024, 1024), f32(1024))
plan = plan_for(build_schedule(graph))
assert compile_all([s.function for s in plan.launches])[0].binary
assert "triton" not in sys.modules and "torch" not in sys.modules, "imported"
"""
    folder = Path(__file__).resolve().parent.parent
    subprocess.run(
        [sys.executable, "-c", code], check=True, env={**_environment(), "PYTHONPATH": f"{folder}:{folder.parents[1]}"}
    )


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)


# -- limits -----------------------------------------------------------------------------------------------------------


def test_too_much_of_something_is_an_error() -> None:
    (function,) = functions(pointwise())
    compiled = compile_one(function)
    with pytest.raises(ResourceError, match="needs 300000 bytes of shared memory, sm_90 has 232448"):
        compiler.check_resources(replace(compiled, shared=300000))
    with pytest.raises(ResourceError, match="needs 2048 threads a program, sm_90 has 1024"):
        compiler.check_resources(replace(compiled, num_warps=64))


def test_buffers_of_products_shrink_to_the_target() -> None:
    (function,) = functions(matmul())
    assert compile_one(function, "gfx942").shared <= 64 * 1024 < compile_one(function, "sm_90").shared


def test_unknown_target() -> None:
    with pytest.raises(ValueError, match="unknown target 'sm_1'; known are sm_80"):
        compile_one(functions(pointwise())[0], "sm_1")


# -- listings ---------------------------------------------------------------------------------------------------------


def test_listings_of_a_step() -> None:
    graph, donations = mlp_step(8, 12, 6, 4)
    schedule = build_schedule(graph, donations)
    text = list_schedule(schedule)
    assert "@triton.jit" in text and "train.py:12" in text
    assert ".target sm_90" in list_schedule(schedule, "ptx")
    assert "amdgcn" in list_schedule(schedule, "ptx", "gfx942")
    assert "EXIT" in list_schedule(schedule, "sass")
    with pytest.raises(ValueError, match="no SASS for gfx942"):
        list_schedule(schedule, "sass", "gfx942")
    with pytest.raises(ValueError, match="unknown stage"):
        list_schedule(schedule, "cubin")


def test_equal_kernels_are_listed_and_compiled_once() -> None:
    graph = trace(lambda x, y: ((x @ y).exp() + 1, (y @ x).exp() + 1), f32(6, 6), f32(6, 6))
    schedule = build_schedule(graph)
    assert "the text of c0" in list_schedule(schedule)
    plan = plan_for(schedule)
    compile_all([s.function for s in plan.launches])
    assert len(entries()) < len(plan.launches)
