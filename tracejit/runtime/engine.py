"""The engine: values on demand."""

from __future__ import annotations

from collections.abc import Sequence

from tracejit.graph.graph import Graph
from tracejit.graph.node import Node
from tracejit.ops.table import Array
from tracejit.runtime.interpreter import run_graph


def evaluate(nodes: Sequence[Node]) -> list[Array]:
    """Return the values of ``nodes``, whose leaves are all data."""
    return run_graph(Graph((), nodes), ())
