"""The one table of builtins: parameters, type rule, what runs, and a line for the docs.

A parameter that ends in ``?`` may be left out. ``run`` names a function of ``runs.RUNS`` or, by
default, the array function of that name. Checker, tracer, docs and tests all read this table.
"""

from __future__ import annotations

import math

from tracejit.frontend.neuralscript import builtin_rules as r
from tracejit.frontend.neuralscript import builtin_shapes as shapes
from tracejit.record import record

CONSTANTS: dict[str, float] = {
    "π": math.pi,
    "τ": math.tau,
    "ℯ": math.e,
    "φ": (1 + math.sqrt(5)) / 2,
}


@record(frozen=True)
class Builtin:
    """One row."""

    name: str
    parameters: tuple[str, ...]
    rule: r.Rule
    run: str
    group: str
    doc: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name.rstrip("?") for name in self.parameters)

    def signature(self) -> str:
        return f"{self.name}({', '.join(self.parameters)})"


BUILTINS: dict[str, Builtin] = {}


def _add(group: str, name: str, parameters: str, rule: r.Rule, doc: str, run: str = "") -> None:
    BUILTINS[name] = Builtin(name, tuple(parameters.split()), rule, run or name, group, doc)


def _math() -> None:
    group = "math"
    _add(group, "sqrt", "x", r.root(2), "square root; takes the root of the unit")
    _add(group, "cbrt", "x", r.root(3), "cube root; takes the root of the unit")
    for name, run, doc in (
        ("exp", "", "ℯ to the power x"),
        ("expm1", "", "exp(x) - 1, exact near 0"),
        ("ln", "log", "natural logarithm"),
        ("log", "log", "natural logarithm"),
        ("log2", "", "logarithm to base 2"),
        ("log10", "", "logarithm to base 10"),
        ("log1p", "", "ln(1 + x), exact near 0"),
        ("sin", "", "sine"),
        ("cos", "", "cosine"),
        ("tan", "", "tangent"),
        ("asin", "", "inverse sine"),
        ("acos", "", "inverse cosine"),
        ("atan", "", "inverse tangent"),
        ("sinh", "", "hyperbolic sine"),
        ("cosh", "", "hyperbolic cosine"),
        ("tanh", "", "hyperbolic tangent"),
        ("erf", "", "error function"),
        ("gamma", "", "gamma function"),
    ):
        _add(group, name, "x", r.float_map, doc, run)
    _add(group, "atan2", "y x", r.arctangent, "angle of the point (x, y)")
    _add(group, "hypot", "x y", r.pairwise, "√(x² + y²) without overflow")
    _add(group, "pow", "x y", r.pairwise, "x to the power y")
    _add(group, "abs", "x", r.real_part, "absolute value, also written |x|")
    _add(group, "conj", "x", r.same, "complex conjugate")
    _add(group, "re", "x", r.real_part, "real part", "real")
    _add(group, "im", "x", r.real_part, "imaginary part", "imag")
    _add(group, "arg", "x", r.angle, "angle of a complex number")
    _add(group, "sign", "x", r.dimensionless, "-1, 0 or 1")
    _add(group, "floor", "x", r.same, "round down")
    _add(group, "ceil", "x", r.same, "round up")
    _add(group, "round", "x", r.same, "round to the nearest, halves to even")
    _add(group, "clamp", "x low high", r.clamp, "x limited to low … high")
    _add(group, "where", "condition x y", r.select, "x where the condition holds, else y")
    _add(group, "select", "condition x y", r.select, "another name of where", "where")
    _add(group, "is_nan", "x", r.predicate, "whether x is not a number", "isnan")
    _add(group, "is_finite", "x", r.predicate, "whether x is finite", "isfinite")


def _reductions() -> None:
    group, p = "reductions", "x axis? keepdims?"
    _add(group, "sum", p, r.reduce_same, "sum, also written ∑")
    _add(group, "prod", p, r.reduce_product, "product, also written ∏")
    _add(group, "mean", p, r.reduce_float, "mean")
    _add(group, "var", p, r.reduce_float, "variance (of the population)")
    _add(group, "std", p, r.reduce_float, "standard deviation (of the population)")
    _add(group, "norm", p, r.reduce_float, "Euclidean norm")
    _add(group, "median", p, r.reduce_float, "median")
    _add(group, "logsumexp", p, r.reduce_float, "ln ∑ exp(x) without overflow")
    _add(group, "min", "x y? axis? keepdims?", r.extremum, "least element, or of two")
    _add(group, "max", "x y? axis? keepdims?", r.extremum, "greatest element, or of two")
    _add(group, "argmin", p, r.reduce_index, "index of the least element")
    _add(group, "argmax", p, r.reduce_index, "index of the greatest element")
    _add(group, "any", p, r.reduce_bool, "whether any is true")
    _add(group, "all", p, r.reduce_bool, "whether all are true")
    _add(group, "cumsum", "x axis?", r.along(False), "running sum along an axis")
    _add(group, "sort", "x axis?", r.along(False), "ascending along an axis (the last)")
    _add(group, "argsort", "x axis?", r.argsort, "the indices that sort")


