"""Cases of the ops that are not elementwise and not reductions: movement, products, indexing,
sorting, libraries, random numbers, neural networks. Importing this adds them to ``op_cases``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from op_cases import Attrs, Case, cases_for, generator, takes
from op_samples import DTYPES, EXACT, SIZES, Array, Tolerance, layouts, ordinary, varied

FLOATS = (np.dtype("float32"), np.dtype("float64"))
F32 = FLOATS[0]
SOME = tuple(np.dtype(n) for n in ("bool", "int16", "uint64", "float32", "float64", "complex128"))


def values(dtype: Any, *shape: int, seed: object = 0) -> Array:
    return ordinary(np.dtype(dtype), shape, generator(dtype, shape, seed))


def wild(dtype: Any, *shape: int) -> Array:
    size = math.prod(shape)
    return varied(np.dtype(dtype), size, generator(dtype, shape, "wild")).reshape(shape)


# -- leaves ----------------------------------------------------------------------------------------


@cases_for("constant")
def constant_cases(name: str) -> Iterator[Case]:
    for dtype, value in (
        ("<f4", -0.0),
        ("<f8", math.nan),
        ("<i8", -3),
        ("|b1", True),
        ("<c16", 2j),
    ):
        yield Case(name, (), {"value": value, "dtype": dtype})


@cases_for("iota")
def iota_cases(name: str) -> Iterator[Case]:
    for dtype in ("<i8", "<i4", "<f4"):
        for shape in ((0,), (1,), (33,), (4, 5), (2, 3, 4)):
            for axis in range(len(shape)):
                yield Case(name, (), {"shape": shape, "axis": axis, "dtype": dtype})


# -- movement --------------------------------------------------------------------------------------

Shapes = Sequence[tuple[int, ...]]
MOVEMENT: dict[str, Sequence[tuple[Shapes, Attrs]]] = {
    "reshape": [([(6, 8)], {"shape": s}) for s in ((48,), (8, 6), (2, 3, 1, 8), (6, 8))]
    + [([(0, 3)], {"shape": (3, 0)}), ([()], {"shape": (1, 1)}), ([(1,)], {"shape": ()})],
    "permute": [([(2, 3, 4)], {"axes": a}) for a in ((0, 1, 2), (2, 1, 0), (1, 2, 0))]
    + [([()], {"axes": ()}), ([(0, 5)], {"axes": (1, 0)})],
    "broadcast_to": [
        ([(3, 1)], {"shape": (2, 3, 4)}), ([()], {"shape": (5,)}), ([(7,)], {"shape": (7,)}),
        ([(1, 0)], {"shape": (4, 0)}),
    ],
    "slice": [
        ([(10,)], {"start": (2,), "size": (5,), "step": (1,)}),
        ([(10,)], {"start": (9,), "size": (10,), "step": (-1,)}),
        ([(10,)], {"start": (8,), "size": (5,), "step": (-2,)}),
        ([(6, 33)], {"start": (1, 3), "size": (2, 10), "step": (3, 3)}),
        ([(6, 33)], {"start": (5, 32), "size": (0, 3), "step": (1, -16)}),
        ([()], {"start": (), "size": (), "step": ()}),
    ],
    "update_slice": [
        ([(10,), (5,)], {"start": (2,), "size": (5,), "step": (1,)}),
        ([(10,), (5,)], {"start": (8,), "size": (5,), "step": (-2,)}),
        ([(6, 33), (2, 10)], {"start": (1, 3), "size": (2, 10), "step": (3, 3)}),
        ([(6, 3), (0, 3)], {"start": (0, 0), "size": (0, 3), "step": (1, 1)}),
    ],
    "concat": [
        ([(3,), (0,), (5,)], {"axis": 0}), ([(2, 3), (2, 4)], {"axis": 1}),
        ([(2, 3), (1, 3), (4, 3)], {"axis": 0}), ([(33,)], {"axis": 0}),
    ],
    "pad": [
        ([(5,), ()], {"low": (2,), "high": (3,)}), ([(4, 7), ()], {"low": (0, 1), "high": (1, 0)}),
        ([(0, 2), ()], {"low": (1, 0), "high": (1, 0)}), ([(3,), ()], {"low": (0,), "high": (0,)}),
    ],
    "flip": [([(4, 9)], {"axis": a}) for a in ((0,), (1,), (0, 1), ())]
    + [([(0,)], {"axis": (0,)})],
    "cycle": [
        ([shape], {"axis": axis, "start": start, "size": size})
        for shape, axis, start, size in (
            ((10,), 0, 3, 10), ((7,), 0, 5, 19), ((4, 9), 1, 8, 9), ((4, 9), 1, 8, 1),
            ((40, 3), 0, 1, 42), ((3, 5), 0, 0, 0),
        )
    ],
    "roll": [
        ([(10,)], {"shift": (3,), "axis": (0,)}), ([(10,)], {"shift": (-13,), "axis": (0,)}),
        ([(4, 9)], {"shift": (1, 2), "axis": (0, 1)}), ([(0,)], {"shift": (1,), "axis": (0,)}),
        ([(4, 9)], {"shift": (1, 5), "axis": (1, 1)}),
    ],
    "tile": [([(3,)], {"reps": (2,)}), ([(2, 3)], {"reps": (2, 1, 3)}), ([(2,)], {"reps": (0,)})],
    "repeat": [
        ([(5,)], {"repeats": 3, "axis": 0}), ([(2, 3)], {"repeats": 2, "axis": 1}),
        ([(2, 3)], {"repeats": 0, "axis": 0}),
    ],
    "stack": [([(3,), (3,)], {"axis": a}) for a in (0, 1)] + [([(2, 3)] * 3, {"axis": 1})],
    "tril": [([(4, 6)], {"k": k}) for k in (-5, -1, 0, 2, 7)] + [([(2, 3, 3)], {})],
    "triu": [([(4, 6)], {"k": k}) for k in (-5, -1, 0, 2, 7)] + [([(2, 3, 3)], {})],
    "diagonal": [([(4, 6)], {"offset": k}) for k in (-4, -1, 0, 3, 6)] + [([(2, 3, 3)], {})],
    "trace": [([(4, 6)], {"offset": k}) for k in (-4, -1, 0, 3, 6)] + [([(2, 3, 3)], {})],
    "diag": [([(5,)], {"k": k}) for k in (-2, 0, 3)] + [([(2, 3)], {}), ([(0,)], {"k": 1})],
}  # fmt: skip


@cases_for(*MOVEMENT)
def movement_cases(name: str) -> Iterator[Case]:
    for shapes, attrs in MOVEMENT[name]:
        for dtype in DTYPES:
            arrays = tuple(wild(dtype, *s) for s in shapes)
            if name == "trace":
                arrays = (values(dtype, *shapes[0]),)
            # A trace adds up to six moderate numbers; the rest only moves elements.
            inexact = name == "trace" and dtype.kind in "fc"
            yield Case(name, arrays, attrs, Tolerance(8, 8.0) if inexact else EXACT)
    if len(MOVEMENT[name][0][0]) > 1 or name in ("diagonal", "trace", "tril", "triu"):
        return
    for note, view in layouts(values(F32, 48)):
        if view.ndim == len(MOVEMENT[name][0][0][0]) and view.shape == MOVEMENT[name][0][0][0]:
            yield Case(name, (view,), MOVEMENT[name][0][1], note=note)


@cases_for("slice", "permute", "reshape")
def view_cases(name: str) -> Iterator[Case]:
    """Yield the usual cases and views of views: what an index map must compose with."""
    yield from movement_cases(name)
    base = values(F32, 48)
    for note, view in layouts(base):
        if name == "slice":
            size = tuple((n + 1) // 2 for n in view.shape)
            start = tuple(max(n - 1, 0) for n in view.shape)
            attrs: Attrs = {"start": start, "size": size, "step": (-2,) * view.ndim}
        elif name == "permute":
            attrs = {"axes": tuple(reversed(range(view.ndim)))}
        else:
            attrs = {"shape": (view.size, 1)}
        yield Case(name, (view,), attrs, note=note)


@cases_for("pad_mode")
def pad_mode_cases(name: str) -> Iterator[Case]:
    for mode in ("maximum", "minimum"):
        for dtype in (np.dtype("int32"), F32):
            attrs = {"low": (2, 0), "high": (1, 3), "mode": mode}
            yield Case(name, (values(dtype, 4, 5),), attrs)


@cases_for("extend")
def extend_cases(name: str) -> Iterator[Case]:
    for mode in ("edge", "reflect", "symmetric", "wrap"):
        for dtype in (np.dtype("int32"), F32, np.dtype(bool)):
            for shape in ((4, 5), (1, 2), (33, 70)):
                for low, high in (((2, 0), (1, 3)), ((1, 9), (11, 4)), ((0, 0), (0, 1))):
                    attrs = {"low": low, "high": high, "mode": mode}
                    yield Case(name, (values(dtype, *shape),), attrs)


# -- contractions ----------------------------------------------------------------------------------


def product_tolerance(dtype: Any, terms: int) -> Tolerance:
    return Tolerance(8 + terms / 16, 4.0 * terms) if np.dtype(dtype).kind in "fc" else EXACT


@cases_for("matmul")
def matmul_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        full = dtype.kind == "f"
        for n in SIZES[:-1] if full else (0, 1, 9, 17):
            for m, k, p in ((n, 5, 7), (3, n, 9), (8, 4, n), (n, n, n)):
                arrays = (values(dtype, m, k, seed=1), values(dtype, k, p, seed=2))
                yield Case(name, arrays, {}, product_tolerance(dtype, k))
        batched = (values(dtype, 3, 1, 5, 4), values(dtype, 2, 4, 6))
        yield Case(name, batched, {}, product_tolerance(dtype, 4), "batched")
    for dtype in FLOATS:
        square = values(dtype, 65, 70), values(dtype, 70, 67)
        yield Case(name, square, {}, product_tolerance(dtype, 70))
        for note, view in layouts(values(dtype, 48)):
            if view.ndim == 2:
                other = values(dtype, view.shape[1], 5)
                yield Case(name, (view, other), {}, product_tolerance(dtype, 8), note)
                yield Case(name, (other.T, view.T), {}, product_tolerance(dtype, 8), note)


PRODUCTS: dict[str, Sequence[tuple[Shapes, Attrs]]] = {
    "tensordot": [
        ([(3, 4), (4, 5)], {"axes_a": (1,), "axes_b": (0,)}),
        ([(3, 4, 2), (4, 3, 5)], {"axes_a": (0, 1), "axes_b": (1, 0)}),
        ([(3,), (2, 2)], {"axes_a": (), "axes_b": ()}),
        ([(3, 4), (3, 4)], {"axes_a": (0, 1), "axes_b": (0, 1)}),
        ([(3, 0), (0, 2)], {"axes_a": (1,), "axes_b": (0,)}),
    ],
    "outer": [([(3,), (4,)], {}), ([(2, 2), (3,)], {}), ([(0,), (3,)], {}), ([(), (3,)], {})],
    "vecdot": [([(4,), (4,)], {}), ([(3, 4), (4,)], {}), ([(2, 1, 5), (3, 5)], {})],
    "kron": [([(2, 3), (4, 2)], {}), ([(3,), (2, 2)], {}), ([(), (3,)], {})],
    "cross": [([(3,), (3,)], {}), ([(4, 3), (3,)], {}), ([(2, 1, 3), (5, 3)], {})],
    "matrix_power": [([(3, 3)], {"n": n}) for n in (0, 1, 2, 3, 7)] + [([(2, 3, 3)], {"n": 2})],
    "einsum": [
        ([(3, 4), (4, 5)], {"subscripts": "ij,jk->ik"}),
        ([(3, 4), (4, 5)], {"subscripts": "ij,jk"}),
        ([(2, 3, 4), (2, 4, 5), (5, 6)], {"subscripts": "bij,bjk,kl->bil"}),
        ([(4, 4)], {"subscripts": "ii->i"}),
        ([(4, 4)], {"subscripts": "ii"}),
        ([(3, 3, 3)], {"subscripts": "iii->"}),
        ([(2, 3, 4)], {"subscripts": "...ij->...ji"}),
        ([(2, 3, 4)], {"subscripts": "ijk->j"}),
        ([(3,), (4,)], {"subscripts": "i,j->ji"}),
        ([(3, 4), (3, 4)], {"subscripts": "ij,ij->"}),
        ([(5, 3), (2, 5, 4)], {"subscripts": "...a,...b->...ab"}),
        ([(3, 1), (4,)], {"subscripts": "ij,j->i"}),
        ([(2, 3), (3, 4), (4, 5), (5, 2)], {"subscripts": "ab,bc,cd,da->"}),
        ([(3, 3), (3,)], {"subscripts": "ii,i->i"}),
        ([(2, 5, 3), (2, 7, 3)], {"subscripts": "bik,bjk->bij"}),
        ([(0, 4), (4, 5)], {"subscripts": "ij,jk->ik"}),
        ([(3, 0), (0, 5)], {"subscripts": "ij,jk->ik"}),
    ],
}


@cases_for(*PRODUCTS)
def product_cases(name: str) -> Iterator[Case]:
    for shapes, attrs in PRODUCTS[name]:
        for dtype in DTYPES:
            if takes(name, *[dtype] * len(shapes)):
                arrays = tuple(values(dtype, *s, seed=i) for i, s in enumerate(shapes))
                scale = 5000.0 if name == "matrix_power" else 200.0
                inexact = dtype.kind in "fc" or name == "matrix_power"
                yield Case(name, arrays, attrs, Tolerance(16, scale) if inexact else EXACT)


# -- indexing --------------------------------------------------------------------------------------


def _indices(limit: int, *shape: int, dtype: Any = np.int64, seed: object = 0) -> Array:
    dtype = np.dtype(dtype)
    low = 0 if dtype.kind == "u" else -limit
    return generator("index", shape, limit, seed).integers(low, limit, shape).astype(dtype)


@cases_for("take")
def take_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for index in ("int64", "int8", "uint64"):
            for shape, axis, wanted in (((9,), 0, (4,)), ((5, 7), 1, (2, 3)), ((5, 7), 0, ())):
                where = _indices(shape[axis], *wanted, dtype=index)
                yield Case(name, (wild(dtype, *shape), where), {"axis": axis})
    yield Case(name, (values(F32, 3, 0), _indices(3, 33)), {"axis": 0})
    yield Case(name, (values(F32, 4), _indices(4, 0)), {"axis": 0})


@cases_for("take_along_axis", "put_along_axis")
def along_cases(name: str) -> Iterator[Case]:
    for dtype in SOME:
        for shape, axis, count in (((9,), 0, 5), ((4, 6), 1, 8), ((4, 6), 0, 2)):
            wanted = tuple(count if i == axis else n for i, n in enumerate(shape))
            where = _indices(shape[axis], *wanted)
            arrays = (wild(dtype, *shape), where)
            if name == "put_along_axis":
                arrays = (*arrays, values(dtype, *wanted))
            yield Case(name, arrays, {"axis": axis})


@cases_for("advanced_index", "advanced_update", "advanced_combine")
def advanced_cases(name: str) -> Iterator[Case]:
    shape = (4, 5, 6)
    patterns: list[tuple[tuple[int, ...], list[tuple[int, ...]]]] = [
        ((0,), [(3,)]), ((1,), [(2, 2)]), ((0, 1), [(3,), (3,)]), ((1, 2), [(2, 1), (3,)]),
        ((0, 2), [(3,), ()]), ((0, 1, 2), [(7,), (7,), (7,)]), ((2,), [()]), ((1,), [(0,)]),
    ]  # fmt: skip
    for dtype in SOME:
        for axes, shapes in patterns:
            where = tuple(
                _indices(shape[a], *s, seed=(axes, a)) for a, s in zip(axes, shapes, strict=True)
            )
            x = values(dtype, *shape)
            if name == "advanced_index":
                yield Case(name, (x, *where), {"axes": axes})
                continue
            key: list[Any] = [slice(None)] * 3
            for a, index in zip(axes, where, strict=True):
                key[a] = index
            target = x[tuple(key)].shape
            value = values(dtype, *target, seed=1)
            ops: Sequence[dict[str, Any]] = [{}]
            if name == "advanced_combine":
                ops = [{"op": op} for op in ("add", "multiply", "maximum", "minimum")]
            for attrs in ops:
                attrs = {"axes": axes, **attrs}
                yield Case(name, (x, value, *where), attrs)
                yield Case(name, (x, values(dtype), *where), attrs, note="0-d value")


@cases_for("bincount")
def bincount_cases(name: str) -> Iterator[Case]:
    for n in SIZES:
        yield Case(name, (_indices(10, n, dtype="uint8"),), {"length": 12})


@cases_for("view_as_real", "view_as_complex")
def parts_cases(name: str) -> Iterator[Case]:
    dtypes = ("complex64", "complex128") if name == "view_as_real" else ("float32", "float64")
    for dtype in dtypes:
        for shape in ((2,), (0, 2), (7, 2), (3, 5, 2)):
            x = values(dtype, *shape)
            yield Case(name, (x,))
            yield Case(name, (np.asfortranarray(x),), note="strided")


@cases_for("one_hot")
def one_hot_cases(name: str) -> Iterator[Case]:
    for dtype in ("int8", "int64", "uint32"):
        for shape in ((0,), (7,), (3, 4), ()):
            yield Case(name, (_indices(6, *shape, dtype=dtype),), {"depth": 5})


# -- sorting ---------------------------------------------------------------------------------------


def _sort_values(dtype: np.dtype[Any], *shape: int) -> Array:
    """Return values with ties, NaN and infinities."""
    return np.where(
        generator(shape).random(shape) < 0.5, wild(dtype, *shape), values(dtype, *shape)
    )


@cases_for("sort", "argsort", "topk_indices")
def sort_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for n in SIZES if dtype.name in ("int32", "float32") else (0, 1, 33):
            for shape, axis in (((n,), 0), ((n, 3), 0), ((3, n), 1)):
                for flag in (False, True):
                    attrs: Attrs = {"axis": axis, "descending": flag}
                    if name.startswith("topk"):
                        attrs = {"axis": axis, "k": min(n, 5), "largest": flag}
                    yield Case(name, (_sort_values(dtype, *shape),), attrs)


@cases_for("partition", "argpartition")
def partition_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, axis in (((1,), 0), ((33,), 0), ((3, 9), 1)):
            for kth in ((0,), (shape[axis] // 2, shape[axis] - 1)):
                yield Case(name, (_sort_values(dtype, *shape),), {"axis": axis, "kth": kth})


@cases_for("searchsorted")
def search_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for n in (0, 1, 8, 33):
            table = np.sort(_sort_values(dtype, n))
            for side in ("left", "right"):
                yield Case(name, (table, _sort_values(dtype, 4, 5)), {"side": side})


@cases_for("lexsort")
def lexsort_cases(name: str) -> Iterator[Case]:
    for shape in ((0,), (17,), (3, 8)):
        keys = (values("int32", *shape), values("float32", *shape))
        yield Case(name, keys, {"axis": len(shape) - 1})


@cases_for("interp")
def interp_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        points = np.sort(values(dtype, 9))
        yield Case(name, (wild(dtype, 33), points, values(dtype, 9, seed=1)))


@cases_for("diff")
def diff_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, axis in (((0,), 0), ((1,), 0), ((33,), 0), ((4, 9), 0), ((4, 9), 1)):
            for n in (0, 1, 3):
                yield Case(name, (values(dtype, *shape),), {"axis": axis, "n": n})


# -- libraries -------------------------------------------------------------------------------------


@cases_for("inv", "det", "slogdet_sign", "slogdet_log", "cholesky", "eigvalsh", "eigvecsh",
           "eigvals", "eigvecs")  # fmt: skip
def square_matrix_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in ((3, 3), (1, 1), (2, 4, 4), (0, 0)):
            if dtype.kind in "biu":  # a product would leave the range of the small ones
                x = np.broadcast_to(4 * np.eye(shape[-1]) + (dtype.kind != "b"), shape)
            else:
                factor = values(dtype, *shape)
                x = factor @ np.conj(np.swapaxes(factor, -1, -2)) + 9 * np.eye(shape[-1])
            yield Case(name, (x.astype(dtype),), {}, Tolerance(256, 1e4))


@cases_for("pinv", "qr_q", "qr_r", "svd_u", "svd_s", "svd_vh", "matrix_rank")
def matrix_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in ((3, 3), (4, 2), (2, 3, 5)):
            yield Case(name, (values(dtype, *shape),), {}, Tolerance(256, 100.0))


@cases_for("solve", "lstsq")
def solve_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        a = values(dtype, 4, 4) + 5 * np.eye(4, dtype=dtype)
        yield Case(name, (a, values(dtype, 4, 2)), {}, Tolerance(256, 10.0))


@cases_for("matrix_norm")
def matrix_norm_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        for order in (1, -1, 2, -2, math.inf, -math.inf, "fro", "nuc"):
            yield Case(name, (values(dtype, 2, 3, 4),), {"ord": order}, Tolerance(64, 10.0))


@cases_for("fft", "ifft", "rfft", "irfft")
def fft_cases(name: str) -> Iterator[Case]:
    for dtype in DTYPES:
        if not takes(name, dtype):
            continue
        for shape, axis in (((8,), 0), ((3, 15), 1), ((15, 2), 0)):
            for n in (shape[axis], 5, 20):
                for norm in ("backward", "ortho", "forward"):
                    attrs = {"axis": axis, "n": n, "norm": norm}
                    yield Case(name, (values(dtype, *shape),), attrs, Tolerance(64, 50.0))


# -- random ----------------------------------------------------------------------------------------


@cases_for("random_uniform", "random_normal", "random_exponential", "random_integers",
           "random_bernoulli", "random_permutation")  # fmt: skip
def random_cases(name: str) -> Iterator[Case]:
    extra: Attrs = {
        "random_uniform": {"low": -2.0, "high": 3.0},
        "random_integers": {"low": -5, "high": 9},
        "random_bernoulli": {"p": 0.3},
    }.get(name, {})
    integers = name in ("random_integers", "random_permutation")
    for dtype in ("<i8", "|i1") if integers else ("<f4", "<f8"):
        for shape in ((0,), (33,)) if name == "random_permutation" else ((), (0,), (33,), (3, 4)):
            yield Case(name, (), {"seed": 7, "shape": shape, "dtype": dtype, **extra})


# -- neural networks -------------------------------------------------------------------------------


@cases_for("softmax", "log_softmax")
def softmax_cases(name: str) -> Iterator[Case]:
    tolerance = Tolerance(16, 16.0 if name == "log_softmax" else 0.0)
    for dtype in DTYPES:
        if not takes(name, dtype):
            continue
        for n in SIZES if dtype.kind == "f" else (0, 1, 33):
            for shape, axis in (((n,), 0), ((n, 3), 0), ((4, n), 1)):
                yield Case(name, (values(dtype, *shape),), {"axis": axis}, tolerance)
    for dtype in FLOATS:
        x = values(dtype, 5, 17) * 100
        x[0, 3], x[1, 3], x[2, :], x[3, 0] = np.inf, np.nan, -np.inf, -np.inf
        yield Case(name, (x,), {"axis": 1}, Tolerance(16, 1000.0), "special values")
        for note, view in layouts(values(dtype, 48)):
            if view.ndim:
                yield Case(name, (view,), {"axis": view.ndim - 1}, tolerance, note)


@cases_for("standardize", "normalize", "layer_norm", "rms_norm")
def norm_cases(name: str) -> Iterator[Case]:
    parameters = {"layer_norm": 2, "rms_norm": 1}.get(name, 0)
    for dtype in FLOATS:
        for n in SIZES:
            extra = tuple(values(dtype, n, seed=i) for i in range(parameters))
            attrs = {"axis": (1,), "eps": 1e-5}
            yield Case(name, (values(dtype, 3, n) * 3 + 1, *extra), attrs, Tolerance(64, 4.0))
        both = {"axis": (1, 2), "eps": 1e-5}
        extra = tuple(values(dtype, 5, 8, seed=i) for i in range(parameters))
        yield Case(name, (values(dtype, 3, 5, 8), *extra), both, Tolerance(64, 4.0))


@cases_for("batch_norm")
def batch_norm_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        mean, w, b = (values(dtype, 3, 1, seed=i) for i in range(3))
        arrays = (values(dtype, 4, 3, 9), mean, np.abs(w) + 1, w, b)
        yield Case(name, arrays, {"eps": 1e-5}, Tolerance(16, 4.0))


@cases_for("mse_loss", "l1_loss", "huber_loss", "bce_with_logits", "kl_div")
def loss_cases(name: str) -> Iterator[Case]:
    for dtype in (np.dtype("int32"), *FLOATS):
        for shape in ((33,), (4, 9), ()):
            for reduction in ("none", "sum", "mean"):
                x, y = values(dtype, *shape), np.asarray(abs(values(dtype, *shape, seed=1)))
                tolerance = Tolerance(32, 16.0)
                yield Case(name, (x, y), {"reduction": reduction}, tolerance)


@cases_for("cross_entropy")
def entropy_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape, axis in (((8, 5), 1), ((33, 10), 1), ((2, 4, 7), 1), ((5,), 0)):
            lead = tuple(n for i, n in enumerate(shape) if i != axis)
            target = np.asarray(_indices(shape[axis], *lead) % shape[axis])
            for reduction in ("none", "sum", "mean"):
                attrs = {"axis": axis, "reduction": reduction}
                yield Case(name, (values(dtype, *shape), target), attrs, Tolerance(32, 16.0))


@cases_for("linear")
def linear_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        for lead in ((4,), (2, 3), ()):
            arrays = (values(dtype, *lead, 9), values(dtype, 7, 9, seed=1))
            yield Case(name, arrays, {}, product_tolerance(dtype, 9))
            biased = (*arrays, values(dtype, 7))
            yield Case(name, biased, {}, product_tolerance(dtype, 9))


@cases_for("attention")
def attention_cases(name: str) -> Iterator[Case]:
    for dtype in FLOATS:
        for lead, length, keys in (((), 4, 6), ((2, 3), 9, 9), ((2,), 33, 17)):
            q = values(dtype, *lead, length, 8)
            k, v = (values(dtype, *lead, keys, 8, seed=i) for i in (1, 2))
            for causal in (False, True):
                attrs = {"scale": 8**-0.5, "causal": causal}
                yield Case(name, (q, k, v), attrs, Tolerance(64, 4.0))
            added = values(dtype, length, keys, seed=3)
            attrs = {"scale": 0.5}
            yield Case(name, (q, k, v, added), attrs, Tolerance(64, 4.0), "added mask")
            yield Case(name, (q, k, v, added > -1), attrs, Tolerance(64, 4.0), "bool mask")


@cases_for("cdist", "cosine_similarity")
def pair_cases(name: str) -> Iterator[Case]:
    attrs: Attrs = {"eps": 1e-8} if name == "cosine_similarity" else {}
    for dtype in FLOATS:
        for left, right in (((5, 3), (5, 3)), ((2, 4, 9), (4, 9)), ((1, 33), (1, 33))):
            arrays = (values(dtype, *left), values(dtype, *right, seed=1))
            yield Case(name, arrays, attrs, Tolerance(32, 8.0))


@cases_for("average")
def average_cases(name: str) -> Iterator[Case]:
    for dtype in SOME:
        x, w = values(dtype, 4, 33), np.ones((4, 33), dtype)
        for axis in ((0,), (1,), (0, 1)):
            yield Case(name, (x, w), {"axis": axis, "keepdims": False}, Tolerance(32, 8.0))
