"""Philox in Triton: the functions that draws are made of, as `tensor/philox.py` has them in NumPy.

All take the address of seed and offset, the offset of the draw from it, and positions; `threads` share the draw, and
where every position is known to be a thread's first, `SINGLE` spares the search for its turn.
"""

from __future__ import annotations

RANDOM_HELPERS = {
    "_philox": """
@triton.jit
def _philox(state, base, turn, thread):
    # Four words of a thread's stream. The key is the seed; the counter goes on from the offset.
    stream = thread.to(tl.uint32)
    zero = stream * 0
    count = (tl.load(state + 1) + base) // 4 + turn
    return tl.philox(tl.load(state), count.to(tl.uint32) + zero, (count >> 32).to(tl.uint32) + zero, stream, zero)
""",
    "_word": """
@triton.jit
def _word(state, base, at, threads, SINGLE: tl.constexpr):
    # Thread t draws for the elements t, t + threads, ..., four a call.
    if SINGLE:
        return _philox(state, base, 0, at)[0]
    else:
        turn = at // threads
        a, b, c, d = _philox(state, base, turn // 4, at % threads)
        part = turn % 4
        return tl.where(part < 2, tl.where(part == 0, a, b), tl.where(part == 2, c, d))
""",
    "_words_wide": """
@triton.jit
def _words_wide(state, base, at, threads):
    # Two words an element, two elements a call.
    turn = at // threads
    a, b, c, d = _philox(state, base, turn // 2, at % threads)
    first = turn % 2 == 0
    return tl.where(first, a, c), tl.where(first, b, d)
""",
    "_word_wide": """
@triton.jit
def _word_wide(state, base, at, threads, SINGLE: tl.constexpr):
    high, low = _words_wide(state, base, at, threads)
    return (high.to(tl.uint64) << 32) | low.to(tl.uint64)
""",
    "_uniform_of": """
@triton.jit
def _uniform_of(word):
    # In (0, 1].
    return word.to(tl.float32) * 2.3283064365386963e-10 + 1.1641532182693481e-10
""",
    "_uniform_of_two": """
@triton.jit
def _uniform_of_two(low, high):
    whole = low.to(tl.uint64) ^ (high.to(tl.uint64) << 21)
    return whole.to(tl.float64) * 1.1102230246251565e-16 + 5.551115123125783e-17
""",
    "_unit": """
@triton.jit
def _unit(state, base, at, threads, SINGLE: tl.constexpr):
    return _uniform_of(_word(state, base, at, threads, SINGLE))
""",
    "_unit_wide": """
@triton.jit
def _unit_wide(state, base, at, threads, SINGLE: tl.constexpr):
    low, high = _words_wide(state, base, at, threads)
    return _uniform_of_two(low, high)
""",
    "_unit_of_neighbours": """
@triton.jit
def _unit_of_neighbours(state, base, at):
    # A thread draws for four neighbours.
    a, b, c, d = _philox(state, base, 0, at // 4)
    part = at % 4
    return _uniform_of(tl.where(part < 2, tl.where(part == 0, a, b), tl.where(part == 2, c, d)))
""",
    "_unit_of_quads": """
@triton.jit
def _unit_of_quads(state, base, at, threads):
    # A thread draws for four neighbours at a time.
    group = at // 4
    a, b, c, d = _philox(state, base, group // threads, group % threads)
    part = at % 4
    return _uniform_of(tl.where(part < 2, tl.where(part == 0, a, b), tl.where(part == 2, c, d)))
""",
    "_units_of_quads": """
@triton.jit
def _units_of_quads(state, base, group, threads, SINGLE: tl.constexpr):
    # The same for whole groups: four times as many numbers, in order.
    if SINGLE:
        a, b, c, d = _philox(state, base, 0, group)
    else:
        a, b, c, d = _philox(state, base, group // threads, group % threads)
    return _uniform_of(tl.interleave(tl.interleave(a, c), tl.interleave(b, d)))
""",
    "_normal": """
@triton.jit
def _normal(state, base, at, threads, SINGLE: tl.constexpr):
    # Box and Muller: of a pair of words, the sine and the cosine.
    if SINGLE:
        a, b, c, d = _philox(state, base, 0, at)
    else:
        turn = at // threads
        a, b, c, d = _philox(state, base, turn // 4, at % threads)
        later = turn % 4 >= 2
        a = tl.where(later, c, a)
        b = tl.where(later, d, b)
    radius = tl.sqrt_rn(-2.0 * libdevice.log(_uniform_of(a)))
    sine, cosine = _sine_and_cosine(_uniform_of(b) * 2.0)
    if SINGLE:
        return radius * sine
    else:
        return radius * tl.where(turn % 2 == 0, sine, cosine)
""",
    "_sine_and_cosine": """
@triton.jit
def _sine_and_cosine(halves):
    # Of half turns in [-2, 2], by Taylor series around the nearest quarter turn.
    quarter = libdevice.rint(halves * 2.0)
    x = (halves - quarter * 0.5) * 3.141592653589793
    z = x * x
    odd = 2.8114572543455206e-15 * z - 7.647163731819816e-13
    odd = odd * z + 1.6059043836821613e-10
    odd = odd * z - 2.505210838544172e-08
    odd = odd * z + 2.7557319223985893e-06
    odd = odd * z - 0.0001984126984126984
    odd = odd * z + 0.008333333333333333
    odd = odd * z - 0.16666666666666666
    odd = odd * z + 1.0
    odd = odd * x
    even = 4.779477332387385e-14 * z - 1.1470745597729725e-11
    even = even * z + 2.08767569878681e-09
    even = even * z - 2.755731922398589e-07
    even = even * z + 2.48015873015873e-05
    even = even * z - 0.001388888888888889
    even = even * z + 0.041666666666666664
    even = even * z - 0.5
    even = even * z + 1.0
    turn = quarter.to(tl.int32) & 3
    sine = tl.where((turn & 1) == 0, odd, even)
    cosine = tl.where((turn & 1) == 0, even, odd)
    return tl.where(turn >= 2, sine * -1.0, sine), tl.where((turn == 1) | (turn == 2), cosine * -1.0, cosine)
""",
    "_normal_wide": """
@triton.jit
def _normal_wide(state, base, at, threads, SINGLE: tl.constexpr):
    turn = at // threads
    a, b, c, d = _philox(state, base, turn // 2, at % threads)
    radius = libdevice.sqrt(-2.0 * libdevice.log(_uniform_of_two(a, b)))
    sine, cosine = _sine_and_cosine(_uniform_of_two(c, d) * 2.0)
    return radius * tl.where(turn % 2 == 0, sine, cosine)
""",
    "_part": """
@triton.jit
def _part(a, b, c, d, part: tl.constexpr):
    if part == 0:
        return a
    elif part == 1:
        return b
    elif part == 2:
        return c
    else:
        return d
""",
    "_unit_part": """
@triton.jit
def _unit_part(a, b, c, d, part: tl.constexpr):
    return _uniform_of(_part(a, b, c, d, part))
""",
    "_normal_part": """
@triton.jit
def _normal_part(a, b, c, d, part: tl.constexpr):
    if part < 2:
        u, v = a, b
    else:
        u, v = c, d
    radius = tl.sqrt_rn(-2.0 * libdevice.log(_uniform_of(u)))
    sine, cosine = _sine_and_cosine(_uniform_of(v) * 2.0)
    if part % 2 == 0:
        return radius * sine
    else:
        return radius * cosine
""",
    "_part_wide": """
@triton.jit
def _part_wide(a, b, c, d, part: tl.constexpr):
    if part == 0:
        return (a.to(tl.uint64) << 32) | b.to(tl.uint64)
    else:
        return (c.to(tl.uint64) << 32) | d.to(tl.uint64)
""",
    "_unit_part_wide": """
@triton.jit
def _unit_part_wide(a, b, c, d, part: tl.constexpr):
    if part == 0:
        return _uniform_of_two(a, b)
    else:
        return _uniform_of_two(c, d)
""",
    "_normal_part_wide": """
@triton.jit
def _normal_part_wide(a, b, c, d, part: tl.constexpr):
    radius = libdevice.sqrt(-2.0 * libdevice.log(_uniform_of_two(a, b)))
    sine, cosine = _sine_and_cosine(_uniform_of_two(c, d) * 2.0)
    if part == 0:
        return radius * sine
    else:
        return radius * cosine
""",
    "_below": """
@triton.jit
def _below(x, low, high):
    return tl.where(x == high, low, x)
""",
    "_modulo": """
@triton.jit
def _modulo(word, COUNT: tl.constexpr):
    return word % tl.full([1], COUNT, word.dtype)
""",
    "_logarithm": """
@triton.jit
def _logarithm(x, EPS: tl.constexpr):
    # Of a number in (0, 1]; never 0.
    return tl.where(x >= 1.0 - EPS, -EPS, libdevice.log(x))
""",
    "_exponential": """
@triton.jit
def _exponential(x):
    return libdevice.exp(x)
""",
    "_tangent": """
@triton.jit
def _tangent(x, EPS: tl.constexpr):
    # Of a number in (0, 1] as an angle from -90 to 90 degrees, both excluded.
    sine, cosine = _sine_and_cosine(tl.minimum(tl.maximum(x, EPS), 1.0 - EPS) - 0.5)
    return sine / cosine
""",
    "_trials": """
@triton.jit
def _trials(x, SCALE: tl.constexpr):
    return libdevice.ceil(libdevice.log(x) / SCALE)
""",
}
