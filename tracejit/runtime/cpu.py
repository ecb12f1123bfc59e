"""What the processor at hand can do: features, cache sizes, and the level to compile for.

The features are py-cpuinfo's. It is asked at first need, never at import, and its answer is kept
as ``cpu-<key>.txt`` in the cache folder. The key covers what can change the answer: the
processor's identity and the features that the operating system reports, py-cpuinfo's source, and
what it was asked. Machines of different kinds can therefore share one home folder.

On Linux the features are cut down to those that ``/proc/cpuinfo`` lists. CPUID alone, which
py-cpuinfo also reads, says what the silicon has; the kernel leaves out what it does not save at
a context switch or was told to hide, and code using that would crash. (AMX a process has to ask
for: ``amx.py``.) So where the kernel lists
features and cache sizes, py-cpuinfo is asked for its reading of that file only (12 ms): all that
its other sources, which take more than a second, could add would be left out again.

Modules that only detection needs are imported where it needs them: ``import tracejit`` loads
this file.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

from tracejit import config
from tracejit.codegen.target import AMX, LEVELS, Target, legalised
from tracejit.digest import blake2b
from tracejit.errors import TargetError
from tracejit.record import record, replace
from tracejit.runtime import amx

_PROC_CPUINFO: str | os.PathLike[str] = "/proc/cpuinfo"
_SYS_CPU: str | os.PathLike[str] = "/sys/devices/system/cpu"

# The lines of /proc/cpuinfo (x86, then Arm) that say which processor this is and what it may
# use. The others (clock, counters) change from one reading to the next.
_IDENTITY = frozenset(
    {"vendor_id", "cpu family", "model", "model name", "stepping", "flags"}
    | {"CPU implementer", "CPU architecture", "CPU variant", "CPU part", "Features"}
)

# Spellings of other systems (macOS's sysctl) → those of Linux, which Target.flags uses.
_ALIASES = {"avx1_0": "avx", "lzcnt": "abm", "lahf": "lahf_lm", "sse3": "pni"}

_X86_64 = frozenset({"x86_64", "amd64"})


@record(frozen=True, slots=True)
class Cpu:
    """A processor: names, feature flags as Linux spells them, cache sizes of one core in bytes."""

    brand: str
    vendor: str
    machine: str
    flags: frozenset[str]
    l1_bytes: int
    l2_bytes: int
    l3_bytes: int

    @property
    def levels(self) -> tuple[str, ...]:
        """The levels whose code this processor runs, lowest first; ``generic`` always."""
        if self.machine.lower() not in _X86_64 or sys.maxsize < 2**32:
            return ("generic",)
        # Cumulative: a level counts only if the ones before it do (some hypervisors mask holes).
        names: list[str] = []
        for name, level in LEVELS.items():
            if not level.flags <= self.flags:
                break
            names.append(name)
        return tuple(names)


@lru_cache(maxsize=1)
def host() -> Cpu:
    """Return the processor at hand; detected once in a process."""
    return detect()


def detect() -> Cpu:
    """Detect the processor: py-cpuinfo's answer, from the cache folder where it is known there."""
    identity = _identity()
    kernel_flags = frozenset(identity.get("flags", "").split())
    answer = _cached_answer(identity)
    flags = _flags(answer)
    if not flags:
        # py-cpuinfo could not say (it needs a subprocess, or executable memory).
        flags = kernel_flags
    elif kernel_flags:
        flags &= kernel_flags
    if flags >= AMX.keys() and not (config.amx() and amx.permitted()):
        flags -= {*AMX}
    l1, l2, l3 = _cache_sizes(answer)
    return Cpu(
        brand=str(answer.get("brand_raw") or identity.get("model name", "unknown processor")),
        vendor=str(answer.get("vendor_id_raw") or identity.get("vendor_id", "")),
        machine=platform.machine(),
        flags=flags,
        l1_bytes=l1,
        l2_bytes=l2,
        l3_bytes=l3,
    )


def _identity() -> dict[str, str]:
    """Return the lines in ``_IDENTITY`` of the first processor; empty where there is no file."""
    found: dict[str, str] = {}
    try:
        # Line by line up to the first blank one: with hundreds of cores the file is long, and
        # the kernel writes it as it is read.
        with open(_PROC_CPUINFO, encoding="utf-8", errors="replace", buffering=4096) as lines:
            for line in lines:
                name, colon, value = line.partition(":")
                if not colon:
                    break
                if name.strip() in _IDENTITY:
                    found[name.strip()] = value.strip()
    except OSError:
        return {}
    return found


