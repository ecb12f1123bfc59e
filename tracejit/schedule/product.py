"""The kernel of a matrix product: its batch axes folded, and a place for its partial sums.

``arrange_product`` is to a kernel with a ``Contract`` what ``loops.arrange`` is to the others.
Rows and columns that a batch axis continues grow by it, in the product and in its epilogue alike:

    [b, m, k] @ [k, n] + bias[n]  →  [b·m, k] @ [k, n] + bias[n]
"""

from __future__ import annotations

from typing import cast

from tracejit.record import replace
from tracejit.schedule.kernel import (
    Access,
    Attend,
    Block,
    Contract,
    Expr,
    Kernel,
    Load,
    operands,
)
from tracejit.schedule.loops import check_merge, drop_axis, merged


def arrange_product(kernel: Kernel) -> Kernel:
    """Return the canonical form of a kernel with a product.

    Where a store of the product's dtype exists, partial sums wait in it; otherwise
    ``with_partial`` must name a buffer for them.
    """
    inside = tuple(a for a in range(len(kernel.extents)) if a != _contract(kernel).over)
    kernel = _fold(replace(kernel, parallel=inside))
    contract = _contract(kernel)
    kernel = _spread(kernel, contract.rows, contract.columns)
    held = [s.access for s in kernel.stores if kernel.accesses[s.access].dtype == contract.dtype]
    kernel = replace(kernel, block=Block(stores=tuple(range(len(kernel.stores)))))
    return _with(kernel, replace(contract, partial=held[0])) if held else kernel


def with_partial(kernel: Kernel, buffer: int) -> Kernel:
    """Return ``kernel`` with its partial sums in a contiguous ``buffer`` of their own."""
    contract = _contract(kernel)
    strides = [0] * len(kernel.extents)
    step = 1
    for axis in reversed([*batch_axes(kernel), contract.rows, contract.columns]):
        strides[axis] = step
        step *= kernel.extents[axis]
    access = Access(buffer, contract.dtype, 0, tuple(strides))
    number = len(kernel.accesses)
    kernel = replace(kernel, accesses=(*kernel.accesses, access))
    return _with(kernel, replace(contract, partial=number))


def batch_axes(kernel: Kernel) -> list[int]:
    """Return the axes beside rows, columns and depth, outermost first."""
    contract = _contract(kernel)
    own = {contract.rows, contract.columns, contract.over}
    return [a for a in range(len(kernel.extents)) if a not in own]


def is_plain(kernel: Kernel) -> bool:
    """Whether the kernel stores its product and does nothing else."""
    contract = _contract(kernel)
    if len(kernel.stores) != 1 or kernel.stores[0].access != contract.partial:
        return False
    return kernel.exprs[kernel.stores[0].value] is contract


def is_gram(kernel: Kernel) -> bool:
    """Whether the kernel stores nothing but a matrix times its own transpose, or what depends on
    each of its elements in the same way: the two halves of that are equal."""
    contract = _contract(kernel)
    if len(kernel.stores) != 1 or kernel.stores[0].access != contract.partial:
        return False
    a, b = (kernel.exprs[p] for p in (contract.left, contract.right))
    if not isinstance(a, Load) or not isinstance(b, Load) or contract.gather is not None:
        return False
    rows, columns = contract.rows, contract.columns
    left, right = kernel.accesses[a.access], kernel.accesses[b.access]
    turned = list(right.strides)
    turned[rows], turned[columns] = turned[columns], turned[rows]
    if left != replace(right, strides=tuple(turned)):
        return False
    if kernel.extents[rows] != kernel.extents[columns]:
        return False
    around = reached(kernel, kernel.stores[0].value, below=contract)
    return all(e.axes.isdisjoint((rows, columns)) or operands(e) for e in around)


def left_access(kernel: Kernel) -> Access:
    return _operand(kernel, _contract(kernel).left)


def right_access(kernel: Kernel) -> Access:
    return _operand(kernel, _contract(kernel).right)


def _operand(kernel: Kernel, position: int) -> Access:
    """Return the memory of an operand; of one that is computed, what most of it is read from.

    An operand computed from indices alone has none: then it is any of the kernel's.
    """
    loads = [e for e in reached(kernel, position) if isinstance(e, Load)]
    most = max(loads, key=lambda e: len(e.axes), default=None)
    return kernel.accesses[0 if most is None else most.access]


def reached(kernel: Kernel, position: int, *, below: Expr | None = None) -> list[Expr]:
    """Return an expression and all that it is computed from, but not what ``below`` is."""
    seen: set[int] = set()
    stack = [position]
    while stack:
        top = stack.pop()
        if top not in seen:
            seen.add(top)
            if kernel.exprs[top] is not below:
                stack += operands(kernel.exprs[top])
    return [kernel.exprs[p] for p in sorted(seen)]


