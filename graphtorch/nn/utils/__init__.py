"""Helpers on the parameters of a model. See https://docs.pytorch.org/docs/stable/nn.html#utilities"""

from graphtorch.nn.utils import rnn
from graphtorch.nn.utils.clip_grad import clip_grad_norm_, clip_grad_value_, get_total_norm
from graphtorch.nn.utils.convert_parameters import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "get_total_norm", "parameters_to_vector", "rnn", "vector_to_parameters",
]  # fmt: skip
