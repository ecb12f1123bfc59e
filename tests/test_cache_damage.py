"""Code on disk that is damaged or not ours is never run, and never stops a program."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from code_on_disk import TARGET, ask, files, origin

from tracejit.codegen.llvm import compile_object
from tracejit.runtime import cache
from tracejit.runtime.cache import Entry
from tracejit.runtime.service import Service

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


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
    cache_folder: Path, record_property: Callable[[str, object], None]
) -> None:
    service = Service()
    assert ask(77, service=service) == 77
    (file,) = files(cache_folder)
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
def test_an_entry_under_another_name_is_not_taken(cache_folder: Path) -> None:
    service = Service()
    ask(1)
    (one,) = files(cache_folder)
    ask(2)
    (two,) = set(files(cache_folder)) - {one}
    two.write_bytes(one.read_bytes())
    assert ask(2, service=service) == 2
    assert service.stats()["disk_hits"] == 0


@pytest.mark.fault("damaged cache entry")
@pytest.mark.parametrize(
    "image",
    [b"", b"not an object file", b"\x7fELF" + bytes(300), b"\x7fELF\x02\x01\x01" + b"\xff" * 400],
)
def test_a_whole_entry_without_object_code_is_dropped(cache_folder: Path, image: bytes) -> None:
    ask(3)
    (file,) = files(cache_folder)
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
def test_strange_files_in_the_folder_are_left_alone(cache_folder: Path, tmp_path: Path) -> None:
    ask(4)
    (file,) = files(cache_folder)
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
