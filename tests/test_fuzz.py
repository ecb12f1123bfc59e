"""Random programs: the compiled answer is the interpreter's, on every instruction set.

A program is a list of small integers that a fixed grammar turns into a graph, so hypothesis can
shrink it. `make fuzz` runs many more programs than the tests do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np
import pytest
from conftest import EMULATED, NATIVE
from hypothesis import example, given, settings
from hypothesis import strategies as st
from op_samples import mismatch

from tracejit import Tensor, asarray, jit
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, placeholder
from tracejit.graph.verify import verify
from tracejit.ops.table import Array
from tracejit.runtime import cpu, engine, specialise
from tracejit.runtime.interpreter import run_graph
from tracejit.tensor import wrap
from tracejit.tracing import state

EMIT = Emit()
SIZES = (0, 1, 2, 3, 5, 8, 9, 16, 17, 33)
# Values are kept in [-4, 4] by `_bounded`, so that long programs do not end in infinities.
UNARY = ("negative", "absolute", "sqrt", "exp", "tanh", "sin", "floor", "sign", "square")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum", "arctan2", "copysign")
REDUCTIONS = ("sum", "max", "min", "prod")
SCANS = ("cumsum", "cummax", "cummin", "cumprod")

Rule = Callable[[list[Node], Sequence[int]], Node]


def _pick(values: list[Node], number: int) -> Node:
    return values[number % len(values)]


def _bounded(x: Node) -> Node:
    return EMIT.clip(x, -4.0, 4.0)


def _unary(values: list[Node], n: Sequence[int]) -> Node:
    x, name = _pick(values, n[0]), UNARY[n[1] % len(UNARY)]
    # The sign of a NaN is nobody's promise, and copysign would show it.
    return _bounded(getattr(EMIT, name)(EMIT.absolute(x) if name == "sqrt" else x))


def _fitting(x: Node, y: Node) -> Node:
    """Return ``y`` reduced or sliced so that it broadcasts with ``x``."""
    while len(y.shape) > len(x.shape):
        y = EMIT.sum(y, axis=(0,), keepdims=False)
    lead = len(x.shape) - len(y.shape)
    for axis, (mine, theirs) in enumerate(zip(y.shape, x.shape[lead:], strict=True)):
        if mine not in (1, theirs) and theirs != 1:
            y = EMIT.max(EMIT.pad(y, 0.0, **_pad(y, axis)), axis=(axis,), keepdims=True)
    return y


def _pad(x: Node, axis: int) -> dict[str, tuple[int, ...]]:
    amount = tuple(int(i == axis) for i in range(len(x.shape)))
    return {"low": amount, "high": (0,) * len(x.shape)}


def _binary(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    y = _fitting(x, _pick(values, n[2]))
    return _bounded(getattr(EMIT, BINARY[n[1] % len(BINARY)])(x, y))


def _select(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    y = _fitting(x, _pick(values, n[2]))
    return EMIT.where(EMIT.less(x, y), x, EMIT.constant(0.5, x.dtype))


def _reduce(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    axes = [a for a in range(len(x.shape)) if n[2] >> a & 1 and x.shape[a]]
    if not axes:
        return _unary(values, n)
    name = REDUCTIONS[n[1] % len(REDUCTIONS)]
    result = getattr(EMIT, name)(x, axis=tuple(axes), keepdims=bool(n[1] & 8))
    return _bounded(result)


def _weighted(values: list[Node], n: Sequence[int]) -> Node:
    """Sum ``x`` over one axis with weights that are sums over another: forces, attention."""
    x = _pick(values, n[0])
    rank = len(x.shape)
    if rank < 2 or x.size == 0:
        return _unary(values, n)
    inner, outer = n[1] % rank, n[2] % rank
    weight = _bounded(EMIT.sum(EMIT.square(x), axis=(inner,), keepdims=True))
    return _bounded(EMIT.sum(EMIT.multiply(x, weight), axis=(outer,), keepdims=bool(n[1] & 8)))


def _stencil(values: list[Node], n: Sequence[int]) -> Node:
    """Add neighbours along an axis: the same value read at shifted windows."""
    x = _pick(values, n[0])
    rank = len(x.shape)
    if not rank or x.shape[n[1] % rank] < 3:
        return _unary(values, n)
    axis = n[1] % rank
    size = tuple(s - 2 if i == axis else s for i, s in enumerate(x.shape))
    parts = [
        EMIT.slice(x, start=tuple(k if i == axis else 0 for i in range(rank)), size=size,
                   step=(1,) * rank)
        for k in range(3)
    ]  # fmt: skip
    return _bounded(EMIT.subtract(EMIT.add(parts[0], parts[2]), parts[1]))


def _position(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    axis = n[2] % max(len(x.shape), 1)
    if not x.shape or x.shape[axis] == 0:
        return _unary(values, n)
    found = getattr(EMIT, ("argmax", "argmin")[n[1] % 2])(x, axis=(axis,), keepdims=bool(n[1] & 8))
    return _bounded(EMIT.cast(found, dtype=x.dtype.str))


def _padded(values: list[Node], n: Sequence[int]) -> Node:
    """Pad every axis, with a constant or with a value that has to be computed."""
    x = _pick(values, n[0])
    rank = len(x.shape)
    if not rank:
        return _unary(values, n)
    low = tuple((n[1] >> a) & 1 for a in range(rank))
    high = tuple((n[2] >> a) & 3 for a in range(rank))
    total = EMIT.sum(x, axis=tuple(range(rank)), keepdims=False)
    return EMIT.pad(x, _bounded(total) if n[1] & 16 else EMIT.constant(0.0, x.dtype), low=low,
                    high=high)  # fmt: skip


def _softmax(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    if not x.shape or x.shape[n[1] % len(x.shape)] == 0:
        return _unary(values, n)
    axis = (n[1] % len(x.shape),)
    weight = EMIT.exp(EMIT.subtract(x, EMIT.max(x, axis=axis, keepdims=True)))
    return EMIT.divide(weight, EMIT.sum(weight, axis=axis, keepdims=True))


def _movement(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    rank = len(x.shape)
    match n[1] % 7:
        case 0:
            return EMIT.permute(x, axes=tuple(reversed(range(rank))))
        case 6 if rank:
            turn = n[2] % rank
            return EMIT.permute(x, axes=(*range(turn, rank), *range(turn)))
        case 1:
            return EMIT.reshape(x, shape=(x.size,))
        case 2:
            return EMIT.reshape(x, shape=(1, *x.shape)) if rank < 4 else x
        case 3 if rank:
            axis = n[2] % rank
            step = [1] * rank
            start = [0] * rank
            step[axis], start[axis] = -1, max(x.shape[axis] - 1, 0)
            return EMIT.slice(x, start=tuple(start), size=x.shape, step=tuple(step))
        case 4 if rank:
            size = tuple((s + 1) // 2 for s in x.shape)
            return EMIT.slice(x, start=(0,) * rank, size=size, step=(2,) * rank)
        case 5 if rank:
            return EMIT.concat(x, _bounded(EMIT.add(x, 1.0)), axis=n[2] % rank)
        case _:
            return x


def _update(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    if not x.shape:
        return _unary(values, n)
    size = tuple(max(s - 2, 0) for s in x.shape)
    start = tuple(min(1, s - z) for s, z in zip(x.shape, size, strict=True))
    step = [1] * len(size)
    if n[1] & 1:  # one axis backwards, or every other element of it
        axis = n[2] % len(size)
        backwards = n[1] & 2 or not size[axis]
        step[axis] = -1 if backwards else 2
        begin = start[axis] + max(size[axis] - 1, 0) if backwards else start[axis]
        start = (*start[:axis], begin, *start[axis + 1 :])
        if not backwards:
            size = (*size[:axis], (size[axis] + 1) // 2, *size[axis + 1 :])
    region = {"start": start, "size": size, "step": tuple(step)}
    inner = EMIT.multiply(EMIT.slice(x, **region), 0.5)
    return EMIT.update_slice(x, inner, **region)


def _scan(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    axis = n[2] % len(x.shape) if x.shape else 0
    if not x.shape or x.shape[axis] > 100:  # long sums of floats in two orders drift apart
        return _unary(values, n)
    return _bounded(getattr(EMIT, SCANS[n[1] % len(SCANS)])(x, axis=axis))


def _product(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    if len(x.shape) < 2:
        return _unary(values, n)
    axes = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
    return _bounded(EMIT.matmul(x, EMIT.permute(x, axes=axes)))


def _spread(extent: int, count: int, n: Sequence[int]) -> Node:
    """Return ``count`` positions among ``extent`` elements, some of them from the end."""
    along = EMIT.iota(shape=(count,), axis=0, dtype="<i8")
    scaled = EMIT.multiply(along, EMIT.constant(n[1] + 1, along.dtype))
    turned = EMIT.remainder(EMIT.add(scaled, n[2]), extent)
    return EMIT.subtract(turned, extent) if n[1] & 4 else turned


def _gather(values: list[Node], n: Sequence[int]) -> Node:
    """Read at computed positions, which may depend on data."""
    x = _pick(values, n[0])
    rank = len(x.shape)
    axis = n[2] % max(rank, 1)
    if not rank or x.shape[axis] == 0:
        return _unary(values, n)
    if n[1] % 3 == 0:
        found = EMIT.argmax(x, axis=(axis,), keepdims=True)
        return EMIT.take_along_axis(x, found, axis=axis)
    count = 1 + (n[0] + n[2]) % 9
    if n[1] % 3 == 1 and rank > 1 and x.shape[0] and x.shape[-1]:
        places = (_spread(x.shape[0], count, n), _spread(x.shape[-1], count, n))
        return EMIT.advanced_index(x, *places, axes=(0, rank - 1))
    return EMIT.take(x, _spread(x.shape[axis], count, n), axis=axis)


def _resized(x: Node, shape: tuple[int, ...]) -> Node:
    """Return the elements of ``x`` in another shape, with zeros or without the last ones."""
    size = prod(shape)
    flat = EMIT.reshape(x, shape=(x.size,))
    if size > x.size:
        flat = EMIT.pad(flat, EMIT.constant(0.0, x.dtype), low=(0,), high=(size - x.size,))
    else:
        flat = EMIT.slice(flat, start=(0,), size=(size,), step=(1,))
    return EMIT.reshape(flat, shape=shape)


def _layer(values: list[Node], n: Sequence[int]) -> Node:
    """Multiply with weights that may have to be computed; a bias and an activation may follow."""
    x = _pick(values, n[0])
    if len(x.shape) < 2:
        return _unary(values, n)
    columns = SIZES[n[1] % len(SIZES)]
    weights = _resized(_pick(values, n[2]), (x.shape[-1], columns))
    y = EMIT.matmul(x, weights)
    if n[1] & 16:
        y = EMIT.maximum(EMIT.add(y, _resized(_pick(values, n[2] // 2), (columns,))), 0.0)
    return _bounded(y)


def _attention(values: list[Node], n: Sequence[int]) -> Node:
    """Average rows by a softmax of products, with a causal mask or without one."""
    x = _pick(values, n[0])
    if len(x.shape) < 2 or 0 in x.shape:
        return _unary(values, n)
    keys = _resized(_pick(values, n[2]), x.shape)
    axes = (*range(len(x.shape) - 2), len(x.shape) - 1, len(x.shape) - 2)
    scores = EMIT.multiply(EMIT.matmul(x, EMIT.permute(keys, axes=axes)), 0.25)
    if n[1] & 1:
        length = x.shape[-2]
        row, column = (EMIT.iota(dtype="<i8", shape=(length, length), axis=axis) for axis in (0, 1))
        scores = EMIT.where(EMIT.less_equal(column, row), scores, EMIT.constant(-1e9, x.dtype))
    return _bounded(EMIT.matmul(EMIT.softmax(scores, axis=len(x.shape) - 1), x))


def _masked(values: list[Node], n: Sequence[int]) -> Node:
    """Combine masks, and use them: as a choice, as numbers, or reduced."""
    x = _pick(values, n[0])
    # Of inputs only: a comparison of what was computed may turn with the last bit.
    y, z = (_resized(given, x.shape) for given in values[:2])
    low, high = EMIT.less(y, z), EMIT.greater(y, EMIT.constant(0.25, x.dtype))
    mask = getattr(EMIT, ("logical_and", "logical_or", "logical_xor")[n[1] % 3])(low, high)
    if n[1] & 4:
        mask = EMIT.logical_not(mask)
    if n[1] & 8 and x.shape:
        name = ("any", "all", "count_nonzero")[n[2] % 3]
        found = getattr(EMIT, name)(mask, axis=(n[2] % len(x.shape),), keepdims=True)
        mask = found if found.dtype == bool else EMIT.greater(found, EMIT.constant(1, "<i8"))
    if n[1] & 16:
        return EMIT.cast(mask, dtype=x.dtype.str)
    return EMIT.where(mask, x, EMIT.constant(-0.5, x.dtype))


def _joined(values: list[Node], n: Sequence[int]) -> Node:
    """Join values with parts of themselves, or stack them on a new axis."""
    x = _pick(values, n[0])
    other = _resized(_pick(values, n[2]), x.shape)
    rank = len(x.shape)
    if n[1] & 1 or not rank:
        return EMIT.stack(x, other, _bounded(EMIT.square(x)), axis=n[1] % (rank + 1))
    axis = n[1] // 2 % rank
    size = tuple((s + 1) // 2 if i == axis else s for i, s in enumerate(x.shape))
    part = EMIT.slice(other, start=(0,) * rank, size=size, step=(1,) * rank)
    return EMIT.concat(x, part, x, axis=axis)


def _shuffled(values: list[Node], n: Sequence[int]) -> Node:
    """Turn, tile, sort, or cut to a triangle: composites that end in movement."""
    x = _pick(values, n[0])
    rank = len(x.shape)
    if not rank:
        return _unary(values, n)
    axis = n[2] % rank
    match n[1] % 6:
        case 0:
            return EMIT.roll(x, shift=(n[2] - 9,), axis=(axis,))
        case 1:
            return EMIT.flip(x, axis=(axis,))
        case 2:
            return EMIT.tile(x, reps=tuple(1 + (i == axis) for i in range(rank)))
        case 3 if rank > 1:
            return getattr(EMIT, ("tril", "triu")[n[2] & 1])(x, k=n[2] % 5 - 2)
        case 4:
            return EMIT.sort(x, axis=axis)
        case _:
            return EMIT.repeat(x, repeats=2, axis=axis)


def _normalised(values: list[Node], n: Sequence[int]) -> Node:
    x = _pick(values, n[0])
    if not x.shape or x.shape[-1] < 2:
        return _unary(values, n)
    rank = len(x.shape)
    scale = _resized(_pick(values, n[2]), x.shape[-1:])
    return _bounded(EMIT.layer_norm(x, scale, EMIT.negative(scale), eps=0.125, axis=(rank - 1,)))


RULES: tuple[Rule, ...] = (
    _unary, _binary, _binary, _select, _reduce, _reduce, _softmax, _movement, _movement, _update,
    _product, _scan, _weighted, _stencil, _position, _padded,
    _gather,
    _layer, _attention, _masked, _joined, _shuffled, _normalised,
)  # fmt: skip

# Two dtypes make 300 programs a run; `make fuzz` has a profile with many more examples.
EXAMPLES = settings().max_examples
PROGRAMS = EXAMPLES if EXAMPLES > 1000 else 150

steps = st.tuples(*[st.integers(0, 31)] * 4)
programs = st.lists(steps, min_size=1, max_size=14)
shapes = st.lists(st.sampled_from(SIZES), min_size=0, max_size=3).map(tuple)


def build(shape: tuple[int, ...], program: Sequence[Sequence[int]], dtype: str) -> Graph:
    """Return the graph of a program over two inputs of ``shape`` and its first axis's shape."""
    inputs = [placeholder(0, dtype, shape), placeholder(1, dtype, shape[-1:])]
    return Graph(inputs, results(inputs, program))


