"""Functions of all kinds, each called once; a user's script as `graphtorch dump` sees it."""

import sys

from elsewhere import compiled_elsewhere, plain_elsewhere

import graphtorch as torch


class Scale:
    def __init__(self, factor):
        self.factor = factor

    def apply(self, x):
        return x * self.factor

    @staticmethod
    def double(x):
        return x + x

    @classmethod
    def halve(cls, x):
        return x / 2

    @property
    def tensor(self):
        return torch.full((2,), self.factor)


class Model(torch.nn.Module):
    def forward(self, x):
        return x.tanh()


def make(offset):
    def nested(x):
        return x - offset

    return nested


def plain(x, *, power=2):
    return x**power


@torch.compile(fullgraph=True)
def branches(x):
    if x.sum() > 0:
        return x
    return -x


def wrong(x):
    return x @ x


def never(x):
    return x


def recursive(x, depth):
    return x if depth == 0 else recursive(x.sin(), depth - 1)


by_call = torch.compile(lambda x: x.exp(), dynamic=True)
compiled_model = torch.compile(Model())


@torch.no_grad()
def quiet(x):
    return x.cos()


@torch.compile
def outer(x):
    return inner(x).sqrt()


def inner(x):
    return x.abs()


if __name__ == "__main__":
    print("arguments", sys.argv[1:])
    x = torch.arange(3, dtype=torch.float32)
    scale = Scale(3.0)
    scale.apply(x)
    Scale.double(x)
    Scale.halve(x)
    print(scale.tensor)
    make(5.0)(x)
    plain(x)
    plain(x, power=3)
    recursive(x, 2)
    by_call(x)
    compiled_model(x)
    quiet(x)
    compiled_elsewhere(x)
    plain_elsewhere(x)
    outer(x)
    branches(x)
    try:
        wrong(torch.ones(2, 3))
    except RuntimeError as error:
        print("as expected:", error)
