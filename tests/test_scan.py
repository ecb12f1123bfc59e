"""Scans: running sums, products and extrema, along rows and down columns, in one call or many."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from op_samples import Array, layouts, mismatch, ordinary, specials

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.runtime import cpu, demand, engine, threads
from tracejit.runtime.calls import NativeCall
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.kernel import SCAN_BLOCK, Kernel
from tracejit.schedule.scan import CHAIN_BYTES
from tracejit.schedule.schedule import KernelStep, Schedule
from tracejit.schedule.text import schedule_text

E = Emit()
OPS = ("cumsum", "cumprod", "cummax", "cummin")
DTYPES = ("bool", "int8", "uint16", "int32", "uint64", "float32", "float64")
SIZES = (0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 130, 1000, SCAN_BLOCK + 5)


def scan_graph(name: str, dtype: object, shape: tuple[int, ...], axis: int) -> Graph:
    x = placeholder(0, np.dtype(dtype), shape)  # type: ignore[call-overload]
    return Graph([x], [getattr(E, name)(x, axis=axis)])


def compiled(graph: Graph, *arrays: Array) -> Array:
    layouts = [demand.layout_of(a) for a in arrays]
    return engine.compile_graph(graph, layouts).run(arrays)[0]


def check(name: str, x: Array, axis: int) -> None:
    """The compiled scan of ``x`` is NumPy's: in bits, but for the rounding of floats."""
    graph = scan_graph(name, x.dtype, x.shape, axis)
    got, want = compiled(graph, x), run_graph(graph, [x])[0]
    where = f"{name} {x.dtype} {x.shape} along {axis}"
    if x.dtype.kind != "f" or name in ("cummax", "cummin"):
        problem = mismatch(got, want)
        assert problem is None, f"{where}: {problem}"
        return
    assert got.dtype == want.dtype
    finite = np.where(np.isfinite(x), x, 0)
    magnitude = np.abs(finite).max(initial=1.0) if name == "cumsum" else 0.0
    slack = np.finfo(x.dtype).eps * x.shape[axis]
    np.testing.assert_allclose(got, want, rtol=2 * slack, atol=slack * magnitude, err_msg=where)


