"""Object code on disk: what is damaged or not ours is never run, and never stops a program."""

from __future__ import annotations

import ctypes
import errno
import os
import random
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.target import LEVELS, Target
from tracejit.record import replace
from tracejit.runtime import cache, cpu
from tracejit.runtime import code as codes
from tracejit.runtime.cache import DiskCache, Entry
from tracejit.runtime.service import Service

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")
TARGET = LEVELS["generic"]
NAME = "ab" * 20


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A cache folder of its own, in force."""
    path = tmp_path / "cache"
    with config.override(cache_dir=path, disk_cache=1 << 28):
        yield path


def text(number: int) -> str:
    return f"define i64 @f() {{\n  ret i64 {number}\n}}\n"


def ask(number: int, target: Target = TARGET, service: Service | None = None) -> int:
    """Return what a function that returns ``number`` returns, as a new process would get it."""
    codes.clear()
    code = (service or Service()).obtain(f"f {number}", lambda: text(number), "f", target)
    return ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)()


def files(folder: Path) -> list[Path]:
    return sorted((folder / "code").iterdir())


def origin(number: int, service: Service) -> str:
    codes.clear()
    return service.obtain(f"f {number}", lambda: text(number), "f", TARGET).origin


def run(program: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TRACEJIT_CACHE_DIR": str(folder)} | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# -- what it is for --------------------------------------------------------------------------------

PROGRAM = """
import numpy as np
import tracejit as tj
from tracejit.codegen import llvm
from tracejit.runtime import service

def program(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)) @ x.T

x = np.linspace(0, 1, 64 * 48).reshape(64, 48)
f = tj.jit(program, compile="now")
for _ in range(3):
    result = f(x)
assert np.allclose(result, program(x))
stats = service.stats()
print(stats["compiled"], stats["disk_hits"], llvm.loaded())
"""


def test_a_second_process_compiles_nothing_and_does_not_load_llvm(folder: Path) -> None:
    # Without workers, in which LLVM would be loaded otherwise.
    compiled, hits, llvm = run(PROGRAM, folder, TRACEJIT_COMPILE_WORKERS="0").stdout.split()
    assert int(compiled) >= 2
    assert (hits, llvm) == ("0", "True")
    done = run(PROGRAM, folder)
    assert done.stdout.split() == ["0", compiled, "False"], done.stderr
    # Of another level nothing is used.
    assert run(PROGRAM, folder, TRACEJIT_ISA="generic").stdout.split()[1] == "0"


# What writes code: none of it is for a process that finds its code on disk.
EMITTING = {
    "tracejit.codegen.attention.kernel",
    "tracejit.codegen.builder",
    "tracejit.codegen.contraction.gemm",
    "tracejit.codegen.elementwise",
    "tracejit.codegen.emitters",
    "tracejit.codegen.loops",
    "tracejit.codegen.math",
}

# What plans: none of it is for a process that finds its plans on disk.
PLANNING = {
    "tracejit.codegen.contraction",
    "tracejit.codegen.driver",
    "tracejit.codegen.entry",
    "tracejit.graph.passes",
    "tracejit.runtime.engine",
    "tracejit.schedule.fusion",
    "tracejit.schedule.kernel",
    "tracejit.schedule.schedule",
}
# What no such program needs; of Python's own what takes long to import.
OTHERS = {"dataclasses", "hashlib", "json", "pathlib", "tracejit.frontend.dynamic"}

EMITTERS = """
import sys
import numpy as np
import tracejit as tj

def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def dense(x, w):
    return np.maximum(x @ w, 0) + 1

def attention(q, k, v):
    return tj.attention(q, k, v)

# (Random numbers would load some of what is not to be loaded.)
x, w = np.linspace(0, 1, 3072).reshape(64, 48), np.linspace(-1, 2, 3072).reshape(48, 64)
heads = [np.sin(np.arange(2048.0) * n).reshape(2, 64, 16) for n in range(1, 4)]
programs = (softmax, [x]), (np.matmul, [x, w]), (dense, [x, w]), (attention, heads)
for function, arguments in programs:
    compiled = tj.jit(function, compile="now")
    assert np.allclose(compiled(*arguments), np.asarray(function(*arguments)))
    assert compiled.stats()["tier"] == 1, compiled.stats()
