"""The op matrix: cases for every row of the op table.

``cases(name)`` yields the cases of one op: operands in every dtype that the row takes, in sizes
around each vector width, in awkward memory layouts, and with the values that go wrong. An engine
is checked by evaluating ``case.graph()`` on ``case.arrays`` and comparing with ``case.expected()``
under ``case.tolerance``. A new elementwise row has cases by itself; other rows take an entry here
or in op_structured.py.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from op_samples import (
    DTYPES,
    EXACT,
    EXACT_SIGNED,
    SIZES,
    Array,
    Tolerance,
    layouts,
    ordinary,
    varied,
)

import tracejit.ops  # noqa: F401 (registers the rows)
from tracejit.errors import DTypeError
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, make, placeholder
from tracejit.ops.table import OPS, Family, Op
from tracejit.runtime.interpreter import run_graph

DType = np.dtype[Any]
Attrs = Mapping[str, Hashable]


@dataclass(frozen=True)
class Case:
    """One op on concrete operands. ``note`` says in words what is special about it."""

    name: str
    arrays: tuple[Array, ...]
    attrs: Attrs = field(default_factory=dict)
    tolerance: Tolerance = EXACT
    note: str = ""

    @property
    def op(self) -> Op:
        return OPS[self.name]

    def operands(self) -> tuple[list[Node], list[Node]]:
        """Return placeholders for the arrays, and them cast to the dtypes the op takes."""
        inputs = [placeholder(i, a.dtype, a.shape) for i, a in enumerate(self.arrays)]
        if self.op.types is None:
            return inputs, inputs
        wanted, _ = self.op.types(tuple(a.dtype for a in self.arrays))
        emit = Emit()
        return inputs, [emit.cast(n, d) for n, d in zip(inputs, wanted, strict=True)]

    def graph(self) -> Graph:
        inputs, operands = self.operands()
        return Graph(inputs, [make(self.op, operands, self.attrs)])

    def decomposed(self) -> Graph | None:
        """Return the graph of the op's decomposition, or None where it has none."""
        if self.op.decompose is None:
            return None
        inputs, operands = self.operands()
        result = self.op.decompose(Emit(), *operands, **self.attrs)
        return None if result is None else Graph(inputs, [result])

    def expected(self) -> Array:
        return run_graph(self.graph(), list(self.arrays))[0]

    def __str__(self) -> str:
        shapes = ", ".join(f"{a.dtype}{list(a.shape)}" for a in self.arrays)
        attrs = ", ".join(f"{k}={v!r}" for k, v in self.attrs.items())
        return f"{self.name}({shapes}{'; ' if attrs else ''}{attrs}) {self.note}".strip()


Maker = Callable[[str], Iterator[Case]]
MAKERS: dict[str, Maker] = {}


def cases_for(*names: str) -> Callable[[Maker], Maker]:
    """Register the generator of the cases of some ops."""

    def add(maker: Maker) -> Maker:
        for name in names:
            MAKERS[name] = maker
        return maker

    return add


def names(text: str) -> list[str]:
    return text.split()


def generator(*seed: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(seed).encode()))


def takes(name: str, *dtypes: DType) -> bool:
    """Return whether the op's types rule accepts these operand dtypes."""
    rule = OPS[name].types
    assert rule is not None
    try:
        rule(tuple(dtypes))
    except DTypeError:
        return False
    return True


def native(name: str, *dtypes: DType) -> bool:
    """Return whether the op takes these dtypes without a cast."""
    rule = OPS[name].types
    assert rule is not None
    return rule(tuple(dtypes))[0] == tuple(dtypes)


def cases(name: str) -> Iterator[Case]:
    """Yield the cases of one op."""
    if name in MAKERS:
        yield from MAKERS[name](name)
    elif OPS[name].family is Family.ELEMENTWISE:
        yield from elementwise_cases(name)


TESTED = sorted(n for n in OPS if n not in ("input", "data"))

# -- elementwise -----------------------------------------------------------------------------------

