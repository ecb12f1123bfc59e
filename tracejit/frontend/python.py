"""``jit``: Python functions of arrays become compiled graphs.

A call looks up the arguments' signature; a new one is traced once and compiled. The signature is
the argument tree with its static values, dtype, shape and layout of each array, and the settings
in force. What is what:

- arrays and tensors are traced; NumPy in gives NumPy out, and Tensors out where an argument is one;
- Python floats and complex numbers are traced as weak scalars (NEP 50): a new value does not
  recompile, and float32 stays float32; a function that asks for a float's value (``if rate > 0``)
  is traced again with all its floats static;
- ints, bools, strings, None and other hashable objects are static: they may be sizes, axes and
  conditions, and each value is a signature of its own;
- what the function reads from globals and enclosing variables is a constant of the trace, and
  part of the signature (``frontend/outside.py``); attributes of plain objects among the arguments
  (``self.weights``) are arguments;
- an array that the function changes in place is changed for the caller too, after the run.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from tracejit import config
from tracejit.errors import ArgumentError, TraceError, ValueArgumentError
from tracejit.frontend.compiled import compile_signature
from tracejit.frontend.jitted import Jitted
from tracejit.frontend.names import definition
from tracejit.frontend.signature import has_floats, is_array
from tracejit.frontend.trees import Spec, check_statics, flatten
from tracejit.runtime.stance import Mode
from tracejit.tensor import Tensor

if TYPE_CHECKING:
    from tracejit.frontend.traced import Traced


@overload
def jit(
    function: Callable[..., Any],
    *,
    compile: Mode | None = ...,
    fast_math: bool = ...,
    optimize: int | None = ...,
    dynamic: bool | None = ...,
) -> Jitted: ...
@overload
def jit(
    function: None = None,
    *,
    compile: Mode | None = ...,
    fast_math: bool = ...,
    optimize: int | None = ...,
    dynamic: bool | None = ...,
) -> Callable[[Callable[..., Any]], Jitted]: ...
def jit(
    function: Callable[..., Any] | None = None,
    *,
    compile: Mode | None = None,
    fast_math: bool = False,
    optimize: int | None = None,
    dynamic: bool | None = None,
) -> Jitted | Callable[[Callable[..., Any]], Jitted]:
    """Return ``function`` compiled per signature; also a decorator, with or without arguments.

    ``compile`` says who answers until the kernels of a new signature are ready. "auto": NumPy, or
    the caller waits where that is quicker. "background": always NumPy; "now": the caller always
    waits. "never": no kernels are made. None is what ``TRACEJIT_COMPILE`` says, else "auto".
    ``fast_math`` allows rewrites that change rounding and special values. ``optimize`` is LLVM's
    level of instruction selection, 0 to 3; None is what ``TRACEJIT_OPT`` says, else 2. ``dynamic``:
    None traces with symbolic sizes once a dimension has had a second size, True from the start;
    False traces for each size.

    Raises ArgumentError for what is not a function, TraceError for generators and coroutines.
    """
    if compile is not None and compile not in config.COMPILE_MODES:
        raise ValueArgumentError(
            f"compile={compile!r} is not one of {', '.join(config.COMPILE_MODES)}"
        )
    if optimize not in (None, 0, 1, 2, 3):
        raise ValueArgumentError(f"optimize={optimize!r} is not a level from 0 to 3")
    if dynamic not in (None, True, False):
        raise ValueArgumentError(f"dynamic={dynamic!r} is not None, True or False")
    if function is None:
        return functools.partial(
            jit, compile=compile, fast_math=fast_math, optimize=optimize, dynamic=dynamic
        )
    if isinstance(function, Jitted):
        function = function.__wrapped__
    check_function(function)
    return Jitted(function, compile, fast_math, optimize, dynamic)


def check_function(function: Any) -> None:
    """Raise where ``function`` cannot be traced."""
    if not callable(function) or isinstance(function, type):
        hint = "write @tj.jit above a def, or tj.jit(function)"
        if is_array(function) or isinstance(function, Tensor):
            hint += "; x.trace() and tj.linalg.trace(x) sum a diagonal"
        raise ArgumentError(f"jit takes a function, got {type(function).__name__}", hint=hint)
    for test, what in (
        (inspect.isgeneratorfunction, "a generator"),
        (inspect.iscoroutinefunction, "a coroutine"),
        (inspect.isasyncgenfunction, "an asynchronous generator"),
    ):
        if test(function):
            raise TraceError(
                f"{function.__name__} is {what} function; it runs in pieces, a trace runs once",
                hint="return a list or a stacked array, and jit the function that computes it",
                loc=definition(function),
            )


def spec(shape: Sequence[int] | int, dtype: Any = np.float64) -> Spec:
    """Return an example argument without values, for ``trace``."""
    sizes = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    return Spec(sizes, np.dtype(dtype))


def trace(function: Callable[..., Any], *examples: Any, **keywords: Any) -> Traced:
    """Trace ``function`` on example arguments (arrays, tensors, or ``spec(shape, dtype)``).

    Returns a ``Traced``: its graph, schedule, kernels, texts, and a callable.
    """
    relaxed = isinstance(function, Jitted) and function.fast_math
    if isinstance(function, Jitted):
        function = function.__wrapped__
    check_function(function)
    mode: Mode = "never" if config.disable_jit() else "now"
    static_floats = False
    leaves, tree = flatten((examples, keywords))
    check_statics(tree, function)
    try:
        compiled = compile_signature(function, leaves, tree, mode=mode, fast_math=relaxed)
    except TraceError:
        if not has_floats(leaves):
            raise
        static_floats = True
        leaves, tree = flatten((examples, keywords), static_floats=True)
        compiled = compile_signature(function, leaves, tree, mode=mode, fast_math=relaxed)
    from tracejit.frontend.traced import Traced

    return Traced(function, compiled, tree, static_floats=static_floats)
