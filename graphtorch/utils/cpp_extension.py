"""Extensions in C++ and CUDA, which can't be built: there is no C++ interface of this package to build them against.

The names are here for programs that import them and use them only where they can. An operator of one's own is a Python
function with kernels: see docs/custom-operators.md."""

from __future__ import annotations

import os
from typing import Any, NoReturn

_WHY = (
    "graphtorch has no C++ interface that an extension could be built against; graphtorch.library.custom_op makes an "
    "operator of a Python function or a Triton kernel"
)
CUDA_HOME: str | None = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
ROCM_HOME: str | None = None
IS_HIP_EXTENSION = False


def _refuse(*args: Any, **kwargs: Any) -> NoReturn:
    """Raises RuntimeError: nothing can be built."""
    raise RuntimeError(_WHY)


load = load_inline = include_paths = library_paths = _refuse
CppExtension = CUDAExtension = SyclExtension = _refuse


class BuildExtension:
    """Refused. Raises RuntimeError."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        _refuse()

    with_options = classmethod(lambda cls, **options: _refuse())


def is_ninja_available() -> bool:
    """False: nothing is built."""
    return False


def verify_ninja_availability() -> None:
    """Raises RuntimeError."""
    raise RuntimeError("Ninja is required to load C++ extensions (pip install ninja to get it)")


def check_compiler_ok_for_platform(compiler: str) -> bool:
    """False: nothing is built."""
    return False
