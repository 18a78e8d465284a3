"""`Tensor`: a strided view of a storage, with its place in the autograd graph.

The class holds what is not an operator: identity, memory, autograd state, conversion to Python and NumPy. Every
operator method and dunder is installed by `graphtorch.ops` from the operator records, so that adding an operator
touches one place.

The payload `_data` is an ndarray, whose own shape and strides are the tensor's. On the meta device it is an ndarray
over no memory (never read), so that views compute strides the same way. While a recorder is active, recorded tensors
carry a payload of the recorder's own, with the same `shape` attribute."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.tensor import dtypes
from graphtorch.tensor.devices import CPU, META, device
from graphtorch.tensor.dtypes import dtype
from graphtorch.tensor.formats import layout, lies_in, memory_format, strided
from graphtorch.tensor.remote import DeviceArray, plain, runtime
from graphtorch.tensor.size import Size
from graphtorch.tensor.storage import Storage

if TYPE_CHECKING:
    from graphtorch.autograd.graph import Node


class _TensorMeta(type):
    """Shows the class as programs know it: `print(type(x))` says `<class 'torch.Tensor'>`."""

    def __repr__(cls) -> str:
        return "<class 'torch.Tensor'>" if cls is Tensor else super().__repr__()


class Tensor(metaclass=_TensorMeta):
    """A multi-dimensional array. See https://docs.pytorch.org/docs/stable/tensors.html."""

    # `.grad` has a place in the object itself: it changes with each step, and what compiled functions assume of tensors
    # they read off the version of `__dict__` (frontend/watch.py), which it must not touch.
    __slots__ = ("__dict__", "__weakref__", "_gradient")

    # Class attributes are the defaults of rarely set state: an operator's result sets only payload and dtype.
    _gradient: Tensor | None
    _data: Any
    _dtype: dtype
    _device: device = CPU
    _storage: Storage | None = None
    _requires_grad: bool = False
    _node: Node | None = None  # the tape's node that made this tensor; None for leaves
    _output_index: int = 0
    _accumulator: Any = None  # a leaf's AccumulateGrad node, once one was needed
    _hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None
    _post_accumulate_hooks: dict[int, Callable[[Tensor], None]] | None = None
    _retains_grad: bool = False
    _base: Tensor | None = None  # for a view: the tensor it (transitively) views
    _steps: tuple[tuple[Any, tuple[Any, ...]], ...] = ()  # for a view: (view operator, attributes) from base to here
    # For a view: the storage version that `_node` belongs to; -1 less that for one made under no_grad, or of such one.
    _node_version: int = 0
    _dynamic_dims: tuple[int, ...] = ()  # sizes that `mark_dynamic` and `mark_static` named
    _static_dims: tuple[int, ...] = ()
    _inference: bool = False  # made in inference mode
    is_number: bool = False  # a recorded Python number, see TensorType.is_number

    __array_priority__ = 1000.0  # so that `ndarray * tensor` asks the tensor

    def __new__(cls, data: Any = (), *args: Any, **kwargs: Any) -> Any:
        if cls is Tensor:
            from graphtorch.tensor.creation import legacy_constructor

            if isinstance(data, Tensor) and not args and not kwargs:
                return data.view_as(data)
            return legacy_constructor(data, *args, **kwargs)
        return object.__new__(cls)

    # -- construction ------------------------------------------------------------------------------------------------

    @staticmethod
    def _wrap(data: Any, of: dtype | None = None) -> Tensor:
        """A fresh tensor over a payload, without copying."""
        tensor: Tensor = _new(Tensor)
        tensor._data = data
        tensor._dtype = dtypes.from_numpy_dtype(data.dtype) if of is None else of
        return tensor

    @staticmethod
    def _over(data: Any) -> Tensor:
        """`_wrap` of an array of any device."""
        tensor = Tensor._wrap(data)
        if type(data) is DeviceArray:
            tensor._device = data.place
        return tensor

    def _beside(self, array: np.ndarray[Any, Any]) -> Tensor:
        """A tensor of an array of the host, on the device of this one."""
        if self._device.type == "cuda" and state.recorder is None:
            return Tensor._over(runtime().to_device(array, self._device))
        return Tensor._wrap(array)

    def _alias(self) -> Tensor:
        """The same elements as a new tensor object outside the autograd graph; shares the storage."""
        alias = Tensor._wrap(self._data, self._dtype)
        alias._storage = self._shared_storage()
        if self._device is not CPU:
            alias._device = self._device
        if self.is_number:
            alias.is_number = True
        if self._inference:
            alias._inference = True
        return alias

    def _shared_storage(self) -> Storage:
        """The storage, made on first need (most results never share theirs)."""
        if self._storage is None:
            self._storage = Storage(self._data, self._device)
        return self._storage

    @property
    def _grad(self) -> Tensor | None:
        """The accumulated gradient, whoever records."""
        try:
            return self._gradient
        except AttributeError:
            return None

    @_grad.setter
    def _grad(self, value: Tensor | None) -> None:
        self._gradient = value

    # -- what it is --------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        return _new_size(Size, self._data.shape)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        return self.shape if dim is None else self._data.shape[self._wrapped(dim)]

    def _wrapped(self, dim: int) -> int:
        """A dimension counted from the front. Raises IndexError for one that is not there."""
        rank = len(self._data.shape)
        if rank == 0:
            raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
        if not -rank <= dim < rank:
            bounds = f"[{-rank}, {rank - 1}]"
            raise IndexError(f"Dimension out of range (expected to be in range of {bounds}, but got {dim})")
        return dim

    @property
    def dtype(self) -> dtype:
        return self._dtype

    @property
    def device(self) -> device:
        return self._device

    @property
    def layout(self) -> layout:
        return strided

    @property
    def ndim(self) -> int:
        return len(self._data.shape)

    def dim(self) -> int:
        return len(self._data.shape)

    ndimension = dim

    def numel(self) -> int:
        return self.shape.numel()

    nelement = numel

    @property
    def itemsize(self) -> int:
        return self._dtype.itemsize

    def element_size(self) -> int:
        return self._dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.numel() * self._dtype.itemsize

    def is_floating_point(self) -> bool:
        return self._dtype.is_floating_point

    def is_complex(self) -> bool:
        return self._dtype.is_complex

    def is_inference(self) -> bool:
        """Whether the tensor was made in inference mode."""
        return self._inference

    def is_signed(self) -> bool:
        return self._dtype.is_signed

    @property
    def is_cuda(self) -> bool:
        return self._device.type == "cuda"

    @property
    def is_meta(self) -> bool:
        return self._device.type == "meta"

    @property
    def is_cpu(self) -> bool:
        return self._device.type == "cpu"

    def get_device(self) -> int:
        return -1 if self._device.type != "cuda" else self._device.index or 0

    # -- memory ------------------------------------------------------------------------------------------------------

    def _layout(self) -> np.ndarray[Any, Any]:
        """An ndarray with this tensor's shape and strides (for recorded tensors one over no memory)."""
        data = self._data
        if type(data) is np.ndarray:
            return data
        if type(data) is DeviceArray:
            return plain(data)  # type: ignore[no-any-return]
        return data.layout  # type: ignore[no-any-return]

    def stride(self, dim: int | None = None) -> Any:
        """Steps in elements between neighbours along each dimension."""
        recorded = None if isinstance(self._data, np.ndarray) else getattr(self._data, "stride", None)
        strides = element_strides(self._layout()) if recorded is None else recorded()
        return strides if dim is None else strides[self._wrapped(dim)]

    def storage_offset(self) -> Any:
        """The first element's distance from the start of the storage, in elements."""
        if not isinstance(self._data, np.ndarray):
            recorded = getattr(self._data, "storage_offset", None)
            return 0 if recorded is None else recorded()
        if self._storage is None or not self._data.size:
            return 0
        address = self._data.__array_interface__["data"][0]
        return int(address - self._storage.data_ptr()) // self._dtype.itemsize

    def untyped_storage(self) -> Storage:
        if state.recorder is not None and not isinstance(self._data, np.ndarray):
            self._host("untyped_storage()")
        return self._shared_storage()

    def data_ptr(self) -> int:
        """The address of the first element; 0 for an empty tensor."""
        on_device = type(self._data) is DeviceArray and state.recorder is None
        array = self._data if on_device else self._host("data_ptr()")
        return int(array.__array_interface__["data"][0]) if array.size else 0

    def is_contiguous(self, memory_format: memory_format | None = None) -> bool:
        """Whether the memory is in the given order, row-major by default."""
        return lies_in(self._layout(), "" if memory_format is None else memory_format.name)

    @property
    def _version(self) -> int:
        return 0 if self._storage is None else self._storage.version

    def _bump_version(self) -> None:
        self._shared_storage().version += 1

    def _need_memory(self, operation: str) -> None:
        """Refuses tensors without memory, whatever their device: those that a capture records."""
        if self._device is CPU or state.recorder is not None:
            self._host(operation)

    # -- to Python and NumPy -----------------------------------------------------------------------------------------

    def _host(self, operation: str) -> np.ndarray[Any, Any]:
        """The data for Python to read. `operation` names the reader in the errors of tensors without readable data."""
        if state.recorder is not None:
            return state.recorder.read(self, operation)  # type: ignore[no-any-return]
        if type(self._data) is DeviceArray:
            return self._data.host()
        if type(self._data) is not np.ndarray:
            raise RuntimeError(
                f"{operation} on a tensor that was recorded by a @compile capture which has ended; a recorded tensor "
                "has no data"
            )
        if self._device is META:
            self._refuse_meta(operation)
        return self._data

    def _refuse_meta(self, operation: str) -> NoReturn:
        """Raise PyTorch's error for asking a tensor on the meta device for its data."""
        if operation == "numpy()":
            raise TypeError(
                "can't convert meta device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory "
                "first."
            )
        if operation in ("item()", "bool()", "int()", "float()", "complex()", "__index__()"):
            raise RuntimeError("Tensor.item() cannot be called on meta tensors")
        if operation == "tolist()":
            raise NotImplementedError("Cannot copy out of meta tensor; no data!")
        raise NotImplementedError(f"{operation} cannot be called on meta tensors: the result depends on data")

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """An ndarray that shares this tensor's memory.

        Raises RuntimeError for a tensor that requires grad, unless `force`, TypeError for bfloat16.
        """
        if not force and state.grad_enabled and self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self._dtype is dtypes.bfloat16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        if self._device.type == "cuda" and not force and state.recorder is None:
            raise TypeError(
                f"can't convert {self._device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to "
                "host memory first."
            )
        self._shared_storage()
        return self._host("numpy()")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if copy:
            return np.array(array, dtype=dtype)
        return array if dtype is None else array.astype(dtype, copy=False)

    def item(self) -> Any:
        """The value of a one-element tensor as a Python number.

        Raises RuntimeError for any other number of elements.
        """
        if self.numel() != 1:
            raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
        if state.recorder is not None:
            return state.recorder.item(self)
        value = self._host("item()").reshape(()).item()
        return float(value) if self._dtype is dtypes.bfloat16 else value

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        array = self._host("tolist()")
        if self._dtype is dtypes.bfloat16:
            array = array.astype(np.float32)
        return array.tolist()

    def __bool__(self) -> bool:
        count = self.numel()
        if count == 0:
            raise RuntimeError("Boolean value of Tensor with no values is ambiguous")
        if count > 1:
            raise RuntimeError("Boolean value of Tensor with more than one value is ambiguous")
        return bool(self._host("bool()").reshape(()).item())

    def __int__(self) -> int:
        return int(self._python_number("int()"))

    def __float__(self) -> float:
        return float(self._python_number("float()"))

    def __complex__(self) -> complex:
        return complex(self._python_number("complex()"))

    def __index__(self) -> int:
        if self._dtype.category > dtypes.INTEGRAL or self.numel() != 1:
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self._python_number("__index__()"))

    def _python_number(self, operation: str) -> Any:
        if self.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self._host(operation).reshape(()).item()

    def __len__(self) -> int:
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self._data.shape[0]  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[Tensor]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind(0))

    def __contains__(self, element: Any) -> bool:
        if not isinstance(element, Tensor | int | float | complex) and not hasattr(element, "__index__"):
            raise RuntimeError(
                f"Tensor.__contains__ only supports Tensor or scalar, but you passed in a {type(element)}."
            )
        return bool((self == element).any().item())

    def __hash__(self) -> int:
        return hash(self._hashed()) if self.is_number else id(self)

    def _hashed(self) -> Any:
        """The value of a recorded number, which dictionaries look it up by."""
        return float(self) if self._dtype.is_floating_point else int(self)

    def __repr__(self, *, tensor_contents: str | None = None) -> str:
        return self._repr("tensor(")

    def _repr(self, prefix: str) -> str:
        show = getattr(self._data, "show", None)
        if show is not None:  # inside a functional transform
            return show()  # type: ignore[no-any-return]
        here = isinstance(self._data, np.ndarray)
        if getattr(state.recorder, "captures", state.recorder is not None) or not here:
            note_effect = getattr(state.recorder, "note_effect", None)
            if note_effect is not None:
                note_effect("makes a text of a tensor")
            grad = ", requires_grad=True" if self.requires_grad else ""
            return f"{prefix}..., shape={list(self.shape)}, dtype={self._dtype!r}{grad}, recorded by @compile)"
        from graphtorch.tensor.printing import tensor_str

        node = self.grad_fn
        return tensor_str(
            self._data.host() if type(self._data) is DeviceArray else self._data,
            dtype_name=self._dtype.name,
            default_dtype_name=dtypes.get_default_dtype().name,
            device=str(self._device),
            requires_grad=self.requires_grad,
            grad_fn_name=None if node is None else node.name().rpartition(":")[2],
            prefix=prefix,
        )

    def __format__(self, spec: str) -> str:
        if self.ndim == 0 and (spec or type(self) is Tensor):
            if state.recorder is not None:
                return format(self._python_number("format()"), spec)
            return self.item().__format__(spec)  # type: ignore[no-any-return]
        return object.__format__(self, spec)

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) in memo:
            return memo[id(self)]  # type: ignore[no-any-return]
        if not self.is_leaf:
            raise RuntimeError(
                "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at the "
                "moment.  If you were attempting to deepcopy a module, this may be because of a "
                "torch.nn.utils.weight_norm usage, see https://github.com/pytorch/pytorch/pull/103001"
            )
        self._need_memory("deepcopy()")
        storage = copy.deepcopy(self._shared_storage(), memo)
        copied = _rebuild(
            type(self), storage, self._dtype, self.storage_offset(), self.shape, self.stride(), self._requires_grad
        )
        for key, value in vars(self).items():
            if not hasattr(Tensor, key) and not key.startswith("_"):
                setattr(copied, key, value)
        if self._grad is not None:
            copied._grad = self._grad.__deepcopy__(memo)
        memo[id(self)] = copied
        return copied

    @classmethod
    def _from_array(cls, array: np.ndarray[Any, Any], requires_grad: bool) -> Tensor:
        """A leaf of this class over an array; what copies and unpickling call."""
        tensor: Tensor = _new(cls)
        tensor._data = array
        tensor._dtype = dtypes.from_numpy_dtype(array.dtype)
        if requires_grad:
            tensor._requires_grad = True
        return tensor

    def __reduce__(self) -> tuple[Any, ...]:
        self._need_memory("pickle")
        # Tensors that share a storage still do after unpickling: the pickle refers to one storage object.
        geometry = (self.storage_offset(), self.shape, self.stride())
        return (_rebuild, (type(self), self._shared_storage(), self._dtype, *geometry, self._requires_grad))

    # -- autograd ----------------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        if state.recorder is not None:
            self = state.recorder.stand_in(self)
            note = getattr(state.recorder, "note_requires_grad", None)
            if note is not None:
                note(self)
        base = self._base
        if not self._requires_grad and base is not None and base._requires_grad and self._dtype.is_differentiable:
            if self._node_version >= 0:
                _ = self.grad_fn  # the base may have got a history through another view
            return True  # no gradient flows to it, if it was made under no_grad
        return self._requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if state.recorder is not None:
            self = state.recorder.recorded(self)  # the concrete tensor changes when the compiled function runs
            if value:
                state.recorder.becomes_leaf(self)
        if not self.is_leaf and not value:
            raise RuntimeError(
                "you can only change requires_grad flags of leaf variables. If you want to use a computed variable "
                "in a subgraph "
                "that doesn't require differentiation use var_no_grad = var.detach()."
            )
        if value and self._inference and not state.inference:
            raise RuntimeError("Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.")
        if value and not self._dtype.is_differentiable:
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        self._requires_grad = bool(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        return self.grad_fn is None

    @property
    def grad_fn(self) -> Node | None:
        if state.recorder is not None:
            self = state.recorder.stand_in(self)
        if self._base is not None and self._base._requires_grad and self._node_version != self._version:
            from graphtorch.autograd.views import refresh

            refresh(self)
        return self._node

    @property
    def output_nr(self) -> int:
        return self._output_index

    @property
    def grad(self) -> Tensor | None:
        """The accumulated gradient; None before the first backward."""
        if state.recorder is not None:
            return state.recorder.get_grad(self)  # type: ignore[no-any-return]
        try:
            return self._gradient
        except AttributeError:
            return None

    @grad.setter
    def grad(self, value: Tensor | None) -> None:
        if value is not None:
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"assigned grad expected to be a Tensor or None but got grad of type {type(value).__name__}"
                )
            if tuple(value.shape) != tuple(self.shape):
                raise RuntimeError(
                    f"attempting to assign a gradient of size '{list(value.shape)}' to a tensor of size "
                    f"'{list(self.shape)}'. Please ensure that the gradient and the tensor are the same size"
                )
            if value._dtype is not self._dtype:
                raise RuntimeError(
                    f"attempting to assign a gradient with dtype '{value._dtype.name}' to a tensor with dtype "
                    f"'{self._dtype.name}'. The gradient must match the tensor's dtype"
                )
            if value._device.type != self._device.type:
                raise RuntimeError(
                    f"attempting to assign a gradient with device type '{value._device.type}' to a tensor with device "
                    f"type '{self._device.type}'. Please ensure that the gradient and the tensor are on the same device"
                )
        if state.recorder is not None:
            state.recorder.set_grad(self, value)
        else:
            self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    def backward(
        self,
        gradient: Tensor | None = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Sequence[Tensor] | Tensor | None = None,
    ) -> None:
        """Accumulate the gradients of this tensor into the leaves' `.grad`. See torch.Tensor.backward."""
        from graphtorch.autograd.engine import backward

        backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    def retain_grad(self) -> None:
        """Keep `.grad` of a tensor that is no leaf."""
        if not self.requires_grad:
            raise RuntimeError("can't retain_grad on Tensor that has requires_grad=False")
        if self.is_leaf or self._retains_grad:
            return
        from graphtorch.autograd.hooks import retain

        retain(self)

    @property
    def retains_grad(self) -> bool:
        return self._retains_grad

    def register_hook(self, hook: Callable[[Tensor], Tensor | None]) -> Any:
        """Call `hook(grad)` when this tensor's gradient is computed; a tensor that it returns replaces the gradient."""
        from graphtorch.autograd.hooks import register

        return register(self, hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Any:
        """Call `hook(param)` after this leaf's `.grad` was accumulated."""
        from graphtorch.autograd.hooks import register_post_accumulate

        return register_post_accumulate(self, hook)

    def detach_(self) -> Tensor:
        """Take this tensor itself out of the graph.

        Raises RuntimeError for a view, whose history belongs to its base.
        """
        if self._base is not None:
            raise RuntimeError("Can't detach views in-place. Use detach() instead.")
        if state.recorder is not None:
            state.recorder.detach_inplace(self)
        self._node = None
        self._output_index = 0
        self._requires_grad = False
        return self

    @property
    def data(self) -> Tensor:
        """The same memory outside autograd, with a version counter of its own."""
        if state.recorder is not None:
            if hasattr(state.recorder, "get_data"):
                return state.recorder.get_data(self)  # type: ignore[no-any-return]
            detached: Tensor = self.detach()
            return detached
        alias = self._alias()
        alias._storage = Storage(self._shared_storage().owner, self._device)
        return alias

    @data.setter
    def data(self, value: Tensor) -> None:
        if not isinstance(value, Tensor):
            raise TypeError(f"Variable data has to be a tensor, but got {type(value).__name__}")
        if state.recorder is not None:
            state.recorder.set_data(self, value)
            return
        self._data = value._data
        self._dtype = value._dtype
        self._device = value._device
        self._storage = Storage(value._shared_storage().owner, value._device)

    @property
    def names(self) -> tuple[None, ...]:
        return (None,) * self.ndim

    def _is_view(self) -> bool:
        return self._base is not None

    if TYPE_CHECKING:
        # Operator methods are installed from the records at import.
        def __getattr__(self, name: str) -> Any: ...
        def __add__(self, other: Any) -> Tensor: ...
        def __radd__(self, other: Any) -> Tensor: ...
        def __sub__(self, other: Any) -> Tensor: ...
        def __rsub__(self, other: Any) -> Tensor: ...
        def __mul__(self, other: Any) -> Tensor: ...
        def __rmul__(self, other: Any) -> Tensor: ...
        def __truediv__(self, other: Any) -> Tensor: ...
        def __rtruediv__(self, other: Any) -> Tensor: ...
        def __floordiv__(self, other: Any) -> Tensor: ...
        def __mod__(self, other: Any) -> Tensor: ...
        def __pow__(self, other: Any) -> Tensor: ...
        def __rpow__(self, other: Any) -> Tensor: ...
        def __matmul__(self, other: Any) -> Tensor: ...
        def __neg__(self) -> Tensor: ...
        def __invert__(self) -> Tensor: ...
        def __and__(self, other: Any) -> Tensor: ...
        def __or__(self, other: Any) -> Tensor: ...
        def __xor__(self, other: Any) -> Tensor: ...
        def __lt__(self, other: Any) -> Tensor: ...
        def __le__(self, other: Any) -> Tensor: ...
        def __gt__(self, other: Any) -> Tensor: ...
        def __ge__(self, other: Any) -> Tensor: ...
        def __eq__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __ne__(self, other: Any) -> Tensor: ...  # type: ignore[override]
        def __getitem__(self, key: Any) -> Tensor: ...
        def __setitem__(self, key: Any, value: Any) -> None: ...


_new = object.__new__
_new_size = tuple.__new__  # a shape's numbers need no checks


def _rebuild(
    cls: type[Tensor],
    storage: Storage,
    of: dtype,
    offset: int,
    size: Sequence[int],
    stride: Sequence[int],
    requires_grad: bool,
) -> Tensor:
    """A leaf over a storage; what copies and unpickling call."""
    if storage.device.type != "meta":
        tensor = cls._from_array(storage.view(of, offset, size, stride), requires_grad)
        if storage.device is not CPU:
            tensor._device = storage.device
    else:
        tensor = cls._from_array(meta_array(size, of), requires_grad)
        tensor._device = storage.device
    tensor._storage = storage
    return tensor


def element_strides(layout: np.ndarray[Any, Any]) -> tuple[int, ...]:
    """Strides in elements as PyTorch reports them: in a fresh array without elements, NumPy's may be 0."""
    if layout.size or 0 not in layout.strides:
        return tuple(s // layout.itemsize for s in layout.strides)
    strides: list[int] = []
    step = 1
    for size in reversed(layout.shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def meta_array(shape: Sequence[int], of: dtype) -> np.ndarray[Any, Any]:
    """An ndarray of any shape over no memory: strides without data. It must never be read or written."""
    strides: list[int] = []
    step = of.itemsize
    for size in reversed(shape):
        strides.append(step)
        step *= max(int(size), 1)
    return np.lib.stride_tricks.as_strided(
        np.empty(1, of.numpy), tuple(int(s) for s in shape), tuple(reversed(strides)), writeable=True
    )
