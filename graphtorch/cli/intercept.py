"""Runs a script up to a certain call of a certain function.

The script runs as `__main__`, as `python FILE` runs it, with one change to its syntax tree: the wanted function gets an
outermost decorator that sees its calls. Until the wanted call, other compiled functions run eagerly: nothing is
compiled in vain, and functions that they call are seen with real tensors.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import functools
import os
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

from graphtorch.autograd.state import state
from graphtorch.cli.errors import USAGE, CommandError, near_misses
from graphtorch.frontend import CompiledFunction

DECORATOR = "__graphtorch_intercept__"
MARK = "_graphtorch_intercepted"
PACKAGE = Path(__file__).resolve().parent.parent


class Reached(BaseException):
    """Unwinds the script after the wanted call. No Exception, so that the script's own handlers let it pass."""


class Interception:
    """Waits for one call.

    `reached(compiled, args, kwargs)` is called with it, inside the script, with all of the script's objects alive;
    `wanted` is the function's dotted name, or None for any compiled function.
    """

    def __init__(self, wanted: str | None, call: int, reached: Callable[[CompiledFunction, Any, Any], None]) -> None:
        self.wanted = wanted
        self.call = call
        self.reached = reached
        self.calls = 0
        self.finished = False
        self.error: CommandError | None = None
        self._compiled_call = CompiledFunction.__call__

    # -- seeing calls ------------------------------------------------------------------------------------------------

    def decorate(self, value: Any) -> Any:
        """What takes the place of the wanted function."""
        if isinstance(value, staticmethod | classmethod):
            return type(value)(self.decorate(value.__func__))
        if isinstance(value, property):
            return property(self.decorate(value.fget), value.fset, value.fdel, value.__doc__)
        if isinstance(value, CompiledFunction):
            setattr(value, MARK, True)
            return value
        compiled_call = getattr(value, "_compiled_call_impl", None)
        if isinstance(compiled_call, CompiledFunction):  # a module after compile(module)
            setattr(compiled_call, MARK, True)
            return value
        if not isinstance(value, types.FunctionType):
            return value
        compiled = CompiledFunction(value)

        @functools.wraps(value)
        def intercepted(*args: Any, **kwargs: Any) -> Any:
            if state.recorder is not None or self.finished:
                return value(*args, **kwargs)
            return self._called(compiled, args, kwargs)

        # `compile(intercepted)` copies the mark and is then seen itself, with the options that it was given.
        setattr(intercepted, MARK, True)
        return intercepted

    def _called(self, compiled: CompiledFunction, args: Any, kwargs: Any) -> Any:
        self.calls += 1
        if self.calls < self.call:
            return self._compiled_call(compiled, *args, **kwargs)
        self.finished = True
        try:
            self.reached(compiled, args, kwargs)
        except CommandError as error:
            self.error = error  # raised where the script can't handle it
        raise Reached

    @contextlib.contextmanager
    def _watching_compiled_functions(self) -> Iterator[None]:
        interception = self

        def call(compiled: CompiledFunction, *args: Any, **kwargs: Any) -> Any:
            wanted = interception.wanted is None or getattr(compiled, MARK, False)
            if wanted and state.recorder is None and not interception.finished:
                return interception._called(compiled, args, kwargs)
            return compiled.function(*args, **kwargs)

        setattr(CompiledFunction, "__call__", call)  # noqa: B010 (mypy takes the assignment for a mistake)
        try:
            yield
        finally:
            setattr(CompiledFunction, "__call__", self._compiled_call)  # noqa: B010

    # -- the script --------------------------------------------------------------------------------------------------

    def run(self, file: str, arguments: Sequence[str]) -> None:
        """Run the script until the wanted call. What it prints goes to standard error.

        Raises CommandError if the file or function does not exist, the script fails, or it ends without the call.
        """
        code = self._load(file)
        failure: BaseException | None = None
        with _as_main(file, arguments) as module, _output_to_stderr(), self._watching_compiled_functions():
            module.__dict__[DECORATOR] = self.decorate
            try:
                exec(code, module.__dict__)
            except Reached:
                pass
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                failure = error
        if self.error is not None:
            raise self.error
        if self.finished:
            return
        name = "any compiled function" if self.wanted is None else self.wanted
        often = "" if self.call == 1 else f" for the {self.call}th time" if self.call > 3 else f" {self.call} times"
        if isinstance(failure, SystemExit):
            ended = "" if failure.code in (None, 0) else f"exited with {failure.code!r} and "
            raise CommandError(f"{file} {ended}never called {name}{often}") from failure
        if failure is not None:
            shown = _user_traceback(failure)
            raise CommandError(f"{file} failed before it called {name}{often}.\n{shown}") from failure
        count = f" ({self.calls} calls)" if self.calls else ""
        raise CommandError(f"{file} never called {name}{often}{count}")

    def _load(self, file: str) -> types.CodeType:
        try:
            source = Path(file).read_bytes()
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}", USAGE) from error
        try:
            tree = ast.parse(source, file)
        except (SyntaxError, ValueError) as error:
            raise CommandError(f"{file} is no Python source: {error}", USAGE) from error
        if self.wanted is not None:
            _decorate_definitions(tree, self.wanted, file)
        return compile(tree, file, "exec", dont_inherit=True)


