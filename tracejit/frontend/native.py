"""What a native entry sees of a call's arguments, and what it makes of the outputs of a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from tracejit.codegen.forms import Holds, Step
from tracejit.frontend.compiled import Compiled, Source
from tracejit.frontend.trees import LEAF_MARK, OBJECT_MARK, STATIC_MARK, Tree, static_value
from tracejit.runtime.entry import Result
from tracejit.runtime.slots import OPENED, Box, Slots

Steps = list[tuple[Step, int, object]]
_MAKE = {tuple: Step.MAKE_TUPLE, list: Step.MAKE_LIST, dict: Step.MAKE_DICT}


def slots_of(args: Sequence[Any], kwargs: Mapping[str, Any], tree: Tree) -> Slots | None:
    """Return the slots of a call, whose arguments have the structure ``tree``.

    None where there is a container that generated code does not look into: a dataclass.
    """
    positional, named = tree.children
    nodes = [*positional.children, *named.children]
    values = [*args, *kwargs.values()]
    paths: list[tuple[int, ...]] = [(i,) for i in range(len(nodes))]
    leaves: list[tuple[tuple[int, ...], int]] = []
    boxes: list[Box] = []
    for slot, node in enumerate(nodes):  # which grows by what containers hold
        if node.kind is LEAF_MARK:
            leaves.append((paths[slot], slot))
        elif node.kind is not STATIC_MARK:
            opened = _open(slot, node, values[slot])
            if opened is None:
                return None
            box, contents = opened
            boxes.append(box)
            nodes += node.children
            paths += [(*paths[slot], i) for i in range(box.length)]
            values[slot] = OPENED
            values += contents
    inputs = [slot for _, slot in sorted(leaves)]
    return Slots(values, inputs, len(args), cast("tuple[str, ...]", named.meta), boxes)


def _open(slot: int, node: Tree, value: Any) -> tuple[Box, Sequence[Any]] | None:
    """Return what a container is to generated code, and its contents; None if it is opaque."""
    kind, length = node.kind, len(node.children)
    if kind is OBJECT_MARK:
        cls, names = cast("tuple[type, tuple[str, ...]]", node.meta)
        attributes = cast("dict[str, Any]", vars(value))
        return Box(slot, Holds.OBJECT, cls, length, names), [*attributes.values()]
    if kind is dict:
        table: dict[Any, Any] = value
        return Box(slot, Holds.DICT, dict, length, tuple(table)), [*table.values()]
    if kind is list:
        return Box(slot, Holds.LIST, list, length, None), value
    if issubclass(kind, tuple):
        return Box(slot, Holds.TUPLE, kind, length, None), value
    return None


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

    ``positions`` says which slot each of the arguments' leaves is. Tuples, lists and dicts of
    results, static values and the caller's own arguments are put together natively, and arguments
    get new values from results. Named tuples, dataclasses, constants and copies need Python.
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
