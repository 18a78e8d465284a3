"""Attention in one piece: values and gradients in Triton's interpreter, machine code, and when it is chosen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import close, trace

import graphtorch
from graphtorch.lowering.backend import _BACKENDS, register
from graphtorch.nn import functional as F
from graphtorch.ops.attention import fused_attention, fused_attention_backward
from graphtorch.schedule import build_schedule
from graphtorch.tensor import dtypes
from graphtorch.tensor.symint import symbol
from graphtorch.tensor.type import TensorType

pytest.importorskip("triton")

from graphtorch.lowering.kernel import ExternCall
from graphtorch.lowering.numpy.interpreter import interpret
from graphtorch.lowering.triton import attention
from graphtorch.lowering.triton.backend import InterpretedBackend
from graphtorch.lowering.triton.compiler import compile_all, resources
from graphtorch.lowering.triton.listing import plan_for
from graphtorch.lowering.triton.passes import prepare_schedule
from graphtorch.lowering.triton.tiling import Limits

SMALL = Limits(pointwise=256)
TOLERANCE = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 2e-5}


def typed(kind: str, *shape: Any) -> TensorType:
    return TensorType(getattr(dtypes, kind), shape)


def operands(
    kind: str, batch: int, length: int, keys: int, heads: tuple[int, int], sizes: tuple[int, int], seed: int = 0
) -> tuple[list[TensorType], list[Any]]:
    """Types and arrays of query, key and value with their heads first, as programs have them."""
    random = np.random.default_rng(seed)
    shapes = [(batch, heads[0], length, sizes[0]), (batch, heads[1], keys, sizes[0]), (batch, heads[1], keys, sizes[1])]
    types = [typed(kind, *s) for s in shapes]
    return types, [random.standard_normal(s).astype(types[0].dtype.numpy) for s in shapes]


def passes(q: Any, k: Any, v: Any, mask: Any = None, keep: Any = None, causal: bool = False, scale: float = 0.3) -> Any:
    """Forward and backward, on operands with heads first."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    result, logsumexp = fused_attention(q, k, v, mask, keep, causal, scale)
    g = result * 0.5 + 0.25
    delta = (g.float() * result.float()).sum(-1).transpose(1, 2)
    grads = fused_attention_backward(g, q, k, v, logsumexp, delta, mask, keep, causal, scale)
    return result, logsumexp, *grads


def check(
    types: list[TensorType],
    arrays: list[Any],
    kind: str,
    causal: bool = False,
    limits: Any = SMALL,
    launches: int = 3,
) -> None:
    """Every pass against NumPy. `arrays`: q, k, v, then the mask and the factors, where given."""
    names = [t.dtype.name for t in types[3:]]

    def program(*given: Any) -> Any:
        rest = list(given[3:])
        mask = rest.pop(0) if "mask" in roles else None
        keep = rest.pop(0) if "keep" in roles else None
        return passes(*given[:3], mask, keep, causal)

    roles = ["mask", "keep"] if len(names) == 2 else ["mask"] if names else []
    graph = trace(program, *types)
    expected = interpret(graph, [np.array(a) for a in arrays])
    executable = InterpretedBackend(limits).compile(graph)
    for actual, wanted in zip(executable.run(arrays), expected, strict=True):
        finite = wanted[np.isfinite(wanted)]
        scale = max(float(np.abs(finite).max(initial=0)), 1.0)
        np.testing.assert_array_equal(np.isneginf(actual), np.isneginf(wanted))
        mine, other = (np.where(np.isneginf(x), 0, x) for x in (actual, wanted))
        close(mine, other, 0, TOLERANCE[kind] * scale)
    (made,) = executable._programs.values()
    assert not made.launches.unsupported
    assert sum("attention" in s.function.name for s in made.launches.launches) == launches


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("batch", "length", "keys", "heads", "sizes"),
    [
        (2, 37, 37, (2, 2), (20, 20)),
        (1, 32, 48, (4, 2), (16, 32)),
        (1, 5, 40, (3, 1), (64, 7)),
        (2, 1, 33, (2, 2), (8, 8)),
        (1, 19, 1, (1, 1), (1, 1)),
    ],
)
def test_passes(
    kind: str, causal: bool, batch: int, length: int, keys: int, heads: tuple[int, int], sizes: tuple[int, int]
) -> None:
    check(*operands(kind, batch, length, keys, heads, sizes), kind, causal)


