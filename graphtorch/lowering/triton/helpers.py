"""Functions that sorting kernels define where they use them."""

from __future__ import annotations

SORT_HELPERS = {
    "_order_of_single": """
@triton.jit
def _order_of_single(x):
    # An integer of the same order: NaN last, zeros equal.
    bits = x.to(tl.int32, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return tl.where(x != x, 0x7FFFFFFF, tl.where(x == 0, 0, bits))
""",
    "_order_of_double": """
@triton.jit
def _order_of_double(x):
    bits = x.to(tl.int64, bitcast=True)
    bits = tl.where(bits < 0, bits ^ 0x7FFFFFFFFFFFFFFF, bits)
    return tl.where(x != x, 0x7FFFFFFFFFFFFFFF, tl.where(x == 0, 0, bits))
""",
    "_sort_pairs": """
@triton.jit
def _sort_pairs(key, at, ROWS: tl.constexpr, LENGTH: tl.constexpr, STEPS: tl.constexpr):
    # A bitonic network along the last dimension, by key and then by position.
    place = tl.broadcast_to(tl.arange(0, LENGTH)[None, :], [ROWS, LENGTH])
    for run in tl.static_range(1, STEPS + 1):
        for half in tl.static_range(run):
            distance = 1 << (run - 1 - half)
            other = place ^ distance
            other_key = tl.gather(key, other, 1)
            other_at = tl.gather(at, other, 1)
            ascending = (place & (1 << run)) == 0
            first = (place & distance) == 0
            smaller = (other_key < key) | ((other_key == key) & (other_at < at))
            taken = smaller == (ascending == first)
            key = tl.where(taken, other_key, key)
            at = tl.where(taken, other_at, at)
    return key, at
""",
}
