"""Trace files and the map for perf: what is in them, and that nothing remains of a profile."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.codegen.target import LEVELS
from tracejit.errors import TraceError
from tracejit.runtime import monitor, perf, spans, workers
from tracejit.runtime.workers import Compiler

X = np.linspace(0.5, 2, 4096).reshape(64, 64)


def program(x: Any) -> Any:
    product = np.tanh(x @ x)
    ordered = np.sort(product, axis=1)
    return ordered - ordered.mean(axis=1, keepdims=True)


def load(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["traceEvents"]


def test_a_trace_file_has_each_stage_and_kernel(tmp_path: Path):
    f = tj.jit(lambda x: program(x) * 1.5, compile="now")
    path = tmp_path / "sub" / "trace.json"
    with tj.profile(path):
        first = f(X)
        second = f(X)
    third = f(X)
    assert np.array_equal(first, third)
    assert np.array_equal(second, third)
    marks = load(path)
    complete = [m for m in marks if m["ph"] == "X"]
    kinds = [m["cat"] for m in complete]
    for kind in ("trace", "plan", "compile", "run", "kernel", "numpy"):
        assert kind in kinds, kind
    assert kinds.count("run") == 2
    assert kinds.count("numpy") == 2
    kernels = [m for m in complete if m["cat"] == "kernel"]
    assert len(kernels) == 2 * len([s for s in tj.explain(f, X).steps if s.kind != "NumPy"])
    (product, _) = [m for m in kernels if "matmul" in m["name"]]
    assert "test_trace_file.py:" in product["name"]
    assert any(line.startswith(__file__) for line in product["args"]["lines"])
    for m in complete:
        assert m["dur"] >= 0
        # Compilers may be processes of their own.
        assert m["pid"] == os.getpid() or m["cat"] == "compile"
        assert isinstance(m["tid"], int)
    named = {m["tid"]: m["args"]["name"] for m in marks if m["name"] == "thread_name"}
    assert {m["tid"] for m in complete} <= set(named)
    assert named[threading.get_native_id()] == "MainThread"
    tiers = [m for m in marks if m["ph"] == "i" and m["cat"] == "tiers"]
    assert any("runs compiled" in m["name"] for m in tiers)


def test_arrows_lead_from_a_request_to_the_first_run_of_its_kernel():
    f = tj.jit(lambda x: np.arctan(program(x)) - x, compile="background")  # no other test has it
    with tj.profile() as found:
        f(X)
        f.wait()
        for _ in range(3):
            f(X)
    marks = found.as_dict()["traceEvents"]
    spans_at = {(m["pid"], m["tid"], m["ts"]): m for m in marks if m["ph"] == "X"}
    flows: dict[int, list[dict[str, Any]]] = {}
    for m in marks:
        if m["ph"] in "stf":
            flows.setdefault(m["id"], []).append(m)
    assert flows
    for steps in flows.values():
        *before, last = [spans_at[m["pid"], m["tid"], m["ts"]]["cat"] for m in steps]
        assert before[0] == "request"
        assert set(before[1:]) == {"compile"}  # of the compiler's thread, and of its worker
        assert last == "kernel"
        assert [m["ph"] for m in steps] == ["s", *"t" * len(before[1:]), "f"]


def test_kernels_lie_within_their_run():
    f = tj.jit(program, compile="now")
    f(X)
    with tj.profile() as found:
        f(X)
    (run,) = [s for s in found.spans if s.category == "run"]
    inside = [s for s in found.spans if s.category in ("kernel", "numpy")]
    assert inside
    assert run.name == "program"
    for span in inside:
        assert run.start <= span.start
        assert span.start + span.seconds <= run.start + run.seconds
    for one, two in itertools.pairwise(inside):
        assert one.start + one.seconds <= two.start


def test_interpreted_runs_are_spans():
    f = tj.jit(program, compile="never")
    with tj.profile() as found:
        f(X)
    (span,) = [s for s in found.spans if s.category == "interpret"]
    assert span.name == "interpret program"
    ops = [s for s in found.spans if s.category == "numpy"]
    assert [s.name.split(" at test_trace_file.py:")[0] for s in ops] == [
        "NumPy matmul", "NumPy tanh", "NumPy sort", "NumPy mean", "NumPy subtract",
    ]  # fmt: skip
    assert all(s.details["line"].startswith(__file__) for s in ops)
    for op in ops:
        assert span.start <= op.start
        assert op.start + op.seconds <= span.start + span.seconds


def test_spans_of_a_thread_nest(tmp_path: Path):
    """As viewers want them: in a thread one span holds another whole, or they are apart."""
    path = tmp_path / "trace.json"
    with tj.profile(path):
        for factor in range(3):
            f = tj.jit(lambda x, n=float(factor): program(x) * (n + 0.25))

            def call(f: Any = f) -> None:
                for _ in range(3):
                    f(X)

            threads = [threading.Thread(target=call) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            f.wait()
            f(X)
    marks = load(path)
    lines: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for m in marks:
        if m["ph"] == "X":
            lines.setdefault((m["pid"], m["tid"]), []).append(m)
    assert len(lines) > 9  # those that called, and one that compiled
    for found in lines.values():
        open_until: list[float] = []
        for m in sorted(found, key=lambda m: (m["ts"], -m["dur"])):
            assert m["ts"] >= 0
            start, end = m["ts"], m["ts"] + m["dur"]
            while open_until and open_until[-1] <= start + 1e-3:
                open_until.pop()
            assert not open_until or end <= open_until[-1] + 1e-3, m["name"]
            open_until.append(end)
    named = {(m["pid"], m["tid"]) for m in marks if m["name"] == "thread_name"}
    assert {(m["pid"], m["tid"]) for m in marks if m["ph"] in "Xi"} <= named
    order = {m["pid"]: m["args"]["sort_index"] for m in marks if m["name"] == "process_sort_index"}
    assert order[os.getpid()] == 0
    assert sorted(order.values()) == list(range(len(order)))


def test_what_began_before_the_block_has_no_negative_time():
    with tj.profile() as found:
        spans.add("early", "run", found.started - 1.0)
    (early,) = [m for m in found.as_dict()["traceEvents"] if m["ph"] == "X"]
    assert early["ts"] == 0
    assert early["dur"] >= 1e6


def test_threads_have_lines_of_their_own():
    f = tj.jit(program, compile="now")
    f(X)
    with tj.profile() as found:
        threads = [threading.Thread(target=f, args=(X,), name=f"caller {n}") for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    runs = [s for s in found.spans if s.category == "run"]
    assert len(runs) == 3
    named = {found.names[s.process, s.thread] for s in runs}
    assert named <= {"caller 0", "caller 1", "caller 2"}


@pytest.mark.skipif(not workers.allowed(), reason="no worker processes here")
def test_a_worker_process_has_a_line_of_its_own():
    compiler = Compiler()
    try:
        with tj.profile() as found:
            text = "define i64 @f() {\n  ret i64 7\n}\n"
            compiler.compile(text, LEVELS["generic"], 2, hurry=False, more=False)
    finally:
        compiler.close()
    (span,) = [s for s in found.spans if s.category == "compile"]
    assert span.process == span.thread != os.getpid()
    marks = found.as_dict()["traceEvents"]
    names = {m["pid"]: m["args"]["name"] for m in marks if m["name"] == "process_name"}
    assert names[span.process] == "tracejit worker"


def test_nothing_remains_after_a_block_that_raises(tmp_path: Path):
    path = tmp_path / "trace.json"
    f = tj.jit(program, compile="now")
    with pytest.raises(TraceError), tj.profile(path):
        tj.jit(lambda x: f(x) if x[0, 0] > 0 else x)(X)
    assert [m for m in load(path) if m["ph"] == "M"]
    assert spans.active is None
    assert monitor.active is None
    with tj.profile() as outer:
        with tj.profile() as inner:
            f(X)
        f(X)
    assert [len([s for s in p.spans if s.category == "run"]) for p in (outer, inner)] == [1, 1]
    assert spans.active is None


def test_a_path_that_cannot_be_written_raises(tmp_path: Path):
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "trace.json"
    with pytest.raises((FileExistsError, NotADirectoryError)), tj.profile(path):
        pass
    assert spans.active is None


def test_blocks_of_threads_may_end_in_any_order():
    f = tj.jit(program, compile="now")
    f(X)
    first, second = tj.profile(), tj.profile()
    one = first.__enter__()
    two = second.__enter__()
    first.__exit__(None, None, None)
    f(X)
    second.__exit__(None, None, None)
    f(X)
    assert [len([s for s in p.spans if s.category == "run"]) for p in (one, two)] == [0, 1]
    assert spans.active is None
    assert monitor.active is None


MAPPED = """
import gc, os, numpy as np, tracejit as tj
from tracejit.runtime import code
f = tj.jit(lambda x: np.sqrt(x) * 3 + x, compile="now")
x = np.ones(100)
for _ in range(4):
    f(x)
