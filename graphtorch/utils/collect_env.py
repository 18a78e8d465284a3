"""What a report of a mistake should say of the machine: `python -m graphtorch.utils.collect_env`."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple


class SystemEnv(NamedTuple):
    """What was found."""

    torch_version: str
    is_debug_build: str
    cuda_compiled_version: str
    os: str
    python_version: str
    python_platform: str
    is_cuda_available: str
    cpu_info: str
    pip_packages: list[str]


def _installed(name: str) -> str | None:
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:
        return None


def get_env_info() -> SystemEnv:
    """Look at the machine."""
    import graphtorch as torch

    packages = [_installed(name) for name in ("numpy", "ml_dtypes", "llvmlite", "triton", "networkx")]
    return SystemEnv(
        torch_version=f"graphtorch {torch.__version__}",
        is_debug_build="False",
        cuda_compiled_version="N/A",
        os=platform.platform(),
        python_version=f"{sys.version} ({sys.maxsize.bit_length() + 1}-bit runtime)",
        python_platform=platform.platform(),
        is_cuda_available=str(torch.cuda.is_available()),
        cpu_info=f"{platform.machine()}, {os.cpu_count()} processors",
        pip_packages=[p for p in packages if p is not None],
    )


def pretty_str(envinfo: SystemEnv) -> str:
    """As text."""
    return "\n".join(
        (
            f"PyTorch version: {envinfo.torch_version}",
            f"Is debug build: {envinfo.is_debug_build}",
            f"CUDA used to build PyTorch: {envinfo.cuda_compiled_version}",
            "",
            f"OS: {envinfo.os}",
            f"Python version: {envinfo.python_version}",
            f"Python platform: {envinfo.python_platform}",
            f"Is CUDA available: {envinfo.is_cuda_available}",
            "",
            f"CPU: {envinfo.cpu_info}",
            "",
            "Versions of relevant libraries:",
            *(f"[pip3] {package}" for package in envinfo.pip_packages),
        )
    )


def get_pretty_env_info() -> str:
    """What was found, as text."""
    return pretty_str(get_env_info())


def main() -> None:
    """Print it."""
    print("Collecting environment information...")
    print(get_pretty_env_info())


if __name__ == "__main__":
    main()
