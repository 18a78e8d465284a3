"""`torch.jit`: saving and loading scripted modules, here and from PyTorch's archives."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

import graphtorch
from graphtorch import jit, nn


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("scale", graphtorch.tensor(2.0))

    def forward(self, x: Any) -> Any:
        return self.layer(x) * self.scale if x.sum() > 0 else x


def test_what_is_scripted_is_saved_and_loaded(tmp_path: Path) -> None:
    model = Branching()
    assert not isinstance(model, jit.ScriptModule) and not hasattr(model, "save")
    scripted = jit.script(model)
    assert scripted is model and isinstance(model, jit.ScriptModule) and not isinstance(nn.ReLU(), jit.ScriptModule)
    scripted.save(tmp_path / "a.pt")
    extra: dict[str, Any] = {"meta.txt": "", "missing": 1}
    jit.save(scripted, tmp_path / "b.pt", _extra_files={"meta.txt": "three"})
    for name in ("a.pt", "b.pt"):
        back = jit.load(tmp_path / name, map_location="cpu", _extra_files=extra if name == "b.pt" else None)
        x = graphtorch.ones(1, 2)
        assert graphtorch.equal(back(x), model(x)) and isinstance(back, jit.ScriptModule)
    assert extra == {"meta.txt": b"three", "missing": 1}
    buffer = io.BytesIO()
    jit.save(scripted, buffer)
    buffer.seek(0)
    assert graphtorch.equal(jit.load(buffer).layer.weight, model.layer.weight)
    assert scripted.original_name == "Branching"
    with pytest.raises(AttributeError, match=r"no \.graph here"):
        scripted.graph  # noqa: B018
    with pytest.raises(ValueError, match="does not exist"):
        jit.load(tmp_path / "nothing.pt")


def test_tracing() -> None:
    calls: list[str] = []

    class Two(nn.Module):
        def forward(self, x: Any) -> Any:
            calls.append("forward")
            return x + 1

        def other(self, x: Any, y: Any) -> Any:
            calls.append("other")
            return x + y

    x = graphtorch.ones(1)
    traced = jit.trace_module(Two(), {"forward": x, "other": (x, x)})
    assert calls == ["forward", "other"] and traced(x).item() == 2 and isinstance(traced, jit.ScriptModule)
    with pytest.raises(AttributeError, match="expected a dictionary"):
        jit.trace_module(Two(), x)  # type: ignore[arg-type]


def test_archives_of_pytorch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")

    class Model(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.l = torch.nn.Linear(2, 3)
            self.register_buffer("b", torch.arange(3))
            self.k, self.xs, self.d, self.t = 3, [1, 2], {"a": 1.5}, (1, "x")
            self.seq = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.BatchNorm2d(2))
            self.hh = torch.nn.Parameter(torch.ones(2).half(), requires_grad=False)
            self.tied = self.l

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.l(x) + self.k

    model = Model().eval()
    for kind in ("script", "trace"):
        path = tmp_path / f"{kind}.pt"
        made = torch.jit.script(model) if kind == "script" else torch.jit.trace(model, torch.ones(1, 2))
        torch.jit.save(made, path, _extra_files={"meta.txt": "hi"})
        extra = {"meta.txt": ""}
        back = jit.load(path, _extra_files=extra)
        assert extra["meta.txt"] == b"hi" and not back.training
        state, expected = back.state_dict(), made.state_dict()
        assert list(state) == list(expected)
        for name, value in expected.items():
            assert state[name].tolist() == value.tolist() and str(state[name].dtype) == str(value.dtype), name
        assert [n for n, _ in back.named_parameters()] == [n for n, _ in made.named_parameters()]
        assert back.hh.requires_grad is False and graphtorch.equal(back.tied.weight, back.l.weight)
        assert {type(m).__name__ for m in back.children()} == {"LoadedModule"}
        with pytest.raises(RuntimeError, match="which graphtorch does not run"):
            back(graphtorch.ones(1, 2))
        if kind == "script":
            assert (back.k, back.xs, back.d, back.t) == (3, [1, 2], {"a": 1.5}, (1, "x"))
        with pytest.raises(RuntimeError, match="TorchScript archive"):
            graphtorch.load(path)


def test_archives_execute_nothing(tmp_path: Path) -> None:
    for body in (b"cos\nsystem\n(X\x02\x00\x00\x00lstR.", b"c__torch__\nNothing\n)\x81.", b"]\x81."):
        path = tmp_path / "bad.pt"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in (
                ("data.pkl", b"\x80\x02" + body), ("constants.pkl", b"\x80\x02)."), ("version", b"3\n"),
            ):  # fmt: skip
                archive.writestr(f"bad/{name}", content)
        with pytest.raises(pickle.UnpicklingError):
            jit.load(path)


def test_names_that_programs_filter() -> None:
    assert issubclass(jit.TracerWarning, Warning) and issubclass(jit.Error, RuntimeError)
    assert jit.Attribute(1, int).value == 1 and jit.Attribute(1, int).type is int
    with jit.strict_fusion():
        assert jit.set_fusion_strategy([("STATIC", 2)]) == []
