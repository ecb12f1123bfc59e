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
from enum import Enum, Flag, auto
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from tracejit.errors import (
    AxisError,
    DTypeError,
    InternalError,
    OutOfMemory,
    ShapeError,
    ShapeTooLarge,
)
from tracejit.ops.dtypes import is_bfloat16
from tracejit.record import record
from tracejit.sizes import families

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
    """Algebraic laws an op obeys exactly, NaN and signed zero included, but for two things.

    Complex loops neither commute nor associate: NumPy's product contracts to FMA, and its maximum
    keeps the first of two NaN; ask ``Op.obeys``, which knows. And of equal results the payload of
    a NaN, and the sign of a zero from maximum, minimum, fmax and fmin, may differ.
    """

    NONE = 0
    COMMUTATIVE = auto()
    ASSOCIATIVE = auto()  # exactly: integers, bits, min/max; never float + or *
    IDEMPOTENT = auto()  # f(f(x)) = f(x), or f(x, x) = x for binary ops
    INVOLUTION = auto()  # f(f(x)) = x
    ODD = auto()  # f(-x) = -f(x) on real floats
    EVEN = auto()  # f(-x) = f(x) on real floats
    EXPENSIVE = auto()  # costs tens of flops: recompute with care
    IMPURE = auto()  # never merged with an equal node


TypesRule = Callable[[tuple[Any, ...]], tuple[tuple[DType, ...], DType]]
InferRule = Callable[[Sequence[Aval], Attrs], Aval]
ShapeRule = Callable[..., Shape]  # (*operand avals, **attrs) -> shape

BOOL, INT64, UINT64, FLOAT64 = (np.dtype(n) for n in ("bool", "int64", "uint64", "float64"))
MAX_RANK = 64  # NumPy's own limit
MAX_BYTES = 1 << 47  # what a process can address on the common 64-bit systems


@record(frozen=True, eq=False, slots=True)
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
        return self.facts._value_ & fact._value_ != 0  # Flag's own & builds an object

    def obeys(self, law: Fact, dtype: DType) -> bool:
        """Return whether an algebraic law holds exactly on operands of ``dtype``."""
        if dtype.kind == "c" and law in (Fact.COMMUTATIVE, Fact.ASSOCIATIVE):
            return False
        return self.has(law)


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


