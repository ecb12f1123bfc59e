"""The folder of code on disk: private, or refused; full, read-only or gone without harm."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

import pytest
from code_on_disk import ask, files, origin, run

from tracejit import config
from tracejit.runtime import cache, cpu
from tracejit.runtime.service import Service

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


def test_files_are_private(cache_folder: Path) -> None:
    before = os.umask(0)
    try:
        ask(1)
    finally:
        os.umask(before)
    for path in (cache_folder, cache_folder / "code"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
    (file,) = files(cache_folder)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def refuses(match: str) -> None:
    """Check that there is one warning, that code is compiled all the same, and nothing stored."""
    service = Service()
    with pytest.warns(RuntimeWarning, match=match) as caught:
        assert [ask(n, service=service) for n in (5, 6, 5)] == [5, 6, 5]
    assert len([w for w in caught if "memory only" in str(w.message)]) == 1
    assert service.stats()["disk_hits"] == 0


@pytest.mark.filterwarnings("error")
def test_where_warnings_are_errors_kernels_compile_all_the_same(
    cache_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache_folder.mkdir()
    cache_folder.chmod(0o777)
    assert ask(5) == 5
    assert "can be written by others" in caplog.text


@pytest.mark.fault("cache folder that others can write, or that is not ours")
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_is_refused(
    cache_folder: Path, mode: int, inner: bool
) -> None:
    (cache_folder / "code").mkdir(parents=True)
    (cache_folder / "code" if inner else cache_folder).chmod(mode)
    refuses("can be written by others")
    assert not files(cache_folder)


@pytest.mark.fault("cache folder that others can write, or that is not ours")
@pytest.mark.parametrize("inner", [False, True])
def test_a_folder_that_is_a_link_is_refused(
    cache_folder: Path, inner: bool, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if inner:
        cache_folder.mkdir(mode=0o700)
    (cache_folder / "code" if inner else cache_folder).symlink_to(elsewhere)
    refuses("is a symbolic link")
    assert not list(elsewhere.rglob("*"))


@pytest.mark.fault("cache folder that others can write, or that is not ours")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_refused(cache_folder: Path) -> None:
    (cache_folder / "code").mkdir(parents=True)
    os.chown(cache_folder / "code", 12345, 12345)
    refuses("belongs to another user")


@pytest.mark.fault("cache folder that others can write, or that is not ours")
def test_a_file_in_the_place_of_the_folder_is_refused(cache_folder: Path) -> None:
    cache_folder.parent.mkdir(exist_ok=True)
    cache_folder.write_text("")
    refuses("cannot be")


@pytest.mark.fault("disk full, read-only or gone")
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_read(cache_folder: Path) -> None:
    ask(5)
    (cache_folder / "code").chmod(0o500)
    service = Service()
    try:
        assert origin(5, service) == "disk"
        refuses("cannot be written")
    finally:
        (cache_folder / "code").chmod(0o700)


@pytest.mark.fault("disk full, read-only or gone")
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_write_that_fails_leaves_nothing(
    cache_folder: Path, error: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(1)
    before = files(cache_folder)

    def fail(*_: object) -> int:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(cache.os, "write", fail)
    service = Service()
    with pytest.warns(RuntimeWarning, match="cannot be written"):
        assert ask(5, service=service) == 5
    assert ask(6, service=service) == 6  # no second warning: it would be an error here
    assert files(cache_folder) == before
    assert origin(1, service) == "disk"  # what is there is still read


@pytest.mark.fault("disk full, read-only or gone")
def test_a_full_disk(cache_folder: Path) -> None:
    """The limit on a file's size stands in for a full disk: writes fail in the middle of a file."""
    program = (
        "import resource, warnings, sys\n"
        "sys.path.insert(0, 'tests')\n"
        "import numpy as np, tracejit as tj\n"
        "x = np.ones((64, 64))\n"
        "f = tj.jit(lambda x: np.exp(x) @ x + 1, compile='now')\n"
        "sys.dont_write_bytecode = True  # which would be cut off, for every later process\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with warnings.catch_warnings(record=True) as caught:\n"
        "    warnings.simplefilter('always')\n"
        "    assert np.allclose(f(x), np.exp(x) @ x + 1)\n"
        "print(sum('memory only' in str(w.message) for w in caught))\n"
    )
    cpu.host()
    done = run(program, cache_folder)
    assert done.stdout.split() == ["1"], done.stderr
    assert not [f for f in files(cache_folder) if f.name.endswith(".tmp") or f.stat().st_size > 700]


@pytest.mark.fault("disk full, read-only or gone")
def test_a_folder_that_vanishes_is_made_again(cache_folder: Path) -> None:
    service = Service()
    assert ask(1, service=service) == 1
    shutil.rmtree(cache_folder)
    assert ask(2, service=service) == 2
    assert len(files(cache_folder)) == 1
    assert origin(2, service) == "disk"
    assert ask(1, service=service) == 1


def test_a_bound_of_zero_keeps_nothing(cache_folder: Path) -> None:
    with config.override(disk_cache=0):
        ask(1)
    assert not cache_folder.exists()
