"""A compiled model whose backward pass is started outside of it; a user's script as `graphtorch dump` sees it."""

import graphtorch as torch
from graphtorch import nn


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(4, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        return self.out(self.hidden(x).tanh()).softmax(-1)


torch.manual_seed(0)
model = torch.compile(Model())
model(torch.randn(3, 4)).square().sum().backward()
