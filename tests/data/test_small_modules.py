"""Modules that programs written for PyTorch import for a name or two."""

from __future__ import annotations

import importlib
import threading
from typing import Any

import pytest

import graphtorch
from graphtorch import futures

PLACES = {
    "nn.modules.upsampling": ["Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d"],
    "nn.modules.pixelshuffle": ["PixelShuffle", "PixelUnshuffle"],
    "nn.modules.channelshuffle": ["ChannelShuffle"],
    "nn.modules.fold": ["Fold", "Unfold"],
    "nn.common_types": ["_size_2_t", "_size_any_t", "_ratio_2_t", "_scalar_or_tuple_2_t"],
    "nn._reduction": ["get_enum", "legacy_get_string", "legacy_get_enum"],
    "optim.adamw": ["AdamW"],
    "utils.data._utils.collate": ["default_collate", "default_convert", "collate"],
    "_utils": ["_flatten_dense_tensors", "_unflatten_dense_tensors", "_take_tensors", "ExceptionWrapper"],
    "_C": ["_log_api_usage_once", "_get_tracing_state", "Generator", "_nn"],
    "utils.cpp_extension": ["load", "CUDAExtension", "BuildExtension", "CUDA_HOME", "is_ninja_available"],
    "utils.collect_env": ["get_pretty_env_info", "main"],
    "utils.deterministic": ["fill_uninitialized_memory"],
    "futures": ["Future", "collect_all", "wait_all"],
}


@pytest.mark.parametrize("place", PLACES)
def test_names_are_where_pytorch_has_them(place: str) -> None:
    for package in ("torch", "graphtorch"):
        if package == "torch":
            pytest.importorskip("torch")
        module = importlib.import_module(f"{package}.{place}")
        assert not [name for name in PLACES[place] if not hasattr(module, name)]


def test_dense_tensors() -> None:
    from graphtorch._utils import _flatten_dense_tensors, _take_tensors, _unflatten_dense_tensors

    tensors = [graphtorch.arange(6.0).reshape(2, 3), graphtorch.ones(2)]
    flat = _flatten_dense_tensors(tensors)
    assert flat.shape == (8,)
    assert all(graphtorch.equal(a, b) for a, b in zip(tensors, _unflatten_dense_tensors(flat, tensors), strict=True))
    assert [len(part) for part in _take_tensors([graphtorch.ones(4)] * 3, 32)] == [2, 1]


def test_exceptions_of_workers() -> None:
    from graphtorch._utils import ExceptionWrapper

    for kind in (ValueError, KeyError, UnicodeDecodeError):
        try:
            raise ValueError("first") if kind is ValueError else KeyError("k")
        except Exception:
            wrapper = ExceptionWrapper(where="in worker 0")
        wrapper.exc_type = kind
        with pytest.raises(RuntimeError if kind is UnicodeDecodeError else kind, match="in worker 0"):
            wrapper.reraise()


def test_nothing_is_built() -> None:
    from graphtorch.utils.cpp_extension import CUDAExtension, load

    for call in (lambda: load("name", ["a.cpp"]), lambda: CUDAExtension("name", ["a.cu"])):
        with pytest.raises(RuntimeError, match="no C\\+\\+ interface"):
            call()


def test_reports() -> None:
    from graphtorch.utils.collect_env import get_pretty_env_info

    assert "graphtorch" in get_pretty_env_info() and "NumPy" in graphtorch.__config__.show()
    assert "get_num_threads" in graphtorch.__config__.parallel_info()


def test_futures_beside_pytorch_s() -> None:
    torch = pytest.importorskip("torch")

    def run(package: Any) -> list[Any]:
        first, second = package.Future(), package.Future()
        following = first.then(lambda f: f.wait() + 1)
        seen: list[Any] = []
        first.add_done_callback(lambda f: seen.append(f.value()))
        failing = first.then(lambda f: 1 // 0)
        everything = package.collect_all([first, second])
        seen.append(first.done())
        first.set_result(3)
        seen += [first.done(), following.wait(), everything.done()]
        second.set_exception(ValueError("bad"))
        seen.append(everything.done())
        for call in (failing.wait, second.wait, second.value, lambda: package.wait_all([first, second])):
            with pytest.raises((ValueError, RuntimeError)) as error:
                call()
            seen.append((type(error.value).__name__, str(error.value).partition("\n")[0]))
        with pytest.raises(RuntimeError, match="Future can only be marked completed once"):
            first.set_result(4)
        with pytest.raises(AssertionError, match="not an Exception"):
            package.Future().set_exception("text")
        return seen

    assert run(futures) == run(torch.futures)


def test_a_future_of_another_thread() -> None:
    future: futures.Future[int] = futures.Future()
    thread = threading.Timer(0.02, lambda: future.set_result(7))
    thread.start()
    assert future.wait() == 7
    thread.join()
