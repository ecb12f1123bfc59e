"""Object code on disk: what is kept, for how long, and that processes share it and may die."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from code_on_disk import TARGET, ask, files, origin, text

from tracejit import config
from tracejit.codegen.target import LEVELS
from tracejit.runtime import cache
from tracejit.runtime import code as codes
from tracejit.runtime.cache import DiskCache, Entry
from tracejit.runtime.service import Service

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")
NAME = "ab" * 20


def test_an_entry_is_found_without_emitting(cache_folder: Path) -> None:
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


def test_code_is_executable_and_not_writable(cache_folder: Path) -> None:
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
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(1)
    (file,) = files(cache_folder)
    future = time.time() + 1e8
    os.utime(file, (future, future))
    leftover = cache_folder / "code" / f".{NAME}.1.0.tmp"
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
