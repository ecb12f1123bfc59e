"""NumPy calling tensors: ufuncs, functions, the array namespace.

``np.exp(x)`` and ``np.concatenate([x, y])`` come here when a tensor is among their arguments, and
record the same nodes as tracejit's own functions. Two tables say what is understood. A function
outside them, called on tensors whose values are known, is computed by NumPy itself; on a traced
tensor it is a ``TraceError``, for its result would be a constant of the compiled function.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from tracejit import functions
from tracejit.errors import DTypeError, ShapeError, TraceError, ValueArgumentError
from tracejit.functions.arguments import as_dtype, fail, is_array, is_sequence, is_tuple
from tracejit.ops import OPS
from tracejit.ops.indexing import COMBINES
from tracejit.tensor import (
    Tensor,
    cast,
    lift,
    operator_function,
    record,
    value_of,
    view,
)
from tracejit.tracing import AS_OUT, state
from tracejit.writes import store, write

# -- ufuncs ----------------------------------------------------------------------------------------

# The reduction and the scan that a ufunc's methods stand for, by where they are in ``functions``.
_REDUCE = {
    "add": "reductions.sum",
    "multiply": "reductions.prod",
    "maximum": "reductions.max",
    "minimum": "reductions.min",
    "fmax": "reductions.nanmax",
    "fmin": "reductions.nanmin",
    "logical_and": "reductions.all",
    "logical_or": "reductions.any",
    "logaddexp": "reductions.logsumexp",
}
_ACCUMULATE = {
    "add": "ordering.cumsum",
    "multiply": "ordering.cumprod",
    "maximum": "ordering.cummax",
    "minimum": "ordering.cummin",
    "logaddexp": "ordering.logcumsumexp",
}
_UFUNCS = {
    "divmod": "elementwise.divmod",
    "modf": "elementwise.modf",
    "frexp": "elementwise.frexp",
    "matmul": "products.matmul",
    "vecdot": "products.vecdot",
    "matvec": "products.matmul",
    "vecmat": "products.vecmat",
    "degrees": "elementwise.rad2deg",
    "radians": "elementwise.deg2rad",
}
# Functions of scipy.special that have a traced form; "name=ours" where ours differs.
_SCIPY = {
    "elementwise": "cbrt erf erfc exp2 expit expm1 gamma gammaln i0 log1p psi=digamma",
    "nn": "logit xlogy",
}


@lru_cache(maxsize=1024)
def _found(place: str | None) -> Callable[..., Any] | None:
    """Return the function of ``functions`` at "module.name"; None for None."""
    if place is None:
        return None
    module, _, name = place.partition(".")
    return getattr(getattr(functions, module), name)


def _scipy(ufunc: np.ufunc) -> Callable[..., Any] | None:
    """Return our form of a ufunc of scipy.special; None for any other."""
    special = sys.modules.get("scipy.special")  # whoever passes one has imported it
    if special is None or getattr(special, ufunc.__name__, None) is not ufunc:
        return None
    return _found(_places(_SCIPY).get(ufunc.__name__))


def array_ufunc(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Return what ``ufunc`` (a method of it) gives on ``inputs``, of which some are tensors.

    ``out`` may be tensors, which are written to, or arrays, which get the values; with ``where``
    the other elements keep the value of ``out``, or are zero without one.
    """
    if not kwargs and method == "__call__":
        function = _meaning(ufunc)
        return _by_numpy(ufunc, inputs, {}) if function is None else function(*inputs)
    outputs = kwargs.pop("out", None)
    where = kwargs.pop("where", True)
    if method == "__call__":
        result = _call(ufunc, inputs, kwargs)
        if where is not True:
            result = _merged(result, where, outputs)
    elif method == "reduce":
        result = _reduce(ufunc, inputs[0], where, **kwargs)
    elif method == "accumulate":
        result = _accumulate(ufunc, *inputs, **kwargs)
    elif method == "outer":
        result = _outer(ufunc, inputs, kwargs)
    elif method == "at":
        return _at(ufunc, *inputs)
    else:
        result = _by_numpy(getattr(ufunc, method), inputs, kwargs)
    return result if outputs is None else _delivered(result, outputs)


