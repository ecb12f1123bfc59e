"""What the native entry puts together and writes, and that no reference is lost or kept."""

from __future__ import annotations

import gc
import sys
from typing import Any

import numpy as np
import pytest
from entries import F32, native_calls, scaled, vectors

import tracejit as tj
from tracejit.errors import OutOfMemory, ShapeError
from tracejit.runtime import entry, memory

pytestmark = [
    pytest.mark.skipif(not entry.supported(), reason="other object layouts"),
    pytest.mark.counts_native,
]


def forms_of_every_kind() -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """Functions that between them use all of the entry's code, with arguments."""
    a, b = vectors()
    square = np.random.default_rng(0).standard_normal((12, 12))

    def one(x: Any, y: Any) -> Any:
        return x * 2 + y

    def two(x: Any, y: Any) -> Any:
        return x + y, x - y

    def nested(x: Any, y: Any) -> Any:
        return {"sum": [x + y, (x, 3.5j)], "total": (x * y).sum(), "none": None}

    def scalar(x: Any, y: Any) -> Any:
        return (x * y).sum()

    def twice(x: Any, y: Any) -> Any:
        z = x + y
        return z, [z, z]

    def in_place(x: Any, y: Any) -> Any:
        x += y
        return x

    def written_and_returned(x: Any, y: Any) -> Any:
        z = x + y
        x[:] = z
        y *= 0.5
        return z, (y,)

    def chain(x: Any) -> Any:
        return (np.tanh(x) @ x) @ x, x.max(axis=0)

    def number(x: Any, f: float, c: Any) -> Any:
        return x * f + c

    return {
        "one": (one, (a, b)),
        "two": (two, (a, b)),
        "nested": (nested, (a, b)),
        "scalar": (scalar, (a, b)),
        "twice": (twice, (a, b)),
        "in_place": (in_place, (a.copy(), b)),
        "written_and_returned": (written_and_returned, (a.copy(), b.copy())),
        "chain": (chain, (square,)),
        "number": (number, (a, 0.25, np.float32(3))),
    }


def copied(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(a.copy() if isinstance(a, np.ndarray) else a for a in args)


def assert_same(got: Any, want: Any) -> None:
    """Equal values in equal containers, of equal types."""
    assert type(got) is type(want)
    if isinstance(want, dict):
        assert list(got) == list(want)
        got, want = list(got.values()), list(want.values())
    if isinstance(want, (tuple, list)):
        assert len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            assert_same(g, w)
    elif isinstance(want, np.ndarray):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, rtol=1e-6)
    else:
        assert got == want


@pytest.mark.parametrize("name", forms_of_every_kind())
def test_results_of_every_kind_are_put_together_natively(name: str) -> None:
    function, args = forms_of_every_kind()[name]
    compiled: Any = tj.jit(function)
    for call in range(4):
        expected, given = copied(args), copied(args)
        want, got = function(*expected), compiled(*given)
        assert_same(got, want)
        for g, w in zip(given, expected, strict=True):
            np.testing.assert_array_equal(g, w)
        assert native_calls(compiled) == call


def test_identities_are_numpy_s() -> None:
    forms = forms_of_every_kind()
    in_place, (x, y) = forms["in_place"]
    compiled: Any = tj.jit(in_place)
    for _ in range(3):
        assert compiled(x, y) is x
    assert native_calls(compiled) == 2
    twice: Any = tj.jit(forms["twice"][0])
    for _ in range(3):
        z, pair = twice(x, y)
        assert z is pair[0] is pair[1]
    assert native_calls(twice) == 2


def test_overlapping_and_read_only_arguments_are_not_written_natively() -> None:
    compiled: Any = tj.jit(forms_of_every_kind()["in_place"][0])
    compiled(*vectors())
    compiled(*vectors())
    assert native_calls(compiled) == 1
    x, _ = vectors()
    compiled(x, x)
    np.testing.assert_array_equal(x, 2 * np.arange(16))
    memory = np.arange(20, dtype=F32)
    want = memory.copy()
    want[:16] += want[4:].copy()
    compiled(memory[:16], memory[4:])
    np.testing.assert_array_equal(memory, want)
    apart = np.arange(32, dtype=F32)
    compiled(apart[:16], apart[16:])
    np.testing.assert_array_equal(apart[:16], np.arange(16) * 2 + 16)
    assert native_calls(compiled) == 2
    x, y = vectors()
    x.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        compiled(x, y)
    np.testing.assert_array_equal(x, np.arange(16))