def values(name: str, dtype: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if name == "cumprod" and np.dtype(dtype).kind == "f":
        return np.asarray(rng.uniform(0.9, 1.1, shape) * rng.choice([-1, 1], shape), dtype)
    return ordinary(np.dtype(dtype), shape, rng)


# -- every instruction set -------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", OPS)
def test_rows_and_columns_of_every_size(name: str, dtype: str, any_level: str) -> None:
    rng = np.random.default_rng(5)
    for n in SIZES:
        check(name, values(name, dtype, (n,), rng), 0)
        check(name, values(name, dtype, (3, n), rng), 1)
        check(name, values(name, dtype, (n, 37), rng), 0)
        check(name, values(name, dtype, (2, n, 3), rng), 1)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_special_values_spread_as_in_numpy(name: str, dtype: str, any_level: str) -> None:
    rng = np.random.default_rng(6)
    for special in (np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0):
        for place in (0, 1, 5, 16, 32, 69):
            row = values(name, dtype, (70,), rng)
            row[place] = special
            check(name, row, 0)
            check(name, np.repeat(row[:, None], 3, 1), 0)


@pytest.mark.parametrize("name", ["cummax", "cummin"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint64", "float64", "int64"])
def test_extrema_of_extreme_values(name: str, dtype: str, level: str) -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        check(name, rng.permutation(specials(np.dtype(dtype))), 0)


def test_extrema_keep_the_first_of_equal_zeros(level: str) -> None:
    row = np.array([-0.0, 0.0, -0.0] * 9, "f4")
    for name in ("cummax", "cummin"):
        for x in (row, row[1:]):
            got = compiled(scan_graph(name, "f4", x.shape, 0), x)
            assert (np.signbit(got) == np.signbit(x[0])).all()


def test_a_sum_of_negative_zeros_is_negative_zero(level: str) -> None:
    for n in (1, 3, 8, 40):
        got = compiled(scan_graph("cumsum", "f8", (n,), 0), np.full(n, -0.0))
        assert np.signbit(got).all()


def test_products_do_not_leave_the_range_on_the_way(any_level: str) -> None:
    """Multiplied pair by pair, each of these rows has ∞ × 0 or loses all to underflow."""
    rows = ([0, 1, 1e30, 1e30], [1e30, 1, 1e-30, 1e-30], [1e-30, 1, 1e30, 1e30])
    for row in rows:
        x = np.tile(np.array([*row, 1, 1, 1, 1], "f4"), 8)[:40]
        check("cumprod", x, 0)
        check("cumprod", np.array(row, "f4"), 0)


@pytest.mark.parametrize("name", OPS)
def test_layouts(name: str, level: str) -> None:
    base = values(name, "float32", (48,), np.random.default_rng(8))
    for _, view in layouts(base):
        if view.flags.aligned:
            for axis in range(view.ndim):
                check(name, view, axis)


def test_scans_of_views(level: str) -> None:
    x = placeholder(0, np.dtype("f4"), (40, 50))
    array = np.random.default_rng(9).standard_normal((40, 50)).astype("f4")
    backwards = E.slice(x, start=(39, 49), size=(40, 25), step=(-1, -2))
    for node in (E.permute(x, axes=(1, 0)), backwards, E.broadcast_to(x, shape=(3, 40, 50))):
        for axis in range(len(node.shape)):
            graph = Graph([x], [E.cumsum(node, axis=axis)])
            want = run_graph(graph, [array])[0]
            np.testing.assert_allclose(compiled(graph, array), want, rtol=1e-4, atol=1e-4)


# -- numerics --------------------------------------------------------------------------------------


def _worst(got: Array, x: Array) -> float:
    exact = np.cumsum(x.astype(np.longdouble))
    return float(np.abs(got - exact).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_sums_are_at_least_as_accurate_as_numpys(dtype: str, any_level: str) -> None:
    rng = np.random.default_rng(10)
    n = 200_000
    wide = rng.standard_normal(n) * 10.0 ** rng.uniform(-8, 8, n)
    cancelling = np.concatenate([wide[: n // 2], -wide[: n // 2][::-1]])
    samples = (rng.random(n), rng.standard_normal(n), np.full(n, 0.1), wide, cancelling)
    for sample in samples:
        x = sample.astype(dtype)
        got = compiled(scan_graph("cumsum", dtype, x.shape, 0), x)
        assert _worst(got, x) <= 1.05 * _worst(np.cumsum(x), x)


def test_running_sums_of_weights_never_decrease(any_level: str) -> None:
    rng = np.random.default_rng(11)
    for scale in (1.0, 1e-4):
        x = np.where(rng.random(100_000) < 0.1, rng.random(100_000), scale * rng.random(100_000))
        got = compiled(scan_graph("cumsum", "f4", x.shape, 0), x.astype("f4"))
        assert (np.diff(got) >= 0).all()


@pytest.mark.parametrize("name", ["cumsum", "cummax"])
def test_a_prefix_has_the_same_bits(name: str, level: str) -> None:
    x = np.random.default_rng(12).standard_normal(3 * SCAN_BLOCK).astype("f4")
    whole = compiled(scan_graph(name, "f4", x.shape, 0), x)
    for n in (1, 9, 31, 100, SCAN_BLOCK - 1, SCAN_BLOCK, SCAN_BLOCK + 1, 2 * SCAN_BLOCK + 17):
        prefix = compiled(scan_graph(name, "f4", (n,), 0), x[:n])
        assert prefix.tobytes() == whole[:n].tobytes()


# -- chunks ----------------------------------------------------------------------------------------


def long_kernel(graph: Graph) -> Kernel:
    (kernel,) = engine.plan_graph(graph, [None]).kernels
    assert kernel.chain is not None
    return kernel


def chunk_runner(
    calls: Sequence[NativeCall], kernel: Kernel, x: Array
) -> tuple[Array, Callable[[int, int], None]]:
    """Reset the kernel's chain by its first call; return its result and what runs a chunk."""
    result = np.full(x.shape, 77, kernel.scans[0].dtype)
    memory = {0: x, 1: result, 2: np.full(CHAIN_BYTES, 77, np.uint8)}
    pointers = np.array([memory[b].ctypes.data + o for b, o in calls[0].pointers], np.int64)
    signature = ctypes.CFUNCTYPE(None, *[ctypes.c_size_t] * 2, *[ctypes.c_int64] * 2)
    reset, scan = (signature(call.code.address) for call in calls)
    reset(pointers.ctypes.data, calls[0].sizes.ctypes.data, 0, 1)

    def run(begin: int, end: int) -> None:
        scan(pointers.ctypes.data, calls[1].sizes.ctypes.data, begin, end)

    return result, run


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("cumsum", "float32"), ("cumsum", "float64"), ("cumsum", "int16"), ("cumprod", "int32"),
     ("cummax", "float32"), ("cummin", "uint8"), ("cummax", "bool")],
)  # fmt: skip
@pytest.mark.parametrize(
    "shape", [(16 * SCAN_BLOCK - 3,), (2, 9 * SCAN_BLOCK), (9 * SCAN_BLOCK, 3)]
)
def test_any_chunks_give_the_same_bits(
    name: str, dtype: str, shape: tuple[int, ...], any_level: str
) -> None:
    axis = int(np.argmax(shape))
    x = ordinary(np.dtype(dtype), shape, np.random.default_rng(13))
    graph = scan_graph(name, dtype, shape, axis)
    kernel = long_kernel(graph)
    (code,) = engine.compile_graph(graph, [None]).codes[:1]
    calls = engine._kernel_calls(kernel, cpu.target(), lambda key, emit: code)
    count = kernel.trip_count
    want = compiled(graph, x).tobytes()
    for cut in ([0, count], range(count + 1), [0, 1, 4, count - 1, count]):
        result, run = chunk_runner(calls, kernel, x)
        for begin, end in reversed(list(pairwise(cut))):
            run(begin, end)
        assert result.tobytes() == want
    # Threads that find no running value yet, and wait.
    with ThreadPoolExecutor(3) as pool:
        for _ in range(5):
            result, run = chunk_runner(calls, kernel, x)
            list(pool.map(run, range(count), range(1, count + 1)))
            assert result.tobytes() == want


def test_threads_do_not_change_bits() -> None:
    rng = np.random.default_rng(14)
    for x in (rng.standard_normal(1_000_003), rng.standard_normal((200_000, 5))):
        graph = scan_graph("cumsum", "f4", x.shape, 0)
        executable = engine.compile_graph(graph, [None])
        results: set[bytes] = set()
        for count in (1, *[2] * 10):
            with threads.num_threads(count):
                results.add(executable.run([x.astype("f4")])[0].tobytes())
        assert len(results) == 1


# -- fusion ----------------------------------------------------------------------------------------


def scheduled(arguments: list[Node], *outputs: Node) -> Schedule:
    return engine.plan_graph(Graph(arguments, outputs), [None] * len(arguments))


def test_the_operand_is_computed_in_the_scans_kernel() -> None:
    x, y = (placeholder(i, np.dtype("f4"), (30, 200)) for i in range(2))
    mean = E.divide(E.sum(x, axis=(1,), keepdims=True), 200.0)
    for value in (E.multiply(x, y), E.exp(E.subtract(x, mean))):
        for axis in (0, 1):
            graph = Graph([x, y], [E.cumsum(value, axis=axis)])
            rng = np.random.default_rng(15)
            arrays = [rng.standard_normal((30, 200)).astype("f4") for _ in range(2)]
            want = run_graph(graph, arrays)[0]
            np.testing.assert_allclose(compiled(graph, *arrays), want, rtol=1e-4, atol=1e-4)
    assert len(scheduled([x, y], E.cumsum(E.multiply(x, y), axis=1)).steps) == 1
    assert len(scheduled([x], E.cumsum(E.subtract(x, mean), axis=1)).steps) == 1


def test_what_a_long_scan_would_compute_twice_is_stored() -> None:
    x = placeholder(0, np.dtype("f4"), (1_000_000,))
    total = E.sum(x, axis=(0,), keepdims=True)
    for value, fused in ((E.multiply(x, 2.0), True), (E.exp(x), False), (E.divide(x, total), None)):
        steps = scheduled([x], E.cumsum(value, axis=0)).steps
        last = steps[-1]
        assert isinstance(last, KernelStep)
        assert last.kernel.chain is not None
        assert fused is None or (len(steps) == 1) == fused


def test_a_stored_operand_and_several_scans() -> None:
    x = placeholder(0, np.dtype("f8"), (20, 90))
    y = E.multiply(x, x)
    outputs = [y, E.cumsum(y, axis=1), E.cummax(E.cumsum(y, axis=0), axis=1)]
    graph = Graph([x], [*outputs, E.sum(outputs[1], axis=(0,), keepdims=False)])
    array = np.random.default_rng(16).standard_normal((20, 90))
    got = engine.compile_graph(graph, [None]).run([array])
    for value, want in zip(got, run_graph(graph, [array]), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-12)


def test_prints() -> None:
    x = placeholder(0, np.dtype("f4"), (4, 8))
    assert "cumsum(b0[8*i + j], j)" in schedule_text(scheduled([x], E.cumsum(x, axis=1)))
