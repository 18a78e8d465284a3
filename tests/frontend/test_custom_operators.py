"""`library.custom_op`: operators of one's own, eager, compiled, differentiated, with a Triton kernel."""

from collections.abc import Sequence

import numpy as np
import pytest

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.library import opcheck


@torch.library.custom_op("tests::scale_add", mutates_args=())
def scale_add(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """x * alpha + y, by NumPy."""
    return torch.from_numpy(x.numpy() * np.float32(alpha) + y.numpy())


@scale_add.register_fake
def _(x, y, alpha=2.0):
    return torch.empty_like(x)


def save_alpha(ctx, inputs, output):
    ctx.alpha = inputs[2]


scale_add.register_autograd(lambda ctx, g: (g * ctx.alpha, g, None), setup_context=save_alpha)


@torch.library.custom_op("tests::join", mutates_args=())
def join(parts: Sequence[Tensor], factor: int, *, flip: bool = False) -> tuple[Tensor, Tensor]:
    whole = torch.cat(list(parts))
    return whole * factor, whole.flip(0) if flip else whole.clone()


@join.register_fake
def _(parts, factor, *, flip=False):
    size = sum(part.shape[0] for part in parts)
    return parts[0].new_empty((size,)), parts[0].new_empty((size,))


def join_context(ctx, inputs, output, keyword_only_inputs):
    ctx.sizes = [part.shape[0] for part in inputs[0]]
    ctx.factor, ctx.flip = inputs[1], keyword_only_inputs["flip"]


def join_backward(ctx, g_scaled, g_turned):
    whole = g_scaled * ctx.factor + (g_turned.flip(0) if ctx.flip else g_turned)
    return list(whole.split(ctx.sizes)), None


join.register_autograd(join_backward, setup_context=join_context)


@torch.library.custom_op("tests::count_up", mutates_args={"x"})
def count_up(x: Tensor, by: int) -> None:
    x.add_(by)


@torch.library.custom_op("tests::accumulate", mutates_args="total")
def accumulate(total: Tensor, x: Tensor) -> Tensor:
    total += x
    return total.mean()


@accumulate.register_fake
def _(total, x):
    return total.new_empty(())


def draw(*shape, grad=True):
    return torch.randn(*shape).requires_grad_(grad)


@pytest.mark.parametrize(
    ("op", "args", "kwargs"),
    [
        (scale_add, lambda: (draw(3, 4), draw(3, 4), 3.0), {}),
        (scale_add, lambda: (draw(3, 4), draw(3, 4, grad=False)), {"alpha": -1.0}),
        (scale_add, lambda: (draw(0, 4), draw(0, 4)), {}),
        (join, lambda: ([draw(3), draw(2)], 3), {"flip": True}),
        (join, lambda: ((draw(4),), 3), {}),
        (count_up, lambda: (draw(3, grad=False), 2), {}),
        (accumulate, lambda: (draw(3, grad=False), draw(3, grad=False)), {}),
    ],
)
def test_operators_pass_their_checks(op, args, kwargs):
    torch.manual_seed(0)
    assert set(opcheck(op, args(), kwargs).values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["interpreter", "numpy", "cpu"])
def test_training_step_on_every_backend(backend):
    def step(weight, x):
        loss = scale_add(weight * x, x.exp(), 0.5).square().mean()
        loss.backward()
        return loss

    x = torch.linspace(-1, 1, 12).reshape(3, 4)
    results = []
    for compiled in (False, True):
        weight = torch.ones(4, requires_grad=True)
        run = torch.compile(step, backend=backend, fullgraph=True) if compiled else step
        results.append((run(weight, x).item(), weight.grad.numpy()))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-5)


def test_an_operator_is_one_node_of_the_graph():
    compiled = torch.compile(lambda x: scale_add(x.sin(), x), fullgraph=True)
    compiled(torch.ones(3))
    assert "tests_scale_add" in str(compiled.explain())
    assert scale_add(draw(3), draw(3)).grad_fn.name() == "GeneratedBackwardFor_tests_scale_add_defaultBackward"


