"""Passes: rewrites of graphs, each a small object with a stated contract, and pipelines of them."""

from graphtorch.ir.passes.base import PASSES, Pass, PassPipeline, verify_by_default
from graphtorch.ir.passes.cse import CommonSubexpressions
from graphtorch.ir.passes.dce import DeadCodeElimination
from graphtorch.ir.passes.fold import ConstantFolding
from graphtorch.ir.passes.join import JoinParts
from graphtorch.ir.passes.products import SumsOfProducts
from graphtorch.ir.passes.simplify import Simplify

# What the compiler runs on every graph. Folding makes constants that simplification finds; both leave nodes unused.
DEFAULT = "fold,simplify,join,products,cse,dce"


def default_pipeline(check: bool | None = None) -> PassPipeline:
    """The passes that the compiler runs on every graph."""
    return PassPipeline.parse(DEFAULT, check)


__all__ = [
    "DEFAULT",
    "PASSES",
    "CommonSubexpressions",
    "ConstantFolding",
    "DeadCodeElimination",
    "JoinParts",
    "Pass",
    "PassPipeline",
    "Simplify",
    "SumsOfProducts",
    "default_pipeline",
    "verify_by_default",
]
