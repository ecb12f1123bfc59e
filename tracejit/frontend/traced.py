"""``Traced``: a traced function to look at (graph, schedule, kernels, machine code) and to call."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tracejit.errors import ArgumentError, UnsupportedError
from tracejit.frontend.compiled import Compiled
from tracejit.frontend.names import name_of
from tracejit.frontend.signature import leaf_key
from tracejit.frontend.trees import Tree, flatten
from tracejit.graph.graph import Graph
from tracejit.graph.passes import canonicalise
from tracejit.graph.text import to_text

if TYPE_CHECKING:
    from tracejit.runtime.code import Code
    from tracejit.runtime.executable import Executable
    from tracejit.schedule.schedule import Schedule


class Traced:
    """What ``tj.trace(function, *examples)`` returns.

    ``source`` is the graph as recorded, ``graph`` the canonical one that was scheduled.
    Calling it runs the compiled form; the arguments must have the examples' signature.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        compiled: Compiled,
        tree: Tree,
        *,
        static_floats: bool = False,
    ):
        self.function = function
        self.compiled = compiled
        self._tree = tree
        self._static_floats = static_floats

    @property
    def source(self) -> Graph:
        """The graph as the function recorded it."""
        return self.compiled.graph

    @cached_property
    def graph(self) -> Graph:
        """The canonical graph: primitives, simplified, in canonical order."""
        return canonicalise(self.source)

    @property
    def schedule(self) -> Schedule:
        """The schedule: kernels in order, and the arena."""
        return self.executable.schedule

    @property
    def kernels(self) -> list[Code]:
        """The distinct compiled kernels, in the order of their first run."""
        return list({id(code): code for code in self.executable.codes}.values())

    def text(self) -> str:
        """Return the canonical graph in text form (``docs/ir.md``)."""
        return to_text(self.graph)

    def llvm(self) -> str:
        """Return the LLVM IR of the kernels."""
        return "\n".join(code.text for code in self.kernels)

    def asm(self) -> str:
        """Return the assembly of the kernels."""
        from tracejit.codegen.llvm import assembly

        return "\n".join(assembly(c.text, c.target, c.level, passes=0) for c in self.kernels)

    def show(self, path: str | Path | None = None) -> Path:
        """Write a self-contained page of the graph and its kernels; return where.

        ``path`` may also end in .svg, .dot or .json. Raises ValueArgumentError for other suffixes.
        """
        # By name: the drawings stand above the front ends; only show and tree look up there.
        page: Any = importlib.import_module("tracejit.viz.page")
        return page.write(self, path)

    def tree(self) -> None:
        """Print the graph in the terminal: its steps in order, and what each computes."""
        terminal: Any = importlib.import_module("tracejit.viz.terminal")
        terminal.print_trees([(name_of(self.function), self.executable)])

    @property
    def executable(self) -> Executable:
        """The compiled form. Raises UnsupportedError where there is none."""
        executable = self.compiled.executable
        if executable is None:
            why = "it returns no computed array" if not self.source.outputs else "it is interpreted"
            hint = "unset TRACEJIT_DISABLE_JIT, and return an array that depends on an argument"
            failure = self.compiled.program.failure
            if failure is not None:
                why, hint = f"it is interpreted, for compiling it failed: {failure}", "report this"
            raise UnsupportedError(
                f"{name_of(self.function)} has no compiled form: {why}", hint=hint
            )
        return executable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = name_of(self.function)
        leaves, tree = flatten((args, kwargs), static_floats=self._static_floats)
        keys = tuple(leaf_key(leaf, name) for leaf in leaves)
        if tree != self._tree or keys != self.compiled.keys:
            raise ArgumentError(
                f"{name} was traced for other arguments than these",
                hint="trace it again with these as examples, or use tj.jit",
            )
        return self.compiled.call(leaves, self._plain, args, kwargs)

    def _plain(self, args: Any, kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<traced {name_of(self.function)}: {self.source!r}>"
