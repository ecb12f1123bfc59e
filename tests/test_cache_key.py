"""The keys of code on disk: what they name, and that equal ones stand for equal code."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from code_on_disk import TARGET, ask, run

import tracejit as tj
from tracejit import config
from tracejit.record import replace
from tracejit.runtime import cache, cpu
from tracejit.runtime import code as codes
from tracejit.runtime.service import Service

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")


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
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
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
