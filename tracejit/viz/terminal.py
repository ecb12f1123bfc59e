"""What the command prints: the report after a run, the machine, the ops, a graph as a tree."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from tracejit.runtime.cache import DiskCache, Stored
from tracejit.runtime.code import Code
from tracejit.runtime.executable import Executable
from tracejit.runtime.monitor import Run
from tracejit.schedule.schedule import OpaqueStep, Step
from tracejit.schedule.steps import step_kind, step_name
from tracejit.schedule.titles import size_text, time_text
from tracejit.viz.model import Digraph, Figure, values, view


class _Kernels:
    """The distinct kernels of some runs, with how often the program calls each."""

    def __init__(self, runs: Iterable[Run]):
        self.calls: Counter[int | str] = Counter()
        self.steps: dict[int | str, Step] = {}
        self.codes: dict[int | str, Code | None] = {}
        for run in runs:
            codes = iter(run.executable.step_codes)
            for step in run.executable.schedule.steps:
                native = None if isinstance(step, OpaqueStep) else next(codes)
                key = id(native) if native is not None else f"opaque {step_name(step)}"
                self.steps.setdefault(key, step)
                self.codes[key] = native
                self.calls[key] += run.calls


def print_report(
    runs: Sequence[Run],
    seconds: float,
    compiled: tuple[float, float],
    interpreted: tuple[float, float],
) -> None:
    """Print kernels, memory and times of a program run.

    ``seconds`` is the first run with compilation; ``compiled`` and ``interpreted`` are the same
    program again, warm and op by op in NumPy: the seconds of all of it, and of its graphs.
    """
    console = Console()
    kernels = _Kernels(runs)
    table = Table(title="Kernels", title_justify="left")
    for column in ("kind", "fused ops", "instructions"):
        table.add_column(column)
    for column in ("ops", "calls", "compile"):
        table.add_column(column, justify="right")
    for key, step in kernels.steps.items():
        code = kernels.codes[key]
        ops = 1 if isinstance(step, OpaqueStep) else step.kernel.ops
        table.add_row(
            step_kind(step),
            step_name(step),
            code.target.name if code is not None else "—",
            str(ops),
            str(kernels.calls[key]),
            time_text(code.seconds) if code is not None else "—",
        )
    console.print()
    if kernels.steps:
        console.print(table)
    else:
        console.print("Kernels: none was compiled; NumPy interpreted every graph.")
    console.print(_summary(runs, kernels, seconds))
    console.print(_times(compiled, interpreted))


def _summary(runs: Sequence[Run], kernels: _Kernels, seconds: float) -> Table:
    codes = [c for c in kernels.codes.values() if c is not None]
    arena = max((r.executable.schedule.arena.nbytes for r in runs), default=0)
    intermediates = max((r.executable.schedule.intermediates for r in runs), default=0)
    table = Table(show_header=False, box=None)
    table.add_row(
        "kernels", f"{len(codes)} compiled for {sum(r.calls for r in runs)} runs of graphs"
    )
    table.add_row("instruction set", ", ".join(sorted({c.target.name for c in codes})) or "none")
    table.add_row(
        "memory", f"arena {size_text(arena)}; all intermediates would be {size_text(intermediates)}"
    )
    table.add_row("compile time", time_text(sum(c.seconds for c in codes)))
    table.add_row("first run", f"{time_text(seconds)} from source to results")
    return table


def _times(compiled: tuple[float, float], interpreted: tuple[float, float]) -> Table:
    """Return the program's run time, compiled (warm) against interpreted."""
    table = Table(title="Run time", title_justify="left")
    table.add_column("")
    for column in ("compiled", "interpreted by NumPy", "ratio"):
        table.add_column(column, justify="right")
    for name, fast, slow in zip(("program", "its graphs"), compiled, interpreted, strict=True):
        ratio = f"{slow / fast:.1f}×" if fast else "—"
        table.add_row(name, time_text(fast), time_text(slow), ratio)
    return table


def print_machine() -> None:
    """Print the processor, the instruction-set levels, settings and versions."""
    from tracejit import config
    from tracejit.codegen.target import LEVELS
    from tracejit.runtime import cpu, threads, tuning

    console = Console()
    host = cpu.host()
    table = Table(show_header=False, box=None)
    table.add_row("processor", host.brand or platform.processor())
    table.add_row("threads", f"{threads.get_num_threads()} of {threads.available()} CPUs")
    target = cpu.target()
    table.add_row(
        "caches",
        f"L1 {size_text(target.l1_bytes)}, L2 {size_text(target.l2_bytes)}, "
        f"L3 {size_text(target.l3_bytes)}",
    )
    for name, level in LEVELS.items():
        have = "yes" if name in host.levels else "no"
        used = "  ← used" if name == target.name else ""
        table.add_row(f"level {name}", f"{have}, {level.vector_bits}-bit vectors{used}")
    measured = tuning.described(target.blocking)
    table.add_row("products cut", f"as measured: {measured}" if measured else "by rule")
    table.add_row("cache folder", config.cache_dir())
    table.add_row("kernels", str(config.kernels_dir()))
    for package in ("tracejit", "numpy", "llvmlite", "networkx", "py-cpuinfo"):
        table.add_row(package, importlib.metadata.version(package))
    table.add_row("python", platform.python_version())
    console.print(table)


