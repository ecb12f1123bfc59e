"""Contractions: ``matmul``, and the products that decompose into it.

Sums of products stay in the operands' common dtype, as ``numpy.einsum`` and ``numpy.dot`` keep it;
on bool, product is and, sum is or.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tracejit.errors import ShapeError, ValueArgumentError
from tracejit.ops.table import (
    Array,
    Aval,
    Fact,
    Family,
    Shape,
    broadcast_shapes,
    check_axes,
    inexact_types,
    row,
    same_types,
    ufunc_types,
)

Ints = tuple[int, ...]

# -- matmul ----------------------------------------------------------------------------------------


def _matmul_shape(a: Aval, b: Aval) -> Shape:
    if len(a.shape) < 2 or len(b.shape) < 2:
        raise ShapeError(f"matmul: operands of shape {a.shape} and {b.shape} are not matrices")
    if a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: shapes {a.shape} and {b.shape} do not fit: "
            f"{a.shape[-1]} columns, {b.shape[-2]} rows",
            hint="the last axis of the left operand must equal the second last of the right",
        )
    lead = broadcast_shapes("matmul", [a.shape[:-2], b.shape[:-2]])
    return (*lead, a.shape[-2], b.shape[-1])


row(
    "matmul",
    Family.CONTRACTION,
    np.matmul,
    arity=2,
    types=ufunc_types("matmul", np.matmul),
    shape=_matmul_shape,
    facts=Fact.EXPENSIVE,
    doc="[…, M, K] @ […, K, N]; leading axes broadcast.",
)


def sum_products(emit: Any, x: Any, axis: Ints) -> Any:
    """Return the sum over ``axis`` in the dtype of ``x`` itself; any on bool."""
    if x.dtype.kind == "b":
        return emit.any(x, axis=axis, keepdims=False)
    return emit.cast(emit.sum(x, axis=axis, keepdims=False), x.dtype)


# -- tensordot, outer, vecdot, kron, cross ---------------------------------------------------------


def _free(rank: int, axes: Ints) -> Ints:
    return tuple(i for i in range(rank) if i not in axes)


def _tensordot_shape(a: Aval, b: Aval, *, axes_a: Ints, axes_b: Ints) -> Shape:
    check_axes("tensordot", axes_a, a.shape)
    check_axes("tensordot", axes_b, b.shape)
    sizes_a = tuple(a.shape[i] for i in axes_a)
    sizes_b = tuple(b.shape[i] for i in axes_b)
    if sizes_a != sizes_b:
        raise ShapeError(
            f"tensordot: axes {axes_a} of {a.shape} have sizes {sizes_a}, "
            f"axes {axes_b} of {b.shape} have {sizes_b}"
        )
    left = tuple(a.shape[i] for i in _free(len(a.shape), axes_a))
    return left + tuple(b.shape[i] for i in _free(len(b.shape), axes_b))


def _tensordot_reference(a: Array, b: Array, *, axes_a: Ints, axes_b: Ints) -> Array:
    return np.asarray(np.tensordot(a, b, axes=(axes_a, axes_b)))


def _tensordot(emit: Any, a: Any, b: Any, *, axes_a: Ints, axes_b: Ints) -> Any:
    free_a, free_b = _free(len(a.shape), axes_a), _free(len(b.shape), axes_b)
    shape_a, shape_b = [a.shape[i] for i in free_a], [b.shape[i] for i in free_b]
    inner = math.prod(a.shape[i] for i in axes_a)
    left = emit.permute(a, axes=(*free_a, *axes_a))
    left = emit.reshape(left, shape=(math.prod(shape_a), inner))
    right = emit.permute(b, axes=(*axes_b, *free_b))
    right = emit.reshape(right, shape=(inner, math.prod(shape_b)))
    return emit.reshape(emit.matmul(left, right), shape=(*shape_a, *shape_b))


def _outer_shape(a: Aval, b: Aval) -> Shape:
    return (math.prod(a.shape), math.prod(b.shape))


def _outer(emit: Any, a: Any, b: Any) -> Any:
    left = emit.reshape(a, shape=(a.size, 1))
    return emit.multiply(left, emit.reshape(b, shape=(1, b.size)))


def _vecdot_shape(a: Aval, b: Aval) -> Shape:
    if not a.shape or not b.shape or a.shape[-1] != b.shape[-1]:
        raise ShapeError(f"vecdot: last axes of {a.shape} and {b.shape} differ")
    return broadcast_shapes("vecdot", [a.shape[:-1], b.shape[:-1]])


def _vecdot(emit: Any, a: Any, b: Any) -> Any:
    product = emit.multiply(emit.conjugate(a) if a.dtype.kind == "c" else a, b)
    return sum_products(emit, product, (len(product.shape) - 1,))


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _kron_shape(a: Aval, b: Aval) -> Shape:
    rank = max(len(a.shape), len(b.shape))
    pairs = zip(_padded(a.shape, rank), _padded(b.shape, rank), strict=True)
    return tuple(n * m for n, m in pairs)


def _kron(emit: Any, a: Any, b: Any) -> Any:
    rank = max(len(a.shape), len(b.shape))
    shape_a, shape_b = _padded(a.shape, rank), _padded(b.shape, rank)
    spread_a = emit.reshape(a, shape=tuple(m for n in shape_a for m in (n, 1)))
    spread_b = emit.reshape(b, shape=tuple(m for n in shape_b for m in (1, n)))
    shape = tuple(n * m for n, m in zip(shape_a, shape_b, strict=True))
    return emit.reshape(emit.multiply(spread_a, spread_b), shape=shape)


def _cross_shape(a: Aval, b: Aval) -> Shape:
    if a.shape[-1:] != (3,) or b.shape[-1:] != (3,):
        raise ShapeError(f"cross: the last axes of {a.shape} and {b.shape} must have size 3")
    return broadcast_shapes("cross", [a.shape, b.shape])


def _cross_reference(a: Array, b: Array) -> Array:
    return np.cross(a, b)


def _cross(emit: Any, a: Any, b: Any) -> Any:
    def component(x: Any, number: int) -> Any:
        before, ones = x.shape[:-1], (1,) * len(x.shape)
        start = (0,) * len(before) + (number % 3,)
        return emit.slice(x, start=start, size=(*before, 1), step=ones)

    def difference(i: int) -> Any:
        forward = emit.multiply(component(a, i + 1), component(b, i + 2))
        return emit.subtract(forward, emit.multiply(component(a, i + 2), component(b, i + 1)))

    parts = [difference(i) for i in range(3)]
    return emit.concat(*parts, axis=len(parts[0].shape) - 1)


row(
    "tensordot", Family.COMPOSITE, _tensordot_reference, arity=2, types=same_types("tensordot"),
    shape=_tensordot_shape, decompose=_tensordot, facts=Fact.EXPENSIVE,
    doc="Summed products over axes_a of a and axes_b of b; free axes of a, then of b.",
)  # fmt: skip
row(
    "outer", Family.COMPOSITE, np.outer, arity=2, types=ufunc_types("outer", np.multiply),
    shape=_outer_shape, decompose=_outer, doc="Every product of an element of a and one of b.",
)  # fmt: skip
row(
    "vecdot", Family.COMPOSITE, np.vecdot, arity=2, types=ufunc_types("vecdot", np.vecdot),
    shape=_vecdot_shape, decompose=_vecdot, doc="Σ conj(a)·b over the last axis.",
)  # fmt: skip
row(
    "kron", Family.COMPOSITE, np.kron, arity=2, types=ufunc_types("kron", np.multiply),
    shape=_kron_shape, decompose=_kron, doc="The Kronecker product.",
)  # fmt: skip
row(
    "cross", Family.COMPOSITE, _cross_reference, arity=2, types=same_types("cross", kinds="iufc"),
    shape=_cross_shape, decompose=_cross, doc="The vector product over the last axis of size 3.",
)  # fmt: skip

# -- matrix powers ---------------------------------------------------------------------------------


def _square_shape(x: Aval, *, n: int) -> Shape:
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(f"matrix_power: {x.shape} is not a square matrix")
    return x.shape


def _matrix_power_reference(x: Array, *, n: int) -> Array:
    return np.linalg.matrix_power(x, n)


def _matrix_power(emit: Any, x: Any, *, n: int) -> Any:
    if n == 0:
        size = x.shape[-1]
        rows = emit.iota(shape=(size, size), axis=0, dtype="<i8")
        columns = emit.iota(shape=(size, size), axis=1, dtype="<i8")
        identity = emit.cast(emit.equal(rows, columns), x.dtype)
        return emit.broadcast_to(identity, shape=x.shape)
    if n < 0:
        x, n = emit.inv(x), -n
    result = None
    while n:  # square and multiply
        if n & 1:
            result = x if result is None else emit.matmul(result, x)
        n >>= 1
        if n:
            x = emit.matmul(x, x)
    return result


row(
    "matrix_power", Family.COMPOSITE, _matrix_power_reference, arity=1,
    types=inexact_types("matrix_power"), shape=_square_shape, decompose=_matrix_power,
    facts=Fact.EXPENSIVE, doc="A square matrix to an integer power.",
)  # fmt: skip

# -- einsum ----------------------------------------------------------------------------------------


class Einsum(NamedTuple):
    """A parsed subscript text: one label per axis, and the extent of every label."""

    operands: tuple[str, ...]
    output: str
    extent: dict[str, int]


def _fail(subscripts: str, why: str) -> ValueArgumentError:
    return ValueArgumentError(
        f"einsum: {subscripts!r}: {why}", hint="for example 'ij,jk->ik' or '...ij->...ji'"
    )


def _expand_ellipsis(subscripts: str, terms: list[str], shapes: Sequence[Shape]) -> list[str]:
    """Replace '...' by labels that no term uses, as many as the operand has unnamed axes."""
    unused = [c for c in map(chr, range(0x3B1, 0x3B1 + 64)) if c not in subscripts]
    expanded: list[str] = []
    for term, shape in zip(terms, shapes, strict=True):
        if "..." in term:
            extra = len(shape) - (len(term) - 3)
            if extra < 0:
                raise _fail(subscripts, f"{term!r} names more axes than shape {shape} has")
            term = term.replace("...", "".join(reversed(unused[:extra])))
        expanded.append(term)
    return expanded


@lru_cache(maxsize=1024)
def parse_einsum(subscripts: str, shapes: tuple[Shape, ...]) -> Einsum:
    """Return the parsed text for operands of ``shapes``; raises ValueError-like typed errors."""
    text = subscripts.replace(" ", "")
    left, arrow, right = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(shapes):
        raise _fail(subscripts, f"{len(terms)} terms for {len(shapes)} operands")
    terms = _expand_ellipsis(text, terms, shapes)
    hidden = "".join(sorted({c for t in terms for c in t if ord(c) >= 0x3B1}, reverse=True))
    for term, shape in zip(terms, shapes, strict=True):
        if not all(c.isalpha() for c in term):
            raise _fail(subscripts, f"{term!r} has a character that is not a letter")
        if len(term) != len(shape):
            raise _fail(subscripts, f"{term!r} does not name the axes of shape {shape}")
    joined = "".join(terms)
    if arrow:
        output = right.replace("...", hidden)
        if len(set(output)) != len(output) or not set(output) <= set(joined):
            raise _fail(subscripts, f"output {right!r} repeats a label or invents one")
    else:
        output = hidden + "".join(
            sorted(c for c in set(joined) - set(hidden) if joined.count(c) == 1)
        )
    extent: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            known = extent.get(label, 1)
            if size != known and 1 not in (size, known):
                listed = " and ".join(map(str, shapes))
                raise _fail(
                    subscripts, f"axis {label!r} has sizes {known} and {size} in shapes {listed}"
                )
            extent[label] = size if known == 1 else known
    return Einsum(tuple(terms), output, extent)


def _einsum_shape(*operands: Aval, subscripts: str) -> Shape:
    parsed = parse_einsum(subscripts, tuple(o.shape for o in operands))
    return tuple(parsed.extent[c] for c in parsed.output)


def _einsum_reference(*operands: Array, subscripts: str) -> Array:
    return np.array(np.einsum(subscripts, *operands))


def _single(emit: Any, x: Any, labels: str, extent: dict[str, int]) -> tuple[Any, str]:
    """Drop broadcast axes of size 1 and take the diagonal of repeated labels."""
    kept = [i for i, c in enumerate(labels) if x.shape[i] == extent[c]]
    if len(kept) < len(labels):
        x = emit.reshape(x, shape=tuple(x.shape[i] for i in kept))
        labels = "".join(labels[i] for i in kept)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            index = [emit.iota(shape=x.shape, axis=a, dtype="<i8") for a in (first, second)]
            on_diagonal = emit.where(emit.equal(*index), x, emit.constant(0, x.dtype))
            x = sum_products(emit, on_diagonal, (second,))
            labels = labels[:second] + labels[second + 1 :]
    return x, labels


def _sum_out(emit: Any, x: Any, labels: str, needed: set[str]) -> tuple[Any, str]:
    gone = tuple(i for i, c in enumerate(labels) if c not in needed)
    if not gone:
        return x, labels
    return sum_products(emit, x, gone), "".join(c for c in labels if c in needed)


def _arrange(emit: Any, x: Any, labels: str, order: str) -> Any:
    axes = tuple(labels.index(c) for c in order)
    return x if axes == tuple(range(len(axes))) else emit.permute(x, axes=axes)


def _pair(
    emit: Any,
    left: tuple[Any, str],
    right: tuple[Any, str],
    needed: set[str],
    extent: dict[str, int],
) -> tuple[Any, str]:
    """Contract two operands over the labels that only they share."""
    (a, la), (b, lb) = left, right
    shared = [c for c in la if c in lb]
    inner = "".join(c for c in shared if c not in needed)
    batch = "".join(c for c in shared if c in needed)
    only_a = "".join(c for c in la if c not in lb)
    only_b = "".join(c for c in lb if c not in la)

    def size(labels: str) -> int:
        return math.prod(extent[c] for c in labels)

    if not inner:
        order = batch + only_a + only_b
        a = _arrange(emit, a, la, batch + only_a)
        b = _arrange(emit, b, lb, batch + only_b)
        shape_a = tuple(extent[c] if c in la else 1 for c in order)
        shape_b = tuple(extent[c] if c in lb else 1 for c in order)
        return emit.multiply(emit.reshape(a, shape=shape_a), emit.reshape(b, shape=shape_b)), order
    # Batch axes stay apart, so that operands are read by strides where nothing has to merge.
    lead = tuple(extent[c] for c in batch)
    a = _arrange(emit, a, la, batch + only_a + inner)
    b = _arrange(emit, b, lb, batch + inner + only_b)
    a = emit.reshape(a, shape=(*lead, size(only_a), size(inner)))
    b = emit.reshape(b, shape=(*lead, size(inner), size(only_b)))
    order = batch + only_a + only_b
    return emit.reshape(emit.matmul(a, b), shape=tuple(extent[c] for c in order)), order


# Up to this many operands the order of contraction is the best of all; beyond, the cheapest
# pair goes first.
_OPTIMAL = 7

Labels = frozenset[str]


def contraction_order(
    terms: Sequence[str], output: str, extent: Mapping[str, int]
) -> list[tuple[int, int]]:
    """Return the pairs to contract, one after the other, for the fewest multiplications.

    Positions are among the operands that are left, and a result goes to the end. The optimum is
    found over all subsets (as in R. Pfeifer, J. Haegeman and F. Verstraete, arXiv:1304.6112).
    """
    if len(terms) > _OPTIMAL:
        return _greedy_order(terms, output, extent)
    count = len(terms)
    everything = (1 << count) - 1

    def labels(subset: int) -> Labels:
        return frozenset(c for i in range(count) if subset >> i & 1 for c in terms[i])

    kept = [
        labels(subset) & (frozenset(output) | labels(everything ^ subset))
        for subset in range(everything + 1)
    ]
    best: list[tuple[int, int]] = [(0, 0)] * (everything + 1)
    for subset in range(1, everything + 1):
        if subset & (subset - 1) == 0:
            continue
        # Each split in two is looked at once: the first half has the lowest operand.
        splits: list[tuple[int, int]] = []
        left = (subset - 1) & subset
        while left:
            right = subset ^ left
            if left & subset & -subset:
                work = math.prod(extent[c] for c in kept[left] | kept[right])
                splits.append((best[left][0] + best[right][0] + work, left))
            left = (left - 1) & subset
        best[subset] = min(splits)
    left_over = [1 << i for i in range(count)]
    pairs: list[tuple[int, int]] = []

    def contract(subset: int) -> None:
        if subset & (subset - 1) == 0:
            return
        left = best[subset][1]
        contract(left)
        contract(subset ^ left)
        i, j = sorted((left_over.index(left), left_over.index(subset ^ left)))
        pairs.append((i, j))
        del left_over[j], left_over[i]
        left_over.append(subset)

    contract(everything)
    return pairs


def _greedy_order(
    terms: Sequence[str], output: str, extent: Mapping[str, int]
) -> list[tuple[int, int]]:
    left: list[Labels] = [frozenset(t) for t in terms]
    pairs: list[tuple[int, int]] = []
    while len(left) > 1:
        candidates = [(i, j) for j in range(len(left)) for i in range(j)]
        costs = [math.prod(extent[c] for c in left[i] | left[j]) for i, j in candidates]
        i, j = candidates[costs.index(min(costs))]
        rest = [t for k, t in enumerate(left) if k not in (i, j)]
        left = [*rest, (left[i] | left[j]) & frozenset(output).union(*rest)]
        pairs.append((i, j))
    return pairs


def _einsum(emit: Any, *operands: Any, subscripts: str) -> Any:
    """Sum what one operand alone has, then contract pairs in the order of least work."""
    parsed = parse_einsum(subscripts, tuple(o.shape for o in operands))
    extent = parsed.extent
    terms: list[tuple[Any, str]] = [
        _single(emit, x, labels, extent)
        for x, labels in zip(operands, parsed.operands, strict=True)
    ]

    def needed(without: tuple[int, ...]) -> set[str]:
        others = (labels for i, (_, labels) in enumerate(terms) if i not in without)
        return set(parsed.output).union(*others)

    terms = [_sum_out(emit, *term, needed((i,))) for i, term in enumerate(terms)]
    for i, j in contraction_order([labels for _, labels in terms], parsed.output, extent):
        merged = _pair(emit, terms[i], terms[j], needed((i, j)), extent)
        terms = [*(t for k, t in enumerate(terms) if k not in (i, j)), merged]
    result, labels = terms[0]
    return _arrange(emit, result, labels, parsed.output)


row(
    "einsum",
    Family.COMPOSITE,
    _einsum_reference,
    arity=None,
    types=same_types("einsum"),
    shape=_einsum_shape,
    decompose=_einsum,
    facts=Fact.EXPENSIVE,
    doc="Summed products by subscripts; pairwise batched matrix products.",
)
