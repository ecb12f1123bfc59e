"""What a running program's values are, and how they print.

Numbers that are known are Python scalars (or NumPy scalars of a narrower type); arrays are
Tensors; ``Vec`` is a list, a tuple a tuple, a range a Python range.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tracejit.errors import ValueArgumentError
from tracejit.frontend.neuralscript.diagnostics import closest
from tracejit.record import record
from tracejit.tensor import Tensor

if TYPE_CHECKING:
    from tracejit.frontend.neuralscript.scope import Body


# Without numpy.generic's type parameters, which the checker of types cannot know.
NUMPY_SCALARS: tuple[type[Any], ...] = (np.generic,)


@record(frozen=True)
class Variant:
    """A value of an enum."""

    owner: str
    variant: str
    items: tuple[Any, ...]


@record(frozen=True)
class Struct:
    """A value of a struct; an assignment to a field makes a new one."""

    name: str
    fields: Mapping[str, Any]

    def with_field(self, name: str, value: Any) -> Struct:
        return Struct(self.name, {**self.fields, name: value})


@record(eq=False)
class FunctionValue:
    """A function, closure, variant constructor or builtin, with what a closure captured.

    ``body`` is the checked body that a closure has where it was written.
    """

    target: object
    scope: Frame | None = None
    body: Body | None = None


class Frame:
    """The variables of one running block."""

    __slots__ = ("names", "parent")

    def __init__(self, parent: Frame | None = None):
        self.parent = parent
        self.names: dict[str, Any] = {}

    def holder(self, name: str) -> Frame | None:
        """Return the frame that binds a name."""
        frame: Frame | None = self
        while frame is not None:
            if name in frame.names:
                return frame
            frame = frame.parent
        return None


class Arrays(Mapping[str, Any]):
    """What ``load`` of an .npz gives: arrays by name, also as fields."""

    def __init__(self, arrays: Mapping[str, Tensor], path: str):
        self.arrays = dict(arrays)
        self.path = path

    def __getitem__(self, key: str) -> Tensor:
        if key not in self.arrays:
            near = closest(key, self.arrays)
            raise ValueArgumentError(
                f"{self.path} has no array {key!r}; it has {', '.join(self.arrays)}",
                hint=f"did you mean {near}?" if near else None,
            )
        return self.arrays[key]

    def __iter__(self) -> Any:
        return iter(self.arrays)

    def __len__(self) -> int:
        return len(self.arrays)


def items_of(value: Any) -> list[Any]:
    """Return what iterating over a value yields."""
    if isinstance(value, Tensor):
        return [value[i] for i in range(len(value))]
    return value if isinstance(value, list) else list(value)  # pyright: ignore[reportUnknownVariableType]


def format_value(value: Any, spec: str = "", unit: str = "") -> str:
    """Return the text of a value; ``spec`` is what follows the colon of ``{x:.4}``."""
    text = _format(value, spec.removesuffix("?").rstrip("#"))
    return f"{text} {unit}" if unit else text


def _format(value: Any, spec: str) -> str:
    if isinstance(value, NUMPY_SCALARS):
        # float32 has a shorter spelling than the same float64.
        value = str(value) if value.dtype == np.float32 and not spec else value.item()
    match value:
        case bool():
            return format(str(bool(value)).lower(), spec)
        case int():
            return format(int(value), spec.split(".")[0] if spec[-1:].isdigit() else spec)
        case float():
            if not spec:
                return str(value)
            return format(
                float(value), spec if spec[-1] in "eEgfF%" or "." not in spec else f"{spec}f"
            )
        case complex():
            return _complex(complex(value), spec)
        case str():
            return format(value, spec)
        case Tensor():
            array = value.numpy()
            return _format(array[()], spec) if array.ndim == 0 else _array(array, spec)
        case list() | tuple() | range():
            left, right = ("(", ")") if isinstance(value, tuple) else ("[", "]")
            inner: list[str] = [_format(item, spec) for item in value]  # pyright: ignore[reportUnknownVariableType]
            return left + ", ".join(inner) + right
        case Variant(_, variant, items):
            inner = [_format(item, spec) for item in items]
            return f"{variant}({', '.join(inner)})" if inner else variant
        case Struct(name, fields):
            parts = ", ".join(f"{key}: {_format(item, spec)}" for key, item in fields.items())
            return f"{name} {{ {parts} }}"
        case Arrays():
            parts = ", ".join(
                f"{key}: {item.dtype}{list(item.shape)}" for key, item in value.arrays.items()
            )
            return f"{{ {parts} }}"
        case FunctionValue():
            return f"<fn {getattr(value.target, 'name', 'closure')}>"
        case _:
            return str(value)


def _complex(value: complex, spec: str) -> str:
    real, imaginary = _format(value.real, spec), _format(value.imag, spec)
    sign = "" if imaginary.startswith(("-", "+")) else "+"
    return f"{real}{sign}{imaginary}i"


def _array(array: np.ndarray[Any, Any], spec: str) -> str:
    if not spec:
        return np.array2string(array, separator=", ")

    def shown(item: Any) -> str:
        return _format(item, spec)

    return np.array2string(array, separator=", ", formatter={"all": shown})