def is_computed(kernel: Kernel, position: int) -> bool:
    """Whether an operand of the product is computed where it is packed: a prologue."""
    return not isinstance(kernel.exprs[position], Load)


def arrange_attention(kernel: Kernel) -> Kernel:
    """Return the canonical form of a kernel with attention: batch axes folded into each other."""
    over = {cast(Attend, kernel.attend).over}
    if kernel.contract is not None:
        over.add(kernel.contract.over)
    parallel = tuple(a for a in range(len(kernel.extents)) if a not in over)
    block = Block(stores=tuple(range(len(kernel.stores))))
    kernel = replace(kernel, parallel=parallel, block=block)
    while (found := _foldable_head(kernel)) is not None:
        kernel = found
    attend = cast(Attend, kernel.attend)
    return _spread(kernel, attend.rows, attend.columns)


def head_axes(kernel: Kernel) -> list[int]:
    """Return the axes of an attention kernel beside those of one head, outermost first."""
    attend = cast(Attend, kernel.attend)
    own = {attend.rows, attend.columns, attend.over}
    if kernel.contract is not None:
        own.add(kernel.contract.over)
    return [a for a in range(len(kernel.extents)) if a not in own]


def values_access(kernel: Kernel) -> Access:
    return _operand(kernel, cast(Attend, kernel.attend).values)


def _foldable_head(kernel: Kernel) -> Kernel | None:
    attend = cast(Attend, kernel.attend)
    for axis in head_axes(kernel):
        if kernel.extents[axis] == 1:
            return drop_axis(kernel, axis)
        if kernel.extents[attend.rows] == 1 and _shares_keys(kernel, axis):
            return drop_axis(_with_queries(kernel, axis), attend.rows)
        # Heads that share their keys and values are rows of queries.
        for inner in (attend.rows, *head_axes(kernel)):
            if inner != axis and check_merge(kernel, axis, inner):
                return merged(kernel, axis, inner)
    return None


def _shares_keys(kernel: Kernel, axis: int) -> bool:
    """Whether keys and values do not vary with a head axis."""
    read = [cast(Attend, kernel.attend).values]
    if kernel.contract is not None:
        read.append(kernel.contract.right)
    return all(axis not in kernel.exprs[position].axes for position in read)


def _with_queries(kernel: Kernel, axis: int) -> Kernel:
    """Make ``axis`` that of the queries."""
    queries = (kernel.attend, kernel.contract)
    exprs = (replace(e, rows=axis) if e in queries else e for e in kernel.exprs)
    return replace(kernel, exprs=tuple(exprs))


def _contract(kernel: Kernel) -> Contract:
    return cast(Contract, kernel.contract)


def _with(kernel: Kernel, contract: Contract) -> Kernel:
    old = _contract(kernel)
    return replace(kernel, exprs=tuple(contract if e is old else e for e in kernel.exprs))


def _spread(kernel: Kernel, rows: int, columns: int) -> Kernel:
    """Let stores step along rows and columns that are single: either may run in vector lanes."""
    accesses = list(kernel.accesses)
    for store in kernel.stores:
        old = accesses[store.access]
        strides = list(old.strides)
        for axis in (rows, columns):
            strides[axis] = strides[axis] or 1
        accesses[store.access] = replace(old, strides=tuple(strides))
    return replace(kernel, accesses=tuple(accesses))


def _fold(kernel: Kernel) -> Kernel:
    """Fold batch axes into rows, columns and each other, as far as every access allows."""
    while (found := _foldable(kernel)) is not None:
        kernel = found
    return kernel


def _foldable(kernel: Kernel) -> Kernel | None:
    contract = _contract(kernel)
    gathered = contract.gather is not None
    for axis in reversed(batch_axes(kernel)):
        if kernel.extents[axis] == 1:
            return drop_axis(kernel, axis)
        if kernel.extents[contract.rows] == 1 and axis not in kernel.exprs[contract.right].axes:
            return drop_axis(_with(kernel, replace(contract, rows=axis)), contract.rows)
        single = kernel.extents[contract.columns] == 1 and not gathered
        if single and axis not in kernel.exprs[contract.left].axes:
            return drop_axis(_with(kernel, replace(contract, columns=axis)), contract.columns)
        columns = () if gathered else (contract.columns,)
        for inner in (contract.rows, *columns, *batch_axes(kernel)):
            if inner != axis and check_merge(kernel, axis, inner):
                return merged(kernel, axis, inner)
    return None
