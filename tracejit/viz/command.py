"""``tracejit viz``: from a program or a function to its drawn graphs, and to a file or a tree."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, cast

import numpy as np

from tracejit import config
from tracejit.errors import ArgumentError, TracejitError, UnsupportedError
from tracejit.frontend import neuralscript
from tracejit.frontend.python import Jitted, trace
from tracejit.ops.table import Array
from tracejit.record import replace
from tracejit.runtime import monitor
from tracejit.runtime.executable import Executable
from tracejit.viz import page, terminal
from tracejit.viz.arguments import Examples, filled, implied, parse
from tracejit.viz.model import Figure, leading_op, view

_HINT = "write prog.ns, prog.ns:function, file.py:function or package.module:function"


class Subject(NamedTuple):
    """What to draw: executables in order, with a title, and a sentence about them."""

    title: str
    figures: list[Figure]
    about: str = ""


def visualise(what: str, output: Path, inputs: Sequence[str]) -> Path:
    """Write the graphs of ``what`` to ``output``; its suffix chooses HTML, SVG, DOT or JSON.

    Raises ValueArgumentError for a suffix or argument that is not known, ArgumentError where
    ``what`` names nothing that can be drawn, and what running or tracing it raises.
    """
    page.check_suffix(output)
    found = subject(what, parse(inputs))
    return page.save(output, found.figures, found.title, found.about)


def print_tree(what: str, inputs: Sequence[str]) -> None:
    """Print the graphs of ``what`` as trees. Raises as ``visualise`` does."""
    found = subject(what, parse(inputs))
    terminal.print_trees([(f.title, f.executable) for f in found.figures])


def subject(what: str, examples: Examples) -> Subject:
    """Return the executables of a program or function. Raises as ``visualise`` does."""
    if what.endswith(".ns"):
        return _program(what, examples)
    place, colon, name = what.rpartition(":")
    if not colon or not place or not name:
        raise ArgumentError(f"{what} names no program and no function", hint=_HINT)
    if place.endswith(".ns"):
        function = _script_function(place, name)
        if not any(examples):
            examples = implied(function)
    else:
        function = _python_function(place, name)
    return Subject(name, [_traced(name, function, examples)])


def _traced(name: str, function: Callable[..., Any], examples: Examples) -> Figure:
    try:
        traced = trace(function, *examples.positional, **examples.named)
    except ArgumentError as error:
        if error.hint is None:
            error.hint = "give each argument: --arg 'f32[8,8]' --arg 0.5"
        raise
    except TypeError as error:
        if isinstance(error, TracejitError) or not _is_call_error(error):
            raise
        raise ArgumentError(
            f"{name} does not take these arguments: {error}",
            hint="give each argument: --arg 'f32[8,8]' --arg 0.5",
        ) from None
    return Figure(name, traced.executable)


def _is_call_error(error: TypeError) -> bool:
    """Whether a call failed before the function's first line: no frame of its own."""
    return "argument" in str(error) and "()" in str(error)


# -- programs --------------------------------------------------------------------------------------


def _program(path: str, examples: Examples) -> Subject:
    """Run a program and return the graphs that ran; of a library, the graphs of its functions."""
    if examples.positional:
        raise ArgumentError(
            f"{path} is a program; its inputs have names",
            hint=f"--arg x=…, or {path}:function --arg … for one function",
        )
    given = {k: filled(v) for k, v in examples.named.items()}
    arrays: dict[str, Array] = {k: v for k, v in given.items() if isinstance(v, np.ndarray)}
    settings = {k: v for k, v in given.items() if k not in arrays}
    with monitor.recording(everything=True) as recorded:
        outputs = neuralscript.run_program(path, settings, arrays, write=lambda text: None)
        for name in outputs:
            outputs[name]  # a value is computed when it is asked for
    runs = list(recorded)
    title = Path(path).name
    if runs:
        figures = [_titled(Figure("", r.executable, r.calls, r.seconds)) for r in runs]
        about = f"The graphs that ran, in the order of their first run: {len(figures)}."
        return Subject(title, figures, about)
    if config.disable_jit():
        raise UnsupportedError(f"{path} ran interpreted", hint="unset TRACEJIT_DISABLE_JIT")
    return _library(path, title)


def _library(path: str, title: str) -> Subject:
    """Trace each function that the file defines, on arguments that its types imply."""
    module = neuralscript.load(path)
    own = [n for n in dir(module) if _defined_in(getattr(module, n), module)]
    if not own:
        raise ArgumentError(f"{path} computes nothing and defines no function", hint=_HINT)
    figures: list[Figure] = []
    failed: list[str] = []
    for name in own:
        function = cast(Jitted, getattr(module, name))
        try:
            figures.append(_traced(name, function, implied(function)))
        except TracejitError as error:
            failed.append(f"{name} ({error.message})")
    if not figures:
        raise ArgumentError(
            f"{path} has no main, and no example arguments are known for {'; '.join(failed)}",
            hint=f"tracejit viz {path}:{own[0]} --arg 'f32[8,8]' …",
        )
    about = "The functions of this file, on example sizes; --arg gives others."
    if failed:
        about += f" Not shown: {'; '.join(failed)}."
    return Subject(title, figures, about)


def _defined_in(function: Any, module: neuralscript.ScriptModule) -> bool:
    return function.__wrapped__.__module__ == f"tracejit.kernels.{module.__name__}"


def _titled(figure: Figure) -> Figure:
    """Name an executable after its results' line and its ops."""
    return replace(figure, title=f"{_line(figure.executable)}{leading_op(view(figure))}")


def _line(executable: Executable) -> str:
    places = [n.loc for n in reversed(executable.schedule.graph.nodes) if n.loc is not None]
    return f"{Path(places[0].filename).name}:{places[0].line} " if places else ""


# -- functions -------------------------------------------------------------------------------------


def _script_function(path: str, name: str) -> Callable[..., Any]:
    module = neuralscript.load(path)
    try:
        return getattr(module, name)
    except AttributeError as error:
        raise ArgumentError(str(error), hint=f"write {path}:NAME") from None


def _python_function(place: str, name: str) -> Callable[..., Any]:
    """Return a function of a module or of a file. Raises ArgumentError."""
    module = _file(Path(place)) if place.endswith(".py") else _module(place)
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            functions = [n for n, v in vars(module).items() if callable(v) and n[0] != "_"]
            raise ArgumentError(
                f"{place} has no {name}", hint=f"it has: {', '.join(functions[:20]) or 'nothing'}"
            )
        value = getattr(value, part)
    if not callable(value) or isinstance(value, type):
        raise ArgumentError(
            f"{place}:{name} is not a function but a {type(value).__name__}",
            hint="name a function of arrays",
        )
    return value


def _file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ArgumentError(f"no file {path}", hint=_HINT)
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules.setdefault(path.stem, module)
    specification.loader.exec_module(module)
    return module


def _module(name: str) -> ModuleType:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # something that the module itself needs
        raise ArgumentError(
            f"no module {name}", hint=f"run this where {name} can be imported; {_HINT}"
        ) from None
    except ValueError:
        raise ArgumentError(f"{name} is not the name of a module", hint=_HINT) from None
