"""Data sets of images as `utils.data.Dataset`s; files are downloaded on request, checked, and read without executing
anything. See https://docs.pytorch.org/vision/stable/datasets.html."""

from graphtorch.vision.datasets.cifar import CIFAR10, CIFAR100
from graphtorch.vision.datasets.fakedata import FakeData
from graphtorch.vision.datasets.folder import DatasetFolder, ImageFolder
from graphtorch.vision.datasets.mnist import KMNIST, MNIST, FashionMNIST
from graphtorch.vision.datasets.vision import VisionDataset

__all__ = [
    "CIFAR10",
    "CIFAR100",
    "DatasetFolder",
    "FakeData",
    "FashionMNIST",
    "ImageFolder",
    "KMNIST",
    "MNIST",
    "VisionDataset",
]
