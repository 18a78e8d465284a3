"""Matrix products through a BLAS library that is there already, called by C pointer from generated code.

Usually it is the OpenBLAS that NumPy or SciPy ships, found among their files by the symbol names of OpenBLAS builds. An
installed MKL comes first on CPUs that are not AMD's, for which it has slower code; on macOS Accelerate is the last
resort. `GRAPHTORCH_BLAS` (openblas, mkl or accelerate) chooses by hand.

`gemm_text` is the native code around it: row-major products split over the thread pool by rows or columns of the
result. BLAS runs on one thread meanwhile (its own threads would compete with the pool's) and gets its setting back
afterwards.
"""

from __future__ import annotations

import ctypes
import glob
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import numpy as np

ACCELERATE = "/System/Library/Frameworks/Accelerate.framework/Accelerate"


@dataclass(frozen=True)
class Blas:
    """Addresses of C functions; `index` is the LLVM type of their sizes. Where the number of threads can't be set,
    `set_threads` and `get_threads` are 0."""

    sgemm: int
    dgemm: int
    set_threads: int
    get_threads: int
    index: str
    path: str


@cache
def find_blas() -> Blas | None:
    """The library to use; None where there is none (products then run through NumPy)."""
    finders: dict[str, Callable[[], Blas | None]] = {"openblas": _openblas, "mkl": _mkl, "accelerate": _accelerate}
    chosen = os.environ.get("GRAPHTORCH_BLAS")
    if chosen:
        if chosen not in finders:
            raise ValueError(f"GRAPHTORCH_BLAS is {chosen!r}: expected one of {', '.join(finders)}")
        order = [chosen]
    else:
        order = ["openblas", "mkl", "accelerate"] if _is_amd() else ["mkl", "openblas", "accelerate"]
    return next((found for name in order if (found := finders[name]()) is not None), None)


def _is_amd() -> bool:
    from graphtorch.lowering.cpu.compiler import host

    try:
        return host().cpu.startswith(("znver", "bdver", "btver"))
    except (ImportError, OSError, RuntimeError):
        return False


def _openblas() -> Blas | None:
    base = os.path.dirname(np.__file__)
    packages = os.path.dirname(base)
    folders = [os.path.join(packages, "numpy.libs"), os.path.join(base, ".dylibs")]
    folders += [os.path.join(packages, "scipy.libs"), os.path.join(packages, "scipy", ".dylibs")]
    spellings = (("scipy_", "64_", "i64"), ("", "64_", "i64"), ("scipy_", "", "i32"), ("", "", "i32"))
    for path in (p for folder in folders for p in sorted(glob.glob(os.path.join(folder, "*openblas*")))):
        for library in _opened(path):
            for prefix, suffix, index in spellings:
                names = ("cblas_sgemm", "cblas_dgemm", "openblas_set_num_threads", "openblas_get_num_threads")
                found = _addresses(library, [f"{prefix}{name}{suffix}" for name in names])
                if found is not None:
                    return Blas(found[0], found[1], found[2], found[3], index, path)
    return None


