"""Polynomials with integer coefficients: the arithmetic under symbolic sizes.

A polynomial maps monomials to non-zero coefficients; a monomial is a tuple of (atom, power) in the order of the atoms'
`key`, and () is the constant term. Atoms are hashable and otherwise opaque here.
"""

from __future__ import annotations

from typing import Any

Monomial = tuple[tuple[Any, int], ...]
Terms = dict[Monomial, int]


def monomial_order(item: tuple[Monomial, int]) -> tuple[Any, ...]:
    monomial = item[0]
    return (-sum(power for _, power in monomial), tuple((atom.key, -power) for atom, power in monomial))


def add(a: Terms, b: Terms) -> Terms:
    result = dict(a)
    for monomial, coefficient in b.items():
        total = result.get(monomial, 0) + coefficient
        if total:
            result[monomial] = total
        else:
            result.pop(monomial, None)
    return result


def scale(terms: Terms, factor: int) -> Terms:
    return {m: c * factor for m, c in terms.items()}


def multiply(a: Terms, b: Terms) -> Terms:
    result: Terms = {}
    for m, c in a.items():
        for n, d in b.items():
            key = multiply_monomials(m, n)
            total = result.get(key, 0) + c * d
            if total:
                result[key] = total
            else:
                del result[key]
    return result


def multiply_monomials(a: Monomial, b: Monomial) -> Monomial:
    if not a:
        return b
    if not b:
        return a
    powers: dict[Any, int] = dict(a)
    for atom, power in b:
        powers[atom] = powers.get(atom, 0) + power
    return tuple(sorted(powers.items(), key=lambda item: item[0].key))


def divide_monomials(a: Monomial, b: Monomial) -> Monomial | None:
    """a / b where b's powers are all in a."""
    powers = dict(a)
    for atom, power in b:
        left = powers.get(atom, 0) - power
        if left < 0:
            return None
        if left:
            powers[atom] = left
        else:
            powers.pop(atom, None)
    return tuple(powers.items())


def divide(numerator: Terms, denominator: Terms) -> tuple[Terms, Terms]:
    """Polynomial division by the leading term: numerator = quotient * denominator + rest, as far as it goes exactly."""
    lead, leading = min(denominator.items(), key=monomial_order)
    quotient: Terms = {}
    work = dict(numerator)
    rest: Terms = {}
    while work:
        monomial, coefficient = min(work.items(), key=monomial_order)
        share = divide_monomials(monomial, lead)
        if share is None or coefficient % leading:
            rest[monomial] = work.pop(monomial)
            continue
        step: Terms = {share: coefficient // leading}
        quotient = add(quotient, step)
        work = add(work, scale(multiply(step, denominator), -1))
    return quotient, rest
