"""`torch.serialization.add_safe_globals`: classes of the user's own in checkpoints of PyTorch's."""

from __future__ import annotations

import argparse
import enum
import io
import pickle
from pathlib import Path
from typing import Any

import pytest

import graphtorch
from graphtorch.serialization import add_safe_globals, clear_safe_globals, get_safe_globals, safe_globals

torch = pytest.importorskip("torch")


class Plain:
    def __init__(self, x: Any) -> None:
        self.x = x


class Slotted:
    __slots__ = ("a",)


class Counting:
    def __setstate__(self, state: Any) -> None:
        self.state = dict(state, seen=True)


class Kind(enum.Enum):
    FIRST = 1


@pytest.fixture(autouse=True)
def nothing_allowed() -> Any:
    clear_safe_globals()
    yield
    clear_safe_globals()


def checkpoint() -> io.BytesIO:
    slotted, counting = Slotted(), Counting()
    slotted.a = 5
    counting.n = 1  # type: ignore[attr-defined]
    file = io.BytesIO()
    content = {
        "args": argparse.Namespace(lr=0.1, w=torch.arange(3)), "p": Plain([1, 2]), "s": slotted, "c": counting,
        "k": Kind.FIRST,
    }  # fmt: skip
    torch.save(content, file)
    file.seek(0)
    return file


def test_what_is_allowed_is_loaded() -> None:
    with pytest.raises(pickle.UnpicklingError, match=r"add_safe_globals\(\[Namespace\]\) allows it"):
        graphtorch.load(checkpoint())
    add_safe_globals([argparse.Namespace, Plain, Slotted, Counting, Kind])
    made = graphtorch.load(checkpoint())
    assert made["args"].lr == 0.1 and made["args"].w.tolist() == [0, 1, 2]
    assert isinstance(made["args"].w, graphtorch.Tensor)
    assert made["p"].x == [1, 2] and made["s"].a == 5 and made["k"] is Kind.FIRST
    assert made["c"].state == {"n": 1, "seen": True}
    assert get_safe_globals() == [argparse.Namespace, Plain, Slotted, Counting, Kind]


def test_blocks_and_other_names() -> None:
    file = io.BytesIO()
    torch.save(argparse.Namespace(lr=1), file)
    for _ in range(2):
        file.seek(0)
        with safe_globals([(Plain, "argparse.Namespace")]):  # the name that the file has stands for another class
            made = graphtorch.load(file)
        assert type(made) is Plain and made.lr == 1  # type: ignore[attr-defined]
        file.seek(0)
        with pytest.raises(pickle.UnpicklingError):
            graphtorch.load(file)
    assert get_safe_globals() == []


def test_nothing_else_is_made() -> None:
    from graphtorch.serialization.unpickler import Unpickler

    add_safe_globals([Plain])
    for body in (b"cos\nsystem\n)\x81.", b"ccollections\nOrderedDict\n)\x81.", b"]\x81.", b"]]\x81."):
        with pytest.raises(pickle.UnpicklingError):
            from graphtorch.serialization.reader import _find_global

            Unpickler(b"\x80\x02" + body, _find_global, lambda identity: None).load()


def test_traces_for_tensorboard(tmp_path: Path) -> None:
    from graphtorch.profiler import profile, record_function, tensorboard_trace_handler

    for packed in (False, True):
        folder = tmp_path / str(packed)
        with (
            profile(on_trace_ready=tensorboard_trace_handler(str(folder), "me", packed)),
            record_function("range"),
        ):
            pass
        (written,) = folder.iterdir()
        assert written.name.startswith("me.") and written.name.endswith(".json.gz" if packed else ".pt.trace.json")
