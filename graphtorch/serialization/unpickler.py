"""A pickle reader that can only build what a checkpoint holds.

It knows the opcodes of PyTorch's pickles (and of the later protocols' plain containers), never imports a name and calls
only the functions of an allow-list, each of which checks its arguments. A malformed pickle raises
pickle.UnpicklingError. What a pickle costs to read, in time and memory, is linear in its length."""

from __future__ import annotations

import pickle
import struct
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from typing import Any

from graphtorch.serialization.allowed import is_allowed_class

_CONTAINER_KEY_DEPTH = 16  # of tuples in dictionary keys: hashing a deep one would exhaust the interpreter's stack
_DICTS = (dict, OrderedDict, Counter, defaultdict)


class Allowed:
    """A global that the pickle may name and call."""

    __slots__ = ("call", "name")

    def __init__(self, name: str, call: Callable[..., Any]) -> None:
        self.name = name
        self.call = call


class _Mark:
    """Where a sequence of stack items begins."""


_MARK = _Mark()


def refuse(message: str) -> pickle.UnpicklingError:
    """The error for a pickle that is malformed or asks for more than data."""
    return pickle.UnpicklingError(f"Weights only load failed. {message}")


class Unpickler:
    """Reads one pickle.

    find_global      (module, name) -> a value, or an `Allowed` for what may be called; raises for any other name
    load_persistent  a persistent id -> the storage it names
    """

    def __init__(
        self,
        data: bytes,
        find_global: Callable[[str, str], Any],
        load_persistent: Callable[[Any], Any],
    ) -> None:
        self._data = data
        self._at = 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._find_global = find_global
        self._load_persistent = load_persistent

    def load(self) -> Any:
        """The object. Raises pickle.UnpicklingError."""
        try:
            return self._run()
        except pickle.UnpicklingError:
            raise
        except RecursionError:
            raise refuse("The pickle is nested too deeply") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error) as error:
            raise refuse(f"The pickle is malformed near byte {self._at}: {error}") from None

    def _run(self) -> Any:
        while True:
            opcode = self._read(1)
            if opcode == pickle.STOP:
                if len(self._stack) != 1 or self._stack[0] is _MARK:
                    raise refuse("The pickle ends in the middle of an object")
                return self._value(self._stack[0])
            operation = _OPERATIONS.get(opcode)
            if operation is None:
                raise refuse(f"Unsupported operand {opcode[0]} at byte {self._at - 1}")
            operation(self)

    # -- reading

    def _read(self, count: int) -> bytes:
        end = self._at + count
        if count < 0 or end > len(self._data):
            raise refuse("The pickle is cut short")
        found = self._data[self._at : end]
        self._at = end
        return found

    def _number(self, layout: str) -> int:
        found: int = struct.unpack(layout, self._read(struct.calcsize(layout)))[0]
        return found

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at)
        if end < 0:
            raise refuse("The pickle is cut short")
        text = self._data[self._at : end].decode("utf-8")
        self._at = end + 1
        return text

    # -- stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        """The topmost item, which must be a value."""
        return self._value(self._stack.pop())

    def _value(self, item: Any) -> Any:
        if item is _MARK:
            raise refuse("A mark where a value should be")
        return item

    def _top(self) -> Any:
        return self._value(self._stack[-1])

    def _to_mark(self) -> list[Any]:
        """Pop the items above the last mark, and the mark."""
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        raise refuse("There is no mark")

    # -- operations

    def _protocol(self) -> None:
        version = self._read(1)[0]
        if version > 5:
            raise refuse(f"Unsupported pickle protocol {version}")

    def _frame(self) -> None:
        self._read(8)  # a hint for buffered readers

    def _binary_int(self, layout: str) -> None:
        self._push(self._number(layout))

    def _long(self, layout: str) -> None:
        self._push(int.from_bytes(self._read(self._number(layout)), "little", signed=True))

    def _float(self) -> None:
        self._push(struct.unpack(">d", self._read(8))[0])

    def _unicode(self, layout: str) -> None:
        self._push(str(self._read(self._number(layout)), "utf-8", "surrogatepass"))

    def _bytes(self, layout: str) -> None:
        self._push(self._read(self._number(layout)))

    def _bytearray(self) -> None:
        self._push(bytearray(self._read(self._number("<Q"))))

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise refuse("The stack is too short for a tuple")
        items = self._stack[len(self._stack) - count :]
        for item in items:
            self._value(item)
        if count:
            del self._stack[-count:]
        self._push(tuple(items))

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise refuse(f"Can only append to lists, but got {type(target).__name__}")
        target.extend(items)

    def _add(self) -> None:
        items = self._to_mark()
        target = self._top()
        if type(target) is not set:
            raise refuse(f"Can only add to sets, but got {type(target).__name__}")
        for item in items:
            check_key(item)
        target.update(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) not in _DICTS:
            raise refuse(f"Can only set items of dictionaries, but got {type(target).__name__}")
        if len(items) % 2:
            raise refuse("A key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            check_key(key)
            target[key] = value

    def _global(self) -> None:
        module = self._line()
        self._push(self._find_global(module, self._line()))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        if type(name) is not str or type(module) is not str:
            raise refuse("A global's name must be a string")
        self._push(self._find_global(module, name))

    def _reduce(self) -> None:
        args, function = self._pop(), self._pop()
        if not isinstance(function, Allowed):
            raise refuse(f"Trying to call reduce for unrecognized function {function!r:.100}")
        if type(args) is not tuple:
            raise refuse(f"The arguments of {function.name} must be a tuple")
        self._push(function.call(*args))

    def _new(self) -> None:
        """An object of a class that the user allowed."""
        args, function = self._pop(), self._pop()
        if not isinstance(function, Allowed) or not isinstance(function.call, type) or type(args) is not tuple:
            raise refuse(f"Trying to make an object of {function!r:.100}")
        if not is_allowed_class(function.call):
            raise refuse(f"Trying to make an object of {function.name}")
        self._push(function.call.__new__(function.call, *args))

    def _set_state(self, target: Any, state: Any) -> None:
        """What `pickle` does with the state of an object of a class that the user allowed."""
        if hasattr(target, "__setstate__"):
            target.__setstate__(state)
            return
        attributes, slots = state if type(state) is tuple and len(state) == 2 else (state, None)
        for part in (attributes, slots):
            if part is not None and not (type(part) is dict and all(type(key) is str for key in part)):
                raise refuse("The state of an object must be a dictionary of attributes")
        if attributes:
            vars(target).update(attributes)
        for name, value in (slots or {}).items():
            setattr(target, name, value)

    def _build(self) -> None:
        state, target = self._pop(), self._top()
        if is_allowed_class(type(target)):
            self._set_state(target, state)
            return
        if type(target) is not OrderedDict or type(state) is not dict:
            raise refuse(f"Can only build OrderedDict, but got {type(target).__name__}")
        if set(state) - {"_metadata"}:
            raise refuse(f"An OrderedDict can't get the attributes {sorted(map(str, state))}")
        vars(target).update(state)

    def _persistent(self) -> None:
        self._push(self._load_persistent(self._pop()))

    def _put(self, layout: str) -> None:
        self._memo[self._number(layout)] = self._top()

    def _memoize(self) -> None:
        self._memo[len(self._memo)] = self._top()

    def _get(self, layout: str) -> None:
        slot = self._number(layout)
        if slot not in self._memo:
            raise refuse(f"There is no memo {slot}")
        self._push(self._memo[slot])


def check_key(key: Any, depth: int = 0) -> None:
    """Refuse dictionary keys and set members whose hash is not plain data's."""
    if isinstance(key, tuple):
        if depth > _CONTAINER_KEY_DEPTH:
            raise refuse("A dictionary key is nested too deeply")
        for item in key:
            check_key(item, depth + 1)
    elif isinstance(key, Allowed):
        raise refuse(f"{key.name} as a dictionary key")


def _push_constant(make: Callable[[], Any]) -> Callable[[Unpickler], None]:
    return lambda self: self._push(make())


_OPERATIONS: dict[bytes, Callable[[Unpickler], None]] = {
    pickle.PROTO: Unpickler._protocol,
    pickle.FRAME: Unpickler._frame,
    pickle.MARK: lambda self: self._push(_MARK),
    pickle.NONE: _push_constant(lambda: None),
    pickle.NEWTRUE: _push_constant(lambda: True),
    pickle.NEWFALSE: _push_constant(lambda: False),
    pickle.EMPTY_TUPLE: _push_constant(tuple),
    pickle.EMPTY_LIST: _push_constant(list),
    pickle.EMPTY_DICT: _push_constant(dict),
    pickle.EMPTY_SET: _push_constant(set),
    pickle.BININT: lambda self: self._binary_int("<i"),
    pickle.BININT1: lambda self: self._binary_int("<B"),
    pickle.BININT2: lambda self: self._binary_int("<H"),
    pickle.LONG1: lambda self: self._long("<B"),
    pickle.LONG4: lambda self: self._long("<i"),
    pickle.BINFLOAT: Unpickler._float,
    pickle.BINUNICODE: lambda self: self._unicode("<I"),
    pickle.SHORT_BINUNICODE: lambda self: self._unicode("<B"),
    pickle.BINUNICODE8: lambda self: self._unicode("<Q"),
    pickle.BINBYTES: lambda self: self._bytes("<I"),
    pickle.SHORT_BINBYTES: lambda self: self._bytes("<B"),
    pickle.BINBYTES8: lambda self: self._bytes("<Q"),
    pickle.SHORT_BINSTRING: lambda self: self._bytes("<B"),
    pickle.BINSTRING: lambda self: self._bytes("<i"),
    pickle.BYTEARRAY8: Unpickler._bytearray,
    pickle.TUPLE: lambda self: self._push(tuple(self._to_mark())),
    pickle.TUPLE1: lambda self: self._tuple(1),
    pickle.TUPLE2: lambda self: self._tuple(2),
    pickle.TUPLE3: lambda self: self._tuple(3),
    pickle.APPEND: lambda self: self._append([self._pop()]),
    pickle.APPENDS: lambda self: self._append(self._to_mark()),
    pickle.ADDITEMS: Unpickler._add,
    pickle.SETITEM: lambda self: self._set_items([self._pop(), self._pop()][::-1]),
    pickle.SETITEMS: lambda self: self._set_items(self._to_mark()),
    pickle.GLOBAL: Unpickler._global,
    pickle.STACK_GLOBAL: Unpickler._stack_global,
    pickle.REDUCE: Unpickler._reduce,
    pickle.NEWOBJ: Unpickler._new,
    pickle.BUILD: lambda self: self._build(),  # by name: a subclass may build more
    pickle.BINPERSID: Unpickler._persistent,
    pickle.BINPUT: lambda self: self._put("<B"),
    pickle.LONG_BINPUT: lambda self: self._put("<I"),
    pickle.MEMOIZE: Unpickler._memoize,
    pickle.BINGET: lambda self: self._get("<B"),
    pickle.LONG_BINGET: lambda self: self._get("<I"),
}
