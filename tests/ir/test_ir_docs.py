"""docs/ir.md says what is there: its tables of rows and passes are those that are registered."""

import dataclasses
import re
from pathlib import Path

import pytest

from graphtorch.ir.passes import DEFAULT, PASSES
from graphtorch.ir.passes.rows import TABLE

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "ir.md"
ROWS = re.compile(r"(?<=prints this table -->\n\n).*?(?=\n<!-- end of rows)", re.DOTALL)


def table_of_rows():
    lines = ["| row | operators | law | |", "|---|---|---|---|"]
    for row in TABLE.rows.values():
        operators = " ".join(f"`{name}`" for name in row.operators)
        law = row.law.replace("|", "\\|")
        lines.append(f"| `{row.name}` | {operators} | {law} | {row.exactness} |")
    return "\n".join(lines) + "\n"


def test_the_table_of_rows_is_the_registered_one(request: pytest.FixtureRequest):
    text = PAGE.read_text(encoding="utf-8")
    if request.config.getoption("--update-goldens"):
        PAGE.write_text(ROWS.sub(lambda match: table_of_rows(), text), encoding="utf-8")
        return
    (found,) = ROWS.findall(text)
    assert found == table_of_rows(), "pytest --update-goldens writes the table anew"


def test_every_pass_is_in_the_table_with_its_options():
    text = PAGE.read_text(encoding="utf-8")
    for name, cls in PASSES.items():
        options = " ".join(f"`{f.name}={str(f.default).lower()}`" for f in dataclasses.fields(cls))
        assert f"| `{name}` | {options}{' ' if options else ''}| " in text
    assert f"`{DEFAULT}`" in text