def results(inputs: Sequence[Node], program: Sequence[Sequence[int]]) -> list[Node]:
    """Return some of the values of a program."""
    values = list(inputs)
    for rule, *numbers in program:
        value = RULES[rule % len(RULES)](values, numbers)
        if value.size <= 20_000 and len(value.shape) <= 5:
            values.append(value)
    return [values[-1], values[-len(values) // 3], values[len(values) // 2]]


def arrays(graph: Graph, seed: int) -> list[Array]:
    rng = np.random.default_rng(seed)
    return [np.asarray(rng.uniform(-2, 2, n.shape), n.dtype).reshape(n.shape) for n in graph.inputs]


def close(got: Array, want: Array) -> None:
    assert got.dtype == want.dtype
    assert got.shape == want.shape
    scale = 2e-4 if got.dtype == np.float32 else 1e-9
    np.testing.assert_allclose(got, want, rtol=scale, atol=scale)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(shape=shapes, program=programs, seed=st.integers(0, 1000))
@example(shape=(1, 0), program=[*[(0,) * 4] * 6, (14, 0, 0, 0), (17, 0, 0, 26)], seed=0)
@settings(max_examples=PROGRAMS)
def test_random_programs(
    dtype: str, shape: tuple[int, ...], program: list[tuple[int, ...]], seed: int
) -> None:
    graph = build(shape, program, dtype)
    verify(graph)
    inputs = arrays(graph, seed)
    want = run_graph(graph, inputs)
    for level in (*NATIVE, *EMULATED):
        with cpu.isa(level):
            executable = engine.compile_graph(graph, [None] * len(inputs))
            for got, expected in zip(executable.run(inputs), want, strict=True):
                close(got, expected)


@given(shape=shapes, program=programs, seed=st.integers(0, 1000))
@example(shape=(3,), program=[(21, 0, 0, 1), (0,) * 4, (0,) * 4, (29, 2, 0, 0)], seed=0)
@settings(max_examples=max(20, PROGRAMS // 5))
def test_random_programs_with_constant_sizes(
    shape: tuple[int, ...], program: list[tuple[int, ...]], seed: int
) -> None:
    """Specialised code gives the bits of the code for any size."""
    graph = build(shape, program, "float32")
    inputs = arrays(graph, seed)
    executable = engine.compile_graph(graph, [None] * len(inputs))
    want = executable.run(inputs)
    if executable.calls:
        executable.use([specialise.request(call).result() for call in executable.calls])
        for got, expected in zip(executable.run(inputs), want, strict=True):
            assert got.tobytes() == expected.tobytes()


def test_mismatch_sees_a_difference() -> None:
    """The comparison used by these tests can fail."""
    one = np.array([1.0, 2.0], np.float32)
    assert mismatch(one, one) is None
    other = np.array([1.0, 2.5], np.float32)
    assert mismatch(one, other) is not None
    with pytest.raises(AssertionError):
        close(one, other)


def test_a_program_whose_reductions_share_an_axis_compiles() -> None:
    """Regression: renaming the axes of nested reductions never ended for this program."""
    program = [(17, 30, 23, 0), (23, 9, 10, 26), (26, 11, 11, 1)]
    graph = build((16, 5, 5), program, "float32")
    inputs = arrays(graph, 0)
    executable = engine.compile_graph(graph, [None] * len(inputs))
    for got, want in zip(executable.run(inputs), run_graph(graph, inputs), strict=True):
        close(got, want)


# A shape whose first axis has these sizes in turn, as an array and as views of larger ones.
TURNS = (6, 9, 2, 17, 1, 0, 33, 12, 5, 21)
LAYOUTS: tuple[Callable[[Array], Array], ...] = (
    lambda x: x,
    lambda x: np.repeat(x, 2, axis=0)[::2],
    lambda x: np.repeat(x[::-1], 2, axis=0)[::-2],
    lambda x: np.asfortranarray(x),
    lambda x: np.pad(x, [(0, len(x)) if a == x.ndim - 1 else (0, 0) for a in range(x.ndim)])[
        ..., : x.shape[-1]
    ],
)


@given(
    rest=st.lists(st.sampled_from((1, 2, 3, 8, 17)), max_size=2).map(tuple),
    program=programs,
    layout=st.sampled_from(LAYOUTS),
    tensors=st.booleans(),
)
@settings(max_examples=max(30, PROGRAMS // 5))
def test_random_programs_at_sizes_that_vary(
    rest: tuple[int, ...],
    program: list[tuple[int, ...]],
    layout: Callable[[Array], Array],
    tensors: bool,
) -> None:
    """Whatever plans for ranges of sizes there are, the answer is the interpreter's."""

    def function(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        trace = state.trace
        assert trace is not None
        return tuple(wrap(node, trace) for node in results([x.node, y.node], program))

    jitted = jit(function, compile="now")
    for seed, n in enumerate(TURNS):
        graph = build((n, *rest), program, "float32")
        given = arrays(graph, seed)
        want = run_graph(graph, given)
        given[0] = layout(given[0])
        found = jitted(*map(asarray, given)) if tensors else jitted(*given)
        for got, expected in zip(found, want, strict=True):
            close(np.asarray(got), expected)
