"""How exactly GPUs compute: float32 products in full precision, or in tf32 (10 bits of mantissa) on tensor cores; sums
in the same order each time, or in any.

As in PyTorch, matrix products are exact unless a program allows tf32, and convolutions use it unless a program forbids
it. What was compiled under one setting is not used under another. The CPU backends always compute in full precision.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Precision:
    """The settings of the process.

    matmul        "highest" (full float32), "high" or "medium" (tf32)
    convolution   whether convolutions may use tf32
    ordered       whether sums by index must add in the same order each time (no atomic additions)
    """

    matmul: str = "highest"
    convolution: bool = True
    ordered: bool = False

    def key(self) -> tuple[str, bool, bool]:
        """What compiled code depends on."""
        return self.matmul, self.convolution, self.ordered


settings = Precision()


def matmul_precision() -> str:
    """What Triton calls the precision of matrix products."""
    return "ieee" if settings.matmul == "highest" else "tf32"


def convolution_precision() -> str:
    """What Triton calls the precision of convolutions."""
    return "tf32" if settings.convolution else "ieee"
