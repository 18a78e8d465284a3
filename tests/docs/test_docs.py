"""The documentation's Python runs: all blocks of a page, in order, as one script in a process of its own."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from graphtorch.cli.command import parser

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(r"^```(?P<language>[\w-]*)[^\n]*\n(?P<body>.*?)^```\s*$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")


def script_of(text: str) -> str:
    """The ```python blocks of a page, each on the lines where the page has it: a traceback shows the page's lines."""
    lines: list[str] = []
    for block in BLOCK.finditer(text):
        if block["language"] == "python":
            first = text.count("\n", 0, block.start("body"))
            lines += [""] * (first - len(lines))
            lines += block["body"].splitlines()
    return "\n".join(lines) + "\n"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_blocks_are_found_and_keep_their_lines() -> None:
    text = "# Title\n\n```python\nx = 1\n```\n\n```sh\nls\n```\n\n```python\ny = 2\n```\n"
    assert script_of(text).splitlines() == ["", "", "", "x = 1", "", "", "", "", "", "", "", "y = 2"]


# Those of docs/errors run in test_error_pages.
SCRIPTS = [p for p in PAGES if p.parent.name != "errors" and script_of(p.read_text(encoding="utf-8")).strip()]


@pytest.mark.parametrize("page", SCRIPTS, ids=name_of)
def test_python_of_the_page_runs(page: Path, tmp_path: Path) -> None:
    script = tmp_path / f"{page.stem}.py"
    script.write_text(script_of(page.read_text(encoding="utf-8")), encoding="utf-8")
    code = f"import sys, runpy; sys.path.insert(0, {str(ROOT)!r}); runpy.run_path({str(script)!r}, run_name='__main__')"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, f"{name_of(page)}:\n{result.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_the_page_parse(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("    graphtorch ") and "[" not in line:  # a bracket is a synopsis
            arguments = shlex.split(line, comments=True)[1:]
            parser().parse_args(arguments[: arguments.index("--")] if "--" in arguments else arguments)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    missing = [
        target
        for target in (match["target"].partition("#")[0] for match in LINK.finditer(text))
        if target and "://" not in target and not (page.parent / target).exists()
    ]
    assert not missing


def test_every_page_is_linked_from_the_index() -> None:
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    linked = {match["target"].partition("#")[0] for match in LINK.finditer(index)}
    errors = (ROOT / "docs" / "errors" / "README.md").read_text(encoding="utf-8")
    linked |= {f"errors/{match['target']}" for match in LINK.finditer(errors)}
    pages = {p.relative_to(ROOT / "docs").as_posix() for p in PAGES if p.parent != ROOT} - {"index.md"}
    assert pages <= linked