from tracejit.runtime import service
print(service.stats()["compiled"], *sys.modules)
"""


def test_a_full_cache_loads_nothing_that_plans_or_emits(folder: Path) -> None:
    def loaded() -> tuple[int, set[str]]:
        # (Expressions hold arrays: where they are compiled at once, they are planned each time.)
        done = run(EMITTERS, folder, TRACEJIT_COMPILE_WORKERS="0", TRACEJIT_STRESS_COMPILE="0")
        assert done.returncode == 0, done.stderr
        compiled, *modules = done.stdout.split()
        return int(compiled), set(modules)

    compiled, modules = loaded()
    assert compiled >= 4
    assert modules >= EMITTING | PLANNING
    compiled, modules = loaded()
    assert compiled == 0
    assert not modules & (EMITTING | {"networkx", "cpuinfo", "rich", "typer"})
    assert not modules & (PLANNING | OTHERS)


def test_an_entry_is_found_without_emitting(folder: Path) -> None:
    assert ask(1) == 1
    codes.clear()
    service = Service()
    ticket = service.submit("f 1", lambda: 1 / 0, "f", TARGET)  # type: ignore[arg-type, return-value]
    assert ticket.done()
    assert ticket.result().origin == "disk"
    codes.clear()
    assert service.find("f 1", lambda: "", "f", TARGET) is not None
    assert service.find("f 2", lambda: "", "f", TARGET) is None
    # What an entry is for is part of its key.
    assert service.find("f 1", lambda: "", "f", TARGET, 3) is None
    assert service.find("f 1", lambda: "", "f", LEVELS["sse4.2"]) is None


def test_files_are_private(folder: Path) -> None:
    before = os.umask(0)
    try:
        ask(1)
    finally:
        os.umask(before)
    for path in (folder, folder / "code"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (file,) = files(folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_the_key_follows_the_code_generator(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    name = cache.name_of("f", TARGET, 2)
    assert name == cache.name_of("f", TARGET, 2)
    # The same sources elsewhere: the same key, until one of them is edited.
    package = Path(cache.__file__).parent.parent
    for part in ("codegen", "graph", "ops", "schedule", "runtime"):
        shutil.copytree(package / part, tmp_path / part)
    shutil.copy(package / "sizes.py", tmp_path)
    monkeypatch.setattr(cache, "__file__", str(tmp_path / "runtime" / "cache.py"))
    monkeypatch.setattr(config, "IMPORTED", time.time() + 60)
    cache.fingerprint.cache_clear()
    assert cache.name_of("f", TARGET, 2) == name
    with (tmp_path / "codegen" / "reducers.py").open("a") as source:
        source.write("# a change\n")
    cache.fingerprint.cache_clear()
    assert cache.name_of("f", TARGET, 2) != name
    shutil.rmtree(tmp_path / "ops")  # without sources nothing can be told
    cache.fingerprint.cache_clear()
    assert cache.name_of("f", TARGET, 2) is None
    monkeypatch.undo()
    cache.fingerprint.cache_clear()
    assert cache.name_of("f", TARGET, 2) == name
    # A process whose sources were edited since it read them runs neither the old nor the new.
    cache.fingerprint.cache_clear()
    monkeypatch.setattr(config, "IMPORTED", 0.0)
    assert cache.name_of("f", TARGET, 2) is None
    cache.fingerprint.cache_clear()


def test_the_text_of_the_code_generator_is_read_again_where_a_file_has_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "source.py"
    source.write_text("a = 1\n")
    files = [str(source)]

    def found() -> bytes | None:
        return cache._known_text(files, [os.stat(path) for path in files])

    def read() -> bytes:
        return cache._text_of(files, [os.stat(path) for path in files])

    first = read()
    assert found() is None  # while nothing else is kept
    ask(1)
    assert read() == found() == first
    before = os.stat(source)
    time.sleep(0.02)  # the times of files go by ticks of some milliseconds
    source.write_text("a = 2\n")
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))  # same size, same time
    assert found() is None
    assert read() == found() != first
    time.sleep(0.02)
    source.write_text("a = 1\n")
    assert found() is None
    assert read() == found() == first


def test_keys_do_not_depend_on_the_process() -> None:
    program = (
        "from tracejit.runtime import cache, cpu\n"
        "print(cache.name_of('f', cpu.target(), 2), cache.name_of('f', cpu.target('generic'), 2))"
    )
    outputs = {
        run(program, Path(os.environ["TRACEJIT_CACHE_DIR"]), PYTHONHASHSEED=seed).stdout
        for seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert len(set(outputs.pop().split())) == 2


def test_other_instruction_sets_have_other_keys() -> None:
    here = cpu.host()
    names = {cache.name_of("f", cpu.resolve(level, here), 2) for level in here.levels}
    assert len(names) == len(here.levels)
    # The same level of another machine: other caches, or features that this one's kernel hides.
    for other in (
        replace(TARGET, l2_bytes=1 << 22),
        replace(TARGET, features="+avx"),
        replace(TARGET, flags=frozenset({"avx"})),
    ):
        assert cache.name_of("f", other, 2) not in names


# -- damage ----------------------------------------------------------------------------------------


def corruptions(data: bytes, count: int) -> Iterator[bytes]:
    choose = random.Random(7)
    yield b""
    yield b"\0" * len(data)
    yield data[:-1]
    yield data + b"\0"
    yield b"\x7fELF" + data[4:]
    for _ in range(count):
        kind, at = choose.randrange(4), choose.randrange(len(data))
        changed = bytearray(data)
        if kind == 0:
            changed[at] ^= 1 << choose.randrange(8)
        elif kind == 1:
            del changed[at:]
        elif kind == 2:
            for i in range(at, min(at + choose.randrange(1, 64), len(data))):
                changed[i] = choose.randrange(256)
        else:
            changed[at:at] = choose.randbytes(choose.randrange(1, 32))
        if bytes(changed) != data:
            yield bytes(changed)


@pytest.mark.fault("damaged cache entry")
def test_600_corruptions_give_no_crash_and_no_wrong_result(
    folder: Path, record_property: Callable[[str, object], None]
) -> None:
    service = Service()
    assert ask(77, service=service) == 77
    (file,) = files(folder)
    good = file.read_bytes()
    tried = 0
    for bad in corruptions(good, 600):
        file.write_bytes(bad)
        assert cache.disk().load(file.name) is None
        assert not file.exists()  # a damaged entry is dropped
        tried += 1
    assert tried >= 600
    # And through the whole path: compiled anew, and stored again.
    for bad in corruptions(good, 25):
        file.write_bytes(bad)
        assert ask(77, service=service) == 77
        assert file.read_bytes()[:8] == good[:8]
        tried += 1
    record_property("faults", tried)
    assert service.stats()["disk_hits"] == 0
    assert origin(77, service) == "disk"


@pytest.mark.fault("damaged cache entry")
def test_an_entry_under_another_name_is_not_taken(folder: Path) -> None:
    service = Service()
    ask(1)
    (one,) = files(folder)
    ask(2)
    (two,) = set(files(folder)) - {one}
    two.write_bytes(one.read_bytes())
    assert ask(2, service=service) == 2
    assert service.stats()["disk_hits"] == 0


@pytest.mark.fault("damaged cache entry")
@pytest.mark.parametrize(
    "image",
    [b"", b"not an object file", b"\x7fELF" + bytes(300), b"\x7fELF\x02\x01\x01" + b"\xff" * 400],
)
def test_a_whole_entry_without_object_code_is_dropped(folder: Path, image: bytes) -> None:
    ask(3)
    (file,) = files(folder)
    file.write_bytes(cache.encode(file.name, Entry(image, "f", "generic", "", 0.0)))
    assert ask(3) == 3


@pytest.mark.fault("damaged object file")
def test_damaged_object_files_do_not_crash_the_linker(
    record_property: Callable[[str, object], None],
) -> None:
    from tracejit.errors import InternalError
    from tracejit.runtime import elf

    image = compile_object(
        "declare double @fmod(double, double)\n"
        "define double @f(double %x) {\n"
        "  %y = call double @fmod(double %x, double 0x3FF199999999999A)\n"
        "  ret double %y\n}\n",
        TARGET,
        passes=0,
    )
    tried = parsed = 0
    for bad in corruptions(image, 500):
        tried += 1
        try:
            elf.parse(bad).link(1 << 32, lambda name: 1)
            parsed += 1
        except (elf.Unlinkable, InternalError):
            pass
    record_property("faults", tried)
    assert 0 < parsed < 500  # a flipped bit inside an instruction is for the checksum


@pytest.mark.fault("damaged cache entry")
@pytest.mark.filterwarnings("ignore:.*Is a directory:RuntimeWarning")
def test_strange_files_in_the_folder_are_left_alone(folder: Path, tmp_path: Path) -> None:
    ask(4)
    (file,) = files(folder)
    good = file.read_bytes()
    outside = tmp_path / "outside"
    outside.write_bytes(good)

    def link() -> None:
        file.symlink_to(outside)

    def writable() -> None:
        file.write_bytes(good)
        file.chmod(0o666)

    for make in (link, file.mkdir, lambda: os.mkfifo(file), writable):
        file.unlink()
        make()
        service = Service()
        assert ask(4, service=service) == 4
        assert service.stats()["disk_hits"] == 0
        if file.is_dir():
            file.rmdir()
            file.touch()
    assert outside.read_bytes() == good


# -- folders that must not be used, or cannot be ---------------------------------------------------


def refuses(match: str) -> None:
    """Check that there is one warning, that code is compiled all the same, and nothing stored."""
    service = Service()
    with pytest.warns(RuntimeWarning, match=match) as caught:
        assert [ask(n, service=service) for n in (5, 6, 5)] == [5, 6, 5]
    assert len([w for w in caught if "memory only" in str(w.message)]) == 1
    assert service.stats()["disk_hits"] == 0


@pytest.mark.filterwarnings("error")
def test_where_warnings_are_errors_kernels_compile_all_the_same(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder.mkdir()
    folder.chmod(0o777)
    assert ask(5) == 5
    assert "can be written by others" in caplog.text


@pytest.mark.fault("cache folder that others can write, or that is not ours")
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_is_refused(folder: Path, mode: int, inner: bool) -> None:
    (folder / "code").mkdir(parents=True)
    (folder / "code" if inner else folder).chmod(mode)
    refuses("can be written by others")
    assert not files(folder)


@pytest.mark.fault("cache folder that others can write, or that is not ours")
@pytest.mark.parametrize("inner", [False, True])
def test_a_folder_that_is_a_link_is_refused(folder: Path, inner: bool, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if inner:
        folder.mkdir(mode=0o700)
    (folder / "code" if inner else folder).symlink_to(elsewhere)
    refuses("is a symbolic link")
    assert not list(elsewhere.rglob("*"))


@pytest.mark.fault("cache folder that others can write, or that is not ours")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(folder: Path) -> None:
    (folder / "code").mkdir(parents=True)
    os.chown(folder / "code", 12345, 12345)
    refuses("belongs to another user")


@pytest.mark.fault("cache folder that others can write, or that is not ours")
def test_a_file_in_the_place_of_the_folder_is_refused(folder: Path) -> None:
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("")
    refuses("cannot be")


@pytest.mark.fault("disk full, read-only or gone")
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_read(folder: Path) -> None:
    ask(5)
    (folder / "code").chmod(0o500)
    service = Service()
    try:
        assert origin(5, service) == "disk"
        refuses("cannot be written")
    finally:
        (folder / "code").chmod(0o700)


@pytest.mark.fault("disk full, read-only or gone")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_write_that_fails_leaves_nothing(
    folder: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(1)
    before = files(folder)

    def fail(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(cache.os, "write", fail)
    service = Service()
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert ask(5, service=service) == 5
    assert ask(6, service=service) == 6  # no second warning: it would be an error here
    assert files(folder) == before
    assert origin(1, service) == "disk"  # what is there is still read


@pytest.mark.fault("disk full, read-only or gone")
def test_a_full_disk(folder: Path) -> None:
    """The limit on a file's size stands in for a full disk: writes fail in the middle of a file."""
    program = (
        "import resource, warnings, sys\n"
        "sys.path.insert(0, 'tests')\n"
        "import numpy as np, tracejit as tj\n"
        "x = np.ones((64, 64))\n"
        "f = tj.jit(lambda x: np.exp(x) @ x + 1, compile='now')\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    assert np.allclose(f(x), np.exp(x) @ x + 1)\n"
        "print(sum('memory only' in str(w.message) for w in caught))\n"
    )
    cpu.host()
    done = run(program, folder)
    assert done.stdout.split() == ["1"], done.stderr
    assert not [f for f in files(folder) if f.name.endswith(".tmp") or f.stat().st_size > 700]