# Error in ULP that two correct implementations may differ by. What is not here is exact.
ULPS: dict[str, float] = {
    **dict.fromkeys(
        names(
            "exp exp2 expm1 log log2 log10 log1p sin cos tan arcsin arccos arctan arctan2 "
            "sinh cosh tanh arcsinh arccosh arctanh cbrt hypot power float_power sigmoid "
            "erf erfc i0"
        ),
        6,
    ),
    "gamma": 24, "logit": 12, "sinc": 12, "angle": 6, "ndtr": 12, "gelu": 16, "silu": 8,
    "mish": 16, "softplus": 8, "log_sigmoid": 8, "elu": 8, "celu": 8, "selu": 8, "rsqrt": 2,
    "xlogy": 8, "hardswish": 2, "hardsigmoid": 2, "lerp": 2, "deg2rad": 1, "rad2deg": 1,
    "leaky_relu": 1,
}  # fmt: skip
# Results near zero are differences of larger numbers: the error is relative to this magnitude.
SCALED: dict[str, Tolerance] = {
    "lgamma": Tolerance(12, 4.0),
    "digamma": Tolerance(24, 8.0),
    "logaddexp": Tolerance(8, 1.0),
    "logaddexp2": Tolerance(8, 1.0),
    "tanhshrink": Tolerance(8, 4.0),
    "arctanh": Tolerance(8),
}
# Complex functions are products and sums of real ones: cancellation is theirs too.
COMPLEX_ULPS: dict[str, float] = {
    "sinc": 64, "rsqrt": 16, "lerp": 16, "float_power": 64, "power": 64, "sqrt": 4,
}  # fmt: skip
# The sign of a zero is part of the meaning.
SIGNED = frozenset(
    [
        "negative",
        "copysign",
        "signbit",
        "absolute",
        "fabs",
        "floor",
        "ceil",
        "trunc",
        "rint",
        "sqrt",
        "positive",
        "real",
        "modf_fraction",
        "modf_integer",
        "where",
        "multiply",
        "divide",
        "add",
        "subtract",
    ]
)
ELEMENTWISE_ATTRS: dict[str, list[Attrs]] = {
    "leaky_relu": [{}, {"slope": 0.2}],
    "threshold": [{"threshold": 0.5, "value": 3.0}],
    "hardtanh": [{}, {"low": -2.0, "high": 0.5}],
    "hardshrink": [{}, {"width": 1.0}],
    "softshrink": [{}, {"width": 1.0}],
    "elu": [{}, {"alpha": 1.5}],
    "celu": [{}, {"alpha": 1.5}],
    "gelu": [{}, {"approximate": "tanh"}],
    "isclose": [
        {"rtol": 1e-3, "atol": 1e-8},
        {"rtol": 0.5, "atol": 0.0, "equal_nan": True},
    ],
    "nan_to_num": [{}, {"nan": 1.5, "posinf": 2.0, "neginf": -3.0}],
}


def tolerance_of(name: str, dtype: DType) -> Tolerance:
    if name in SCALED:
        return SCALED[name]
    ulp = ULPS.get(name, 0.0)
    if dtype.kind == "c":
        ulp = COMPLEX_ULPS.get(name, ulp)
    if ulp and dtype.kind in "fc":
        return Tolerance(ulp)
    return EXACT_SIGNED if name in SIGNED else EXACT


def _operand_dtypes(name: str, dtype: DType) -> tuple[DType, ...] | None:
    """Return operand dtypes for a row with the main dtype, or None if it takes none such."""
    arity = OPS[name].arity
    assert arity is not None
    wanted = (dtype,) * arity
    if name == "ldexp":
        wanted = (dtype, np.dtype(np.int32))
    elif name == "where":
        wanted = (np.dtype(bool), dtype, dtype)
    return wanted if takes(name, *wanted) else None


