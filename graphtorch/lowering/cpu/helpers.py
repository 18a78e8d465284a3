"""Functions that several kernels of a module share by calling them: the C library's, lane by lane, and those with slow
paths. `definition` gives the LLVM text of one; `assembly.Builder.helper` calls it."""

from __future__ import annotations

from collections.abc import Callable

from graphtorch.lowering.cpu import double_functions, mersenne, packed, radix_sort, transcendental
from graphtorch.lowering.cpu.assembly import Builder, Val, const, suffix, vector_type

Function = Callable[..., Val]

# helper name -> (the C library's float64 function, how many operands)
LIBRARY = {
    "tan": 1, "asin": 1, "acos": 1, "atan": 1, "sinh": 1, "cosh": 1, "tanh": 1, "erf": 1, "sin": 1, "cos": 1,
    "expm1": 1, "log1p": 1, "log2": 1, "pow": 2, "atan2": 2, "fmod": 2,
}  # fmt: skip


def definition(name: str, kind: str, lanes: int, fma: bool) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """The text of a helper, and the declarations and further helpers that it needs."""
    if name.startswith("lib_"):
        return _library(name[4:], kind, lanes)
    if name in ("sin", "cos") and kind == "float":
        return _guarded(
            name,
            kind,
            lanes,
            Builder(fma),
            lambda b, x: transcendental.sin_cos(b, x, 0 if name == "sin" else 1),
            lambda b, x: b.compare("uge", b.intrinsic("fabs", x), 1e6),
        )
    if name in double_functions.SINGLE and kind == "float":
        return _widened(name, lanes, fma)
    if name in double_functions.DOUBLE and kind == "double":
        return _guarded(name, kind, lanes, Builder(fma), *double_functions.DOUBLE[name])
    if name in ("ipow", "upow"):
        return _integer_power(name, kind, lanes)
    if name in ("sort_small", "sort_large"):
        return *radix_sort.definition(name, kind), set()
    if name == "mt19937":
        text, declarations = mersenne.definition(lanes, fma)
        return text, declarations, set()
    if name.startswith("gemm_tile"):
        return packed.tile_definition(name, kind, lanes, fma)
    raise KeyError(name)


def _library(name: str, kind: str, lanes: int) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """A C library function applied to every lane."""
    count = LIBRARY[name]
    called = name + ("f" if kind == "float" else "")
    type_ = vector_type(kind, lanes)
    parameters = ", ".join(f"{type_} %x{i}" for i in range(count))
    head = f"define internal {type_} @lib_{name}.{suffix(kind, lanes)}({parameters}) #0 {{\n"
    declarations = {f"declare {kind} @{called}({', '.join([kind] * count)})"}
    if lanes == 1:
        body = (
            f"  %r = call {kind} @{called}({', '.join(f'{kind} %x{i}' for i in range(count))})\n  ret {kind} %r\n}}\n"
        )
        return head + body, declarations, set()
    lines = ["entry:", "  br label %l", "l:", "  %i = phi i64 [0, %entry], [%n, %l]"]
    lines.append(f"  %a = phi {type_} [zeroinitializer, %entry], [%b, %l]")
    lines.extend(f"  %e{i} = extractelement {type_} %x{i}, i64 %i" for i in range(count))
    lines.append(f"  %r = call {kind} @{called}({', '.join(f'{kind} %e{i}' for i in range(count))})")
    lines.append(f"  %b = insertelement {type_} %a, {kind} %r, i64 %i")
    lines += ["  %n = add i64 %i, 1", f"  %c = icmp ult i64 %n, {lanes}", "  br i1 %c, label %l, label %x", "x:"]
    lines.append(f"  ret {type_} %b\n}}\n")
    return head + "\n".join(lines), declarations, set()


def _integer_power(name: str, kind: str, lanes: int) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """x**y of integers by repeated squaring. A negative power of a signed number is 0, but for 1 and -1."""
    b = Builder()
    type_ = vector_type(kind, lanes)
    x, y = Val("%x0", kind, lanes), Val("%x1", kind, lanes)
    head, body, out = (b.fresh_label() for _ in range(3))
    b.line(f"br label %{head}")
    b.label(head)
    start = len(b.lines)
    b.line("")
    result, base, rest = (Val(f"%{n}", kind, lanes) for n in ("result", "base", "rest"))
    more = b.any_lane(b.compare("ne", rest, 0))
    b.line(f"br {more.typed}, label %{body}, label %{out}")
    b.label(body)
    bit = b.compare("ne", b.logic("and", rest, 1), 0)
    following = (b.select(bit, b.mul(result, base), result), b.mul(base, base), b.logic("lshr", rest, 1))
    b.line(f"br label %{head}")
    first = (const(1, kind, lanes), x, y)
    b.lines[start] = "\n".join(
        f"  {phi.text} = phi {type_} [{before.text}, %entry], [{after.text}, %{body}]"
        for phi, before, after in zip((result, base, rest), first, following, strict=True)
    )
    b.label(out)
    value = result
    if name == "ipow":
        odd = b.compare("ne", b.logic("and", y, 1), 0)
        alternating = b.select(b.compare("eq", x, -1), b.select(odd, const(-1, kind), 1), 0)
        value = b.select(b.compare("slt", y, 0), b.select(b.compare("eq", x, 1), 1, alternating), result)
    b.line(f"ret {value.typed}")
    text = f"define internal {type_} @{name}.{suffix(kind, lanes)}({type_} %x0, {type_} %x1) #0 {{\nentry:\n"
    return text + "\n".join(b.lines) + "\n}\n", b.declarations, b.helpers


def _guarded(
    name: str, kind: str, lanes: int, b: Builder, function: Function, beyond: Function | None, operands: int = 1
) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """A function of vectors, and the C library's where it does not apply to some lane."""
    type_ = vector_type(kind, lanes)
    given = [Val(f"%x{i}", kind, lanes) for i in range(operands)]
    if beyond is not None:
        large = beyond(b, *given)
        b.line(f"br {b.any_lane(large).typed}, label %slow, label %fast")
        b.label("slow")
        b.line(f"ret {b.helper('lib_' + name, *given).typed}")
        b.label("fast")
    b.line(f"ret {function(b, *given).typed}")
    parameters = ", ".join(f"{type_} {x.text}" for x in given)
    head = f"define internal {type_} @{name}.{suffix(kind, lanes)}({parameters}) #0 {{\nentry:\n"
    return head + "\n".join(b.lines) + "\n}\n", b.declarations, b.helpers


def _widened(name: str, lanes: int, fma: bool) -> tuple[str, set[str], set[tuple[str, str, int]]]:
    """A float32 function that is computed in float64."""
    function, beyond = double_functions.SINGLE[name]

    def wide(of: Function) -> Function:
        return lambda b, *given: of(b, *(b.convert("fpext", x, "double") for x in given))

    def single(b: Builder, *given: Val) -> Val:
        return b.convert("fptrunc", wide(function)(b, *given), "float")

    return _guarded(name, "float", lanes, Builder(fma), single, wide(beyond) if beyond else None, LIBRARY[name])
