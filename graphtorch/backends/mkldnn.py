"""Switches of oneDNN (MKL-DNN), kept and not used."""

from __future__ import annotations

enabled = True
deterministic = False
allow_tf32 = True
fp32_precision = "none"


def is_available() -> bool:
    """Whether operators use it."""
    return False
