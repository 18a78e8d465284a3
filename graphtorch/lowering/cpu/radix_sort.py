"""Sorting arrays of distinct packed integers, key above position, as functions that kernels call.

`sort_small(a, n)` inserts one by one. `sort_large(a, b, n)` sorts by the bytes of the keys, the lowest first, between
two arrays.
"""

from __future__ import annotations

from graphtorch.lowering.cpu.assembly import BITS


def definition(name: str, kind: str) -> tuple[str, set[str]]:
    """The text of `name` on integers of a kind, and its declarations."""
    bits = BITS[kind]
    if name == "sort_small":
        return _INSERTION.replace("TYPE", kind), set()
    declarations = {"declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)"}
    text = _RADIX.replace("TYPE", kind).replace("HALF", str(bits // 2)).replace("BYTES", str(bits // 16))
    return text.replace("WIDEN", f"zext i64 %s1 to {kind}" if bits > 64 else f"add {kind} %s1, 0"), declarations


_INSERTION = """define internal void @sort_small.TYPE(ptr %a, i64 %n) #0 {
entry:
  br label %outer
outer:
  %i = phi i64 [1, %entry], [%i1, %put]
  %more = icmp slt i64 %i, %n
  br i1 %more, label %take, label %done
take:
  %pi = getelementptr TYPE, ptr %a, i64 %i
  %x = load TYPE, ptr %pi
  br label %shift
shift:
  %j = phi i64 [%i, %take], [%j1, %move]
  %j1 = sub i64 %j, 1
  %has = icmp sgt i64 %j, 0
  br i1 %has, label %look, label %put
look:
  %pj = getelementptr TYPE, ptr %a, i64 %j1
  %y = load TYPE, ptr %pj
  %after = icmp ugt TYPE %y, %x
  br i1 %after, label %move, label %put
move:
  %pt = getelementptr TYPE, ptr %a, i64 %j
  store TYPE %y, ptr %pt
  br label %shift
put:
  %at = getelementptr TYPE, ptr %a, i64 %j
  store TYPE %x, ptr %at
  %i1 = add i64 %i, 1
  br label %outer
done:
  ret void
}
"""
# Sorts a by way of b, and returns which of them holds the result.
_RADIX = """define internal ptr @sort_large.TYPE(ptr %a, ptr %b, i64 %n) #0 {
entry:
  %h = alloca [256 x i64], align 64
  br label %pass
pass:
  %p = phi i64 [0, %entry], [%p1, %next]
  %from = phi ptr [%a, %entry], [%from1, %next]
  %to = phi ptr [%b, %entry], [%to1, %next]
  %more = icmp ult i64 %p, BYTES
  br i1 %more, label %clear, label %out
clear:
  call void @llvm.memset.p0.i64(ptr %h, i8 0, i64 2048, i1 false)
  %s0 = mul i64 %p, 8
  %s1 = add i64 %s0, HALF
  %s = WIDEN
  br label %count
count:
  %i = phi i64 [0, %clear], [%i1, %count]
  %pi = getelementptr TYPE, ptr %from, i64 %i
  %x = load TYPE, ptr %pi
  %xs = lshr TYPE %x, %s
  %x8 = trunc TYPE %xs to i8
  %d = zext i8 %x8 to i64
  %pd = getelementptr i64, ptr %h, i64 %d
  %c = load i64, ptr %pd
  %c1 = add i64 %c, 1
  store i64 %c1, ptr %pd
  %i1 = add i64 %i, 1
  %counting = icmp slt i64 %i1, %n
  br i1 %counting, label %count, label %counted
counted:
  %all = icmp eq i64 %c1, %n
  br i1 %all, label %next, label %prefix
prefix:
  %e = phi i64 [0, %counted], [%e1, %prefix]
  %t = phi i64 [0, %counted], [%t1, %prefix]
  %pe = getelementptr i64, ptr %h, i64 %e
  %ce = load i64, ptr %pe
  store i64 %t, ptr %pe
  %t1 = add i64 %t, %ce
  %e1 = add i64 %e, 1
  %adding = icmp ult i64 %e1, 256
  br i1 %adding, label %prefix, label %move
move:
  %k = phi i64 [0, %prefix], [%k1, %move]
  %pk = getelementptr TYPE, ptr %from, i64 %k
  %y = load TYPE, ptr %pk
  %ys = lshr TYPE %y, %s
  %y8 = trunc TYPE %ys to i8
  %f = zext i8 %y8 to i64
  %pf = getelementptr i64, ptr %h, i64 %f
  %at = load i64, ptr %pf
  %at1 = add i64 %at, 1
  store i64 %at1, ptr %pf
  %pt = getelementptr TYPE, ptr %to, i64 %at
  store TYPE %y, ptr %pt
  %k1 = add i64 %k, 1
  %moving = icmp slt i64 %k1, %n
  br i1 %moving, label %move, label %next
next:
  %from1 = phi ptr [%from, %counted], [%to, %move]
  %to1 = phi ptr [%to, %counted], [%from, %move]
  %p1 = add i64 %p, 1
  br label %pass
out:
  ret ptr %from
}
"""
