"""``Jitted``: a function that traces itself per signature, and hands its graphs to the runtime.

A call looks up the arguments' signature, first as the fast path sees it (types, dtypes, shapes,
strides), then in full. A new one is traced; ``runtime/tiers.py`` decides when it is compiled and
answers meanwhile.
"""

from __future__ import annotations

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import numpy as np

from tracejit import config
from tracejit.errors import RecompileError, TraceError
from tracejit.frontend.bound import Bound
from tracejit.frontend.compiled import Compiled, as_array, compile_signature
from tracejit.frontend.counts import Counts
from tracejit.frontend.difference import Why, why_new
from tracejit.frontend.fast import STATIC, Fast, everything, fast_entry
from tracejit.frontend.hints import hint_outside, hint_static
from tracejit.frontend.names import is_found, name_of
from tracejit.frontend.native import native_result, slots_of
from tracejit.frontend.outside import Surroundings
from tracejit.frontend.reported import Reported
from tracejit.frontend.signature import (
    NUMPY_SCALARS,
    Key,
    has_floats,
    is_array,
    leaf_key,
    signature_text,
    without_sizes,
)
from tracejit.frontend.trees import Tree, check_statics, flatten
from tracejit.frontend.variation import Example, Kind, Variation, sizes_of
from tracejit.graph.node import data
from tracejit.runtime import analysis, entry, events, profiler, registry, stance
from tracejit.runtime.analysis import Family
from tracejit.runtime.reasons import Reason
from tracejit.runtime.slots import Slots
from tracejit.runtime.stretches import Unfit
from tracejit.runtime.tiers import State, Wanted
from tracejit.tensor import Tensor, wrap
from tracejit.tracing import state

if TYPE_CHECKING:
    from tracejit.frontend.ranged import Ranged
    from tracejit.frontend.traced import Traced
    from tracejit.runtime.numbers import Values

# Signatures kept for one function; the oldest goes first.
SIGNATURES_KEPT = 1024
_FLOATS = frozenset({float, complex})
_T = TypeVar("_T")


