"""What Python does beside computing: printing, clocks, files, processes, random generators that are not this package's.

Replaying a graph would do it once, at the capture, and never again. So while a function is being captured, the ways to
do it are watched, and the function runs eagerly if it goes one of them."""

from __future__ import annotations

import builtins
import contextlib
import datetime
import functools
import io
import linecache
import math
import os
import random
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphtorch.autograd.state import state
from graphtorch.frontend.errors import refuse
from graphtorch.ops.dispatch import user_frame
from graphtorch.tensor.symint import SymInt
from graphtorch.tensor.tracked import FOLLOWED, FOLLOWED_BY_ID, TrackedNumber


class RunEagerly(BaseException):
    """The capture met something that has to be done by Python: at each call, with `once` at calls like this one, with
    `first` at this one: the next call finds what it makes. Not an Exception, so that the user's handlers let it
    pass."""

    def __init__(self, reason: str, once: bool = False, first: bool = False) -> None:
        super().__init__(reason)
        self.once = once or first
        self.first = first


class Raised(RunEagerly):
    """The function raised an error while it was captured. Eager execution raises it with what the function does to
    tensors and objects until then."""

    def __init__(self, error: Exception, why: str = "its capture raised an error") -> None:
        super().__init__(f"{why} ({type(error).__name__}: {error})", once=True)
        self.error = error


_PYTHON_DRAWS = (
    *("random", "uniform", "randint", "randrange", "choice", "choices", "shuffle", "sample", "gauss", "getrandbits"),
    *("normalvariate", "betavariate", "expovariate", "triangular", "randbytes"),
)
_NUMPY_DRAWS = (
    *("rand", "randn", "randint", "random", "random_sample", "uniform", "normal", "standard_normal", "choice", "bytes"),
    *("shuffle", "permutation", "beta", "binomial", "poisson", "exponential", "gamma", "multivariate_normal"),
)
_FILES = "uses the file system"
_CLOCK = "reads the clock"
_CHANCE = "draws random bytes from the system"

# (where, name, what it does, whether it counts too if this package's own code does it)
_WATCHED: list[tuple[Any, str, str, bool]] = [
    (builtins, "print", "prints", True),
    (builtins, "input", "reads from the terminal", True),
    (builtins, "open", "opens a file", True),
    (io, "open", "opens a file", True),
    (time, "time", _CLOCK, True),
    (time, "time_ns", _CLOCK, True),
    (time, "perf_counter", _CLOCK, True),
    (time, "perf_counter_ns", _CLOCK, True),
    (time, "monotonic", _CLOCK, True),
    (time, "monotonic_ns", _CLOCK, True),
    (time, "process_time", _CLOCK, True),
    (time, "process_time_ns", _CLOCK, True),
    (time, "thread_time", _CLOCK, True),
    (time, "localtime", _CLOCK, False),
    (time, "gmtime", _CLOCK, False),
    (time, "strftime", _CLOCK, False),
    (time, "ctime", _CLOCK, False),
    (time, "sleep", "sleeps", True),
    (os, "urandom", _CHANCE, True),
    (random, "_urandom", _CHANCE, True),
    (os, "write", "writes to a file", True),
    (os, "read", "reads a file", True),
    (os, "system", "starts a process", True),
    (os, "fork", "starts a process", True),
    (subprocess.Popen, "__init__", "starts a process", True),
    (threading.Thread, "start", "starts a thread", False),
    *((os, name, _FILES, False) for name in ("stat", "listdir", "scandir", "mkdir", "rmdir", "remove", "unlink")),
    *((os, name, _FILES, False) for name in ("rename", "replace", "link", "symlink", "chdir", "getcwd", "access")),
    (warnings, "warn", "warns", False),
    *((random, name, "draws from the generator of random", False) for name in _PYTHON_DRAWS),
    *((np.random, name, "draws from the generator of numpy.random", False) for name in _NUMPY_DRAWS),
]
_ORIGINALS = {id(getattr(where, name)): does for where, name, does, _ in _WATCHED}
_RANDOM = random.Random
_DATES = (datetime, datetime.datetime, datetime.date)
_NOW = frozenset(("now", "today", "utcnow"))
_PACKAGE = os.path.dirname(os.path.dirname(__file__)) + os.sep
_LIBRARY = os.path.dirname(os.__file__) + os.sep
_lock = threading.Lock()
_watching = 0
_restore: list[tuple[Any, str, Any]] = []