@pytest.mark.fault("disk full, read-only or gone")
def test_a_folder_that_vanishes_is_made_again(folder: Path) -> None:
    service = Service()
    assert ask(1, service=service) == 1
    shutil.rmtree(folder)
    assert ask(2, service=service) == 2
    assert len(files(folder)) == 1
    assert origin(2, service) == "disk"
    assert ask(1, service=service) == 1


def test_a_bound_of_zero_keeps_nothing(folder: Path) -> None:
    with config.override(disk_cache=0):
        ask(1)
    assert not folder.exists()


# -- the bound, and time ---------------------------------------------------------------------------


def entry(size: int) -> Entry:
    return Entry(os.urandom(size), "f", "generic", "exp", 0.01)


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    names = [f"{i:02x}" * 20 for i in range(20)]
    disk = DiskCache(tmp_path / "c", 20_000)
    for i, name in enumerate(names):
        assert disk.store(name, entry(900))
        os.utime(tmp_path / "c" / "code" / name, (1e9 + i * 10_000, 1e9 + i * 10_000))
    assert disk.load(names[0]) is not None  # used now
    for i in range(100, 110):
        disk.store(f"{i:02x}" * 20, entry(900))
    left = {f.name for f in files(tmp_path / "c")}
    assert names[0] in left
    assert names[1] not in left
    assert sum(f.stat().st_size for f in files(tmp_path / "c")) <= 20_000 + 20_000 // 16


