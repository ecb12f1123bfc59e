"""What Python asks of a tensor: operators on it, and its value in Python's and NumPy's terms."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from tracejit.errors import ArgumentError, DTypeError, UserError, ValueArgumentError
from tracejit.ops.table import Array, DType, Shape
from tracejit.tracing import AS_ARRAY, Trace, user_location

if TYPE_CHECKING:
    from tracejit.tensor import Tensor


OUTSIDE = "return the tensor and convert it outside"
# np.zeros and np.array make NumPy's own arrays also inside a traced function.
_INTO_NUMPY = (
    "keep it a tensor: x.copy() makes a contiguous copy, tj.zeros takes traced values, "
    "tj.stack joins them (np.maximum.reduce(list): np.max(list, axis=0))"
)
_WHERE = (
    "write np.where(condition, a, b), np.minimum(a, b) for min(a, b), a & b for a and b; or return "
    "the value and decide outside"
)


def _error(kind: Callable[..., UserError], message: str, hint: str | None = None) -> UserError:
    return kind(message, hint=hint, loc=user_location())


class Operators:
    """Mixin of ``Tensor``: the reflected and in-place forms of one set of op names.

    An operand that is no array gives ``NotImplemented``, as Python wants. In-place forms keep the
    handle and its dtype, and write through views as NumPy's do.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def _unary(self, name: str) -> Tensor: ...
        def _binary(self, name: str, other: Any) -> Tensor: ...
        def _reflected(self, name: str, other: Any) -> Tensor: ...
        def _inplace(self, name: str, other: Any) -> Tensor: ...
        def _rounded(self, digits: int) -> Tensor: ...

    # -- arithmetic

    def __add__(self, other: Any) -> Tensor:
        return self._binary("add", other)

    def __radd__(self, other: Any) -> Tensor:
        return self._reflected("add", other)

    def __iadd__(self, other: Any) -> Tensor:
        return self._inplace("add", other)

    def __sub__(self, other: Any) -> Tensor:
        return self._binary("subtract", other)

    def __rsub__(self, other: Any) -> Tensor:
        return self._reflected("subtract", other)

    def __isub__(self, other: Any) -> Tensor:
        return self._inplace("subtract", other)

    def __mul__(self, other: Any) -> Tensor:
        return self._binary("multiply", other)

    def __rmul__(self, other: Any) -> Tensor:
        return self._reflected("multiply", other)

    def __imul__(self, other: Any) -> Tensor:
        return self._inplace("multiply", other)

    def __truediv__(self, other: Any) -> Tensor:
        return self._binary("divide", other)

    def __rtruediv__(self, other: Any) -> Tensor:
        return self._reflected("divide", other)

    def __itruediv__(self, other: Any) -> Tensor:
        return self._inplace("divide", other)

    def __floordiv__(self, other: Any) -> Tensor:
        return self._binary("floor_divide", other)

    def __rfloordiv__(self, other: Any) -> Tensor:
        return self._reflected("floor_divide", other)

    def __ifloordiv__(self, other: Any) -> Tensor:
        return self._inplace("floor_divide", other)

    def __mod__(self, other: Any) -> Tensor:
        return self._binary("remainder", other)

    def __rmod__(self, other: Any) -> Tensor:
        return self._reflected("remainder", other)

    def __imod__(self, other: Any) -> Tensor:
        return self._inplace("remainder", other)

    def __pow__(self, other: Any) -> Tensor:
        return self._binary("power", other)

    def __rpow__(self, other: Any) -> Tensor:
        return self._reflected("power", other)

    def __ipow__(self, other: Any) -> Tensor:
        return self._inplace("power", other)

    def __divmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self._binary("floor_divide", other), self._binary("remainder", other)

    def __rdivmod__(self, other: Any) -> tuple[Tensor, Tensor]:
        return self._reflected("floor_divide", other), self._reflected("remainder", other)

    def __matmul__(self, other: Any) -> Tensor:
        return self._binary("matmul", other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return self._reflected("matmul", other)

    def __imatmul__(self, other: Any) -> Tensor:
        return self._inplace("matmul", other)

    def __neg__(self) -> Tensor:
        return self._unary("negative")

    def __pos__(self) -> Tensor:
        return self._unary("positive")

    def __abs__(self) -> Tensor:
        return self._unary("absolute")

    # -- bits

    def __and__(self, other: Any) -> Tensor:
        return self._binary("bitwise_and", other)

    def __rand__(self, other: Any) -> Tensor:
        return self._reflected("bitwise_and", other)

    def __iand__(self, other: Any) -> Tensor:
        return self._inplace("bitwise_and", other)

    def __or__(self, other: Any) -> Tensor:
        return self._binary("bitwise_or", other)

    def __ror__(self, other: Any) -> Tensor:
        return self._reflected("bitwise_or", other)

    def __ior__(self, other: Any) -> Tensor:
        return self._inplace("bitwise_or", other)

    def __xor__(self, other: Any) -> Tensor:
        return self._binary("bitwise_xor", other)

    def __rxor__(self, other: Any) -> Tensor:
        return self._reflected("bitwise_xor", other)

    def __ixor__(self, other: Any) -> Tensor:
        return self._inplace("bitwise_xor", other)

    def __lshift__(self, other: Any) -> Tensor:
        return self._binary("left_shift", other)

    def __rlshift__(self, other: Any) -> Tensor:
        return self._reflected("left_shift", other)

    def __ilshift__(self, other: Any) -> Tensor:
        return self._inplace("left_shift", other)

    def __rshift__(self, other: Any) -> Tensor:
        return self._binary("right_shift", other)

    def __rrshift__(self, other: Any) -> Tensor:
        return self._reflected("right_shift", other)

    def __irshift__(self, other: Any) -> Tensor:
        return self._inplace("right_shift", other)

    def __round__(self, digits: int | None = None) -> Tensor:
        return self._rounded(digits or 0)

    def __invert__(self) -> Tensor:
        return self._unary("invert")

    # -- comparisons: elementwise; identity is `is`, and hashing is by identity

    def __eq__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._binary("equal", other)

    def __ne__(self, other: object) -> Tensor:  # type: ignore[override]
        return self._binary("not_equal", other)

    def __lt__(self, other: Any) -> Tensor:
        return self._binary("less", other)

    def __le__(self, other: Any) -> Tensor:
        return self._binary("less_equal", other)

    def __gt__(self, other: Any) -> Tensor:
        return self._binary("greater", other)

    def __ge__(self, other: Any) -> Tensor:
        return self._binary("greater_equal", other)

    __hash__ = object.__hash__


class Values:
    """Mixin of ``Tensor``: its value on demand. Of a traced tensor each is a ``TraceError``."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def shape(self) -> Shape: ...
        @property
        def dtype(self) -> DType: ...
        @property
        def ndim(self) -> int: ...
        @property
        def size(self) -> int: ...
        @property
        def traced_in(self) -> Trace | None: ...
        def _value(self, wanted: str, hint: str) -> Array: ...
        def __getitem__(self, key: Any) -> Tensor: ...

    def __len__(self) -> int:
        if not self.shape:
            raise _error(ArgumentError, "len() of a 0-d tensor")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        if not self.shape:
            raise _error(ArgumentError, "iteration over a 0-d tensor")
        return (self[i] for i in range(self.shape[0]))

    # -- values

    def numpy(self, *, copy: bool = False) -> Array:
        """Return the value as an ndarray: read-only, or the caller's own with ``copy=True``."""
        array = self._value("numpy()", OUTSIDE)
        if copy:
            return array.copy()
        array = array.view()
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        array = self._value(AS_ARRAY, _INTO_NUMPY)
        if dtype is not None and np.dtype(dtype) != array.dtype:
            if copy is False:
                raise _error(
                    ValueArgumentError, f"a tensor of {array.dtype} as {np.dtype(dtype)} is a copy"
                )
            return array.astype(dtype)
        return self.numpy(copy=bool(copy))

    def item(self, *index: int) -> Any:
        """Return the only element, or the one at ``index``, as a Python scalar."""
        array = self._value("item()", _WHERE)
        if not index and array.size != 1:
            raise _error(
                ValueArgumentError,
                f"item() needs one element; the shape is {self.shape}",
                hint="index first, or use tolist()",
            )
        return array.item(*index)

    def tolist(self) -> Any:
        """Return the value as nested lists of Python scalars."""
        return self._value("tolist()", OUTSIDE).tolist()

    def __bool__(self) -> bool:
        if self.size != 1:
            raise _error(
                ValueArgumentError,
                f"the truth value of a tensor of shape {self.shape} is ambiguous",
                hint="use x.any() or x.all()",
            )
        return bool(
            self._value("a Python condition (if, while, and, or, not, min, max)", _WHERE).item()
        )

    def _number(self, wanted: str) -> Any:
        if self.size != 1:
            raise _error(DTypeError, f"{wanted} needs one element; the shape is {self.shape}")
        return self._value(wanted, _INTO_NUMPY).item()

    def __float__(self) -> float:
        return float(self._number("float()"))

    def __int__(self) -> int:
        return int(self._number("int()"))

    def __complex__(self) -> complex:
        return complex(self._number("complex()"))

    def __index__(self) -> int:
        if self.dtype.kind not in "iu" or self.shape:
            raise _error(DTypeError, f"{self.dtype}{list(self.shape)} is not an index")
        hint = (
            "sizes, slice bounds and shifts must be known: pass a tuple of ints in place of an "
            "array of them; x[i] and tj.take(x, i) take a traced index"
        )
        return self._value("a Python index", hint).item()

    def __contains__(self, value: Any) -> bool:
        return bool(np.any(self._value("the operator in", _WHERE) == value))

    def __repr__(self) -> str:
        if self.traced_in is not None:
            return f"tensor(<traced in {self.traced_in.name}>, {self.dtype}{list(self.shape)})"
        array = self._value("repr()", OUTSIDE)
        inside = np.array2string(array, separator=", ", prefix="tensor(")
        if not array.size:
            inside = f"[], shape={array.shape}"
        # Types a reader would take the digits for need no name, as in NumPy's own repr.
        plain = array.dtype in (
            np.dtype(np.float64),
            np.dtype(np.int64),
            np.dtype(np.bool_),
            np.dtype("c16"),
        )
        suffix = "" if plain and array.size else f", dtype={array.dtype}"
        return f"tensor({inside}{suffix})"

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        if self.ndim == 0:
            return format(self._value("format()", OUTSIDE).item(), spec)
        raise _error(
            DTypeError,
            f"a tensor of shape {self.shape} has no format {spec!r}",
            hint="format x.numpy(), or one element",
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)  # kDLCPU

    def __dlpack__(
        self,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Export the value; DLPack before 1.0 has no read-only memory, so it gets a copy."""
        modern = max_version is not None and max_version[0] >= 1
        if not modern:
            return self.numpy(copy=True).__dlpack__(stream=stream)
        exporter: Any = self.numpy(copy=bool(copy))
        return exporter.__dlpack__(
            stream=stream, max_version=max_version, dl_device=dl_device, copy=copy
        )
