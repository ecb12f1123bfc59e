"""Spans: what the process did when, on which thread, written as a Chrome trace file.

``with profile("trace.json"):`` collects what happens inside, from any thread: tracing, planning,
compiling, loading, interpreted runs, runs of kernels and each kernel in them. The file is in the
Trace Event Format, which https://ui.perfetto.dev and ``chrome://tracing`` open.

While nothing collects, ``active`` is None and nobody calls ``add``; inside the block, calls take
the Python path and kernels run one native call each, so that each can be timed.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tracejit.files import atomic
from tracejit.graph.node import Node
from tracejit.record import field, record
from tracejit.runtime import events, monitor
from tracejit.runtime.interpreter import Observer

if TYPE_CHECKING:
    from pathlib import Path


@record(frozen=True, slots=True)
class Span:
    """Something that took time: ``start`` and ``seconds`` by ``time.perf_counter()``.

    ``process`` and ``thread`` are the system's numbers. Spans with an equal ``flow`` are steps of
    one thing, such as a kernel that is asked for, compiled, and run.
    """

    name: str
    category: str
    start: float
    seconds: float
    process: int
    thread: int
    details: dict[str, Any] = field(default_factory=dict[str, Any])
    flow: Hashable = None


class Profile:
    """What a ``profile`` block has collected. ``spans`` are in the order of their ends."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.events: list[tuple[events.Event, int]] = []
        self.names: dict[tuple[int, int], str] = {}
        self.started = time.perf_counter()

    def add(self, span: Span) -> None:
        """Take a span; appending to a list needs no lock."""
        self.spans.append(span)

    def name_thread(self, process: int, thread: int, name: str) -> None:
        """Say what to call a thread in the file."""
        self.names.setdefault((process, thread), name)

    def take_event(self, event: events.Event) -> None:
        """Take a decision of the runtime: a mark on the thread that took it."""
        process, thread = os.getpid(), threading.get_native_id()
        self.name_thread(process, thread, threading.current_thread().name)
        self.events.append((event, thread))

    def as_dict(self) -> dict[str, Any]:
        """Return the trace: plain values in the Trace Event Format, times in microseconds."""
        marks = self._names()
        spans, seen = list(self.spans), list(self.events)
        # What began before the block is not cut: viewers want no negative times.
        first = min((span.start for span in spans), default=self.started)
        first = min(first, self.started)
        for span in spans:
            marks.append(
                {
                    "name": span.name, "cat": span.category, "ph": "X",
                    "ts": (span.start - first) * 1e6, "dur": span.seconds * 1e6,
                    "pid": span.process, "tid": span.thread, "args": span.details,
                }
            )  # fmt: skip
        for number, steps in enumerate(_flows(spans)):
            marks += _arrows(number, steps, first)
        for event, thread in seen:
            marks.append(
                {
                    "name": event.message, "cat": event.topic, "ph": "i", "s": "t",
                    "ts": (event.end - first) * 1e6, "pid": os.getpid(), "tid": thread,
                    "args": dict(event.details),
                }
            )  # fmt: skip
        return {"traceEvents": marks, "displayTimeUnit": "ms"}

    def _names(self) -> list[dict[str, Any]]:
        """Return what processes and threads are called; this process stands first."""
        marks: list[dict[str, Any]] = []
        processes = {os.getpid(): "python"}
        for (process, thread), name in list(self.names.items()):
            processes.setdefault(process, "tracejit worker")
            marks.append(_metadata("thread_name", process, thread, name=name))
        for place, (process, name) in enumerate(processes.items()):
            marks.append(_metadata("process_name", process, 0, name=name))
            marks.append(_metadata("process_sort_index", process, 0, sort_index=place))
        return marks

    def write(self, path: str | Path) -> Path:
        """Write the trace file, whole or not at all; returns where. Raises OSError."""
        import json
        from pathlib import Path

        where = Path(path)
        with atomic(where) as stream:
            json.dump(self.as_dict(), stream, default=str)
        return where


def _flows(spans: Sequence[Span]) -> Iterator[list[Span]]:
    """Yield the steps of each flow in the order of their begins, of runs the first one only."""
    found: dict[Hashable, list[Span]] = {}
    for span in sorted(spans, key=lambda span: span.start):
        if span.flow is None:
            continue
        steps = found.setdefault(span.flow, [])
        if not steps or steps[-1].category != "kernel":
            steps.append(span)
    yield from (steps for steps in found.values() if len(steps) > 1)


def _arrows(number: int, steps: Sequence[Span], first: float) -> Iterator[dict[str, Any]]:
    """Yield the marks that viewers draw as arrows from step to step."""
    for place, span in enumerate(steps):
        last = place == len(steps) - 1
        yield {
            "name": "kernel", "cat": "flow", "ph": "f" if last else "t" if place else "s",
            "id": number, "bp": "e", "ts": (span.start - first) * 1e6,
            "pid": span.process, "tid": span.thread,
        }  # fmt: skip


def _metadata(kind: str, process: int, thread: int, **args: Any) -> dict[str, Any]:
    return {"name": kind, "ph": "M", "pid": process, "tid": thread, "args": args}


# The newest block that is open, and all of them: those of several threads end in any order.
active: Profile | None = None
_open: list[Profile] = []
_lock = threading.Lock()
_thread = threading.local()  # .flow: of what this thread is working for


@contextmanager
def flow(of: Hashable) -> Generator[None, None, None]:
    """Let all spans that this thread adds inside the block be steps of one flow."""
    before = getattr(_thread, "flow", None)
    _thread.flow = of
    try:
        yield
    finally:
        _thread.flow = before


def add(name: str, category: str, start: float, *, worker: int = 0, **details: Any) -> None:
    """Note what began at ``start`` and ends now, on this thread, or in the process ``worker``."""
    profile = active
    if profile is None:
        return
    seconds = max(0.0, time.perf_counter() - start)
    process = worker or os.getpid()
    thread = worker or threading.get_native_id()
    profile.name_thread(process, thread, "main" if worker else threading.current_thread().name)
    of = getattr(_thread, "flow", None)
    profile.add(Span(name, category, start, seconds, process, thread, details, of))


def add_op(node: Node, start: float) -> None:
    """Note an op that NumPy has computed, with its source line."""
    name = f"NumPy {node.op.name}"
    if node.loc is None:
        add(name, "numpy", start)
    else:
        add(f"{name} at {os.path.basename(str(node.loc))}", "numpy", start, line=str(node.loc))


def observer(then: Observer | None) -> Observer:
    """Return what notes the ops that NumPy computes, each with its line, and tells ``then``."""

    def observe(node: Node, ns: int) -> None:
        if node.inputs:
            add_op(node, time.perf_counter() - ns * 1e-9)
        if then is not None:
            then(node, ns)

    return observe


@contextmanager
def profile(path: str | Path | None = None) -> Generator[Profile, None, None]:
    """Collect what tracejit does inside the block, on all threads; write it to ``path`` if given.

    The file is written also where the block raises. A block inside another one collects for
    itself; the outer one misses what happens meanwhile. Raises OSError where it cannot write.
    """
    global active
    mine = Profile()
    with _lock:
        _open.append(mine)
        active = mine
    everything = monitor.active is not None and monitor.active.everything
    unsubscribe = events.subscribe(mine.take_event)
    try:
        # Runs take the path that looks whether somebody records.
        with monitor.recording(everything=everything):
            yield mine
    finally:
        unsubscribe()
        with _lock:
            _open.remove(mine)
            active = _open[-1] if _open else None
        if path is not None:
            mine.write(path)