def test_an_entry_larger_than_the_bound_is_not_written(tmp_path: Path) -> None:
    assert not DiskCache(tmp_path / "c", 500).store(NAME, entry(600))


@pytest.mark.fault("clock that goes backwards")
def test_a_clock_that_goes_backwards_harms_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(1)
    (file,) = files(folder)
    future = time.time() + 1e8
    os.utime(file, (future, future))
    leftover = folder / "code" / f".{NAME}.1.0.tmp"
    leftover.write_bytes(b"half")
    os.utime(leftover, (future, future))
    service = Service()
    assert origin(1, service) == "disk"
    assert abs(file.stat().st_mtime - time.time()) < 60
    cache.disk().clear()
    assert not leftover.exists()
    # Sources "from the future" only mean that nothing is kept.
    cache.fingerprint.cache_clear()
    monkeypatch.setattr(config, "IMPORTED", time.time() - 1e9)
    assert ask(9, service=service) == 9
    cache.fingerprint.cache_clear()


# -- several processes, and some that die ----------------------------------------------------------

FILL = """
import sys
from pathlib import Path
from tracejit.runtime.cache import DiskCache, Entry

disk = DiskCache(Path(sys.argv[1]), 1 << 18)
while True:
    for i in range(64):
        name = f"{i:02x}" * 20
        found = disk.load(name)
        if found is not None:
            assert found.image == bytes([i]) * 9000, "wrong code"
        disk.store(name, Entry(bytes([i]) * 9000, "f", "generic", "", 0.0))
    assert disk.damaged == 0
    print("round", flush=True)
"""