for number in range(8):  # code that nobody runs any more keeps its address
    tj.jit(lambda x: np.tan(x) - number, compile="now")(x)
    code.cache.clear()
    gc.collect()
child = os.fork()
if not child:
    tj.jit(lambda x: np.exp(x) - x, compile="now")(x)
    os._exit(0)
os.waitpid(child, 0)
print(os.getpid(), child)
"""


def run(code: str, tmp_path: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"TRACEJIT_CACHE_DIR": str(tmp_path), **more}
    return subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="perf is Linux's")
def test_the_map_for_perf_names_kernels(tmp_path: Path):
    pids = run(MAPPED, tmp_path, TRACEJIT_PERF_MAP="1").stdout.split()
    maps = [Path(f"/tmp/perf-{pid}.map") for pid in pids]
    try:
        parent, child = (m.read_text().splitlines() for m in maps)
        assert [m.stat().st_mode & 0o777 for m in maps] == [0o600, 0o600]
    finally:
        for m in maps:
            m.unlink(missing_ok=True)
    for line in parent:
        address, size, name = line.split(" ", 2)
        assert int(address, 16) > 0
        assert int(size, 16) > 0
        assert name.startswith("tracejit ")
    assert any("sqrt" in line and " at <string>:4" in line for line in parent)
    assert any("driver" in line for line in parent)
    pieces = sorted(tuple(int(n, 16) for n in line.split(" ", 2)[:2]) for line in parent)
    assert all(start + size <= after for (start, size), (after, _) in itertools.pairwise(pieces))
    assert sum("tan" in line for line in parent) > 1
    # A fork knows what its parent had loaded, and adds its own.
    assert child[: len(parent)] == parent
    assert any("exp" in line for line in child[len(parent) :])
    pids = run(MAPPED, tmp_path).stdout.split()
    assert not any(os.path.exists(f"/tmp/perf-{pid}.map") for pid in pids)


def test_the_map_for_perf_has_code_of_plans_for_ranges_of_sizes(monkeypatch: pytest.MonkeyPatch):
    f = tj.jit(lambda x: np.arcsinh(np.expm1(x)) - np.cbrt(x), compile="now")
    f(np.ones(100))
    names: list[str] = []
    monkeypatch.setattr(perf, "wanted", lambda: True)
    monkeypatch.setattr(perf, "note", lambda loaded, name: names.append(name))
    f(np.ones(101))  # by a plan: no signature of its own, and so no executable
    assert f.stats()["dynamic"] == 1
    assert any("arcsinh" in name for name in names)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="perf is Linux's")
@pytest.mark.parametrize("kind", ["symlink", "hard link", "fifo", "folder"])
def test_the_map_follows_no_link(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    monkeypatch.setattr(perf, "_FOLDER", str(tmp_path))
    monkeypatch.setattr(perf, "_owner", 0)
    monkeypatch.setattr(perf, "_file", None)
    monkeypatch.setattr(perf, "_lines", [])
    monkeypatch.setattr(perf, "_seen", set())
    where = Path(perf.path())
    match kind:
        case "symlink":
            where.symlink_to(victim)
        case "hard link":
            os.link(victim, where)
        case "fifo":
            os.mkfifo(where)
        case _:
            where.mkdir()
    f = tj.jit(lambda x: np.sqrt(x) * 9 - np.cos(x), compile="now")
    with config.override(perf_map=True):
        assert f(X).shape == X.shape
    assert f.stats()["tier"] == 1
    assert [r.message[:15] for r in caplog.records] == ["no map for perf"]
    assert victim.read_text() == "mine"
