"""What a jitted function says of itself: counts, sizes and times, and what would answer a call."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from tracejit.errors import TraceError
from tracejit.frontend.compiled import Compiled, compile_signature
from tracejit.frontend.counts import Counts
from tracejit.frontend.difference import Why
from tracejit.frontend.signature import ArrayKey, Key, has_floats, leaf_key, signature_text
from tracejit.frontend.trees import Tree, check_statics, flatten
from tracejit.frontend.variation import Variation
from tracejit.runtime import entry, profiler
from tracejit.runtime.tiers import State

if TYPE_CHECKING:
    from tracejit.runtime.report import FunctionProfile

_T = TypeVar("_T")


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
    _static_floats: bool
    __wrapped__: Callable[..., Any]
    fast_math: bool

    if TYPE_CHECKING:

        def _key(self, tree: Tree, keys: Sequence[Any]) -> Key: ...
        def _difference(self, key: Key) -> Why | None: ...

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

    # -- calls that might be made ------------------------------------------------------------------

    def leaves(self, *args: Any, **kwargs: Any) -> Sequence[Any]:
        """Return the values among the arguments that a run reads."""
        return flatten((args, kwargs), static_floats=self._static_floats)[0]

    def form(self, *args: Any, **kwargs: Any) -> Compiled | None:
        """Return what answers calls with such arguments; None for a signature not seen yet."""
        leaves, tree = flatten((args, kwargs), static_floats=self._static_floats)
        keys = tuple(leaf_key(leaf, self.__name__) for leaf in leaves)
        try:
            return self._compiled.get(self._key(tree, keys))
        except TypeError:
            check_statics(tree, self.__wrapped__)
            raise

    def served(self, *args: Any, **kwargs: Any) -> bool:
        """Whether a plan for many sizes was made at a call with such arguments."""
        leaves, tree = flatten((args, kwargs), static_floats=self._static_floats)
        keys = tuple(leaf_key(leaf, self.__name__) for leaf in leaves)
        return self._variation.serves(self._key(tree, keys))

    def preview(self, *args: Any, **kwargs: Any) -> tuple[Compiled, Why | None]:
        """Trace for arguments like these and keep nothing.

        Returns the form, which is interpreted, and why no signature at hand fits; None for a
        function without any. Raises what tracing raises.
        """

        def record(key: Key, leaves: Sequence[Any], tree: Tree) -> tuple[Compiled, Why | None]:
            compiled = compile_signature(
                self.__wrapped__, leaves, tree, mode="never", fast_math=self.fast_math
            )
            return compiled, self._difference(key)

        return self._with_floats(args, kwargs, record)[0]

    def _with_floats(
        self,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        make: Callable[[Key, Sequence[Any], Tree], _T],
    ) -> tuple[_T, bool]:
        """Return ``make``'s result, and whether floats had to be static for it."""
        static_floats = self._static_floats
        while True:
            leaves, tree = flatten((args, kwargs), static_floats=static_floats)
            check_statics(tree, self.__wrapped__)
            keys = tuple(leaf_key(leaf, self.__name__) for leaf in leaves)
            try:
                return make(self._key(tree, keys), leaves, tree), static_floats
            except TraceError:
                if static_floats or not has_floats(leaves):
                    raise
                static_floats = True
