"""Names that programs import from PyTorch's less known modules, beside PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import graphtorch

torch = pytest.importorskip("torch")
BOTH = (torch, graphtorch)


def outcomes(program: Any) -> list[str]:
    """What a program gives under PyTorch and here: its text, or its error's."""
    found = []
    for lib in BOTH:
        try:
            found.append(repr(program(lib)).replace("graphtorch", "torch"))
        except Exception as error:
            found.append(f"{type(error).__name__}: {error}")
    return found


def module(lib: Any, name: str) -> Any:
    return importlib.import_module(f"{lib.__name__}.{name}")


@pytest.mark.parametrize(
    ("place", "name", "args"),
    [
        *(("mps", n, ()) for n in (
            "is_available", "device_count", "synchronize", "empty_cache", "current_allocated_memory", "seed",
            "get_rng_state", "driver_allocated_memory", "recommended_max_memory",
        )),
        ("mps", "manual_seed", (1,)),
        ("mps", "set_per_process_memory_fraction", (0.5,)),
        *(("xpu", n, ()) for n in (
            "is_available", "device_count", "synchronize", "empty_cache", "current_device", "memory_allocated",
            "is_initialized", "is_bf16_supported", "get_device_name", "max_memory_allocated", "get_rng_state",
            "mem_get_info", "seed", "init", "get_device_properties", "memory_reserved", "initial_seed",
            "current_stream", "get_device_capability", "max_memory_reserved", "seed_all",
        )),
        ("xpu", "manual_seed", (1,)),
        ("xpu", "manual_seed_all", (1,)),
        ("xpu", "set_device", (0,)),
        ("cuda.nvtx", "range_push", ("a",)),
        ("cuda.nvtx", "range_pop", ()),
        ("cuda.nvtx", "mark", ("a",)),
    ],
)  # fmt: skip
def test_devices_that_are_not_there(place: str, name: str, args: Any) -> None:
    expected, found = outcomes(lambda lib: getattr(module(lib, place), name)(*args))
    assert found == expected


def test_every_name_of_functional() -> None:
    ours = module(graphtorch, "functional")
    for name in module(torch, "functional").__all__:
        assert getattr(ours, name) is getattr(graphtorch, name), name


def test_return_types() -> None:
    types = graphtorch.return_types
    x = graphtorch.ones(2, 2)
    assert isinstance(x.max(0), types.max)
    assert type(x.sort()) is types.sort
    assert not isinstance(x.sort(), types.topk)
    assert isinstance(graphtorch.linalg.slogdet(x), types.linalg_slogdet)
    with pytest.raises(AttributeError):
        types.no_such_result  # noqa: B018


@pytest.mark.parametrize(
    "program",
    [
        lambda lib: lib.cuda.FloatTensor,
        lambda lib: isinstance(lib.ones(2), lib.cuda.FloatTensor),
        lambda lib: isinstance(lib.ones(2), lib.FloatTensor),
        lambda lib: lib.ones(2).type(lib.LongTensor),
        lambda lib: lib.ones(2).type("torch.DoubleTensor"),
        lambda lib: lib.ones(2).type("torch.cuda.Nothing") if lib is graphtorch else lib.ones(2).type("torch.Nothing"),
        lambda lib: lib.ones(2).type(lib.float64).type(),
        lambda lib: (lib.FloatTensor if not lib.cuda.is_available() else lib.cuda.FloatTensor)([1.0, 2.0]),
    ],
)
def test_tensor_types(program: Any) -> None:
    expected, found = outcomes(program)
    assert found.replace("cuda.Nothing", "Nothing") == expected


def test_types_of_devices_need_one() -> None:
    if graphtorch.cuda.is_available():
        assert isinstance(graphtorch.cuda.FloatTensor([1.0]), graphtorch.cuda.FloatTensor)
        assert graphtorch.ones(2, device="cuda").type() == "torch.cuda.FloatTensor"
        return
    for make in (graphtorch.cuda.FloatTensor, graphtorch.set_default_tensor_type):
        with pytest.raises(TypeError, match=r"type torch\.cuda\.FloatTensor not available"):
            make(graphtorch.cuda.FloatTensor if make is graphtorch.set_default_tensor_type else [1.0])
    with pytest.raises((AssertionError, RuntimeError)):
        graphtorch.ones(2).type(graphtorch.cuda.FloatTensor)
    assert graphtorch.ones(1).dtype is graphtorch.float32


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"low": -2, "high": 3},
        {"noncontiguous": True},
        {"low": 0, "high": 1, "exclude_zero": True},
        {"requires_grad": True},
        {"low": 3, "high": 1},
        {"low": float("nan")},
        {"low": 1e60, "high": 1e70},
        {"low": -1e60},
        {"noncontiguous": True, "memory_format": "contiguous_format"},
        {"memory_format": "contiguous_format"},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["float32", "float64", "bfloat16", "int64", "int8", "bool", "complex64"])
