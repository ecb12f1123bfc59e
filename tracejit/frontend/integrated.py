"""One compiler for everything a program names: NeuralScript, graph texts, Python functions.

``get_integrated_jit_compiler()`` is the process's registry of named functions over the same
machinery as ``jit``: a name is compiled from any of its forms, and called with what the call
cost and who answered it::

    compiler = tj.get_integrated_jit_compiler()
    source = "fn double(x: Vector<f64>) -> Vector<f64> { 2.0 * x }"
    compiler.compile_with_optimizations(function_name="double", ir_code=source)
    was_jit, result, metrics = compiler.execute_with_monitoring("double", np.arange(3.0))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import numpy as np

from tracejit.errors import ArgumentError, ShapeError
from tracejit.frontend.jitted import Jitted
from tracejit.frontend.neuralscript import loads
from tracejit.frontend.neuralscript.diagnostics import closest
from tracejit.frontend.python import jit, spec
from tracejit.frontend.traced import Traced
from tracejit.frontend.trees import flatten
from tracejit.graph.graph import Graph
from tracejit.graph.text import parse, type_text
from tracejit.runtime import cpu, memory, service
from tracejit.runtime.tiers import Program
from tracejit.schedule.titles import size_text, time_text
from tracejit.tensor import Tensor, lift, wrap
from tracejit.tracing import state

IrCode = str | Graph | Traced | Callable[..., Any]


@dataclass(frozen=True)
class FunctionProfile:
    """What is known of a function before it is compiled.

    ``arguments`` are example calls (tuples of arrays): each is a signature to compile at once.
    ``calls`` says how often it is expected to be called; with fewer than ``HOT_CALLS`` it is left
    to the runtime to decide when compiling pays. ``fast_math`` allows rewrites that change
    rounding; ``optimize`` is LLVM's level, 0 to 3 (None: what ``TRACEJIT_OPT`` says).
    """

    arguments: Sequence[tuple[Any, ...]] = ()
    calls: int | None = None
    fast_math: bool = False
    optimize: int | None = None


HOT_CALLS = 2


@dataclass(frozen=True)
class ExecutionMetrics(Mapping[str, Any]):
    """What one call cost; also a mapping of the same names.

    Seconds: ``seconds`` of the whole call, ``compile_seconds`` of them tracing and compiling (in
    this thread or in the background meanwhile). ``tier``: 0 where NumPy answered, else the tier
    of the kernels. ``kernels``: how many distinct ones ran. ``cache_hits``: kernels found in
    memory or on disk during the call, ``compiles``: those compiled. Bytes: ``arena_bytes`` of
    planned intermediates, ``intermediate_bytes`` of what they would take unfused,
    ``result_bytes``. ``simd_level`` is the instruction set of the kernels. ``calls`` counts the
    function's calls so far, ``fallbacks`` those that NumPy or Python answered instead.
    """

    seconds: float
    compile_seconds: float
    tier: int
    kernels: int
    cache_hits: int
    compiles: int
    arena_bytes: int
    intermediate_bytes: int
    result_bytes: int
    simd_level: str
    calls: int
    fallbacks: int
    memory: Mapping[str, int] = field(default_factory=dict[str, int])

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as a plain dict, for JSON."""
        return asdict(self)

    def __str__(self) -> str:
        kernels = f"{self.kernels} kernel{'s' * (self.kernels != 1)} ({self.simd_level})"
        who = f"tier {self.tier}, {kernels if self.tier else 'NumPy'}"
        return (
            f"{time_text(self.seconds)}: {who}; {self.compiles} compiled, {self.cache_hits} found "
            f"in a cache, {time_text(self.compile_seconds)}; memory between steps "
            f"{size_text(self.arena_bytes)}, result {size_text(self.result_bytes)}"
        )


