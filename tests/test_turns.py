"""Callers that NumPy answers give the threads that compile their turn."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tracejit.runtime import turns
from tracejit.runtime.turns import LONGEST_S, SHARE, Turns


class Clock:
    """A clock that stands still, but for waiting."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, taken: Turns):
        self.now = 100.0
        self.waits: list[float] = []
        monkeypatch.setattr(turns.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(taken._nobody, "wait", self.wait)  # pyright: ignore[reportPrivateUsage]

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds


def test_nobody_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Turns()
    clock = Clock(monkeypatch, taken)
    taken.give()
    taken.want(1)
    taken.done(1)
    clock.now += 1
    taken.give()
    assert clock.waits == []


def test_callers_give_their_share_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Turns()
    clock = Clock(monkeypatch, taken)
    taken.want(1)
    start = clock.now
    for _ in range(10_000):
        clock.now += 2e-5  # a short call
        taken.give()
    given, passed = sum(clock.waits), clock.now - start
    assert SHARE * 0.9 * passed < given <= SHARE * passed + LONGEST_S
    assert max(clock.waits) <= LONGEST_S


def test_a_thread_that_waits_for_llvm_wants_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = Turns()
    clock = Clock(monkeypatch, taken)
    taken.want(threading.get_ident())
    clock.now += 1
    with taken.waiting():
        taken.give()
    assert clock.waits == []
    clock.now += 1
    taken.give()
    assert len(clock.waits) == 1
    # Others are not meant.
    other = threading.Thread(target=lambda: taken.waiting().__enter__())
    other.start()
    other.join()
    clock.now += 1
    taken.give()
    assert len(clock.waits) == 2


def test_a_caller_goes_on_as_soon_as_the_others_are_done() -> None:
    taken = Turns()
    taken.want(1)
    time.sleep(0.01)
    threading.Thread(target=lambda: taken.done(1)).start()
    taken.give()  # returns
    taken.give()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_waits_for_no_thread_of_its_parent() -> None:
    code = (
        "import os, time\n"
        "from tracejit.runtime import turns\n"
        "turns.want(1)\n"
        "time.sleep(0.01)\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if turns._turns._nobody.is_set() else 1)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


STARVED = """
import sys
import numpy as np
import tracejit as tj

f = tj.jit(lambda x: x * 2 + 1)
x = np.ones(16)
given = []
from tracejit.runtime import turns
real = turns.Turns.give
def give(self):
    before = self._given
    real(self)
    given.append(self._given != before)
turns.Turns.give = give
for calls in range(3_000_000):
    f(x)
    if f.stats()["tier"] > 0:
        break
print(f.stats()["tier"], sum(given))
"""


def test_a_tight_loop_without_bytecode_lets_the_compiler_in(tmp_path: Path) -> None:
    """A fresh process took up to 50 s of it to move to kernels."""
    environ = os.environ | {
        "TRACEJIT_CACHE_DIR": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "none"),
        "TRACEJIT_COMPILE": "auto",
        "TRACEJIT_STRESS_COMPILE": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", STARVED],
        env=environ, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    tier, given = map(int, done.stdout.split())
    assert tier > 0, done.stderr
    assert given > 0
