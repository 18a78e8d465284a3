"""Optimizers and learning rate schedules. See https://docs.pytorch.org/docs/stable/optim.html"""

from graphtorch.optim import lr_scheduler
from graphtorch.optim.adam import Adam, AdamW
from graphtorch.optim.optimizer import Optimizer
from graphtorch.optim.sgd import SGD

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]
