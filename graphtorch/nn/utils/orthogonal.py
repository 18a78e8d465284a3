"""The orthogonal parametrization: a matrix with orthonormal columns (or rows) as a function of any matrix.

Source: Lezcano Casado and Martínez-Rubio, Cheap orthogonal constraints in neural networks (2019).
"""

from __future__ import annotations

import graphtorch as torch
from graphtorch import Tensor
from graphtorch.nn.modules.module import Module
from graphtorch.nn.utils.parametrize import register_parametrization

__all__ = ["orthogonal"]

_MAPS = ("matrix_exp", "cayley", "householder")


def _is_orthogonal(q: Tensor) -> bool:
    """Whether columns are orthonormal up to ten rounding errors."""
    identity = torch.eye(q.size(-1), dtype=q.dtype, device=q.device)
    tolerance = 10.0 * max(q.size(-2), q.size(-1)) * torch.finfo(q.dtype).eps
    return bool(torch.allclose(q.mH @ q, identity, atol=tolerance))


def _orthonormalized(a: Tensor) -> Tensor:
    """The Q of A = Q R with R's diagonal positive."""
    factors, tau = torch.geqrf(a)
    q = torch.linalg.householder_product(factors, tau)
    return q * factors.diagonal(dim1=-2, dim2=-1).sgn().unsqueeze(-2)


class _Orthogonal(Module):
    base: Tensor | None

    def __init__(self, weight: Tensor, orthogonal_map: str, *, use_trivialization: bool = True) -> None:
        super().__init__()
        if weight.is_complex() and orthogonal_map == "householder":
            raise ValueError("The householder parametrization does not support complex tensors.")
        self.shape = weight.shape
        self.orthogonal_map = orthogonal_map
        if use_trivialization:
            self.register_buffer("base", None)

    def forward(self, x: Tensor) -> Tensor:
        n, k = x.size(-2), x.size(-1)
        transposed = n < k
        if transposed:
            x, n, k = x.mT, k, n
        if self.orthogonal_map == "householder":
            below = x.tril(diagonal=-1)
            q = torch.linalg.householder_product(below, 2.0 / (1.0 + (below * below).sum(dim=-2)))
            # The diagonal holds signs, each 1 or -1.
            q = q * x.diagonal(dim1=-2, dim2=-1).int().unsqueeze(-2)
        else:
            x = x.tril()
            if n != k:
                x = torch.cat([x, x.new_zeros(n, n - k).expand((*x.shape[:-2], -1, -1))], dim=-1)
            skew = x - x.mH
            if self.orthogonal_map == "matrix_exp":
                q = torch.matrix_exp(skew)
            else:
                identity = torch.eye(n, dtype=skew.dtype, device=skew.device)
                q = torch.linalg.solve(torch.add(identity, skew, alpha=-0.5), torch.add(identity, skew, alpha=0.5))
            q = q[..., :k]
        if hasattr(self, "base"):
            q = self.base @ q
        return q.mT if transposed else q

    def right_inverse(self, q: Tensor) -> Tensor:
        with torch.no_grad():
            return self._unconstrained(q)

    def _unconstrained(self, q: Tensor) -> Tensor:
        """A matrix that `forward` maps to `q`, or to the nearest that QR gives if it is not orthogonal."""
        if q.shape != self.shape:
            raise ValueError(
                f"Expected a matrix or batch of matrices of shape {self.shape}. Got a tensor of shape {q.shape}."
            )
        given = q
        n, k = q.size(-2), q.size(-1)
        transposed = n < k
        if transposed:
            q, n, k = q.mT, k, n
        if not hasattr(self, "base"):
            if self.orthogonal_map != "householder":
                raise NotImplementedError(
                    "It is not possible to assign to the matrix exponential or the Cayley parametrizations when "
                    "use_trivialization=False."
                )
            a, tau = torch.geqrf(q)
            signs = a.diagonal(dim1=-2, dim2=-1).sign()
            signs = torch.where(tau == 0.0, -signs, signs)
            a = torch.diagonal_scatter(a, signs, dim1=-2, dim2=-1)
            return a.mT if transposed else a
        if n == k:
            base = q.clone() if _is_orthogonal(q) else _orthonormalized(q)
        else:
            # Further columns complete the basis.
            more = torch.randn((*q.size()[:-2], n, n - k), dtype=q.dtype, device=q.device)
            base = _orthonormalized(torch.cat([q, more], dim=-1))
        self.base = base
        minus = torch.full((min(n, k),), -1.0, dtype=q.dtype, device=q.device)
        return torch.diagonal_scatter(torch.zeros_like(given), minus.expand((*given.shape[:-2], -1)), dim1=-2, dim2=-1)


def orthogonal(
    module: Module, name: str = "weight", orthogonal_map: str | None = None, *, use_trivialization: bool = True
) -> Module:
    """Make a matrix, or a batch of matrices, orthogonal: with orthonormal columns, or rows if it is wide.

    `orthogonal_map` is "matrix_exp", "cayley" or "householder"; by default the first for square and complex matrices,
    else the last.

    Raises:
        ValueError: the module has no such matrix, or the map is unknown.

    See https://docs.pytorch.org/docs/stable/generated/torch.nn.utils.parametrizations.orthogonal.html
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if weight.ndim < 2:
        raise ValueError(f"Expected a matrix or batch of matrices. Got a tensor of {weight.ndim} dimensions.")
    if orthogonal_map is None:
        square = weight.size(-2) == weight.size(-1)
        orthogonal_map = "matrix_exp" if square or weight.is_complex() else "householder"
    if orthogonal_map not in _MAPS:
        raise ValueError(
            f'orthogonal_map has to be one of "matrix_exp", "cayley", "householder". Got: {orthogonal_map}'
        )
    made = _Orthogonal(weight, orthogonal_map, use_trivialization=use_trivialization)
    register_parametrization(module, name, made, unsafe=True)
    return module