def test_default_blocks() -> None:
    for size in (64, 128):
        check(*operands("bfloat16", 1, 130, 150, (1, 1), (size, size)), "bfloat16", True, None)
    check(*operands("float32", 1, 70, 40, (1, 1), (256, 256)), "float32", False, None)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_masks(kind: str) -> None:
    types, arrays = operands(kind, 2, 21, 18, (4, 2), (16, 16))
    random = np.random.default_rng(1)
    seen = random.random((2, 4, 21, 18)) < 0.5
    seen[0, :, 3] = False  # a row that sees nothing
    seen[1, 2, 5, :16] = False  # one that sees nothing in its first block
    full = typed("bool_", 2, 4, 21, 18)
    check([*types, full], [*arrays, seen], kind)
    added = np.where(seen, random.standard_normal(seen.shape), -np.inf).astype(types[0].dtype.numpy)
    check([*types, full.with_dtype(types[0].dtype)], [*arrays, added], kind)
    keep = (2 * (random.random(seen.shape) < 0.5)).astype(types[0].dtype.numpy)
    check([*types, full, full.with_dtype(types[0].dtype)], [*arrays, seen, keep], kind)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    ("batch", "length", "keys", "heads", "sizes"),
    [
        (2, 37, 37, (2, 2), (24, 24)),
        (1, 32, 48, (4, 2), (16, 32)),
        (1, 5, 40, (3, 1), (64, 8)),
        (2, 1, 33, (2, 2), (8, 8)),
    ],
)
def test_blocks_through_tensor_descriptors(
    causal: bool,
    batch: int,
    length: int,
    keys: int,
    heads: tuple[int, int],
    sizes: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Forward over keys; backward over queries of each head that shares keys, and over keys. Rows beyond the ends are
    zero, where the memory behind them holds other heads."""
    shape = attention.Shape(16, 16, descriptors=True)
    monkeypatch.setattr(attention, "shapes", lambda call: (shape, shape))
    types, arrays = operands("bfloat16", batch, length, keys, heads, sizes)
    graph = trace(lambda q, k, v: passes(q, k, v, causal=causal), *types)
    made = [s.function.source for s in plan_for(build_schedule(graph)).launches if "attention" in s.function.name]
    assert [source.count("make_tensor_descriptor") for source in made] == [2, 2, 2]
    check(types, arrays, "bfloat16", causal)


def test_descriptors_need_aligned_rows() -> None:
    def calls(kind: str, size: int, program: Any = None) -> list[Any]:
        keys = (1, 2, size, 256) if program is not None else (1, 2, 256, size)
        types = [typed(kind, 1, 2, 256, size), typed(kind, *keys), typed(kind, 1, 2, 256, size)]
        steps = prepare_schedule(build_schedule(trace(program or passes, *types))).steps
        return [s for s in steps if isinstance(s, ExternCall) and "attention" in s.op.name]

    assert all(attention.describable(call, {}) for call in calls("bfloat16", 64))
    assert not any(attention.describable(call, {}) for call in calls("bfloat16", 60))
    turned = calls("bfloat16", 64, lambda q, k, v: passes(q, k.transpose(2, 3), v))
    assert not any(attention.describable(call, {}) for call in turned)
    for call in calls("bfloat16", 64):
        default, *others = attention.candidates(call, {})
        assert not any(s.descriptors for s in default)
        assert {c[0].descriptors for c in others} == {False, True}
    assert [len(attention.candidates(call, {})) for call in calls("float32", 64)] == [1, 1]


def test_symbolic_sizes() -> None:
    batch, length, keys = symbol("batch", hint=2), symbol("length", hint=21), symbol("keys", hint=18)
    types = [typed("float32", batch, 2, n, 16) for n in (length, keys, keys)]
    graph = trace(lambda q, k, v: passes(q, k, v, causal=True), *types)
    backend = InterpretedBackend(SMALL).compile(graph)
    for sizes in ((2, 21, 18), (3, 16, 32)):
        _, arrays = operands("float32", sizes[0], sizes[1], sizes[2], (2, 2), (16, 16))
        for actual, wanted in zip(backend.run(arrays), interpret(graph, arrays), strict=True):
            close(actual, wanted, 2e-5, 2e-5)
    (program, _) = backend._programs.values()
    made = [s.function for s in program.launches.launches if "attention" in s.function.name]
    assert all("size_length" in dict(f.integers) for f in made)


def backward_of(
    q: Any, k: Any, v: Any, g: Any, causal: bool = True, heads_first: bool = True, more: Any = None
) -> tuple[Any, ...]:
    """Forward and backward with a given gradient, whose deltas are a kernel of their own."""
    given = (q, k, v, g)
    if heads_first:
        given = tuple(x.transpose(1, 2) for x in given)
    q, k, v, g = given
    result, logsumexp = fused_attention(q, k, v, None, None, causal, 0.3)
    delta = (g.float() * result.float()).sum(-1).transpose(1, 2)
    if more is not None:
        delta = delta - more
    return fused_attention_backward(g, q, k, v, logsumexp, delta, None, None, causal, 0.3)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads_first", [False, True])
@pytest.mark.parametrize(("length", "size", "heads"), [(37, 24, (4, 2)), (32, 16, (2, 2)), (1, 8, (1, 1))])
def test_deltas_are_made_by_the_queries_pass(
    kind: str, heads_first: bool, length: int, size: int, heads: tuple[int, int]
) -> None:
    """Each row's sum of gradient times result: one launch less, which the launch for keys and values runs after."""
    types, arrays = operands(kind, 2, length, length, heads, (size, size))
    types.append(types[0])
    arrays.append(np.random.default_rng(5).standard_normal(types[0].shape).astype(types[0].dtype.numpy))
    if not heads_first:
        types = [t.with_shape((t.shape[0], t.shape[2], t.shape[1], t.shape[3])) for t in types]
        arrays = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in arrays]
    graph = trace(lambda *given: backward_of(*given, heads_first=heads_first), *types)
    expected = interpret(graph, arrays)
    executable = InterpretedBackend(SMALL).compile(graph)
    for actual, wanted in zip(executable.run(arrays), expected, strict=True):
        close(actual, wanted, 0, TOLERANCE[kind] * max(float(np.abs(wanted.astype(np.float32)).max()), 1.0))
    (made,) = executable._programs.values()
    names = [s.function.name for s in made.launches.launches]
    assert names == ["attention", "attention_backward_queries", "attention_backward_keys"]
    assert any("is computed in the queries' pass" in line for line in executable.schedule.report)


