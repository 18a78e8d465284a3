"""Differentiation of IR graphs: reverse mode, the `gradient` operator, and the cut into forward and backward."""
