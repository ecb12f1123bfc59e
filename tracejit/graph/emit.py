"""Writing graph expressions: ``emit.add(x, 1.0)`` for decompositions and passes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from tracejit.errors import Location
from tracejit.graph.node import Node, constant, make
from tracejit.ops.dtypes import named, spelled
from tracejit.ops.table import OPS


class Emit:
    """Makes nodes by op name. Python scalars become constants of the other operands' dtype."""

    def __init__(self, loc: Location | None = None):
        self.loc = loc

    def __getattr__(self, name: str) -> Callable[..., Node]:
        if name not in OPS:
            raise AttributeError(name)

        def build(*operands: Any, **attrs: Hashable) -> Node:
            dtype = next((o.dtype for o in operands if isinstance(o, Node)), None)
            nodes = [o if isinstance(o, Node) else constant(o, dtype, self.loc) for o in operands]
            return make(name, nodes, attrs, self.loc)

        return build

    def cast(self, x: Node, dtype: Any) -> Node:
        """Return ``x`` as ``dtype``; ``x`` itself where it has it already."""
        dtype = named(dtype)
        return x if x.dtype == dtype else make("cast", (x,), {"dtype": spelled(dtype)}, self.loc)

    def constant(self, value: Any, dtype: Any) -> Node:
        return constant(value, dtype, self.loc)
