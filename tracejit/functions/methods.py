"""The methods of ``Tensor``, under NumPy's, the array API's and PyTorch's names.

Most methods are the functions of this package with the tensor as first argument. Where NumPy and
PyTorch mean different things by one name, NumPy's meaning holds: ``repeat`` repeats elements,
``sort`` sorts in place (with ``dim=`` it returns PyTorch's pair), ``std`` divides by n.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np

from tracejit import functions
from tracejit.errors import ArgumentError, ShapeError
from tracejit.functions.arguments import as_dtype, fail, one_axis
from tracejit.tensor import Tensor, cast, record, view, wrap
from tracejit.writes import store

# One name a method, by the module that has the function; "name=function" where they differ.
_METHODS = {
    "creation": "tril triu zeros_like ones_like",
    "elementwise": """
        abs absolute addcdiv addcmul angle acos acosh arccos arccosh arcsin arcsinh arctan arctan2
        arctanh asin asinh atan atan2 atanh bitwise_and bitwise_not bitwise_or bitwise_xor cbrt
        ceil clamp clip conj conjugate copysign cos cosh deg2rad digamma div divide divmod eq erf
        erfc exp exp2 expm1 floor floor_divide fmax fmin fmod ge greater greater_equal gt hypot
        isclose isfinite isinf isnan isreal le lerp less less_equal lgamma log log10 log1p log2
        logaddexp logical_and logical_not logical_or logical_xor lt maximum minimum mul multiply
        nan_to_num ne neg negative not_equal positive pow power rad2deg reciprocal remainder round
        rsqrt sgn sigmoid sign signbit sin sinc sinh sqrt square subtract tan tanh true_divide
        trunc
        """,
    "reductions": """
        all allclose amax amin aminmax any argmax argmin count_nonzero equal=array_equal logsumexp
        max mean median min nanmean nansum prod ptp quantile std sum var
        """,
    "movement": """
        adjoint broadcast_to diag diagonal expand flatten flip fliplr flipud movedim=moveaxis
        moveaxis permute ravel reshape rot90 squeeze swapaxes swapdims=swapaxes trace transpose
        unflatten unsqueeze view=reshape_view
        """,
    "pytorch": """
        bernoulli clamp_max clamp_min det frac index_fill inverse multinomial select=part_at
        tensor_split
        """,
    "counting": "bincount histc",
    "images": "unfold=windows_along",
    "joining": "chunk pad repeat repeat_interleave roll split tile unbind",
    "products": "addmm baddbmm bmm dot inner matmul mm mv norm outer vdot",
    "gather": """
        argwhere choose compress gather index_add index_select isin masked_fill masked_select
        nonzero scatter scatter_add searchsorted take take_along_dim unique
        """,
    "ordering": """
        argpartition argsort cummax cummin cumprod cumsum diff kthvalue logcumsumexp topk
        """,
    "nn": """
        relu relu6 leaky_relu elu selu celu gelu silu mish softplus softsign softmax log_softmax
        hardtanh logit
        """,
}


class _Unloaded:
    """In place of a method whose module has not been needed yet; its first use loads that."""

    def __init__(self, name: str, module: str, function: str):
        self.name = name
        self.module = module
        self.function = function

    def __get__(self, tensor: Tensor | None, owner: type | None = None) -> Any:
        function = getattr(getattr(functions, self.module), self.function)
        setattr(Tensor, self.name, function)
        return function if tensor is None else MethodType(function, tensor)


def _attach(module: str, text: str) -> None:
    for entry in text.split():
        name, _, function = entry.partition("=")
        setattr(Tensor, name, _Unloaded(name, module, function or name))


def _method(function: Callable[..., Any], *names: str) -> None:
    for name in names or (function.__name__,):
        setattr(Tensor, name, function)


# -- copies and conversions ------------------------------------------------------------------------


def astype(
    self: Tensor, dtype: Any, order: str = "K", casting: str = "unsafe", subok: bool = True,
    copy: bool = True,
) -> Tensor:  # fmt: skip
    """Return the tensor in ``dtype``, by C casts; a new tensor unless ``copy=False``."""
    wanted = as_dtype(dtype)
    if not np.can_cast(self.dtype, wanted, casting):  # pyright: ignore[reportArgumentType]
        text = f"cannot cast {self.dtype} to {wanted} under casting={casting!r}"
        raise fail(ArgumentError, text)
    return functions.creation.asarray(self, wanted, copy=copy)


def copy(self: Tensor, order: str = "C") -> Tensor:
    """Return a tensor of this value that shares nothing with this one."""
    return wrap(self.node, self.traced_in)


def detach(self: Tensor) -> Tensor:
    """Return a view of the whole tensor, as PyTorch's ``detach``."""
    return view(self, ())