def test_other_deltas_are_kernels() -> None:
    """With something subtracted, and where somebody else wants them."""
    types = [typed("float32", 2, 2, 21, 16)] * 4
    _, arrays = operands("float32", 2, 21, 21, (2, 2), (16, 16))
    arrays.append(arrays[0] * 0.5)

    def subtracted(q: Any, k: Any, v: Any, g: Any) -> Any:
        return backward_of(q, k, v, g, more=q.sum(-1))

    def seen(q: Any, k: Any, v: Any, g: Any) -> Any:
        result, logsumexp = fused_attention(q, k, v, None, None, False, 0.3)
        delta = (g * result).sum(-1).transpose(1, 2)
        return *fused_attention_backward(g, q, k, v, logsumexp, delta, None, None, False, 0.3), delta

    for program in (subtracted, seen):
        graph = trace(program, *types)
        executable = InterpretedBackend(SMALL).compile(graph)
        for actual, wanted in zip(executable.run(arrays), interpret(graph, arrays), strict=True):
            close(actual, wanted, 2e-5, 2e-5)
        assert not any("is computed in the queries' pass" in line for line in executable.schedule.report)


def test_deltas_of_a_symbolic_batch() -> None:
    batch = symbol("batch", hint=2)
    types = [typed("float32", batch, 21, 2, 16)] * 4
    graph = trace(lambda *given: backward_of(*given, heads_first=False), *types)
    executable = InterpretedBackend(SMALL).compile(graph)
    for count in (2, 3):
        random = np.random.default_rng(count)
        arrays = [random.standard_normal((count, 21, 2, 16)).astype(np.float32) for _ in types]
        for actual, wanted in zip(executable.run(arrays), interpret(graph, arrays), strict=True):
            close(actual, wanted, 2e-5, 2e-5)


def test_nothing_to_attend_to() -> None:
    for length, keys, launches in ((0, 5, 1), (5, 0, 2)):
        check(*operands("float32", 1, length, keys, (2, 2), (16, 16)), "float32", launches=launches)


