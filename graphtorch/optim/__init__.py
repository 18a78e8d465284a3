"""Optimizers and learning rate schedules. See https://docs.pytorch.org/docs/stable/optim.html"""

from graphtorch.optim import lr_scheduler, swa_utils
from graphtorch.optim.adafactor import Adafactor
from graphtorch.optim.adagrad import Adadelta, Adagrad
from graphtorch.optim.adam import Adam, AdamW
from graphtorch.optim.adam_variants import Adamax, NAdam, RAdam
from graphtorch.optim.asgd import ASGD
from graphtorch.optim.lbfgs import LBFGS
from graphtorch.optim.muon import Muon
from graphtorch.optim.optimizer import Optimizer
from graphtorch.optim.rmsprop import RMSprop
from graphtorch.optim.rprop import Rprop
from graphtorch.optim.sgd import SGD
from graphtorch.optim.sparse_adam import SparseAdam
from graphtorch.optim.swapping import swap_in_optimizer_params_and_state

__all__ = [
    "ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "AdamW", "Adamax", "LBFGS", "Muon", "NAdam", "Optimizer",
    "RAdam", "RMSprop", "Rprop", "SGD", "SparseAdam", "lr_scheduler", "swa_utils",
    "swap_in_optimizer_params_and_state",
]  # fmt: skip