def test_same_program_in_pytorch():
    theirs = pytest.importorskip("torch")

    def define(library, name):
        def cube(x, factor):
            return x * x * x * factor

        cube.__annotations__ = {"x": library.Tensor, "factor": float, "return": library.Tensor}
        op = library.library.custom_op(f"{name}::cube", cube, mutates_args=())
        op.register_fake(lambda x, factor: library.empty_like(x))

        def setup_context(ctx, inputs, output):
            ctx.save_for_backward(inputs[0])
            ctx.factor = inputs[1]

        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * 3 * x * x * ctx.factor, None

        library.library.register_autograd(
            op if library is torch else f"{name}::cube", backward, setup_context=setup_context
        )
        return op

    found = []
    for library in (torch, theirs):
        op = define(library, "tests_beside")
        x = library.tensor([1.0, -2.0, 3.0], requires_grad=True)
        y = op(x, 0.5)
        y.sum().backward()
        found.append((y.tolist(), x.grad.tolist(), y.grad_fn.name()))
    assert found[0] == found[1]


def test_changed_arguments():
    x = torch.zeros(3)
    alias = x.view(3)
    assert count_up(x, 2) is None and alias.tolist() == [2, 2, 2]
    torch.compile(lambda t: count_up(t, 5))(x)
    assert alias.tolist() == [7, 7, 7]
    assert accumulate(x, torch.ones(3)).item() == 8
    with pytest.raises(RuntimeError, match="Cannot register autograd formula for non-functional operator"):
        count_up.register_autograd(lambda ctx, g: None)


def test_kernels_by_device():
    @torch.library.custom_op("tests::doubled", mutates_args=(), device_types="cuda")
    def doubled(x: Tensor) -> Tensor:
        return x * 2

    with pytest.raises(NotImplementedError, match="Could not run 'tests::doubled' with arguments"):
        doubled(torch.ones(2))

    @torch.library.register_kernel("tests::doubled", "cpu")
    def _(x):
        return x + x

    assert doubled(torch.ones(2)).tolist() == [2, 2]
    with pytest.raises(RuntimeError, match="operator tests::nothing does not exist"):
        torch.library.register_fake("tests::nothing")


def test_what_is_not_registered_is_named():
    @torch.library.custom_op("tests::bare", mutates_args=())
    def bare(x: Tensor) -> Tensor:
        return x.clone()

    assert bare(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="There was no fake impl registered for tests::bare"):
        torch.compile(bare.__call__, fullgraph=True)(torch.ones(2))
    with pytest.warns(UserWarning, match="There was no fake impl registered for tests::bare"):
        assert torch.compile(bare.__call__)(torch.ones(2)).tolist() == [1, 1]
    with pytest.raises(RuntimeError, match="Trying to backward through tests::bare but no autograd formula"):
        bare(torch.ones(2, requires_grad=True)).sum().backward()
    found = opcheck(bare, (torch.ones(2, requires_grad=True),), raise_exception=False)
    assert found["test_schema"] == "SUCCESS" and "no fake impl" in str(found["test_faketensor"])
    assert "no autograd formula" in str(found["test_autograd_registration"])


def test_checks_find_wrong_registrations():
    @torch.library.custom_op("tests::wrong", mutates_args=())
    def wrong(x: Tensor) -> Tensor:
        x.mul_(2)
        return x.sum(0)

    wrong.register_fake(lambda x: torch.empty_like(x))
    with pytest.raises(RuntimeError, match="argument x was changed"):
        opcheck(wrong, (torch.ones(2, 3),))
    with pytest.raises(RuntimeError, match=r"the fake function says torch.float32\[2, 3\]"):
        opcheck(wrong, (torch.ones(2, 3),), test_utils="test_faketensor")


