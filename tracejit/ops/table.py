"""The one table of ops.

A row says everything about an op that is not code generation: how many operands, which dtypes
its loop takes and returns (NEP 50), the result's shape, the NumPy reference that defines its
meaning, its algebraic facts, and, for a composite, how it is made of simpler ops. Tracing, the
interpreter, the passes, the tests and the documentation all read this table; nothing else keeps a
list of ops.

Families decide who handles a row: ``ELEMENTWISE`` and ``REDUCTION`` rows become loops,
``MOVEMENT`` rows become index maps, ``CONTRACTION`` rows become matrix kernels, and the rest run
through their reference as opaque nodes until a kernel kind takes them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, Flag, auto
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tracejit.errors import DTypeError, InternalError, ShapeError

Shape = tuple[int, ...]
DType = np.dtype[Any]
Array = np.ndarray[Any, Any]
Attrs = Mapping[str, Hashable]


class Aval(NamedTuple):
    """What is known of a value before it is computed."""

    dtype: DType
    shape: Shape


class Family(Enum):
    LEAF = "leaf"
    ELEMENTWISE = "elementwise"
    REDUCTION = "reduction"
    SCAN = "scan"
    CONTRACTION = "contraction"
    MOVEMENT = "movement"
    INDEXING = "indexing"
    SORTING = "sorting"
    RANDOM = "random"
    LIBRARY = "library"
    COMPOSITE = "composite"


class Fact(Flag):
    """Algebraic laws an op obeys exactly, NaN and signed zero included."""

    NONE = 0
    COMMUTATIVE = auto()
    ASSOCIATIVE = auto()  # exactly: integers, bits, min/max; never float + or *
    IDEMPOTENT = auto()  # f(f(x)) = f(x), or f(x, x) = x for binary ops
    INVOLUTION = auto()  # f(f(x)) = x
    EXPENSIVE = auto()  # costs tens of flops: recompute with care
    IMPURE = auto()  # never merged with an equal node


TypesRule = Callable[[tuple[Any, ...]], tuple[tuple[DType, ...], DType]]
InferRule = Callable[[Sequence[Aval], Attrs], Aval]


@dataclass(frozen=True, eq=False, slots=True)
class Op:
    """One row. ``arity`` is None for ops that take any number of operands.

    ``types`` maps operand dtypes (or the Python types int, float, complex for weak scalars) to
    the loop's operand dtypes and result dtype. ``infer`` maps operand dtypes and shapes to the
    result's. ``reference(*arrays, **attrs)`` is the meaning. ``decompose(emit, *nodes, **attrs)``
    rewrites a composite with simpler ops.
    """

    name: str
    family: Family
    arity: int | None
    reference: Callable[..., Any]
    infer: InferRule
    types: TypesRule | None = None
    facts: Fact = Fact.NONE
    decompose: Callable[..., Any] | None = None
    doc: str = ""

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    def has(self, fact: Fact) -> bool:
        return bool(self.facts & fact)


OPS: dict[str, Op] = {}


def register(op: Op) -> Op:
    """Add a row; the name must be new."""
    if op.name in OPS:
        raise InternalError(f"op {op.name!r} is registered twice")
    OPS[op.name] = op
    return op


# -- dtype rules -----------------------------------------------------------------------------------


def _dtype_name(dtype: Any) -> str:
    return f"Python {dtype.__name__}" if isinstance(dtype, type) else str(dtype)


def ufunc_types(name: str, ufunc: np.ufunc) -> TypesRule:
    """Return the rule that asks NumPy's own loop table, so that NEP 50 holds by construction."""

    @lru_cache(maxsize=1024)
    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        # With weak operands only (Python scalars), NumPy takes their default dtypes.
        if all(isinstance(d, type) for d in dtypes):
            dtypes = tuple(np.dtype(d) for d in dtypes)
        try:
            resolved = ufunc.resolve_dtypes((*dtypes, *[None] * ufunc.nout))
        except TypeError:
            listed = ", ".join(_dtype_name(d) for d in dtypes)
            raise DTypeError(
                f"{name} does not take {listed}", hint="cast first, for example x.astype('float64')"
            ) from None
        return resolved[: ufunc.nin], resolved[ufunc.nin]

    return types


