"""Sizes as symbols: how programs compute with them, and what they guard on."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracejit.functions.indexing import range_length, slice_indices
from tracejit.sizes import Family, Op, hint, is_size

_OPS: dict[Op, Callable[[int, int], int]] = {
    Op.ADD: operator.add,
    Op.SUB: operator.sub,
    Op.MUL: operator.mul,
    Op.DIV: operator.floordiv,
    Op.MOD: operator.mod,
    Op.LE: operator.le,
    Op.EQ: operator.eq,
    Op.NE: operator.ne,
}


def evaluated(family: Family, symbols: list[int]) -> list[int | None]:
    """Return the family's numbers for other symbols; None behind a division by zero."""
    values: list[int | None] = []
    for n in family.numbers:
        if n.op is None:
            values.append(n.value if n.symbol < 0 else symbols[n.symbol])
            continue
        a, b = values[n.a], values[n.b]
        bad = a is None or b is None or (n.op in (Op.DIV, Op.MOD) and b == 0)
        values.append(None if bad or a is None or b is None else _OPS[n.op](a, b))
    return values


def admitted(family: Family, symbols: list[int]) -> bool:
    """Whether the guards hold for these symbols."""
    guards = family.guards()
    values = evaluated(family, symbols)
    for guard in guards:
        a, b = values[guard.a], values[guard.b]
        if a is None or b is None or not _OPS[guard.op](a, b):
            return False
    return True


@contextmanager
def sizes_of(*values: int) -> Iterator[tuple[Family, list[Any]]]:
    with Family() as family:
        yield family, [family.symbol(v) for v in values]


Program = list[tuple[str, int, int, int]]


def run(program: Program, inputs: list[Any]) -> tuple[list[Any], list[Any]]:
    """Run a random program on ints or sizes; return its numbers, and what it decided."""
    numbers, decided = list(inputs), []
    for op, i, j, c in program:
        a = numbers[i % len(numbers)]
        b = c if j < 0 else numbers[j % len(numbers)]
        match op:
            case "+":
                numbers.append(a + b)
            case "-":
                numbers.append(b - a)
            case "*":
                numbers.append(a * b)
            case "//" | "%":
                if b > 0:
                    numbers.append(a // b if op == "//" else a % b)
                else:
                    decided.append("no division")
            case "slice":
                if b < 0:
                    decided.append("no slice")
                    continue
                start, stop, step = slice_indices(slice(None, a, c or 1), b)
                numbers.append(range_length(start, stop, step))
            case "max":
                numbers.append(max(a, b))
            case "<":
                decided.append(a < b)
            case ">=":
                decided.append(a >= b)
            case "==":
                decided.append(a == b)
            case "bool":
                decided.append(bool(a))
            case _:
                decided.append({3: "three", 4: "four"}.get(a, "other"))
    return numbers, decided


steps = st.tuples(
    st.sampled_from(["+", "-", "*", "//", "%", "slice", "max", "<", ">=", "==", "bool", "dict"]),
    st.integers(0, 7),
    st.integers(-4, 7),
    st.integers(-3, 70),
)


@given(
    st.lists(steps, max_size=8),
    st.lists(st.integers(0, 90), min_size=2, max_size=2),
    st.lists(st.lists(st.integers(0, 90), min_size=2, max_size=2), min_size=1, max_size=8),
)
@settings(deadline=None, max_examples=300)
def test_where_the_guards_hold_a_program_decides_and_computes_the_same(
    program: Program, first: list[int], others: list[list[int]]
) -> None:
    with sizes_of(*first) as (family, symbols):
        numbers, decided = run(program, symbols)
        assert run(program, first) == ([hint(n) for n in numbers], decided)
        assert admitted(family, first)
        for other in others:
            if not admitted(family, other):
                continue
            wanted, same = run(program, other)
            assert same == decided
            values = evaluated(family, other)
            assert [values[family.index(n)] if is_size(n) else n for n in numbers] == wanted


@pytest.mark.parametrize(
    "use",
    [
        range, float, hash, str, np.zeros, np.asarray, "{}".format, [0, 1, 2, 3].__getitem__,
        lambda n: 1 / n, lambda n: n**2, lambda n: n & 1, lambda n: n.bit_length(),
        lambda n: n == 3, lambda n: np.float32(2) * n, lambda n: n > 2.5,
    ],
)  # fmt: skip
def test_a_use_as_a_plain_number_guards_on_the_value(use: Callable[[Any], Any]) -> None:
    with sizes_of(3) as (family, (n,)):
        use(n)
        assert admitted(family, [3])
        assert not admitted(family, [4])
        assert not admitted(family, [2])


def test_a_size_is_an_int_to_python() -> None:
    with sizes_of(6) as (_, (n,)):
        assert isinstance(n, int)
        assert (n // 4, n % 4, -n, abs(n), divmod(n, 4)) == (1, 2, -6, 6, (1, 2))
        assert max(n, 5) == 6
