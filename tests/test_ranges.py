"""Plans for ranges of sizes: whatever the arguments are, a new size is neither traced nor compiled.

Tensors, containers that only Python opens, NumPy steps, arrays with strides, checked positions.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest

import tracejit as tj
from tracejit.runtime import analysis, entry, workers
from tracejit.runtime.numbers import Geometry, Numbers
from tracejit.sizes import Family

pytestmark = pytest.mark.skipif(not entry.supported(), reason="other object layouts")

F32 = np.float32
# 50 sizes: 0, 1, primes, around the vector widths.
SIZES = (24, 32, 0, 1, 2, 3, 5, 7, *range(11, 100, 3), *range(101, 220, 10))
assert len(SIZES) == 50


def normal(*shape: int) -> Any:
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(F32)


@dataclass
class Layer:
    weight: Any
    bias: Any


class Pair(NamedTuple):
    low: Any
    high: Any


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def dense(x: Any, layer: Layer) -> Any:
    return np.maximum(x @ layer.weight + layer.bias, 0)


def limits(x: Any) -> Any:
    return Pair(x.min(axis=1), x.max(axis=1))


def columns(x: Any) -> Any:
    y = x * 2
    return y.T, y[::-1], y.sum()


def sorted_scores(x: Any) -> Any:
    return np.sort(x * 2 - 1, axis=-1) * 3 + x


def sorted_columns(x: Any) -> Any:
    order = np.argsort(x[:, 0] + 1)
    return x[order] - x.mean(axis=1, keepdims=True), order


def spectrum(x: Any) -> Any:
    power = np.abs(np.fft.rfft(x - x.mean(axis=-1, keepdims=True), axis=-1)) ** 2
    return power, power.sum(axis=-1)


def ranked(x: Any) -> Any:
    middle = np.median(x, axis=-1)
    shifted = x - middle[..., None]
    return {"middle": middle, "ranked": np.sort(shifted.T), "both": [shifted, middle * 2]}


def embed(words: Any, table: Any) -> Any:
    return table[words] * 2


def add(x: Any, y: Any) -> Any:
    return x * 2 + y


def step(x: Any, v: Any) -> Any:
    x += v * 2
    return x.sum(axis=1)


class Case(NamedTuple):
    """A program, its arguments for a size n, and how many plans its sizes may need.

    ``recompiles`` is 2 where 0 and 1 have kernels of their own.
    """

    function: Callable[..., Any]
    make: Callable[[int], tuple[Any, ...]]
    plans: int = 4
    recompiles: int = 1


LAYER = Layer(normal(16, 8), normal(8))
CASES = {
    "tensor": Case(softmax, lambda n: (tj.asarray(normal(n, 16)),)),
    "two tensors": Case(add, lambda n: (tj.asarray(normal(n, 16)), tj.asarray(normal(n, 1)))),
    "dataclass": Case(dense, lambda n: (normal(n, 16), LAYER)),
    "named tuple out": Case(limits, lambda n: (normal(n, 16),)),
    "views out": Case(columns, lambda n: (normal(n, 16),), recompiles=2),
    "sorted rows": Case(sorted_scores, lambda n: (normal(n, 16),)),
    "sorted along n": Case(sorted_scores, lambda n: (normal(5, n),)),
    "sorted tensor": Case(sorted_scores, lambda n: (tj.asarray(normal(n, 16)),)),
    "gathered": Case(sorted_columns, lambda n: (normal(n, 16),), recompiles=2),
    "spectra": Case(spectrum, lambda n: (normal(n, 16),)),
    "spectra along n": Case(spectrum, lambda n: (normal(5, n + 1),), 6),
    "median": Case(ranked, lambda n: (normal(n, 16),)),
    "sorted, strided": Case(sorted_scores, lambda n: (normal(n, 40)[:, ::2],)),
    "embedding": Case(embed, lambda n: (np.arange(n) * 7 % 100 - 50, normal(50, 8))),
    "table of n": Case(embed, lambda n: (np.arange(-1, 1), normal(n + 1, 8))),
    "transposed": Case(softmax, lambda n: (normal(16, n).T,)),
    "pitch": Case(softmax, lambda n: (normal(n, n + 40)[:, :16],)),
    "backwards": Case(softmax, lambda n: (normal(2 * n, 16)[::-2],)),
    "columns backwards": Case(softmax, lambda n: (normal(n, n + 16)[:, 15::-1],)),
    "both": Case(add, lambda n: (normal(n, n + 20)[:, :16], normal(16, n).T)),
    "changing steps": Case(add, lambda n: (normal(n * 3, 16)[:: n % 3 + 1][:n], normal(1, 16))),
    "broadcast": Case(add, lambda n: (np.broadcast_to(normal(16), (n, 16)), normal(n, 16))),
    "written": Case(step, lambda n: (normal(n, 2 * n + 20)[:, :16], normal(n, 16))),
}  # fmt: skip


def plain(value: Any) -> Any:
    """Return ``value`` with arrays for tensors, and copies for arrays."""
    if isinstance(value, tj.Tensor):
        return value.numpy().copy()
    if isinstance(value, np.ndarray):
        return value.copy(order="K")
    return value


def leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return leaves(list(value.values()))  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, (list, tuple)):
        return [leaf for part in value for leaf in leaves(part)]  # pyright: ignore[reportUnknownVariableType]
    return [plain(value)]


def check(found: Any, wanted: Any) -> None:
    for a, b in zip(leaves(found), leaves(wanted), strict=True):
        assert np.shape(a) == np.shape(b)
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("case", CASES)
def test_fifty_sizes_are_served_by_a_few_plans(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(workers.counts, "in_process", 0)
    monkeypatch.setattr(analysis, "wanted", lambda: False)
    function, make, plans, recompiles = CASES[case]
    jitted = tj.jit(function, compile="now")
    for n in SIZES:
        given = make(n)
        expected = [plain(a) for a in given]
        if isinstance(given[0], np.ndarray) and not given[0].flags.c_contiguous:
            expected[0] = np.array(given[0])
        wanted = function(*expected)
        check(jitted(*given), wanted)
        if function is step:
            np.testing.assert_allclose(given[0], expected[0], rtol=1e-6)
    stats = jitted.stats()
    assert stats["recompiles"] <= recompiles, stats
    # Every plan is one trace; beside them stand the first size, and 0 and 1 with plain numbers.
    assert 1 <= stats["dynamic"] <= plans, stats
    assert stats["compiles"] <= plans + 4, stats
    assert stats["fallbacks"] == 0, stats
    assert stats["calls"] == len(SIZES)


@pytest.mark.counts_native  # an entry takes contiguous arrays by plans for varying strides as well
@pytest.mark.parametrize("case", CASES)
def test_sizes_that_have_a_plan_are_not_traced(case: str) -> None:
    function, make, *_ = CASES[case]
    jitted = tj.jit(function, compile="now")
    for n in (33, 34, 35, 40, 41, 44):
        jitted(*make(n))
    before = jitted.stats()
    for n in (36, 37, 39, 43, 45, 47, 49):
        expected = [np.array(a) if isinstance(a, np.ndarray) else plain(a) for a in make(n)]
        check(jitted(*make(n)), function(*expected))
    after = jitted.stats()
    assert after["compiles"] == before["compiles"]
    assert after["dynamic"] == before["dynamic"]
    assert after["kernels"] == before["kernels"]
    assert tj.explain(jitted, *make(37)).tier == 1


def test_a_position_out_of_range_at_a_new_size_raises_numpys_error() -> None:
    jitted = tj.jit(embed, compile="now")
    table = normal(50, 8)
    for n in (20, 21, 22, 23):
        jitted(np.arange(n), table)
    plans = jitted.stats()["dynamic"]
    for n in (24, 25, 24, 26):
        wrong = np.arange(n)
        wrong[3] = 50
        with pytest.raises(IndexError, match="50"):
            jitted(wrong, table)
        check(jitted(np.arange(n), table), embed(np.arange(n), table))
    assert jitted.stats()["dynamic"] == plans


def test_unaligned_and_foreign_byte_orders_at_new_sizes() -> None:
    jitted = tj.jit(softmax, compile="now")
    for n in (20, 21, 22):
        jitted(normal(n, 16))
    before = jitted.stats()["compiles"]
    for n in (23, 24, 29):
        x = normal(n, 16)
        raw = np.zeros(x.nbytes + 1, np.uint8)
        unaligned = raw[1:].view(F32).reshape(x.shape)
        unaligned[...] = x
        assert not unaligned.flags.aligned
        check(jitted(unaligned), softmax(x))
        check(jitted(x.astype(">f4")), softmax(x))
    assert jitted.stats()["compiles"] == before
    assert jitted.stats()["guard_failures"]["unaligned argument"] == 6


def test_overlapping_arguments_at_a_new_size_run_as_python_does() -> None:
    jitted = tj.jit(step, compile="now")
    for n in (20, 21, 22):
        jitted(normal(n, 16), normal(n, 16))
    before = jitted.stats()["compiles"]
    memory = normal(60, 16)
    other = memory.copy()
    check(jitted(memory[:30], memory[5:35]), step(other[:30], other[5:35]))
    np.testing.assert_allclose(memory, other, rtol=1e-5)
    assert jitted.stats()["compiles"] == before
    assert jitted.stats()["guard_failures"]["overlapping arguments"] == 1


def test_numpy_errors_come_through_at_new_sizes() -> None:
    def solve(a: Any, b: Any) -> Any:
        return np.linalg.solve(a * 1.0, b + 0.0) * 2

    jitted = tj.jit(solve, compile="now")
    for n in (3, 4, 5, 6):
        np.testing.assert_array_equal(jitted(np.eye(n), np.ones(n)), np.full(n, 2.0))
    for n in (7, 8):
        with pytest.raises(np.linalg.LinAlgError):
            jitted(np.zeros((n, n)), np.ones(n))
        np.testing.assert_array_equal(jitted(np.eye(n), np.ones(n)), np.full(n, 2.0))
    assert jitted.stats()["retraces"] <= 3


def test_calls_that_are_sent_to_python_make_no_further_plans() -> None:
    jitted = tj.jit(softmax, compile="now")
    for n in (20, 21, 22):
        jitted(normal(n, 16))
    assert jitted._entry is not None
    jitted._entry.deoptimise_every(2)
    before = jitted.stats()
    for n in range(23, 60):
        check(jitted(normal(n, 16)), softmax(normal(n, 16)))
    after = jitted.stats()
    assert after["dynamic"] == before["dynamic"]
    assert after["compiles"] == before["compiles"]
    assert after["calls"] == before["calls"] + 37


def test_a_profile_at_new_sizes_makes_no_further_plans() -> None:
    jitted = tj.jit(sorted_scores, compile="now")
    for n in (20, 21, 22):
        jitted(normal(n, 16))
    before = jitted.stats()
    for n in range(23, 40):
        check(jitted(normal(n, 16)), sorted_scores(normal(n, 16)))
    assert jitted.stats()["compiles"] == before["compiles"]
    (profile,) = [p for p in jitted.profile().signatures if "*" in p.arguments]
    assert profile.native_calls >= 18
    assert profile.seconds > 0


def test_sizes_of_tensors_that_are_called_often_get_code_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(analysis, "wanted", lambda: True)
    jitted = tj.jit(softmax, compile="now")
    for n in (7, 9, 11):
        jitted(tj.asarray(normal(n, 16)))
    hot = tj.asarray(normal(33, 16))
    for _ in range(200):
        for _ in range(140):
            jitted(hot)
        analysis.analyse()
        if any(p.arguments == "float32[33, 16]" for p in jitted.profile().signatures):
            break
    else:
        raise AssertionError(jitted.profile())
    check(jitted(hot), softmax(hot.numpy()))


@pytest.mark.parametrize("case", ["tensor", "sorted rows", "pitch", "embedding", "median"])
def test_threads_share_plans(case: str) -> None:
    function, make, *_ = CASES[case]
    jitted = tj.jit(function, compile="now")
    for n in (20, 21):
        jitted(*make(n))
    wrong: list[Any] = []

    def work(seed: int) -> None:
        try:
            for n in range(16 + seed, 300, 23):
                given = make(n)
                check(jitted(*given), function(*map(plain, given)))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_numbers_follow_from_sizes_and_strides() -> None:
    with Family() as family:
        n, s = family.symbol(12), family.symbol(-20, low=None)
        numbers = Numbers(family, {0: Geometry((n, 3), (s, 1))})
        found = numbers.formula({"shape": (n * 2, 3), "at": ((n - 1) * s, n // 5)})
        assert numbers.formula((3, "x")) is None
        assert n > 5
        numbers.seal()
    assert found is not None
    values = numbers([(None, (7, 3), (4, 1))])
    assert values is not None
    assert found(values) == {"shape": (14, 3), "at": (24, 1)}
    assert numbers([(None, (5, 3), (4, 1))]) is None
    assert numbers([(None, (7, 4), (4, 1))]) is None
    assert numbers([(None, (7, 3), (4, 2))]) is None
