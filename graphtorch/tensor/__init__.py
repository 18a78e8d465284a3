"""Tensors: element types, devices, memory, the class itself and its text form."""

from graphtorch.tensor.devices import device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.size import Size
from graphtorch.tensor.tensor import Tensor
from graphtorch.tensor.type import TensorType

__all__ = ["Size", "Tensor", "TensorType", "device", "dtype"]
