"""What each builtin does: one row a builtin, over values by parameter name.

Known scalars are computed here, with NumPy's scalar functions; everything else is an array
function on Tensors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import tracejit.functions as functions
from tracejit.errors import ShapeError, UnsupportedError, ValueArgumentError
from tracejit.frontend.neuralscript.builtins import BUILTINS
from tracejit.frontend.neuralscript.values import Arrays, Struct, format_value
from tracejit.tensor import Tensor

_SCALARS = (bool, int, float, complex, np.generic)


# Where array functions are looked for; what a program does not need is not loaded.
_FAMILIES = (
    "elementwise", "creation", "reductions", "movement", "products", "joining", "ordering", "nn",
    "gather", "linalg",
)  # fmt: skip


@cache
def _found(name: str) -> Callable[..., Any] | None:
    """Return the array function of a name; None where there is none."""
    families = (getattr(functions, family) for family in _FAMILIES)
    return next((getattr(f, name) for f in families if hasattr(f, name)), None)


def array_function(name: str) -> Callable[..., Any]:
    """Return an array function. Errors: UnsupportedError."""
    found = _found(name)
    if found is None:
        raise UnsupportedError(f"{name} is not available for traced arrays")
    return found


def is_scalar(value: Any) -> bool:
    """Whether a value is a known number."""
    return isinstance(value, _SCALARS)


def weak(result: Any, *inputs: Any) -> Any:
    """Make a NumPy result of Python scalars a Python scalar again, so that it still adapts."""
    adapts = not any(isinstance(x, np.generic) for x in inputs)
    return result.item() if adapts and isinstance(result, np.generic) else result  # pyright: ignore[reportUnknownVariableType]


def apply(name: str, *inputs: Any) -> Any:
    """Apply an elementwise function to scalars or tensors."""
    if all(map(is_scalar, inputs)):
        scalar: Callable[..., Any] = _SCALAR_FUNCTIONS.get(name) or getattr(np, name)
        with np.errstate(all="ignore"):
            return weak(scalar(*inputs), *inputs)
    return array_function(name)(*inputs)


def _erf(x: Any) -> Any:
    return type(x)(math.erf(x))


def _gamma(x: Any) -> Any:
    try:
        return type(x)(math.gamma(x))
    except ValueError:
        return math.nan
    except OverflowError:
        return math.inf


_SCALAR_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "erf": _erf,
    "gamma": _gamma,
    "conj": np.conj,
    "real": np.real,
    "imag": np.imag,
    "angle": np.angle,
    "concat": np.concatenate,
}


def elementwise(name: str, *parameters: str) -> Callable[..., Any]:
    def run(**values: Any) -> Any:
        return apply(name, *(values[parameter] for parameter in parameters))

    return run


def whole(name: str, *parameters: str) -> Callable[..., Any]:
    """An array function of arrays."""

    def run(**values: Any) -> Any:
        return array_function(name)(*(tensor(values[parameter]) for parameter in parameters))

    return run


def reduction(name: str) -> Callable[..., Any]:
    def run(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return array_function(name)(tensor(x), axis=_axis(axis), keepdims=bool(keepdims))

    return run


def _axis(axis: Any) -> Any:
    if axis is None:
        return None
    if isinstance(axis, Tensor):
        axis = axis.numpy().tolist()
    if isinstance(axis, list | tuple):
        return tuple(int(a) for a in axis)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return int(axis)


def tensor(value: Any, dtype: Any = None) -> Tensor:
    """Return a value as a Tensor; a Vec of numbers or tensors is stacked."""
    if isinstance(value, Tensor) and dtype is None:
        return value
    if isinstance(value, list) and any(isinstance(item, Tensor) for item in value):  # pyright: ignore[reportUnknownVariableType]
        return array_function("stack")([tensor(item) for item in value])  # pyright: ignore[reportUnknownVariableType]
    return array_function("asarray")(value, dtype=dtype)


def _extremum(name: str) -> Callable[..., Any]:
    pair = {"min": "minimum", "max": "maximum"}[name]

    def run(x: Any, y: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
        if y is not None:
            return apply(pair, x, y)
        return reduction(name)(x, axis, keepdims)

    return run


def _norm(x: Any, axis: Any = None, keepdims: bool = False) -> Any:
    x = tensor(x)
    if x.dtype.kind == "c":
        x = array_function("abs")(x)
    total = array_function("sum")(x * x, axis=_axis(axis), keepdims=bool(keepdims))
    return array_function("sqrt")(total)


def _sort(name: str) -> Callable[..., Any]:
    def run(x: Any, axis: Any = -1) -> Any:
        return array_function(name)(tensor(x), axis=int(axis))

    return run


def _cumsum(x: Any, axis: Any = None) -> Any:
    x = tensor(x)
    return array_function("cumsum")(x, axis=0 if axis is None else int(axis))


def _where(condition: Any, x: Any, y: Any) -> Any:
    if is_scalar(condition) and not isinstance(x, Tensor) and not isinstance(y, Tensor):
        return x if condition else y
    return array_function("where")(condition, x, y)


def _clamp(x: Any, low: Any, high: Any) -> Any:
    return apply("minimum", apply("maximum", x, low), high)


# --- linear algebra ---------------------------------------------------------------------------


def transpose(x: Any, axes: Any = None) -> Any:
    """Swap the last two axes, or permute all."""
    if not isinstance(x, Tensor) or x.ndim < 2:
        return x
    if axes is not None:
        return array_function("permute_dims")(x, _axis(axes))
    return array_function("matrix_transpose")(x)


def kronecker(x: Tensor, y: Tensor) -> Tensor:
    """⊗: the outer product of vectors, the Kronecker product of matrices."""
    if x.ndim == 1 and y.ndim == 1:
        return array_function("outer")(x, y)
    return array_function("kron")(x, y)


def _host(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that LAPACK computes; its arguments must be known."""

    def run(**arguments: Any) -> Any:
        found = _found(name)
        if found is not None:
            return found(*arguments.values())
        arrays = [np.asarray(tensor(value).numpy()) for value in arguments.values()]
        try:
            result = function(*arrays)
        except np.linalg.LinAlgError as error:
            raise ShapeError(f"{name}: {error}") from error
        if isinstance(result, tuple):
            return tuple(tensor(item) for item in result)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return tensor(result)

    return run