class _Stream:
    """A standard stream that notes the use of it."""

    def __init__(self, stream: Any, does: str, names: tuple[str, ...]) -> None:
        self._stream, self._does, self._names = stream, does, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._stream, name)
        return _watcher(found, self._does, False) if name in self._names else found

    def __iter__(self) -> Any:
        _watcher(iter, self._does, False)(())
        return iter(self._stream)


@contextlib.contextmanager
def effects_watched(renamed: Sequence[tuple[Any, Any, Any]] = (), fullgraph: bool = False) -> Iterator[None]:
    """Raise RunEagerly, during a capture, where the user's code prints, reads the clock or draws from a random
    generator of Python or NumPy. `renamed`: (namespace, key, function) of watched functions under other names; more
    may come while the capture runs."""
    global _watching
    with _lock:
        _watching += 1
        if _watching == 1:
            _watch()
    for namespace, key, function in renamed:
        watch_renamed(namespace, key, function)
    held = random.getstate(), np.random.get_state(legacy=False)
    try:
        yield
    finally:
        for namespace, key, function in renamed:
            namespace[key] = function
        with _lock:
            _watching -= 1
            if not _watching:
                while _restore:
                    setattr(*_restore.pop())
        drawn = random.getstate() != held[0], not same_state(np.random.get_state(legacy=False), held[1])
        if any(drawn):
            random.setstate(held[0])
            np.random.set_state(held[1])
    if any(drawn):
        raise effect(f"draws from the generator of {'random' if drawn[0] else 'numpy.random'}", fullgraph)


class _Telling(type):
    """The class of what stands for `type` while a function is captured: numbers that change are of Python's classes."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            kind = type(args[0])
            if kind is TrackedNumber:
                return args[0].__class__
            return int if kind is SymInt else _told if kind is type else kind
        return type(*args, **kwargs)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, type)

    def __subclasscheck__(cls, value: Any) -> bool:
        return issubclass(value, type)


_told = _Telling("type", (type,), {})


@contextlib.contextmanager
def classes_told(absent: Mapping[tuple[int, str], tuple[dict[str, Any], str]]) -> Iterator[None]:
    """Let the user's functions that name `type` hear that a number which changes is an int or a float. `absent`: the
    globals that functions name and modules lack, as an environment has them."""
    scopes = [scope for (_, name), (scope, _) in absent.items() if name == "type"]
    for scope in scopes:
        scope["type"] = _told
    try:
        yield
    finally:
        for scope in scopes:
            del scope["type"]


def watch_renamed(namespace: Any, key: Any, function: Any) -> None:
    """Watch a function under another name."""
    followed = FOLLOWED_BY_ID.get(id(function))
    namespace[key] = _watcher(function, _ORIGINALS[id(function)], True) if followed is None else followed


def _watch() -> None:
    """Put watchers in the place of all that is watched, and note how to undo that."""
    for where, name, does, anyone in _WATCHED:
        original = getattr(where, name)
        _restore.append((where, name, original))
        setattr(where, name, _watcher(original, does, anyone))
    for name, (original, followed) in FOLLOWED.items():
        _restore.append((math, name, original))
        setattr(math, name, followed)
    reading, writing = ("read", "readline", "readlines", "fileno"), ("write", "writelines")
    asking = "reads from the terminal"
    for name, does, names in (("stdout", "prints", writing), ("stderr", "prints", writing), ("stdin", asking, reading)):
        stream = getattr(sys, name)
        if stream is not None:
            _restore.append((sys, name, stream))
            setattr(sys, name, _Stream(stream, does, names))
    for method in (np.random.default_rng, random.Random):
        where = np.random if method is np.random.default_rng else random
        _restore.append((where, method.__name__, method))
        setattr(where, method.__name__, _unseeded(method))


def _unseeded(make: Any) -> Any:
    """A maker of generators, which notes if it is to take its seed from the system."""

    def made(seed: Any = None, *args: Any, **kwargs: Any) -> Any:
        note = getattr(state.recorder, "note_effect", None)
        if note is not None and seed is None and not args and not kwargs:
            note(_CHANCE)
        return make(*args, **kwargs) if seed is None else make(seed, *args, **kwargs)

    if not isinstance(make, type):
        return functools.update_wrapper(made, make, updated=())

    class Maker(type):
        """What is asked of the class is asked of the original."""

        def __call__(cls, *args: Any, **kwargs: Any) -> Any:
            return made(*args, **kwargs)

        def __instancecheck__(cls, instance: Any) -> bool:
            return isinstance(instance, make)

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, make)

    return Maker(make.__name__, (make,), {})


def is_watched(value: Any) -> bool:
    """Whether an object is one of the functions that are watched."""
    return id(value) in _ORIGINALS


def reads_the_clock(names: Sequence[str], values: Sequence[Any]) -> bool:
    """Whether code with these names, for these objects among others, asks for the date and time of now. Those are
    methods of C classes, which can't be watched."""
    return not _NOW.isdisjoint(names) and any(value is date for value in values for date in _DATES)


