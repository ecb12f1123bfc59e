"""Compile workers: processes that may die, hang on, be forbidden or be forked away from."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tracejit import config
from tracejit.codegen import llvm
from tracejit.codegen.target import LEVELS
from tracejit.errors import InternalError
from tracejit.runtime import service as services
from tracejit.runtime import workers
from tracejit.runtime.code import Code
from tracejit.runtime.service import Service
from tracejit.runtime.workers import Compiler, Worker, WorkerCrashed, WorkerDied

pytestmark = pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="counts processes in /proc"
)
TARGET = LEVELS["generic"]


def text(number: int) -> str:
    return f"define i64 @f() {{\n  ret i64 {number}\n}}\n"


def slow(number: int) -> str:
    """Return a function whose compilation takes a while: long enough to be killed in."""
    body = "".join(
        f"  %a{i} = mul i64 %a{i - 1}, {i | 1}\n  %b{i} = xor i64 %a{i}, %b{i - 1}\n"
        for i in range(1, 12_000)
    )
    return (
        f"define i64 @f() {{\n  %p = alloca i64\n  %a0 = load volatile i64, ptr %p\n"
        f"  %b0 = load volatile i64, ptr %p\n{body}  ret i64 {number}\n}}\n"
    )


def value(code: Code) -> int:
    return ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)()


def gone(pid: int) -> bool:
    """Whether a process has ended and left no zombie."""
    for _ in range(100):
        if not Path(f"/proc/{pid}").exists():
            return True
        time.sleep(0.05)
    return False


_before: set[int] = set()


def pids() -> list[int]:
    """Return the workers that the test has started; earlier tests' may still be idle."""
    return [pid for pid in workers.pids() if pid not in _before]


@pytest.fixture(autouse=True)
def no_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(workers, "_forbidden", "")
    monkeypatch.setattr(services, "IDLE_SECONDS", 0.2)
    _before.update(workers.pids())
    with config.override(disk_cache=0, compile_workers=1):
        yield
    _before.clear()


@pytest.fixture
def compiler() -> Iterator[Compiler]:
    compiler = Compiler()
    yield compiler
    compiler.close()


def compile_there(compiler: Compiler, source: str) -> bytes:
    return compiler.compile(source, TARGET, 2, hurry=False, more=False)


def test_a_worker_gives_the_code_that_this_process_would(compiler: Compiler) -> None:
    before = dict(workers.counts)
    for number in range(5):
        here = llvm.compile_object(text(number), TARGET, 2, passes=0)
        assert compile_there(compiler, text(number)) == here
    assert workers.counts["in_workers"] - before["in_workers"] == 5
    assert workers.counts["workers_started"] - before["workers_started"] == 1


def test_a_worker_loads_neither_numpy_nor_tracejit(compiler: Compiler) -> None:
    compile_there(compiler, text(1))
    (pid,) = pids()
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "llvmlite" in maps
    assert "numpy" not in maps


def test_llvm_is_called_as_its_own_wrapper_calls_it() -> None:
    import llvmlite.binding.ffi as ffi  # pyright: ignore[reportMissingTypeStubs]

    def plain(kind: Any) -> Any:
        """Return the kind of a value; all pointers but to text are one."""
        simple = kind is None or issubclass(kind, ctypes._SimpleCData)  # pyright: ignore[reportPrivateUsage]
        return kind if simple else ctypes.c_void_p

    for name, (result, *arguments) in llvm.FUNCTIONS.items():
        theirs: Any = getattr(ffi.lib, f"LLVMPY_{name}")
        if arguments and theirs.argtypes is not None:
            assert [plain(kind) for kind in theirs.argtypes] == arguments, name
        if result is not None:  # ctypes takes int for what returns nothing
            assert plain(theirs.restype) == result, name


STRIDED = """
define void @f(ptr %p, i64 %n, i64 %step) {
entry:
  br label %head
head:
  %i = phi i64 [ 0, %entry ], [ %next, %head ]
  %row = mul i64 %i, %step
  %place = getelementptr double, ptr %p, i64 %row
  store double 1.0, ptr %place
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %head, label %done
done:
  ret void
}
"""


