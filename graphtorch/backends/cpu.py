"""What the CPU can do. See torch.backends.cpu."""

from __future__ import annotations


def get_cpu_capability() -> str:
    """The widest vectors that operators use. NumPy chooses its own at run time; see numpy.show_config()."""
    return "DEFAULT"
