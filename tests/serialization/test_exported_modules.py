"""`torch.export.export`, `Dim`, and exported programs as modules, beside PyTorch's."""

from __future__ import annotations

import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch
from graphtorch._dynamo.exc import UserError
from graphtorch.serialization.program import ExportError

torch = pytest.importorskip("torch")


def exporting(package: Any) -> Any:
    return importlib.import_module(f"{package.__name__}.export")


def model_of(package: Any) -> Any:
    nn = package.nn

    class Model(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
            self.k = package.arange(4.0)
            self.register_buffer("shift", package.ones(4))
            self.unused = nn.Parameter(package.ones(2))

        def forward(self, x: Any, y: Any = None, *, scale: float = 1.0) -> Any:
            z = self.body(x).relu() * self.k * scale + self.shift
            return {"z": z, "pair": (z.sum(0), y.sum() if y is not None else x.sum())}

    model = Model().eval()
    for i, p in enumerate(model.parameters()):
        p.data = package.linspace(-1, 1 + i, p.numel()).reshape(p.shape)
    return model


def inputs(package: Any, rows: int = 5) -> tuple[Any, Any]:
    return package.linspace(-1, 1, rows * 3).reshape(rows, 3), package.ones(2)


def test_a_module_of_any_batch() -> None:
    found = []
    for package in (graphtorch, torch):
        export = exporting(package)
        model = model_of(package)
        batch = export.Dim("batch", max=10)
        exported = export.export(
            model, inputs(package), {"scale": 2.0}, dynamic_shapes={"x": {0: batch}, "y": None, "scale": None}
        )
        module = exported.module()
        x, y = inputs(package, 7)
        made = module(x, y, scale=2.0)
        (made["z"].square().sum() + made["pair"][0].sum()).backward()
        gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
        names = sorted(exported.state_dict), sorted(dict(module.named_parameters()))
        found.append((made["z"], made["pair"], gradients, *names))
        with pytest.raises(AssertionError, match=r"Guard failed: x\.size\(\)\[0\] <= 10"):
            module(*inputs(package, 11), scale=2.0)
        with pytest.raises(AssertionError, match=r"Guard failed: x\.size\(\)\[1\] == 3"):
            module(package.ones(4, 4), y, scale=2.0)
        with pytest.raises(ValueError, match="Trying to flatten user inputs with exported input tree spec"):
            module(x, scale=2.0)
        with pytest.raises(NotImplementedError, match=r"Calling eval\(\) is not supported yet"):
            module.eval()
        with pytest.raises(RuntimeError, match="Unable to call ExportedProgram directly"):
            exported(x, y)
    ours, theirs = found
    assert ours[3:] == theirs[3:] and ours[2].keys() == theirs[2].keys()
    for mine, other in ((ours[0], theirs[0]), *zip(ours[1], theirs[1]), *((ours[2][k], theirs[2][k]) for k in ours[2])):
        np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_files(tmp_path: Path) -> None:
    export = graphtorch.export
    model = model_of(graphtorch)
    exported = export.export(model, inputs(graphtorch), dynamic_shapes=({0: export.Dim("b")}, None))
    path = tmp_path / "model.pt2"
    extra: dict[str, Any] = {"note.txt": ""}
    export.save(exported, path, extra_files={"note.txt": "hello"})
    back = export.load(path, extra_files=extra)
    assert extra == {"note.txt": "hello"}
    buffer = io.BytesIO()
    export.save(exported, buffer)
    buffer.seek(0)
    for program in (back, export.load(buffer)):
        module = program.module()
        module.load_state_dict(model.state_dict())
        x, y = inputs(graphtorch, 3)
        assert graphtorch.equal(module(x, y)["z"], model(x, y)["z"])
        assert program.range_constraints == {"b": (0, None)} and program.constants.keys() == exported.constants.keys()
    with pytest.raises(TypeError, match="must be an instance of 'ExportedProgram', got 'Model' instead"):
        export.save(model, buffer)
    (tmp_path / "bad").write_bytes(b"no zip")
    with pytest.raises(ExportError, match="is no exported module"):
        export.load(tmp_path / "bad")


def rewritten(path: Path, change: Any) -> Path:
    """A file whose module.json was changed."""
    target = path.with_suffix(".changed")
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as made:
        for name in source.namelist():
            data = source.read(name)
            if name == "module.json":
                about = json.loads(data)
                change(about)
                data = json.dumps(about).encode()
            made.writestr(name, data)
    return target


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(more=1),
        lambda about: about["parameters"].update(nothing=True),
        lambda about: about["buffers"].update(shift=3),
        lambda about: about.update(sizes=[[0, 0, "b", 0, 0, 0, None]]),
        lambda about: about.update(sizes=[[99, 0, "b", 1, 0, 0, None]]),
        lambda about: about.update(sizes=7),
    ],
)
def test_files_that_were_tampered_with(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "model.pt2"
    graphtorch.export.save(graphtorch.export.export(model_of(graphtorch), inputs(graphtorch)), path)
    with pytest.raises(ExportError, match=r"module\.json"):
        graphtorch.export.load(rewritten(path, change))


def test_training_and_state_that_changes() -> None:
    class Counting(graphtorch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = graphtorch.nn.Linear(2, 1)
            self.register_buffer("calls", graphtorch.zeros(()))

        def forward(self, x: Any) -> Any:
            self.calls.add_(1)
            return self.layer(x) * 2

    model = Counting()
    x = graphtorch.ones(4, 2)
    exported = graphtorch.export.export(model, (x,))
    assert model.calls.item() == 0 and exported.graph_signature.buffers_to_mutate
    module = exported.module()
    optimizer = graphtorch.optim.SGD(module.parameters(), lr=0.01)

    @graphtorch.compile(fullgraph=True)
    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = module(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    losses = [step(x).item() for _ in range(5)]
    assert losses[-1] < losses[0] and module.calls.item() == 5
    assert model.calls.item() == 0 and not graphtorch.equal(module.layer.weight, model.layer.weight)


def test_sizes_that_depend_on_each_other() -> None:
    class Halves(graphtorch.nn.Module):
        def forward(self, x: Any, y: Any) -> Any:
            return x.reshape(-1, 2).sum(1) + y

    half = graphtorch.export.Dim("half")
    exported = graphtorch.export.export(
        Halves(), (graphtorch.ones(6), graphtorch.ones(3)), dynamic_shapes=({0: 2 * half}, {0: half})
    )
    module = exported.module()
    assert module(graphtorch.ones(10), graphtorch.ones(5)).tolist() == [3.0] * 5
    with pytest.raises(AssertionError, match="Guard failed"):
        module(graphtorch.ones(10), graphtorch.ones(4))


@pytest.mark.parametrize(
    "shapes",
    [
        lambda d: {"x": {0: d}},
        lambda d: ({0: d},),
        lambda d: ({0: d}, {0: d}),
        lambda d: ((d,), None),
        lambda d: (3, None),
    ],
)
def test_what_contradicts_the_example(shapes: Any) -> None:
    for package, error in ((graphtorch, UserError), (torch, importlib.import_module("torch._dynamo.exc").UserError)):
        with pytest.raises(error):
            exporting(package).export(
                model_of(package), inputs(package), dynamic_shapes=shapes(exporting(package).Dim("d", max=9))
            )


def test_sizes_that_the_code_fixes() -> None:
    class Fixing(graphtorch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x if x.shape[0] == 5 else x + 1

    export = graphtorch.export
    x = graphtorch.ones(5)
    for spec in (export.Dim("b"), export.Dim.DYNAMIC):
        with pytest.raises(UserError, match="as dynamic but your code specialized it to be a constant"):
            export.export(Fixing(), (x,), dynamic_shapes=({0: spec},))
    assert export.export(Fixing(), (x,), dynamic_shapes=({0: export.Dim.AUTO},)).module()(x).tolist() == [1] * 5
    assert x._dynamic_dims == ()


def test_a_fixed_size_that_differs() -> None:
    with pytest.raises(UserError, match="Static shape constraint of 4 does not match input size of 5"):
        graphtorch.export.export(model_of(graphtorch), inputs(graphtorch), dynamic_shapes=({0: 4}, None))


def test_names() -> None:
    for package in (graphtorch, torch):
        export = exporting(package)
        a, b = export.dims("a", "b", max=4)
        assert (a.__name__, b.max, a.min) == ("a", 4, 0) and repr(2 * a + 1) == "2*a + 1"
        assert repr(export.Dim("b", min=2, max=10)).startswith("Dim('b'") and "AUTO" in repr(export.Dim.AUTO)
        for call in (lambda e=export: e.Dim("a b"), lambda e=export: e.Dim("a", min=5, max=3)):
            with pytest.raises(AssertionError):
                call()
        with pytest.raises(ValueError, match=r"Expected `mod` to be an instance of `torch\.nn\.Module`"):
            export.export(lambda x: x, (package.ones(2),))
    assert graphtorch.export is exporting(graphtorch)
