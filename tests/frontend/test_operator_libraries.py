"""`torch.library.Library`, `define`, `impl` and what is registered for operators, beside PyTorch's."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch.library import opcheck
from graphtorch.library.schema import read_schema

torch = pytest.importorskip("torch")
BOTH = (graphtorch, torch)
names = itertools.count()


@pytest.fixture
def space() -> str:
    return f"libspace{next(names)}"


def same(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a.detach().float().numpy(), b.detach().float().numpy(), rtol=1e-6)
    assert str(a.dtype) == str(b.dtype)


def test_defined_operators(space: str) -> None:
    for package in BOTH:
        library = package.library.Library(space, "DEF")
        assert library.define("scaled(Tensor x, int n=2, *, float? a=None) -> Tensor") == "scaled"
        library.impl("scaled", lambda x, n=2, *, a=None: x * n * (1.0 if a is None else a), "CPU")
        call = getattr(package.ops, space).scaled
        assert call(package.ones(2), 3).tolist() == [3, 3]
        assert call.default(package.ones(2), a=0.5).tolist() == [1, 1]
        x = package.ones(2, requires_grad=True)
        call(x).sum().backward()  # the kernel is made of operators with derivatives
        assert x.grad.tolist() == [2, 2]
        assert str(call.default._schema) == f"{space}::scaled(Tensor x, int n=2, *, float? a=None) -> Tensor"
        assert call.overloads() == ["default"] and hasattr(package.ops, space)
        with pytest.raises(AttributeError, match="has no attribute 'missing'"):
            getattr(package.ops, space).missing  # noqa: B018


def test_function_forms(space: str) -> None:
    for package in BOTH:
        package.library.define(f"{space}::plus", "(Tensor x) -> Tensor")

        @package.library.impl(f"{space}::plus", "cpu")
        def plus(x: Any) -> Any:
            return x + 1

        fragment = package.library.Library(space, "FRAGMENT")

        @package.library.define(fragment, "twice(Tensor x) -> Tensor")
        def twice(x: Any) -> Any:
            return x * 2

        fragment.define("thrice(Tensor x) -> Tensor")

        @package.library.impl(fragment, "thrice", "CompositeExplicitAutograd")
        def thrice(x: Any) -> Any:
            return x * 3

        ops = getattr(package.ops, space)
        x = package.ones(1)
        assert [ops.plus(x).item(), ops.twice(x).item(), ops.thrice(x).item()] == [2, 2, 3]


def test_arguments_that_change(space: str) -> None:
    for package in BOTH:
        library = package.library.Library(space, "DEF")
        library.define("bump_(Tensor(a!) x, Tensor[] ys) -> ()")

        def bump(x: Any, ys: Any) -> None:
            x.add_(sum(y.sum() for y in ys))

        library.impl("bump_", bump, "CompositeExplicitAutograd")
        x = package.zeros(2)
        assert getattr(package.ops, space).bump_(x, [package.ones(2), package.ones(3)]) is None
        assert x.tolist() == [5, 5]


def test_registrations_by_name(space: str) -> None:
    made = []
    for package in BOTH:
        name = f"{space}::cube"
        package.library.define(name, "(Tensor x) -> Tensor")
        package.library.impl(name, "cpu", lambda x, t=package: t.from_numpy(x.detach().numpy() ** 3))
        package.library.register_fake(name, package.empty_like)

        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            ctx.save_for_backward(*inputs)

        package.library.register_autograd(
            name, lambda ctx, g: g * 3 * ctx.saved_tensors[0] ** 2, setup_context=setup_context
        )
        call = getattr(package.ops, space).cube
        package.library.register_vmap(name, lambda info, in_dims, x, call=call: (call(x), in_dims[0]))
        x = package.arange(4.0).reshape(2, 2).requires_grad_()
        call(x).sum().backward()
        made.append((x.grad, package.vmap(call, in_dims=1, out_dims=1)(x.detach())))
    same(made[0][0], made[1][0])
    same(made[0][1], made[1][1])
    call = getattr(graphtorch.ops, space).cube
    results = opcheck(call, (graphtorch.ones(3, requires_grad=True),))
    assert set(results.values()) == {"SUCCESS"}

    @graphtorch.compile(fullgraph=True)
    def step(x: Any) -> Any:
        loss = call(x).sum()
        loss.backward()
        return loss

    x = graphtorch.arange(3.0).requires_grad_()
    assert step(x).item() == 9 and x.grad.tolist() == [0, 3, 12]


def test_compositions_are_looked_through(space: str) -> None:
    library = graphtorch.library.Library(space, "DEF")
    library.define("both(Tensor x) -> Tensor")
    library.impl("both", lambda x: x.sin() * 2)
    call = getattr(graphtorch.ops, space).both
    f = graphtorch.compile(lambda x: call(x), fullgraph=True)
    x = graphtorch.ones(2)
    same(f(x), x.sin() * 2)
    assert not any("both" in n.op.name for n in f.specializations[0].captured.graph.nodes)


def test_kernels_that_are_turned_off_and_casts(space: str) -> None:
    made = []
    for package in BOTH:

        def times(x, n):  # type: ignore[no-untyped-def]
            return x * n

        times.__annotations__ = {"x": package.Tensor, "n": float, "return": package.Tensor}
        scaled = package.library.custom_op(f"{space}::scaled", times, mutates_args=())
        scaled.register_kernel("cpu")(lambda x, n: x * n + 1)
        assert scaled(package.ones(1), 2.0).item() == 3
        with scaled.set_kernel_enabled("cpu", False):
            assert scaled(package.ones(1), 2.0).item() == 2
        scaled.register_autocast("cpu", package.bfloat16)
        with package.autocast("cpu"):
            made.append(scaled(package.ones(2) / 3, 2.0))
        with pytest.raises(RuntimeError, match="device type at start of device string: nothing"):
            scaled.register_autocast("nothing", package.bfloat16)
    same(*made)


def test_modes_see_operators_of_libraries(space: str) -> None:
    from graphtorch.utils._python_dispatch import TorchDispatchMode

    seen: list[str] = []

    class Names(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(str(func))
            return func(*args, **(kwargs or {}))

    @graphtorch.library.custom_op(f"{space}::twice", mutates_args=())
    def twice(x: graphtorch.Tensor) -> graphtorch.Tensor:
        return x * 2

    with Names():
        assert twice(graphtorch.ones(1)).item() == 2
    assert seen[0] == f"{space}.twice.default"


@pytest.mark.parametrize(
    "call",
    [
        lambda t, s: t.library.Library(s, "BAD"),
        lambda t, s: t.library.Library("prim", "DEF"),
        lambda t, s: [t.library.Library(s, "DEF").define("h")],
        lambda t, s: t.library.define("noname", "(Tensor x) -> Tensor"),
        lambda t, s: t.library.define(3, "(Tensor x) -> Tensor"),
        lambda t, s: t.library.Library(s, "FRAGMENT").impl("x", 3),
        lambda t, s: [t.library.define(f"{s}::f", "(Tensor x) -> Tensor") for _ in range(2)],
    ],
)
def test_misuse(call: Any, space: str) -> None:
    with pytest.raises(Exception) as theirs:
        call(torch, space)
    with pytest.raises(type(theirs.value)) as ours:
        call(graphtorch, space)
    assert str(ours.value)[:60] == str(theirs.value)[:60]


def test_one_definition_of_a_namespace(space: str) -> None:
    for package in BOTH:
        first = package.library.Library(space, "DEF")
        with pytest.raises(RuntimeError, match="Only a single TORCH_LIBRARY can be used to register the namespace"):
            package.library.Library(space, "DEF")
        first.define("h(Tensor x) -> Tensor")
        with pytest.raises(NotImplementedError, match=f"Could not run '{space}::h' with arguments from the 'CPU'"):
            getattr(package.ops, space).h(package.ones(2))
        first._destroy()


def test_schemas() -> None:
    import typing

    for package in BOTH:
        tensor = package.Tensor

        def function(x, ys, n=2, *, f=None, b=True, s="a"):  # type: ignore[no-untyped-def]
            ...

        function.__annotations__ = {
            "x": tensor, "ys": list[tensor], "n": int, "f": float | None, "b": bool, "s": str,
            "return": tuple[tensor, tensor],
        }  # fmt: skip
        infer = package.library.infer_schema
        assert infer(function, mutates_args={"x"}, op_name="foo") == (
            'foo(Tensor(a0!) x, Tensor[] ys, SymInt n=2, *, float? f=None, bool b=True, str s="a") -> (Tensor, Tensor)'
        )

        def other(x, y, ns):  # type: ignore[no-untyped-def]
            ...

        other.__annotations__ = {"x": tensor, "y": tensor | None, "ns": typing.Sequence[int], "return": None}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert infer(other, mutates_args=()) == "(Tensor x, Tensor? y, SymInt[] ns) -> ()"
    read = read_schema('(Tensor(a!) x, int[2] n=[1, 2], *, ScalarType? d=None, str s="a, b") -> (Tensor out, Tensor)')
    assert read.parameters == "Tensor x, int[] n=[1, 2], *, dtype? d=None, str s='a, b'"
    assert (read.results, read.mutated) == (2, ("x",))
    for text in ("Tensor x -> Tensor", "(Generator g) -> Tensor", "(Tensor x) -> int", "(Tensor x y) -> Tensor"):
        with pytest.raises(RuntimeError):
            read_schema(text)
    with pytest.raises(RuntimeError, match="which stay"):
        graphtorch.library.impl("aten::add", "cpu", lambda x: x)
    with pytest.raises(NotImplementedError, match="depend on data"):
        graphtorch.library.get_ctx()