def _key(identity: Mapping[str, str], *, brief: bool) -> str:
    asked = "brief" if brief else "all"
    parts = [_cpuinfo_text(), asked, platform.system(), platform.machine()]
    if identity:
        parts += [f"{name}: {value}" for name, value in sorted(identity.items())]
    else:
        # The release too: an update of the system may start or stop to save wide registers.
        parts += [platform.processor(), platform.release()]
    return blake2b("\n".join(parts).encode(), digest_size=16).hexdigest()


def _cpuinfo_text() -> str:
    """Return py-cpuinfo's source: its version, without importlib.metadata (20 ms to import)."""
    import importlib.util

    found = importlib.util.find_spec("cpuinfo")
    places = (found.submodule_search_locations if found else None) or []
    with contextlib.suppress(OSError):
        return _text(os.path.join(places[0], "cpuinfo.py")) if places else ""
    return ""


def _cached_answer(identity: Mapping[str, str]) -> dict[str, object]:
    brief = bool(identity.get("flags")) and bool(_sys_cache_sizes())
    path = os.path.join(config.cache_dir(), f"cpu-{_key(identity, brief=brief)}.txt")
    kept = _read(path)
    if kept is not None:
        return kept
    answer = _ask(brief=brief)
    if _flags(answer):
        _write(path, answer)
    return answer


def _text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


# What is kept of an answer, a line each: ``name=value``. (Reading JSON takes 1 ms to import.)
_KEPT = ("brand_raw", "vendor_id_raw", "l1_data_cache_size", "l2_cache_size", "l3_cache_size")
_END = "end"  # the last line: without it the file is damaged


def _read(path: str) -> dict[str, object] | None:
    """Return a kept answer; None where there is none or it is damaged."""
    try:
        lines = [line.partition("=") for line in _text(path).splitlines()]
    except (OSError, ValueError):
        return None
    kept = {name: value for name, _, value in lines}
    answer: dict[str, object] = {name: kept[name] for name in _KEPT if name in kept}
    answer["flags"] = kept.get("flags", "").split()
    return answer if _END in kept and _flags(answer) else None


def _write(path: str, answer: Mapping[str, object]) -> None:
    """Keep an answer: written beside its place and renamed, so that no reader sees half a file.

    A folder that cannot be written costs the next process some milliseconds and is no error.
    """
    import tempfile

    folder, name = os.path.split(path)
    lines = [f"{key}={answer[key]}\n" for key in _KEPT if key in answer]
    lines += [f"flags={' '.join(sorted(_flags(answer)))}\n", f"{_END}=\n"]
    with contextlib.suppress(OSError):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=name, suffix=".tmp", dir=folder)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.writelines(lines)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise


def _ask(*, brief: bool) -> dict[str, object]:
    """Ask py-cpuinfo; empty where it does not know the machine.

    ``brief``: for its reading of ``/proc/cpuinfo`` alone, where that has features.
    """
    try:
        from importlib import import_module

        cpuinfo = import_module("cpuinfo.cpuinfo")
        # No public name asks for one source alone. Where a version lacks it, all are asked.
        read = getattr(cpuinfo, "_get_cpu_info_from_proc_cpuinfo", None)
        answer: dict[str, object] = dict(read()) if brief and read is not None else {}
        return answer if _flags(answer) else dict(cpuinfo.get_cpu_info())
    except Exception:
        # It raises bare Exception at import on architectures it has no rules for, and OSError
        # or ValueError where subprocesses are forbidden. Detection then goes by the kernel's
        # own list, or falls to the level that every processor has.
        return {}


def _flags(answer: Mapping[str, object]) -> frozenset[str]:
    """Return the features of an answer under Linux's names; empty if it holds none."""
    listed = answer.get("flags")
    if not isinstance(listed, list):
        return frozenset()
    names = (str(name).lower().replace(".", "_") for name in cast("list[object]", listed))
    return frozenset(_ALIASES.get(name, name) for name in names)


