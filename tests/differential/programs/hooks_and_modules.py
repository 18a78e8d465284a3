"""Forward and backward hooks, buffers, containers, apply, named iteration, module surgery."""

from collections import OrderedDict

import torch
import torch.nn as nn

torch.manual_seed(0)
activation = {}


def get_activation(name):
    def hook(model, input, output):
        activation[name] = output.detach()

    return hook


model = nn.Sequential(OrderedDict([("fc1", nn.Linear(4, 3)), ("act", nn.ReLU()), ("fc2", nn.Linear(3, 2))]))
handle = model.fc1.register_forward_hook(get_activation("fc1"))
x = torch.randn(2, 4)
y = model(x)
print(activation["fc1"])
handle.remove()
grads = []
model.fc2.register_full_backward_hook(lambda m, gi, go: grads.append((gi[0].shape, go[0])))
pre = model.act.register_forward_pre_hook(lambda m, args: (args[0] * 2,))
model(x).sum().backward()
print(grads)
pre.remove()
model.fc1.register_full_backward_pre_hook(lambda m, go: print("pre", go[0].shape))
model(x).mean().backward()
print(model.fc1.weight.grad)
for name, p in model.named_parameters():
    print(name, tuple(p.shape), p.requires_grad)
print([n for n, _ in model.named_modules()], [type(m).__name__ for m in model.modules()])


@torch.no_grad()
def init_weights(m):
    print(m)
    if type(m) == nn.Linear:
        m.weight.fill_(1.0)


model.apply(init_weights)
model.add_module("extra", nn.Sigmoid())
print(model, len(model), model[-1], model[0:2])
del model.extra
model[1] = nn.Tanh()
print(model)


class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scratch", torch.zeros(2), persistent=False)
        self.layers = nn.ModuleList([nn.Linear(2, 2) for _ in range(2)])
        self.table = nn.ModuleDict({"a": nn.Linear(2, 1), "b": nn.Identity()})
        self.scales = nn.ParameterList([nn.Parameter(torch.ones(2)) for _ in range(2)])
        self.named = nn.ParameterDict({"w": nn.Parameter(torch.zeros(3))})

    def forward(self, x, which="a"):
        self.count += 1
        for layer, scale in zip(self.layers, self.scales):
            x = layer(x) * scale
        return self.table[which](x)

    def extra_repr(self):
        return "runs=yes"


r = Running()
r(torch.ones(1, 2))
r(torch.ones(1, 2), which="b")
print(r, list(r.state_dict()), r.count)
print(r.double().layers[0].weight.dtype, r.half().count.dtype, next(r.float().parameters()).dtype)
print(r.train(False).training, r.layers[0].training, r.eval() is r)
print(sum(p.numel() for p in r.parameters()), [n for n, _ in r.named_buffers()])
try:
    r.undefined
except AttributeError as error:
    print(error)
try:
    r.count = "text"
except TypeError as error:
    print(error)


class Broken(nn.Module):
    def __init__(self):
        self.fc = nn.Linear(2, 2)


try:
    Broken()
except AttributeError as error:
    print(error)
print(r.get_submodule("layers.1"), r.get_parameter("scales.0"))
r.requires_grad_(False)
print(any(p.requires_grad for p in r.parameters()))
shared = nn.Linear(2, 2)
tied = nn.Sequential(shared, shared)
print(len(list(tied.parameters())), list(tied.state_dict()))
