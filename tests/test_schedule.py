"""Fusion, schedule and arena: what shares a kernel, what compiles once, how many bytes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from work import calls_of

from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.ops.table import Array
from tracejit.runtime import engine, service
from tracejit.runtime.interpreter import run_graph
from tracejit.schedule.arena import Life, Room, lodge, plan
from tracejit.schedule.kernel import Kernel
from tracejit.schedule.product import left_access
from tracejit.schedule.schedule import ContractionStep, KernelStep, OpaqueStep, Schedule
from tracejit.schedule.text import schedule_text

E = Emit()
F32 = np.dtype(np.float32)


def inputs(*shapes: tuple[int, ...]) -> list[Node]:
    return [placeholder(i, F32, shape) for i, shape in enumerate(shapes)]


def scheduled(arguments: list[Node], *outputs: Node) -> Schedule:
    return engine.plan_graph(Graph(arguments, outputs), [None] * len(arguments))


def kernels(schedule: Schedule) -> list[Kernel]:
    assert all(isinstance(s, KernelStep) for s in schedule.steps), schedule
    return schedule.kernels


def check_values(arguments: list[Node], *outputs: Node) -> None:
    """The compiled values are the interpreter's."""
    rng = np.random.default_rng(1)
    graph = Graph(arguments, outputs)
    arrays: list[Array] = [rng.standard_normal(n.shape).astype(n.dtype) for n in arguments]
    got = engine.compile_graph(graph, [None] * len(arrays)).run(arrays)
    for value, want in zip(got, run_graph(graph, arrays), strict=True):
        np.testing.assert_allclose(value, want, rtol=1e-4, atol=1e-5)


def mean(x: Node, axis: int) -> Node:
    return E.divide(E.sum(x, axis=(axis,), keepdims=True), float(x.shape[axis]))


def softmax(x: Node, axis: int) -> Node:
    weight = E.exp(E.subtract(x, E.max(x, axis=(axis,), keepdims=True)))
    return E.divide(weight, E.sum(weight, axis=(axis,), keepdims=True))


def normalise(x: Node, axis: int) -> Node:
    centred = E.subtract(x, mean(x, axis))
    variance = mean(E.multiply(centred, centred), axis)
    return E.divide(centred, E.sqrt(E.add(variance, 1e-5)))


# -- fusion ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("function", [softmax, normalise])
def test_row_functions_are_one_kernel(function: Callable[[Node, int], Node], axis: int) -> None:
    (x,) = inputs((300, 200))
    (kernel,) = kernels(scheduled([x], function(x, axis)))
    assert len(kernel.parallel) == 1
    assert scheduled([x], function(x, axis)).arena.nbytes == 0
    check_values([x], function(x, axis))


def test_elementwise_chain_is_one_loop_over_elements() -> None:
    x, y = inputs((30, 40), (30, 40))
    out = E.multiply(E.add(x, y), E.tanh(E.subtract(x, 1.0)))
    (kernel,) = kernels(scheduled([x, y], out))
    assert kernel.extents == (1200,)


def test_exponential_of_a_row_is_computed_once() -> None:
    (x,) = inputs((100, 64))
    (kernel,) = kernels(scheduled([x], softmax(x, 1)))
    saved = [s for nest in kernel.block.nests for s in nest.saves]
    reused = [s for nest in kernel.block.nests for s in nest.reuses]
    assert len(saved) == len(reused) == 1
    assert kernel.scratch == 64 * 4


def test_several_outputs_share_a_kernel() -> None:
    (x,) = inputs((50, 60))
    y = E.exp(x)
    z = E.multiply(y, E.sin(y))
    (kernel,) = kernels(scheduled([x], z, y))
    assert len(kernel.stores) == 2
    check_values([x], z, y)


def test_stencil_from_slices_reads_the_input_only() -> None:
    (x,) = inputs((100, 100))
    window = {"size": (98, 98), "step": (1, 1)}
    parts = [E.slice(x, start=s, **window) for s in ((0, 1), (2, 1), (1, 0), (1, 2))]
    total = parts[0]
    for part in parts[1:]:
        total = E.add(total, part)
    (kernel,) = kernels(scheduled([x], E.multiply(total, 0.25)))
    assert {a.buffer for a in kernel.accesses} == {0, 1}
    assert len(kernel.accesses) == 5
    check_values([x], E.multiply(total, 0.25))


def test_broadcast_differences_are_never_stored() -> None:
    points, centres = inputs((200, 16), (30, 16))
    difference = E.subtract(
        E.reshape(points, shape=(200, 1, 16)), E.reshape(centres, shape=(1, 30, 16))
    )
    distance = E.sum(E.multiply(difference, difference), axis=(2,), keepdims=False)
    nearest = E.argmin(distance, axis=(1,), keepdims=False)
    schedule = scheduled([points, centres], nearest)
    assert len(kernels(schedule)) == 1
    assert schedule.arena.nbytes == 0
    check_values([points, centres], nearest)


