"""What ran: executables, how often and for how long, while somebody asks.

``with recording() as runs:`` collects every executable that runs inside the block. With nobody
recording, a run pays one comparison.
"""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tracejit import gate
from tracejit.record import field, record

if TYPE_CHECKING:
    from tracejit.runtime.executable import Executable


@record
class Run:
    """One executable's runs: how many, and their seconds together."""

    executable: Executable
    calls: int = 0
    seconds: float = 0.0


@record(eq=False)
class Recording:
    """The runs of a block of code, by executable, in the order of their first run.

    With ``everything``, graphs are compiled even where interpreting them is cheaper: a drawing of
    a program should have all of it. ``interpreted`` is the seconds spent in NumPy instead.
    """

    everything: bool = False
    interpreted: float = 0.0
    runs: dict[int, Run] = field(default_factory=dict[int, Run])
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, executable: Executable, seconds: float) -> None:
        with self.lock:
            run = self.runs.setdefault(id(executable), Run(executable))
            run.calls += 1
            run.seconds += seconds

    def __iter__(self) -> Generator[Run, None, None]:
        yield from self.runs.values()


# The newest block that is open, and all of them: those of several threads end in any order.
active: Recording | None = None
_open: list[Recording] = []
_lock = threading.Lock()


@contextmanager
def recording(*, everything: bool = False) -> Generator[Recording, None, None]:
    """Record every run of an executable inside the block, from any thread."""
    global active
    mine = Recording(everything)
    with _lock:
        _open.append(mine)
        active = mine
    gate.shut()
    try:
        yield mine
    finally:
        gate.reopen()
        with _lock:
            _open.remove(mine)
            active = _open[-1] if _open else None
