"""Programs as files: loading with imports, checking, running, and functions for Python."""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tracejit import config
from tracejit.errors import ArgumentError
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.checker import Checker
from tracejit.frontend.neuralscript.diagnostics import (
    Diagnostic,
    Fault,
    ProgramError,
    closest,
    fault,
)
from tracejit.frontend.neuralscript.parser import parse
from tracejit.frontend.neuralscript.runs import tensor
from tracejit.frontend.neuralscript.scope import FunctionRef, Module
from tracejit.frontend.neuralscript.source import Source, Span
from tracejit.frontend.neuralscript.tracer import Tracer
from tracejit.frontend.neuralscript.values import Arrays, Frame, Struct
from tracejit.frontend.python import Jitted, jit
from tracejit.tensor import Tensor


def kernels_path() -> Path:
    """Return the folder of the shipped NeuralScript programs: of the wheel, or of a checkout."""
    package = Path(config.__file__).parent
    installed = package / "kernels"
    return installed if installed.is_dir() else package.parent / "kernels"


class Program:
    """A checked program with what it imports. One thread at a time traces it."""

    def __init__(
        self,
        source: Source,
        inputs: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None,
    ):
        self.source = source
        self.checker = Checker(source)
        self.checker.settings = dict(settings or {})
        self.lock = threading.RLock()
        self.modules: dict[Path, Module] = {}
        self.diagnostics: list[Diagnostic] = []
        start = Span(source, 0, 0)
        self.checker.given = dict.fromkeys(inputs, start)
        self.module = self.read(source, Path(source.name).stem)
        # Faults of the grammar, and missing modules, would only cause further ones.
        if not any(item.code < "N020" or item.code == "N024" for item in self.diagnostics):
            for module in [*self.modules.values(), self.module]:
                self.checker.check(module)
        found = [*self.diagnostics, *self.checker.diagnostics]
        order = {module.source: at for at, module in enumerate(self.modules.values())}
        order[source] = -1
        self.diagnostics = sorted(found, key=lambda d: (order.get(d.span.source, 0), d.span.start))

    def raise_errors(self) -> None:
        """Raise ProgramError where the program has errors."""
        if any(item.is_error for item in self.diagnostics):
            raise ProgramError(self.diagnostics)

    def read(self, source: Source, name: str) -> Module:
        """Parse a source, load its imports, declare its items."""
        program, found = parse(source)
        self.diagnostics += found
        module = Module(name, source, program)
        for item in program.statements:
            if isinstance(item, s.UseItem) and not item.builtin:
                try:
                    self.use(module, item)
                except Fault as failure:
                    self.diagnostics.append(failure.diagnostic)
        self.checker.declare(module)
        return module

    def use(self, module: Module, item: s.UseItem) -> None:
        """Bring the names of another file into a module. Errors: N024, N023."""
        target = self.imported(module, item)
        if item.names is None:
            module.imports[target.name] = target
            return
        tables = (target.functions, target.types, target.constants)
        names = [n for table in tables for n in table] if item.names == ("*",) else item.names
        for name in names:
            if name in target.functions:
                module.functions[name] = target.functions[name]
            elif name in target.types:
                module.types[name] = target.types[name]
            elif name in target.constants:
                module.constants[name] = target.constants[name]
            else:
                near = closest(name, [n for table in tables for n in table])
                raise fault(
                    "N023",
                    f"the module `{target.name}` has no `{name}`",
                    item.span,
                    help=f"did you mean `{near}`?" if near else "",
                )

    def imported(self, module: Module, item: s.UseItem) -> Module:
        folders = [f for f in (module.source.folder, kernels_path()) if f is not None]
        paths = [folder / f"{item.module}.ns" for folder in folders]
        path = next((p.resolve() for p in paths if p.is_file()), None)
        if path is None:
            looked = ", ".join(str(p) for p in paths)
            raise fault(
                "N024",
                f"cannot find the module `{item.module}`",
                item.span,
                help=f"looked for {looked}",
            )
        if path in self.modules:
            return self.modules[path]
        try:
            source = Source.read(path)
        except (OSError, UnicodeDecodeError) as error:
            raise fault("N024", f"cannot read {path}: {error}", item.span) from None
        placeholder = Module(path.stem, source, s.Program(Span(source, 0, 0), ()))
        self.modules[path] = placeholder  # a cycle of imports finds it here
        loaded = self.read(source, path.stem)
        self.modules[path] = loaded
        return loaded

    def tracer(self, write: Callable[[str], Any], arguments: Sequence[str] = ()) -> Tracer:
        """Return a tracer for one run; relative paths mean the program's folder first."""
        folders = [self.source.folder] if self.source.folder is not None else []
        return Tracer(self.checker, [*folders, Path.cwd()], list(arguments), write)

    def call(self, ref: FunctionRef, values: Mapping[str, Any]) -> Any:
        """Call a function with values by parameter name; missing ones take their defaults."""
        with self.lock:
            tracer = self.tracer(sys.stdout.write)
            module = ref.module
            assert module.body is not None
            tracer.body, tracer.frame = module.body, Frame()
            ordered: list[Any] = []
            for parameter in ref.item.parameters:
                if parameter.name in values:
                    ordered.append(_inward(values[parameter.name]))
                else:
                    assert parameter.default is not None
                    ordered.append(tracer.eval(parameter.default))
            return tracer.call_ref(ref, ordered)

    def function(self, ref: FunctionRef) -> Jitted:
        """Return a function of this program as an object like any jitted one."""
        signature = _signature(ref)

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                bound = signature.bind(*args, **kwargs)
            except TypeError as error:
                raise ArgumentError(f"{ref.name}{signature}: {error}") from None
            result = _outward(self.call(ref, bound.arguments))
            given = [*bound.arguments.values()]
            if any(isinstance(x, np.ndarray) for x in given) and not any(
                isinstance(x, Tensor) for x in given
            ):
                return _to_numpy(result)
            return result

        call.__name__ = call.__qualname__ = ref.item.name
        call.__doc__ = ref.item.doc or f"NeuralScript: {_head(ref.item)}"
        call.__module__ = f"tracejit.kernels.{ref.module.name}"
        call.__signature__ = signature  # pyright: ignore[reportFunctionMemberAccess]
        return jit(call)