class Jitted(Reported):
    """A function that traces and compiles itself per signature. Made by ``jit``.

    ``__wrapped__`` is the Python function. Inside another trace a call is simply inlined.
    Thread-safe: concurrent first calls of one signature compile once.
    """

    __slots__ = (
        "__dict__",
        "__weakref__",
        "_calls",
        "_compiled",
        "_entry",
        "_families",
        "_fast",
        "_hinted",
        "_last",
        "_lock",
        "_locks",
        "_mode",
        "_native_before",
        "_static_floats",
        "_stats",
        "_surroundings",
        "_values",
        "_variation",
        "dynamic",
        "fast_math",
        "optimize",
    )

    def __new__(
        cls,
        function: Callable[..., Any],
        mode: stance.Mode | None,
        fast_math: bool,
        optimize: int | None,
        dynamic: bool | None = None,
    ) -> Self:
        # Each function is the one instance of a type of its own: calling an object asks its type,
        # and so a native entry can stand there for this function alone.
        own: Any = type(cls.__name__, (cls,), {"__slots__": (), "__doc__": cls.__doc__})
        return object.__new__(own)

    def __init__(
        self,
        function: Callable[..., Any],
        mode: stance.Mode | None,
        fast_math: bool,
        optimize: int | None,
        dynamic: bool | None = None,
    ):
        self.__name__ = name_of(function)  # callable objects have none
        functools.update_wrapper(self, function)
        self._mode: stance.Mode | None = mode
        self._entry: entry.NativeEntry | None = None
        self._native_before = 0
        self.fast_math = fast_math
        self.optimize = optimize
        self.dynamic = dynamic
        self._variation = Variation(always=dynamic is True)
        self._lock = threading.Lock()
        self.clear()
        registry.register(self)

    def clear(self) -> None:
        """Forget every signature and all statistics."""
        with self._lock:
            if self._entry is not None:
                self._entry.clear()
                self._native_before = self._entry.calls
            self._calls = 0
            # Signature → compiled form, and what the fast path looks up → the same; the latter
            # with the settings it is for, as one object, so that threads see both or neither.
            self._compiled: dict[Key, Compiled] = {}
            self._fast: tuple[Any, dict[Key, Fast]] = (None, {})
            self._locks: dict[Key, threading.Lock] = {}
            self._families: dict[Key, Family] = {}
            self._stats = Counts()
            self._values: dict[str, set[Any]] = {}
            self._hinted = False
            # Set when the function asks for the value of a float (``if rate > 0``).
            self._static_floats = False
            self._variation.clear()
            self._surroundings = Surroundings()
            self._last: Key | None = None

    # -- calling -----------------------------------------------------------------------------------

    def _call_python(self, *args: Any, **kwargs: Any) -> Any:
        if state.trace is not None:
            return self.__wrapped__(*args, **kwargs)
        self._calls += 1
        if not self._surroundings.hold(self._entry):
            self._look_outside()
        key: Key | None = None
        settings = config.settings()
        if not kwargs:
            parts: list[Any] = []
            tensors = False
            for a in args:
                kind = a.__class__
                if kind is np.ndarray:
                    # ``num`` has the contiguity and alignment bits, which strides do not tell.
                    parts += (a.dtype, a.shape, a.strides, a.flags.num)
                elif kind is Tensor:
                    value = a.node.value
                    if value is None:
                        break
                    tensors = True
                    parts += (kind, value.dtype, value.shape, value.strides, value.flags.num)
                elif kind in NUMPY_SCALARS or (kind in _FLOATS and not self._static_floats):
                    parts.append(kind)
                elif kind in STATIC:
                    parts += (kind, a)
                else:
                    break
            else:
                key = tuple(parts)
                current, table = self._fast
                if current is settings and not stance.interpreting:
                    found = table.get(key)
                    if found is not None:
                        compiled, positions, ready = found
                        if ready is everything:
                            return compiled.program.run(args)[0]
                        leaves = args if positions is None else [args[i] for i in positions]
                        if ready is None:
                            return compiled.call(leaves, self.plain, args, kwargs)
                        arrays = [
                            leaf if as_is else as_array(leaf, part)
                            for leaf, as_is, part in zip(leaves, ready, compiled.keys, strict=True)
                        ]
                        result = compiled.program.run(arrays)[0]
                        return wrap(data(result)) if tensors else result
        return self._call_general(key, settings, args, kwargs)

    # A native entry takes this place in the type of a function that has one.
    __call__ = _call_python

    def _call_general(
        self, fast_key: Key | None, settings: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """Flatten any arguments, find or make the compiled form, run it."""
        name, static_floats = self.__name__, self._static_floats
        leaves, tree = flatten((args, kwargs), static_floats=static_floats)
        parts = tuple(leaf_key(leaf, name) for leaf in leaves)
        key = (tree, parts, settings, self._surroundings.now.key)
        try:
            compiled = self._compiled.get(key)
        except TypeError:
            check_statics(tree, self.__wrapped__)
            raise
        if compiled is None or not compiled.program.settled:
            if compiled is None:
                check_statics(tree, self.__wrapped__)
            served = self._serving(args, kwargs, leaves, key, tree)
            if served is not None:
                plan, values = served
                with contextlib.suppress(Unfit):
                    return plan.call(values, key[1], leaves, self.plain, args, kwargs)
        if compiled is None:
            try:
                compiled = self._set_up(key, leaves, tree)
            except TraceError:
                if static_floats or not has_floats(leaves):
                    raise
                # The function may have asked for the value of a float: then floats are static.
                return self._retry_static(settings, args, kwargs)
            if compiled is None:
                return self.plain(args, kwargs)
        if compiled.program.settled and self._entry_ready(compiled):
            if fast_key is not None:
                self._remember_fast(fast_key, compiled, args, leaves, key)
            if fast_key is not None or not compiled.entered:
                compiled.entered = True
                self._enter_natively(compiled, args, kwargs, leaves, key)
        return compiled.call(leaves, self.plain, args, kwargs)

    def _entry_ready(self, compiled: Compiled) -> bool:
        """Whether a native entry can be made without a stall; else it is made ready meanwhile."""
        if compiled.executable is None or entry.ready() or not entry.supported():
            return True
        if stance.mode_of(self._mode) == "now":
            return True
        if len(self._compiled) > 1:  # plans for ranges of sizes wait for it
            entry.approach(entry.CALLS_BEFORE)
        return False

    def _remember_fast(
        self,
        fast_key: Key,
        compiled: Compiled,
        args: tuple[Any, ...],
        leaves: Sequence[Any],
        key: Key,
    ) -> None:
        """Let the fast path find ``compiled``, which stays what it is."""
        settings = key[2]
        found = fast_entry(compiled, args, leaves)
        with self._lock:
            if key[3] is not self._surroundings.now.key:
                return
            current, table = self._fast
            if current is not settings or len(table) >= SIGNATURES_KEPT:
                self._fast = (settings, table := {})
            table[fast_key] = found

    def _enter_natively(
        self,
        compiled: Compiled,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: Sequence[Any],
        key: Key,
    ) -> None:
        """Let the next calls with such arguments run without Python, where that is possible."""
        executable = compiled.executable
        if executable is None or not config.is_default(key[2]):
            return
        slots = self._slots(args, kwargs, leaves, key)
        result = None if slots is None else native_result(compiled, slots.inputs)
        kind = self._variation.note(key)
        kind.compiled = True
        plan = None
        if self.dynamic is not False and entry.supported():
            with kind.lock:
                if kind.serving(key[1]) is None:
                    plan = self._generalised(kind, leaves, slots, key, "leave")
        with self._lock:
            if key[3] is not self._surroundings.now.key:
                return
            if slots is not None and result is not None:
                # The signature's own form is tried first: its code may be specialised.
                hot = sizes_of(key[1]) in kind.hot
                self._accept(lambda e: e.add(executable, slots, result, first=hot))
            if plan is not None:
                self._add_plan(plan, key)

    def _accept(
        self, add: Callable[[entry.NativeEntry], entry.NativeForm | None]
    ) -> entry.NativeForm | None:
        """Let the native entry take one more form; without one it is made."""
        if self._entry is None:
            self._entry = entry.NativeEntry(self.__name__, self._call_python)
            self._surroundings.tell(self._entry)
        if not self._surroundings.told:
            return None
        added = add(self._entry)
        if added is not None:
            # The type's slot finds the C function; it is of this function alone.
            self._entry.serve(self)
            self._variation.divert = self._entry.divert
        return added

    def _look_outside(self) -> None:
        """Take down what the function reads from outside; what was made for other values waits."""
        with self._lock:
            around = self._surroundings
            before = around.now.key
            gone = around.look(self.__wrapped__)
            if around.now.key is not before:
                self._fast = (None, {})
                if self._entry is not None:
                    self._entry.clear()
            if self._entry is not None:
                around.tell(self._entry)
            for outside in gone:
                for key in [key for key in self._compiled if key[3] == outside]:
                    self._stats.evict(self._compiled.pop(key))
                for key in [key for key in self._families if key[3] == outside]:
                    del self._families[key]
                self._variation.forget(outside)
        hint_outside(self.__name__, around.often())

    def _slots(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], leaves: Sequence[Any], key: Key
    ) -> Slots | None:
        """Return where a native entry finds the arguments; None where it cannot take them."""
        # Kernels read numbers in the objects that hold them; static floats are compared by value.
        direct = all(
            as_array(leaf, part) is leaf if is_array(leaf) else not isinstance(leaf, Tensor)
            for leaf, part in zip(leaves, key[1], strict=True)
        )
        slots = slots_of(args, kwargs, key[0])
        if not direct or slots is None or not entry.supported():
            return None
        static = self._static_floats and any(type(value) in _FLOATS for value in slots.values)
        return None if static else slots

    def _serving(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: Sequence[Any],
        key: Key,
        tree: Tree,
    ) -> tuple[Ranged, Values] | None:
        """Return the plan for ranges of sizes that has a call's, and the values of its numbers.

        None where there is none, nor can be one by kernels that are there, or where these sizes
        are to have a signature of their own.
        """
        if self._entry is not None:
            self._entry.resume()
        if self.dynamic is False or not config.is_default(key[2]) or stance.interpreting:
            return None
        kind = self._variation.note(key)
        if not kind.compiled or self._heats(kind, leaves, key, tree):
            return None
        with kind.lock:
            return kind.serving(key[1]) or self._planned(kind, args, kwargs, leaves, key)

    def _heats(self, kind: Kind, leaves: Sequence[Any], key: Key, tree: Tree) -> bool:
        """Begin a signature of their own for sizes that are called often.

        True where it is there already.
        """
        sizes = sizes_of(key[1])
        if sizes not in kind.hot or kind.hot[sizes] is not None or not analysis.wanted():
            return False
        kind.hot[sizes] = compiled = self._set_up(key, leaves, tree)
        if compiled is None or compiled.program.settled:
            return True
        compiled.program.request()
        return False

    def _planned(
        self,
        kind: Kind,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        leaves: Sequence[Any],
        key: Key,
    ) -> tuple[Ranged, Values] | None:
        """Make a plan for sizes that no other has; None where that cannot be."""
        why, started = self._why(key), time.perf_counter()
        slots = self._slots(args, kwargs, leaves, key)
        plan = self._generalised(kind, leaves, slots, key, self._missing())
        if plan is None:
            return None
        with self._lock:
            self._note_trace(key, why, max(0.0, time.perf_counter() - started))
            self._add_plan(plan, key)
        values = plan.numbers(key[1])
        return None if values is None else (plan, values)

    def _add_plan(self, plan: Ranged, key: Key) -> None:
        form = plan.form
        if form is not None and key[3] is self._surroundings.now.key:
            plan.native = self._accept(lambda e: e.add_words(None, form.words, form.kept))
        self._families.setdefault(without_sizes(key), Family()).plans.append(plan)
        analysis.watch_also(self._variation)

    def _missing(self) -> Literal["leave", "ask", "wait"]:
        """Return what to do about kernels that are nowhere."""
        if stance.current().endswith("_on_recompile"):
            return "leave"
        mode = stance.mode_of(self._mode)
        return "wait" if mode == "now" else "leave" if mode == "never" else "ask"

    def _generalised(
        self,
        kind: Kind,
        leaves: Sequence[Any],
        slots: Slots | None,
        key: Key,
        missing: Literal["leave", "ask", "wait"],
    ) -> Ranged | None:
        """Return a plan for all sizes along dimensions that vary; None where there is none."""
        if not kind.varied:
            return None
        from tracejit.frontend.dynamic import generalise  # and with it all that plans

        known = kind.why_static
        level = config.optimize() if self.optimize is None else self.optimize
        call = Example(
            self.__wrapped__, key[1], key[0], leaves, slots, self.fast_math, level, missing
        )
        plan = generalise(kind, call)
        name, text = self.__name__, signature_text(key[1])
        if plan is not None:
            events.emit("tiers", f"{name} takes sizes other than those of {text}", function=name)
        elif kind.why_static != known:
            message = f"{name} is traced for each size: {kind.why_static}"
            events.emit("recompiles", message, function=name, reason=kind.why_static)
        return plan

    def _retry_static(self, settings: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call with static floats; keep them static where that is what was missing."""
        self._static_floats = True
        try:
            return self._call_general(None, settings, args, kwargs)
        except TraceError:
            self._static_floats = False
            raise

    def _set_up(self, key: Key, leaves: Sequence[Any], tree: Tree) -> Compiled | None:
        """Trace for a new signature; None where the stance leaves it to the Python function."""
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        try:
            with lock:
                compiled = self._compiled.get(key)
                if compiled is not None:
                    return compiled
                wanted = stance.current()
                guarded = bool(self._compiled) and wanted.endswith("_on_recompile")
                mode: Wanted = "cached" if guarded else self._mode
                compiled = compile_signature(
                    self.__wrapped__,
                    leaves,
                    tree,
                    mode=mode,
                    fast_math=self.fast_math,
                    level=self.optimize,
                )
                if guarded and compiled.program.state is not State.COMPILED:
                    return self._refuse(wanted, key, compiled)
                with self._lock:
                    self._remember(key, tree, compiled)
                return compiled
        finally:
            with self._lock:
                self._locks.pop(key, None)

    def _refuse(self, wanted: str, key: Key, compiled: Compiled) -> None:
        """Leave a signature that needs new kernels to NumPy, or raise, as the stance has it."""
        if wanted == "fail_on_recompile" and compiled.graph.outputs:
            raise RecompileError(
                f"{self.__name__} would have to be compiled again: {self._why(key)}",
                hint="call it with such arguments once before set_stance('fail_on_recompile')",
            )

    def _why(self, key: Key) -> Why | None:
        """Return why a signature has to be traced; None for a function's first."""
        why = self._difference(key)
        if why is None or why.reason is not Reason.SHAPE or not self._variation.note(key).plans:
            return why
        return why._replace(reason=Reason.GUARD)

    def _difference(self, key: Key) -> Why | None:
        if self._last is None:
            return None
        known = [self._last, *reversed(list(self._compiled))]
        return why_new(self.__wrapped__, key, known)

    def _note_trace(self, key: Key, why: Why | None, seconds: float) -> None:
        """Count a trace, and tell why it was made."""
        stats = self._stats
        stats.traces += 1
        stats.tracing += seconds
        self._last = key
        if why is not None:
            stats.reasons[why.reason] += 1
            name = self.__name__
            events.emit(
                "recompiles", f"{name} is traced again: {why}", seconds, function=name,
                reason=str(why.reason), detail=why.detail, arguments=signature_text(key[1]),
            )  # fmt: skip

    def _remember(self, key: Key, tree: Tree, compiled: Compiled) -> None:
        stats = self._stats
        compiled.why = self._why(key)
        self._note_trace(key, compiled.why, compiled.tracing)
        self._families.setdefault(without_sizes(key), Family()).add(compiled.program)
        self._variation.note(key)
        while len(self._compiled) >= SIGNATURES_KEPT:
            stats.evict(self._compiled.pop(next(iter(self._compiled))))
        self._compiled[key] = compiled
        if not self._hinted:
            self._hinted = hint_static(self.__name__, self.__wrapped__, tree, self._values)

    def plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call the Python function itself, counted and timed as a fallback."""
        stats = self._stats
        stats.fallbacks += 1
        timed = profiler.python_timer(stats.fallbacks)
        try:
            return self.__wrapped__(*args, **kwargs)
        finally:
            timed.stop(stats.python)

    # -- what users ask --------------------------------------------------------------------------

    def _key(self, tree: Tree, keys: Sequence[Any]) -> Key:
        """Return the signature of a call now."""
        if not self._surroundings.hold(self._entry):
            self._look_outside()
        return tree, keys, config.settings(), self._surroundings.now.key

    def compile_for(self, *args: Any, **kwargs: Any) -> None:
        """Trace and compile for arguments like these, without calling the function on them.

        Raises what tracing raises. Where the kernels cannot be compiled one warning says so, and
        NumPy answers (``stats()["failed"]``).
        """
        compiled, self._static_floats = self._with_floats(args, kwargs, self._set_up)
        if compiled is not None:
            compiled.program.compile()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until no kernels of this function are being made; False if ``timeout`` ends first.

        ``timeout`` is in seconds. Afterwards the signatures called so far run compiled, but for
        those that failed (``stats()["failed"]``).
        """
        end = None if timeout is None else time.monotonic() + timeout
        for compiled in list(self._compiled.values()):
            left = None if end is None else max(0.0, end - time.monotonic())
            if not compiled.program.wait(left):
                return False
        return True

    def trace(self, *args: Any, **kwargs: Any) -> Traced:
        """Return the traced and compiled form for these example arguments, to look at."""
        from tracejit.frontend.python import trace

        return trace(self, *args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else Bound(self, instance)

    def __reduce__(self) -> str | tuple[Any, ...]:
        """A function of a module goes by its name, as Python's own do; another one by its parts."""
        if is_found(self):
            return self.__qualname__
        options = (self._mode, self.fast_math, self.optimize, self.dynamic)
        return Jitted, (self.__wrapped__, *options)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __repr__(self) -> str:
        return f"<jit {self.__name__}: {len(self._compiled)} signatures>"

    __wrapped__: Callable[..., Any]
    __name__: str
    __qualname__: str
