"""Detection of the processor, the file that keeps it, and the choice of a level."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tracejit import config
from tracejit.codegen.target import LEVELS
from tracejit.errors import TargetError
from tracejit.record import replace
from tracejit.runtime import cpu

AVX512 = cpu.Cpu(
    brand="a wide one",
    vendor="",
    machine="x86_64",
    flags=LEVELS["avx512"].flags | {"sse2"},
    l1_bytes=48 << 10,
    l2_bytes=2 << 20,
    l3_bytes=32 << 20,
)


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """Count the questions to py-cpuinfo, answer them from a list, keep files in a new folder."""
    real = cpu.host()
    asked: list[dict[str, Any]] = []

    def ask(*, brief: bool) -> dict[str, object]:
        asked.append({"flags": sorted(real.flags), "brand_raw": "the brand"})
        return asked[-1]

    monkeypatch.setattr(cpu, "_ask", ask)
    with config.override(cache_dir=tmp_path / "deep" / "down"):
        yield asked


def kept() -> list[Path]:
    return list(Path(config.cache_dir()).iterdir())


def test_this_machine():
    host = cpu.host()
    assert host.levels[0] == "generic"
    assert cpu.host_level() == host.levels[-1]
    assert LEVELS[cpu.host_level()].flags <= host.flags
    assert 4 << 10 <= host.l1_bytes <= 4 << 20
    assert host.l1_bytes <= host.l2_bytes <= host.l3_bytes
    assert cpu.host() is host


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux only")
def test_no_feature_that_the_kernel_hides():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    listed = next((line for line in lines if line.startswith("flags")), "").partition(":")[2]
    if listed:
        assert cpu.host().flags <= set(listed.split())


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="Linux only")
def test_the_brief_answer_decides_as_the_whole_one(monkeypatch: pytest.MonkeyPatch):
    if not cpu._identity().get("flags"):
        pytest.skip("the kernel lists no features here")
    found: list[cpu.Cpu] = []
    for brief in (True, False):
        answer = cpu._ask(brief=brief)
        assert cpu._flags(answer)
        monkeypatch.setattr(cpu, "_cached_answer", lambda _, answer=answer: answer)
        found.append(cpu.detect())
    assert found[0] == found[1]


def test_py_cpuinfo_is_asked_once(answers: list[Any]):
    first = cpu.detect()
    assert len(answers) == 1
    assert cpu.detect() == first
    assert len(answers) == 1
    (path,) = kept()
    assert first.brand == "the brand"
    assert "brand_raw=the brand\n" in path.read_text()
    assert path.stat().st_mode & 0o077 == 0 or os.name == "nt"


@pytest.mark.parametrize(
    "damage", [b"", b"=", b"\xff\xfe", b"flags=\nend=\n", b"flags=sse2 avx", b"\0" * 100_000]
)
def test_a_damaged_file_is_written_anew(answers: list[Any], damage: bytes):
    first = cpu.detect()
    (path,) = kept()
    path.write_bytes(damage)
    assert cpu.detect() == first
    assert len(answers) == 2
    assert path.read_bytes() != damage


def test_another_processor_has_another_file(
    answers: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    cpu.detect()
    other = tmp_path / "cpuinfo"
    other.write_text("processor\t: 0\nmodel name\t: another\nflags\t\t: sse2\n\nflags\t: avx2\n")
    monkeypatch.setattr(cpu, "_PROC_CPUINFO", other)
    found = cpu.detect()
    assert len(answers) == 2
    assert len(kept()) == 2
    assert found.flags <= {"sse2"}
    assert found.levels == ("generic",)


def test_a_clock_reading_does_not_change_the_key(
    answers: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(cpu, "_PROC_CPUINFO", file)
    for clock in ("2445.4", "1800.0"):
        file.write_text(f"model name\t: one\ncpu MHz\t: {clock}\nflags\t\t: sse2\n")
        cpu.detect()
    assert len(answers) == 1


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_no_error(answers: list[Any], tmp_path: Path):
    tmp_path.chmod(0o500)
    cpu.detect()
    cpu.detect()
    assert len(answers) == 2


def test_a_file_in_the_place_of_the_folder_is_no_error(answers: list[Any]):
    Path(config.cache_dir()).parent.mkdir()
    Path(config.cache_dir()).write_text("")
    assert cpu.detect().levels == cpu.levels()
    assert len(answers) == 1


def test_without_py_cpuinfo_the_kernel_decides(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], tmp_path: Path
):
    monkeypatch.setattr(cpu, "_ask", lambda **_: {})
    file = tmp_path / "cpuinfo"
    flags = " ".join(LEVELS["sse4.2"].flags)
    file.write_text(f"vendor_id: V\nmodel name: M 1\nflags: {flags}\n")
    monkeypatch.setattr(cpu, "_PROC_CPUINFO", file)
    found = cpu.detect()
    assert (found.brand, found.vendor) == ("M 1", "V")
    if found.machine == "x86_64":
        assert found.levels == ("generic", "sse4.2")
    assert not Path(config.cache_dir()).exists()


def test_nothing_known_is_generic(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], tmp_path: Path
):
    monkeypatch.setattr(cpu, "_ask", lambda **_: {})
    monkeypatch.setattr(cpu, "_PROC_CPUINFO", tmp_path / "absent")
    monkeypatch.setattr(cpu, "_SYS_CPU", tmp_path / "absent")
    found = cpu.detect()
    assert found.levels == ("generic",)
    generic = LEVELS["generic"]
    sizes = (found.l1_bytes, found.l2_bytes, found.l3_bytes)
    assert sizes == (generic.l1_bytes, generic.l2_bytes, generic.l3_bytes)


def test_names_of_other_systems(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], tmp_path: Path
):
    darwin = "sse3 ssse3 sse4.1 sse4.2 CX16 LAHF popcnt avx1.0 avx2 fma f16c bmi1 bmi2 lzcnt movbe"
    monkeypatch.setattr(cpu, "_ask", lambda **_: {"flags": darwin.split()})
    monkeypatch.setattr(cpu, "_PROC_CPUINFO", tmp_path / "absent")
    assert replace(cpu.detect(), machine="x86_64").levels == ("generic", "sse4.2", "avx2")


def test_caches_of_a_core(monkeypatch: pytest.MonkeyPatch, answers: list[Any], tmp_path: Path):
    affinity = getattr(os, "sched_getaffinity", None)
    caches = tmp_path / f"cpu{min(affinity(0)) if affinity else 0}" / "cache"
    rows = [("1", "Data", "48K"), ("1", "Instruction", "99K"), ("2", "Unified", "2M")]
    for index, row in enumerate(rows):
        folder = caches / f"index{index}"
        folder.mkdir(parents=True)
        for name, text in zip(("level", "type", "size"), row, strict=True):
            (folder / name).write_text(text + "\n")
    monkeypatch.setattr(cpu, "_SYS_CPU", tmp_path)
    found = cpu.detect()
    assert (found.l1_bytes, found.l2_bytes, found.l3_bytes) == (48 << 10, 2 << 20, 2 << 20)


def test_levels_are_cumulative():
    assert AVX512.levels == tuple(LEVELS)
    for flag, highest in (("avx512vl", "avx2"), ("fma", "sse4.2"), ("popcnt", "generic")):
        assert replace(AVX512, flags=AVX512.flags - {flag}).levels[-1] == highest


def test_another_architecture_is_generic_for_its_own_llvm_baseline():
    arm = replace(AVX512, machine="aarch64")
    assert arm.levels == ("generic",)
    assert cpu.resolve("generic", arm).cpu == "generic"
    with pytest.raises(TargetError, match="lacks avx2"):
        cpu.resolve("avx2", arm)


def test_a_target_has_the_levels_cpu_and_the_machines_caches():
    found = cpu.resolve("avx512", AVX512)
    assert (found.name, found.cpu) == ("avx512", "x86-64-v4")
    assert (found.l1_bytes, found.l2_bytes, found.l3_bytes) == (48 << 10, 2 << 20, 32 << 20)


def test_a_level_the_machine_lacks():
    narrow = replace(AVX512, flags=LEVELS["avx2"].flags)
    with pytest.raises(TargetError) as caught:
        cpu.resolve("avx512", narrow)
    assert isinstance(caught.value, ValueError)
    text = str(caught.value)
    assert "lacks avx512" in text
    assert "avx512f" in text
    assert "this machine has generic, sse4.2, avx2" in text
    with pytest.raises(TargetError, match="lacks avx512"):
        cpu.resolve("avx2-on-avx512", narrow)


@pytest.mark.parametrize("name", ["avx3", "native", "avx512-on-", "-on-generic", "x-on-generic"])
def test_an_unknown_level(name: str):
    with pytest.raises(TargetError, match="unknown instruction set") as caught:
        cpu.target(name)
    assert "generic, sse4.2, avx2, avx512" in caught.value.message
    assert "this machine has" in str(caught.value)


def test_the_levels_fixture_is_in_force(level: str):
    assert cpu.target().name == level
    assert cpu.target(level) is cpu.target()


def test_the_shape_of_a_wider_level(any_level: str):
    found = cpu.target()
    assert found.name == any_level
    assert found.vector_bits == LEVELS[any_level.partition("-on-")[0]].vector_bits
    assert found.flags <= cpu.host().flags


def test_isa_nests_and_an_explicit_level_wins():
    with cpu.isa("generic") as outer:
        assert cpu.target() is outer
        with cpu.isa(cpu.host_level().upper()):
            assert cpu.target().name == cpu.host_level()
        assert cpu.target().name == "generic"
        assert cpu.target(cpu.host_level()).name == cpu.host_level()


def test_isa_refuses_on_entering():
    before = cpu.target()
    with pytest.raises(TargetError), cpu.isa("avx3"):
        pytest.fail("entered")
    assert cpu.target() is before


def test_the_variable_and_its_error():
    code = "from tracejit.runtime import cpu; print(cpu.target().name)"
    for name, wanted in (("generic", "generic\n"), ("", f"{cpu.host_level()}\n")):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"TRACEJIT_ISA": name},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == wanted
    with config.override(isa="avx1024"), pytest.raises(TargetError, match="avx1024"):
        cpu.target()


def test_many_threads_and_one_file(answers: list[Any]):
    with ThreadPoolExecutor(8) as pool:
        folder = Path(config.cache_dir())

        def detect(_: int) -> cpu.Cpu:
            with config.override(cache_dir=folder):
                return cpu.detect()

        assert len(set(pool.map(detect, range(32)))) == 1
    assert len(kept()) == 1


def test_without_a_path_and_without_a_home(tmp_path: Path):
    """py-cpuinfo looks for programs on PATH and raises where the variable is missing."""
    code = "from tracejit.runtime import cpu; print(cpu.host_level())"
    for environ in ({"PATH": ""}, {}):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environ | {"TRACEJIT_CACHE_DIR": str(tmp_path / str(len(environ)))},
            cwd=Path(cpu.__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == cpu.host_level()
