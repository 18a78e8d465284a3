"""History of tensors, leaves, hooks, accumulation, errors of in-place operations, saved tensors."""

import torch

x = torch.linspace(0.0, 2.0 * 3.14159, steps=5, requires_grad=True)
print(x)
y = torch.sin(x)
print(y)
c = 2 * y
d = c + 1
out = d.sum()
print(c, d, out, sep="\n")
print(d.grad_fn.name())
fn = out.grad_fn
while fn is not None:
    print(fn.name(), len(fn.next_functions))
    fn = fn.next_functions[0][0] if fn.next_functions else None
out.backward()
print(x.grad, y.is_leaf, x.is_leaf)
try:
    out.backward()
except RuntimeError as error:
    print(str(error)[:60])

a = torch.ones(2, 3, requires_grad=True)
b1 = 2 * a
print(b1)
with torch.no_grad():
    print(a + 1)
with torch.enable_grad(), torch.no_grad():
    print((a * 2).requires_grad)


@torch.no_grad()
def doubler(t):
    return t * 2


print(doubler(a), torch.is_grad_enabled())
try:
    a += 1
except RuntimeError as error:
    print(error.args[0].splitlines()[0])
p = torch.rand(3, requires_grad=True)
s = p.exp()
s.mul_(2)
try:
    s.sum().backward()
except RuntimeError as error:
    print("saved value changed:", "modified by an inplace operation" in str(error), "version 1" in str(error))

w = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
seen = []
handle = w.register_hook(lambda g: seen.append(g.clone()))
(w * w).sum().backward()
handle.remove()
(w * w).sum().backward()
print(seen, w.grad)
w.grad.zero_()
h = w.register_hook(lambda g: g * 2)
(w.pow(3)).sum().backward()
print(w.grad)
h.remove()

u = torch.ones(3, requires_grad=True)
v = u * 3
v.retain_grad()
z = (v * v).mean()
z.backward()
print(v.grad, u.grad, v.retains_grad)
print(torch.autograd.grad((u * u).sum(), u))
q = torch.ones(2, requires_grad=True)
unused = torch.ones(2, requires_grad=True)
print(torch.autograd.grad(q.sum(), [q, unused], allow_unused=True))
try:
    torch.autograd.grad(q.sum(), [q, unused])
except RuntimeError as error:
    print(str(error).splitlines()[0])
t = torch.tensor(2.0, requires_grad=True)
f = t**4
(g1,) = torch.autograd.grad(f, t, create_graph=True)
(g2,) = torch.autograd.grad(g1, t, create_graph=True)
(g3,) = torch.autograd.grad(g2, t)
print(f, g1, g2, g3, sep="\n")
m = torch.randn(2, 2)
print(m.requires_grad, (m * m).sum().requires_grad)
m.requires_grad_(True)
print((m * m).sum().grad_fn is not None)
view = m.detach()
print(view.requires_grad, view.data_ptr() == m.data_ptr())
with torch.inference_mode():
    inf = m * 2
print(inf.is_inference(), inf.requires_grad)
try:
    inf * m
except RuntimeError as error:
    print(str(error)[:58])
base = torch.zeros(4, requires_grad=True) * 1
part = base[1:3]
part.fill_(5)
print(base, part)
base.sum().backward()
try:
    torch.tensor([1, 2], requires_grad=True)
except RuntimeError as error:
    print(error)
lin = torch.nn.Linear(2, 1)
for par in lin.parameters():
    par.requires_grad = False
print(lin(torch.ones(1, 2)).requires_grad)
