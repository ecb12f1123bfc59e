"""``x[mask]`` while a function is traced: the elements under a mask, whose number is not known.

A selection has no shape, so it is no tensor. What is done with most of them needs none:

    x[mask] = f(x[mask], y[mask])    x = where(mask, f(x, y), x)
    x[mask] += 1                     x = where(mask, x + 1, x)
    x[mask].sum(axis=0)              sums where the mask holds

So arithmetic computes all elements and keeps the mask, an assignment under the same mask chooses,
and reductions leave out what the mask does. Anything else is a ``TraceError`` where it happens.
"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from tracejit import functions
from tracejit.errors import DTypeError, Location, TraceError
from tracejit.functions.arguments import fail, is_tuple
from tracejit.tensor import Tensor, apply
from tracejit.tracing import no_value, user_location

_HINT = (
    "arithmetic, sums and means of x[mask] can be traced, and x[mask] = … with the same mask; for "
    "the rest write tj.where(mask, x, other), and np.count_nonzero(mask) for how many there are"
)
_REDUCTIONS = ("all", "any", "mean", "prod", "std", "sum", "var")


class Selection(NDArrayOperatorsMixin):
    """The elements (or rows) of ``whole`` where ``mask``, which has its leading axes, holds."""

    def __init__(self, whole: Tensor, mask: Tensor):
        self.whole = whole
        self.mask = mask
        self.made_at = user_location()

    def __repr__(self) -> str:
        return f"<elements of {self.whole!r} under a mask>"

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    @property
    def ndim(self) -> int:
        return self.whole.ndim - self.mask.ndim + 1

    # -- elementwise -------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        out = kwargs.pop("out", (None,))
        if method != "__call__" or kwargs or len(out) != 1:
            self.refuse()
        found: Any = ufunc(*map(self._operand, inputs))
        if isinstance(out[0], Selection):
            return out[0].become(found)
        if is_tuple(found):
            return tuple(Selection(part, self.mask) for part in found)
        return Selection(found, self.mask)

    def _operand(self, value: Any) -> Any:
        """Return what stands for an operand among whole tensors."""
        if isinstance(value, Selection):
            if value.mask.node is not self.mask.node:
                raise fail(
                    TraceError,
                    "elements under two masks are used together while they are traced",
                    "select all operands with one mask, or write tj.where(mask, x, other)",
                )
            return value.whole
        # A row goes with each selected row, and so with each row.
        if np.ndim(value) >= self.ndim:
            self.refuse()
        return value

    def become(self, whole: Tensor) -> Selection:
        """Change in place: ``x[mask] += 1`` adds to the selection, and assigns that."""
        if not np.can_cast(whole.dtype, self.dtype, "same_kind"):
            raise fail(
                DTypeError,
                f"a result of {whole.dtype} does not fit into elements of {self.dtype}",
                "write x[mask] = value, which casts",
            )
        self.whole = whole.astype(self.dtype)
        return self

    def astype(self, dtype: Any) -> Selection:
        """Return the elements in another dtype."""
        return Selection(self.whole.astype(dtype), self.mask)

    def copy(self) -> Selection:
        """Return another selection of the same elements."""
        return Selection(self.whole, self.mask)

    def under(self, mask: Tensor) -> Tensor:
        """Return the whole tensor, for an assignment under ``mask``, which must be this one."""
        self._operand(Selection(self.whole, mask))
        return self.whole

    # -- reductions --------------------------------------------------------------------------------

    def reduce(self, name: str, axis: Any, ddof: float = 0, **kwargs: Any) -> Tensor:
        """Return the reduction over all axes, or (axis 0) over the selected elements or rows."""
        known = (None, 0, -1) if self.ndim == 1 else (None, 0)
        if axis not in known or any(v is not None and v is not False for v in kwargs.values()):
            self.refuse()
        over = tuple(range(self.whole.ndim if axis is None else self.mask.ndim))
        # The mask, with an axis of size 1 for each axis of the rows.
        shape = self.mask.shape + (1,) * (self.ndim - 1)
        wide = apply("reshape", (self.mask,), shape=shape) if self.ndim > 1 else self.mask
        settings = {"ddof": ddof} if name in ("std", "var") else {}
        return getattr(functions.reductions, name)(self.whole, over, where=wide, **settings)

    # -- what needs their number -------------------------------------------------------------------

    def refuse(self, loc: Location | None = None) -> NoReturn:
        """Raise the error for what cannot be traced, at the line that asks for it or at ``loc``."""
        trace = self.mask.traced_in
        assert trace is not None
        error = no_value(trace, "indexing with a bool mask", _HINT)
        error.loc = loc or error.loc
        raise error

    def __array__(self, *args: Any, **kwargs: Any) -> NoReturn:
        self.refuse()

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        name = function.__name__
        if name not in _REDUCTIONS or len(args) > 2 or args[0] is not self:
            self.refuse()
        settings = {k: v for k, v in kwargs.items() if v is not np._NoValue}  # pyright: ignore
        return getattr(self, name)(*args[1:], **settings)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"elements under a bool mask have no {name!r}")
        self.refuse()

    def __len__(self) -> int:
        self.refuse()

    def __bool__(self) -> bool:
        self.refuse()

    def __iter__(self) -> NoReturn:
        self.refuse()

    def __getitem__(self, key: Any) -> NoReturn:
        self.refuse()

    def __setitem__(self, key: Any, value: Any) -> NoReturn:
        self.refuse()


def _reduction(name: str) -> Any:
    def method(self: Selection, axis: Any = None, ddof: float = 0, **kwargs: Any) -> Tensor:
        return self.reduce(name, axis, ddof, **kwargs)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"Return ``{name}`` of the selected elements."
    return method


for _name in _REDUCTIONS:
    setattr(Selection, _name, _reduction(_name))
