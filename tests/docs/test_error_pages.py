"""docs/errors and the catalogue: every example raises its error, in PyTorch's class and words, at the user's line."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

import graphtorch
from graphtorch.diagnostics import advice, code_of, explain
from graphtorch.diagnostics.catalog import ENTRIES, Entry
from graphtorch.diagnostics.report import prepare, trimmed

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "errors"
# Mistakes that PyTorch has too; the others are of this package's compiler and files.
SHARED = [e for e in ENTRIES if e.code < "GT034"]
BLOCK = re.compile(r"^```(python-error|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def raised(source: str, file: Path) -> BaseException | None:
    """What a script raises, run from a file so that its lines are known."""
    file.write_text(source, encoding="utf-8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(source, str(file), "exec"), {"__name__": "__main__"})
    except Exception as error:
        return error
    return None


def blocks(code: str) -> dict[str, str]:
    page = (FOLDER / f"{code}.md").read_text(encoding="utf-8")
    return dict(BLOCK.findall(page))


def test_the_pages_are_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_error_pages", ROOT / "tools" / "make_error_pages.py")
    assert spec is not None and spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    wanted = tool.pages()
    assert {p.name for p in FOLDER.iterdir()} == {p.name for p in wanted}
    for path, text in wanted.items():
        assert path.read_text(encoding="utf-8") == text, f"run `python tools/make_error_pages.py` ({path.name})"


def test_numbers_are_unique_and_there_are_enough() -> None:
    codes = [e.code for e in ENTRIES]
    assert len(set(codes)) == len(codes) >= 40 and codes == sorted(codes)
    assert len(SHARED) >= 30


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda e: e.code)
def test_the_example_of_the_page_raises_and_the_other_does_not(entry: Entry, tmp_path: Path) -> None:
    page = blocks(entry.code)
    error = raised(page["python-error"], tmp_path / "mistake.py")
    assert error is not None, "nothing was raised"
    assert code_of(error) == entry.code, f"{code_of(error)}: {error}"
    prepare(error)
    text = "\n".join([str(error), *getattr(error, "__notes__", ())])
    line = re.search(r"at .*mistake\.py:(\d+): (.+)", text)
    assert line is not None, text
    source = page["python-error"].splitlines()
    assert source[int(line.group(1)) - 1].strip() == line.group(2).strip()
    assert f"docs/errors/{entry.code}.md" in text and entry.fix in text
    assert raised(page["python"], tmp_path / "fixed.py") is None


@pytest.mark.parametrize("entry", SHARED, ids=lambda e: e.code)
def test_the_class_is_torchs_and_the_message_begins_as_torchs(entry: Entry, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    source = f"import graphtorch as torch\n\n{entry.example}\n"
    mine = raised(source, tmp_path / "mistake.py")
    source = source.replace("import graphtorch as torch", "import torch").replace("graphtorch.func", "torch.func")
    theirs = raised(source, tmp_path / "torchs.py")
    assert mine is not None and theirs is not None
    assert type(mine).__name__ in {c.__name__ for c in type(theirs).__mro__}
    own_words = {"GT003", "GT008", "GT021", "GT024", "GT025", "GT027", "GT028", "GT030", "GT033", "GT018", "GT009"}
    if entry.code not in own_words:
        assert str(mine)[:20] == str(theirs)[:20]


SCRIPT = """import graphtorch as torch


def loss(x, y):
    return (x - y).pow(2).mean()


a, b = torch.ones(4, 3), torch.ones(4, requires_grad=True)
{last}
"""


def run(last: str, tmp_path: Path, **environment: str) -> str:
    file = tmp_path / "train.py"
    file.write_text(SCRIPT.format(last=last), encoding="utf-8")
    merged = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, str(file)], env=merged, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    return done.stderr


def test_an_uncaught_error_shows_no_frame_of_the_package(tmp_path: Path) -> None:
    shown = run("loss(a, b)", tmp_path)
    assert "train.py" in shown and "/graphtorch/" not in shown and "<graphtorch" not in shown
    assert re.findall(r'File ".*train.py", line (\d+)', shown) == ["9", "5"]
    for text in ("return (x - y).pow(2).mean()", "in sub(input=f32[4, 3], other=f32[4]", "GT001", "cause of GT001"):
        assert text in shown, text
    full = run("loss(a, b)", tmp_path, GRAPHTORCH_FULL_TRACEBACK="1")
    assert "/graphtorch/" in full and "GT001" in full


def test_errors_that_no_operator_raises_get_their_line_and_types_too(tmp_path: Path) -> None:
    shown = run("(b * 2).backward()", tmp_path)
    for text in (
        "RuntimeError: grad can be implicitly created only for scalar outputs",
        "with b: f32[4], requires grad",
        "train.py:9: (b * 2).backward()",
        "GT012",
        "cause of GT012",
    ):
        assert text in shown, text
    assert "/graphtorch/" not in shown
    inside = run("torch.compile(loss, fullgraph=True)(a, b)", tmp_path)
    assert "GT001" in inside and "/graphtorch/" not in inside


def test_an_error_in_a_thread_is_shown_the_same_way(tmp_path: Path) -> None:
    last = "import threading\nt = threading.Thread(target=loss, args=(a, b))\nt.start()\nt.join()\nraise SystemExit(1)"
    shown = run(last, tmp_path)
    assert "Exception in thread" in shown and "GT001" in shown and "/graphtorch/" not in shown


def test_errors_of_users_stay_as_they_are(tmp_path: Path) -> None:
    shown = run("torch.compile(lambda x: x.no_such_method())(a)", tmp_path)
    assert "AttributeError" in shown and "GT" not in shown.replace("GRAPHTORCH", "")
    assert "GT" not in run("raise ValueError('mine')", tmp_path)


def test_an_error_raised_from_another_keeps_it(tmp_path: Path) -> None:
    shown = run("try:\n    a + b\nexcept RuntimeError as e:\n    raise ValueError('wrapped') from e", tmp_path)
    assert "ValueError: wrapped" in shown and "GT001" in shown and "direct cause" in shown


def test_helpers() -> None:
    assert trimmed(None) is None
    assert advice("something nobody knows") == "" and explain(ValueError("x")) is None and code_of(ValueError()) == ""
    with pytest.raises(RuntimeError) as caught:
        graphtorch.ones(3, 4) @ graphtorch.ones(3, 5)
    assert code_of(caught.value) == "GT002" and explain(caught.value).title == "Sizes of a matrix product"
    assert str(caught.value).startswith("mat1 and mat2 shapes cannot be multiplied (3x4 and 3x5)\n  in mm(")


def note(error: BaseException) -> Any:
    return getattr(error, "__notes__", ())


def test_annotating_twice_says_it_once() -> None:
    with pytest.raises(RuntimeError) as caught:
        graphtorch.ones(3, requires_grad=True).numpy()
    prepare(caught.value)
    first = list(note(caught.value))
    prepare(caught.value)
    assert list(note(caught.value)) == first and "GT017" in first[0]
