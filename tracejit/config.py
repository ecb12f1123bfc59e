"""Settings from the environment: read once, checked once, overridable for a stretch of code.

========================  ===================================================  ===============
variable                  value                                                default
========================  ===================================================  ===============
TRACEJIT_ISA              a level of ``codegen/target.py`` (``avx2``, …)       the machine's
TRACEJIT_DISABLE_JIT      0 or 1: run everything in the NumPy interpreter      0
TRACEJIT_COMPILE          auto, now, background or never: see ``jit``          auto
TRACEJIT_LOGS             topics to print: recompiles, cache, tiers            none
TRACEJIT_OPT              0 to 3: LLVM's level of instruction selection        2
TRACEJIT_CACHE_DIR        a folder                                             see cache_dir
TRACEJIT_NUM_THREADS      a positive whole number                              OMP_NUM_THREADS
OMP_NUM_THREADS           as OpenMP has it; the first number of a list counts  the machine's
TRACEJIT_MEMORY_CACHE     bytes kept of the memory of dead results             see memory_cache
TRACEJIT_CODE_CACHE       bytes of machine code kept in memory                 64 MiB
TRACEJIT_DISK_CACHE       bytes of object code kept on disk                    256 MiB
TRACEJIT_COMPILE_WORKERS  processes that compile; 0: threads instead           compile_workers
TRACEJIT_AMX              0 or 1: use the tile registers of processors with AMX  1
TRACEJIT_PERF_MAP         0 or 1: write /tmp/perf-PID.map for Linux's perf     0
TRACEJIT_SPECIALISE       0 or 1: constant sizes for signatures called often   1
TRACEJIT_STRESS_DEOPT     n: every n-th native call takes the Python path      0 (none)
TRACEJIT_STRESS_POISON    0 or 1: overwrite memory before its first use        0
TRACEJIT_STRESS_COMPILE   0 or 1: compile functions and expressions at once    0
========================  ===================================================  ===============

A value that is not allowed raises ``ValueArgumentError`` at the first use of any setting, not at
``import tracejit``: a wrong variable must not break programs that only import us. Whether the
level exists, and whether this machine has it, is for ``runtime/cpu.py`` to say (``TargetError``).
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict, Unpack

from tracejit import gate
from tracejit.errors import ValueArgumentError
from tracejit.record import record, replace

if TYPE_CHECKING:
    from pathlib import Path

# When this process read our sources; they may have been edited since.
IMPORTED = time.time()

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"", "0", "false", "no", "off"})

# When to compile what asks for nothing else (``frontend/python.jit``).
COMPILE_MODES = ("auto", "now", "background", "never")
# What ``TRACEJIT_LOGS`` can print (``runtime/events.py``).
LOG_TOPICS = ("recompiles", "cache", "tiers")


@record(frozen=True, slots=True)
class Settings:
    """What the environment asks for; ``None`` means that it does not say."""

    isa: str | None = None
    disable_jit: bool = False
    cache_dir: str | os.PathLike[str] | None = None
    num_threads: int | None = None
    memory_cache: int | None = None
    code_cache: int | None = None
    disk_cache: int | None = None
    compile_workers: int | None = None
    stress_deopt: int = 0
    stress_poison: bool = False
    stress_compile: bool = False
    compile: str = "auto"
    logs: tuple[str, ...] = ()
    optimize: int = 2
    perf_map: bool = False
    specialise: bool = True
    amx: bool = True

    def __post_init__(self) -> None:
        if self.num_threads is not None and self.num_threads < 1:
            raise ValueArgumentError(
                f"num_threads is {self.num_threads}",
                hint="give a positive whole number, or leave it out for one a core",
            )
        if self.compile not in COMPILE_MODES:
            raise ValueArgumentError(
                f"TRACEJIT_COMPILE={self.compile!r} is not one of {', '.join(COMPILE_MODES)}",
                hint="leave it out for auto",
            )


class Changes(TypedDict, total=False):
    """The fields of ``Settings`` that ``override`` may replace."""

    isa: str | None
    disable_jit: bool
    compile: str
    logs: tuple[str, ...]
    optimize: int
    cache_dir: str | os.PathLike[str] | None
    num_threads: int | None
    memory_cache: int | None
    code_cache: int | None
    disk_cache: int | None
    compile_workers: int | None
    stress_deopt: int
    stress_poison: bool
    stress_compile: bool
    perf_map: bool
    specialise: bool


def _text(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip()


def _flag(environ: Mapping[str, str], name: str) -> bool:
    text = _text(environ, name)
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise ValueArgumentError(f"{name}={text!r} is not a yes or a no", hint=f"set {name}=0 or 1")


def _threads(environ: Mapping[str, str]) -> int | None:
    own = _text(environ, "TRACEJIT_NUM_THREADS")
    if own:
        if own.isdecimal() and int(own) > 0:
            return int(own)
        raise ValueArgumentError(
            f"TRACEJIT_NUM_THREADS={own!r} is not a number of threads",
            hint="give a positive whole number, or leave it out for one a core",
        )
    # OpenMP allows one number for each level of nesting ("4,2"); ours do not nest.
    shared = _text(environ, "OMP_NUM_THREADS").split(",")[0].strip()
    if not shared:
        return None
    if shared.isdecimal() and int(shared) > 0:
        return int(shared)
    # Not our variable: OpenMP programs go on with their default, so do we, and say so.
    warnings.warn(
        f"OMP_NUM_THREADS={shared!r} is not a number of threads; it is ignored",
        RuntimeWarning,
        stacklevel=2,
    )
    return None


def _count(environ: Mapping[str, str], name: str, what: str, hint: str) -> int | None:
    text = _text(environ, name)
    if not text:
        return None
    if text.isdecimal():
        return int(text)
    raise ValueArgumentError(f"{name}={text!r} is not a number of {what}", hint=hint)


def _topics(environ: Mapping[str, str]) -> tuple[str, ...]:
    names = [name.strip() for name in _text(environ, "TRACEJIT_LOGS").split(",")]
    wanted = tuple(name for name in names if name)
    for name in wanted:
        if name not in LOG_TOPICS:
            raise ValueArgumentError(
                f"TRACEJIT_LOGS has {name!r}, which is not one of {', '.join(LOG_TOPICS)}",
                hint='separate several with commas: TRACEJIT_LOGS="recompiles,cache,tiers"',
            )
    return wanted


def _level(environ: Mapping[str, str]) -> int:
    text = _text(environ, "TRACEJIT_OPT") or "2"
    if text in ("0", "1", "2", "3"):
        return int(text)
    raise ValueArgumentError(
        f"TRACEJIT_OPT={text!r} is not a level", hint="give 0, 1, 2 or 3; leave it out for 2"
    )


def _folder(environ: Mapping[str, str], name: str) -> str | None:
    text = _text(environ, name)
    if not text:
        return None
    path = os.path.abspath(os.path.expanduser(text))
    if os.path.exists(path) and not os.path.isdir(path):
        raise ValueArgumentError(f"{name}={text!r} is not a folder", hint=f"point {name} at one")
    return path


def from_environment(environ: Mapping[str, str]) -> Settings:
    """Return the settings that ``environ`` holds; raises ``ValueArgumentError``."""
    return Settings(
        isa=_text(environ, "TRACEJIT_ISA").lower() or None,
        disable_jit=_flag(environ, "TRACEJIT_DISABLE_JIT"),
        compile=_text(environ, "TRACEJIT_COMPILE").lower() or "auto",
        logs=_topics(environ),
        optimize=_level(environ),
        cache_dir=_folder(environ, "TRACEJIT_CACHE_DIR"),
        num_threads=_threads(environ),
        memory_cache=_count(
            environ, "TRACEJIT_MEMORY_CACHE", "bytes", "give a whole number; 0 keeps nothing"
        ),
        code_cache=_count(
            environ, "TRACEJIT_CODE_CACHE", "bytes", "give a whole number; 0 keeps nothing"
        ),
        disk_cache=_count(
            environ, "TRACEJIT_DISK_CACHE", "bytes", "give a whole number; 0 keeps nothing"
        ),
        compile_workers=_count(
            environ,
            "TRACEJIT_COMPILE_WORKERS",
            "processes",
            "give a whole number; 0 compiles in threads",
        ),
        stress_deopt=_count(
            environ, "TRACEJIT_STRESS_DEOPT", "calls", "give a whole number; 0 is off"
        )
        or 0,
        stress_poison=_flag(environ, "TRACEJIT_STRESS_POISON"),
        stress_compile=_flag(environ, "TRACEJIT_STRESS_COMPILE"),
        perf_map=_flag(environ, "TRACEJIT_PERF_MAP"),
        specialise=_flag({"TRACEJIT_SPECIALISE": "1", **environ}, "TRACEJIT_SPECIALISE"),
        amx=_flag({"TRACEJIT_AMX": "1", **environ}, "TRACEJIT_AMX"),
    )


@lru_cache(maxsize=1)
def _process_settings() -> Settings:
    return from_environment(os.environ)


# A context variable, so that an override in one thread or task leaves the others alone.
_override: ContextVar[Settings | None] = ContextVar("tracejit_settings", default=None)


def settings() -> Settings:
    """Return the settings in force here: the innermost ``override``, else the environment's."""
    return _override.get() or _process_settings()