def test_rows_without_finite_scores_are_not_a_number() -> None:
    types, arrays = operands("float32", 1, 16, 16, (1, 1), (16, 16))
    arrays[1][0, 0, 3, 2] = np.nan
    graph = trace(lambda q, k, v: passes(q, k, v)[0], *types)
    (made,) = InterpretedBackend(SMALL).compile(graph).run(arrays)
    assert np.isnan(made).all()


# -- when it is chosen ------------------------------------------------------------------------------------------------


@pytest.fixture
def backend() -> Any:
    made = InterpretedBackend(SMALL)
    register(made)
    yield made.name
    _BACKENDS.pop(made.name)


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[Any]:
    graphtorch.manual_seed(seed)
    return [graphtorch.randn(*s, requires_grad=True) for s in shapes]


def against_eager(function: Any, given: list[Any], backend: str, tolerance: float = 2e-5) -> Any:
    """Results and gradients of a compiled function against eager ones; the compiled function."""
    results = []
    compiled = graphtorch.compile(function, backend=backend)
    for run in (function, compiled):
        graphtorch.manual_seed(7)
        for t in given:
            t.grad = None
        made = run(*given)
        results.append([made.detach().numpy(), *(t.grad.numpy() for t in given if t.requires_grad)])
    for eager, mine in zip(*results, strict=True):
        close(mine, eager, tolerance, tolerance * max(1.0, float(np.abs(eager).max(initial=0))))
    return compiled


def operators(compiled: Any) -> list[str]:
    (specialization,) = compiled.specializations
    return [n.op.name for n in specialization.compiled.stages.joint.nodes]


@pytest.mark.parametrize("form", ["plain", "causal", "shared", "boolean", "added", "three"])
def test_scaled_dot_product_attention(form: str, backend: str) -> None:
    shape = (3, 17, 16) if form == "three" else (2, 4, 17, 16)
    short = (2, 2, 17, 16) if form == "shared" else shape
    given = tensors(shape, short, short)
    mask: Any = None
    if form == "boolean":
        mask = graphtorch.ones(17, 17, dtype=graphtorch.bool).tril(-1)  # the first row sees nothing
    elif form == "added":
        mask = graphtorch.randn(4, 1, 17)

    def step(q: Any, k: Any, v: Any) -> Any:
        options = {"attn_mask": mask, "is_causal": form == "causal", "enable_gqa": form == "shared"}
        result = F.scaled_dot_product_attention(q, k, v, **options)
        (result * result.sin()).sum().backward()
        return result

    compiled = against_eager(step, given, backend)
    assert operators(compiled).count("fused_attention") == 1
    assert "softmax" not in operators(compiled)
    assert operators(compiled).count("fused_attention_backward") >= 1
    assert "bmm" not in str(compiled.explain())


def test_dropout_scales_what_is_kept_and_its_gradient(backend: str) -> None:
    """Equal scores, and values that show the weights: each is 0 or 1 / (0.75 * keys)."""
    keys = 64
    slopes = graphtorch.arange(32.0).reshape(32, 1).expand(32, keys)

    def step(q: Any, k: Any, v: Any) -> Any:
        result = F.scaled_dot_product_attention(q, k, v, dropout_p=0.25)
        (result * slopes).sum().backward()
        return result

    q, k = graphtorch.zeros(1, 2, 32, 16), graphtorch.zeros(1, 2, keys, 16)
    v = graphtorch.eye(keys).expand(1, 2, keys, keys).clone().requires_grad_()
    compiled = graphtorch.compile(step, backend=backend)
    weights = compiled(q, k, v).detach().numpy()
    assert "fused_attention" in operators(compiled)
    made = compiled.specializations[0].compiled.executable
    assert sum("is computed on the blocks of fused_attention" in line for line in made.schedule.report) >= 2
    assert not any(
        b.shape == (1, 2, 32, keys) for step in made.schedule.steps for b in step.reads() if b.kind == "temporary"
    )
    kept = weights > 0
    np.testing.assert_allclose(weights, kept / (0.75 * keys), 1e-6, 1e-6)
    assert 0.68 < kept.mean() < 0.82
    np.testing.assert_allclose(v.grad.numpy(), weights.swapaxes(-1, -2) @ slopes.numpy(), 1e-4, 1e-4)


