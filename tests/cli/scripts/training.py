"""Trains a small network; a user's script as `graphtorch dump` sees it."""

import sys

import graphtorch as torch
from graphtorch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
images, labels = torch.randn(6, 4), torch.arange(6) % 3


@torch.compile
def step(images, labels):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    optimizer.step()
    return loss


def main():
    for count in map(int, sys.argv[1:] or ["6"]):
        print("loss", step(images[:count], labels[:count]).item())


if __name__ == "__main__":
    main()
