"""Making tensors, their attributes, indexing, joining, arithmetic, the bridge to NumPy."""

import numpy as np
import torch

x = torch.empty(3, 4)
print(type(x), x.shape, x.dtype)
print(torch.zeros(2, 3), torch.ones(2, 3), sep="\n")
torch.manual_seed(1729)
r1 = torch.rand(2, 3)
r2 = torch.rand(2, 3)
torch.manual_seed(1729)
r3 = torch.rand(2, 3)
print(r1, r2, r3, torch.equal(r1, r3), sep="\n")
x = torch.empty(2, 2, 3)
for like in (torch.empty_like(x), torch.zeros_like(x), torch.ones_like(x), torch.rand_like(x)):
    print(like.shape)
constants = torch.tensor([[3.1415926, 2.71828], [1.61803, 0.0072897]])
print(constants)
print(torch.tensor((2, 3, 5, 7, 11, 13, 17, 19)))
print(torch.tensor(((2, 4, 6), [3, 6, 9])))
a = torch.ones((2, 3), dtype=torch.int16)
b = torch.rand((2, 3), dtype=torch.float64) * 20.0
print(a, b, b.to(torch.int32), sep="\n")
ones = torch.zeros(2, 2) + 1
twos = torch.ones(2, 2) * 2
threes = (torch.ones(2, 2) * 7 - 1) / 2
fours = twos**2
sqrt2s = twos**0.5
for t in (ones, twos, threes, fours, sqrt2s):
    print(t)
powers2 = twos ** torch.tensor([[1, 2], [3, 4]])
print(powers2, ones + fours, threes * ones)
try:
    torch.rand(2, 3) * torch.rand(3, 2)
except RuntimeError as error:
    print("error:", str(error).splitlines()[0])
rand = torch.rand(2, 4)
doubled = rand * (torch.ones(1, 4) * 2)
print(rand, doubled, sep="\n")
a = torch.ones(4, 3, 2)
print((a * torch.rand(3, 2)).shape, (a * torch.rand(3, 1)).shape, (a * torch.rand(1, 2)).shape)
a = torch.rand(2, 4) * 2 - 1
print(torch.abs(a), torch.ceil(a), torch.floor(a), torch.clamp(a, -0.5, 0.5), sep="\n")
angles = torch.tensor([0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
sines = torch.sin(angles)
print(angles, sines, torch.asin(sines), sep="\n")
b = torch.tensor([5, 11])
c = torch.tensor([7, 3])
print(torch.bitwise_xor(b, c), torch.bitwise_and(b, c), b << 1, c >> 1, ~b)
d = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
e = torch.ones(1, 2)
print(torch.eq(d, e), d > 2, (d == 2).any(), (d > 0).all())
print(torch.max(d), torch.max(d).item(), torch.mean(d), torch.std(d), torch.prod(d))
print(torch.unique(torch.tensor([1, 2, 1, 2, 1, 2])))
v1 = torch.tensor([1.0, 0.0, 0.0])
v2 = torch.tensor([0.0, 1.0, 0.0])
m1 = torch.rand(2, 2)
m2 = torch.tensor([[3.0, 0.0], [0.0, 3.0]])
print(torch.linalg.cross(v2, v1), m1, torch.linalg.matmul(m1, m2), torch.linalg.svd(m2).S)
a = torch.tensor([0, np.pi / 4, np.pi / 2, 3 * np.pi / 4])
print(torch.sin(a), a, torch.sin_(a), a, sep="\n")
a = torch.ones(2, 2)
b = torch.rand(2, 2)
c = torch.zeros(2, 2)
old_id = id(c)
d = torch.matmul(a, b, out=c)
print(c is d, id(c) == old_id, a.add_(b), b.mul_(b), sep="\n")
b = a
a[0][1] = 561
print(b)
b = a.clone()
a[0][1] = 1
print(b[0][1], torch.eq(a, b))
a = torch.rand(2, 2, requires_grad=True)
b = a.clone()
c = a.detach().clone()
print(a, b, c, a, sep="\n")
print("gpu" if torch.cuda.is_available() else "cpu only")
a = torch.rand(3, 226, 226)
print(a.unsqueeze(0).shape, a.unsqueeze(0).squeeze(0).shape, torch.rand(1, 1, 1, 1))
print(a.reshape(3 * 226 * 226).shape, torch.reshape(a, (3, -1)).shape)
numpy_array = np.ones((2, 3))
pytorch_tensor = torch.from_numpy(numpy_array)
numpy_array[1, 1] = 23
print(pytorch_tensor)
pytorch_rand = torch.rand(2, 3)
numpy_rand = pytorch_rand.numpy()
pytorch_rand[1, 1] = 17
print(numpy_rand)