def test_others_in_the_process_keep_the_pass_that_kernels_do_without() -> None:
    binding = llvm.binding()
    machine = binding.Target.from_default_triple().create_target_machine(opt=2)

    def theirs() -> str:
        return machine.emit_assembly(binding.parse_assembly(STRIDED))

    before = theirs()
    assert "imul" not in before  # multiplying has become adding
    with ThreadPoolExecutor(4) as pool:
        for own in pool.map(lambda _: llvm.assembly(STRIDED, TARGET, passes=0), range(8)):
            assert "imul" in own
    assert theirs() == before


def test_threads_compile_side_by_side() -> None:
    expected = [llvm.compile_object(slow(n), TARGET) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda n: llvm.compile_object(slow(n), TARGET), range(4))) == expected


@pytest.mark.fault("LLVM crashes or refuses")
def test_invalid_ir_is_an_error_and_the_worker_goes_on(compiler: Compiler) -> None:
    with pytest.raises(InternalError, match="does not verify"):
        compile_there(compiler, "define void @f() { nonsense }")
    assert compile_there(compiler, text(2))
    assert len(pids()) == 1


def test_a_worker_is_recycled_and_ended(
    compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "RECYCLE", 3)
    seen: set[int] = set()
    for number in range(7):
        compile_there(compiler, text(number))
        seen.update(pids())
    compiler.close()
    assert len(seen) == 3
    assert all(gone(pid) for pid in seen)


@pytest.fixture
def kill_while_compiling(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that lets the next so many workers die while they compile."""

    def prepare(count: int) -> None:
        receive, left = Worker._receive, [count]  # pyright: ignore[reportPrivateUsage]

        def dying(worker: Worker, length: int) -> bytes:
            if left[0]:
                left[0] -= 1
                os.kill(worker.pid, signal.SIGKILL)
            return receive(worker, length)

        monkeypatch.setattr(Worker, "_receive", dying)

    return prepare


@pytest.mark.fault("compile worker killed")
def test_a_killed_worker_is_replaced_and_the_request_repeated(
    compiler: Compiler, kill_while_compiling: Callable[[int], None]
) -> None:
    before = dict(workers.counts)
    kill_while_compiling(1)
    image = compile_there(compiler, slow(5))
    assert image == llvm.compile_object(slow(5), TARGET, 2, passes=0)
    assert workers.counts["workers_died"] - before["workers_died"] == 1
    assert workers.counts["workers_started"] - before["workers_started"] == 2
    assert workers.counts["in_process"] == before["in_process"]


@pytest.mark.fault("compile worker killed")
def test_a_worker_that_dies_as_it_starts_is_replaced(compiler: Compiler) -> None:
    started: list[int] = []

    def watch() -> None:
        while not started:
            started.extend(pids())
        os.kill(started[0], signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    assert compile_there(compiler, text(5))
    thread.join()
    assert workers.allowed()
    assert gone(started[0])


@pytest.mark.fault("compile worker killed")
def test_where_two_workers_are_killed_it_is_compiled_here(
    compiler: Compiler,
    kill_while_compiling: Callable[[int], None],
    record_property: Callable[[str, object], None],
) -> None:
    before = dict(workers.counts)
    kill_while_compiling(2)
    assert compile_there(compiler, slow(6))
    killed = workers.counts["workers_died"] - before["workers_died"]
    record_property("faults", killed)
    assert killed == 2
    assert workers.counts["in_process"] - before["in_process"] == 1
    assert compile_there(compiler, text(6))
    assert workers.counts["in_workers"] - before["in_workers"] == 1


@pytest.mark.fault("LLVM crashes or refuses")
def test_a_crash_of_llvm_is_an_error_and_not_repeated_here() -> None:
    worker = Worker()
    worker.wait_ready()
    os.kill(worker.pid, signal.SIGSEGV)
    before = workers.counts["in_process"]
    with pytest.raises(WorkerCrashed, match="signal 11"):
        worker.compile(text(1), TARGET, 2)
    assert workers.counts["in_process"] == before
    assert gone(worker.pid)


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let two workers compile, whatever ``TRACEJIT_COMPILE_WORKERS`` says."""
    monkeypatch.setattr(config, "compile_workers", lambda: 2)


@pytest.mark.usefixtures("two_workers")
def test_the_service_uses_a_worker_and_ends_it_when_idle() -> None:
    service = Service()
    numbers = range(7_000_000, 7_000_040)
    before = workers.counts["in_workers"]
    tickets = [service.submit(f"f {n}", lambda n=n: text(n), "f", TARGET) for n in numbers]
    seen: set[int] = set()
    while not tickets[-1].done():
        seen.update(pids())
        time.sleep(0.001)
    assert [value(t.result(30)) for t in tickets] == list(numbers)
    assert workers.counts["in_workers"] > before
    assert seen
    assert all(gone(pid) for pid in seen)
    assert service.stats()["threads"] == 0


@pytest.mark.usefixtures("two_workers")
def test_who_compiled_much_leaves_the_rest_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "IN_PROCESS", 0)
    service = Service()
    before = dict(workers.counts)
    numbers = range(7_100_000, 7_100_016)

    def ask(n: int) -> int:
        with config.override(disk_cache=0):  # the pool's threads have the environment's settings
            return value(service.obtain(f"f {n}", lambda: text(n), "f", TARGET))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, [*numbers, *numbers])) == [*numbers, *numbers]
    assert workers.counts["in_workers"] - before["in_workers"] == 16
    assert workers.counts["in_process"] == before["in_process"]


