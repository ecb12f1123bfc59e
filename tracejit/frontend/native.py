"""What a native entry makes of the outputs of a run: the result, and changes of arguments."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

from tracejit.codegen.forms import Step
from tracejit.frontend.compiled import Compiled, Source
from tracejit.frontend.trees import LEAF_MARK, STATIC_MARK, Tree, static_value
from tracejit.runtime.entry import Result

Steps = list[tuple[Step, int, object]]
_MAKE = {tuple: Step.MAKE_TUPLE, list: Step.MAKE_LIST, dict: Step.MAKE_DICT}


def native_result(compiled: Compiled, positions: Sequence[int]) -> Result | None:
    """Return how calls of ``compiled`` end; None where that takes Python."""
    return result_of(compiled.tree, compiled.sources, compiled.writes, positions)


def result_of(
    tree: Tree,
    sources: Sequence[Source],
    writes: Sequence[tuple[int, Source]],
    positions: Sequence[int],
) -> Result | None:
    """Return how calls end whose results come from ``sources``; None where that takes Python.

    ``positions`` says which argument is each of their leaves. Tuples, lists and dicts of results,
    static values and the caller's own arguments are put together natively, and arguments get
    new values from results. Named tuples, dataclasses, constants and copies need Python.
    """
    if any(source.kind != "result" for _, source in writes):
        return None
    leaves: list[tuple[Step, int, object] | None] = []
    for source in sources:
        leaves.append(_leaf(source, leaves, positions))
    steps: Steps = []
    if not _walk(tree, iter(leaves), steps):
        return None
    return Result(steps, [(source.index, positions[index]) for index, source in writes])


def _leaf(
    source: Source, before: Sequence[tuple[Step, int, object] | None], positions: Sequence[int]
) -> tuple[Step, int, object] | None:
    match source.kind:
        case "result" if source.fresh and not source.weak:
            return Step.PUSH_OUTPUT, source.index, None
        case "argument":
            return Step.PUSH_ARGUMENT, positions[source.index], None
        case "again":
            return before[source.index]
        case "static":
            return Step.PUSH_OBJECT, 0, source.value
        case _:
            return None


def _walk(tree: Tree, leaves: Iterator[tuple[Step, int, object] | None], steps: Steps) -> bool:
    """Append the steps that make ``tree``; False where they would take Python."""
    if tree.kind is LEAF_MARK:
        leaf = next(leaves)
        if leaf is not None:
            steps.append(leaf)
        return leaf is not None
    if tree.kind is STATIC_MARK:
        steps.append((Step.PUSH_OBJECT, 0, static_value(tree)))
        return True
    if tree.kind not in _MAKE or not all(_walk(child, leaves, steps) for child in tree.children):
        return False
    keys = cast("tuple[object, ...] | None", tree.meta)
    steps.append((_MAKE[tree.kind], len(tree.children), keys))
    return True
