"""Broadcasting, views and copies, contiguity, advanced indexing, in-place rules."""

import torch

x = torch.empty(5, 3, 4, 1)
y = torch.empty(3, 1, 1)
print(
    (x + y).size(),
    torch.broadcast_shapes((2, 1), (3,)),
    *[t.shape for t in torch.broadcast_tensors(torch.ones(2, 1), torch.ones(3))],
)
for a, b in [((0,), (2, 2)), ((5, 2, 4, 1), (3, 1, 1)), ((2,), (3,))]:
    try:
        print((torch.empty(a) + torch.empty(b)).shape)
    except RuntimeError as error:
        print(str(error).splitlines()[0])
t = torch.arange(12)
v = t.view(3, 4)
print(v, v.t(), v.t().is_contiguous(), v.t().stride(), v.stride())
v[0, 0] = 99
print(t[0], v.storage_offset(), v[1].storage_offset(), v[1:, ::2].stride())
try:
    v.t().view(12)
except RuntimeError as error:
    print(str(error).splitlines()[0])
print(v.t().reshape(12), v.t().contiguous().view(2, 6))
print(
    v.transpose(0, 1).data_ptr() == v.data_ptr(),
    v.reshape(4, 3).data_ptr() == v.data_ptr(),
    v.t().reshape(12).data_ptr() == v.data_ptr(),
)
m = torch.arange(24).reshape(2, 3, 4)
print(m[0], m[:, 1], m[..., 2], m[1, 2, 3], m[:, None].shape, m[None, ..., None].shape, m[:, -1:, ::2], sep="\n")
print(m[[0, 1], [2, 0]], m[torch.tensor([1])], m[:, torch.tensor([[0, 2]])].shape, m[m > 20], sep="\n")
print(m[:, [True, False, True]].shape, m[(m % 5 == 0)], torch.where(m > 12, m, -1)[1], sep="\n")
m[0, :, [0, 1]] = 0
m[m > 20] = -7
m[1, 1] += 100
print(m)
print(torch.nonzero(m < 0), (m < 0).nonzero(as_tuple=True), torch.masked_select(m, m > 100), sep="\n")
print(
    m.gather(2, torch.zeros(2, 3, 1, dtype=torch.long)).squeeze(),
    m.index_select(1, torch.tensor([2, 0])).shape,
    m.take(torch.tensor([0, 5])),
)
z = torch.zeros(3, 5, dtype=torch.long)
print(
    z.scatter_(0, torch.tensor([[0, 1, 2, 0, 0]]), torch.arange(5)[None]),
    z.scatter_add(1, torch.tensor([[1], [1], [0]]), torch.ones(3, 1, dtype=torch.long)),
)
print(
    torch.arange(9).unfold(0, 3, 2),
    torch.arange(6).chunk(4),
    torch.arange(7).split([2, 5]),
    torch.arange(6).tensor_split(4),
)
print(
    torch.stack([torch.ones(2), torch.zeros(2)], 1),
    torch.hstack((torch.ones(2), torch.zeros(1))),
    torch.vstack((torch.ones(2), torch.zeros(2))),
)
print(
    torch.arange(4).repeat(2),
    torch.arange(4).repeat_interleave(2),
    torch.arange(2).expand(3, 2),
    torch.arange(4).tile(2, 1),
    torch.arange(4).roll(1),
    torch.arange(4).flip(0),
    sep="\n",
)
e = torch.zeros(3, 1).expand(3, 4)
print(e.stride())
try:
    e.add_(1)
except RuntimeError as error:
    print(str(error).splitlines()[0])
w = torch.arange(6.0).reshape(2, 3)
w.t_()
print(
    w, w.unsqueeze_(0).shape, w.squeeze_().shape, w.transpose_(0, 1), w.resize_(1, 4), w.set_(torch.ones(2)), sep="\n"
)
print(
    torch.arange(3).as_strided((2, 2), (1, 1)),
    torch.diagonal(torch.arange(9).view(3, 3), 1),
    torch.movedim(m, 0, 2).shape,
    m.permute(2, 0, 1).shape,
)
n = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
print(
    n.stride(),
    n.is_contiguous(),
    n.is_contiguous(memory_format=torch.channels_last),
    (n + 1).stride(),
    n.contiguous().stride(),
    torch.empty_like(n).stride(),
)