def _svd(x: Any) -> Any:
    return tuple(np.linalg.svd(x, full_matrices=False))


def _eigenvalues(x: Any) -> Any:
    dtype = np.complex64 if x.dtype == np.float32 else np.complex128
    return np.asarray(np.linalg.eigvals(x), dtype=dtype)


# --- shapes and creation ----------------------------------------------------------------------


def _shape(value: Any) -> tuple[int, ...]:
    if isinstance(value, Tensor):
        value = value.numpy().tolist()
    if isinstance(value, list | tuple):
        return tuple(int(size) for size in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return (int(value),)


def _create(name: str) -> Callable[..., Any]:
    def run(shape: Any, dtype: Any) -> Any:
        return array_function(name)(_shape(shape), dtype=dtype)

    return run


def _random(kind: str) -> Callable[..., Any]:
    """Seeded numbers: the same program gives the same numbers."""

    def run(shape: Any, dtype: Any, seed: Any = 0) -> Any:
        generator = np.random.default_rng(int(seed))
        sample = generator.standard_normal if kind == "normal" else generator.random
        return tensor(sample(_shape(shape)).astype(dtype))

    return run


def _full(shape: Any, value: Any, dtype: Any) -> Any:
    return array_function("full")(_shape(shape), value, dtype=dtype)


def _arange(start: Any, dtype: Any, stop: Any = None, step: Any = 1) -> Any:
    if stop is None:
        start, stop = 0, start
    return array_function("arange")(start, stop, step, dtype=dtype)


def _linspace(start: Any, stop: Any, count: Any, dtype: Any) -> Any:
    return array_function("linspace")(start, stop, int(count), dtype=dtype)


def _join(name: str) -> Callable[..., Any]:
    def run(arrays: Any, axis: Any = 0) -> Any:
        items = [tensor(item) for item in arrays]
        return array_function(name)(items, axis=int(axis))

    return run


def _take(x: Any, index: Any, axis: Any = 0) -> Any:
    return array_function("take")(tensor(x), tensor(index), axis=int(axis))


def _sizes(x: Any) -> tuple[int, ...]:
    return tuple(x.shape) if isinstance(x, Tensor) else ()


def _reshape(x: Any, shape: Any) -> Any:
    return array_function("reshape")(tensor(x), _shape(shape))


def _eye(n: Any, dtype: Any) -> Any:
    return array_function("eye")(int(n), dtype=dtype)


def _length(x: Any) -> int:
    if isinstance(x, Tensor) and x.ndim == 0:
        raise ShapeError("a number has no length")
    return len(x)


# --- machine learning -------------------------------------------------------------------------


def _softmax(x: Any, axis: Any = -1) -> Any:
    return array_function("softmax")(tensor(x), axis=int(axis))


def _log_softmax(x: Any, axis: Any = -1) -> Any:
    return array_function("log_softmax")(tensor(x), axis=int(axis))


def _layer_norm(x: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5) -> Any:
    x = tensor(x)
    centred = x - array_function("mean")(x, axis=-1, keepdims=True)
    variance = array_function("mean")(centred * centred, axis=-1, keepdims=True)
    result = centred / array_function("sqrt")(variance + eps)
    result = result if weight is None else result * weight
    return result if bias is None else result + bias


def _relu(x: Any) -> Any:
    return apply("maximum", x, 0.0 if is_scalar(x) else 0)


def _sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + apply("exp", -x))


