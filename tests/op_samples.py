"""Sample operands for op tests: values that break kernels, memory layouts, and how to compare."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 1000)  # around every vector width
INTEGERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
DTYPES = tuple(np.dtype(n) for n in ("bool", *INTEGERS, "float32", "float64", "complex128"))


def specials(dtype: np.dtype[Any]) -> Array:
    """Return the values that most often go wrong."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        near = [v for v in (0, 1, 2, 3, 7, -1, -2, -5) if v >= info.min]
        return np.array([*near, info.min, info.max, info.max - 1, info.max // 2], dtype)
    if dtype.kind == "c":
        part = specials(np.dtype("float32" if dtype.itemsize == 8 else "float64"))[:8]
        values = np.empty((len(part), len(part)), dtype)
        values.real, values.imag = part[:, None], part  # a + 1j·b would make NaN of ∞
        return values.ravel()
    info = np.finfo(dtype)
    tiny, least = float(info.tiny), float(info.smallest_subnormal)
    listed = [0.0, 1.0, np.inf, np.nan, 0.5, 2.0, np.pi, float(info.eps), least, tiny, 3 * least,
              float(info.max), 1e-3, 1e4, 88.0, 1.5, 2.5, 1 + float(info.eps)]  # fmt: skip
    return np.array([s * v for v in listed for s in (1, -1)], dtype)


def ordinary(dtype: np.dtype[Any], shape: Any, rng: np.random.Generator) -> Array:
    """Return moderate values: what sums and products of many can bear."""
    if dtype.kind == "b":
        return np.asarray(rng.random(shape) < 0.5)
    if dtype.kind in "iu":
        low = 0 if dtype.kind == "u" else -9
        return np.asarray(rng.integers(low, 10, shape), dtype)
    values = rng.standard_normal(shape)
    if dtype.kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return np.asarray(values).astype(dtype)


def varied(dtype: np.dtype[Any], n: int, rng: np.random.Generator) -> Array:
    """Return ``n`` values: special, moderate, and spread over the whole range of exponents."""
    special = rng.permutation(specials(dtype))
    moderate = ordinary(dtype, n, rng)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        wide = rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)
    elif dtype.kind == "f":
        top = 30 if dtype.itemsize == 4 else 250
        wide = (rng.standard_normal(n) * 10 ** rng.uniform(-top, top, n)).astype(dtype)
    else:
        wide = moderate
    result = np.where(rng.random(n) < 0.5, moderate, wide)
    # Every special value occurs where there is room, at changing lanes.
    places = rng.permutation(n)[: len(special)]
    result[places] = special[: len(places)]
    return result


# -- layouts ---------------------------------------------------------------------------------------


def unaligned(x: Array) -> Array:
    """Return a copy of ``x`` whose address is one byte off its alignment."""
    buffer = np.zeros(x.nbytes + 1, np.uint8)
    view = buffer[1:].view(x.dtype).reshape(x.shape)
    view[...] = x
    return view


def layouts(x: Array) -> Iterator[tuple[str, Array]]:
    """Yield ``x`` (48 elements) under other layouts: same or fewer values, same dtype."""
    doubled = np.repeat(x, 2)
    yield "strided", doubled[::2]
    yield "reversed", x[::-1]
    yield "unaligned", unaligned(x)
    yield "matrix", x.reshape(6, 8)
    yield "transposed", x.reshape(6, 8).T
    yield "inner", np.repeat(x.reshape(6, 8), 2, axis=1)[:, 1::2]
    yield "broadcast", np.broadcast_to(x[:8], (6, 8))
    yield "zero-d", x[:1].reshape(())
    yield "empty", x[:0].reshape(0, 3)


# -- comparison ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Tolerance:
    """How far a result may be off: ``ulp`` units in the last place of max(|want|, scale).

    With ``ulp`` 0 bits must be equal, up to the payload of NaN, and up to the sign of zeros
    unless ``signed_zero``.
    """

    ulp: float = 0.0
    scale: float = 0.0
    signed_zero: bool = False


EXACT = Tolerance()
EXACT_SIGNED = Tolerance(signed_zero=True)


def _parts(x: Array) -> Array:
    if x.dtype.kind != "c":
        return x
    return np.stack([x.real, x.imag], -1)


def mismatch(got: Array, want: Array, tolerance: Tolerance = EXACT) -> str | None:
    """Return what differs, or None: dtype, shape, then the first wrong element."""
    if got.dtype != want.dtype or got.shape != want.shape:
        return f"{got.dtype}{got.shape} instead of {want.dtype}{want.shape}"
    if want.dtype.kind in "biu":
        wrong = got != want
    else:
        with np.errstate(all="ignore"):
            wrong = _float_mismatch(got, want, tolerance)
    if not np.any(wrong):
        return None
    index = tuple(int(i[0]) for i in np.nonzero(np.atleast_1d(wrong)))
    where = np.atleast_1d(got)[index], np.atleast_1d(want)[index]
    return f"{where[0]!r} instead of {where[1]!r} at {index} ({np.sum(wrong)} of {want.size} wrong)"


def _float_mismatch(got: Array, want: Array, tolerance: Tolerance) -> Array:
    g, w = _parts(got), _parts(want)
    # A complex number is compared as a whole: its small part may be off by an ULP of the large.
    magnitude = np.abs(w)
    if want.dtype.kind == "c":
        finite = np.where(np.isfinite(magnitude), magnitude, 0)
        magnitude = np.broadcast_to(finite.max(-1, keepdims=True), w.shape)
    limit = np.finfo(w.dtype).max
    scale = np.minimum(np.fmax(magnitude, w.dtype.type(tolerance.scale)), limit / 2)
    allowed = tolerance.ulp * np.spacing(scale.astype(w.dtype)).astype(np.float64)
    # Infinities count as the number beyond the largest, so rounding may reach or miss them.
    clipped = [np.clip(v.astype(np.float64), -limit, limit) for v in (g, w)]
    near = np.abs(clipped[0] - clipped[1]) <= allowed
    if tolerance.ulp == 0:
        near = g == w
    equal = near | (np.isnan(g) & np.isnan(w))
    if tolerance.signed_zero:
        equal &= (w != 0) | (g != 0) | (np.signbit(g) == np.signbit(w))
    wrong = ~equal
    return np.asarray(wrong.any(-1) if want.dtype.kind == "c" else wrong)
