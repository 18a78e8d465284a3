"""torch.func: grad, vmap, jacobians, hessians, per-sample gradients, ensembles."""

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.func import functional_call, grad, hessian, jacfwd, jacrev, jvp, stack_module_state, vjp, vmap

torch.manual_seed(0)
print(grad(torch.sin)(torch.tensor(1.0)), grad(grad(torch.sin))(torch.tensor(1.0)))
weights, features = torch.randn(3), torch.randn(5, 3)
print(vmap(torch.dot, in_dims=(0, None))(features, weights))


def predict(weight, bias, x):
    return F.linear(x, weight, bias).tanh()


D = 4
weight, bias, x = 0.3 * torch.randn(D, D), torch.randn(D), 0.3 * torch.randn(D)
unit = torch.eye(D)
xp = x.clone().requires_grad_()
rows = [torch.autograd.grad(predict(weight, bias, xp), xp, vec)[0] for vec in unit]
jacobian = torch.stack(rows)
print(jacobian)
_, vjp_fn = vjp(lambda x: predict(weight, bias, x), x)
(ft_jacobian,) = vmap(vjp_fn)(unit)
print(torch.allclose(ft_jacobian, jacobian))
print(torch.allclose(jacrev(predict, argnums=2)(weight, bias, x), jacobian))
print(torch.allclose(jacfwd(predict, argnums=2)(weight, bias, x), jacobian, atol=1e-6))
print(jacrev(predict, argnums=0)(weight, bias, x).shape)
print(hessian(lambda x: (x**3).sum())(torch.tensor([1.0, 2.0])))
out, tangent = jvp(torch.sin, (torch.tensor([0.5, 1.0]),), (torch.ones(2),))
print(out, tangent)
model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
params = {k: v.detach() for k, v in model.named_parameters()}
data, targets = torch.randn(6, 3), torch.randint(0, 2, (6,))


def compute_loss(params, sample, target):
    prediction = functional_call(model, params, (sample.unsqueeze(0),))
    return F.cross_entropy(prediction, target.unsqueeze(0))


per_sample = vmap(grad(compute_loss), in_dims=(None, 0, 0))(params, data, targets)
for name, g in per_sample.items():
    print(name, g.shape)
whole = grad(lambda p: F.cross_entropy(functional_call(model, p, (data,)), targets))(params)
print(torch.allclose(per_sample["0.weight"].mean(0), whole["0.weight"], atol=1e-6))
models = [nn.Linear(3, 2) for _ in range(4)]
stacked, buffers = stack_module_state(models)
print({k: v.shape for k, v in stacked.items()}, buffers)
base = nn.Linear(3, 2, device="meta")
together = vmap(lambda p, b, x: functional_call(base, (p, b), (x,)), in_dims=(0, 0, None))(stacked, buffers, data)
apart = torch.stack([m(data) for m in models])
print(together.shape, torch.allclose(together, apart, atol=1e-6))
print(torch.autograd.functional.jacobian(lambda t: t.exp(), torch.tensor([0.0, 1.0])))
print(torch.autograd.functional.hessian(lambda t: t.pow(3).sum(), torch.tensor([1.0, 2.0])))
print(torch.autograd.functional.vjp(lambda t: t.sum(), torch.ones(2)))
print(vmap(lambda a, b: a * b, in_dims=(1, 0), out_dims=1)(torch.arange(6.0).view(2, 3), torch.ones(3, 2)).shape)
print(vmap(vmap(torch.mul))(torch.ones(2, 3), torch.arange(6.0).view(2, 3)))
