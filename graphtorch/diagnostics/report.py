"""From an exception to what a user needs to know: the number of the error, its cause, the user's line, the fix.

Errors keep PyTorch's class and the start of its message. What is added stands below the message: operands' types, the
line, the number. A traceback that nobody catches is printed without this package's own frames, unless
GRAPHTORCH_FULL_TRACEBACK=1."""

from __future__ import annotations

import functools
import linecache
import os
import re
from types import TracebackType
from typing import Any

from graphtorch.diagnostics.catalog import BY_CODE, ENTRIES, Entry

_PACKAGE = __name__.partition(".")[0]
_CODE = re.compile(r"^  (GT\d{3}): ", re.MULTILINE)


@functools.cache
def _patterns() -> tuple[tuple[Any, Entry], ...]:
    last = "GT049"  # what capture refuses and no other entry knows
    return tuple((re.compile(e.pattern), e) for e in sorted(ENTRIES, key=lambda e: e.code == last))


def entry_of(error: BaseException) -> Entry | None:
    """The catalogue's entry for an error; None for one that it doesn't know."""
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    found = _CODE.search(text)
    if found is not None:
        return BY_CODE.get(found.group(1))
    return recognise(str(error.args[0]) if error.args else str(error))


def recognise(message: str) -> Entry | None:
    """The entry whose pattern the start of a message matches."""
    for pattern, entry in _patterns():
        if pattern.match(message):
            return entry
    return None


def advice(message: str) -> str:
    """What to print below an error's message: its number, what to do and where to read more; "" for unknown ones."""
    entry = recognise(message)
    return "" if entry is None else f"\n  {entry.code}: {entry.fix} (docs/errors/{entry.code}.md)"


def is_internal(frame: Any) -> bool:
    """Whether a stack frame belongs to this package."""
    name: str = frame.f_globals.get("__name__", "")
    file: str = frame.f_code.co_filename
    return name == _PACKAGE or name.startswith(_PACKAGE + ".") or file.startswith("<graphtorch")


def trimmed(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback without this package's frames; itself where nothing else is in it."""
    kept: list[TracebackType] = []
    step = traceback
    while step is not None:
        if not is_internal(step.tb_frame):
            kept.append(step)
        step = step.tb_next
    if not kept:
        return traceback
    made: TracebackType | None = None
    for step in reversed(kept):
        made = TracebackType(made, step.tb_frame, step.tb_lasti, step.tb_lineno)
    return made


def last_user_line(traceback: TracebackType | None) -> str:
    """`file:line: text` of the innermost frame outside of this package; "" if there is none."""
    found = ""
    while traceback is not None:
        if not is_internal(traceback.tb_frame):
            file, line = traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
            text = linecache.getline(file, line).strip()
            found = f"{file}:{line}" + (f": {text}" if text else "")
        traceback = traceback.tb_next
    return found


def tensors_on_the_line(traceback: TracebackType | None) -> str:
    """The tensors that the innermost line outside of this package names, with their types."""
    from graphtorch.tensor.tensor import Tensor
    from graphtorch.tensor.type import type_of

    last: TracebackType | None = None
    while traceback is not None:
        if not is_internal(traceback.tb_frame):
            last = traceback
        traceback = traceback.tb_next
    if last is None:
        return ""
    frame = last.tb_frame
    text = linecache.getline(frame.f_code.co_filename, last.tb_lineno)
    found: dict[str, str] = {}
    for name in re.findall(r"[^\W\d]\w*", text):
        value = frame.f_locals.get(name, frame.f_globals.get(name))
        if isinstance(value, Tensor):
            found[name] = f"{name}: {type_of(value)}" + (", requires grad" if value._requires_grad else "")
    return "; ".join(found.values())


def passes_through(traceback: TracebackType | None) -> bool:
    """Whether an error was raised inside of this package."""
    last = None
    while traceback is not None:
        last, traceback = traceback, traceback.tb_next
    return last is not None and is_internal(last.tb_frame)


def annotate(error: BaseException) -> None:
    """Add cause, line, number and fix to an error that was raised inside of this package, as a note."""
    if not passes_through(error.__traceback__):
        return
    entry = entry_of(error)
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    if entry is None or f"  cause of {entry.code}" in text:
        return
    lines: list[str] = []
    if "\n  at " not in text:
        operands = tensors_on_the_line(error.__traceback__)
        lines += [f"  with {operands}"] if operands else []
        lines.append(f"  at {last_user_line(error.__traceback__)}")
    if _CODE.search(text) is None:
        lines.append(f"  {entry.code}: {entry.fix} (docs/errors/{entry.code}.md)")
    lines.append(f"  cause of {entry.code}: {entry.cause}")
    error.add_note("\n".join(lines))


def show_full() -> bool:
    """Whether this package's own frames are wanted in tracebacks."""
    return os.environ.get("GRAPHTORCH_FULL_TRACEBACK", "") not in ("", "0")


def prepare(error: BaseException) -> None:
    """Make an uncaught error ready to be printed: note and short traceback, also for what it was raised from."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        annotate(current)
        if not show_full():
            current.__traceback__ = trimmed(current.__traceback__)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