def _silu(x: Any) -> Any:
    return x * _sigmoid(x)


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1.0 + apply("erf", x * math.sqrt(0.5)))


def _mse(x: Any, y: Any) -> Any:
    difference = tensor(x) - y
    return array_function("mean")(difference * difference)


def _cross_entropy(x: Any, labels: Any) -> Any:
    x, labels = tensor(x), tensor(labels)
    log = _log_softmax(x, -1)
    rows = array_function("arange")(x.shape[0])
    return -array_function("mean")(log[rows, labels])


def _one_hot(x: Any, classes: Any, dtype: Any) -> Any:
    x = tensor(x)
    columns = array_function("arange")(int(classes))
    rows = array_function("expand_dims")(x, -1)
    return array_function("astype")(rows == columns, dtype)


# --- input and output -------------------------------------------------------------------------


def load(path: str, folders: list[Path]) -> Any:
    """Read an array, or arrays by name. Relative paths are tried in each folder in turn.

    Errors: ValueArgumentError.
    """
    tried = [folder / path for folder in folders] if not Path(path).is_absolute() else [Path(path)]
    found = next((item for item in tried if item.is_file()), None)
    if found is None:
        raise ValueArgumentError(
            f"cannot find {path!r}; looked at {', '.join(str(item) for item in tried)}"
        )
    try:
        return _read(found, path)
    except (OSError, ValueError) as error:
        raise ValueArgumentError(f"cannot read {path!r}: {error}") from error


def _read(found: Path, path: str) -> Any:
    match found.suffix:
        case ".npz":
            with np.load(found, allow_pickle=False) as archive:
                arrays = {name: tensor(archive[name]) for name in archive.files}
            return Arrays(arrays, path)
        case ".npy":
            return tensor(np.load(found, allow_pickle=False))
        case ".csv":
            with found.open(encoding="utf-8") as file:
                first = file.readline()
            header = any(c.isalpha() and c not in "eEnNaAiIfF" for c in first)
            rows = np.loadtxt(found, delimiter=",", skiprows=int(header), ndmin=2)
            return tensor(rows)
        case _:
            raise ValueArgumentError(f"cannot read {path!r}", hint="load .npy, .npz or .csv")