@pytest.mark.fault("no worker can be started")
@pytest.mark.parametrize(
    ("attribute", "setting"),
    [("frozen", True), ("executable", ""), ("executable", "/usr/bin/blender")],
)
def test_without_an_interpreter_threads_serve(
    monkeypatch: pytest.MonkeyPatch, attribute: str, setting: object
) -> None:
    before = workers.counts["workers_started"]
    monkeypatch.setattr(sys, attribute, setting, raising=False)
    assert not workers.allowed()
    assert workers.status()
    number = 7_200_000 + len(str(setting))
    ticket = Service().submit(f"f {number}", lambda: text(number), "f", TARGET)
    assert value(ticket.result(30)) == number
    assert workers.counts["workers_started"] == before


@pytest.mark.fault("no worker can be started")
def test_an_executable_that_is_no_interpreter_is_tried_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    impostor = tmp_path / "python3"
    impostor.write_text("#!/bin/sh\necho hello\n")
    impostor.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(impostor))
    compiler = Compiler()
    assert compile_there(compiler, text(7))
    assert not workers.allowed()
    assert "do not start" in workers.status()


@pytest.mark.fault("no worker can be started")
def test_where_processes_are_forbidden_threads_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "posix_spawn", refuse)
    assert compile_there(Compiler(), text(8))
    assert "Operation not permitted" in workers.status()


def test_zero_workers_means_threads() -> None:
    with config.override(compile_workers=0):
        assert not workers.allowed()


# -- the end of the process ------------------------------------------------------------------------

BEGIN = """
import os, sys, time
from tracejit.codegen.target import LEVELS
from tracejit.runtime import service, workers

def text(n, count=12000):
    body = "".join(f"  %a{i} = mul i64 %a{i-1}, {i|1}\\n" for i in range(1, count))
    return (f"define i64 @f() {{\\n  %p = alloca i64\\n  %a0 = load volatile i64, ptr %p\\n"
            f"{body}  ret i64 %a{count - 1}\\n}}\\n")

tickets = [
    service.submit(f"f {n}", lambda n=n: text(n), "f", LEVELS["generic"]) for n in range(20)
]
tickets[0].result(60)
pids = workers.pids()
print(*pids, flush=True)
"""