def _call(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    function = _meaning(ufunc)
    dtype = kwargs.pop("dtype", None)
    casting = kwargs.pop("casting", "same_kind")
    kwargs.pop("order", None)
    kwargs.pop("subok", None)
    if function is None or kwargs:
        return _by_numpy(ufunc, inputs, {**kwargs, **({} if dtype is None else {"dtype": dtype})})
    if dtype is not None:
        wanted = as_dtype(dtype)
        inputs = tuple(_as(lift(x), wanted, casting) for x in inputs)
    return function(*inputs)


@lru_cache(maxsize=1024)
def _meaning(ufunc: np.ufunc) -> Callable[..., Any] | None:
    """Return the function that stands for a call of ``ufunc``; None where only NumPy has it."""
    name = ufunc.__name__
    function = _scipy(ufunc) or _found(_UFUNCS.get(name)) or operator_function(name)
    row = OPS.get(name)
    if function is None and row is not None and isinstance(row.reference, np.ufunc):
        return lambda *inputs: record(name, inputs)
    return function


def _as(x: Tensor, dtype: Any, casting: Any) -> Tensor:
    if not np.can_cast(x.dtype, dtype, casting):
        raise fail(DTypeError, f"cannot cast {x.dtype} to {dtype} under casting={casting!r}")
    return cast(x, dtype)


def _reduce(
    ufunc: np.ufunc,
    x: Any,
    where: Any,
    axis: Any = 0,
    dtype: Any = None,
    keepdims: bool = False,
    initial: Any = None,
) -> Any:
    function = _found(_REDUCE.get(ufunc.__name__))
    if function is None:
        extra = {"axis": axis, "dtype": dtype, "keepdims": keepdims}
        return _by_numpy(ufunc.reduce, (x,), extra)
    settings: dict[str, Any] = {"axis": axis, "keepdims": keepdims}
    if dtype is not None:
        if ufunc.__name__ in ("add", "multiply"):
            settings["dtype"] = dtype
        else:
            x = cast(lift(x), as_dtype(dtype))
    if initial is not None and initial is not np._NoValue:  # pyright: ignore
        settings["initial"] = initial
    if where is not True:
        settings["where"] = where
    try:
        return function(x, **settings)
    except TypeError as error:
        unknown = set(settings) & {"initial", "where"}
        if not unknown or isinstance(error, DTypeError):
            raise
        text = f"np.{ufunc.__name__}.reduce of a tensor takes no {' and '.join(sorted(unknown))}"
        raise fail(ValueArgumentError, text) from None


def _accumulate(ufunc: np.ufunc, x: Any, axis: int = 0, dtype: Any = None) -> Any:
    function = _found(_ACCUMULATE.get(ufunc.__name__))
    if function is None:
        return _by_numpy(ufunc.accumulate, (x,), {"axis": axis, "dtype": dtype})
    value = lift(x) if dtype is None else cast(lift(x), as_dtype(dtype))
    return function(value, axis)


def _outer(ufunc: np.ufunc, inputs: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    left, right = (lift(x) for x in inputs)
    grown = functions.movement.reshape(left, left.shape + (1,) * right.ndim)
    return _call(ufunc, (grown, right), kwargs)


def _at(ufunc: np.ufunc, x: Any, key: Any, *values: Any) -> None:
    """Apply ``ufunc`` in place at indices, at repeated ones each time."""
    if not isinstance(x, Tensor):
        x_array: Any = x
        ufunc.at(x_array, _plain(key), *(_plain(v) for v in values))
        return
    parsed = functions.indexing.parse(x, key)
    if parsed.arrays and values:
        if ufunc.__name__ not in COMBINES:
            raise fail(
                ValueArgumentError,
                f"np.{ufunc.__name__}.at on a tensor does not take index arrays",
                f"{', '.join(COMBINES)} do; or compute on x.numpy() outside the traced function",
            )
        target = functions.indexing.getitem(x, ...) if not parsed.steps else view(x, parsed.steps)
        result = functions.gather.combine(
            target, parsed.arrays, parsed.axes, values[0], ufunc.__name__
        )
        write(target, result.node, result.traced_in)
        return
    x[key] = _call(ufunc, (x[key], *values), {})


def _merged(result: Any, where: Any, outputs: Any) -> Any:
    """Return ``result`` where the mask holds, else what ``out`` holds, or zero."""
    mask = functions.elementwise.as_condition(where)
    results = result if is_tuple(result) else (result,)
    merged: list[Tensor] = []
    for position, part in enumerate(results):
        before = None if outputs is None else outputs[position]
        other = functions.creation.zeros_like(part) if before is None else lift(before)
        merged.append(record("where", (mask, part, other)))
    return tuple(merged) if is_tuple(result) else merged[0]


def _delivered(result: Any, outputs: Any) -> Any:
    """Put results into ``out`` and return ``out``, as NumPy does."""
    targets: tuple[Any, ...] = outputs if is_tuple(outputs) else (outputs,)
    results: tuple[Any, ...] = result if is_tuple(result) else (result,)
    delivered: list[Any] = []
    for part, target in zip(results, targets, strict=True):
        if target is None:
            delivered.append(part)
        elif isinstance(target, Tensor):
            if part.shape != target.shape:
                part = _fitted(part, target.shape)
            store(target, part)
            delivered.append(target)
        else:
            hint = "leave out= away, or write to an argument: np.add(x, y, out=x)"
            known = value_of(part, AS_OUT, hint)
            np.copyto(target, known, casting="same_kind")
            delivered.append(target)
    return delivered[0] if len(delivered) == 1 else tuple(delivered)


def _fitted(part: Tensor, shape: tuple[int, ...]) -> Tensor:
    try:
        return functions.movement.broadcast_to(part, shape)
    except ShapeError:
        text = f"out has shape {shape}, the result {part.shape}"
        raise fail(ShapeError, text) from None


# -- functions of NumPy ----------------------------------------------------------------------------

# Names under which tracejit's functions take numpy's arguments. "name=ours" where ours differs.
_FUNCTIONS = {
    "creation": """
        empty_like full_like linspace logspace meshgrid ones_like tril triu
        zeros_like copy geomspace
        """,
    "dtypes": "can_cast iscomplexobj isrealobj ndim result_type shape size",
    "elementwise": """
        angle around clip fix imag isclose isneginf isposinf nan_to_num real round sinc where
        iscomplex isreal i0
        """,
    "reductions": """
        all allclose amax amin any argmax argmin array_equal array_equiv average count_nonzero max
        mean median min nanmax nanmean nanmedian nanmin nanprod nanstd nansum nanvar percentile prod
        ptp quantile std sum var
        """,
    "movement": """
        atleast_1d atleast_2d atleast_3d broadcast_arrays broadcast_to diag diagflat diagonal
        expand_dims flip fliplr flipud matrix_transpose moveaxis ravel rollaxis rot90 squeeze
        swapaxes trace
        """,
    "joining": """
        append array_split block column_stack concatenate delete dsplit dstack hsplit hstack insert
        pad repeat resize roll split stack tile trim_zeros vsplit vstack unstack
        """,
    "convolution": "convolve correlate",
    "products": "corrcoef cov cross dot einsum inner kron outer tensordot vdot",
    "counting": "bincount histogram",
    "gather": """
        argwhere choose compress digitize extract flatnonzero interp isin nonzero
        piecewise searchsorted take take_along_axis unique unique_all unique_counts unique_inverse
        unique_values
        """,
    "sampled": "ediff1d gradient polyval trapezoid unwrap vander",
    "ordering": """
        argpartition argsort cumprod cumsum cumulative_prod cumulative_sum diff lexsort nancumprod
        nancumsum partition sort
        """,
}
_LINALG = """
    cholesky cond cross det diagonal eig eigh eigvals eigvalsh inv matmul matrix_norm matrix_power
    matrix_rank matrix_transpose multi_dot norm outer pinv qr slogdet solve svdvals tensordot trace
    vecdot vector_norm
    """
_FFT = "fft fft2 fftn fftshift ifft ifft2 ifftn ifftshift irfft rfft"
_FREE = ("order", "subok", "device", "like")  # arguments that change nothing here


def _transpose(x: Any, axes: Any = None) -> Tensor:
    given = () if axes is None else (tuple(axes),)
    return functions.movement.permute(x, *given)


def _reshape(x: Any, shape: Any, order: str = "C", *, copy: bool | None = None) -> Tensor:
    return functions.movement.reshape(x, shape, order=order, copy=copy)


def _copyto(target: Any, source: Any, casting: Any = "same_kind", where: Any = True) -> None:
    if not isinstance(target, Tensor):
        np.copyto(target, _plain(source), casting, where=_plain(where))
        return
    value = lift(source)
    if where is not True:
        value = record("where", (functions.elementwise.as_condition(where), value, target))
    store(target, _fitted(_as(value, target.dtype, casting), target.shape))


def _put_along_axis(x: Any, indices: Any, values: Any, axis: int | None = -1) -> None:
    functions.gather.put_along_axis(x, indices, values, axis)


def _fill_diagonal(x: Tensor, value: Any, wrap: bool = False) -> None:
    if x.ndim != 2 or wrap:
        raise fail(ValueArgumentError, "fill_diagonal of a tensor takes a matrix, without wrap")
    functions.indexing.setitem(functions.movement.diagonal(x), ..., value)


def _astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Tensor:
    return functions.elementwise.astype(x, dtype, copy=copy)


def _select(conditions: Any, choices: Any, default: Any = 0) -> Tensor:
    return functions.gather.select(conditions, choices, default)


def _svd(
    a: Any, full_matrices: bool = True, compute_uv: bool = True, hermitian: Any = False
) -> Any:
    if not compute_uv:
        return functions.linalg.svdvals(a)
    return functions.linalg.svd(a, full_matrices=full_matrices and a.shape[-1] != a.shape[-2])


def _lstsq(a: Any, b: Any, rcond: None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return solution, residuals, rank and singular values, as for a matrix of full rank."""
    if rcond is not None:
        raise TypeError("lstsq of tensors takes rcond=None")
    solution, b = functions.linalg.lstsq(a, b), lift(b)
    if a.shape[0] > a.shape[1]:
        apart = functions.elementwise.abs(b - functions.products.matmul(a, solution)) ** 2
        residuals = functions.movement.reshape(functions.reductions.sum(apart, axis=0), (-1,))
    else:
        residuals = functions.creation.zeros(0, dtype=functions.linalg.svdvals(a).dtype)
    return solution, residuals, functions.linalg.matrix_rank(a), functions.linalg.svdvals(a)


def _array_repr(x: Any, *_: Any, **__: Any) -> str:
    return repr(x)


_OWN: dict[Any, Callable[..., Any]] = {
    np.transpose: _transpose,
    np.reshape: _reshape,
    np.copyto: _copyto,
    np.put_along_axis: _put_along_axis,
    np.fill_diagonal: _fill_diagonal,
    np.select: _select,
    np.linalg.svd: _svd,
    np.linalg.lstsq: _lstsq,
    np.array_repr: _array_repr,
    np.array_str: _array_repr,
}
if hasattr(np, "astype"):  # from NumPy 2.1 on
    _OWN[np.astype] = _astype


def _places(table: Mapping[str, str]) -> dict[str, str]:
    """Return name → place of ours, of a table from modules to names."""
    found: dict[str, str] = {}
    for module, text in table.items():
        for entry in text.split():
            theirs, _, ours = entry.partition("=")
            found[theirs] = f"{module}.{ours or theirs}"
    return found


@lru_cache(maxsize=1)
def spaces() -> dict[str, dict[str, str]]:
    """Return, by module of NumPy, the functions that are understood, and the places of ours."""
    return {
        "numpy": _places(_FUNCTIONS),
        "numpy.linalg": _places({"linalg": _LINALG}),
        "numpy.fft": _places({"fft": _FFT}),
        "numpy.lib.stride_tricks": _places({"sampled": "sliding_window_view"}),
    }


@lru_cache(maxsize=1024)
def stand_in(function: Callable[..., Any]) -> Callable[..., Any] | None:
    """Return what stands for a function of NumPy; None where nothing does."""
    # By name: comparing with the functions themselves would load NumPy's subpackages.
    names = spaces().get(function.__module__, {})
    return _OWN.get(function) or _found(names.get(function.__name__))


def array_function(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Return what NumPy's ``function`` gives where a tensor is among its arguments."""
    ours = stand_in(function)
    outputs = kwargs.pop("out", None)
    if ours is None:
        result = _by_numpy(function, args, kwargs)
        return result if outputs is None else _delivered(result, outputs)
    settings = {
        key: value
        for key, value in kwargs.items()
        if key not in _FREE and value is not np._NoValue  # pyright: ignore
    }
    if "order" in kwargs and function in (np.reshape, np.ravel):
        settings["order"] = kwargs["order"]
    if "a" in settings and not args:  # np.sum(a=x): ours take it by position
        args = (settings.pop("a"),)
    try:
        result = ours(*args, **settings)
    except TypeError as error:
        if type(error) is not TypeError:
            raise
        # An argument that NumPy knows and we do not, or one nobody knows: NumPy decides.
        result = _by_numpy(function, args, kwargs)
    return result if outputs is None else _delivered(result, outputs)


# -- NumPy itself ----------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Return ``value`` with tensors, also inside lists, tuples and dicts, as arrays."""
    if isinstance(value, Tensor):
        return value.__array__()
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    if type(value) is dict:
        return {k: _plain(v) for k, v in value.items()}  # pyright: ignore
    return value


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif type(value) in (list, tuple):
        for part in value:
            yield from _tensors(part)


def _by_numpy(function: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute with NumPy on known values; arrays come back as tensors."""
    name = getattr(function, "__qualname__", None) or getattr(function, "__name__", "this")
    traced = [t for t in _tensors([*args, *kwargs.values()]) if t.traced_in is not None]
    if traced:
        running = state.trace or traced[0].traced_in
        assert running is not None
        raise fail(
            TraceError,
            f"np.{name} has no traced form with these arguments (in {running.name})",
            "use another formula, or call it outside the traced function",
        )
    result = function(*_plain(tuple(args)), **_plain(kwargs))
    return _back(result)


def _back(result: Any) -> Any:
    if is_array(result) and result.dtype.kind in "biufc":
        return functions.creation.asarray(result)
    if not is_sequence(result):
        return result
    parts = [_back(r) for r in result]
    return tuple(parts) if is_tuple(result) else parts


def array_namespace(api_version: str | None) -> Any:
    """Return the tracejit module, the array API's namespace of tensors."""
    if api_version not in (None, "2021.12", "2022.12", "2023.12", "2024.12"):
        raise fail(ValueArgumentError, f"array API version {api_version!r} is not known")
    return sys.modules["tracejit"]