def contiguous(self: Tensor) -> Tensor:
    """Return the tensor, or a copy of a view."""
    return self if self.base is None else wrap(self.node, self.traced_in)


def is_contiguous(self: Tensor) -> bool:
    """Return whether the tensor is no view."""
    return self.base is None


def to(
    self: Tensor, *args: Any, dtype: Any = None, device: Any = None, copy: bool = False
) -> Tensor:
    """Return the tensor in a dtype and on a device: ``x.to("float32")``, ``x.to("cpu")``."""
    for value in args:
        if isinstance(value, str) and value.split(":")[0] in ("cpu", "cuda", "mps", "gpu"):
            device = value
        elif isinstance(value, Tensor):
            dtype = value.dtype
        else:
            dtype = value
    functions.creation.check_device(device)
    return functions.creation.asarray(self, dtype, copy=copy)


def _conversion(name: str, dtype: str) -> None:
    def convert(self: Tensor) -> Tensor:
        return cast(self, dtype)

    convert.__name__ = convert.__qualname__ = name
    convert.__doc__ = f"Return the tensor as {dtype}."
    setattr(Tensor, name, convert)


for _name, _dtype in {
    "float": "float32", "double": "float64", "half": "float16", "long": "int64", "int": "int32",
    "short": "int16", "char": "int8", "byte": "uint8", "bool": "bool", "cfloat": "complex64",
    "cdouble": "complex128",
}.items():  # fmt: skip
    _conversion(_name, _dtype)


def type_as(self: Tensor, other: Tensor) -> Tensor:
    """Return the tensor in the dtype of another."""
    return cast(self, other.dtype)


def type_name(self: Tensor, dtype: Any = None) -> Any:
    """Return the tensor in ``dtype``; without one the dtype's name."""
    return str(self.dtype) if dtype is None else cast(self, as_dtype(dtype))


def cpu(self: Tensor) -> Tensor:
    """Return the tensor itself: tensors live on the CPU."""
    return self


def tobytes(self: Tensor, order: Any = "C") -> bytes:
    """Return the elements as bytes."""
    return self.numpy().tobytes(order)


def numel(self: Tensor) -> int:
    """Return the number of elements."""
    return self.size


def element_size(self: Tensor) -> int:
    """Return the bytes of an element."""
    return self.itemsize


def stride(self: Tensor, dim: int | None = None) -> Any:
    """Return the distance of neighbours along each axis, in elements, of the tensor in order."""
    found = [1]
    for extent in self.shape[:0:-1]:
        found.append(found[-1] * extent)
    strides = tuple(reversed(found[: self.ndim]))
    return strides if dim is None else strides[one_axis("stride", dim, self.shape)]


def _new(name: str, function: str) -> None:
    def make(self: Tensor, *args: Any, dtype: Any = None, **kwargs: Any) -> Tensor:
        kwargs.pop("device", None)
        kwargs.pop("requires_grad", None)
        return getattr(functions.creation, function)(*args, dtype=dtype or self.dtype, **kwargs)

    make.__name__ = make.__qualname__ = name
    make.__doc__ = f"``{function}`` in the dtype of the tensor."
    setattr(Tensor, name, make)