@contextmanager
def override(**changes: Unpack[Changes]) -> Generator[Settings, None, None]:
    """Replace some settings inside a ``with`` block, for this thread or task only."""
    token = _override.set(replace(settings(), **changes))
    gate.shut()
    try:
        yield settings()
    finally:
        gate.reopen()
        _override.reset(token)


def is_default(current: Settings) -> bool:
    """Return whether ``current`` is what the environment says, with no ``override`` around."""
    return current is _process_settings()


def isa() -> str | None:
    """Return the instruction set asked for, in lower case and unchecked; None for the best."""
    return settings().isa


def disable_jit() -> bool:
    """Return whether everything is to run in the NumPy interpreter."""
    return settings().disable_jit


def compile_mode() -> str:
    """Return when functions compile that do not say: one of ``COMPILE_MODES``."""
    current = settings()
    return "now" if current.stress_compile and current.compile == "auto" else current.compile


def log_topics() -> tuple[str, ...]:
    """Return which of ``LOG_TOPICS`` to print."""
    return settings().logs


def optimize() -> int:
    """Return LLVM's level of instruction selection, 0…3, for functions that do not say."""
    return settings().optimize


def num_threads() -> int | None:
    """Return the number of threads asked for; None leaves it to the machine's cores."""
    return settings().num_threads