KILLED = 6


@pytest.mark.fault("process killed while it writes an entry")
def test_processes_killed_while_they_write_leave_whole_entries(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    folder, choose = tmp_path / "c", random.Random(3)
    record_property("faults", KILLED)

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", FILL, str(folder)], stdout=subprocess.PIPE, text=True
        )

    survivors = [start(), start()]
    try:
        for _ in range(KILLED):
            victim = start()
            assert victim.stdout is not None
            victim.stdout.readline()
            time.sleep(choose.uniform(0, 0.05))
            victim.kill()
            victim.wait()
            victim.stdout.close()
        for process in survivors:
            assert process.poll() is None, "a survivor found a damaged entry"
    finally:
        for process in survivors:
            process.kill()
            process.communicate()
    disk = DiskCache(folder, 1 << 18)
    stored = list(disk.entries())
    assert len(stored) > 10
    assert all(s.entry is not None for s in stored)


def test_two_processes_fill_the_same_cache(folder: Path) -> None:
    command = [sys.executable, "-c", PROGRAM]
    environ = os.environ | {"TRACEJIT_CACHE_DIR": str(folder)}
    both = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert run(PROGRAM, folder).stdout.split()[::2] == ["0", "False"]


# -- kernels ---------------------------------------------------------------------------------------