for _name in ("empty", "full", "ones", "tensor", "zeros"):
    _new(f"new_{_name}", _name)


def dim(self: Tensor) -> int:
    """Return the number of axes."""
    return self.ndim


def is_floating_point(self: Tensor) -> bool:
    """Return whether the elements are real floats."""
    return self.dtype.kind == "f"


def is_complex(self: Tensor) -> bool:
    """Return whether the elements are complex."""
    return self.dtype.kind == "c"


def expand_as(self: Tensor, other: Tensor) -> Tensor:
    """Return the tensor expanded to the shape of another."""
    return functions.movement.broadcast_to(self, other.shape)


def view_as(self: Tensor, other: Tensor) -> Tensor:
    """Return the tensor reshaped to the shape of another."""
    return functions.movement.reshape(self, other.shape)


def t(self: Tensor) -> Tensor:
    """Return the transpose of a matrix; vectors stay."""
    return functions.movement.permute(self)


def narrow(self: Tensor, dim: int, start: int, length: int) -> Tensor:
    """Return the view of ``length`` elements along ``dim`` from ``start`` on."""
    place = one_axis("narrow", dim, self.shape)
    extent = self.shape[place]
    first = start + extent if start < 0 else start
    if not 0 <= first <= first + length <= extent:
        text = f"narrow: {length} elements from {start} on, of {extent} along axis {place}"
        raise fail(ShapeError, text)
    return functions.movement.cut(self, place, first, first + length)


