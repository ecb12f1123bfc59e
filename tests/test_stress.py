"""Programs under the stress switches: memory full of NaN before use, and forced deoptimisation.

Each runs in a process of its own, since the switches are read from the environment.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAMS = """
import gc
import numpy as np
import tracejit as tj
from tracejit.runtime import demand

rng = np.random.default_rng(0)

def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def attention(x):
    return softmax(x @ x.T) @ x

def columns(x):
    return (x - x.mean(axis=0)) / (x.std(axis=0) + 1)

def padded(x):
    y = np.zeros_like(x)
    y[1:-1, 1:-1] = x[:-2, 1:-1] + x[2:, 1:-1]
    return np.concatenate([y, np.pad(x, 2)[:, : x.shape[1]]])

def running(x):
    return np.cumsum(np.abs(x), axis=1).max()

def solved(x):
    return np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T).T * 2

def several(x):
    return x + 1, [x.sum(axis=0), x.argmax(axis=1)]

def same(got, want):
    if isinstance(want, (tuple, list)):
        assert type(got) is type(want) and len(got) == len(want)
        for g, w in zip(got, want, strict=True):
            same(g, w)
    else:
        assert type(got) is type(want), (type(got), type(want))
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-10)

natives = 0
for function in (softmax, attention, columns, padded, running, solved, several):
    compiled = tj.jit(function)
    for shape in ((3, 5), (33, 47), (700, 300)):
        x = rng.standard_normal(shape)
        want = function(x)
        for _ in range(7):
            same(compiled(x), want)
    natives += compiled._entry.calls if compiled._entry is not None else 0

a = tj.asarray(rng.standard_normal((50, 60)))
for _ in range(100):
    a = (a * 1.01).tanh()
assert np.isfinite(np.asarray(a)).all()

compiled = sum(s.tier == 1 for s in demand._usage.profile().signatures)
print("natives", natives, compiled)
"""


def natives(**switches: str) -> int:
    """Return the native calls of the functions under ``switches``."""
    return run(**switches)[0]


def run(**switches: str) -> tuple[int, int]:
    """Return the native calls of the functions, and the expressions that were compiled."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAMS],
        env=os.environ | switches,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, calls, compiled = done.stdout.split()
    return int(calls), int(compiled)


@pytest.mark.fault("dead memory poisoned, calls deoptimised")
def test_programs_never_read_memory_that_nobody_wrote() -> None:
    natives(TRACEJIT_STRESS_POISON="1")


@pytest.mark.fault("dead memory poisoned, calls deoptimised")
@pytest.mark.parametrize("every", ["1", "2", "5"])
def test_programs_answer_alike_when_deoptimised(every: str) -> None:
    forced = natives(TRACEJIT_STRESS_DEOPT=every)
    assert (forced == 0) == (every == "1")


def test_expressions_are_compiled_at_once() -> None:
    assert run(TRACEJIT_COMPILE="auto", TRACEJIT_STRESS_COMPILE="0")[1] == 0
    assert run(TRACEJIT_COMPILE="auto", TRACEJIT_STRESS_COMPILE="1")[1] > 0


@pytest.mark.fault("dead memory poisoned, calls deoptimised")
def test_both_at_once_on_a_small_cache() -> None:
    natives(TRACEJIT_STRESS_POISON="1", TRACEJIT_STRESS_DEOPT="3", TRACEJIT_MEMORY_CACHE="4000000")