def start(program: str) -> subprocess.Popen[str]:
    environ = os.environ | {"TRACEJIT_DISK_CACHE": "0", "TRACEJIT_COMPILE_WORKERS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", BEGIN + program],
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.fault("process ends, forks or is killed beside its worker")
@pytest.mark.parametrize(
    ("ending", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise KeyboardInterrupt", -signal.SIGINT),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("os.kill(os.getpid(), 15)", -signal.SIGTERM),
    ],
)
def test_no_end_of_the_process_leaves_a_worker(ending: str, status: int) -> None:
    process = start(ending)
    began = time.monotonic()
    out, errors = process.communicate(timeout=60)
    assert process.returncode == status, errors
    assert time.monotonic() - began < 30
    assert "Exception" not in errors
    pids = [int(pid) for pid in out.split()]
    assert pids
    assert all(gone(pid) for pid in pids)


@pytest.mark.fault("process ends, forks or is killed beside its worker")
def test_a_forked_child_leaves_its_parents_worker_alone() -> None:
    process = start(
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert not workers.pids()\n"
        "    code = service.obtain('mine', lambda: text(99, 50), 'f', LEVELS['generic'])\n"
        "    tickets[-1].result()\n"
        "    sys.exit(0)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "for ticket in tickets:\n"
        "    ticket.result(60)\n"
        "assert workers.pids() == pids and workers.counts['workers_died'] == 0\n"
    )
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert all(gone(int(pid)) for pid in out.split())


@pytest.mark.fault("process ends, forks or is killed beside its worker")
def test_a_worker_ends_with_its_parent_though_a_forked_child_lives_on() -> None:
    process = start(
        "child = os.fork()\n"
        "if child == 0:\n"
        "    time.sleep(20)\n"
        "    os._exit(0)\n"
        "print(child, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    child = int(process.stdout.readline())
    try:
        assert pids
        assert all(gone(pid) for pid in pids)
    finally:
        os.kill(child, signal.SIGKILL)
        process.kill()
        process.communicate()


@pytest.mark.fault("process ends, forks or is killed beside its worker")
def test_a_daemonic_child_of_multiprocessing_may_have_workers() -> None:
    program = (
        "import multiprocessing as m\n"
        "def work(q):\n"
        "    t = service.submit('child', lambda: text(5, 50), 'f', LEVELS['generic'])\n"
        "    t.result(60); q.put(workers.counts['in_workers'] + workers.counts['in_process'])\n"
        "q = m.get_context('fork').SimpleQueue()\n"
        "p = m.get_context('fork').Process(target=work, args=(q,), daemon=True)\n"
        "p.start(); count = q.get(); p.join(); assert count >= 1 and p.exitcode == 0\n"
    )
    process = start(program)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors


# -- memory ----------------------------------------------------------------------------------------

MANY = """
import ctypes, gc, sys
from pathlib import Path
from tracejit.codegen.target import LEVELS
from tracejit.runtime import code, service, workers

def kernel(n):
    body = "".join(f"  %a{i} = mul i64 %a{i-1}, {n + i}\\n" for i in range(1, 60))
    return f"define i64 @f(i64 %a0) {{\\n{body}  ret i64 %a59\\n}}\\n"

def resident():
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def compile_all(numbers):
    for n in numbers:
        service.obtain(f"f {n}", lambda: kernel(n), "f", LEVELS["avx2"])

compile_all(range(300))
before = resident()
compile_all(range(1000, 1000 + int(sys.argv[1])))
print(resident() - before, service.stats()["compiled"], code.cache.bytes)
"""


def growth(count: int) -> tuple[int, int, int]:
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(count)],
        env=os.environ | {"TRACEJIT_DISK_CACHE": "0", "TRACEJIT_CODE_CACHE": str(1 << 20)},
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    grown, compiled, kept = map(int, done.stdout.split())
    return grown, compiled, kept


@pytest.mark.slow
def test_two_thousand_compilations_keep_little_memory() -> None:
    grown, compiled, kept = growth(2000)
    assert compiled == 2300
    assert kept <= 1 << 20
    assert grown < 10 << 20


@pytest.mark.fault("compile worker killed")
def test_a_dead_worker_is_told_apart_from_a_refusal() -> None:
    worker = Worker()
    worker.wait_ready()
    worker.kill()
    with pytest.raises(WorkerDied):
        worker.compile(text(1), TARGET, 2)
    assert gone(worker.pid)