def _strong(dtypes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return ``dtypes`` without weak Python types where nothing else could decide (NEP 50)."""
    dtypes = tuple(BOOL if d is bool else d for d in dtypes)
    if all(isinstance(d, type) for d in dtypes):
        return tuple(np.dtype(d) for d in dtypes)
    return dtypes


def check_dtype(name: str, dtype: DType) -> DType:
    """Return ``dtype`` if values of it can be computed with; else raise DTypeError."""
    if is_bfloat16(dtype):
        return dtype
    if dtype.kind not in "biufc" or dtype.itemsize > (16 if dtype.kind == "c" else 8):
        raise DTypeError(
            f"{name} does not take {dtype}",
            hint="arrays hold bool, integers, bfloat16, float16/32/64 or complex64/128",
        )
    return dtype


def _refused(name: str, dtypes: tuple[Any, ...], hint: str) -> DTypeError:
    listed = ", ".join(_dtype_name(d) for d in dtypes)
    return DTypeError(f"{name} does not take {listed}", hint=hint)


def ufunc_types(name: str, ufunc: np.ufunc, output: int = 0) -> TypesRule:
    """Return the rule that asks NumPy's own loop table, so that NEP 50 holds by construction.

    ``output`` chooses the result of ufuncs with several (``frexp``, ``modf``).
    """

    @lru_cache(maxsize=1024)
    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        dtypes = _strong(dtypes)
        for dtype in dtypes:
            if not isinstance(dtype, type):
                check_dtype(name, dtype)
        try:
            resolved = ufunc.resolve_dtypes((*dtypes, *[None] * ufunc.nout))
        except TypeError:
            hint = "cast first, for example x.astype('float64')"
            raise _refused(name, dtypes, hint) from None
        return resolved[: ufunc.nin], resolved[ufunc.nin + output]

    return types


def common_types(
    name: str,
    *,
    kinds: str = "biufc",
    integers_become: DType | None = None,
    result: DType | Callable[[DType], DType] | None = None,
) -> TypesRule:
    """Return the rule of ops whose operands take one common dtype.

    ``kinds`` are the dtype kinds accepted; ``integers_become`` replaces bool and integers first;
    ``result`` is the result's dtype, or maps the common dtype to it (default: the common dtype).
    """

    @lru_cache(maxsize=1024)
    def types(dtypes: tuple[Any, ...]) -> tuple[tuple[DType, ...], DType]:
        common = check_dtype(name, promote(dtypes))
        if integers_become is not None and common.kind in "biu":
            common = integers_become
        if common.kind not in kinds:
            raise _refused(name, dtypes, f"it takes {_kinds_text(kinds)}")
        if result is None:
            out = common
        else:
            out = result(common) if callable(result) else result
        return (common,) * len(dtypes), out

    return types


_KIND_NAMES = {
    "b": "bool", "i": "signed integers", "u": "unsigned integers", "f": "floats", "c": "complex",
    "V": "bfloat16",
}  # fmt: skip


def _kinds_text(kinds: str) -> str:
    return ", ".join(_KIND_NAMES[k] for k in kinds)


def same_types(name: str, *, kinds: str = "biufc") -> TypesRule:
    """Return the rule of ops that promote their operands and return the common dtype."""
    return common_types(name, kinds=kinds)


def float_types(name: str) -> TypesRule:
    """Return the rule of ops on real floats: integers and bool become float64."""
    return common_types(name, kinds="f", integers_become=FLOAT64)


def inexact_types(name: str) -> TypesRule:
    """Return the rule of ops on floats and complex: integers and bool become float64."""
    return common_types(name, kinds="fc", integers_become=FLOAT64)


def real_dtype(dtype: DType) -> DType:
    """Return the dtype of the parts of a complex dtype, and ``dtype`` itself for the others."""
    if dtype.kind != "c":
        return dtype
    return np.dtype(np.float32 if dtype.itemsize == 8 else np.float64)


def complex_dtype(dtype: DType) -> DType:
    """Return the complex dtype whose parts are ``dtype`` (integers count as float64)."""
    return np.result_type(dtype, np.complex64)


def accumulator(dtype: DType) -> DType:
    """Return the dtype in which NumPy sums: 64 bits for bool and integers, else ``dtype``."""
    if dtype.kind in "bi":
        return INT64
    return UINT64 if dtype.kind == "u" else dtype


def promote(dtypes: Sequence[Any]) -> DType:
    """Return NumPy's result dtype; Python ``int``, ``float``, ``complex`` count as weak."""
    if not dtypes:
        raise ShapeError("nothing to join or promote", hint="give at least one array")
    dtypes = _strong(tuple(dtypes))
    if any(is_bfloat16(d) for d in dtypes) and complex not in dtypes:
        # NumPy's weak scalars are weak to its own dtypes only.
        dtypes = tuple(d for d in dtypes if not isinstance(d, type))
    try:
        return np.result_type(*[d(0) if isinstance(d, type) else d for d in dtypes])
    except TypeError:
        raise _refused(
            "promotion", dtypes, "these dtypes have no common dtype; cast one: x.astype('float32')"
        ) from None


# -- shape rules -----------------------------------------------------------------------------------


def checked(name: str, dtype: DType, shape: Shape) -> Aval:
    """Return the aval; raise where no array could have it (rank, or more bytes than memory)."""
    if len(shape) > MAX_RANK:
        raise ShapeError(f"{name}: rank {len(shape)} is above NumPy's limit of {MAX_RANK}")
    nbytes = dtype.itemsize
    empty = False
    for extent in shape:
        if extent > 0:
            nbytes *= extent
        elif extent < 0:
            raise ShapeError(f"{name}: negative size in shape {shape}")
        else:
            empty = True
    if nbytes > MAX_BYTES and not (empty and nbytes < 1 << 62):
        # NumPy's classes: a shape that no address space holds is a wrong value.
        raise (OutOfMemory if nbytes < 1 << 63 else ShapeTooLarge)(
            f"{name}: shape {shape} of {dtype} needs {nbytes:,} bytes",
            hint="check the operands' shapes: a broadcast may have grown along an axis",
        )
    return Aval(dtype, shape)


def broadcast_shapes(name: str, shapes: Sequence[Shape]) -> Shape:
    """Return the broadcast shape; the error names the op and all shapes."""
    first = shapes[0]
    if all(len(s) == len(first) and s == first for s in shapes):
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


def normalise_axis(name: str, axis: int, shape: Shape) -> int:
    """Return ``axis`` counted from the front; negative ones count from the back."""
    rank = len(shape)
    if not -rank <= axis < rank:
        allowed = f"an axis from {-rank} to {rank - 1}" if rank else "no axis: the value is 0-d"
        raise AxisError(f"{name}: axis {axis} is out of range for shape {shape}", hint=allowed)
    return axis + rank if axis < 0 else axis


def normalise_axes(name: str, axes: int | Sequence[int] | None, shape: Shape) -> tuple[int, ...]:
    """Return sorted, non-negative axes; None means all of them. Repeats are an error."""
    if axes is None:
        return tuple(range(len(shape)))
    listed = (axes,) if isinstance(axes, int) else axes
    result = sorted(normalise_axis(name, a, shape) for a in listed)
    if len(set(result)) != len(result):
        raise ShapeError(f"{name}: axis {tuple(listed)} repeats an axis of shape {shape}")
    return tuple(result)


def check_axes(name: str, axes: Sequence[int], shape: Shape) -> None:
    """Raise unless ``axes`` is what a node may hold: in range, non-negative, without repeats."""
    for position, axis in enumerate(axes):
        if not 0 <= axis < len(shape) or axis in axes[:position]:
            normalise_axes(name, axes, shape)
            raise InternalError(f"{name}: axes {tuple(axes)} were not normalised")


def reduced_shape(shape: Shape, axis: Sequence[int], keepdims: bool) -> Shape:
    """Return ``shape`` without the axes (size 1 in their place with ``keepdims``)."""
    if keepdims:
        return tuple(1 if i in axis else n for i, n in enumerate(shape))
    return tuple(n for i, n in enumerate(shape) if i not in axis)


def without(shape: Shape, axis: int, *instead: int) -> Shape:
    """Return ``shape`` with ``instead`` in the place of one axis."""
    return (*shape[:axis], *instead, *shape[axis + 1 :])


# -- row builders ----------------------------------------------------------------------------------


def row(
    name: str,
    family: Family,
    reference: Callable[..., Any],
    *,
    arity: int | None,
    types: TypesRule,
    shape: ShapeRule,
    facts: Fact = Fact.NONE,
    decompose: Callable[..., Any] | None = None,
    doc: str = "",
) -> Op:
    """Register a row whose dtype follows from the operands' dtypes alone.

    ``shape(*avals, **attrs)`` returns the result's shape or raises. Operands must already have
    the dtypes that ``types`` asks for.
    """

    def infer(operands: Sequence[Aval], attrs: Attrs) -> Aval:
        wanted, result = types(tuple(o.dtype for o in operands))
        for operand, dtype in zip(operands, wanted, strict=True):
            if operand.dtype != dtype:
                raise InternalError(f"{name}: operand of {operand.dtype} where it takes {dtype}")
        return checked(name, result, shape(*operands, **attrs))

    return register(Op(name, family, arity, reference, infer, types, facts, decompose, doc))


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

    def inferred(operands: tuple[Aval, ...]) -> Aval:
        wanted, result = types(tuple(o.dtype for o in operands))
        for operand, dtype in zip(operands, wanted, strict=True):
            if operand.dtype != dtype:
                raise InternalError(
                    f"{name}: operand of {operand.dtype} where the loop takes {dtype}"
                )
        return checked(name, result, broadcast_shapes(name, [o.shape for o in operands]))

    # A program has few combinations of dtypes and shapes, and many nodes of each.
    remembered = lru_cache(maxsize=4096)(inferred)

    def infer(operands: Sequence[Aval], attrs: Attrs) -> Aval:
        return (inferred if families else remembered)(tuple(operands))

    return register(
        Op(name, Family.ELEMENTWISE, arity, reference, infer, types, facts, decompose, doc)
    )


def ufunc(
    name: str,
    function: np.ufunc,
    facts: Fact = Fact.NONE,
    doc: str = "",
    decompose: Callable[..., Any] | None = None,
) -> Op:
    """Register an elementwise row whose meaning and dtypes are a NumPy ufunc's."""
    return elementwise(
        name,
        function,
        arity=function.nin,
        types=ufunc_types(name, function),
        facts=facts,
        decompose=decompose,
        doc=doc,
    )
