"""Write docs/errors: one page an entry of the catalogue of errors, and an index. `--check` only compares."""

from __future__ import annotations

import sys
from pathlib import Path

from graphtorch.diagnostics.catalog import ENTRIES, Entry

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "errors"


def page(entry: Entry) -> str:
    """The page of one entry. `python-error` marks the script that raises; the other one runs."""
    return (
        f"# {entry.code}: {entry.title}\n\n"
        f"**Cause.** {entry.cause}\n\n"
        f"**What to do.** {entry.fix}\n\n"
        f"This raises it:\n\n```python-error\nimport graphtorch as torch\n\n{entry.example}\n```\n\n"
        f"This does not:\n\n```python\nimport graphtorch as torch\n\n{entry.fixed}\n```\n\n"
        "[All errors](README.md)\n"
    )


def index() -> str:
    """The list of all pages."""
    rows = "\n".join(f"| [{e.code}]({e.code}.md) | {e.title} |" for e in ENTRIES)
    return (
        "# Errors\n\n"
        "An error has PyTorch's class and begins with PyTorch's message. Below stand the operands with shapes and "
        "dtypes, your line, and the\nnumber of the error with what to do. "
        "`graphtorch.diagnostics.code_of(error)` gives the number.\n\n"
        "A traceback that nobody catches leaves out the frames inside graphtorch. With `GRAPHTORCH_FULL_TRACEBACK=1` "
        "it has them.\n\n"
        f"| number | |\n|---|---|\n{rows}\n"
    )


def pages() -> dict[Path, str]:
    """Every file of the folder and what it should say."""
    return {FOLDER / f"{e.code}.md": page(e) for e in ENTRIES} | {FOLDER / "README.md": index()}


def main() -> int:
    """Write the pages; with `--check`, say which differ."""
    wanted = pages()
    if "--check" in sys.argv:
        wrong = [p.name for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
        print("\n".join(wrong) or "docs/errors is up to date")
        return 1 if wrong else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
