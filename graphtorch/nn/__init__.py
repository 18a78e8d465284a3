"""Neural networks: modules, their parameters, functions and initialisation.

See https://docs.pytorch.org/docs/stable/nn.html
"""

from graphtorch.nn import attention, functional, grad, init, parallel, utils
from graphtorch.nn.modules import *  # noqa: F403
from graphtorch.nn.parameter import Buffer, Parameter, UninitializedBuffer, UninitializedParameter, factory_kwargs