@pytest.mark.parametrize("kind", ["bool_", "float32"])
def test_masks_are_computed_in_the_kernel(kind: str) -> None:
    """A window of neighbours, and scores less with distance; no mask is in memory."""

    def program(q: Any, k: Any, v: Any, slopes: Any) -> Any:
        apart = graphtorch.arange(21).unsqueeze(1) - graphtorch.arange(18)
        mask = (apart.abs() < 5) if kind == "bool_" else slopes.view(4, 1, 1) * apart.abs().float()
        return passes(q, k, v, mask.expand(2, 4, 21, 18))

    types, given = operands("float32", 2, 21, 18, (4, 2), (16, 16))
    graph = trace(program, *types, typed("float32", 4))
    given.append(np.array([0.1, -0.2, 0.3, 0.5], np.float32))
    executable = InterpretedBackend(SMALL).compile(graph)
    for actual, wanted in zip(executable.run(given), interpret(graph, given), strict=True):
        close(actual, wanted, 2e-5, 2e-5)
    (made,) = executable._programs.values()
    assert not made.launches.unsupported
    assert not any(b.shape == (21, 18) or b.shape == (4, 21, 18) for b in made.launches.memory.offsets)


def test_composition_where_one_operator_does_not_fit(backend: str) -> None:
    def learned(q: Any, k: Any, v: Any, bias: Any) -> Any:
        result = F.scaled_dot_product_attention(q, k, v, bias)
        result.sum().backward()
        return result

    compiled = against_eager(learned, tensors((1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8), (5, 5)), backend)
    assert "fused_attention" not in operators(compiled)  # the bias wants a gradient


def test_other_backends_compose() -> None:
    q, k, v = tensors((1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8))
    compiled = graphtorch.compile(lambda *x: F.scaled_dot_product_attention(*x), backend="interpreter")
    compiled(q, k, v)
    assert "fused_attention" not in operators(compiled)


def test_second_derivatives(backend: str) -> None:
    def step(q: Any, k: Any, v: Any) -> Any:
        result = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        (slope,) = graphtorch.autograd.grad(result.sin().sum(), q, create_graph=True)
        slope.square().sum().backward()
        return result

    against_eager(step, tensors((1, 2, 5, 8), (1, 2, 5, 8), (1, 2, 5, 8)), backend, 1e-4)


# -- machine code -----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRAPHTORCH_CACHE", str(tmp_path / "cache"))


def attention_functions(kind: str, size: int, causal: bool, tokens: int = 1024) -> list[Any]:
    types = [typed(kind, 2, 8, tokens, size)] * 3
    graph = trace(lambda q, k, v: passes(q, k, v, causal=causal), *types)
    return [s.function for s in plan_for(build_schedule(graph)).launches if "attention" in s.function.name]


@pytest.mark.parametrize("to", ["sm_80", "sm_90", "sm_100"])
def test_attention_compiles_to_tensor_cores_without_spills(to: str, early: bool) -> None:
    instruction = {"sm_80": "mma.sync", "sm_90": "wgmma.mma_async", "sm_100": "tcgen05.mma"}[to]
    for compiled in compile_all(attention_functions("bfloat16", 64, True), to):
        assert instruction in compiled.assembly
        assert resources(compiled).stack <= (8 if early and to == "sm_80" else 0), compiled.name


@pytest.mark.parametrize(("kind", "size"), [("bfloat16", 128), ("bfloat16", 256), ("float32", 64), ("float32", 128)])
def test_heads_of_other_sizes_compile_without_spills(kind: str, size: int, early: bool) -> None:
    for compiled in compile_all(attention_functions(kind, size, True, 1000), "sm_90"):
        most = 192 if early and (kind, size) == ("float32", 128) else 0
        assert resources(compiled).stack <= most, (compiled.name, resources(compiled))


@pytest.mark.parametrize("size", [64, 128])
def test_descriptors_copy_through_the_tensor_memory_accelerator(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    described = attention.shapes
    monkeypatch.setattr(attention, "shapes", lambda call: tuple(replace(s, descriptors=True) for s in described(call)))
    functions = attention_functions("bfloat16", size, True)
    assert len(functions) == 3
    for to in ("sm_90", "sm_100") if size == 64 else ("sm_90",):
        for compiled in compile_all(functions, to):
            assert "cp.async.bulk.tensor" in compiled.assembly
            assert to != "sm_90" or resources(compiled).stack == 0, compiled.name
            assert compiled.global_scratch > 0  # where the descriptors lie


def test_attention_compiles_for_amd() -> None:
    for compiled in compile_all(attention_functions("float16", 64, False), "gfx942"):
        assert "v_mfma" in compiled.assembly
