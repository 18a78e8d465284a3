"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable

from graphtorch import ops
from graphtorch.tensor.tensor import Tensor

__all__ = ["parameters_to_vector", "vector_to_parameters"]


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """Join all parameters, flattened, in order.

    Raises:
        TypeError: they are on different devices.
    """
    members = list(parameters)
    _check_one_device(members)
    return ops.cat([parameter.reshape(-1) for parameter in members])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Make consecutive slices of ``vec`` the data of the parameters; they share its memory.

    Raises:
        TypeError: ``vec`` is not a tensor, or the parameters are on different devices.
    """
    if not isinstance(vec, Tensor):
        raise TypeError(f"expected torch.Tensor, but got: {type(vec)}")
    members = list(parameters)
    _check_one_device(members)
    start = 0
    for parameter in members:
        count = parameter.numel()
        parameter.data = vec[start : start + count].view_as(parameter).data
        start += count


def _check_one_device(parameters: list[Tensor]) -> None:
    if any(parameter.device != parameters[0].device for parameter in parameters):
        raise TypeError("Found two parameters on different devices, this is currently not supported.")