def _algebra() -> None:
    group = "linear algebra"
    _add(group, "dot", "x y", r.dot, "dot product of vectors, also written •")
    _add(group, "cross", "x y", r.cross, "cross product of 3-vectors, also written ×")
    _add(group, "outer", "x y", r.outer, "outer product of vectors, also written ⊗")
    _add(group, "transpose", "x axes?", r.transpose, "swap the last two axes, also written ᵀ")
    _add(group, "trace", "x", r.square("number"), "sum of the diagonal")
    _add(group, "det", "x", r.square("number"), "determinant")
    _add(group, "inv", "x", r.square("matrix"), "inverse")
    _add(group, "solve", "x y", r.solve, "the z with x ⊙ z = y")
    _add(group, "eigenvalues", "x", r.square("complex"), "eigenvalues, complex")
    _add(group, "svd", "x", r.factors(3), "(U, S, Vᵀ), the thin factors")
    _add(group, "qr", "x", r.factors(2), "(Q, R), the thin factors")
    _add(group, "cholesky", "x", r.square("matrix"), "lower factor of a positive matrix")


def _shapes() -> None:
    group = "shape"
    _add(group, "shape", "x", shapes.shape_of, "the sizes, a tuple")
    _add(group, "len", "x", shapes.length, "the first size")
    _add(group, "reshape", "x shape", shapes.reshape, "the same elements in another shape; one -1")
    _add(group, "concat", "arrays axis?", shapes.concat, "join along an axis")
    _add(group, "stack", "arrays axis?", shapes.stack, "join along a new axis")
    _add(group, "take", "x index axis?", shapes.take, "the elements or rows at an index vector")
    _add(group, "zeros", "shape", shapes.created(), "zeros: zeros(3), zeros((2, 3))")
    _add(group, "ones", "shape", shapes.created(), "ones")
    _add(group, "full", "shape value", shapes.filled, "one value everywhere")
    _add(group, "eye", "n", shapes.identity, "the identity matrix")
    _add(group, "linspace", "start stop count", shapes.linspace, "count points, both ends included")
    _add(group, "arange", "start stop? step?", shapes.arange, "start, start + step, … below stop")
    _add(group, "zeros_like", "x", shapes.like, "zeros of the shape and type of x")
    _add(group, "ones_like", "x", shapes.like, "ones of the shape and type of x")
    _add(group, "random_normal", "shape seed?", shapes.created(), "standard normal numbers, seeded")
    _add(group, "random_uniform", "shape seed?", shapes.created(), "numbers in 0 … 1, seeded")


def _learning() -> None:
    group = "machine learning"
    for name, doc in (
        ("relu", "max(x, 0)"),
        ("sigmoid", "1 / (1 + exp(-x))"),
        ("gelu", "x · Φ(x)"),
        ("silu", "x · sigmoid(x)"),
    ):
        _add(group, name, "x", r.float_map, doc)
    _add(group, "softmax", "x axis?", r.along(True), "exp(x) / ∑ exp(x) along an axis (the last)")
    _add(group, "log_softmax", "x axis?", r.along(True), "ln softmax(x)")
    _add(group, "layer_norm", "x weight? bias? eps?", shapes.layer_norm, "normalise the last axis")
    _add(group, "cross_entropy", "x labels", shapes.loss, "mean of -ln softmax(x)[label]")
    _add(group, "mse", "x y", shapes.loss, "mean of (x - y)²")
    _add(group, "one_hot", "x classes", shapes.one_hot, "rows of the identity matrix")


def _program() -> None:
    group = "input and output"
    _add(group, "load", "path", shapes.unknown, "an array (.npy, .csv) or arrays by name (.npz)")
    _add(group, "save", "path value", shapes.nothing, "write an array as .npy, .npz or .csv")
    _add(group, "print", "value", shapes.nothing, "print a value and a newline")
    _add(group, "time", "", shapes.seconds, "seconds since an arbitrary start")
    _add(group, "args", "", shapes.texts, "the program's arguments")


for _fill in (_math, _reductions, _algebra, _shapes, _learning, _program):
    _fill()

# Builtins that read, write or show: they run at program level, never inside a traced function.
EFFECTS = frozenset(("load", "save", "print", "time", "args"))
