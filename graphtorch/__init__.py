"""The public namespace: `import graphtorch as torch`.

Defines nothing itself. The tensor class and the operators load here; the neural-network modules, the optimizers and
the compiler load on first use.
"""

from __future__ import annotations

import importlib
from math import e, inf, nan, pi
from typing import TYPE_CHECKING, Any

from graphtorch import diagnostics
from graphtorch.tensor import Size, Tensor, device, dtype
from graphtorch.tensor.devices import get_default_device, set_default_device
from graphtorch.tensor.dtypes import (
    bfloat16,
    can_cast,
    cdouble,
    cfloat,
    complex64,
    complex128,
    double,
    finfo,
    float16,
    float32,
    float64,
    get_default_dtype,
    half,
    iinfo,
    int8,
    int16,
    int32,
    int64,
    long,
    promote_types,
    result_type,
    set_default_dtype,
    short,
    uint8,
)
from graphtorch.tensor.dtypes import bool_ as _bool
from graphtorch.tensor.generator import Generator, default_generator
from graphtorch.tensor.memory import keep_freed_memory as _keep_freed_memory
from graphtorch.tensor.storage import TypedStorage, UntypedStorage

# isort: split
from graphtorch import autograd, ops
from graphtorch.autograd.grad_mode import (
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_grad_enabled,
)
from graphtorch.ops import FUNCTIONS as _FUNCTIONS
from graphtorch.tensor.creation import as_tensor, asarray, from_numpy, scalar_tensor
from graphtorch.tensor.creation import tensor as _tensor
from graphtorch.tensor.formats import (
    channels_last,
    channels_last_3d,
    contiguous_format,
    layout,
    memory_format,
    preserve_format,
    sparse_coo,
    strided,
)

if TYPE_CHECKING:
    tensor = _tensor

    # Operators, and what `_LAZY` names.
    def __getattr__(name: str) -> Any: ...

