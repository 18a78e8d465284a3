"""Which operators run in which precision inside `autocast`: the lists of PyTorch's autocast.

Products and convolutions run in the lower precision (their records say so), losses, transforms and factorisations in
float32, on CUDA devices also sums, norms, softmax and functions with an exponential or a logarithm inside, and
everything else in what its operands promote to. Casts are ordinary operators: the tape has them, and a
capture records them as nodes. See https://docs.pytorch.org/docs/stable/amp.html#cpu-op-specific-behavior."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from graphtorch.autograd.state import state
from graphtorch.ops.build import FUNCTIONS
from graphtorch.ops.record import lookup
from graphtorch.tensor import dtypes
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.tensor import Tensor

F = TypeVar("F", bound=Callable[..., Any])

# Records: all products and convolutions end in one of these.
LOWER_PRECISION = ("mm", "bmm", "addmm", "baddbmm", "linear", "conv2d")
LOWER_PRECISION_FUNCTIONS = ("addbmm", "linalg_vecdot", "inner", "prelu")
FLOAT32 = (
    "prod", "quantile", "nanquantile", "trace", "cdist", "polar", "view_as_complex", "stft", "geqrf", "orgqr",
    "ormqr", "qr", "svd", "inverse", "pinverse", "cholesky", "cholesky_inverse", "cholesky_solve", "lu_solve",
    "triangular_solve", "linalg_cond", "linalg_matrix_rank", "linalg_solve", "linalg_cholesky",
    "linalg_cholesky_ex", "linalg_svdvals", "linalg_svd", "linalg_eigvals", "linalg_eigvalsh", "linalg_eig",
    "linalg_eigh", "linalg_inv", "linalg_inv_ex", "linalg_householder_product", "linalg_tensorinv",
    "linalg_tensorsolve", "linalg_qr", "linalg_lstsq", "fft_fft", "fft_ifft", "fft_fft2", "fft_ifft2", "fft_fftn",
    "fft_ifftn", "fft_rfft", "fft_irfft", "fft_rfft2", "fft_irfft2", "fft_rfftn", "fft_irfftn", "fft_hfft",
    "fft_ihfft",
)  # fmt: skip
# Records that run in float32 on CUDA devices only.
FLOAT32_ON_CUDA = (
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal", "rsqrt", "sinh",
    "tan", "pow", "softplus", "layer_norm", "nll_loss", "smooth_l1_loss", "huber_loss", "mse_loss",
    "binary_cross_entropy_with_logits", "logsumexp", "softmax", "log_softmax", "cumprod", "cumsum",
    "linalg_vector_norm", "sum",
)  # fmt: skip
WIDEST = ("index_copy",)  # cat and stack promote by themselves


class Autocast:
    """An active autocast: what operators on each type of device are cast to. `state.autocast` is one, or None outside
    of all regions."""

    __slots__ = ("cache", "cache_enabled", "targets")

    def __init__(self, targets: dict[str, dtype], cache_enabled: bool, cache: dict[Any, Any]) -> None:
        self.targets = targets
        self.cache_enabled = cache_enabled
        self.cache = cache

    @property
    def key(self) -> tuple[Any, ...]:
        """What a compiled function assumes of the region that it is called in."""
        return (*((kind, to.name) for kind, to in self.targets.items()), self.cache_enabled)

    def target(self, tensor: Tensor) -> dtype | None:
        """What a tensor is cast to by an operator of the lower precision; None for one that no region casts."""
        d = tensor._dtype
        if not d.is_floating_point or d is dtypes.float64 or tensor.is_number:
            return None
        return self.targets.get(tensor._device.type)

    def lower(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments of an operator of the lower precision."""
        return tuple([self._lowered(a) if isinstance(a, Tensor) else a for a in args])

    def widen(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Arguments of an operator that runs in float32 on CUDA devices."""
        if "cuda" not in self.targets:
            return args
        return tuple([self._widened(a) if isinstance(a, Tensor) else a for a in args])

    def _widened(self, tensor: Tensor) -> Tensor:
        narrow = tensor._device.type == "cuda" and tensor._dtype in (dtypes.float16, dtypes.bfloat16)
        return tensor.to(dtypes.float32) if narrow and not tensor.is_number else tensor

    def _lowered(self, tensor: Tensor) -> Tensor:
        to = self.target(tensor)
        if to is None or tensor._dtype is to:
            return tensor
        keep = self.cache_enabled and tensor._dtype is dtypes.float32 and tensor._requires_grad and tensor._base is None
        if not keep or not tensor.is_leaf:
            return tensor.to(to)  # type: ignore[no-any-return]
        # A parameter is cast once a region, as long as nobody changes it.
        recorder = state.recorder
        key = (id(tensor), id(recorder), to, state.grad_enabled)
        version = _version(tensor)
        held = self.cache.get(key)
        if held is not None and held[0] == version:
            return held[1]  # type: ignore[no-any-return]
        made: Tensor = tensor.to(to)
        self.cache[key] = (version, made, tensor, recorder)
        return made

    def run(self, function: Callable[..., Any], kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the lists above with its arguments cast; inside, nothing is cast any more."""
        to: dtype | None = None if kind == "lower" else dtypes.float32
        if kind == "widest":
            given = [a for a in args if isinstance(a, Tensor) and self.target(a) is not None]
            if all(a._dtype is not to for a in given):
                to = given[0]._dtype if given else to
        state.autocast = None
        try:
            return function(*[self._cast(a, to) for a in args], **{k: self._cast(v, to) for k, v in kwargs.items()})
        finally:
            state.autocast = self

    def _cast(self, value: Any, to: dtype | None) -> Any:
        """A value with its tensors in a dtype; None: in the lower precision of their devices."""
        if isinstance(value, Tensor):
            lower = self.target(value)
            wanted = lower if to is None else to
            return value if lower is None or value._dtype is wanted else value.to(wanted)
        if type(value) in (list, tuple):
            return type(value)([self._cast(v, to) for v in value])
        return value


DEFAULTS = {"cpu": dtypes.bfloat16, "cuda": dtypes.float16}


class Settings(threading.local):
    """What is set in a thread."""

    def __init__(self) -> None:
        self.enabled = dict.fromkeys(DEFAULTS, False)
        self.dtypes = dict(DEFAULTS)
        self.cache_enabled = True
        self.nesting = 0
        self.cache: dict[Any, Any] = {}

    def apply(self) -> None:
        """Tell the operators."""
        targets = {kind: self.dtypes[kind] for kind, on in self.enabled.items() if on}
        state.autocast = Autocast(targets, self.cache_enabled, self.cache) if targets else None

    def snapshot(self) -> tuple[Any, ...]:
        """All of it, for `restore`; equal to another snapshot if nothing changed in between."""
        return (dict(self.enabled), dict(self.dtypes), self.cache_enabled, self.nesting)

    def restore(self, taken: tuple[Any, ...]) -> None:
        """Go back to a snapshot."""
        enabled, chosen, self.cache_enabled, self.nesting = taken
        self.enabled, self.dtypes = dict(enabled), dict(chosen)
        self.apply()


settings = Settings()


def _version(tensor: Tensor) -> int:
    recorded = getattr(state.recorder, "recorded", None)
    data = tensor._data if recorded is None else recorded(tensor)._data
    storage = getattr(data, "storage", None)
    return tensor._version if storage is None else int(storage.version)


def autocasts(kind: str) -> Callable[[F], F]:
    """Mark a function as one that autocast runs in "lower" precision, in "float32", or in the "widest" of its
    arguments' dtypes."""

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            active = state.autocast
            if active is None:
                return function(*args, **kwargs)
            return active.run(function, kind, args, kwargs)

        return run  # type: ignore[return-value]

    return decorate


def install() -> None:
    """Mark the operators of the lists; called once all of them are defined."""
    for name in LOWER_PRECISION:
        lookup(name).autocast = "lower"
    for name in FLOAT32_ON_CUDA:
        lookup(name).autocast = "widen"
    for kind, names in (("lower", LOWER_PRECISION_FUNCTIONS), ("float32", FLOAT32), ("widest", WIDEST)):
        for name in names:
            plain = FUNCTIONS[name]
            marked = FUNCTIONS[name] = autocasts(kind)(plain)
            if getattr(Tensor, name, None) is plain:
                setattr(Tensor, name, marked)