def print_cache(entries: Sequence[Stored], disk: DiskCache, limit: int) -> None:
    """Print what is compiled on disk: the last used ``limit`` entries, and the sums over all."""
    console = Console()
    table = Table(title=os.path.join(disk.folder, "code"), title_justify="left")
    for column, justify in (
        ("name", "left"), ("computes", "left"), ("level", "left"), ("bytes", "right"),
        ("compiled in", "right"), ("last used", "left"),
    ):  # fmt: skip
        table.add_column(column, justify=cast("Any", justify), overflow="ellipsis", no_wrap=True)
    for item in entries[:limit]:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(item.used))
        about = ("[red]damaged[/red]", "", "") if item.entry is None else (
            escape(item.entry.label), item.entry.target, time_text(item.entry.seconds)
        )  # fmt: skip
        table.add_row(item.name[:10], *about[:2], size_text(item.nbytes), about[2], used)
    console.print(table)
    total = sum(item.nbytes for item in entries)
    saved = sum(item.entry.seconds for item in entries if item.entry is not None)
    console.print(
        f"{len(entries)} entries, {size_text(total)} of at most {size_text(disk.bound)}, "
        f"compiled in {time_text(saved)}"
    )


def print_ops() -> None:
    """Print the op table, and which ops have native code and which run through NumPy."""
    from tracejit.codegen.lowered import lowers
    from tracejit.ops.table import OPS
    from tracejit.schedule import native

    table = Table(title=f"{len(OPS)} ops", title_justify="left")
    for column in ("op", "family", "runs as", "meaning"):
        table.add_column(column, overflow="fold")
    for name, op in sorted(OPS.items()):
        table.add_row(name, op.family.value, native.how(op, lowers), op.doc)
    Console().print(table)


def print_trees(titled: Sequence[tuple[str, Executable]]) -> None:
    """Print executables as trees, one after the other."""
    console = Console()
    for title, executable in titled:
        console.print(graph_tree(title, executable))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def graph_tree(title: str, executable: Executable, *, limit: int = 400) -> Tree:
    """Return an executable as a tree: arguments, the steps with what each computes, results.

    At most ``limit`` values are listed; where they end, the tree says how many are left out.
    """
    graph = view(Figure(title, executable))
    facts: dict[str, Any] = graph.graph
    nodes = values(graph)
    memory = f"arena {size_text(facts['arena_bytes'])} of {size_text(facts['intermediate_bytes'])}"
    counts = f"{_counted(len(facts['steps']), 'step')}, {_counted(facts['kernels'], 'kernel')}"
    root = Tree(Text.assemble((title, "bold"), f"  {facts['target']}, {counts}, {memory}"))
    left = limit
    outside = {n: d for n, d in nodes.items() if d["step"] is None and d["kind"] != "output"}
    left = _branch(root, Text("arguments and views"), graph, outside, left)
    for step in facts["steps"]:
        head = Text.assemble(
            (f"{step['number'] + 1} {step['kind']}  ", _STYLES[step["kind"]]),
            step["name"],
            (f"  {step['detail']}" if step["detail"] else "", "dim"),
        )
        inside = {n: d for n, d in nodes.items() if d["step"] == step["id"]}
        left = _branch(root, head, graph, inside, left)
    results = {n: d for n, d in nodes.items() if d["kind"] == "output"}
    _branch(root, Text("results"), graph, results, left)
    return root


_STYLES = {
    "loop": "bold blue",
    "rows": "bold green",
    "band": "bold cyan",
    "matrix": "bold magenta",
    "NumPy": "bold yellow",
}


def _branch(
    root: Tree, head: Text, graph: Digraph, members: Mapping[str, Mapping[str, Any]], left: int
) -> int:
    """Add a branch with its values, at most ``left``; return how many more may be listed."""
    shown = [(n, d) for n, d in members.items() if d["kind"] not in ("constant", "index")]
    if not shown:
        return left
    branch = root.add(head)
    for name, data in shown[:left]:
        branch.add(_value_text(graph, name, data))
    if len(shown) > left:
        branch.add(Text(f"… {len(shown) - left} more", "dim"))
    return max(0, left - len(shown))


def _value_text(graph: Digraph, name: str, data: Mapping[str, Any]) -> Text:
    """Return one value: ``%5 divide(%3, %4)  f32[64, 128]  softmax.ns:5``."""
    nodes = cast("Mapping[str, Mapping[str, Any]]", graph.nodes)
    operands: dict[int, str] = {}
    for below in graph.predecessors(name):
        leaf = nodes[below]["kind"] in ("constant", "index")
        shown = nodes[below]["label"] if leaf else nodes[below]["number"]
        operands |= dict.fromkeys(graph.edges[below, name]["operands"], shown)
    listed = ", ".join(operands[p] for p in sorted(operands))
    what = f"{data['label']} = {listed}" if data["kind"] == "output" else data["label"]
    if data["kind"] in ("op", "view"):
        what = f"{data['number']} {data['op']}({listed})"
    elif data["kind"] in ("input", "data"):
        what = f"{data['number']} {data['label']}"
    where = f"  {Path(data['file']).name}:{data['line']}" if data["file"] else ""
    return Text.assemble(what, (f"  {data['type']}", "cyan"), (where, "dim"))