def state_of(generator: Any) -> Any:
    """The state of a random generator of Python or NumPy, as a value."""
    if isinstance(generator, _RANDOM):
        return generator.getstate()
    return generator.get_state(legacy=False) if hasattr(generator, "get_state") else generator.bit_generator.state


def set_state(generator: Any, kept: Any) -> None:
    """Put a random generator back."""
    if isinstance(generator, _RANDOM):
        generator.setstate(kept)
    elif hasattr(generator, "set_state"):
        generator.set_state(kept)
    else:
        generator.bit_generator.state = kept


def same_state(a: Any, b: Any) -> bool:
    """Whether two states of a generator are equal."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same_state(a[k], b[k]) for k in a)
    return bool(np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)


def _watcher(original: Any, does: str, anyone: bool) -> Any:
    def watched(*args: Any, **kwargs: Any) -> Any:
        note = getattr(state.recorder, "note_effect", None)
        if note is not None and (anyone or _asked_by_user()):
            note(does)
        return original(*args, **kwargs)

    return watched


def _asked_by_user() -> bool:
    """Whether what called a watched function, the standard library apart, is not this package."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        file = frame.f_code.co_filename
        if not file.startswith(("<frozen", _LIBRARY)) or "site-packages" in file:
            break
        frame = frame.f_back
    return not frame.f_code.co_filename.startswith(_PACKAGE)


def effect(does: str, fullgraph: bool) -> BaseException:
    """What to raise where the user's code has a side effect that a graph can't repeat."""
    if fullgraph:
        return refuse(f"the compiled function {does}, which a graph can't", "do it outside the compiled function")
    return RunEagerly(f"it {does} at {_calling_line()}")


def _calling_line() -> str:
    """The user's line that made the standard library do something (`logging` reads the clock)."""
    frame = user_frame()
    while frame.f_back is not None and os.path.dirname(frame.f_code.co_filename).startswith(_LIBRARY.rstrip(os.sep)):
        if "site-packages" in frame.f_code.co_filename:
            break
        frame = frame.f_back
    file, line = frame.f_code.co_filename, frame.f_lineno
    return f"{file}:{line}: {linecache.getline(file, line).strip()}"
