"""Writes docs/operators.md: every operator record, and the functions composed of them.

    python tools/make_operator_table.py [--check]

`--check` writes nothing and exits with 1 if the file is not what would be written.
"""

from __future__ import annotations

import sys
from pathlib import Path

from graphtorch.ops import FUNCTIONS, REGISTRY, Operator

TARGET = Path(__file__).parent.parent / "docs" / "operators.md"
DTYPES = {"b": "bool", "i": "integer", "f": "floating", "c": "complex"}

HEAD = """# Operators

Written by `tools/make_operator_table.py` from the operator records; do not edit.

Each record is one operator: its types, its NumPy evaluation, its derivative and its decomposition. All run eagerly and
in compiled functions.

- **Kind**: *pointwise* and *reduction* operators fuse into kernels; *views* share memory; *sources* make values of
  nothing; *opaque* operators are calls of their own.
- **Derivative**: the operands that gradients flow to, of any order: derivatives are made of operators.
- **Compiled as**: *primitive* (an instruction of generated kernels, or a view or source that the compiler knows),
  *decomposed* (into primitives) or *call* (the record's evaluation, or a backend's own kernel for it).
- **Dtypes**: the categories that the generated tests cover.
"""


def compiled_as(op: Operator) -> str:
    if op.scalar is not None or op.kind in ("view", "source"):
        return "primitive"
    return "decomposed" if op.decompose is not None else "call"


def row(op: Operator) -> str:
    derivative = ", ".join(f"`{name}`" for name in op.derivative) or "none"
    dtypes = ", ".join(DTYPES[letter] for letter in op.categories)
    return f"| `{op.name}` | {op.kind} | {derivative} | {compiled_as(op)} | {dtypes} |"


def page() -> str:
    lines = [HEAD, f"## Records ({len(REGISTRY)})", ""]
    lines += ["| Operator | Kind | Derivative | Compiled as | Dtypes |", "| --- | --- | --- | --- | --- |"]
    lines += [row(REGISTRY[name]) for name in sorted(REGISTRY)]
    # In-place forms go without saying where the operator has a row.
    composed = sorted(n for n in FUNCTIONS if n not in REGISTRY and n.removesuffix("_") not in REGISTRY)
    lines += ["", f"## Composed functions ({len(composed)})", "", "Python functions that call the operators above:", ""]
    lines += [", ".join(f"`{name}`" for name in composed) + ".", ""]
    return "\n".join(lines)


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        return 0 if TARGET.exists() and TARGET.read_text(encoding="utf-8") == text else 1
    TARGET.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