def memory_cache() -> int:
    """Return how many bytes of memory results may leave for the next: 1/8 of RAM, at most 1 GiB."""
    wanted = settings().memory_cache
    return _default_memory_cache() if wanted is None else wanted


def perf_map() -> bool:
    """Return whether to tell Linux's ``perf`` where generated code is."""
    return settings().perf_map


def specialise() -> bool:
    """Return whether signatures that are called often get kernels with constant sizes."""
    return settings().specialise


def amx() -> bool:
    """Return whether kernels may use AMX where the processor has it."""
    return settings().amx


def stress_deopt() -> int:
    """Return n where every n-th native call is to take the Python path, 0 for none (a test)."""
    return settings().stress_deopt


def stress_poison() -> bool:
    """Return whether memory is overwritten with 0xFF (NaN) before its first use (a test)."""
    return settings().stress_poison


def stress_compile() -> bool:
    """Return whether all that does not say when is compiled at its first use (a test)."""
    return settings().stress_compile


@lru_cache(maxsize=1)
def _default_memory_cache() -> int:
    try:
        installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 256 << 20
    return min(1 << 30, installed // 8)


def code_cache() -> int:
    """Return how many bytes of machine code are kept in memory for reuse."""
    wanted = settings().code_cache
    return 64 << 20 if wanted is None else wanted


def disk_cache() -> int:
    """Return how many bytes of object code are kept on disk for later processes; 0 for none."""
    wanted = settings().disk_cache
    return 256 << 20 if wanted is None else wanted


def compile_workers() -> int:
    """Return how many processes may compile at once: half the cores, at most 4; 0 for none."""
    wanted = settings().compile_workers
    return max(1, min(4, (os.cpu_count() or 1) // 2)) if wanted is None else wanted


def cache_dir() -> str:
    """Return the folder for files kept between runs; it need not exist.

    Default: the platform's cache folder, ``$XDG_CACHE_HOME/tracejit`` or ``~/.cache/tracejit``
    on Linux.
    """
    found = settings().cache_dir
    return _default_cache_dir() if found is None else os.fspath(found)


def kernels_dir() -> Path:
    """Return the folder of the NeuralScript programs that come with tracejit.

    A wheel has it inside the package; a checkout, also one installed as editable, beside it.
    """
    from pathlib import Path  # takes 2 ms to import: not for every start

    package = Path(__file__).parent
    shipped = package / "kernels"
    return shipped if shipped.is_dir() else package.parent / "kernels"


@lru_cache(maxsize=1)
def _default_cache_dir() -> str:
    if sys.platform == "linux":  # as platformdirs has it, which takes 10 ms to import
        shared = os.environ.get("XDG_CACHE_HOME", "").strip()
        return os.path.join(os.path.abspath(os.path.expanduser(shared or "~/.cache")), "tracejit")
    from platformdirs import user_cache_dir

    return user_cache_dir("tracejit", appauthor=False)