# -- the syntax tree --------------------------------------------------------------------------------------------------


class _Definitions(ast.NodeVisitor):
    """The dotted names of all functions of a file, and the other names that it binds."""

    def __init__(self) -> None:
        self.path: list[str] = []
        self.functions: list[str] = []
        self.bound: set[str] = set()

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.path.append(node.name)
        self.generic_visit(node)
        self.path.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self.path.append(node.name)
        self.functions.append(".".join(self.path))
        self.generic_visit(node)
        self.path.pop()

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        self.bound.update(alias.asname or alias.name for alias in node.names)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.bound.update(target.id for target in node.targets if isinstance(target, ast.Name))


class _Decorator(ast.NodeTransformer):
    """Adds the decorator to definitions, and the equivalent assignment after imports and assignments of a name."""

    def __init__(self, functions: set[str], name: str | None) -> None:
        self.functions = functions
        self.name = name
        self.path: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        self.path.append(node.name)
        self.generic_visit(node)
        self.path.pop()
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> ast.AST:
        self.path.append(node.name)
        if ".".join(self.path) in self.functions:
            first = node.decorator_list[0] if node.decorator_list else node
            node.decorator_list.insert(0, ast.copy_location(ast.Name(DECORATOR, ast.Load()), first))
        self.generic_visit(node)
        self.path.pop()
        return node

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_ImportFrom(self, node: ast.ImportFrom) -> Any:
        return self._followed(node, (alias.asname or alias.name for alias in node.names))

    def visit_Assign(self, node: ast.Assign) -> Any:
        return self._followed(node, (target.id for target in node.targets if isinstance(target, ast.Name)))

    def _followed(self, node: ast.stmt, names: Iterator[str]) -> Any:
        if self.name is None or self.name not in names:
            return node
        (assignment,) = ast.parse(f"{self.name} = {DECORATOR}({self.name})").body
        for made in ast.walk(assignment):
            ast.copy_location(made, node)
        return [node, assignment]


def _decorate_definitions(tree: ast.Module, wanted: str, file: str) -> None:
    """Change the tree so that the wanted function is decorated. A name that is not complete (`forward`, a nested
    function's) stands for every function whose dotted name ends in it."""
    found = _Definitions()
    found.visit(tree)
    exact = {name for name in found.functions if name == wanted}
    functions = exact or {name for name in found.functions if name.endswith("." + wanted)}
    if not functions and wanted not in found.bound:
        last = [name.rpartition(".")[2] for name in found.functions]
        hint = near_misses(wanted, sorted({*found.functions, *last}))
        raise CommandError(f"{file} defines no function {wanted!r}{hint}", USAGE)
    _Decorator(functions, None if functions else wanted).visit(tree)


# -- the script's surroundings ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def _as_main(file: str, arguments: Sequence[str]) -> Iterator[types.ModuleType]:
    """A `__main__` module, `sys.argv` and `sys.path` as `python FILE ARGUMENTS` has them."""
    module = types.ModuleType("__main__")
    module.__dict__.update(
        __file__=file,
        __builtins__=builtins,
        __loader__=SourceFileLoader("__main__", file),
        __cached__=None,
        __spec__=None,
    )
    main, argv, path = sys.modules["__main__"], sys.argv, list(sys.path)
    sys.modules["__main__"] = module
    sys.argv = [file, *arguments]
    if not sys.flags.safe_path:
        # The command's own first entry is the folder that it started from, as the script's is to be.
        sys.path[0] = os.path.dirname(os.path.realpath(file))
    try:
        yield module
    finally:
        sys.modules["__main__"], sys.argv, sys.path[:] = main, argv, path


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """What the script (or a process that it starts) prints does not mix with the dump."""
    sys.stdout.flush()
    try:
        saved = os.dup(1)
        os.dup2(2, 1)
    except OSError:  # closed by whoever started the command
        saved = -1
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        if saved >= 0:
            os.dup2(saved, 1)
            os.close(saved)


def user_frames(stack: traceback.StackSummary) -> traceback.StackSummary:
    """A stack without this package's own frames."""
    return traceback.StackSummary.from_list(
        [frame for frame in stack if not Path(frame.filename).resolve().is_relative_to(PACKAGE)]
    )


def _user_traceback(error: BaseException) -> str:
    """The traceback of an error and of its causes, without this package's own frames."""
    shown = traceback.TracebackException.from_exception(error)
    seen: traceback.TracebackException | None = shown
    while seen is not None:
        seen.stack = user_frames(seen.stack)
        seen = seen.__cause__ or seen.__context__
    return "".join(shown.format()).rstrip()
