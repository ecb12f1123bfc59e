"""The graph passes, one a file, and the order they run in.

Each module has ``run(graph) -> Graph``. A pass takes a valid graph and returns a valid one, takes
time near-linear in the nodes, and never recurses over the graph.

There is no pass for common subexpressions: nodes are hash-consed (``graph.node.make``), so equal
ones are one object from the moment a rewrite makes them. ``order`` makes more of them equal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from tracejit.graph.graph import Graph
from tracejit.graph.passes import (
    algebra,
    complexes,
    cycles,
    dead,
    decompose,
    fold,
    halves,
    movement,
    order,
    parity,
    reassociate,
    relax,
    search,
    sink,
    split,
    stacks,
    stores,
    thin,
)

Pass = Callable[[Graph], Graph]

# Folding and algebra feed each other (a folded condition removes a ``where``, which leaves
# constants to fold), so each runs twice; a third round finds nothing new in practice, and
# running to a fixpoint would let one odd graph cost many rounds.
PIPELINE: tuple[Pass, ...] = (
    halves.run,
    decompose.run,
    search.run,
    halves.run,
    cycles.run,
    complexes.run,
    fold.run,
    movement.run,
    algebra.run,
    parity.run,
    dead.run,
    reassociate.run,
    stores.run,
    stacks.run,
    thin.run,
    split.run,
    fold.run,
    movement.run,
    algebra.run,
    sink.run,
    order.run,
)

# What ``fast_math=True`` runs in place of PIPELINE.
RELAXED: tuple[Pass, ...] = (
    *PIPELINE[: PIPELINE.index(reassociate.run)],
    relax.run,
    partial(reassociate.run, floats=True),
    *PIPELINE[PIPELINE.index(reassociate.run) + 1 :],
)


def canonicalise(graph: Graph, *, fast_math: bool = False, verify: bool = False) -> Graph:
    """Return the graph in canonical form: primitives only, simplified, in canonical order.

    ``verify=True`` checks every invariant between passes (tests do; it costs about as much as
    the passes themselves).
    """
    if verify:
        from tracejit.graph.verify import verify as check
    else:
        check = None
    # A pass returns the graph it was given where it changes nothing, so a second turn that finds
    # the graph as the first one left it need not look.
    left: dict[Pass, Graph] = {}
    for one in RELAXED if fast_math else PIPELINE:
        if left.get(one) is graph:
            continue
        before, graph = graph, one(graph)
        left[one] = graph
        if check is not None:
            check(graph, after=one, before=before)
    return graph


def pass_name(one: Pass) -> str:
    """Return the name reports use for a pass: its file's."""
    function = one.func if isinstance(one, partial) else one
    return function.__module__.rpartition(".")[2]