def test_make_tensor(kind: str, options: dict[str, Any]) -> None:
    def program(lib: Any) -> Any:
        lib.manual_seed(3)
        more = dict(options)
        if "memory_format" in more:
            more["memory_format"] = getattr(lib, more["memory_format"])
        made = module(lib, "testing").make_tensor(2, 3, dtype=getattr(lib, kind), device="cpu", **more)
        return made.dtype, made.stride(), made.requires_grad, made.tolist()

    expected, found = outcomes(program)
    assert found == expected


def test_make_tensor_of_one_argument() -> None:
    assert module(graphtorch, "testing").make_tensor((4,), dtype=graphtorch.float32, device="cpu").shape == (4,)
    assert module(graphtorch, "testing").make_tensor((), dtype=graphtorch.int32, device="cpu").shape == ()


def test_swapped_tensors() -> None:
    def program(lib: Any) -> Any:
        swap = module(lib, "utils").swap_tensors
        a, b = lib.nn.Parameter(lib.tensor([1.0, 2.0])), lib.tensor([[3]])
        a.grad, a.note = lib.tensor([5.0, 6.0]), "a"
        swap(a, b)
        return a, b, a.grad, b.grad, type(a), type(b), hasattr(a, "note"), b.note

    expected, found = outcomes(program)
    assert found == expected


def test_a_swap_is_noticed_by_compiled_functions() -> None:
    layer, other = graphtorch.nn.Linear(2, 2), graphtorch.nn.Linear(2, 2)
    compiled = graphtorch.compile(lambda x: layer(x))
    x = graphtorch.ones(1, 2)
    for _ in range(3):
        assert graphtorch.allclose(compiled(x), layer(x))
        graphtorch.utils.swap_tensors(layer.weight, other.weight)


def test_workers_info_and_old_homes() -> None:
    from graphtorch.utils.data import get_worker_info
    from graphtorch.utils.data.dataloader import get_worker_info as same

    assert same is get_worker_info
    assert get_worker_info() is None


def test_torch_functions_of_programs() -> None:
    def program(lib: Any) -> Any:
        overrides = module(lib, "overrides")
        log: list[Any] = []

        class Like:
            def __init__(self, answers: bool = True) -> None:
                self.answers = answers

            @classmethod
            def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                log.append((cls.__name__, func.__name__, [t.__name__ for t in types], kwargs))
                return NotImplemented if cls.__name__ == "Silent" else cls.__name__

        class Special(Like):
            pass

        class Silent(Like):
            pass

        @overrides.wrap_torch_function(lambda a, b, **more: (a, b))
        def function(a: Any, b: Any, **more: Any) -> Any:
            return "plain"

        def own(a: Any) -> Any:
            if overrides.has_torch_function((a,)):
                return overrides.handle_torch_function(own, (a,), a)
            return a

        t = lib.ones(1)
        log += [function(t, t), function(t, Like()), function(Like(), Special(), k=1), function(Silent(), Like())]
        log += [own(2), own(Like())]
        log += [overrides.is_tensor_like(v) for v in (t, Like(), 2, lib.nn.Parameter(t))]
        log += [overrides.has_torch_function(v) for v in ((t, 2), (t, Like()), (lib.nn.Parameter(t),))]
        try:
            own(Silent())
        except TypeError as error:
            log.append(str(error).split(" on types")[1][:40])
        return log

    expected, found = outcomes(program)
    assert found == expected


def test_every_loss_is_in_the_module_of_losses() -> None:
    ours = module(graphtorch, "nn.modules.loss")
    for name in module(torch, "nn.modules.loss").__dict__:
        if name.endswith("Loss") and not name.startswith("_"):
            assert getattr(ours, name) is getattr(graphtorch.nn, name), name


def test_what_packages_ask_when_they_are_imported() -> None:
    import graphtorch as torch
    from graphtorch._dynamo.utils import is_compile_supported
    from graphtorch.jit.annotations import BroadcastingList2, List

    assert BroadcastingList2[int] == List[int]
    with pytest.raises(RuntimeError, match="writes no ONNX files"):
        torch.onnx.export(torch.nn.Linear(2, 2))
    assert not torch.onnx.is_in_onnx_export() and is_compile_supported("cpu") and not is_compile_supported("meta")
    assert torch.hub.HASH_REGEX.search("resnet18-f37072fd.pth")[1] == "f37072fd"