def _restrict(name: str, arrays: list[Array]) -> list[Array]:
    """Keep operands inside the domain where NumPy's result is defined on every platform."""
    dtype = arrays[0].dtype
    if name == "power" and dtype.kind in "iu":
        arrays[1] = np.where(arrays[1] < 0, arrays[1] % np.asarray(6, dtype), arrays[1])
    elif name == "natural":  # raises for others
        arrays = [np.where(a < 0, ~a, a) for a in arrays]
    elif name in ("left_shift", "right_shift") and dtype.kind in "iu":
        arrays[1] = arrays[1] % np.asarray(8 * dtype.itemsize + 3, dtype)
    elif name == "ldexp":
        arrays[1] = arrays[1] % np.int32(2400) - np.int32(1200)
    elif name == "reciprocal" and dtype.kind in "iu":  # of 0, infinity, which no integer is
        arrays[0] = np.where(arrays[0] == 0, np.asarray(1, dtype), arrays[0])
    elif name == "i0":  # e^|x| overflows quietly in NumPy's series
        arrays = [np.clip(np.where(np.isfinite(a), a, 0), -80, 80) for a in arrays]
    elif name == "clip" and dtype.kind != "b":
        arrays[1:] = [np.minimum(*arrays[1:]), np.maximum(*arrays[1:])]
    elif dtype.kind == "c" and name in ULPS:
        # C99's special cases of complex functions differ between C libraries.
        arrays = [np.where(np.isfinite(a), a, 1.5 - 0.5j).astype(dtype) for a in arrays]
    return arrays


def _varied_operands(name: str, dtypes: tuple[DType, ...], n: int) -> list[Array]:
    rng = generator(name, dtypes, n)
    return _restrict(name, [varied(d, n, rng) for d in dtypes])


def elementwise_cases(name: str) -> Iterator[Case]:
    """Yield every accepted dtype in every size, and other layouts for three dtypes."""
    for attrs in ELEMENTWISE_ATTRS.get(name, [{}]):
        for dtype in DTYPES:
            dtypes = _operand_dtypes(name, dtype)
            if dtypes is None:
                continue
            tolerance = tolerance_of(name, OPS[name].types(dtypes)[1])  # type: ignore[misc]
            sizes = SIZES if native(name, *dtypes) else (0, 33)
            for n in sizes:
                arrays = tuple(_varied_operands(name, dtypes, n))
                yield Case(name, arrays, attrs, tolerance)
            if native(name, *dtypes) and dtype.name in ("int32", "float32", "complex128"):
                yield from _layout_cases(name, dtypes, attrs, tolerance)


def _layout_cases(
    name: str, dtypes: tuple[DType, ...], attrs: Attrs, tolerance: Tolerance
) -> Iterator[Case]:
    base = _varied_operands(name, dtypes, 48)
    for views in zip(*[layouts(a) for a in base], strict=True):
        arrays = tuple(view for _, view in views)
        yield Case(name, arrays, attrs, tolerance, views[0][0])
    if len(base) > 1:
        # Operands of different shapes: a row against a matrix, a column, a 0-d operand.
        shapes = [(6, 8), (8,), (6, 1)]
        mixed = tuple(
            a[: int(np.prod(s))].reshape(s)
            for a, s in zip(base, [shapes[i % 3] for i in range(len(base))], strict=True)
        )
        yield Case(name, mixed, attrs, tolerance, "mixed shapes")
        scalar = (*base[:-1], base[-1][:1].reshape(()))
        yield Case(name, scalar, attrs, tolerance, "0-d operand")