def save(path: str, value: Any, folder: Path) -> None:
    """Write an array; a finished file replaces the old one, so nothing is left half-written."""
    target = folder / path
    if target.suffix not in (".npy", ".npz", ".csv"):
        raise ValueArgumentError(f"cannot write {path!r}", hint="save as .npy, .npz or .csv")
    partial = target.with_name(f".{target.name}.partial")
    try:
        with partial.open("wb") as file:
            if target.suffix == ".npy":
                np.save(file, tensor(value).numpy())
            elif target.suffix == ".npz":
                named = value.fields if isinstance(value, Struct) else value
                if not isinstance(named, Arrays | dict):
                    named = {"value": value}
                arrays: dict[str, Any] = {k: tensor(v).numpy() for k, v in named.items()}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
                np.savez(file, **arrays)
            else:
                np.savetxt(file, np.atleast_2d(tensor(value).numpy()), delimiter=",")
        partial.replace(target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ValueArgumentError(f"cannot write {path!r}: {error}") from error


def show(value: Any) -> str:
    return format_value(value)


# Builtins that take the element type that the checker found for their result.
TYPED = frozenset(
    (
        "zeros",
        "ones",
        "full",
        "eye",
        "linspace",
        "arange",
        "random_normal",
        "random_uniform",
        "one_hot",
    )
)

RUNS: dict[str, Callable[..., Any]] = {
    **{
        name: elementwise(row.run, *row.names)
        for name, row in BUILTINS.items()
        if row.group == "math"
    },
    **{
        name: reduction(name)
        for name in (
            "sum",
            "prod",
            "mean",
            "var",
            "std",
            "median",
            "logsumexp",
            "argmin",
            "argmax",
            "any",
            "all",
        )
    },
    "atan2": elementwise("atan2", "y", "x"),
    "arg": elementwise("angle", "x"),
    "min": _extremum("min"),
    "max": _extremum("max"),
    "norm": _norm,
    "clamp": _clamp,
    "where": _where,
    "select": _where,
    "sort": _sort("sort"),
    "argsort": _sort("argsort"),
    "cumsum": _cumsum,
    "dot": whole("dot", "x", "y"),
    "cross": whole("cross", "x", "y"),
    "outer": whole("outer", "x", "y"),
    "transpose": transpose,
    "trace": whole("trace", "x"),
    "det": _host("det", np.linalg.det),
    "inv": _host("inv", np.linalg.inv),
    "solve": _host("solve", np.linalg.solve),
    "svd": _host("svd", _svd),
    "eigenvalues": _host("eigenvalues", _eigenvalues),
    "qr": _host("qr", np.linalg.qr),
    "cholesky": _host("cholesky", np.linalg.cholesky),
    "shape": _sizes,
    "len": _length,
    "reshape": _reshape,
    "concat": _join("concat"),
    "stack": _join("stack"),
    "take": _take,
    "zeros": _create("zeros"),
    "ones": _create("ones"),
    "full": _full,
    "eye": _eye,
    "linspace": _linspace,
    "arange": _arange,
    "zeros_like": whole("zeros_like", "x"),
    "ones_like": whole("ones_like", "x"),
    "random_normal": _random("normal"),
    "random_uniform": _random("uniform"),
    "relu": _relu,
    "sigmoid": _sigmoid,
    "gelu": _gelu,
    "silu": _silu,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "layer_norm": _layer_norm,
    "mse": _mse,
    "cross_entropy": _cross_entropy,
    "one_hot": _one_hot,
    "time": time.perf_counter,
}


def missing() -> list[str]:
    """Return the builtins without a row here (load, save, print and args need the program)."""
    return sorted(set(BUILTINS) - set(RUNS) - {"load", "save", "print", "args"})
