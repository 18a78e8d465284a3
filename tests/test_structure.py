"""The shape of the source: which folder may import which, file lengths, docstrings, and complete operator records."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from graphtorch.cli.graphs import load_records
from graphtorch.ops.record import REGISTRY

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "graphtorch"
LONGEST_FILE = 800

# Lower layers first; folders of one layer may import one another. docs/architecture.md says why the order is this one.
LAYERS = (
    ("diagnostics", "version", "torch_version"),
    ("tensor", "autograd.state"),
    ("autograd", "ops"),
    ("ir",),
    ("ir.passes", "autodiff"),
    ("schedule", "lowering.kernel", "runtime"),
    ("lowering",),
    ("frontend",),
    (
        *("array_api", "nn", "optim", "utils", "signal", "cuda", "serialization", "func", "compiler", "_dynamo"),
        *("_inductor", "distributed", "futures", "fx", "jit", "library"),
        *("amp", "backends", "cpu", "hub", "distributions", "sparse", "vision", "text", "cli"),
    ),
)
RANK = {folder: rank for rank, layer in enumerate(LAYERS) for folder in layer}
# The namespace on top of everything, which plain users of the operators (nn, optim, utils) see as everybody does.
TOP = len(LAYERS)

MODULES = sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """`graphtorch/ir/graph.py` -> "ir.graph"; "" for the package itself."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def rank(module: str) -> int:
    """The layer of a module inside the package, by the longest folder that it lies in."""
    parts = module.split(".")
    for end in range(len(parts), 0, -1):
        found = RANK.get(".".join(parts[:end]))
        if found is not None:
            return found
    return TOP


def imports_at_module_level(path: Path) -> list[tuple[int, str]]:
    """(line, module) of what a file imports from this package when it is imported itself; type checking aside."""
    found: list[tuple[int, str]] = []

    def visit(body: list[ast.stmt]) -> None:
        for node in body:
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                visit(node.orelse)
            elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef):
                visit(node.body)
                visit(getattr(node, "orelse", []))
                for handler in getattr(node, "handlers", []):
                    visit(handler.body)
            elif isinstance(node, ast.Import):
                found.extend((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                assert node.level == 0, f"{path}:{node.lineno}: a relative import"
                for alias in node.names:
                    inner = f"{node.module}.{alias.name}"
                    found.append((node.lineno, inner if is_module(inner) else node.module))

    visit(ast.parse(path.read_text(encoding="utf-8")).body)
    return [(line, name.partition(".")[2]) for line, name in found if name.partition(".")[0] == "graphtorch"]


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downwards(path: Path) -> None:
    own = rank(module_name(path))
    upwards = [
        f"{path.relative_to(ROOT)}:{line} imports graphtorch.{name}".rstrip(".")
        for line, name in imports_at_module_level(path)
        if rank(name) > own and not (name == "" and own == RANK["nn"])
    ]
    assert not upwards, "\n".join(upwards)


def test_every_folder_has_its_place_in_the_order() -> None:
    top = {p.name for p in PACKAGE.iterdir() if p.is_dir() and (p / "__init__.py").is_file()}
    assert top <= {folder.partition(".")[0] for folder in RANK}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_file_has_a_docstring_and_a_readable_length(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST_FILE
    assert ast.get_docstring(ast.parse(text)), "the file's first lines say what it is for"


def tracked_files() -> list[Path]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_no_file_speaks_of_the_machine_it_was_written_on() -> None:
    """Absolute paths of somebody's home or checkout, and of this checkout in particular."""
    places = [re.escape(str(ROOT)), r"/(?:home|Users|root|work|mnt|workspace)/(?!me/)[\w.-]+/"]
    personal = re.compile("|".join(places))
    found: list[str] = []
    for path in tracked_files():
        if path == Path(__file__):
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if personal.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}")
    assert not found, "\n".join(found)


# -- operator records -------------------------------------------------------------------------------------------------


@cache
def records() -> list[str]:
    load_records()
    return sorted(name for name, op in REGISTRY.items() if op.type_rule.__module__.startswith("graphtorch."))


def test_records_are_registered_under_their_names() -> None:
    assert len(records()) > 100
    assert all(REGISTRY[name].name == name for name in records())


@pytest.mark.parametrize("name", records())
def test_record_is_complete(name: str) -> None:
    op = REGISTRY[name]
    function = op.function
    assert function is not None and f"{name}(" in (function.__doc__ or "")
    assert "https://docs.pytorch.org/" in function.__doc__
    # What only graphs contain has no PyTorch twin; the frontend's and the differentiator's own tests cover it.
    internal = op.type_rule.__module__.startswith(("graphtorch.frontend", "graphtorch.autodiff"))
    assert op.samples is not None or internal, "the generated tests have nothing to call it with"
    if op.kind == "pointwise":
        assert op.scalar is not None or op.decompose is not None, "no emitter could compute it"
    if op.kind == "reduction":
        assert [p.name for p in op.parameters[:2]] == ["input", "dim"] or op.decompose is not None