@cases_for("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
def comparison_cases(name: str) -> Iterator[Case]:
    """Yield the usual cases, and int64 against uint64, which NumPy compares exactly."""
    yield from elementwise_cases(name)
    dtypes = (np.dtype(np.int64), np.dtype(np.uint64))
    for order in (dtypes, dtypes[::-1]):
        yield Case(name, tuple(_varied_operands(name, order, 100)), note="mixed signs")


@cases_for("cast")
def cast_cases(name: str) -> Iterator[Case]:
    """Yield every pair of dtypes; floats become integers only inside their range."""
    for dtype in DTYPES:
        for target in DTYPES:
            attrs = {"dtype": target.str}
            sizes = SIZES if dtype.name in ("int32", "float32") else (0, 1, 33)
            for n in sizes:
                x = varied(dtype, n, generator(dtype, target, n))
                if dtype.kind in "fc" and target.kind in "iu":
                    x = np.where(np.isfinite(x), x, 3.7)
                    low = -100 if target.kind == "i" else 0
                    x = np.asarray(np.clip(np.real(x), low, 100), dtype)
                yield Case(name, (x,), attrs, EXACT_SIGNED)
        for note, view in layouts(varied(dtype, 48, generator(dtype))):
            yield Case(name, (view,), {"dtype": "<c16"}, EXACT, note)


# -- reductions and scans --------------------------------------------------------------------------

# Reductions whose floating result depends on the order of the operations, with the attributes to
# try. The bound grows with the number of terms, relative to the sum of magnitudes.
REDUCTION_ATTRS: dict[str, list[Attrs]] = {
    "var": [{}, {"correction": 1}],
    "std": [{}, {"correction": 1}],
    "nanvar": [{}, {"correction": 1}],
    "nanstd": [{}, {"correction": 1}],
    "norm": [{"ord": o} for o in (0, 1, 2, 3.0, float("inf"), float("-inf"))],
    "quantile": [{"q": 0.3}],
}
REDUCTIONS = [
    "sum",
    "prod",
    "max",
    "min",
    "any",
    "all",
    "argmax",
    "argmin",
    "mean",
    "var",
    "std",
    "ptp",
    "count_nonzero",
    "logsumexp",
    "norm",
    "nansum",
    "nanprod",
    "nanmean",
    "nanvar",
    "nanstd",
    "nanmax",
    "nanmin",
    "median",
    "nanmedian",
    "quantile",
]
ORDER_FREE = frozenset(
    names(
        "max min any all argmax argmin count_nonzero nanmax nanmin ptp median nanmedian "
        "quantile"
    )
)  # fmt: skip
NO_IDENTITY = frozenset(names("max min argmax argmin ptp nanmax nanmin"))


def reduction_tolerance(name: str, x: Array) -> Tolerance:
    if name in ORDER_FREE or x.dtype.kind in "biu":
        return EXACT if name in ORDER_FREE or name in ("sum", "prod") else Tolerance(64, 10.0)
    finite = np.abs(np.where(np.isfinite(x), x, 0)).astype(np.float64)
    if name in ("prod", "nanprod"):
        return Tolerance(4 + 2 * x.size)
    if name == "logsumexp":
        return Tolerance(16, float(max(finite.max(initial=0), 8.0)))
    if name == "norm":
        return Tolerance(16 + x.size / 8)
    largest = finite.max(initial=0)
    if name in ("var", "nanvar"):
        largest = largest * largest
    if name in ("sum", "nansum"):
        largest = finite.sum()
    return Tolerance(16 + x.size / 32, float(largest))


def _reduction_values(name: str, dtype: DType, shape: Any, note: str) -> Array:
    rng = generator(name, dtype, shape, note)
    x = ordinary(dtype, shape, rng)
    if name in ("prod", "nanprod") and dtype.kind == "f":
        x = np.asarray(2 ** rng.uniform(-0.5, 0.5, shape) * rng.choice([-1, 1], shape), dtype)
    if note == "nan" and x.size:
        x[rng.random(shape) < 0.1] = np.nan
    elif note == "infinite" and x.size:
        x[rng.random(shape) < 0.1] = np.inf
        if name == "logsumexp":
            x[...] = -np.inf
    elif note == "zeros" and x.size:
        x[...] = np.where(rng.random(shape) < 0.5, -0.0, 0.0)
    elif note == "denormal" and x.size:
        x *= np.finfo(dtype).smallest_subnormal * 64
    return x


def _reduction_shapes(n: int) -> list[tuple[tuple[int, ...], tuple[int, ...], bool]]:
    return [
        ((n,), (0,), False),
        ((n, 5), (0,), False),
        ((5, n), (1,), True),
        ((3, n, 2), (0, 2), False),
        ((2, 3, n), (1, 2), True),
    ]


@cases_for(*REDUCTIONS)
def reduction_cases(name: str) -> Iterator[Case]:
    """Yield sizes along kept and reduced axes, first and last, and one per layout."""
    for attrs in REDUCTION_ATTRS.get(name, [{}]):
        for dtype in DTYPES:
            if not takes(name, dtype):
                continue
            full = dtype.name in ("int32", "float32", "float64")
            for n in SIZES if full else (0, 1, 17, 33):
                for shape, axis, keepdims in _reduction_shapes(n)[: 5 if full else 3]:
                    empty = 0 in [shape[a] for a in axis]
                    if empty and (name in NO_IDENTITY and 0 not in np.delete(shape, axis)):
                        continue
                    x = _reduction_values(name, dtype, shape, "")
                    how = {"axis": axis, "keepdims": keepdims, **attrs}
                    yield Case(name, (x,), how, reduction_tolerance(name, x))
            yield from _reduction_extras(name, dtype, attrs)


def _reduction_extras(name: str, dtype: DType, attrs: Attrs) -> Iterator[Case]:
    if dtype.kind == "f":
        for note in ("nan", "infinite", "zeros", "denormal"):
            x = _reduction_values(name, dtype, (4, 37), note)
            if name in ("median", "nanmedian", "quantile") and note == "infinite":
                continue  # NumPy interpolates ∞ − ∞ to NaN or ∞ by version
            for axis in ((0,), (1,), (0, 1)):
                how = {"axis": axis, "keepdims": False, **attrs}
                yield Case(name, (x,), how, reduction_tolerance(name, x), note)
    if dtype.name not in ("float32", "int32"):
        return
    base = ordinary(dtype, 48, generator(name, dtype))
    for note, view in layouts(base):
        axis = tuple(range(view.ndim))[-1:]
        if view.size == 0 and name in NO_IDENTITY:
            axis = (1,)
        how = {"axis": axis, "keepdims": False, **attrs}
        yield Case(name, (view,), how, reduction_tolerance(name, view), note)


@cases_for("cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "nancumsum", "nancumprod")
def scan_cases(name: str) -> Iterator[Case]:
    product = "prod" in name
    for dtype in DTYPES:
        if not takes(name, dtype):
            continue
        for n in SIZES if dtype.name in ("int32", "float32") else (0, 1, 33):
            for shape, axis in (((n,), 0), ((n, 5), 0), ((5, n), 1)):
                for note in ("", "nan") if dtype.kind == "f" else ("",):
                    x = _reduction_values("prod" if product else name, dtype, shape, note)
                    tolerance = EXACT
                    if dtype.kind in "fc" and name not in ("cummax", "cummin"):
                        scale = float(np.abs(np.nan_to_num(x)).sum())
                        tolerance = Tolerance(8 + 2 * n, 0.0 if product else scale)
                    elif name == "logcumsumexp":
                        tolerance = Tolerance(8 + 2 * n, 10.0)
                    yield Case(name, (x,), {"axis": axis}, tolerance, note)


# -- a smaller matrix for engines that compile -----------------------------------------------------


OPAQUE = (Family.LIBRARY, Family.SORTING, Family.INDEXING, Family.RANDOM)


def _features(case: Case, main: str) -> Iterator[tuple[object, ...]]:
    """Yield what a case shows that others may not have shown."""
    op = case.op
    opaque = op.decompose is None and op.family in OPAQUE
    dtype = case.arrays[0].dtype if case.arrays else np.dtype(bool)
    size = max((a.size for a in case.arrays), default=0)
    # One dtype goes through every shape, the others through one with a body and a tail.
    if size >= (1000 if dtype.itemsize == 1 else 33) or not sized(case.name):
        # A composite's integers differ in one cast.
        whole = op.decompose is not None and dtype.kind in "iu"
        yield "dtype", dtype.kind if whole else dtype
    if dtype.name == main and not opaque:
        shapes = tuple(a.shape for a in case.arrays)
        if op.decompose is None or not sized(case.name) or size in (0, 1, 33):
            yield "shapes", shapes
        if op.decompose is None or op.family is not Family.ELEMENTWISE:
            yield "note", case.note
        yield "attrs", *sorted(case.attrs.items(), key=repr)


def sized(name: str) -> bool:
    """Return whether the op's cases run through all the sizes."""
    if OPS[name].family in (Family.ELEMENTWISE, Family.REDUCTION):
        return True
    return MAKERS.get(name) in (reduction_cases, scan_cases)


def covering(name: str) -> Iterator[Case]:
    """Yield the cases that add a dtype, or for the main dtype a shape, layout or attribute.

    A compiler takes milliseconds a case: this keeps the whole table under a minute.
    """
    found = list(cases(name))
    present = {c.arrays[0].dtype.name for c in found if c.arrays}
    main = next((d for d in ("float32", "int32", "int64") if d in present), "bool")
    seen: set[tuple[object, ...]] = set()
    for case in found:
        new = set(_features(case, main)) - seen
        if new:
            seen |= new
            yield case
