"""Python's operators on tensors: the reflected and in-place forms of one set of op names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracejit.tensor import Tensor


class Operators:
    """Mixin of ``Tensor``. An operand that is no array gives ``NotImplemented``, as Python wants.

    In-place forms keep the handle and its dtype, and write through views as NumPy's do.
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
