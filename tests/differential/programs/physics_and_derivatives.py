"""Second derivatives in losses, Jacobians of solutions, implicit layers, Hessian-vector products, Newton's method."""

import math

import torch
from torch import nn

torch.manual_seed(0)
net = nn.Sequential(nn.Linear(1, 12), nn.Tanh(), nn.Linear(12, 1)).double()
t = torch.linspace(0, 1, 12, dtype=torch.float64).reshape(-1, 1).requires_grad_()
optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
for step in range(60):
    u = net(t)
    (du,) = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)
    (ddu,) = torch.autograd.grad(du, t, torch.ones_like(du), create_graph=True)
    loss = (ddu + u).pow(2).mean() + (u[0] - 1).pow(2).sum() + du[0].pow(2).sum()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 19:
        print(step, f"{loss.item():.5f}")
x = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
for i in range(5):
    f = x**3 - 2 * x - 5
    (g,) = torch.autograd.grad(f, x)
    x = (x - f / g).detach().requires_grad_()
    print(i, x.item())
A = torch.tensor([[3.0, 1.0], [1.0, 2.0]], dtype=torch.float64, requires_grad=True)
b = torch.tensor([1.0, 4.0], dtype=torch.float64)
s = torch.linalg.solve(A, b)
s.sum().backward()
print(s, A.grad)


def rosenbrock(p):
    return (1 - p[0]) ** 2 + 100 * (p[1] - p[0] ** 2) ** 2


p = torch.tensor([-1.2, 1.0], dtype=torch.float64)
for i in range(6):
    g = torch.func.grad(rosenbrock)(p)
    H = torch.func.hessian(rosenbrock)(p)
    p = p - torch.linalg.solve(H, g)
    print(i, p, f"{rosenbrock(p):.3e}" if rosenbrock(p) > 1e-12 else "done")
v = torch.tensor([1.0, 0.5], dtype=torch.float64)
print(torch.autograd.functional.hvp(rosenbrock, torch.tensor([1.0, 1.0], dtype=torch.float64), v))
q = torch.tensor([1.0, 1.0], dtype=torch.float64, requires_grad=True)
(first,) = torch.autograd.grad(rosenbrock(q), q, create_graph=True)
(hv,) = torch.autograd.grad(first @ v, q)
print(hv, first)
steps = torch.zeros(5)
state = torch.tensor([1.0, 0.0])
for i in range(5):
    k1 = torch.stack([state[1], -state[0]])
    mid = state + 0.05 * k1
    state = state + 0.1 * torch.stack([mid[1], -mid[0]])
    steps[i] = state[0]
print(steps, torch.cos(torch.arange(1, 6) * 0.1))
print(
    torch.trapezoid(torch.sin(torch.linspace(0, math.pi, 101))) * math.pi / 100,
    torch.gradient(torch.tensor([1.0, 4.0, 9.0, 16.0]))[0],
)
print(
    torch.cumulative_trapezoid(torch.tensor([1.0, 2.0, 3.0])),
    torch.diff(torch.tensor([1, 4, 9])),
    torch.vander(torch.tensor([1, 2, 3])),
)
