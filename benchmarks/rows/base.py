"""What a row of the benchmarks is: a workload, written once for each implementation.

A row is a subclass of ``Row``; defining it registers it. Its methods are static:

- ``data(rng)`` makes the arguments, the same ones in every process;
- ``numpy(*arguments)`` is the NumPy program. ``tj.jit`` takes it as it is, and in float64 it is
  the reference that every implementation is checked against;
- ``jax``, ``torch``, ``numba`` and ``numexpr`` get the library and return a function of the same
  arguments, written as the library's users write it. One that has no natural form there is left
  out. ``torch`` serves both eager and compiled PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

import numpy as np

Array = np.ndarray[Any, Any]
Function = Callable[..., Any]
# The row "warm_up" is in no table: workers compile it before the others.
Group = Literal["table", "kernels", "matmul", "conv", "memory", "hidden"]
WARM_UP = "warm_up"

ROWS: dict[str, type[Row]] = {}

# Arithmetic operations that the elementary functions count for in ``flops``: about what their
# polynomials take on vectors. They place a row in the roofline chart; no ratio depends on them.
EXP, LOG, TANH, SIN, ERF, SQRT, DIVIDE = 16, 20, 24, 20, 30, 1, 1


class Row:
    """One workload.

    ``bytes`` is the memory that any implementation must move (arguments once, results once) and
    ``flops`` the arithmetic that the formula asks for. ``kernel`` names the program in kernels/
    that computes the same. Results are right within ``rtol`` and ``atol`` of the float64
    reference, but for the share ``differing`` of the elements: where rounding decides a branch,
    a right program may take the other one.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    group: ClassVar[Group] = "table"
    dtype: ClassVar[Literal["f32", "f64"]] = "f32"
    bytes: ClassVar[int] = 0
    flops: ClassVar[float] = 0
    memory_bound: ClassVar[bool] = False
    kernel: ClassVar[str | None] = None
    rtol: ClassVar[float] = 1e-4
    atol: ClassVar[float] = 1e-5
    differing: ClassVar[float] = 0.0

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if cls.name:
            if cls.name in ROWS:
                raise ValueError(f"two rows are called {cls.name}")
            ROWS[cls.name] = cls

    @staticmethod
    def data(rng: np.random.Generator) -> tuple[Any, ...]:
        raise TypeError("a row defines data")

    @staticmethod
    def numpy(*arguments: Any) -> Any:
        raise TypeError("a row defines numpy")

    @classmethod
    def tracejit(cls, tj: Any) -> Function:
        """Return the function to jit: the NumPy program itself, unless SciPy's functions are in."""
        return cls.numpy

    @classmethod
    def neuralscript(cls, tj: Any) -> Function | None:
        """Return the kernel from kernels/, None where there is none."""
        return None if cls.kernel is None else getattr(tj.kernels, cls.kernel)

    jax: ClassVar[Callable[[Any], Function] | None] = None
    torch: ClassVar[Callable[[Any], Function] | None] = None
    numba: ClassVar[Callable[[Any], Function] | None] = None
    numexpr: ClassVar[Callable[[Any], Function] | None] = None


def arguments_of(row: type[Row], double: bool = False) -> tuple[Any, ...]:
    """Return the row's arguments; its floating-point arrays in float64 if ``double``."""
    made = row.data(np.random.default_rng(0))
    if not double:
        return made
    return tuple(
        a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype.kind in "fV" else a
        for a in made
    )


def reference(row: type[Row]) -> list[Array]:
    """Return the results of the NumPy program in float64."""
    return leaves(row.numpy(*arguments_of(row, double=True)))


def leaves(result: Any) -> list[Array]:
    """Return a result, or a tuple of results, as a list of arrays."""
    parts = result if isinstance(result, tuple | list) else (result,)
    return [np.asarray(part) for part in parts]


def check(row: type[Row], results: list[Array], expected: list[Array]) -> str | None:
    """Return what is wrong with the results, None if they are right."""
    if len(results) != len(expected):
        return f"{len(results)} results instead of {len(expected)}"
    for result, wanted in zip(results, expected, strict=True):
        if result.shape != wanted.shape:
            return f"shape {result.shape} instead of {wanted.shape}"
        close = np.isclose(
            result.astype(np.float64), wanted, rtol=row.rtol, atol=row.atol, equal_nan=True
        )
        if wanted.size and 1 - close.mean() > row.differing:
            far = np.abs(result.astype(np.float64) - wanted)
            return f"{1 - close.mean():.2%} of the values differ, by up to {far.max():.3g}"
    return None