class IntegratedJITCompiler:
    """Named functions, compiled and monitored. One a process; safe from many threads."""

    def __init__(self) -> None:
        self._functions: dict[str, Jitted] = {}
        self._lock = threading.Lock()

    # -- compiling -----------------------------------------------------------------------------

    def compile_with_optimizations(
        self,
        function_name: str,
        ir_code: IrCode,
        profile: FunctionProfile | Mapping[str, Any] | None = None,
    ) -> Jitted:
        """Make ``ir_code`` callable as ``function_name`` and return the jitted function.

        ``ir_code``: NeuralScript source that has a function of that name (or has one function
        only), the text of a graph (``docs/ir.md``), a graph, what ``tj.trace`` returned, or a
        Python function. A name that exists is replaced; calls that run go on with the old one.
        ``profile`` (a ``FunctionProfile`` or a mapping of its fields) says what to compile now; a
        graph, which has one signature, is compiled now in any case.

        Raises ProgramError for a wrong program, ValueArgumentError for a wrong graph text,
        ArgumentError for what is neither, and what tracing the examples raises.
        """
        known = _profile(profile)
        graph = _graph(ir_code)
        function = (
            _function(function_name, ir_code) if graph is None else _of_graph(function_name, graph)
        )
        hot = known.calls is None or known.calls >= HOT_CALLS
        jitted = jit(
            function,
            fast_math=known.fast_math,
            optimize=known.optimize,
            compile=None if hot else "background",
        )
        jitted.__name__ = function_name
        own = [] if graph is None else [tuple(spec(n.shape, n.dtype) for n in graph.inputs)]
        for arguments in [*own, *known.arguments]:
            jitted.compile_for(*arguments)
        with self._lock:
            self._functions[function_name] = jitted
        return jitted

    def remove(self, function_name: str) -> None:
        """Forget a function; calls that run end as they would have."""
        self._find(function_name)
        with self._lock:
            self._functions.pop(function_name, None)

    # -- running -------------------------------------------------------------------------------

    def execute_with_monitoring(
        self, function_name: str, *args: Any, **kwargs: Any
    ) -> tuple[bool, Any, ExecutionMetrics]:
        """Call a function; return whether kernels answered, its result, and what the call cost.

        Raises ArgumentError for an unknown name, and what the function raises.
        """
        jitted = self._find(function_name)
        before, served = jitted.stats(), service.stats()
        started = time.perf_counter()
        program, result = _observed(jitted, args, kwargs)
        seconds = time.perf_counter() - started
        after, serves = jitted.stats(), service.stats()
        executable = None if program is None else program.executable
        schedule = executable.schedule if executable is not None else None
        metrics = ExecutionMetrics(
            seconds=seconds,
            compile_seconds=max(0.0, after["compile_seconds"] - before["compile_seconds"]),
            tier=0 if program is None else program.tier,
            kernels=0 if executable is None else executable.kernels,
            cache_hits=sum(int(serves[k] - served[k]) for k in ("memory_hits", "disk_hits")),
            compiles=int(serves["compiled"] - served["compiled"]),
            arena_bytes=0 if schedule is None else schedule.arena.nbytes,
            intermediate_bytes=0 if schedule is None else schedule.intermediates,
            result_bytes=_nbytes(result),
            simd_level=(cpu.target() if executable is None else executable.target).name,
            calls=after["calls"],
            fallbacks=after["fallbacks"],
            memory=memory.stats() if memory.available() else {},
        )
        return executable is not None, result, metrics

    # -- what is there -------------------------------------------------------------------------

    def __contains__(self, function_name: str) -> bool:
        return function_name in self._functions

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._functions))

    def __len__(self) -> int:
        return len(self._functions)

    def __getitem__(self, function_name: str) -> Jitted:
        return self._find(function_name)

    def stats(self) -> dict[str, Mapping[str, Any]]:
        """Return ``Jitted.stats`` of each function by name."""
        with self._lock:
            functions = dict(self._functions)
        return {name: function.stats() for name, function in sorted(functions.items())}

    def _find(self, function_name: str) -> Jitted:
        with self._lock:
            found = self._functions.get(function_name)
            names = sorted(self._functions)
        if found is None:
            near = closest(function_name, names)
            there = f"there are: {', '.join(names)}" if names else "there are none yet"
            raise ArgumentError(
                f"no function {function_name!r} has been compiled",
                hint=f"did you mean {near!r}?" if near else f"{there}; compile_with_optimizations",
            )
        return found

    def __repr__(self) -> str:
        return f"<integrated compiler: {', '.join(self) or 'no functions'}>"


