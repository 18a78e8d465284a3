"""Forward-mode differentiation by dual tensors. See https://docs.pytorch.org/docs/stable/autograd.html#forward-mode.

Inside of `dual_level()`, operators carry the tangents of dual tensors along, by the derivative formulas that the tape
uses. Reverse mode works on dual tensors, whose gradients have tangents in turn; nothing nests two levels."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple

from graphtorch.tensor.tensor import Tensor


class UnpackedDualTensor(NamedTuple):
    """What `unpack_dual` gives: the tensor, and its tangent or None."""

    primal: Tensor
    tangent: Tensor | None


def enter_dual_level() -> int:
    """Begin a level, and give its number, 0. Raises RuntimeError inside of another."""
    from graphtorch.func.dual import DualLevel

    DualLevel().__enter__()
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """End the level: tensors lose their tangents. Raises RuntimeError where none was begun."""
    from graphtorch.func.dual import DualLevel

    if DualLevel.active is None or level not in (None, 0):
        raise RuntimeError(
            "Trying to exit a forward AD level that was not the last one that was created. This is not supported."
        )
    DualLevel.active.__exit__(None, None, None)


class dual_level:
    """`with dual_level():` begins a level and ends it."""

    def __enter__(self) -> int:
        return enter_dual_level()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        exit_dual_level()


def make_dual(tensor: Tensor, tangent: Tensor, *, level: int | None = None) -> Tensor:
    """A view of `tensor` with that tangent (of the same shape).

    Raises RuntimeError outside of a level and for another shape, ValueError for types that have no derivatives."""
    from graphtorch.func import dual

    return dual.make_dual(tensor, tangent)


def unpack_dual(tensor: Tensor, *, level: int | None = None) -> UnpackedDualTensor:
    """The tensor without its tangent, and the tangent: None where it has none, or no level is active."""
    from graphtorch.func import dual

    return UnpackedDualTensor(*dual.unpack_dual(tensor))


__all__ = ["UnpackedDualTensor", "dual_level", "enter_dual_level", "exit_dual_level", "make_dual", "unpack_dual"]
