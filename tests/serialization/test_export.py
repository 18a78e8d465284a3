"""Exported programs: what a function computed, without the function; loading checks everything."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphtorch as torch
from graphtorch.cli.command import main
from graphtorch.serialization.program import ExportError
from graphtorch.serialization.safetensors import SafetensorError, from_bytes, load_file, save_file, to_bytes

ROOT = Path(__file__).resolve().parents[2]


def network() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.LayerNorm(8), torch.nn.Linear(8, 2))


@pytest.mark.parametrize("name", ["model", "model.zip"])
@pytest.mark.parametrize("backend", ["interpreter", "numpy"])
def test_a_model_of_any_batch(tmp_path: Path, name: str, backend: str) -> None:
    model, x = network(), torch.randn(5, 4)
    torch.compiler.mark_dynamic(x, 0)
    torch.export(model, (x,), tmp_path / name)
    program = torch.load_exported(tmp_path / name, backend)
    for count in (5, 2, 9):
        x = torch.randn(count, 4)
        np.testing.assert_allclose(program(x).numpy(), model(x).detach().numpy(), rtol=1e-5, atol=1e-6)
    assert not program(x).requires_grad


def test_structure_of_arguments_and_results(tmp_path: Path) -> None:
    def f(a: Any, options: Any, *, scale: float) -> Any:
        b, c = options["pair"]
        return {"sum": a + b * scale, "parts": [c, (c[0], 3)], "name": "x"}

    a = torch.ones(3)
    options = {"pair": (torch.ones(3), torch.arange(4))}
    program = torch.export(f, (a, options), tmp_path / "f", {"scale": 2.0})
    program = torch.load_exported(tmp_path / "f")
    found = program(a, options, scale=2.0)
    assert found["sum"].tolist() == [3.0] * 3 and found["name"] == "x" and found["parts"][1][1] == 3
    assert found["parts"][0].tolist() == [0, 1, 2, 3] and found["parts"][1][0].item() == 0
    found["parts"][0].add_(1)
    assert options["pair"][1].tolist() == [0, 1, 2, 3], "results own their memory"
    for call, words in (
        (lambda: program(a, options, scale=3.0), "scale.*was 2.0 when it was exported, now 3.0"),
        (lambda: program(a, options), "must have the entries"),
        (lambda: program(a), "must have 2 entries, not 1"),
        (lambda: program(a, {"pair": (a,)}, scale=2.0), "must have 2 entries, not 1"),
        (lambda: program(torch.ones(4), options, scale=2.0), r"a must be f32\[3\], not float32\[4\]"),
        (lambda: program(torch.ones(3).double(), options, scale=2.0), r"a must be f32\[3\], not float64\[3\]"),
        (lambda: program(3, options, scale=2.0), "must be a tensor, not int"),
    ):
        with pytest.raises(ExportError, match=words):
            call()


def test_assumptions_about_sizes_are_kept(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        return x[::2] if x.shape[0] % 2 == 0 else x

    x = torch.arange(6.0)
    torch.compiler.mark_dynamic(x, 0)
    torch.export(f, (x,), tmp_path / "even")
    program = torch.load_exported(tmp_path / "even")
    assert program(torch.arange(8.0)).tolist() == [0.0, 2.0, 4.0, 6.0]
    with pytest.raises(ExportError, match=r"assumes.*and here s0 = 7"):
        program(torch.arange(7.0))
    with pytest.raises(ExportError, match="assumes s0 >= 2, here 1"):
        program(torch.arange(1.0))


def test_a_training_step_keeps_its_state_in_the_program(tmp_path: Path) -> None:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = model(x).pow(2).mean()
        loss.backward()
        optimizer.step()
        return loss

    x = torch.randn(16, 4)
    step(x)
    torch.export(step, (x,), tmp_path / "step")
    program = torch.load_exported(tmp_path / "step")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    losses = [program(x).item() for _ in range(4)]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), "the program has its own copy"
    np.testing.assert_allclose(losses, [step(x).item() for _ in range(4)], rtol=1e-4)
    np.testing.assert_allclose(program.weights["0.weight"], model[0].weight.detach().numpy(), rtol=1e-3, atol=1e-5)
    program.save(tmp_path / "later.zip")
    np.testing.assert_allclose(torch.load_exported(tmp_path / "later.zip")(x).item(), program(x).item(), rtol=1e-5)


def test_an_argument_that_the_function_changes_is_changed(tmp_path: Path) -> None:
    torch.export(lambda x: x.add_(1).sum(), (torch.ones(3),), tmp_path / "f")
    x = torch.ones(3)
    assert torch.load_exported(tmp_path / "f")(x).item() == 6 and x.tolist() == [2.0] * 3


def test_dtypes(tmp_path: Path) -> None:
    half, mask = torch.ones(3).bfloat16(), torch.tensor([True, False, True])
    weight = torch.arange(3, dtype=torch.int8)
    torch.export(lambda x, m: (x * weight, m & (weight > 0)), (half, mask), tmp_path / "f")
    a, b = torch.load_exported(tmp_path / "f")(half, mask)
    assert a.dtype is torch.bfloat16 and a.float().tolist() == [0.0, 1.0, 2.0] and b.tolist() == [False, False, True]


def test_random_numbers_are_those_of_the_generator(tmp_path: Path) -> None:
    torch.export(lambda x: torch.nn.functional.dropout(x), (torch.ones(8),), tmp_path / "f")
    program = torch.load_exported(tmp_path / "f")
    torch.manual_seed(5)
    wanted = torch.nn.functional.dropout(torch.ones(8))
    torch.manual_seed(5)
    assert torch.equal(program(torch.ones(8)), wanted)


def test_what_can_not_be_exported() -> None:
    x = torch.ones(3)
    for call, words in (
        (lambda: torch.export(lambda x, o: x, (x, object())), "argument of class object"),
        (lambda: torch.export(lambda x: object(), (x,)), "result of class object"),
        (lambda: torch.export(lambda x: {1: x}, (x,)), "text as keys"),
        (lambda: torch.export(lambda x: x + torch.rand(3, generator=torch.Generator()), (x,)), "generator object"),
        (lambda: torch.export(lambda x: x if x.sum() > 0 else -x, (x,)), "recorded tensor"),
    ):
        with pytest.raises(RuntimeError, match=words):
            call()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.export(network(), (torch.randn(5, 4),), tmp_path / "model")
    return tmp_path / "model"


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    manifest = json.loads((folder / "program.json").read_text())
    change(manifest)
    (folder / "program.json").write_text(json.dumps(manifest))


def with_graph(folder: Path, text: str) -> None:
    import hashlib

    (folder / "graph.gt").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    edit_manifest(folder, lambda m: m["sha256"].__setitem__("graph.gt", digest))


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "another format": (lambda m: m.update(format="x"), "does not say"),
    "a later version": (lambda m: m.update(version=99), "version 99"),
    "an unknown entry": (lambda m: m.update(code="import os"), "unknown entries"),
    "a missing entry": (lambda m: m.pop("guards"), "guards must be a list"),
    "another digest": (lambda m: m["sha256"].update({"graph.gt": "0" * 64}), "not the file that was exported"),
    "a missing digest": (lambda m: m.update(sha256={}), "sha256 must name"),
    "an output too many": (lambda m: m.update(result={"output": 7}), "no output 7"),
    "a negative output": (lambda m: m.update(result={"output": -1}), "not a number of an output"),
    "a strange structure": (lambda m: m.update(result={"call": ["os.system"]}), "unknown structure 'call'"),
    "a deep structure": (
        lambda m: m.update(result=__import__("functools").reduce(lambda t, _: {"list": [t]}, range(60), {"output": 0})),
        "not a structure",
    ),
    "a strange input": (lambda m: m["inputs"].__setitem__(0, {"file": "/etc/passwd"}), "not an input"),
    "an unknown argument": (lambda m: m["inputs"].__setitem__(0, {"argument": 5, "name": "x"}), "no argument 5"),
    "an unknown weight": (lambda m: m["inputs"].__setitem__(1, {"weight": "w"}), "no weight 'w'"),
    "an input too few": (lambda m: m["inputs"].pop(), "inputs, program.json"),
    "a strange write": (lambda m: m["written"].append([0, 9]), "no input 0 or output 9"),
    "a write of another type": (lambda m: m["written"].append([1, 0]), "can't be written"),
    "code for a guard": (lambda m: m["guards"].append(["__import__('os').getpid()", "=="]), "not a size"),
    "a strange relation": (lambda m: m["guards"].append(["1", "is"]), "not an assumption"),
    "a relation that is a list": (lambda m: m["guards"].append(["1", []]), "not an assumption"),
    "an endless power": (lambda m: m["guards"].append(["9**9**9**9", ">="]), "not a size"),
    "a large polynomial": (lambda m: m["guards"].append(["(s0 + 1)**60 * (s0 + 1)**60", ">="]), "not a size"),
    "a division by zero": (lambda m: m["guards"].append(["s0 // 0", ">="]), "not a size"),
    "a deep expression": (lambda m: m["guards"].append(["-" * 3000 + "s0", ">="]), "not a size"),
    "a long expression": (lambda m: m["guards"].append(["1+" * 90000 + "s0", ">="]), "not a size"),
    "an argument without name": (lambda m: m["inputs"][0].pop("name"), "not an input"),
    "a weight that is no name": (lambda m: m["inputs"][1].update(weight=["a"]), "not an input"),
    "a large number": (lambda m: m.update(result={"value": 10**400}), "not a value"),
    "a number that is a matrix": (lambda m: m.update(result={"number": 0}), "not a number"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_changed_manifest_is_refused(folder: Path, name: str) -> None:
    change, words = MANIFESTS[name]
    edit_manifest(folder, change)
    with pytest.raises(ExportError, match=words):
        torch.load_exported(folder)


def test_changed_files_are_refused(folder: Path, tmp_path: Path) -> None:
    graph = (folder / "graph.gt").read_text()
    for text, words in (
        (graph.replace("relu", "system"), "no valid graph.*unknown operator 'system'"),
        (graph.replace("f32[2, 8]", "f32[2, 9]"), "no valid graph"),
        ("import os", "no valid graph"),
        (graph.replace("relu(", "relu(\x00"), "no valid graph"),
    ):
        with_graph(folder, text)
        with pytest.raises(ExportError, match=words):
            torch.load_exported(folder)
    with_graph(folder, graph)
    torch.load_exported(folder)
    weights = folder / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(ExportError, match=r"weights.safetensors.*digest differs"):
        torch.load_exported(folder)
    weights.unlink()
    with pytest.raises(ExportError, match="no exported program"):
        torch.load_exported(folder)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("../evil.py", "x")
    with pytest.raises(ExportError, match="entries"):
        torch.load_exported(tmp_path / "x.zip")


HOSTILE: dict[str, tuple[str, str]] = {
    "more memory than there is": ("full(size=(1000000000000, 100), fill_value=1.0, dtype=f32)", "more than the memory"),
    "a size that is a tower": ("full(size=(9**99999999,), fill_value=1.0, dtype=f32)", "powers from"),
    "a size that is too large": ("full(size=(9**62 * 9**62,), fill_value=1.0, dtype=f32)", "too large"),
    "an index that is not there": ("select(%x, 0, 7000000)", "out of range"),
    "a slice behind the end": (": f32[2, 4] = slice(%x, 0, 100, 102, 1)", "normal form"),
    "a row behind the end": (": f32[4] = select(%x, 0, 77)", "select"),
    "a dimension twice": ("permute(%x, (0, 0))", "permute|repeated"),
    "a view of more": ("view(%x, (4000000,))", "view|invalid"),
    "memory behind the end": ("as_strided(%x, (10,), (1000000,), 1000000)", "reaches element"),
    "memory before the start": ("as_strided(%x, (10,), (1,), -5)", "reaches element"),
    "memory of another form": ("as_strided(%x, (10,), (1,), 0, (1000000, 1))", "not known"),
    "a value that comes later": ("exp(%later)", "not defined"),
    "itself": ("exp(%0)", "not defined"),
    "an unknown operator": ("system(%x)", "unknown operator"),
    "an object": ("full(size=(2,), fill_value=<object>, dtype=f32)", "opaque"),
    "another device": ("full(size=(2,), fill_value=1.0, dtype=f32, device=@cuda:0)", "not on one device"),
    "a deep expression": (f"full(size=({'(' * 5000}4{')' * 5000},), fill_value=1.0, dtype=f32)", "no valid graph"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_graph_is_refused(folder: Path, name: str) -> None:
    node, words = HOSTILE[name]
    typed = node.startswith(":")
    text = f"%0{node}" if typed else f"%0 = {node}"
    with_graph(folder, f"graph f(%x: f32[5, 4] argument) {{\n  {text}\n  return y=%0\n}}\n")
    edit_manifest(
        folder,
        lambda m: m.update(
            arguments={"list": [{"list": [{"argument": 0}]}, {"dict": {}}]},
            inputs=[{"argument": 0, "name": "x"}],
            result={"output": 0},
            written=[],
            guards=[],
        ),
    )
    weights = struct.pack("<Q", 8) + b"{}      "
    (folder / "weights.safetensors").write_bytes(weights)
    digest = hashlib.sha256(weights).hexdigest()
    edit_manifest(folder, lambda m: m["sha256"].__setitem__("weights.safetensors", digest))
    with pytest.raises(ExportError, match=words):
        torch.load_exported(folder)


def test_what_is_no_file_or_no_json_is_refused(folder: Path, tmp_path: Path) -> None:
    manifest = (folder / "program.json").read_text()
    for text in ("[" * 200_000, manifest.replace('"version": 1', '"version": NaN'), manifest[:-9], "\0"):
        (folder / "program.json").write_text(text)
        with pytest.raises(ExportError, match=r"no JSON|does not say"):
            torch.load_exported(folder)
    (folder / "program.json").write_text(manifest)
    (folder / "graph.gt").unlink()
    os.mkfifo(folder / "graph.gt")
    with pytest.raises(ExportError, match="no ordinary file"):
        torch.load_exported(folder)
    with pytest.raises(ExportError):
        torch.load_exported("/dev/zero")


def test_loading_imports_nothing_that_the_files_name(folder: Path) -> None:
    """In a process of its own, from another directory, without the module that defined the model."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import numpy, graphtorch\n"
        f"program = graphtorch.load_exported({str(folder)!r})\n"
        "print(program(numpy.ones((5, 4), 'f4')).shape)\n"
        "assert not any(m in sys.modules for m in ('llvmlite', 'networkx', 'pickle_'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "[5, 2]" in done.stdout, done.stderr