def _mkl() -> Blas | None:
    """MKL as pip and conda install it."""
    names = ["cblas_sgemm", "cblas_dgemm", "MKL_Set_Num_Threads", "MKL_Get_Max_Threads"]
    for path in sorted(glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.*"))):
        for library in _opened(path):
            found = _addresses(library, names)
            if found is not None:
                return Blas(found[0], found[1], found[2], found[3], "i32", path)
    return None


def _accelerate() -> Blas | None:
    if sys.platform == "darwin":
        for library in _opened(ACCELERATE):
            found = _addresses(library, ["cblas_sgemm", "cblas_dgemm"])
            if found is not None:
                return Blas(found[0], found[1], 0, 0, "i32", ACCELERATE)
    return None


def _opened(path: str) -> Iterator[ctypes.CDLL]:
    """The library, if it can be loaded."""
    try:
        yield ctypes.CDLL(path)
    except OSError:
        return


def _addresses(library: ctypes.CDLL, names: list[str]) -> list[int] | None:
    if not all(hasattr(library, name) for name in names):
        return None
    return [ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names]


def thread_text(library: Blas) -> str:
    """Declarations of the functions that set the number of threads; stand-ins where there are none."""
    if library.set_threads:
        return "declare void @blas_set_threads(i32)\ndeclare i32 @blas_get_threads()"
    return (
        "define internal void @blas_set_threads(i32 %n) {\n  ret void\n}\n"
        "define internal i32 @blas_get_threads() {\n  ret i32 1\n}"
    )


# Arguments of a product, 8 bytes each.
A, B, C, M, N, K, LDA, LDB, LDC, TRANSPOSE_A, TRANSPOSE_B, STEP_A, STEP_B, STEP_C, BETA = range(15)
COUNT = 15


def gemm_text(index: str) -> str:
    """Native code: for each element type `gemm_rows`, `gemm_columns` and `gemm_batch`, each over a range [low, high) of
    what its name says, with the arguments above. STEP_A is how far apart rows of op(A) are in memory (batches, for
    gemm_batch); BETA is 1 where the product is added to what C holds, else 0."""
    parts = []
    for letter, kind in (("s", "float"), ("d", "double")):
        sizes = ", ".join(["i32"] * 3 + [index] * 3)
        parts.append(
            f"declare void @cblas_{letter}gemm({sizes}, {kind}, ptr, {index}, ptr, {index}, {kind}, ptr, {index})"
        )
    for letter, kind in (("s", "float"), ("d", "double")):
        for form in ("rows", "columns", "batch"):
            parts.append(_gemm(letter, kind, form, index))
    return "\n".join(parts)


def _gemm(letter: str, kind: str, form: str, index: str) -> str:
    lines = [f"define internal void @{letter}gemm_{form}(ptr %args, i64 %low, i64 %high) #0 {{", "entry:"]
    names = ["a", "b", "c", "m", "n", "k", "lda", "ldb", "ldc", "ta", "tb", "sa", "sb", "sc", "beta"]
    for i, name in enumerate(names):
        lines.append(f"  %p{name} = getelementptr i64, ptr %args, i64 {i}")
        lines.append(f"  %{name} = load {'ptr' if i < 3 else 'i64'}, ptr %p{name}")
    narrow = index == "i32"
    lines += ["  %ta32 = trunc i64 %ta to i32", "  %tb32 = trunc i64 %tb to i32", "  %count = sub i64 %high, %low"]
    lines.append(f"  %scale = sitofp i64 %beta to {kind}")

    def size(name: str) -> str:
        if not narrow:
            return f"i64 %{name}"
        lines.append(f"  %n{name} = trunc i64 %{name} to i32")
        return f"i32 %n{name}"

    def call(m: str, n: str, a: str, b: str, c: str) -> None:
        sizes = ", ".join(size(x) for x in (m, n, "k"))
        lda, ldb, ldc = size("lda"), size("ldb"), size("ldc")
        one, scale = f"{kind} 1.0", f"{kind} %scale"
        lines.append(
            f"  call void @cblas_{letter}gemm(i32 101, i32 %ta32, i32 %tb32, {sizes}, {one}, ptr {a}, {lda}, "
            f"ptr {b}, {ldb}, {scale}, ptr {c}, {ldc})"
        )

    if form == "batch":
        lines += ["  br label %loop", "loop:", "  %i = phi i64 [%low, %entry], [%next, %body]"]
        lines += ["  %more = icmp slt i64 %i, %high", "  br i1 %more, label %body, label %out", "body:"]
        at, steps = "%i", ("sa", "sb", "sc")
    else:
        at, steps = "%low", ("sa", "", "ldc") if form == "rows" else ("", "sb", "")
    pointers = []
    for base, step in zip("abc", steps, strict=True):
        if not step and not (form == "columns" and base == "c"):
            pointers.append(f"%{base}")
            continue
        if step:
            lines.append(f"  %o{base} = mul i64 {at}, %{step}")
        lines.append(f"  %q{base} = getelementptr {kind}, ptr %{base}, i64 {f'%o{base}' if step else at}")
        pointers.append(f"%q{base}")
    call("count" if form == "rows" else "m", "count" if form == "columns" else "n", *pointers)
    if form == "batch":
        lines += ["  %next = add i64 %i, 1", "  br label %loop", "out:"]
    lines += ["  ret void", "}"]
    return "\n".join(lines)
