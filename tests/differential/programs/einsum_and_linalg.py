"""einsum, tensordot, decompositions, solves, norms."""

import torch

torch.manual_seed(0)
x, y = torch.arange(6.0).reshape(2, 3), torch.arange(12.0).reshape(3, 4)
print(torch.einsum("ij,jk->ik", x, y))
print(torch.einsum("ij->ji", x), torch.einsum("ij->", x), torch.einsum("ii->i", torch.arange(9.0).view(3, 3)))
print(torch.einsum("bij,bjk->bik", torch.ones(2, 2, 3), torch.ones(2, 3, 2)))
print(torch.einsum("...ij,...jk", torch.ones(2, 2, 3), torch.ones(2, 3, 1)).shape)
print(torch.einsum(x, [0, 1], y, [1, 2], [0, 2]).sum(), torch.einsum("i,j->ij", x[0], y[0]))
print(torch.tensordot(x, y, dims=1), torch.tensordot(torch.ones(2, 3, 4), torch.ones(3, 4, 5), dims=([1, 2], [0, 1])))
A = torch.tensor([[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]], dtype=torch.float64)
b = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
print(torch.linalg.solve(A, b), torch.linalg.inv(A), torch.linalg.det(A), torch.linalg.slogdet(A), sep="\n")
L = torch.linalg.cholesky(A)
print(L, torch.cholesky_solve(b[:, None], L).flatten(), torch.linalg.eigvalsh(A), sep="\n")
w, v = torch.linalg.eigh(A)
print(torch.allclose(v @ torch.diag(w) @ v.T, A))
Q, R = torch.linalg.qr(A)
print(torch.allclose(Q @ R, A), torch.allclose(Q.T @ Q, torch.eye(3, dtype=torch.float64)))
U, S, Vh = torch.linalg.svd(A[:2])
print(S, U.shape, Vh.shape)
print(
    torch.linalg.norm(A),
    torch.linalg.norm(A, 2),
    torch.linalg.norm(A, "nuc").round(decimals=4),
    torch.linalg.vector_norm(b, 1),
)
print(torch.linalg.matrix_rank(A), torch.linalg.cond(A), torch.trace(A), torch.linalg.matrix_power(A, 3)[0])
print(torch.linalg.lstsq(A[:, :2], b).solution, torch.linalg.pinv(A[:, :2]), sep="\n")
print(torch.linalg.eigvals(A).real.sort().values, torch.linalg.multi_dot([A, A, b]))
try:
    torch.linalg.inv(torch.zeros(2, 2))
except torch.linalg.LinAlgError as error:
    print(type(error).__name__, str(error).splitlines()[0])
print(torch.kron(torch.eye(2), torch.ones(1, 2)), torch.outer(b, b), torch.block_diag(torch.ones(1, 2), torch.eye(2)))
print(
    torch.cdist(x, x),
    torch.cross(b, b.flip(0), dim=0),
    torch.dot(b, b),
    torch.mv(A, b),
    torch.triu(A),
    torch.tril(A, -1),
)
print(torch.cartesian_prod(torch.tensor([1, 2]), torch.tensor([3, 4])), torch.combinations(torch.arange(4), 2))
print(*torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij"), sep="\n")
print(
    torch.baddbmm(torch.zeros(2, 2, 2), torch.ones(2, 2, 3), torch.ones(2, 3, 2), alpha=2),
    torch.addmm(x, x, torch.eye(3), beta=2),
)
