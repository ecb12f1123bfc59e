"""Scans along an axis, and sorting. NaN sorts last."""

from __future__ import annotations

from typing import Any, NamedTuple

from tracejit.errors import ShapeError
from tracejit.functions.arguments import (
    alias,
    as_dtype,
    as_index,
    fail,
    is_array,
    is_sequence,
    one_axis,
)
from tracejit.functions.creation import filled, ramp
from tracejit.functions.joining import concat
from tracejit.functions.movement import cut, expand_dims, ravel, squeeze
from tracejit.functions.reductions import Extremes
from tracejit.tensor import Tensor, cast, lift, record

__all__ = [
    "argpartition", "argsort", "cummax", "cummin", "cumprod", "cumsum", "cumulative_prod",
    "cumulative_sum", "diff", "kthvalue", "lexsort", "logcumsumexp", "msort", "nancumprod",
    "nancumsum", "partition", "sort", "topk",
]  # fmt: skip


def _scan(name: str, x: Any, axis: Any, dtype: Any, dim: Any) -> Tensor:
    value = lift(x)
    chosen = alias(axis, dim, "axis", "dim")
    if chosen is None:
        value, chosen = ravel(value), 0
    if dtype is not None:
        value = cast(value, as_dtype(dtype))
    result = record(name, (value,), axis=one_axis(name, chosen, value.shape))
    return result if dtype is None else cast(result, as_dtype(dtype))


def cumsum(
    x: Any, /, axis: int | None = None, dtype: Any = None, *, dim: int | None = None
) -> Tensor:
    """Return running sums along an axis, over the flattened elements without one."""
    return _scan("cumsum", x, axis, dtype, dim)


def cumprod(
    x: Any, /, axis: int | None = None, dtype: Any = None, *, dim: int | None = None
) -> Tensor:
    """Return running products along an axis, over the flattened elements without one."""
    return _scan("cumprod", x, axis, dtype, dim)