def test_chained_stencils_stay_linear() -> None:
    """Sweeps are not inlined into each other, and one kernel serves all of them."""

    def sweeps(count: int) -> Schedule:
        (x,) = inputs((64, 64))
        for _ in range(count):
            window = {"size": (62, 62), "step": (1, 1)}
            inner = E.add(E.slice(x, start=(0, 1), **window), E.slice(x, start=(2, 1), **window))
            region = {"start": (1, 1), **window}
            x = E.update_slice(x, E.multiply(inner, 0.5), **region)
        return scheduled([_root(x)], x)

    few, many = sweeps(5), sweeps(50)
    assert len(many.steps) == 10 * len(few.steps)
    assert sum(len(k.exprs) for k in many.kernels) <= 11 * sum(len(k.exprs) for k in few.kernels)
    assert len({k.key for k in many.kernels}) == len({k.key for k in few.kernels})


def _root(node: Node) -> Node:
    while node.inputs:
        node = node.inputs[0]
    return node


def test_two_different_reductions_of_a_row_share_the_pass() -> None:
    (x,) = inputs((80, 90))
    spread = E.subtract(E.max(x, axis=(1,), keepdims=False), E.min(x, axis=(1,), keepdims=False))
    (kernel,) = kernels(scheduled([x], spread))
    assert [len(nest.reduces) for nest in kernel.block.nests] == [2]


@pytest.mark.parametrize("op", ["sum", "max", "any"])
@pytest.mark.parametrize("axis", [0, 1])
def test_what_a_total_needs_of_a_row_is_computed_once_a_row(level: str, op: str, axis: int) -> None:
    (x,) = inputs((6, 37))
    shares = E.divide(x, E.max(E.absolute(x), axis=(axis,), keepdims=True))
    total = getattr(E, op)(shares, axis=(0, 1), keepdims=False)
    (kernel,) = kernels(scheduled([x], total))
    (rows,) = kernel.block.nests
    assert len(rows.axes) == 1
    assert [len(nest.axes) for nest in rows.body.nests] == [1, 1]
    check_values([x], total)


def test_reductions_that_no_order_of_loops_serves_are_stored() -> None:
    (x,) = inputs((64, 256))
    rows, columns = (E.max(x, axis=(a,), keepdims=True) for a in (1, 0))
    total = E.sum(E.subtract(E.subtract(x, rows), columns), axis=(0, 1), keepdims=False)
    highest = E.argmax(E.subtract(x, rows), axis=(0, 1), keepdims=False)
    for result, count in ((total, 2), (highest, 2)):
        found = kernels(scheduled([x], result))
        assert len(found) == count
        check_values([x], result)


def test_opaque_ops_stand_between_kernels() -> None:
    (x,) = inputs((40, 50))
    out = E.add(E.sort(E.multiply(x, 2.0), axis=1), 1.0)
    kinds = [type(s) for s in scheduled([x], out).steps]
    assert kinds == [KernelStep, OpaqueStep, KernelStep]
    check_values([x], out)


def test_matrix_product_reads_transposed_operands_in_place() -> None:
    a, b = inputs((40, 30), (40, 20))
    out = E.matmul(E.permute(a, axes=(1, 0)), b)
    (step,) = scheduled([a, b], out).steps
    assert isinstance(step, ContractionStep)
    left = left_access(step.kernel)
    assert (left.buffer, left.strides) == (0, (1, 0, 30))


# -- one compilation for equal kernels -------------------------------------------------------------


def test_equal_kernels_compile_once() -> None:
    (x,) = inputs((64, 64))
    for scale in (1.5, 2.5, 3.5):
        x = E.matmul(E.tanh(E.multiply(x, scale)), x)
    before = service.compiles()
    engine.compile_graph(Graph([_input_of(x)], [x]), [None])
    assert service.compiles() - before <= 3  # a loop, a product with an epilogue, a product


def _input_of(node: Node) -> Node:
    return next(n for n in Graph((), [node]).nodes if n.op.name == "input")


def test_a_second_size_compiles_nothing() -> None:
    def run(rows: int, columns: int) -> None:
        (x,) = inputs((rows, columns))
        engine.compile_graph(Graph([x], [softmax(E.multiply(x, 0.3), 1)]), [None])

    run(10, 20)
    before = service.compiles()
    run(300, 70)
    run(17, 1000)
    assert service.compiles() == before


# -- the arena -------------------------------------------------------------------------------------


