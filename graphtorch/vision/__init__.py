"""Images: data sets, transforms, models and grids of images, with torchvision's names and behaviour.

`import graphtorch.vision as torchvision` runs the usual programs. See https://docs.pytorch.org/vision/stable/."""

from graphtorch.vision import datasets, models, ops, transforms, utils

__all__ = ["datasets", "models", "ops", "transforms", "utils"]
