"""Signatures: what of an argument decides whether a compiled form fits it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard, cast

import numpy as np

from tracejit.errors import ArgumentError, DTypeError
from tracejit.frontend.trees import Spec
from tracejit.ops.dtypes import is_bfloat16
from tracejit.ops.table import Array, DType, Shape
from tracejit.tensor import Tensor, value_of

# (structure of the arguments with static values, a part for each leaf, settings, what is outside)
Key = tuple[Any, ...]

# Subclasses of ndarray that are arrays like any other; the rest change what the operators mean.
_ARRAY_TYPES = (np.ndarray, np.memmap)
# Types of NumPy scalars that tracejit computes with; the type alone decides their dtype.
NUMPY_SCALARS = frozenset(np.dtype(char).type for char in "?bhilqBHILQefdFD")


class ArrayKey(tuple[DType, Shape, Shape | None]):
    """dtype, shape, and strides in elements: None where C-contiguous, or where a copy is made."""

    __slots__ = ()

    @property
    def layout(self) -> Shape | None:
        return self[2]


def is_array(value: Any) -> TypeGuard[Array]:
    """True for ndarrays and their subclasses."""
    return isinstance(value, np.ndarray)


def has_floats(leaves: Sequence[Any]) -> bool:
    """True where a leaf is a Python float or complex number."""
    return any(type(leaf) in (float, complex) for leaf in leaves)


def leaf_key(leaf: Any, function: str) -> Any:
    """Return the part of the signature that ``leaf`` decides.

    Raises DTypeError or ArgumentError for arrays that tracejit does not take.
    """
    if isinstance(leaf, Tensor):
        leaf = value_of(leaf, f"an argument of {function}")
    if isinstance(leaf, Spec):
        check_dtype(leaf.dtype, function)
        return ArrayKey((leaf.dtype, leaf.shape, None))
    if isinstance(leaf, np.generic):
        return ("scalar", check_dtype(cast(Any, leaf).dtype, function))
    if is_array(leaf):
        if type(leaf) not in _ARRAY_TYPES:
            kind = type(leaf).__name__
            raise ArgumentError(
                f"{function} got a {kind}, whose operators differ from an array's",
                hint="pass np.asarray(x)",
            )
        return array_key(leaf, function)
    return complex if isinstance(leaf, complex) else float


def array_key(array: Array, function: str) -> ArrayKey:
    """Return dtype (native), shape and layout of ``array``."""
    dtype = check_dtype(array.dtype, function)
    return ArrayKey((dtype, array.shape, layout_of(array)))


def check_dtype(dtype: DType, function: str) -> DType:
    """Return the native form of ``dtype``; raises DTypeError for one that is not numeric."""
    if is_bfloat16(dtype):
        return dtype
    if dtype.kind not in "biufc" or dtype.char in "gG":
        raise DTypeError(
            f"{function} got an array of {dtype}; tracejit computes with bool, integers, "
            "bfloat16, float16/32/64 and complex64/128",
            hint="convert it, for example x.astype('float64')",
        )
    return dtype if dtype.isnative else dtype.newbyteorder("=")


def layout_of(array: Array) -> Shape | None:
    """Return the strides in elements, None for C-contiguous arrays and those to be copied."""
    if array.flags.c_contiguous or not runs_in_place(array):
        return None
    itemsize = array.itemsize
    return tuple(
        s // itemsize if n > 1 else 0 for s, n in zip(array.strides, array.shape, strict=False)
    )


def runs_in_place(array: Array) -> bool:
    """True where kernels can read the array's own memory: native, aligned, whole strides."""
    return (
        array.dtype.isnative
        and array.flags.aligned
        and all(s % array.itemsize == 0 for s in array.strides)
    )


def signature_text(keys: Sequence[Any]) -> str:
    """Return leaf keys as a reader wants them: ``float32[3, 4], float``."""
    parts: list[str] = []
    for key in keys:
        if isinstance(key, ArrayKey):
            strided = "" if key.layout is None else " strided"
            parts.append(f"{key[0]}[{', '.join(map(str, key[1]))}]{strided}")
        else:
            parts.append(key.__name__ if isinstance(key, type) else str(key[1]))
    return ", ".join(parts)


def without_sizes(key: Key) -> Key:
    """Return a signature without the sizes and strides of its arrays."""
    tree, leaves, *others = key
    kinds = tuple(
        (part[0], len(part[1])) if isinstance(part, ArrayKey) else part for part in leaves
    )
    return tree, kinds, *others
