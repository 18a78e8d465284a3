"""Tensors beside other libraries, their storages, copies and the types around them, each expression on both libraries.

An expression's value prints the same in PyTorch, or raises the same class of exception with the same first line."""

from __future__ import annotations

import array
import copy
import importlib
import pickle
from typing import Any

import numpy as np
import pytest

import graphtorch

pytestmark = pytest.mark.filterwarnings("ignore")


class Frame:
    """Like a pandas Series: values behind `__array__`."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.arange(3.0, dtype=dtype)

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> float:
        return [0.0, 1.0, 2.0][index]


def shown(name: str, expression: str) -> str:
    """What an expression prints with `t` the library of that name, `x` a tensor and `n` an array."""
    t = importlib.import_module(name)
    around = {"t": t, "np": np, "array": array, "copy": copy, "pickle": pickle, "Frame": Frame}
    try:
        value = eval(expression, {**around, "x": t.arange(3.0), "n": np.arange(3.0)})
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
    home = type(value).__module__.partition(".")[0].replace("graphtorch", "torch")
    return f"{home}.{type(value).__name__} {value!r}"


NUMPY = """
np.add(x,1)
np.asarray(x)
n*x
x*n
n+x
x+n
n@x
n==x
np.float64(2)*x
x*np.float64(2)
np.float32(2)+x
np.sin(x)
np.multiply(n,x)
np.exp(x).dtype
np.maximum(x,n)
np.concatenate([x,x])
np.stack([x,x])
np.array([x,x])
np.array(x,dtype=np.int32)
np.isfinite(x)
np.dot(x,n)
np.asarray(t.ones(2,requires_grad=True))
np.sqrt(t.tensor(4))
np.add(n,x,out=n)
np.shape(x)
np.ones(3)<x
x<np.ones(3)
"""
DATA = """
t.tensor(Frame())
t.as_tensor(Frame())
t.tensor([Frame(),Frame()])
t.asarray(Frame())
t.tensor(array.array('i',[1,2]))
t.tensor(memoryview(b'ab'))
t.frombuffer(b'abcd',dtype=t.uint8)
t.frombuffer(bytearray(8),dtype=t.float32)
t.frombuffer(bytearray(8),dtype=t.float32,offset=4)
t.frombuffer(bytearray(8),dtype=t.float32,count=1)
t.frombuffer(bytearray(6),dtype=t.float32)
t.frombuffer(bytearray(0),dtype=t.float32)
t.frombuffer(bytearray(8),dtype=t.float32,count=0)
t.frombuffer(bytearray(8),dtype=t.float32,offset=9)
t.frombuffer(3,dtype=t.float32)
t.asarray(memoryview(bytearray(8)))
t.asarray(bytearray(8),dtype=t.float32)
t.asarray(array.array('f',[1,2]))
t.tensor(np.float32(2))
t.tensor(np.int16(2))
t.tensor([np.float32(2)])
t.tensor([np.array([1,2]),np.array([3,4])])
t.as_tensor(np.float64(2))
t.from_numpy(np.array(2))
t.from_numpy(np.float32(2))
t.tensor(range(3))
t.tensor({1:2})
t.tensor({1,2})
t.tensor("abc")
t.tensor(None)
t.tensor(x.shape)
"""
DLPACK = """
x.__dlpack_device__()
type(x.__dlpack__()).__name__
np.from_dlpack(x)
t.from_dlpack(n)
t.from_dlpack(x)
t.utils.dlpack.from_dlpack(t.utils.dlpack.to_dlpack(x))
t.from_dlpack(3)
t.ones(2,requires_grad=True).__dlpack__()
t.ones(2,dtype=t.bool).__dlpack__() and 1
np.from_dlpack(t.ones(2,dtype=t.bool))
t.ones(2,device='meta').__dlpack__()
t.from_dlpack(np.ones((2,3)).T).stride()
"""
STORAGE = """
x.is_shared()
t.zeros(2).storage().tolist()
t.zeros(2).storage()
t.zeros(2).untyped_storage()
t.is_storage(x.storage())
t.is_storage(x.untyped_storage())
t.is_storage(x)
t.UntypedStorage(4).nbytes()
x.untyped_storage().device
x.storage_offset(), x[1:].storage_offset()
t.arange(6.).resize_(2,2)
t.arange(6.)[:4].resize_(6)
t.empty(0).resize_(2,3).shape
t.ones(2,requires_grad=True).resize_(3)
t.ones(3).set_(t.arange(2.))
t.ones(3).set_()
t.ones(3).set_(t.arange(4.).untyped_storage(),1,(2,),(1,))
t.ones(3).set_(t.ones(3,dtype=t.int32))
t.ones(2).set_(t.ones(5),-1,(2,),(2,))
t.ones(2).resize_as_(t.ones(2,3)).shape
"""
FORMATS = """
t.ones(2,3,4,5).contiguous(memory_format=t.channels_last).stride()
t.ones(2,3,4,5).to(memory_format=t.channels_last).is_contiguous(memory_format=t.channels_last)
t.ones(2,3,4,5).is_contiguous(memory_format=t.channels_last)
t.ones(2,1,4,5).is_contiguous(memory_format=t.channels_last)
t.ones(2,3,1,1).is_contiguous(memory_format=t.channels_last)
t.ones(2,3,4,5).contiguous(memory_format=t.channels_last).is_contiguous()
t.ones(2,3,4,5).contiguous(memory_format=t.channels_last).clone().stride()
t.ones(2,3).is_contiguous(memory_format=t.channels_last)
t.ones(2,3).contiguous(memory_format=t.channels_last)
t.ones(1,2,3,4,5).contiguous(memory_format=t.channels_last_3d).stride()
t.ones(2,3).t().is_contiguous()
t.ones(2,3).is_contiguous(memory_format=t.preserve_format)
t.ones(2,3,4,5).is_contiguous(memory_format=t.contiguous_format)
t.strided, t.channels_last
"""
SIZE = """
t.Size([1,2])+t.Size([3])
t.Size([1,2])+(3,)
(3,)+t.Size([1,2])
t.Size([1,2])+[3]
t.Size([1,2])*2
2*t.Size([1,2])
t.Size([1,2,3])[1:]
t.Size([1,2,3]).numel()
t.Size([])
t.Size([]).numel()
t.Size((1.5,))
t.Size(3)
t.Size([t.tensor(2)])
t.Size([1,2])==(1,2)
hash(t.Size([1,2]))==hash((1,2))
t.Size([1,2]).count(1)
t.Size([1,2]).index(2)
"""
DEVICE = """
t.device('cuda')
t.device('cuda',1)
t.device('cuda:1').index
t.device('foo')
t.device('cuda:x')
t.device('cpu:0')
t.device('cpu')==t.device('cpu',0)
t.device('cpu')=='cpu'
str(t.device('cuda:1'))
t.device(type='cuda',index=2)
t.device('cuda:1',2)
t.device('')
t.get_default_device()
t.set_default_device('meta') or t.ones(2).device
t.set_default_device(None) or t.ones(2).device
[t.set_default_device('meta'), t.get_default_device(), t.set_default_device('cpu')][1]
t.set_default_device(None)
[t.device('meta').__enter__(), t.zeros(2).device, t.device('meta').__exit__(None,None,None)][1]
t.Generator().device
"""
RANDOM = """
t.get_rng_state().dtype, t.get_rng_state().shape
[t.manual_seed(3), t.rand(2), t.set_rng_state(t.manual_seed(3).get_state())][1]
t.Generator().manual_seed(4).initial_seed()
t.random.get_rng_state().shape
t.initial_seed.__name__
t.manual_seed(2**70)
t.manual_seed(-1).initial_seed()
"""
OTHER = """
memoryview(x)
t.ones(2,3,4,5).stride(1)
t.ones(2,3).size(-1)
t.ones(2,3).size(2)
t.ones(2,3).stride(2)
t.float32.itemsize, t.float32.is_floating_point, t.int8.is_signed
t.float32.to_complex(), t.complex64.to_real()
t.typename(x), t.typename(3)
x.type()
x.type('torch.DoubleTensor')
x.type(t.int32)
t.ones(2).is_same_size(x)
t.finfo(t.float32)
t.finfo(t.bfloat16)
t.iinfo(t.int8)
t.finfo(t.float16).eps
x.data_ptr()==x[0:].data_ptr()
x.element_size(), x.nbytes, x.itemsize
x.new_tensor([1,2])
"""
COPIES = """
pickle.loads(pickle.dumps(t.Size([1])))
pickle.loads(pickle.dumps(t.float32)) is t.float32
pickle.loads(pickle.dumps(t.device('cuda:1')))
copy.deepcopy(t.float32) is t.float32
copy.deepcopy(t.device('cpu'))
pickle.loads(pickle.dumps(t.channels_last)) is t.channels_last
pickle.loads(pickle.dumps(t.strided)) is t.strided
copy.deepcopy(t.ones(2,requires_grad=True))
copy.deepcopy(t.ones(2,requires_grad=True)*2)
copy.copy(x)
pickle.loads(pickle.dumps(x))
pickle.loads(pickle.dumps(t.ones(2,requires_grad=True)))
pickle.loads(pickle.dumps(t.nn.Parameter(x)))
(lambda d: d[0].data_ptr()==d[1].data_ptr())(copy.deepcopy([x,x.view(3,1)]))
pickle.loads(pickle.dumps(t.nn.Linear(2,2)))
copy.deepcopy(x[1:]).storage_offset()
copy.deepcopy(t.ones(2,3).t()).stride()
copy.deepcopy(t.ones(3).expand(2,3)).stride()
"""
EXPRESSIONS = [
    line
    for group in (NUMPY, DATA, DLPACK, STORAGE, FORMATS, SIZE, DEVICE, RANDOM, OTHER, COPIES)
    for line in group.strip().splitlines()
]


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_expression(expression: str) -> None:
    pytest.importorskip("torch")
    ours, theirs = shown("graphtorch", expression), shown("torch", expression)
    assert ours == theirs


# -- what PyTorch has not, or does otherwise --------------------------------------------------------------------------


def test_memory_is_not_shared_between_processes() -> None:
    with pytest.raises(RuntimeError, match="not supported"):
        graphtorch.ones(2).share_memory_()


def test_folds_by_numpys_functions() -> None:
    """PyTorch refuses them: they ask methods for `out`."""
    x = graphtorch.arange(4.0)
    assert [np.sum(x).tolist(), np.mean(x).tolist(), np.sum(x.view(2, 2), axis=0).tolist()] == [6.0, 1.5, [2.0, 4.0]]


def test_a_shared_storage_does_not_grow() -> None:
    base = graphtorch.arange(4.0)
    view = base[1:]
    with pytest.raises(RuntimeError, match="share"):
        base.resize_(8)
    assert base.tolist() == [0, 1, 2, 3] and view.tolist() == [1, 2, 3]
    with pytest.raises(RuntimeError, match="out of bounds"):
        base.set_(view.untyped_storage(), 0, (5,))
    assert base.shape == (4,)


def test_set_shares_memory() -> None:
    source = graphtorch.arange(4.0)
    target = graphtorch.empty(0).set_(source)
    target[0] = 9
    assert source[0].item() == 9 and target.untyped_storage() is source.untyped_storage()


def test_dlpack_shares_memory() -> None:
    array = np.arange(3.0)
    graphtorch.from_dlpack(array)[0] = 9
    assert array[0] == 9
    tensor = graphtorch.zeros(2)
    np.from_dlpack(tensor)
    capsule = graphtorch.utils.dlpack.to_dlpack(tensor)
    graphtorch.from_dlpack(capsule)[1] = 5
    assert tensor.tolist() == [0, 5]
    with pytest.raises(RuntimeError, match="invalid capsule"):
        graphtorch.from_dlpack(capsule)
    with pytest.raises(BufferError, match="require gradient"):
        graphtorch.zeros(2, requires_grad=True).__dlpack__()


def test_dlpack_of_bfloat16() -> None:
    tensor = graphtorch.arange(4).bfloat16().reshape(2, 2).t()
    shared = graphtorch.from_dlpack(tensor.__dlpack__())
    assert shared.dtype is graphtorch.bfloat16 and shared.stride() == (1, 2)
    shared[0, 1] = 9
    assert tensor.tolist() == [[0, 9], [1, 3]]
    copied = graphtorch.from_dlpack(tensor.__dlpack__(copy=True, max_version=(1, 0)))
    copied[0, 1] = 1
    assert tensor[0, 1].item() == 9
    with pytest.raises((RuntimeError, BufferError)):
        np.from_dlpack(tensor)  # NumPy has no such type, and says so
    torch = pytest.importorskip("torch")
    theirs = torch.from_dlpack(tensor)
    assert theirs.dtype is torch.bfloat16 and theirs.tolist() == [[0, 9], [1, 3]]
    assert graphtorch.from_dlpack(theirs).data_ptr() == tensor.data_ptr()


def test_dlpack_with_torch() -> None:
    torch = pytest.importorskip("torch")
    theirs = torch.arange(6).reshape(2, 3).t()
    ours = graphtorch.from_dlpack(theirs)
    assert ours.stride() == theirs.stride() and ours.data_ptr() == theirs.data_ptr()
    back = torch.from_dlpack(ours)
    back[0, 0] = 7
    assert theirs[0, 0] == 7 and ours[0, 0] == 7


def test_pickles_and_copies_keep_sharing() -> None:
    base = graphtorch.arange(6.0)
    for base_copy, view in (pickle.loads(pickle.dumps([base, base[2:]])), copy.deepcopy([base, base[2:]])):
        view[0] = 9
        assert base_copy[2].item() == 9 and view.storage_offset() == 2
    model = pickle.loads(pickle.dumps(graphtorch.nn.Linear(2, 3)))
    assert [type(p).__name__ for p in model.parameters()] == ["Parameter", "Parameter"]
    meta = pickle.loads(pickle.dumps(graphtorch.empty(2, 3, device="meta")))
    assert meta.is_meta and meta.shape == (2, 3)


def test_default_device_is_restored() -> None:
    with graphtorch.device("meta"):
        with graphtorch.device("cpu"):
            assert graphtorch.ones(1).device.type == "cpu"
        assert graphtorch.tensor([1]).is_meta and graphtorch.arange(3).is_meta and graphtorch.rand(2).is_meta
        assert graphtorch.ones(2, device="cpu").device.type == "cpu"
    assert graphtorch.get_default_device().type == "cpu"
    with pytest.raises(ValueError), graphtorch.device("meta"):
        raise ValueError
    assert graphtorch.ones(1).device.type == "cpu"


def test_generator_states_travel() -> None:
    torch = pytest.importorskip("torch")
    generator = graphtorch.Generator().manual_seed(3)
    graphtorch.randn(5, generator=generator)
    theirs = torch.Generator()
    theirs.set_state(torch.from_numpy(generator.get_state().numpy()))
    assert torch.rand(4, generator=theirs).tolist() == graphtorch.rand(4, generator=generator).tolist()
    state = graphtorch.get_rng_state()
    with graphtorch.random.fork_rng():
        graphtorch.manual_seed(1)
    assert (graphtorch.get_rng_state() == state).all()