@pytest.mark.parametrize(
    ("annotations", "message"),
    [
        ({"return": Tensor}, "Parameter x must have a type annotation"),
        ({"x": dict, "return": Tensor}, "Parameter x has unsupported type"),
        ({"x": Tensor}, "Return has unsupported type"),
        ({"x": Tensor, "return": None}, "must change one of its arguments"),
        ({"x": Tensor, "return": tuple[Tensor, ...]}, "Return has unsupported type"),
    ],
)
def test_annotations_that_no_operator_has(annotations, message):
    def function(x):
        return x

    function.__annotations__ = annotations
    with pytest.raises(ValueError, match=message):
        torch.library.custom_op("tests::refused", function, mutates_args=())


def test_other_misuse():
    def same(x: Tensor) -> Tensor:
        return x

    with pytest.raises(ValueError, match="of the form 'namespace::operator'"):
        torch.library.custom_op("same", same, mutates_args=())
    with pytest.raises(ValueError, match="mutates_args should contain names of parameters"):
        torch.library.custom_op("tests::same", same, mutates_args=("y",))
    op = torch.library.custom_op("tests::same", same, mutates_args=())
    with pytest.raises(RuntimeError, match="must not also be an input to this custom operator"):
        op(torch.ones(2))
    with pytest.raises(TypeError, match="missing a required argument: 'x'"):
        op()


# -- Triton -----------------------------------------------------------------------------------------------------------


@torch.library.custom_op("tests::gated", mutates_args=())
def gated(x: Tensor, gate: Tensor, limit: float) -> Tensor:
    return x * gate.sigmoid().clamp(max=limit)


gated.register_fake(lambda x, gate, limit: torch.empty_like(x))
gated.register_triton(
    """
    def gated(x, gate, result, n, limit: tl.constexpr, BLOCK: tl.constexpr):
        at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = at < n
        g = tl.load(gate + at, mask=mask)
        share = tl.minimum(1 / (1 + tl.exp(-g)), limit)
        tl.store(result + at, tl.load(x + at, mask=mask) * share, mask=mask)
    """,
    sizes=lambda x, gate, limit: {"n": x.numel()},
    grid=[("n", "BLOCK")],
    constants={"BLOCK": 64},
)


@pytest.fixture
def interpreter():
    """The backend that runs Triton kernels in Triton's interpreter, under its name."""
    pytest.importorskip("triton")
    from graphtorch.lowering.backend import register
    from graphtorch.lowering.triton.backend import InterpretedBackend

    return register(InterpretedBackend()).name


@pytest.mark.parametrize("dynamic", [False, True])
def test_triton_kernel(interpreter, dynamic, monkeypatch):
    function = torch.compile(lambda x, g: gated(x.sin(), g, 0.7) + 1, backend=interpreter, dynamic=dynamic)
    torch.manual_seed(0)
    cases = [(torch.randn(*shape), torch.randn(*shape)) for shape in ((5, 30), (7, 30), (2, 64))]
    expected = [gated(x.sin(), g, 0.7) + 1 for x, g in cases]

    def no_python(*args, **kwargs):
        raise AssertionError("the kernel for the CPU was called")

    monkeypatch.setitem(gated._kernels, "cpu", no_python)
    for (x, g), right in zip(cases, expected):
        np.testing.assert_allclose(function(x, g).numpy(), right.numpy(), rtol=1e-5, atol=1e-6)


def test_triton_kernel_compiles_for_a_gpu():
    pytest.importorskip("triton")
    from graphtorch.ir.builder import GraphBuilder, wrap
    from graphtorch.ir.graph import Graph
    from graphtorch.lowering.triton import compiler
    from graphtorch.lowering.triton.launch import make_plan
    from graphtorch.schedule import build_schedule
    from graphtorch.tensor.type import TensorType

    graph = Graph("f")
    x, g = (wrap(graph.add_input(TensorType(torch.float32, (5, 30)))) for _ in range(2))
    with GraphBuilder(graph) as builder:
        graph.add_output(builder.value_of(gated._call(x, g, 0.7)))
    (launch,) = make_plan(build_schedule(graph), {}).launches
    (compiled,) = compiler.compile_all([launch.function], "sm_90")
    assert compiled.binary


def test_triton_texts_that_are_no_function():
    with pytest.raises(ValueError, match="is the text of a function"):
        gated.register_triton("x = 1", sizes=dict, grid=[])