def test_the_command_runs_a_program(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(5, 4)).astype("f4")
    np.savez(tmp_path / "in.npz", input=x)
    assert main(["run", str(folder), "--inputs", str(tmp_path / "in.npz"), "-o", str(tmp_path / "out.npz")]) == 0
    assert "result: float32[5, 2]" in capsys.readouterr().out
    wanted = torch.load_exported(folder)(torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["result"], wanted)
    shutil.rmtree(tmp_path / "model")
    assert main(["run", str(folder)]) == 2


# -- safetensors ------------------------------------------------------------------------------------------------------


def test_safetensors_there_and_back(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3).T,
        "b": np.array(True),
        "c": np.zeros((0, 2), np.int64),
        "d": torch.ones(3).bfloat16(),
    }
    save_file(arrays, tmp_path / "x.safetensors", {"made": "here"})
    found = load_file(tmp_path / "x.safetensors")
    assert found["a"].tolist() == arrays["a"].tolist() and found["b"].item() is True and found["c"].shape == (0, 2)
    assert found["d"].dtype is torch.bfloat16
    with pytest.raises(SafetensorError, match="no dtype complex128"):
        to_bytes({"z": np.ones(1, complex)})


def header(text: str, body: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text.encode() + body


@pytest.mark.parametrize(
    "data",
    [
        b"short",
        struct.pack("<Q", 1 << 60),
        header("nothing"),
        header("[]"),
        header('{"a": 3}'),
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}}', b"\0" * 8),
        header('{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}', b"\0" * 4),
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}', b"\0" * 8),
        header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}', b"\0" * 8),
        header('{"a": {"dtype": "PY", "shape": [1], "data_offsets": [0, 4]}}', b"\0" * 4),
        header('{"a": {"dtype": "F32", "shape": [281474976710655, 9], "data_offsets": [0, 4]}}', b"\0" * 4),
        header(
            '{"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},'
            ' "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}',
            b"\0" * 6,
        ),
        header('{"a": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, "a": {}}'),
    ],
)
def test_hostile_safetensors_are_refused(data: bytes) -> None:
    with pytest.raises(SafetensorError):
        from_bytes(data)
