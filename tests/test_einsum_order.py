"""The order in which einsum contracts its operands: the fewest multiplications, no copies."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.ops.contraction import contraction_order
from tracejit.schedule.schedule import ContractionStep


def cost(
    order: Sequence[tuple[int, int]],
    terms: Sequence[str],
    output: str,
    extent: Mapping[str, int],
) -> int:
    """Return the multiplications of contracting in an order.

    What one operand alone has is summed before.
    """
    left = [
        set(t) & set(output).union(*(o for k, o in enumerate(terms) if k != i))
        for i, t in enumerate(terms)
    ]
    total = 0
    for i, j in order:
        both = left[i] | left[j]
        total += math.prod(extent[c] for c in both)
        left = [t for k, t in enumerate(left) if k not in (i, j)]
        left.append(both & set(output).union(*left))
    assert len(left) == 1
    return total


def all_orders(count: int) -> Iterator[list[tuple[int, int]]]:
    if count == 1:
        yield []
        return
    for pair in itertools.combinations(range(count), 2):
        for rest in all_orders(count - 1):
            yield [pair, *rest]


@pytest.mark.parametrize("seed", range(20))
def test_no_order_is_cheaper(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = "abcdefg"
    extent = {c: int(rng.integers(2, 40)) for c in labels}
    count = int(rng.integers(2, 6))
    terms = [
        "".join(rng.choice(list(labels), rng.integers(1, 4), replace=False)) for _ in range(count)
    ]
    output = "".join(c for c in labels if any(c in t for t in terms) and rng.random() < 0.3)
    best = min(cost(o, terms, output, extent) for o in all_orders(count))
    assert cost(contraction_order(terms, output, extent), terms, output, extent) == best


def test_many_operands_are_contracted_pair_by_pair() -> None:
    count = 12
    terms = [chr(97 + i) + chr(98 + i) for i in range(count)]
    extent = {chr(97 + i): 2 + i % 3 for i in range(count + 1)}
    order = contraction_order(terms, "am", extent)
    assert len(order) == count - 1
    assert cost(order, terms, "am", extent) > 0
    values = [np.ones((extent[a], extent[b])) for a, b in terms]
    text = ",".join(terms) + "->am"
    np.testing.assert_allclose(
        tj.einsum(text, *values).numpy(), np.einsum(text, *values, optimize=True)
    )


@pytest.mark.parametrize(
    ("text", "shapes", "steps"),
    [
        ("ij,jk->ik", [(6, 5), (5, 4)], 1),
        ("ij,kj->ki", [(6, 5), (4, 5)], 1),
        ("bij,bjk->bik", [(3, 6, 5), (3, 5, 4)], 1),
        ("bqhd,bkhd->bhqk", [(2, 6, 3, 5), (2, 7, 3, 5)], 1),
        ("abij,abkj->abik", [(2, 3, 6, 5), (2, 3, 4, 5)], 1),
        ("ij,jk,kl->il", [(60, 5), (5, 50), (50, 4)], 2),
        ("ji,jk->ik", [(5, 6), (5, 4)], 1),
    ],
)
def test_operands_are_read_in_place(
    level: str, text: str, shapes: list[tuple[int, ...]], steps: int
) -> None:
    rng = np.random.default_rng(0)
    values = [rng.standard_normal(s) for s in shapes]

    def program(*operands: Any) -> Any:
        return np.einsum(text, *operands)

    traced = tj.trace(program, *values)
    assert [type(s) for s in traced.schedule.steps] == [ContractionStep] * steps
    np.testing.assert_allclose(tj.jit(program)(*values), np.einsum(text, *values), rtol=1e-12)