def test_kernels_from_disk_give_the_same_bits(folder: Path, level: str) -> None:
    x = np.random.default_rng(5).normal(size=(37, 53)).astype(np.float32)

    def program(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.sin(x).sum(axis=0), x @ x.T, np.cumsum(x, axis=1), np.fmod(x, 0.3)

    first = tj.jit(program, compile="now")(x)
    codes.clear()
    second = tj.jit(program, compile="now")(x)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    traced = tj.trace(program, x)
    assert traced.kernels
    for kernel in traced.kernels:
        assert kernel.text.count("define")
        assert compile_object(kernel.text, kernel.target, kernel.level, passes=0)


def test_code_is_executable_and_not_writable(folder: Path) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("reads /proc")
    code = Service().obtain("f 8", lambda: text(8), "f", TARGET)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, mode = line.split()[:2]
        low, high = (int(part, 16) for part in span.split("-"))
        if low <= code.address < high:
            assert mode.startswith("r-x")
            break
    else:
        pytest.fail("the code is nowhere")


def test_equal_keys_have_equal_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is found under a key must be what would have been emitted: at any size, in any order."""
    texts: dict[codes.Key, set[str]] = {}
    look = Service._find  # pyright: ignore[reportPrivateUsage]

    def watched(
        self: Service, key: codes.Key, emit: Callable[[], str], symbol: str
    ) -> codes.Code | None:
        texts.setdefault(key, set()).add(emit())
        return look(self, key, emit, symbol)

    monkeypatch.setattr(Service, "_find", watched)

    def program(x: np.ndarray, scale: float) -> tuple[np.ndarray, ...]:
        e = np.exp(x - x.max(axis=1, keepdims=True))
        return (
            e @ e.T + 1.0,
            np.cumsum(e, axis=1) * scale,
            np.sort(x[:, ::2], axis=0),
            x.std(axis=0),
        )

    random_numbers = np.random.default_rng(1)
    for shape in ((8, 16), (33, 70), (100, 10), (257, 64)):
        x = random_numbers.normal(size=shape)
        for given in (x, x.astype(np.float32), np.asfortranarray(x)):
            tj.trace(program, given, float(shape[0])).executable  # noqa: B018
    assert len(texts) > 8
    assert all(len(found) == 1 for found in texts.values())
    assert not any(" at 0x" in key.structure for key in texts)
