"""Programs with NumPy steps between kernels: each stretch of kernels has a native entry."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.runtime import engine, entry
from tracejit.runtime.stretches import Stretches

pytestmark = pytest.mark.skipif(not entry.supported(), reason="other object layouts")

RNG = np.random.default_rng(11)


def sorted_scores(x: Any) -> Any:
    return np.sort(x * 2 - 1, axis=-1) * 3 + x


def spectrum(x: Any) -> Any:
    power = np.abs(np.fft.rfft(x * np.hanning(x.shape[-1]), axis=-1)) ** 2
    return power, power.sum(axis=-1), x.mean()


def several(x: Any) -> Any:
    order = np.argsort(x, axis=-1)
    middle = np.median(x, axis=-1)
    shifted = x - middle[..., None]
    return {"order": order, "middle": middle, "shifted": shifted, "ranked": np.sort(shifted.T)}


def returned_twice(x: Any) -> Any:
    s = np.sort(x + 1, axis=-1)
    return s, s[..., ::-1], s


def constants(x: Any) -> Any:
    table = np.arange(float(x.shape[-1]))
    return np.sort(table * x, axis=-1) + table


PROGRAMS: list[Callable[[Any], Any]] = [sorted_scores, spectrum, several, returned_twice, constants]
ARRAYS = {
    "plain": RNG.normal(size=(5, 17)),
    "strided": RNG.normal(size=(10, 34))[::2, ::2],
    "transposed": RNG.normal(size=(17, 5)).T,
    "broadcast": np.broadcast_to(RNG.normal(size=17), (5, 17)),
    "empty": np.zeros((0, 17)),
    "one": RNG.normal(size=(1, 1)),
}


def agree(found: Any, wanted: Any) -> None:
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, list | tuple):
        for a, b in zip(found, wanted, strict=True):
            agree(a, b)
        return
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("layout", ARRAYS)
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_every_run_is_numpys(program: Callable[[Any], Any], layout: str) -> None:
    x = ARRAYS[layout]
    function = tj.jit(program, compile="now")
    wanted = program(x)
    for _ in range(4):
        agree(function(x), wanted)


def test_kernels_between_numpy_steps_run_natively(monkeypatch: pytest.MonkeyPatch) -> None:
    x = RNG.normal(size=(4, 9))
    traced = tj.trace(several, x)
    executable = engine.compile_schedule(traced.schedule)
    wanted = [np.array(r) for r in executable.run([x])]
    ran: list[Stretches] = []
    original = Stretches.run
    monkeypatch.setattr(Stretches, "run", lambda self, a: ran.append(self) or original(self, a))
    for _ in range(3):
        for found, value in zip(executable.run([x]), wanted, strict=True):
            np.testing.assert_array_equal(found, value)
    assert len(ran) == 3
    assert len(set(map(id, ran))) == 1
    assert executable.runs == 4


def test_results_are_nobody_elses() -> None:
    function = tj.jit(lambda z: (z.real, np.sort(z.imag)), compile="now")
    z = np.array([1 + 2j])
    for _ in range(4):
        real, imag = function(z)
        real[0], imag[0] = 7, 8
        assert z[0] == 1 + 2j


def test_positions_out_of_range_raise_numpys_error() -> None:
    function = tj.jit(lambda x, i: np.sort(x * 2)[i] + 1, compile="now")
    x, inside = np.arange(5.0), np.array([0, 4])
    for _ in range(3):
        np.testing.assert_array_equal(function(x, inside), [1.0, 9.0])
    with pytest.raises(IndexError):
        function(x, np.array([0, 5]))
    np.testing.assert_array_equal(function(x, inside), [1.0, 9.0])


def test_a_numpy_step_that_raises_leaves_nothing_behind() -> None:
    function = tj.jit(lambda a, b: np.linalg.solve(a * 1.0, b + 0.0), compile="now")
    good, bad, b = np.eye(3), np.zeros((3, 3)), np.ones(3)
    for _ in range(3):
        np.testing.assert_array_equal(function(good, b), b)
    before = sys.getrefcount(bad), sys.getrefcount(b)
    for _ in range(3):
        with pytest.raises(np.linalg.LinAlgError):
            function(bad, b)
    assert (sys.getrefcount(bad), sys.getrefcount(b)) == before
    np.testing.assert_array_equal(function(good, b), b)
