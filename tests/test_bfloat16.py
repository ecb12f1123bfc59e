"""bfloat16: stored and moved as such, computed with as float32, rounded after every op."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import DTypeError, UnsupportedError
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.graph.text import parse, to_text
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.schedule import ContractionStep, Schedule
from tracejit.schedule.steps import KernelStep
from tracejit.tensor import wrap

BF16: Any = np.dtype(pytest.importorskip("ml_dtypes").bfloat16)
F4 = np.float32
ALL = np.arange(1 << 16, dtype=np.uint16).view(BF16)
SIZES = (0, 1, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 65)


def bits(x: Array) -> Array:
    """Return what must be equal: the bits, but any NaN as one."""
    if x.dtype != BF16:
        return x
    return np.where(np.isnan(x), np.uint16(0x7FC0), x.view(np.uint16))


def same(got: Array, wanted: Array) -> None:
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(bits(got), bits(wanted))


def compiled(f: Callable[..., Any], *values: Array) -> tuple[Array, Schedule]:
    """Run ``f`` in kernels alone, compare with the interpreter; return result and schedule.

    Products are for the caller to compare.
    """
    nodes = [placeholder(i, v.dtype, v.shape) for i, v in enumerate(values)]
    result: Node = f(*(wrap(n) for n in nodes)).node
    graph = Graph(nodes, [result])
    schedule = engine.plan_graph(graph, [layout_of(v) for v in values])
    assert all(isinstance(s, (KernelStep, ContractionStep)) for s in schedule.steps)
    (got,) = engine.compile_schedule(schedule, cpu.target()).run(values)
    if not any(node.op.name == "matmul" for node in graph.nodes):  # sums have an order of theirs
        (wanted,) = run_graph(graph, values)
        same(got, np.asarray(wanted))
    return got, schedule


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.standard_normal(shape).astype(BF16)


# -- casts -----------------------------------------------------------------------------------------


def test_every_bfloat16_widens(any_level: str) -> None:
    for dtype in ("float32", "float64", "bool"):
        got, _ = compiled(lambda x, d=dtype: x.astype(d), ALL)
        np.testing.assert_array_equal(got, ALL.astype(dtype))
    fits = ALL[np.abs(ALL.astype(np.float64)) < 2.0**31]
    got, _ = compiled(lambda x: x.astype("int32"), fits)
    np.testing.assert_array_equal(got, fits.astype(np.int32))


def test_floats_round_to_nearest_even(any_level: str) -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(0, 1 << 32, 40_000, np.uint32)
    # Ties and their neighbours, subnormals, the ends of the range, NaN with payloads.
    ties = (np.arange(1 << 16, dtype=np.uint32) << 16 | 0x8000)[:: 1 << 3]
    edges = np.array([0, 1, 0x7F7F8000, 0x7F7F7FFF, 0x7F800001, 0xFFFFFFFF, 0x80000001], np.uint32)
    x = np.concatenate([words, ties - 1, ties, ties + 1, edges]).view(F4)
    with np.errstate(all="ignore"):
        wanted = x.astype(BF16)
    got, _ = compiled(lambda x: x.astype(BF16), x)
    np.testing.assert_array_equal(got.view(np.uint16), wanted.view(np.uint16))


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float64"])
def test_other_numbers_go_through_float32(level: str, dtype: str) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal(1000) * 10 ** rng.integers(0, 9, 1000)).astype("int64")
    x = np.abs(x).astype(dtype) if dtype[0] == "u" else x.astype(dtype)
    got, _ = compiled(lambda x: x.astype(BF16), x)
    same(got, x.astype(F4).astype(BF16))


# -- movement and arithmetic -----------------------------------------------------------------------

MOVES: dict[str, Callable[[Any, Any], Any]] = {
    "slice": lambda x, y: x[1::2, ::-1],
    "transpose": lambda x, y: x.T,
    "reshape": lambda x, y: x.reshape(-1),
    "broadcast": lambda x, y: tj.broadcast_to(x[:, None], (x.shape[0], 3, x.shape[1])),
    "concat": lambda x, y: np.concatenate([x, y], axis=1),
    "pad": lambda x, y: tj.pad(x, 2, constant_values=1.5),
    "where": lambda x, y: np.where(x > y, x, y),
    "take": lambda x, y: tj.take(x, np.array([2, 0, -1]), axis=0),
    "flip": lambda x, y: tj.flip(x),
}


@pytest.mark.parametrize("name", MOVES)
def test_it_moves(any_level: str, name: str) -> None:
    rng = np.random.default_rng(3)
    for n in (9, 16, 33):
        x, y = normal(rng, (5, n)), normal(rng, (5, n))
        x[0, :3] = [np.nan, -0.0, np.inf]
        compiled(MOVES[name], x, y)
        compiled(MOVES[name], normal(rng, (n, 5)).T, normal(rng, (10, 2 * n))[::2, ::2])


OPS: dict[str, Callable[[Any, Any], Any]] = {
    "add": lambda x, y: x + y,
    "subtract": lambda x, y: x - y,
    "multiply": lambda x, y: x * y,
    "divide": lambda x, y: x / y,
    "maximum": lambda x, y: np.maximum(x, y),
    "negative": lambda x, y: -x,
    "absolute": lambda x, y: abs(x),
    "sqrt": lambda x, y: np.sqrt(abs(x)),
    "less": lambda x, y: x < y,
    "isnan": lambda x, y: np.isnan(x / y),
    "twice": lambda x, y: x * y + x,
}


@pytest.mark.parametrize("name", OPS)
def test_every_op_rounds_as_ml_dtypes(level: str, name: str) -> None:
    rng = np.random.default_rng(4)
    f = OPS[name]
    for n in SIZES:
        pairs = [(normal(rng, (n,)), normal(rng, (n,)))]
        pairs.append(tuple(rng.integers(0, 1 << 16, (2, n), np.uint16).view(BF16)))
        for x, y in pairs:
            with np.errstate(all="ignore"):
                got, wanted = compiled(f, x, y)[0], f(x, y)
            same(got, np.asarray(wanted))


def test_sums_are_taken_in_float32(level: str) -> None:
    x = np.full((3, 1000), 0.1, BF16)
    got, _ = compiled(lambda x: x.sum(axis=1), x)
    same(got, x.astype(F4).sum(axis=1).astype(BF16))
    # A sum in bfloat16 would stop growing at 32.
    assert got[0] > 90
    compiled(lambda x: x.mean(axis=0), x)
    compiled(lambda x: x.argmax(axis=1), x)


def test_promotion() -> None:
    x = tj.asarray([1.5, 2.5], dtype=BF16)
    assert tj.bfloat16 == BF16
    assert (x * 2).dtype == (2.5 - x).dtype == (x + True).dtype == BF16
    assert (x + np.ones(2, np.int8)).dtype == tj.result_type(BF16, 2.0) == BF16
    assert (x + np.ones(2, F4)).dtype == np.float32
    assert (x + np.ones(2)).dtype == np.float64
    # 0.1 is a bfloat16 before it is added.
    same((x + 0.1).numpy(), x.numpy() + BF16.type(0.1))
    with pytest.raises(DTypeError, match="no common dtype"):
        _ = x + np.arange(2)


def test_tensors_and_text() -> None:
    x = tj.asarray([[1.5, 2.5], [3.0, -4.0]], dtype="bfloat16")
    x[0] = 0.1
    x[1:] += 1
    same(x.numpy(), np.array([[0.1, 0.1], [4, -3]], BF16))
    assert x[1, 0].item() == 4.0
    assert "bfloat16" in repr(x)
    assert tj.finfo(BF16).bits == 16
    assert tj.isdtype(BF16, "real floating")
    nodes = [placeholder(0, BF16, (3,))]
    graph = Graph(nodes, [(wrap(nodes[0]) * 0.1).node])
    text = to_text(graph, locations=False)
    assert to_text(parse(text)) == text


def test_native_entries_take_it() -> None:
    rng = np.random.default_rng(5)
    x, y = normal(rng, (50,)), normal(rng, (50,))
    f = tj.jit(lambda x, y: x * y, compile="now")
    for _ in range(3):
        same(f(x, y), x * y)
    assert f.stats()["recompiles"] == 0
    same(f(x.astype(F4), y.astype(F4)), x.astype(F4) * y.astype(F4))
    same(f(x, y), x * y)


def test_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    with pytest.raises(UnsupportedError, match="ml_dtypes"):
        _ = tj.bfloat16
    with pytest.raises(UnsupportedError, match="not installed"):
        tj.zeros(3, dtype="bfloat16")


# -- products --------------------------------------------------------------------------------------


def wide(a: Any, b: Any) -> Any:
    return np.matmul(a, b, dtype=F4)


def check_product(a: Array, b: Array, kernels: int = 1) -> None:
    """Compare with float64: no product may be rounded, sums are float32's."""
    got, schedule = compiled(wide, a, b)
    assert len(schedule.steps) == kernels
    x, y = a.astype(np.float64), b.astype(np.float64)
    bound = 2.0**-23 * np.sqrt(a.shape[-1] + 1) * (np.abs(x) @ np.abs(y))
    assert got.dtype == np.float32
    assert (np.abs(got - x @ y) <= bound).all()
    narrow, schedule = compiled(lambda a, b: a @ b, a, b)
    assert len(schedule.steps) == kernels
    same(narrow, got.astype(BF16))