def nancumsum(x: Any, /, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Return running sums with NaN as 0."""
    return _scan("nancumsum", x, axis, dtype, None)


def nancumprod(x: Any, /, axis: int | None = None, dtype: Any = None) -> Tensor:
    """Return running products with NaN as 1."""
    return _scan("nancumprod", x, axis, dtype, None)


def cummax(x: Any, /, axis: int | None = None, *, dim: int | None = None) -> Any:
    """Return the largest so far. With PyTorch's ``dim``: (values, indices)."""
    return _running("cummax", x, axis, dim)


def cummin(x: Any, /, axis: int | None = None, *, dim: int | None = None) -> Any:
    """Return the smallest so far. With PyTorch's ``dim``: (values, indices)."""
    return _running("cummin", x, axis, dim)


def _running(name: str, x: Any, axis: Any, dim: Any) -> Any:
    value = lift(x)
    best = _scan(name, value, axis, None, dim)
    if dim is None:
        return best
    # The last position so far at which the running value was reached.
    place = one_axis(name, dim, value.shape)
    reached = record("equal", (value, best))
    position = record("where", (reached, ramp(value.shape, place), 0))
    return Extremes(best, record("cummax", (position,), axis=place))


def logcumsumexp(x: Any, /, axis: int | None = None, *, dim: int | None = None) -> Tensor:
    """Return running log Σ eˣ."""
    return _scan("logcumsumexp", x, axis, None, dim)


def _cumulative(
    name: str, start: int, x: Any, axis: int | None, dtype: Any, include_initial: bool
) -> Tensor:
    value = lift(x)
    if axis is None:
        if value.ndim != 1:
            raise fail(ShapeError, f"cumulative scan of shape {value.shape} needs an axis")
        axis = 0
    result = _scan(name, value, axis, dtype, None)
    if not include_initial:
        return result
    place = one_axis(name, axis, value.shape)
    shape = tuple(1 if i == place else n for i, n in enumerate(result.shape))
    return concat([filled(shape, start, result.dtype), result], place)


def cumulative_sum(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Return running sums, from 0 with ``include_initial``."""
    return _cumulative("cumsum", 0, x, axis, dtype, include_initial)


def cumulative_prod(
    x: Any, /, *, axis: int | None = None, dtype: Any = None, include_initial: bool = False
) -> Tensor:
    """Return running products, from 1 with ``include_initial``."""
    return _cumulative("cumprod", 1, x, axis, dtype, include_initial)


def diff(
    x: Any, /, n: int = 1, axis: int = -1, prepend: Any = None, append: Any = None,
    *, dim: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the n-th difference x[i+1] − x[i] along an axis."""
    value = lift(x)
    place = one_axis("diff", axis if dim is None else dim, value.shape)

    def edge(part: Any) -> Tensor:
        found = lift(part)
        if found.ndim == 0:
            shape = tuple(1 if i == place else m for i, m in enumerate(value.shape))
            return record("broadcast_to", (found,), shape=shape)
        return found

    parts = [edge(p) for p in (prepend,) if p is not None]
    parts = [*parts, value, *(edge(p) for p in (append,) if p is not None)]
    if len(parts) > 1:
        value = concat(parts, place)
    return record("diff", (value,), axis=place, n=as_index(n, "n"))


# -- sorting ---------------------------------------------------------------------------------------


class TopK(NamedTuple):
    """The result of ``topk``."""

    values: Tensor
    indices: Tensor


def sort(
    x: Any, /, axis: int | None = -1, *, descending: bool = False, stable: bool = True,
    kind: Any = None, dim: int | None = None,
) -> Any:  # fmt: skip
    """Return ``x`` sorted along an axis. With PyTorch's ``dim``: (values, indices)."""
    value = lift(x)
    if axis is None:
        value, axis = ravel(value), 0
    place = one_axis("sort", axis if dim is None else dim, value.shape)
    how: dict[str, Any] = {"axis": place, "descending": bool(descending)}
    if dim is None:
        return record("sort", (value,), **how)
    order = record("argsort", (value,), **how)
    return Extremes(record("take_along_axis", (value, order), axis=place), order)


def argsort(
    x: Any, /, axis: int | None = -1, *, descending: bool = False, stable: bool = True,
    kind: Any = None, dim: int | None = None,
) -> Tensor:  # fmt: skip
    """Return the stable permutation that sorts an axis."""
    value = lift(x)
    if axis is None:
        value, axis = ravel(value), 0
    place = one_axis("argsort", axis if dim is None else dim, value.shape)
    return record("argsort", (value,), axis=place, descending=bool(descending))


def msort(x: Any, /) -> Tensor:
    """Return ``x`` sorted along its first axis."""
    return sort(x, 0)


def partition(
    x: Any, kth: Any, /, axis: int | None = -1, kind: Any = None, order: Any = None
) -> Tensor:
    """Return ``x`` in an order that has the kth elements of an axis where sorting puts them.

    ``kth`` is one position or several. What is smaller comes before, in any order.
    """
    return _parted("partition", x, kth, axis)


def argpartition(
    x: Any, kth: Any, /, axis: int | None = -1, kind: Any = None, order: Any = None
) -> Tensor:
    """Return a permutation that brings an axis in the order of ``partition``."""
    return _parted("argpartition", x, kth, axis)


def _parted(name: str, x: Any, kth: Any, axis: int | None) -> Tensor:
    value = lift(x)
    if axis is None:
        value, axis = ravel(value), 0
    place = one_axis(name, axis, value.shape)
    extent = value.shape[place]
    places = [as_index(k, "kth") for k in (kth if is_sequence(kth) or is_array(kth) else [kth])]
    return record(name, (value,), axis=place, kth=tuple(k + extent * (k < 0) for k in places))


def topk(
    x: Any, k: int, /, axis: int = -1, *, largest: bool = True, sorted: bool = True,
    dim: int | None = None,
) -> TopK:  # fmt: skip
    """Return the k largest (or smallest) along an axis, best first, and where they are."""
    value = lift(x)
    place = one_axis("topk", axis if dim is None else dim, value.shape)
    how: dict[str, Any] = {"k": as_index(k, "k"), "axis": place, "largest": bool(largest)}
    where = record("topk_indices", (value,), **how)
    return TopK(record("take_along_axis", (value, where), axis=place), where)


def kthvalue(x: Any, k: int, /, dim: int = -1, keepdim: bool = False) -> TopK:
    """Return the k-th smallest along ``dim`` (k counts from 1) and where it is."""
    value = lift(x)
    place = one_axis("kthvalue", dim, value.shape)
    best = topk(value, k, place, largest=False)
    last = [cut(part, place, part.shape[place] - 1, part.shape[place]) for part in best]
    return TopK(*(last if keepdim else [squeeze(part, place) for part in last]))


def lexsort(keys: Any, /, axis: int = -1) -> Tensor:
    """Return the stable order by several keys, the last one counts most."""
    values = [lift(k) for k in keys]
    if not values:
        raise fail(ShapeError, "lexsort: no keys")
    scalars = values[0].ndim == 0
    rows = [expand_dims(v, 0) for v in values] if scalars else values
    order = record("lexsort", rows, axis=one_axis("lexsort", axis, rows[0].shape))
    return record("reshape", (order,), shape=()) if scalars else order
