"""NumPy, storages, pickling, deepcopy, Python protocols, DLPack, memory formats."""

import copy
import io
import pickle

import numpy as np
import torch

a = np.arange(6.0).reshape(2, 3)
t = torch.from_numpy(a)
t[0, 0] = 10
print(
    a,
    torch.as_tensor(a).data_ptr() == t.data_ptr(),
    torch.tensor(a).data_ptr() == t.data_ptr(),
    torch.asarray(a, copy=True).data_ptr() == t.data_ptr(),
)
print(
    np.sin(t),
    np.add(t, 1),
    np.asarray(t).dtype,
    np.array(t, dtype=np.float32).dtype,
    t.__array__().shape,
    np.max(t.numpy()),
    a + t.numpy(),
    t * t,
)
print(
    torch.tensor(np.float32(1.5)),
    torch.tensor([np.int64(1), np.int64(2)]),
    torch.tensor(np.array([1, 2], dtype=np.int32)),
    torch.tensor(np.bool_(True)),
)
s = t.untyped_storage()
print(
    s.nbytes(),
    len(s),
    t.storage_offset(),
    t[1].storage_offset(),
    t[1].untyped_storage().data_ptr() == s.data_ptr(),
    t.element_size(),
    t.nbytes,
    t.itemsize,
)
print(
    torch.ones(3).untyped_storage().tolist()[:4],
    t.numel(),
    t.nelement(),
    t.dim(),
    t.ndim,
    t.size(1),
    t.size(),
    t.stride(0),
    t.is_contiguous(),
)
x = torch.arange(4.0).requires_grad_()
y = copy.deepcopy(x)
z = copy.copy(x)
print(
    y,
    y is x,
    y.data_ptr() == x.data_ptr(),
    z.data_ptr() == x.data_ptr(),
    pickle.loads(pickle.dumps(x)),
    pickle.loads(pickle.dumps(t.t())).stride(),
)
try:
    copy.deepcopy(x * 2)
except RuntimeError as error:
    print(str(error)[:60])
v = torch.arange(5)
pair = copy.deepcopy([v, v[1:3]])
pair[0][1] = 100
print(pair)
print(
    len(t),
    [r.tolist() for r in t],
    10.0 in t,
    t.tolist(),
    bool(torch.tensor([1])),
    list(map(int, v)),
    v[torch.tensor(2)],
    {v: 1}[v],
    hash(v) == id(v),
    sorted([torch.tensor(3), torch.tensor(1)]),
)
for bad in (
    lambda: bool(v),
    lambda: len(torch.tensor(1)),
    lambda: int(v),
    lambda: iter(torch.tensor(1)),
    lambda: x.numpy(),
    lambda: torch.from_numpy([1]),
    lambda: np.asarray(x),
    lambda: [0][torch.tensor(1.0)],
    lambda: v.item(),
):
    try:
        print(bad())
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0])
print(
    torch.from_dlpack(t).data_ptr() == t.data_ptr(),
    np.from_dlpack(t).shape,
    torch.utils.dlpack.from_dlpack(torch.utils.dlpack.to_dlpack(v)),
    t.__dlpack_device__(),
)
print(
    torch.frombuffer(bytearray(b"\x01\x00\x02\x00"), dtype=torch.int16),
    torch.frombuffer(np.arange(4, dtype=np.uint8), dtype=torch.uint8, offset=1, count=2),
)
n = torch.arange(48.0).reshape(1, 3, 4, 4).contiguous(memory_format=torch.channels_last)
print(
    n.stride(),
    n[0, :, 0, 0],
    n.is_contiguous(memory_format=torch.channels_last),
    (n * 2).stride(),
    n.clone().stride(),
    n.clone(memory_format=torch.contiguous_format).stride(),
    torch.nn.functional.relu(n).stride(),
    n.permute(0, 2, 3, 1).is_contiguous(),
    n.to(torch.float64).stride(),
)
conv = torch.nn.Conv2d(3, 2, 3).to(memory_format=torch.channels_last)
print(conv.weight.stride(), conv(n).stride(), conv(n).is_contiguous(memory_format=torch.channels_last))
print(
    t.T.shape,
    t.mT.shape,
    t.H.shape,
    t.new_zeros(2).dtype,
    t.new_tensor([1, 2]),
    t.new_full((2,), 3),
    t.new_ones(1, dtype=torch.int32),
    t.new_empty(0).shape,
)
p = torch.zeros(2, 3)
p.data = torch.ones(3, 2)
print(p.shape, p.data.requires_grad, p._version, p.add_(1)._version, p.detach()._version)
q = torch.zeros(3)
q.resize_(2, 2)
q.fill_(1)
print(q, q.resize_as_(torch.ones(1)), q.set_(torch.arange(3.0)), q.storage_offset())
buffer = io.BytesIO()
torch.save({"t": t, "view": t[1], "n": np.int64(3).item()}, buffer)
print(torch.load(io.BytesIO(buffer.getvalue())))
print(
    torch.empty(2, 3, device="meta").add(1),
    torch.empty(2, device="meta").device,
    torch.ones(2, 3).to("meta").shape,
    (torch.ones(2, device="meta") + 1).device,
)
print(
    torch.get_default_device(),
    torch.tensor([1]).to(torch.device("cpu")).device,
    torch.tensor([1]).cpu().is_cpu,
    t.get_device(),
    torch.cuda.is_available(),
    torch.cuda.device_count(),
)
for bad in (
    lambda: torch.ones(1, device="cuda"),
    lambda: torch.ones(1).cuda(),
    lambda: torch.device("gpu"),
    lambda: torch.ones(1) + torch.ones(1, device="meta"),
    lambda: torch.empty(1, device="meta").item(),
    lambda: torch.ones(1, device="meta").numpy(),
):
    try:
        print(bad())
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0][:60])
