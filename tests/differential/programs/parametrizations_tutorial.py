"""Parametrized weights: symmetric, skew, composed; removal; intermediate right inverses; weight and spectral norm."""

import torch
import torch.nn as nn
import torch.nn.utils.parametrize as parametrize

torch.manual_seed(0)


class Symmetric(nn.Module):
    def forward(self, X):
        return X.triu() + X.triu(1).transpose(-1, -2)

    def right_inverse(self, A):
        return A.triu()


class Skew(nn.Module):
    def forward(self, X):
        A = X.triu(1)
        return A - A.transpose(-1, -2)


class MatrixExponential(nn.Module):
    def forward(self, X):
        return torch.matrix_exp(X)


layer = nn.Linear(3, 3)
parametrize.register_parametrization(layer, "weight", Symmetric())
A = layer.weight
print(torch.allclose(A, A.T))
print(A)
print(layer)
print(parametrize.is_parametrized(layer), parametrize.is_parametrized(layer, "bias"))
print(layer.parametrizations)
print(layer.parametrizations.weight[0], layer.parametrizations.weight.original)
print(dict((n, tuple(p.shape)) for n, p in layer.named_parameters()))
X = torch.rand(3, 3)
X = X + X.T
layer.weight = X
print(torch.allclose(layer.weight, X))
layer_orthogonal = nn.Linear(3, 3)
parametrize.register_parametrization(layer_orthogonal, "weight", Skew())
parametrize.register_parametrization(layer_orthogonal, "weight", MatrixExponential())
X = layer_orthogonal.weight
print((X.T @ X - torch.eye(3)).abs().max() < 1e-5)
with parametrize.cached():
    print(layer_orthogonal.weight is layer_orthogonal.weight)
opt = torch.optim.SGD(layer.parameters(), lr=0.1)
before = layer.weight.detach().clone()
layer(torch.ones(1, 3)).sum().backward()
opt.step()
print(layer.weight - before)
parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
print(layer, type(layer).__name__)
parametrize.remove_parametrizations(layer_orthogonal, "weight")
print(layer_orthogonal.weight.shape)
wn = nn.utils.parametrizations.weight_norm(nn.Linear(4, 2), name="weight")
print(wn, wn.weight.norm(dim=1), list(wn.state_dict()))
sn = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 2))
for _ in range(20):
    sn.weight
print(torch.linalg.matrix_norm(sn.weight, 2).sub(1).abs() < 1e-3)


class CayleyMap(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.register_buffer("Id", torch.eye(n))

    def forward(self, X):
        return torch.linalg.solve(self.Id - X, self.Id + X)


layer = nn.Linear(3, 3)
parametrize.register_parametrization(layer, "weight", Skew())
parametrize.register_parametrization(layer, "weight", CayleyMap(3))
X = layer.weight
print((X.T @ X - torch.eye(3)).abs().max() < 1e-5)
