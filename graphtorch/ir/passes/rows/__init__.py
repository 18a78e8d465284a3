"""The rows of `simplify`: one algebraic law each, in the order in which they are tried."""

from graphtorch.ir.passes.rows import arithmetic, casts, reductions, views
from graphtorch.ir.passes.rows.table import TABLE

__all__ = ["TABLE"]