def same_types(name: str, *, kinds: str = "biufc") -> TypesRule:
    """Return the rule of ops that promote their operands and return the common dtype."""

    @lru_cache(maxsize=1024)
    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        common = promote(dtypes)
        if common.kind not in kinds:
            raise DTypeError(f"{name} does not take {common}")
        return (common,) * len(dtypes), common

    return types


def float_types(name: str) -> TypesRule:
    """Return the rule of ops on real floats: integers and bool become float64."""

    @lru_cache(maxsize=1024)
    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        common = promote(dtypes)
        if common.kind in "biu":
            common = np.dtype(np.float64)
        if common.kind != "f":
            raise DTypeError(f"{name} needs real floating operands, got {common}")
        return (common,) * len(dtypes), common

    return types


def promote(dtypes: Sequence[Any]) -> DType:
    """Return NumPy's result dtype; Python ``int``, ``float``, ``complex`` count as weak."""
    strong = [d for d in dtypes if not isinstance(d, type)]
    weak = [d(0) for d in dtypes if isinstance(d, type)]
    if not strong:
        return np.result_type(*[np.asarray(w).dtype for w in weak])
    return np.result_type(*strong, *weak)


# -- shape rules -----------------------------------------------------------------------------------


def broadcast_shapes(name: str, shapes: Sequence[Shape]) -> Shape:
    """Return the broadcast shape; the error names the op and all shapes."""
    first = shapes[0]
    if all(s == first for s in shapes):
        return first
    rank = max(len(s) for s in shapes)
    result = [1] * rank
    for shape in shapes:
        for position, size in enumerate(shape, rank - len(shape)):
            if size != 1:
                if result[position] not in (1, size):
                    listed = " and ".join(str(s) for s in shapes)
                    raise ShapeError(
                        f"{name}: shapes {listed} do not broadcast",
                        hint="sizes must be equal or 1, counted from the last axis",
                    )
                result[position] = size
    return tuple(result)


def reduced_shape(shape: Shape, axis: Sequence[int], keepdims: bool) -> Shape:
    """Return ``shape`` without the axes (size 1 in their place with ``keepdims``)."""
    if keepdims:
        return tuple(1 if i in axis else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axis)


# -- row builders ----------------------------------------------------------------------------------


def elementwise(
    name: str,
    reference: Callable[..., Any],
    *,
    arity: int,
    types: TypesRule,
    facts: Fact = Fact.NONE,
    decompose: Callable[..., Any] | None = None,
    doc: str = "",
) -> Op:
    """Register an elementwise row: operands broadcast, the result's dtype is the loop's."""

    def infer(operands: Sequence[Aval], attrs: Attrs) -> Aval:
        wanted, result = types(tuple(o.dtype for o in operands))
        for operand, dtype in zip(operands, wanted, strict=True):
            if operand.dtype != dtype:
                raise InternalError(f"{name}: operand of {operand.dtype} where the loop takes {dtype}")
        return Aval(result, broadcast_shapes(name, [o.shape for o in operands]))

    return register(
        Op(name, Family.ELEMENTWISE, arity, reference, infer, types, facts, decompose, doc)
    )


def ufunc(name: str, function: np.ufunc, facts: Fact = Fact.NONE, doc: str = "") -> Op:
    """Register an elementwise row whose meaning and dtypes are a NumPy ufunc's."""
    return elementwise(
        name,
        function,
        arity=function.nin,
        types=ufunc_types(name, function),
        facts=facts,
        doc=doc or (function.__doc__ or "").split("\n\n")[1].replace("\n", " ").strip()
        if "\n\n" in (function.__doc__ or "")
        else doc,
    )