def _head(item: s.FunctionItem) -> str:
    end = item.body.span.start
    return item.span.source.text[item.span.start : end].strip()


def _signature(ref: FunctionRef) -> inspect.Signature:
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    found: list[inspect.Parameter] = []
    for parameter in ref.item.parameters:
        text = "" if parameter.annotation is None else parameter.annotation.span.text
        found.append(
            inspect.Parameter(
                parameter.name,
                kind,
                default=inspect.Parameter.empty
                if parameter.default is None
                else _Default(parameter.default.span.text),
                annotation=text or inspect.Parameter.empty,
            )
        )
    return inspect.Signature(found)


class _Default:
    """Shows a parameter's default as the program writes it."""

    def __init__(self, text: str):
        self.text = text

    def __repr__(self) -> str:
        return self.text


def _inward(value: Any) -> Any:
    if isinstance(value, np.ndarray) and not isinstance(value, Tensor):
        return tensor(value)
    return value


def _outward(value: Any) -> Any:
    """Return a value as Python sees it: structs and loaded arrays are dicts."""
    match value:
        case Struct():
            return {name: _outward(item) for name, item in value.fields.items()}
        case Arrays():
            return dict(value.arrays)
        case tuple() | list():
            items: list[Any] = [_outward(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
            return tuple(items) if isinstance(value, tuple) else items
        case _:
            return value


def _to_numpy(value: Any) -> Any:
    match value:
        case Tensor():
            # A traced tensor goes back as it is: this call is being recorded.
            return value if value.traced_in is not None else value.numpy()
        case tuple():
            return tuple(_to_numpy(item) for item in value)  # pyright: ignore[reportUnknownVariableType]
        case list():
            return [_to_numpy(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        case dict():
            return {key: _to_numpy(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
        case _:
            return value


class ScriptModule:
    """The functions of a NeuralScript program, as attributes."""

    def __init__(self, program: Program):
        self._program = program
        self._functions: dict[str, Jitted] = {}
        self.__name__ = program.module.name
        self.__file__ = program.source.name

    def __getattr__(self, name: str) -> Jitted:
        if name.startswith("__"):
            raise AttributeError(name)
        known = self._program.module.functions
        if name not in known:
            near = closest(name, known)
            hint = f"; did you mean {near}?" if near else ""
            raise AttributeError(
                f"{self.__file__} has no function {name!r}{hint} It has: {', '.join(known)}"
            )
        if name not in self._functions:
            self._functions[name] = self._program.function(known[name])
        return self._functions[name]

    def __dir__(self) -> list[str]:
        return sorted(self._program.module.functions)

    def __repr__(self) -> str:
        return f"<NeuralScript module {self.__file__}: {', '.join(dir(self))}>"


def _read(path: str | Path) -> Source:
    found = Path(path)
    if not found.exists() and not found.is_absolute():
        shipped = kernels_path() / found.name
        if shipped.is_file() and found.parent == Path("."):
            found = shipped
    try:
        return Source.read(found, str(path) if found == Path(path) else str(found))
    except UnicodeDecodeError as error:
        raise ArgumentError(f"{path} is not UTF-8 text: {error}") from None


def load(path: str | Path) -> ScriptModule:
    """Load and check a NeuralScript program; its functions are attributes of the result.

    Raises ProgramError (a SyntaxError) with every error of the program, or OSError.
    """
    program = Program(_read(path))
    program.raise_errors()
    return ScriptModule(program)


def loads(text: str, name: str = "<program>", folder: Path | None = None) -> ScriptModule:
    """Load a program from its text."""
    program = Program(Source(text, name, folder))
    program.raise_errors()
    return ScriptModule(program)


def check_program(path: str | Path) -> list[Diagnostic]:
    """Return every error and warning of a program, in source order. Raises OSError."""
    return Program(_read(path)).diagnostics


class Outputs(Mapping[str, Any]):
    """What a program leaves: its top-level variables, or what ``main`` returned.

    ``main``'s struct gives its fields; anything else is ``result``. A value is computed when it
    is asked for: arrays come as ndarrays.
    """

    def __init__(self, values: Mapping[str, Any]):
        self._values = dict(values)

    def __getitem__(self, name: str) -> Any:
        if name not in self._values:
            raise KeyError(f"no output {name!r}; there are: {', '.join(self._values) or 'none'}")
        return _to_numpy(_outward(self._values[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def run_program(
    path: str | Path,
    settings: Mapping[str, Any] | None = None,
    inputs: Mapping[str, np.ndarray[Any, Any]] | None = None,
    *,
    arguments: Sequence[str] = (),
    write: Callable[[str], Any] | None = None,
) -> Outputs:
    """Run a program: ``main`` where it has one, else its top-level statements.

    ``settings`` replace constants, top-level ``let`` bindings and parameters of ``main`` by name;
    ``inputs`` are arrays under their names (parameters of ``main``, or variables). ``write``
    takes what the program prints (default: standard output).

    Raises ProgramError for a wrong program (nothing has run then), other TracejitErrors for what
    fails while it runs, ArgumentError for a name that the program does not have.
    """
    settings, inputs = dict(settings or {}), dict(inputs or {})
    program = Program(_read(path), tuple(inputs), settings)
    program.raise_errors()
    return run(program, settings, inputs, arguments, write)


def run(
    program: Program,
    settings: Mapping[str, Any],
    inputs: Mapping[str, Any],
    arguments: Sequence[str] = (),
    write: Callable[[str], Any] | None = None,
) -> Outputs:
    """Run a checked program; see ``run_program``."""
    tracer = program.tracer(write or sys.stdout.write, arguments)
    main = program.module.functions.get("main")
    given: dict[str, Any] = {**settings, **{k: tensor(v) for k, v in inputs.items()}}
    check_names(program, main, given)
    tracer.settings = dict(settings)
    if main is None:
        frame = tracer.run_module(program.module, dict(settings), given)
        return Outputs({k: v for k, v in frame.names.items() if k not in inputs})
    assert program.module.body is not None
    tracer.body, tracer.frame = program.module.body, Frame()
    values: list[Any] = []
    for parameter in main.item.parameters:
        if parameter.name in given:
            values.append(given[parameter.name])
        elif parameter.default is not None:
            values.append(tracer.eval(parameter.default))
        else:
            raise ArgumentError(
                f"main needs a value for {parameter.name}",
                hint=f"--set {parameter.name}=… or --input {parameter.name}=x.npy",
            )
    result = tracer.call_ref(main, values)
    if isinstance(result, Struct):
        return Outputs(result.fields)
    return Outputs({} if result is None else {"result": result})


def check_names(program: Program, main: FunctionRef | None, given: Mapping[str, Any]) -> None:
    """Refuse settings and inputs that the program does not take."""
    known = set(program.module.constants)
    if main is not None:
        known |= {parameter.name for parameter in main.item.parameters}
    else:
        known |= set(program.checker.given)
        for item in program.module.program.statements:
            if isinstance(item, s.LetStatement) and isinstance(item.pattern, s.NamePattern):
                known.add(item.pattern.name)
    for name in given:
        if name not in known:
            near = closest(name, known)
            raise ArgumentError(
                f"the program has no setting or input {name!r}",
                hint=f"did you mean {near}?" if near else f"it has: {', '.join(sorted(known))}",
            )


class Kernels:
    """The shipped kernels by name: ``kernels.softmax(x)``. Each is read when first asked for."""

    def __getattr__(self, name: str) -> Jitted:
        if name.startswith("__"):
            raise AttributeError(name)
        path = kernels_path() / f"{name}.ns"
        if not path.is_file():
            near = closest(name, dir(self))
            hint = f"; did you mean {near}?" if near else ""
            raise AttributeError(f"no kernel {name!r}{hint} There are: {', '.join(dir(self))}")
        return getattr(_shipped(path), name)

    def __dir__(self) -> list[str]:
        return sorted(path.stem for path in kernels_path().glob("*.ns"))

    def __repr__(self) -> str:
        return f"<NeuralScript kernels: {', '.join(dir(self))}>"


@cache
def _shipped(path: Path) -> ScriptModule:
    return load(path)


kernels = Kernels()
