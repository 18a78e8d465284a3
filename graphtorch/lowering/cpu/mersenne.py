"""The Mersenne Twister as native code: `mt19937(state, out, count)` writes the next words of a generator.

`state` is the 624 words of 32 bits and, behind them, how many of these are used up. M. Matsumoto and T. Nishimura,
"Mersenne Twister", ACM Transactions on Modeling and Computer Simulation 8 (1998). The recurrence reaches 227 words
back, so that vectors of the host's width make the next 624 words at once.
"""

from __future__ import annotations

from graphtorch.lowering.cpu.assembly import Builder, Val, const

WORDS = 624
_SHIFT = 397
_UPPER, _LOWER = 0x80000000, 0x7FFFFFFF
_MATRIX = 0x9908B0DF


def definition(lanes: int, fma: bool) -> tuple[str, set[str]]:
    """The text of `mt19937.v<lanes>`, and the declarations that it needs."""
    b = Builder(fma)
    zero = const(0, "i64")
    position = b.offset("%state", const(WORDS, "i64"), "i32")

    def block(done: Val) -> Val:
        """Write words until this block of 624, or the demand, is used up; how many are done then."""
        used = b.emit(f"load i32, ptr {position}, align 4", "i32")
        empty = b.compare("uge", used, WORDS)
        fill, after = b.fresh_label(), b.fresh_label()
        b.line(f"br {empty.typed}, label %{fill}, label %{after}")
        b.label(fill)
        _twist(b, lanes)
        b.line(f"store i32 0, ptr {position}, align 4")
        b.line(f"br label %{after}")
        b.label(after)
        used = b.convert("zext", b.emit(f"load i32, ptr {position}, align 4", "i32"), "i64")
        left = b.sub(const(WORDS, "i64"), used)
        wanted = b.sub(Val("%count", "i64"), done)
        n = b.select(b.compare("slt", left, wanted), left, wanted)
        source, target = b.offset("%state", used, "i32"), b.offset("%out", done, "i32")

        def temper(at: Val, values: list[Val]) -> list[Val]:
            mask = b.compare("slt", b.iota("i64", lanes), b.splat(b.sub(n, at), lanes))
            y = b.load(b.offset(source, at, "i32"), "i32", lanes, mask)
            y = b.logic("xor", y, b.logic("lshr", y, 11))
            y = b.logic("xor", y, b.logic("and", b.logic("shl", y, 7), 0x9D2C5680))
            y = b.logic("xor", y, b.logic("and", b.logic("shl", y, 15), 0xEFC60000))
            y = b.logic("xor", y, b.logic("lshr", y, 18))
            b.store(y, b.offset(target, at, "i32"), mask)
            return []

        b.loop(zero, n, lanes, temper)
        b.store(b.convert("trunc", b.add(used, n), "i32"), position)
        return b.add(done, n)

    head, body, out = (b.fresh_label() for _ in range(3))
    b.line(f"br label %{head}")
    b.label(head)
    phi = len(b.lines)
    b.line("")
    done = Val("%done", "i64")
    b.line(f"br {b.compare('slt', done, Val('%count', 'i64')).typed}, label %{body}, label %{out}")
    b.label(body)
    further = block(done)
    last = b.fresh_label()
    b.line(f"br label %{last}")
    b.label(last)
    b.line(f"br label %{head}")
    b.lines[phi] = f"  %done = phi i64 [0, %entry], [{further.text}, %{last}]"
    b.label(out)
    b.line("ret void")
    text = f"define internal void @mt19937.v{lanes}(ptr %state, ptr %out, i64 %count) #0 {{\nentry:\n"
    return text + "\n".join(b.lines) + "\n}\n", b.declarations


def _twist(b: Builder, lanes: int) -> None:
    """The next 624 words, in place."""

    def words(at: Val, width: int, far: int, mask: Val | None = None, further: str = "") -> None:
        def place(shift: int) -> str:
            return b.offset(b.offset("%state", at, "i32"), const(shift, "i64"), "i32")

        upper = b.logic("and", b.load(place(0), "i32", width, mask), _UPPER)
        following = b.load(further or place(1), "i32", width, mask)
        y = b.logic("or", upper, b.logic("and", following, _LOWER))
        odd = b.compare("ne", b.logic("and", following, 1), 0)
        made = b.logic("xor", b.logic("lshr", y, 1), b.select(odd, const(_MATRIX, "i32"), 0))
        b.store(b.logic("xor", b.load(place(far), "i32", width, mask), made), place(0), mask)

    def part(first: int, last: int, far: int) -> None:
        def whole(at: Val, values: list[Val]) -> list[Val]:
            words(at, lanes, far)
            return []

        end = first + (last - first) // lanes * lanes
        b.loop(const(first, "i64"), const(end, "i64"), lanes, whole)
        if end < last:
            on = ", ".join(f"i1 {'true' if n < last - end else 'false'}" for n in range(lanes))
            words(const(end, "i64"), lanes, far, Val(f"<{on}>", "i1", lanes))

    part(0, WORDS - _SHIFT, _SHIFT)
    part(WORDS - _SHIFT, WORDS - 1, _SHIFT - WORDS)
    words(const(WORDS - 1, "i64"), 1, _SHIFT - WORDS, None, "%state")