else:
    # Attribute -> (module, name in it); None: the module itself.
    _LAZY = {
        "compile": ("graphtorch.frontend", "compile"),
        "amp": ("graphtorch.amp", None),
        "compiler": ("graphtorch.compiler", None),
        "_dynamo": ("graphtorch._dynamo", None),
        "cpu": ("graphtorch.cpu", None),
        **{
            name: ("graphtorch.amp.autocast_mode", name)
            for name in (
                *("autocast", "autocast_decrement_nesting", "autocast_increment_nesting", "clear_autocast_cache"),
                *("get_autocast_cpu_dtype", "get_autocast_dtype", "get_autocast_gpu_dtype"),
                "is_autocast_cache_enabled",
                *("is_autocast_cpu_enabled", "is_autocast_enabled", "set_autocast_cache_enabled"),
                *("set_autocast_cpu_dtype", "set_autocast_cpu_enabled", "set_autocast_dtype", "set_autocast_enabled"),
                "set_autocast_gpu_dtype",
            )
        },
        **{
            name: ("graphtorch.frontend.control_flow", name)
            for name in ("associative_scan", "cond", "scan", "while_loop")
        },
        "load": ("graphtorch.serialization", "load"),
        "export": ("graphtorch.export", None),
        "load_exported": ("graphtorch.serialization.program", "load_exported"),
        "save": ("graphtorch.serialization", "save"),
        "serialization": ("graphtorch.serialization", None),
        "array_api": ("graphtorch.array_api", None),
        **{
            f"{kind}Tensor": ("graphtorch.tensor.legacy", f"{kind}Tensor")
            for kind in ("Bool", "Byte", "Char", "Short", "Int", "Long", "Half", "BFloat16", "Float", "Double")
        },
        "distributions": ("graphtorch.distributions", None),
        "fft": ("graphtorch.fft", None),
        "func": ("graphtorch.func", None),
        "library": ("graphtorch.library", None),
        "linalg": ("graphtorch.linalg", None),
        "cuda": ("graphtorch.cuda", None),
        "OutOfMemoryError": ("graphtorch.runtime.cuda.memory", "OutOfMemoryError"),
        "nn": ("graphtorch.nn", None),
        "optim": ("graphtorch.optim", None),
        **{
            name: (f"graphtorch.{name}", None)
            for name in (
                *("accelerator", "backends", "distributed", "distributions", "hub", "jit", "multiprocessing"),
                *("functional", "mps", "onnx", "overrides", "profiler", "return_types", "xpu"),
                *("testing", "types", "version"),
            )
        },
        **{
            name: ("graphtorch.settings", name)
            for name in (
                *("are_deterministic_algorithms_enabled", "compiled_with_cxx11_abi", "get_deterministic_debug_mode"),
                *("get_float32_matmul_precision", "get_num_interop_threads", "get_num_threads"),
                *("is_deterministic_algorithms_warn_only_enabled", "is_warn_always_enabled"),
                *("set_deterministic_debug_mode", "set_float32_matmul_precision", "set_flush_denormal"),
                *("set_num_interop_threads", "set_num_threads", "set_warn_always", "use_deterministic_algorithms"),
            )
        },
        "set_anomaly_enabled": ("graphtorch.autograd.grad_mode", "set_detect_anomaly"),
        "is_anomaly_enabled": ("graphtorch.autograd.grad_mode", "is_anomaly_enabled"),
        "GradScaler": ("graphtorch.amp", "GradScaler"),
        "random": ("graphtorch.random", None),
        **{
            f"{kind}_window": ("graphtorch.signal.legacy", f"{kind}_window")
            for kind in ("bartlett", "blackman", "hamming", "hann", "kaiser")
        },
        **{
            # Functions of nn.functional that PyTorch has here too, with the same arguments.
            name: ("graphtorch.nn.functional", name)
            for name in (
                *("adaptive_avg_pool1d", "avg_pool1d", "bilinear", "celu_", "channel_shuffle", "conv3d"),
                *(
                    "conv_tbc",
                    "conv_transpose3d",
                    "cosine_similarity",
                    "group_norm",
                    "hardshrink",
                    "max_pool1d",
                    "max_pool3d",
                ),
                *("native_channel_shuffle",),
                *("pairwise_distance", "pixel_shuffle", "pixel_unshuffle", "rms_norm", "selu_", "threshold"),
            )
        },
        **{
            # Functions with the names of nn.functional and other arguments.
            name: ("graphtorch.nn.functional.low_level", name)
            for name in (
                *("adaptive_max_pool1d", "affine_grid_generator", "alpha_dropout", "alpha_dropout_", "batch_norm"),
                *("binary_cross_entropy_with_logits", "convolution", "cosine_embedding_loss"),
                *("ctc_loss", "detach_", "dropout_", "embedding_bag", "embedding_renorm_", "feature_alpha_dropout"),
                *("feature_alpha_dropout_", "feature_dropout", "feature_dropout_", "frobenius_norm"),
                *(
                    "grid_sampler",
                    "grid_sampler_2d",
                    "grid_sampler_3d",
                    "gru",
                    "gru_cell",
                    "hinge_embedding_loss",
                    "instance_norm",
                    "kl_div",
                ),
                *("lstm", "lstm_cell", "margin_ranking_loss", "max_pool1d_with_indices", "native_batch_norm"),
                *("native_dropout", "native_group_norm", "native_layer_norm"),
                *("norm_except_dim", "nuclear_norm", "poisson_nll_loss", "resize_as_", "rnn_relu", "rnn_relu_cell"),
                *("rnn_tanh", "rnn_tanh_cell", "rrelu_", "threshold_", "triplet_margin_loss"),
            )
        },
        "set_default_tensor_type": ("graphtorch.tensor.legacy", "set_default_tensor_type"),
        "set_printoptions": ("graphtorch.tensor.printing", "set_printoptions"),
        "storage": ("graphtorch.storage", None),
        "masked": ("graphtorch.masked", None),
        "signal": ("graphtorch.signal", None),
        "sparse": ("graphtorch.sparse", None),
        "sparse_coo_tensor": ("graphtorch.sparse", "sparse_coo_tensor"),
        "spmm": ("graphtorch.sparse", "mm"),
        "dsmm": ("graphtorch.sparse", "mm"),
        "special": ("graphtorch.special", None),
        "text": ("graphtorch.text", None),
        "utils": ("graphtorch.utils", None),
        "vision": ("graphtorch.vision", None),
        "vmap": ("graphtorch.func", "vmap"),
        **{
            name: ("graphtorch.checks", name)
            for name in (
                *("_assert", "_check", "_check_index", "_check_is_size", "_check_not_implemented", "_check_tensor_all"),
                *("_check_tensor_all_with", "_check_type", "_check_value", "_check_with"),
                *("sym_float", "sym_int", "sym_ite", "sym_max", "sym_min", "sym_not", "sym_sqrt", "sym_sum"),
                *("SymBool", "SymFloat", "get_device_module"),
            )
        },
        "SymInt": ("graphtorch.tensor.symint", "SymInt"),
        **{name: (f"graphtorch.{name}", None) for name in ("__config__", "_C", "_inductor", "_utils", "futures", "fx")},
    }

    globals().update(_FUNCTIONS)
    # The function hides the subpackage of that name, which `from graphtorch.tensor import ...` still finds.
    tensor = _tensor
    newaxis = None
    # These hide Python's builtins from here on.
    bool, float, int = _bool, float32, int64

    def __getattr__(name):
        home = ("graphtorch.foreach", name) if name.startswith("_foreach_") else _LAZY.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = importlib.import_module(home[0])
        value = module if home[1] is None else getattr(module, home[1])
        globals()[name] = value
        return value

    def __dir__():
        return sorted({*globals(), *_LAZY})


diagnostics.install()
_keep_freed_memory()

__version__ = "0.1.0"
