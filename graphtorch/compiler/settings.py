"""The settings that programs make at `torch._dynamo.config` and `torch._inductor.config`.

Three of them mean something here: `recompile_limit` (and its older name `cache_size_limit`) and `disable`. The others
are about how PyTorch's compiler does its work; they can be set, read and patched, and change nothing. Any other name is
an AttributeError, as there."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

# Those that programs set, with PyTorch's defaults.
_DYNAMO: dict[str, Any] = {
    **dict.fromkeys(("verbose", "suppress_errors", "disable", "specialize_int", "specialize_float"), False),
    **dict.fromkeys(("capture_scalar_outputs", "capture_dynamic_output_shape_ops", "error_on_recompile"), False),
    **dict.fromkeys(("allow_unspec_int_on_nn_module", "compiled_autograd", "allow_rnn", "cprofile"), False),
    **dict.fromkeys(("optimize_ddp_lazy_compile", "allow_ignore_mark_dynamic", "prepare_freezing"), False),
    **dict.fromkeys(("log_graph_in_out_metadata", "verify_correctness", "fail_on_recompile_limit_hit"), False),
    **dict.fromkeys(("guard_nn_modules", "inline_inbuilt_nn_modules", "optimize_ddp", "trace_numpy"), True),
    **dict.fromkeys(("automatic_dynamic_shapes", "assume_static_by_default", "dynamic_shapes"), True),
    **dict.fromkeys(("force_parameter_static_shapes", "force_nn_module_property_static_shapes"), True),
    **dict.fromkeys(("report_guard_failures", "capture_autograd_function", "capture_func_transforms"), True),
    "recompile_limit": 8,
    "cache_size_limit": 8,
    "accumulated_recompile_limit": 256,
    "accumulated_cache_size_limit": 256,
    "log_level": 30,
    "log_file_name": None,
    "repro_after": None,
    "repro_level": 2,
}
_INDUCTOR: dict[str, Any] = {
    **dict.fromkeys(("debug", "cpp_wrapper", "freezing", "max_autotune", "max_autotune_gemm"), False),
    **dict.fromkeys(("max_autotune_pointwise", "coordinate_descent_tuning", "fallback_random"), False),
    **dict.fromkeys(("epilogue_fusion_first", "benchmark_kernel", "benchmark_fusion", "aggressive_fusion"), False),
    **dict.fromkeys(("coordinate_descent_check_all_directions", "force_fuse_int_mm_with_mul"), False),
    **dict.fromkeys(("conv_1x1_as_mm", "combo_kernels", "memory_planning", "force_layout_optimization"), False),
    **dict.fromkeys(("reorder_for_compute_comm_overlap", "use_fast_math", "group_fusion", "nan_asserts"), False),
    **dict.fromkeys(("profile_bandwidth", "force_shape_pad", "fx_graph_remote_cache"), False),
    **dict.fromkeys(("unsafe_skip_cache_dynamic_shape_guards", "deterministic", "dce", "permute_fusion"), False),
    **dict.fromkeys(("use_mixed_mm", "batch_fusion", "fx_graph_cache", "epilogue_fusion", "pattern_matcher"), True),
    **dict.fromkeys(("layout_optimization", "shape_padding", "split_reductions", "reorder_for_locality"), True),
    **dict.fromkeys(("allow_buffer_reuse", "inplace_buffers", "size_asserts", "joint_graph_constant_folding"), True),
    **dict.fromkeys(("comprehensive_padding", "keep_output_stride", "implicit_fallbacks"), True),
    **dict.fromkeys(("assert_indirect_indexing",), True),
    "compile_threads": 1,
    "max_autotune_gemm_backends": "ATEN,TRITON,CPP",
    "max_fusion_size": 64,
    "realize_reads_threshold": 4,
    "realize_opcount_threshold": None,
    "worker_start_method": "subprocess",
}
_NESTED: dict[str, dict[str, Any]] = {
    "triton": {
        **dict.fromkeys(("cudagraphs", "cudagraph_trees_history_recording", "cudagraph_skip_dynamic_graphs"), False),
        **dict.fromkeys(("dense_indexing", "store_cubin", "debug_sync_graph", "debug_sync_kernel"), False),
        **dict.fromkeys(("cudagraph_trees", "cudagraph_support_input_mutation", "autotune_pointwise"), True),
        **dict.fromkeys(("unique_kernel_names", "persistent_reductions", "tiling_prevents_pointwise_fusion"), True),
        "descriptive_names": "original_aten",
        "multi_kernel": 0,
        "max_tiles": None,
    },
    "cpp": {
        **dict.fromkeys(("enable_kernel_profile", "dynamic_threads", "enable_concat_linear"), False),
        **dict.fromkeys(("weight_prepack", "no_redundant_loops"), True),
        "threads": -1,
        "simdlen": None,
        "min_chunk_size": 512,
    },
    "trace": {
        **dict.fromkeys(("enabled", "debug_log", "graph_diagram", "draw_orig_fx_graph", "compile_profile"), False),
        **dict.fromkeys(("info_log", "save_real_tensors"), False),
        **dict.fromkeys(("fx_graph", "fx_graph_transformed", "ir_pre_fusion", "ir_post_fusion", "output_code"), True),
        "debug_dir": None,
    },
}


class Group:
    """Settings as attributes."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        self.__dict__["_name"] = name
        self.__dict__["_values"] = values

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        raise AttributeError(f"{self._name}.{name} does not exist")

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in self._values:
            raise AttributeError(f"{self._name}.{name} does not exist")
        self._values[name] = value