def _cache_sizes(answer: Mapping[str, object]) -> tuple[int, int, int]:
    """Return the bytes of L1 data, L2 and L3 that one core sees.

    /sys first: py-cpuinfo's figures are lscpu's sums over all cores, and its L3 is often wrong.
    What nobody knows is as in ``Target``. A machine without L3 gets its L2 there, so that
    blocking for the last level has a size to work with.
    """
    sizes = _sys_cache_sizes()
    names = ("l1_data_cache_size", "l2_cache_size", "l3_cache_size")
    defaults = LEVELS["generic"]
    l1, l2 = (
        sizes.get(level) or _as_bytes(answer.get(name)) or default
        for level, name, default in (
            (1, names[0], defaults.l1_bytes),
            (2, names[1], defaults.l2_bytes),
        )
    )
    if sizes:
        return l1, l2, sizes.get(3, l2)
    return l1, l2, _as_bytes(answer.get(names[2])) or defaults.l3_bytes


def _sys_cache_sizes() -> dict[int, int]:
    """Return level → bytes of the data and unified caches of a core that we may run on."""
    affinity = getattr(os, "sched_getaffinity", None)
    sizes: dict[int, int] = {}
    try:
        core = min(affinity(0)) if affinity else 0
        caches = os.path.join(_SYS_CPU, f"cpu{core}", "cache")
        for index in os.listdir(caches):
            about = os.path.join(caches, index, "")
            if index.startswith("index") and _text(about + "type").strip() != "Instruction":
                sizes[int(_text(about + "level"))] = _as_bytes(_text(about + "size"))
    except (OSError, ValueError):
        return {}
    return {level: size for level, size in sizes.items() if size}


def _as_bytes(value: object) -> int:
    """Read a size: a number of bytes, or text such as "32K", "1 MiB"; 0 if it is neither."""
    if isinstance(value, int):
        return max(value, 0)
    if not isinstance(value, str):
        return 0
    digits = value.strip().rstrip("KMGiBkb ")
    unit = value.strip()[len(digits) :].strip()[:1].upper()
    factor = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}.get(unit, 0)
    return int(digits) * factor if digits.isdecimal() else 0


def levels() -> tuple[str, ...]:
    """Return the instruction-set levels of this machine, lowest first."""
    return host().levels


def host_level() -> str:
    """Return the highest level of this machine."""
    return levels()[-1]


def target(level: str | None = None) -> Target:
    """Return what to compile for, with this machine's cache sizes, and products cut as was
    measured on it (``runtime/tuning.py``).

    ``level``: a name of ``LEVELS``; None takes the innermost ``isa(...)`` block, then
    ``TRACEJIT_ISA``, then the machine's highest. ``"avx512-on-avx2"`` is the code shape of one
    level in the instructions of another that the machine has: for tests of levels it lacks.
    Raises ``TargetError`` for an unknown name and for a level that the machine lacks.
    """
    name = (level or config.isa() or host_level()).strip().lower()
    from tracejit.runtime import tuning

    found = resolve(name, host())
    measured = tuning.stored(host()).get(found.name)
    return found if measured is None else found.with_blocking(measured.blocking)


@lru_cache(maxsize=32)
def resolve(name: str, cpu: Cpu) -> Target:
    """Return what ``target(name)`` is on a machine with this processor."""
    shape, split, base = name.partition("-on-")
    for part in (shape, base) if split else (shape,):
        if part not in LEVELS:
            raise TargetError(
                f"unknown instruction set {part!r}; the levels are {', '.join(LEVELS)}",
                hint=f"this machine has {', '.join(cpu.levels)} (TRACEJIT_ISA, tj.isa)",
            )
    needed = base if split else shape
    if needed not in cpu.levels:
        missing = sorted(LEVELS[needed].flags - cpu.flags)
        raise TargetError(
            f"this machine ({cpu.brand}) lacks {needed}: no {', '.join(missing) or cpu.machine}",
            hint=f"this machine has {', '.join(cpu.levels)} (TRACEJIT_ISA, tj.isa)",
        )
    found = legalised(shape, base) if split else LEVELS[shape].extended(cpu.flags)
    if cpu.machine.lower() not in _X86_64:
        # LEVELS names x86 processors; elsewhere LLVM's baseline of the architecture is meant.
        found = replace(found, cpu="generic", features="", dot="none", tiles=False)
    return found.with_caches(cpu.l1_bytes, cpu.l2_bytes, cpu.l3_bytes)


@contextmanager
def isa(level: str) -> Generator[Target, None, None]:
    """Compile for ``level`` inside a ``with`` block, in this thread or task only.

    Raises ``TargetError`` on entering if the level is unknown or the machine lacks it.
    """
    found = target(level)
    with config.override(isa=level):
        yield found