def test_a_swap_reads_both_before_it_writes() -> None:
    @tj.jit
    def swap(x: Any, y: Any) -> None:
        x[:], y[:] = y + 0.0, x + 0.0

    for _ in range(3):
        x, y = vectors()
        swap(x, y)
        np.testing.assert_array_equal(x, np.ones(16))
        np.testing.assert_array_equal(y, np.arange(16))


def test_two_outputs_that_share_memory_take_the_python_path() -> None:
    @tj.jit
    def both(x: Any) -> Any:
        y = x * 2
        return y, y.T, y.reshape(-1), y[1:]

    x = np.arange(12.0).reshape(3, 4)
    for _ in range(3):
        results = both(x)
        for got, want in zip(results, both.__wrapped__(x), strict=True):
            np.testing.assert_array_equal(got, want)
        results[0][:] = 0
        assert results[1].any()
        assert results[2].any()


def test_memory_that_cannot_be_had_is_an_error_without_leaks() -> None:
    @tj.jit
    def outer(x: Any, y: Any) -> Any:
        return x * 3, x + y

    size = 1 << 22  # 128 TiB: more than there are addresses
    x = np.broadcast_to(np.ones((1, 1)), (size, 1))
    y = np.broadcast_to(np.ones((1, 1)), (1, size))
    with pytest.raises(MemoryError):
        outer(x, y)
    scaled()(*vectors(1 << 20))  # starts the thread pool; without it Python is asked
    used = memory.stats()["used"]
    before = native_calls(outer)
    for _ in range(3):
        with pytest.raises(OutOfMemory, match="cannot allocate"):
            outer(x, y)
    assert native_calls(outer) == before + 3
    assert memory.stats()["used"] == used


def count_references(name: str, calls: int) -> None:
    """``calls`` native calls leave every count where it was, and the process no larger."""
    function, args = forms_of_every_kind()[name]
    compiled: Any = tj.jit(function)
    held = [*args, *(a.dtype for a in args if isinstance(a, np.ndarray)), compiled, None]
    held += [np.dtype(np.float32), np.dtype(np.float64), np.float32, np.float64]
    for _ in range(50):
        result = compiled(*args)
    gc.collect()
    used, blocks, pages = memory.stats()["used"], sys.getallocatedblocks(), resident_pages()
    before = [sys.getrefcount(o) for o in held]
    for _ in range(calls):
        result = compiled(*args)
    after = [sys.getrefcount(o) for o in held]
    assert native_calls(compiled) >= calls
    # Others may hold a dtype; a leak would show as many as there were calls.
    assert max(abs(a - b) for a, b in zip(after, before, strict=True)) < 10
    assert sys.getallocatedblocks() - blocks < 100
    assert memory.stats()["used"] == used
    assert resident_pages() - pages < 500
    if name == "one":
        assert sys.getrefcount(result) == 2


def resident_pages() -> int:
    if sys.platform != "linux":
        return 0
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])


@pytest.mark.parametrize("name", forms_of_every_kind())
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_no_reference_is_lost_or_kept(name: str) -> None:
    count_references(name, 30_000)


@pytest.mark.slow
@pytest.mark.parametrize("name", forms_of_every_kind())
@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")
def test_no_reference_is_lost_or_kept_in_a_million_calls(name: str) -> None:
    count_references(name, 1_000_000)


def test_calls_with_errors_lose_no_reference() -> None:
    function, (a, b) = scaled(), vectors()
    function(a, b)
    before = [sys.getrefcount(o) for o in (a, b)]
    for _ in range(100):
        with pytest.raises(ShapeError):
            function(a, b[:3])
        with pytest.raises(TypeError):
            function(a)
    gc.collect()
    assert [sys.getrefcount(o) for o in (a, b)] == before
