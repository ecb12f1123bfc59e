"""Who competes: tracejit, NeuralScript's kernels, and the libraries that are installed.

An implementation is named ``library`` or, for another instruction set of ours, ``library@level``.
Each runs in a process of its own (``worker.py``), so that thread pools, allocators and LLVM
versions do not meet, and so that one that compiles for minutes can be stopped.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .rows import Row, leaves

Array = np.ndarray[Any, Any]
Call = Callable[[], Any]
Fetch = Callable[[Any], list[Array]]

# What counts as tracejit; the others are peers. The copies move a row's bytes, as its yardstick:
# with a generated kernel, on all threads, and with NumPy, on one.
OURS = ("tracejit", "neuralscript")
PEERS = ("numpy", "jax", "torch", "torch.compile", "numba", "numexpr")
COPIES = ("copy", "copyto")


class Unavailable(Exception):
    """The library cannot be used here; the message says why."""


class NotWritten(Exception):
    """The row has no natural form in the library."""


class Loaded(NamedTuple):
    """A library in this process: its version, and how it takes a row."""

    version: str
    bind: Callable[[type[Row], tuple[Any, ...]], Call]
    fetch: Fetch


def split(name: str) -> tuple[str, str | None]:
    """Return the library and the instruction set (None: the machine's) of a name."""
    library, _, level = name.partition("@")
    return library, level or None


def environment(name: str, threads: int) -> dict[str, str]:
    """Return what the process of an implementation has in its environment."""
    count = str(threads)
    environ = dict(os.environ)
    for variable in (
        *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TRACEJIT_NUM_THREADS"),
        *("NUMBA_NUM_THREADS", "NUMEXPR_NUM_THREADS", "NUMEXPR_MAX_THREADS", "NPROC"),
    ):
        environ[variable] = count
    _, level = split(name)
    if level:
        environ["TRACEJIT_ISA"] = level
    return environ


def load(name: str, threads: int) -> Loaded:
    """Import the library of an implementation; raises ``Unavailable``."""
    # JAX has no variable for its number of threads: it looks at the affinity mask.
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        if threads < len(allowed):
            os.sched_setaffinity(0, allowed[:threads])
    library, _ = split(name)
    try:
        return LOADERS[library](threads)
    except ImportError as error:
        raise Unavailable(str(error).splitlines()[0]) from error


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _written(row: type[Row], library: str) -> Callable[[Any], Any]:
    builder = getattr(row, library)
    if builder is None:
        raise NotWritten
    return builder


def _load_tracejit(threads: int) -> Loaded:
    tj = _module("tracejit")
    _module("tracejit.runtime.cpu").target()  # asks what the processor can do

    def bind(row: type[Row], arguments: tuple[Any, ...]) -> Call:
        function = tj.jit(row.tracejit(tj), compile="now")
        return lambda: function(*arguments)

    return Loaded(tj.__version__, bind, leaves)


def _load_neuralscript(threads: int) -> Loaded:
    tj = _module("tracejit")
    _module("tracejit.runtime.cpu").target()

    def bind(row: type[Row], arguments: tuple[Any, ...]) -> Call:
        kernel = row.neuralscript(tj)
        if kernel is None:
            raise NotWritten
        # The kernels' own jit decides by itself when to compile.
        function = tj.jit(kernel, compile="now")
        return lambda: function(*arguments)

    return Loaded(tj.__version__, bind, leaves)


def _load_numpy(threads: int) -> Loaded:
    return Loaded(np.__version__, lambda row, args: lambda: row.numpy(*args), leaves)


def _load_jax(threads: int) -> Loaded:
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    jax = _module("jax")
    _module("jax.scipy.special")

    def bind(row: type[Row], arguments: tuple[Any, ...]) -> Call:
        builder = _written(row, "jax")
        jax.config.update("jax_enable_x64", row.dtype == "f64")
        args = [jax.numpy.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments]
        function = builder(jax)
        return lambda: jax.block_until_ready(function(*args))

    return Loaded(jax.__version__, bind, leaves)


def _load_torch(threads: int) -> Loaded:
    return _torch(threads, compiled=False)


def _load_torch_compile(threads: int) -> Loaded:
    return _torch(threads, compiled=True)


def _torch(threads: int, *, compiled: bool) -> Loaded:
    torch = _module("torch")
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)

    def bind(row: type[Row], arguments: tuple[Any, ...]) -> Call:
        function = _written(row, "torch")(torch)
        args = [_tensor(torch, a) if isinstance(a, np.ndarray) else a for a in arguments]
        if compiled:
            torch.compiler.reset()
            function = torch.compile(function)
        return lambda: function(*args)

    def arrays(result: Any) -> list[Array]:
        parts = result if isinstance(result, tuple | list) else (result,)
        # NumPy has no bfloat16 to give.
        return leaves([p.float() if p.dtype == torch.bfloat16 else p for p in parts])

    return Loaded(torch.__version__, bind, arrays)


def _tensor(torch: Any, array: Array) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _load_numba(threads: int) -> Loaded:
    numba = _module("numba")

    def bind(row: type[Row], arguments: tuple[Any, ...]) -> Call:
        function = _written(row, "numba")(numba)
        return lambda: function(*arguments)

    return Loaded(numba.__version__, bind, leaves)


def _load_numexpr(threads: int) -> Loaded:
    numexpr = _module("numexpr")
    numexpr.set_num_threads(threads)

    def bind(row: type[Row], arguments: tuple[Any, ...]) -> Call:
        function = _written(row, "numexpr")(numexpr)
        return lambda: function(*arguments)

    return Loaded(numexpr.__version__, bind, leaves)


def _copies(name: str) -> Callable[[int], Loaded]:
    def load(threads: int) -> Loaded:
        machine = _module(f"{__package__}.machine")
        return Loaded("", lambda row, _: getattr(machine, name)(row.bytes), lambda result: [])

    return load


LOADERS: dict[str, Callable[[int], Loaded]] = {
    "tracejit": _load_tracejit,
    "neuralscript": _load_neuralscript,
    "numpy": _load_numpy,
    "jax": _load_jax,
    "torch": _load_torch,
    "torch.compile": _load_torch_compile,
    "numba": _load_numba,
    "numexpr": _load_numexpr,
    "copy": _copies("copy"),
    "copyto": _copies("copyto"),
}