class Settings(ModuleType):
    """A module whose settings are checked when they are made."""

    _values: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        values = self.__dict__.get("_values", {})
        if name in values:
            return values[name]
        raise AttributeError(f"{self.__name__.replace('graphtorch', 'torch', 1)}.{name} does not exist")

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("__") or name not in self._values:
            if name.startswith("_") or isinstance(value, ModuleType):
                super().__setattr__(name, value)  # what the import machinery sets
                return
            raise AttributeError(f"{self.__name__.replace('graphtorch', 'torch', 1)}.{name} does not exist")
        self._values[name] = value
        if self.__name__.endswith("_dynamo.config"):
            _apply(self._values, name, value)

    def get_config_copy(self) -> dict[str, Any]:
        """All settings, by name."""
        return dict(self._values)

    def patch(self, arg1: str | dict[str, Any] | None = None, arg2: Any = None, **kwargs: Any) -> Any:
        """Other settings for a block or a function: `patch("name", value)`, `patch({...})` or `patch(name=value)`."""
        changes = {arg1: arg2} if isinstance(arg1, str) else {**(arg1 or {}), **kwargs}
        return _Patch(self, changes)

    def _set(self, path: str, value: Any) -> Any:
        """Set one, `triton.cudagraphs` too; returns what it was."""
        owner: Any = self
        *groups, last = path.split(".")
        for group in groups:
            owner = getattr(owner, group)
        before = getattr(owner, last)
        setattr(owner, last, value)
        return before


class _Patch:
    def __init__(self, settings: Settings, changes: dict[str, Any]) -> None:
        self.settings = settings
        self.changes = changes
        self._before: list[dict[str, Any]] = []

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            with _Patch(self.settings, self.changes):
                return function(*args, **kwargs)

        return run

    def __enter__(self) -> None:
        self._before.append({path: self.settings._set(path, value) for path, value in self.changes.items()})

    def __exit__(self, *error: object) -> None:
        for path, value in self._before.pop().items():
            self.settings._set(path, value)


def _apply(values: dict[str, Any], name: str, value: Any) -> None:
    """Have a setting take effect."""
    from graphtorch.frontend import compiler

    if name in ("recompile_limit", "cache_size_limit"):
        values["recompile_limit"] = values["cache_size_limit"] = value
        compiler.set_recompile_limit(value)
    elif name == "disable":
        from graphtorch.frontend.stance import set_stance

        set_stance("force_eager" if value else "default")


def install(module: str, which: str) -> None:
    """Make a module one of settings: those of "dynamo" or "inductor"."""
    found: Any = sys.modules[module]
    found.__class__ = Settings
    title = module.replace("graphtorch", "torch", 1)
    nested = {name: Group(f"{title}.{name}", dict(values)) for name, values in _NESTED.items()}
    found.__dict__["_values"] = dict(_DYNAMO) if which == "dynamo" else {**_INDUCTOR, **nested}


def inductor_names() -> list[str]:
    """What `compile(options=...)` takes."""
    return [*_INDUCTOR, *(f"{group}.{name}" for group, values in _NESTED.items() for name in values)]