def add(self: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return self + alpha · other."""
    return functions.elementwise.add(self, other if alpha == 1 else other * alpha)


def sub(self: Tensor, other: Any, *, alpha: Any = 1) -> Tensor:
    """Return self − alpha · other."""
    return functions.elementwise.subtract(self, other if alpha == 1 else other * alpha)


# -- in place --------------------------------------------------------------------------------------


def sort(
    self: Tensor, axis: int = -1, kind: Any = None, order: Any = None, *, stable: Any = None,
    dim: int | None = None, descending: bool = False,
) -> Any:  # fmt: skip
    """Sort in place, as NumPy's method. With PyTorch's ``dim``: return (values, indices)."""
    if dim is not None:
        return functions.ordering.sort(self, dim=dim, descending=descending)
    store(self, functions.ordering.sort(self, axis, descending=descending))
    return None


def fill(self: Tensor, value: Any) -> Tensor:
    """Set every element, in place."""
    functions.indexing.setitem(self, ..., value)
    return self


def zero(self: Tensor) -> Tensor:
    """Set every element to zero, in place."""
    return fill(self, 0)


def fill_diagonal(self: Tensor, value: Any) -> Tensor:
    """Set the elements of a matrix's main diagonal, in place."""
    if self.ndim != 2:
        raise fail(ShapeError, f"fill_diagonal_ takes a matrix; the shape is {self.shape}")
    rows, columns = (
        functions.creation.ramp((self.shape[0], 1), 0),
        functions.creation.ramp((1, self.shape[1]), 1),
    )
    on = record("equal", (rows, columns))
    store(self, cast(record("where", (on, value, self)), self.dtype))
    return self


def copy_from(self: Tensor, source: Any) -> Tensor:
    """Set the elements to those of ``source``, which broadcasts, in place."""
    functions.indexing.setitem(self, ..., source)
    return self


def put_along_axis(self: Tensor, indices: Any, values: Any, axis: int = -1) -> None:
    """Write values at indices along an axis, in place."""
    functions.gather.put_along_axis(self, indices, values, axis)


def itemset(self: Tensor, *args: Any) -> None:
    """Set one element, in place."""
    functions.indexing.setitem(self, args[:-1], args[-1])


_IN_PLACE = {
    "add_": "add", "sub_": "subtract", "mul_": "multiply", "div_": "divide", "pow_": "power",
    "neg_": "negative", "exp_": "exp", "log_": "log", "sqrt_": "sqrt", "abs_": "absolute",
    "relu_": "relu", "sigmoid_": "sigmoid", "tanh_": "tanh", "floor_": "floor", "ceil_": "ceil",
    "reciprocal_": "reciprocal", "square_": "square",
}  # fmt: skip


# Methods of which "name_" is the form in place.
_IN_PLACE_METHODS = """
    addcdiv addcmul clamp clamp_max clamp_min clip cos erf expm1 index_add index_fill lerp log1p
    logical_not masked_fill round rsqrt scatter scatter_add sin trunc
    """


def _in_place(name: str, row: str) -> None:
    def change(self: Tensor, *others: Any, alpha: Any = 1) -> Tensor:
        if alpha != 1:
            others = (*others[:-1], others[-1] * alpha)
        result = record(row, (self, *others))
        store(self, functions.movement.broadcast_to(result, self.shape))
        return self

    change.__name__ = change.__qualname__ = name
    change.__doc__ = f"``{row}`` in place, as PyTorch's ``{name}``."
    setattr(Tensor, name, change)


def _method_in_place(name: str) -> None:
    def change(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        store(self, getattr(self, name)(*args, **kwargs))
        return self

    change.__name__ = change.__qualname__ = f"{name}_"
    change.__doc__ = f"``{name}`` in place, as PyTorch's ``{name}_``."
    setattr(Tensor, change.__name__, change)


for _name, _row in _IN_PLACE.items():
    _in_place(_name, _row)
for _name in _IN_PLACE_METHODS.split():
    _method_in_place(_name)


def uniform_in_place(self: Tensor, low: float = 0.0, high: float = 1.0) -> Tensor:
    """Set the elements to numbers uniform on [low, high), in place."""
    store(self, functions.random.uniform(low, high, self.shape, dtype=self.dtype))
    return self


def normal_in_place(self: Tensor, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Set the elements to normal numbers, in place."""
    store(self, functions.random.normal(mean, std, self.shape, dtype=self.dtype))
    return self


# -- attributes that move elements -----------------------------------------------------------------


def _transposed(self: Tensor) -> Tensor:
    """The tensor with all axes reversed, as NumPy's ``T``."""
    return functions.movement.permute(self)


def _matrix_transposed(self: Tensor) -> Tensor:
    """The tensor with its last two axes swapped."""
    return functions.movement.matrix_transpose(self)


def _adjoint(self: Tensor) -> Tensor:
    """The conjugate with the last two axes swapped."""
    return functions.movement.adjoint(self)


def _real(self: Tensor) -> Tensor:
    """The real parts."""
    return self if self.dtype.kind != "c" else record("real", (self,))


def _imag(self: Tensor) -> Tensor:
    """The imaginary parts."""
    return record("imag", (self,))


def _flat(self: Tensor) -> Tensor:
    """The elements on one axis: a view where possible."""
    return functions.movement.ravel(self)


for _name, _getter in {
    "T": _transposed, "mT": _matrix_transposed, "H": _adjoint, "mH": _adjoint, "real": _real,
    "imag": _imag, "flat": _flat,
}.items():  # fmt: skip
    setattr(Tensor, _name, property(_getter))

setattr(Tensor, "requires_grad", False)  # noqa: B010 (tensors carry no gradients)
for _module, _text in _METHODS.items():
    _attach(_module, _text)
for _function in (
    astype, copy, detach, contiguous, is_contiguous, to, type_as, cpu, tobytes, numel, dim,
    element_size, stride,
    is_floating_point, is_complex, expand_as, view_as, t, narrow, add, sub, sort, fill,
    put_along_axis, itemset,
):  # fmt: skip
    _method(_function)
_method(numel, "nelement")
_method(copy, "clone")
_method(fill, "fill_")
_method(zero, "zero_")
_method(fill_diagonal, "fill_diagonal_")
_method(type_name, "type")
_method(copy_from, "copy_")
_method(uniform_in_place, "uniform_")
_method(normal_in_place, "normal_")
_attach("indexing", "__getitem__=getitem __setitem__=setitem")
_attach("elementwise", "_rounded=round")