@cache
def get_integrated_jit_compiler() -> IntegratedJITCompiler:
    """Return the process's compiler, always the same one."""
    return IntegratedJITCompiler()


def _observed(jitted: Jitted, args: Any, kwargs: Any) -> tuple[Program | None, Any]:
    """Call ``jitted``; return the program whose kernels answered (None: NumPy did), and the result.

    Exact for a name that one thread calls with such arguments. Where several do while kernels
    become ready, a call may count as interpreted because another one was.
    """
    form = jitted.form(*args, **kwargs)
    runs = 0 if form is None else form.program.interpreted_runs
    result = jitted(*args, **kwargs)
    form = form or jitted.form(*args, **kwargs)
    if form is None or form.program.interpreted_runs != runs:
        return None, result
    return form.program if form.program.executable is not None else None, result


def _profile(profile: FunctionProfile | Mapping[str, Any] | None) -> FunctionProfile:
    if profile is None:
        return FunctionProfile()
    if isinstance(profile, FunctionProfile):
        return profile
    known = FunctionProfile.__dataclass_fields__
    for name in profile:
        if name not in known:
            raise ArgumentError(
                f"a profile has no field {name!r}", hint=f"it has: {', '.join(known)}"
            )
    return FunctionProfile(**profile)


def _graph(ir_code: Any) -> Graph | None:
    """Return the graph that ``ir_code`` is, or is the text of; None for what is none."""
    if not isinstance(ir_code, str):
        return ir_code if isinstance(ir_code, Graph) else None
    lines = (line.strip() for line in ir_code.splitlines())
    first = next((line for line in lines if line and not line.startswith(("#", "//"))), "")
    return parse(ir_code) if first.startswith("graph(") else None


def _function(name: str, ir_code: Any) -> Callable[..., Any]:
    """Return the Python function behind any other form."""
    match ir_code:
        case Traced(function=function) | Jitted(__wrapped__=function):
            return function
        case str():
            return _of_source(name, ir_code)
        case _ if callable(ir_code):
            return ir_code
        case _:
            pass
    raise ArgumentError(
        f"ir_code is a {type(ir_code).__name__}",
        hint="give NeuralScript source, a graph's text, a Graph, what tj.trace returned, "
        "or a Python function",
    )


def _of_source(name: str, text: str) -> Callable[..., Any]:
    """Return a function of a NeuralScript program."""
    module = loads(text, f"<{name}>")
    there = dir(module)
    if name not in there and len(there) != 1:
        raise ArgumentError(
            f"the program has no function {name!r}", hint=f"it has: {', '.join(there) or 'none'}"
        )
    return getattr(module, name if name in there else there[0]).__wrapped__


def _of_graph(name: str, graph: Graph) -> Callable[..., Any]:
    """Return a function that computes ``graph`` on its arguments: one result, or a tuple."""

    def call(*args: Any) -> Any:
        if len(args) != len(graph.inputs):
            raise ArgumentError(f"{name} takes {len(graph.inputs)} arrays, got {len(args)}")
        tensors = [lift(a) for a in args]
        for number, (tensor, wanted) in enumerate(zip(tensors, graph.inputs, strict=True)):
            if tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
                raise ShapeError(
                    f"argument {number} of {name} is {type_text(tensor.dtype, tensor.shape)}, "
                    f"the graph was recorded for {type_text(wanted.dtype, wanted.shape)}",
                    hint="record the graph again for these, or give the function itself",
                )
        image = dict(zip(graph.inputs, (t.node for t in tensors), strict=True))
        outputs = graph.rewrite(lambda node, operands: image.get(node)).outputs
        results = tuple(wrap(node, state.trace) for node in outputs)
        if state.trace is None and not any(isinstance(a, Tensor) for a in args):
            results = tuple(r.numpy() for r in results)
        return results[0] if len(results) == 1 else results

    call.__name__ = call.__qualname__ = name
    return call


def _nbytes(result: Any) -> int:
    leaves, _ = flatten(result)
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, Tensor | np.ndarray | np.generic))