def _overlaps(lives: list[Life], offsets: list[int]) -> bool:
    for i, (a, x) in enumerate(zip(lives, offsets, strict=True)):
        for b, y in list(zip(lives, offsets, strict=True))[:i]:
            together = a.first <= b.last and b.first <= a.last
            if together and x < y + b.nbytes and y < x + a.nbytes:
                return True
    return False


@pytest.mark.parametrize("count", [0, 1, 7, 60, 700])
def test_arena_places_live_buffers_apart_and_near_the_bound(count: int) -> None:
    rng = np.random.default_rng(count)
    lives: list[Life] = []
    for step in range(count):
        nbytes = int(rng.choice([64, 640, 6400])) * int(rng.integers(1, 20))
        lives.append(Life(nbytes, step, step + int(rng.integers(1, 6))))
    result = plan(lives)
    assert not _overlaps(lives, result.offsets)
    assert all(o % 64 == 0 for o in result.offsets)
    # Random lives are harder than a program's; those are bounded by 5 % below.
    assert result.nbytes <= 1.35 * result.largest_live + 64


@pytest.mark.parametrize("depth", [3, 40])
def test_arena_of_programs_is_within_5_percent_of_the_largest_live_set(depth: int) -> None:
    (x,) = inputs((64, 64))
    y = x
    for step in range(depth):
        y = E.matmul(softmax(E.add(y, float(step)), 1), E.tanh(E.subtract(y, x)))
    schedule = scheduled([x], y)
    assert schedule.arena.largest_live > 0
    assert schedule.arena.nbytes <= 1.05 * schedule.arena.largest_live
    assert schedule.arena.nbytes < schedule.intermediates
    check_values([x], y)


@pytest.mark.parametrize("count", [1, 9, 300])
def test_values_leave_the_memory_of_a_result_before_it_is_written(count: int) -> None:
    rng = np.random.default_rng(count)
    lives = [
        Life(64 * int(rng.integers(1, 20)), step, step + int(rng.integers(1, 6)))
        for step in range(count)
    ]
    rooms = [Room(640, count // 2), Room(1280, count), Room(32, count)]
    found = lodge(lives, rooms)
    assert found or count == 1
    for number, room in found.items():
        assert lives[number].last < rooms[room].until
        assert lives[number].nbytes <= rooms[room].nbytes
        for other, its in found.items():
            if other != number and its == room:
                together = lives[other].first <= lives[number].last
                assert not (together and lives[number].first <= lives[other].last)


def sweeps(u: Node, count: int) -> Node:
    """Products one after the other: each is read to compute the next."""
    for step in range(count):
        u = E.matmul(u, E.add(u, float(step)))
        u = E.divide(u, E.max(u, axis=(0, 1), keepdims=True))
    return u


@pytest.mark.parametrize("count", [2, 3, 6])
def test_a_chain_takes_turns_between_the_arena_and_its_result(count: int) -> None:
    (x,) = inputs((64, 64))
    y = sweeps(x, count)
    schedule = scheduled([x], y)
    (result,) = [i for i, b in enumerate(schedule.buffers) if b.kind == "output"]
    temps = [b for b in schedule.buffers if b.kind == "temp" and b.shape == (64, 64)]
    assert any(b.host == result for b in temps)
    assert any(b.host is None for b in temps)
    assert f" in b{result}" in schedule_text(schedule)
    check_values([x], y)


def test_values_that_numpy_reads_stay_out_of_results() -> None:
    (x,) = inputs((40, 40))
    y = E.matmul(E.sort(E.matmul(sweeps(x, 2), x), axis=1), x)
    schedule = scheduled([x], y)
    opaque = [step for step in schedule.steps if isinstance(step, OpaqueStep)]
    assert opaque
    read = {view.buffer for step in opaque for view in step.operands}
    assert all(schedule.buffers[number].host is None for number in read)
    assert any(b.host is not None for b in schedule.buffers)
    check_values([x], y)


# -- scale -----------------------------------------------------------------------------------------


def test_long_programs_schedule_without_recursion_in_linear_time() -> None:
    def build(count: int) -> tuple[Schedule, int]:
        (x,) = inputs((8,))
        y = x
        for step in range(count // 2):
            y = E.add(E.multiply(y, x), 0.25 + step)
        made: list[Schedule] = []
        calls = calls_of(lambda: made.append(scheduled([x], y)))
        return made[0], calls

    _, short = build(2_000)
    schedule, long = build(20_000)
    assert len({k.key for k in schedule.kernels}) < 20
    assert long <= 12 * short  # linear would be 10; quadratic 100


def test_schedule_prints_its_loops() -> None:
    (x,) = inputs((4, 8))
    text = schedule_text(scheduled([x], softmax(x, 1)))
    assert "kernel 0: max subtract exp sum divide" in text
    assert "(parallel)" in text
    assert "(vector)" in text