def test_products_of_every_size_and_layout(any_level: str) -> None:
    rng = np.random.default_rng(6)
    sizes = [(1, 1, 1), (3, 5, 7), (1, 40, 90), (40, 1, 90), (8, 8, 0), (8, 9, 31), (15, 17, 33)]
    for m, n, k in [
        *sizes,
        (16, 16, 32),
        (31, 33, 63),
        (33, 31, 65),
        (70, 95, 301),
        (2, 128, 130),
        (130, 3, 140),
    ]:
        check_product(normal(rng, (m, k)), normal(rng, (k, n)))
    a, b = normal(rng, (40, 130)), normal(rng, (130, 50))
    for x, y in itertools.product((a, np.asfortranarray(a)), (b, np.asfortranarray(b))):
        check_product(x, y)
    check_product(normal(rng, (80, 120))[::2, ::-3], normal(rng, (40, 68))[:, ::2])
    check_product(normal(rng, (3, 20, 40)), normal(rng, (40, 33)))


def test_a_deep_product(level: str) -> None:
    rng = np.random.default_rng(7)
    # It is split into shallower ones, whose sums a kernel adds up.
    check_product(normal(rng, (37, 5000)), normal(rng, (5000, 45)), 2)


def test_what_is_not_a_number_stays_in_its_row(level: str) -> None:
    rng = np.random.default_rng(8)
    a, b = normal(rng, (40, 35)), normal(rng, (35, 40))
    a[3, 34], a[17, 0], b[34, 33] = np.nan, np.inf, -np.inf
    got, _ = compiled(wide, a, b)
    wanted = a.astype(F4) @ b.astype(F4)
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    infinite = np.isinf(wanted)
    np.testing.assert_array_equal(got[infinite], wanted[infinite])


def test_bits_depend_neither_on_threads_nor_on_neighbours(level: str) -> None:
    rng = np.random.default_rng(9)
    a, b = normal(rng, (200, 1500)), normal(rng, (1500, 300))
    f = tj.jit(wide, compile="now")
    whole = f(a, b)
    with tj.num_threads(1):
        same(tj.jit(wide, compile="now")(a, b), whole)
    with_epilogue = tj.jit(lambda a, b: wide(a, b) * 2, compile="now")
    same(with_epilogue(a, b), whole * 2)


def test_a_layer_is_one_kernel(level: str) -> None:
    rng = np.random.default_rng(10)
    x, w, bias = normal(rng, (33, 64)), normal(rng, (64, 40)), normal(rng, (40,))
    got, schedule = compiled(lambda x, w, b: np.maximum(x @ w + b, 0), x, w, bias)
    assert len(schedule.steps) == 1
    product = (x.astype(F4) @ w.astype(F4)).astype(BF16)
    wanted = np.maximum(product + bias, BF16.type(0))
    assert np.mean(got == wanted) > 0.98  # sums in another order may round to a neighbour
