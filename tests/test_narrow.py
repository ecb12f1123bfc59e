"""Products of narrow integers with sums of 32 bits: exact, wrapping as NumPy's, on every level."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from test_epilogue import TINY_CACHES

import tracejit as tj
from tracejit.codegen.target import AMX, LEVELS, Target
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine
from tracejit.runtime.demand import layout_of
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.schedule import ContractionStep, Schedule
from tracejit.tensor import wrap

PAIRS = [("i1", "i1"), ("u1", "i1"), ("i1", "u1"), ("u1", "u1"), ("i2", "i2")]
SIZES = [
    (1, 1, 1), (3, 5, 7), (16, 32, 64), (1, 40, 9), (40, 1, 9), (8, 8, 0), (70, 95, 301),
    (2, 128, 130), (130, 3, 140),
]  # fmt: skip


def extreme(rng: np.random.Generator, shape: tuple[int, ...], dtype: str) -> Array:
    """Return numbers of the whole range, many of them its ends."""
    info = np.iinfo(dtype)
    values = rng.integers(info.min, info.max, shape, dtype, endpoint=True)
    ends = rng.choice(np.array([info.min, info.max], dtype), shape)
    return np.where(rng.random(shape) < 0.5, values, ends)


def targets() -> list[Target]:
    """Return the level in force, and what it is where the processor has fewer instructions."""
    full = cpu.target()
    found = [full]
    if full.tiles:
        found.append(LEVELS[full.name].extended(full.flags - {*AMX}))
    if full.dot == "bytes":
        found.append(LEVELS[full.name])
    return [target.with_caches(*TINY_CACHES) for target in found]


def check(f: Callable[..., Any], *values: Array) -> Schedule:
    """Compile ``f`` for every target, compare with the interpreter; return the schedule."""
    nodes = [placeholder(i, v.dtype, v.shape) for i, v in enumerate(values)]
    result: Node = f(*(wrap(n) for n in nodes)).node
    graph = Graph(nodes, [result])
    (wanted,) = run_graph(graph, values)
    schedule = engine.plan_graph(graph, [layout_of(v) for v in values])
    for target in targets():
        executable = engine.compile_schedule(schedule, target)
        (got,) = executable.run(values)
        assert got.dtype == wanted.dtype
        np.testing.assert_array_equal(got, wanted)
    return schedule


def alone(schedule: Schedule) -> bool:
    """Whether the schedule is one product."""
    return [type(step) for step in schedule.steps] == [ContractionStep]


def product(a: Any, b: Any) -> Any:
    return np.matmul(a, b, dtype=np.int32)


@pytest.mark.parametrize("pair", PAIRS, ids="x".join)
def test_every_size_and_layout(any_level: str, pair: tuple[str, str]) -> None:
    rng = np.random.default_rng(1)
    for m, n, k in SIZES:
        a, b = extreme(rng, (m, k), pair[0]), extreme(rng, (k, n), pair[1])
        assert alone(check(product, a, b))
    # The last size spans several blocks.
    for x, y in itertools.product((a, np.asfortranarray(a)), (b, np.asfortranarray(b))):
        assert alone(check(product, x, y))
    spread = extreme(rng, (40, 60), pair[0])[::2, ::-3]
    assert alone(check(product, spread, extreme(rng, (20, 34), pair[1])[:, ::2]))


def test_sums_wrap_as_numpys_do(any_level: str) -> None:
    # 2^17 products of 2^14 reach 2^31.
    a, b = np.full((3, 1 << 17), -128, np.int8), np.full((1 << 17, 2), -128, np.int8)
    assert alone(check(product, a, b))
    assert (product(a, b) == np.iinfo(np.int32).min).all()
    a, b = np.full((2, 6), -(2**15), np.int16), np.full((6, 3), -(2**15), np.int16)
    assert alone(check(product, a, b))


def test_batches_and_casts_as_they_are_written(level: str) -> None:
    rng = np.random.default_rng(2)

    def widened(a: Any, b: Any) -> Any:
        return a.astype(np.int32) @ b.astype(np.int32).swapaxes(-1, -2)

    for first, second in [((4,), (4,)), ((3, 1), (2,)), ((5,), ()), ((), (5,))]:
        a, b = extreme(rng, (*first, 7, 19), "i1"), extreme(rng, (*second, 9, 19), "i1")
        assert alone(check(widened, a, b))
    # Half of it narrow: nothing is assumed of the other half.
    a, b = extreme(rng, (9, 20), "i1"), extreme(rng, (20, 33), "i4")
    check(lambda a, b: a.astype(np.int32) @ b, a, b)
    check(lambda a, b: a.astype(np.int32) @ b.astype(np.int32), a, extreme(rng, (20, 33), "u2"))


def test_dequantising_is_the_epilogue_of_the_product(level: str) -> None:
    rng = np.random.default_rng(3)
    a, b = extreme(rng, (37, 50), "u1"), extreme(rng, (50, 41), "i1")
    scale, bias = rng.random(41, np.float32), rng.random(41, np.float32)

    def layer(a: Any, b: Any, scale: Any, bias: Any) -> Any:
        return np.maximum(product(a, b).astype(np.float32) * scale + bias, 0)

    def again(*values: Any) -> Any:
        return np.clip(np.rint(layer(*values)), -128, 127).astype(np.int8)

    assert alone(check(layer, a, b, scale, bias))
    assert alone(check(again, a, b, scale, bias))


def test_quantised_operands_stay_narrow(level: str) -> None:
    """What is rounded to bytes is stored as bytes, and widened where it is packed."""
    rng = np.random.default_rng(4)
    x, w = rng.standard_normal((40, 64), np.float32), extreme(rng, (64, 48), "i1")

    def layer(x: Any, w: Any) -> Any:
        scale = np.abs(x).max(axis=1, keepdims=True) / 127
        return product(np.rint(x / scale).astype(np.int8), w).astype(np.float32) * scale

    schedule = check(layer, x, w)
    (operand,) = (b for b in schedule.buffers if b.kind == "temp" and b.shape == (40, 64))
    assert operand.dtype == np.int8
    assert isinstance(schedule.steps[-1], ContractionStep)


def test_as_users_write_it(level: str) -> None:
    rng = np.random.default_rng(5)
    a, b = extreme(rng, (30, 70), "i1"), extreme(rng, (70, 20), "i1")
    wanted = a.astype(np.int32) @ b.astype(np.int32)
    np.testing.assert_array_equal(tj.jit(product, compile="now")(a, b), wanted)
    np.testing.assert_array_equal(tj.matmul(a, b, dtype=np.int32), wanted)
    np.testing.assert_array_equal(tj.asarray(a).matmul(tj.asarray(b), dtype="int32"), wanted)
    # NumPy's own sum of bytes is a byte.
    np.testing.assert_array_equal(tj.matmul(a, b), a @ b)
