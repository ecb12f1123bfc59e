"""What a jitted function reports of itself: counts, sizes and times."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tracejit.frontend.compiled import Compiled
from tracejit.frontend.counts import Counts
from tracejit.frontend.signature import ArrayKey, signature_text
from tracejit.frontend.variation import Variation
from tracejit.runtime import entry, profiler
from tracejit.runtime.tiers import State

if TYPE_CHECKING:
    from tracejit.runtime.report import FunctionProfile


class Reported:
    """The reports of ``Jitted``, from what it keeps."""

    __slots__ = ()

    __name__: str
    dynamic: bool | None
    _calls: int
    _compiled: dict[tuple[Any, ...], Compiled]
    _entry: entry.NativeEntry | None
    _lock: threading.Lock
    _native_before: int
    _stats: Counts
    _variation: Variation

    def stats(self) -> Mapping[str, Any]:
        """Return counts since the function was made or cleared.

        ``calls``; ``compiles`` (signatures traced), ``retraces`` (all but the first) and
        ``recompiles`` (signatures that needed kernels which were nowhere yet, but the first);
        ``tier`` of the newest (0 interpreted, 1 compiled, 2 specialised on its sizes);
        ``specialised`` (signatures in tier 2); ``kernels``; ``pending`` (signatures whose kernels
        are being made); ``interpreted`` (signatures that NumPy answers, by reason); ``failed``
        (why compiling failed); ``fallbacks`` (calls and compilations that NumPy did instead);
        ``guard_failures`` (calls that compiled code was not there for, or not in their best form,
        by reason); ``dynamic`` (plans for ranges of sizes); ``compile_seconds``. The reasons are
        those of ``runtime/reasons.py``.
        """
        stats = self._stats
        native = 0 if self._entry is None else self._entry.calls - self._native_before
        with self._lock:
            kept = list(self._compiled.values())
        programs = [compiled.program for compiled in kept]
        interpreted = Counter(str(p.reason) for p in programs if p.reason is not None)
        failures = [str(p.failure) for p in programs if p.failure is not None]
        return {
            "calls": self._calls + native,
            "compiles": stats.traces,
            "retraces": max(0, stats.traces - 1),
            "recompiles": stats.recompiles(programs) + self._variation.recompiles,
            "tier": programs[-1].tier if programs else 0,
            "specialised": sum(p.tier == 2 for p in programs),
            "kernels": stats.kernels + sum(p.kernels for p in programs),
            "pending": sum(p.state is State.WAITING for p in programs),
            "interpreted": dict(interpreted),
            "failed": failures,
            "fallbacks": stats.fallbacks + len(failures),
            "guard_failures": stats.guard_failures(kept, self._variation.plans),
            "dynamic": len(self._variation.plans),
            "compile_seconds": stats.tracing
            + stats.seconds
            + sum(p.compile_seconds for p in programs),
        }

    def sizes(self) -> str:
        """Say how sizes that were not met yet are answered."""
        return "each traced for itself" if self.dynamic is False else str(self._variation)

    def profile(self) -> FunctionProfile:
        """Return what the calls of this function have cost, by signature."""
        from tracejit.runtime.report import FunctionProfile, SignatureProfile

        with self._lock:
            kept = list(self._compiled.items())
        signatures: list[SignatureProfile] = []
        sizes: dict[str, set[int]] = {}
        for key, compiled in kept:
            program = compiled.program
            signatures.append(profiler.signature_profile(program, signature_text(key[1])))
            for number, part in enumerate(key[1]):
                if isinstance(part, ArrayKey):
                    for axis, size in enumerate(part[1]):
                        sizes.setdefault(f"argument {number}, axis {axis}", set()).add(size)
        for shapes in self._variation.served():
            for number, shape in enumerate(shapes):
                for axis, size in enumerate(shape):
                    sizes.setdefault(f"argument {number}, axis {axis}", set()).add(size)
        signatures += self._variation.profiles()
        stats = self.stats()
        python = self._stats.python
        compiled_seconds = sum(s.seconds for s in signatures)
        return FunctionProfile(
            name=self.__name__,
            calls=stats["calls"],
            seconds=compiled_seconds + python.seconds,
            exclusive_seconds=compiled_seconds + python.exclusive,
            rate=sum(s.rate or 0.0 for s in signatures),
            compile_seconds=stats["compile_seconds"],
            guard_failures=stats["guard_failures"],
            sizes={axis: sorted(seen) for axis, seen in sizes.items()},
            signatures=signatures,
            python_calls=self._stats.fallbacks,
            python_seconds=python.seconds,
        )
