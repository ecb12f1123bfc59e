"""Results for people: the tables in the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from .compare import Change, regressions
from .implementations import PEERS
from .results import Measured, Result, best_ratios, level_ratio, levels, read
from .samples import geometric_mean


def time_text(seconds: float | None) -> str:
    """Return seconds in the unit that suits them."""
    if seconds is None:
        return ""
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms")):
        if seconds < limit:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def cell(row: Result, measured: Measured | None) -> str:
    """Return a peer's cell: its least time and how many times tracejit's that is."""
    if measured is None or measured.status == "none":
        return "·"
    if not measured.rounds or measured.status != "ok":
        return measured.status
    text = time_text(measured.least)
    if row.ours is None or measured is row.ours:
        return text
    return f"{text} ({row.least_ratio(measured):.2g}×)"


def peers_of(rows: Sequence[Result]) -> list[str]:
    """Return the peers that have a time in any row."""
    return [p for p in PEERS if any(p in row.timed for row in rows)]


def main_table(rows: Sequence[Result]) -> Table:
    """Least times against each peer; the ratio of medians to the best; the roofline."""
    peers = peers_of(rows)
    scripts = any("neuralscript" in row.timed for row in rows)
    table = Table(title="least times (how many times tracejit's)", title_justify="left")
    for column in ("row", "tracejit", *(["NeuralScript"] if scripts else []), *peers):
        table.add_column(column, justify="left" if column == "row" else "right")
    for column in ("best peer, least", "median [95 %]", "of the limit"):
        table.add_column(column, justify="right")
    for row in rows:
        cells = [row.name, cell(row, row.ours)]
        if scripts:
            cells.append(cell(row, row.by.get("neuralscript")))
        cells += [cell(row, row.by.get(peer)) for peer in peers]
        if row.ours and row.peers:
            cells += [f"{row.least_ratio(row.peers[0]):.2f}×", str(row.ratio(row.peers[0]))]
        else:
            cells += ["", row.by["tracejit"].detail if "tracejit" in row.by else ""]
        cells.append(f"{row.share:.0%}" if row.share else "")
        table.add_row(*cells, style="bold red" if row.slower_than else None)
    return table


def compile_table(rows: Sequence[Result]) -> Table:
    """Seconds of compiling: in a process that has compiled before, and in a fresh one."""
    names = ["tracejit", *[p for p in peers_of(rows) if p in ("jax", "torch.compile", "numba")]]
    cold = any(m.cold is not None for row in rows for m in row.by.values())
    table = Table(title="first call less a later one: compiling", title_justify="left")
    table.add_column("row")
    for name in names:
        table.add_column(f"{name}, warm", justify="right")
        if cold:
            table.add_column("cold", justify="right")
    for row in rows:
        cells = [row.name]
        for name in names:
            found = row.by.get(name)
            cells.append(time_text(found.compile) if found else "")
            if cold:
                cells.append(time_text(found.cold) if found else "")
        table.add_row(*cells)
    return table


def level_table(rows: Sequence[Result]) -> Table:
    """Tracejit's least times on lower instruction sets, and the ratio to the level above."""
    names = list(dict.fromkeys(m.name for row in rows for m in levels(row)))
    table = Table(title="instruction sets (times the level above)", title_justify="left")
    for column in ("row", "tracejit", *names):
        table.add_column(column, justify="left" if column == "row" else "right")
    for row in rows:
        if row.ours is None:
            continue
        cells = {
            m.name: f"{time_text(m.least)} ({level_ratio(row, number):.2f}×)"
            for number, m in enumerate(levels(row))
        }
        table.add_row(row.name, time_text(row.ours.least), *(cells.get(n, "") for n in names))
    return table


def summary(rows: Sequence[Result]) -> list[str]:
    """Return the verdict in a few lines."""
    ratios = best_ratios(rows)
    lines = [
        f"geometric mean against the best peer of each row: {geometric_mean(ratios):.2f}× "
        f"({len(ratios)} rows, least times)"
    ]
    for row in rows:
        for name in row.slower_than:
            peer = row.timed[name]
            lines.append(
                f"slower than {name}: {row.name}, least {row.least_ratio(peer):.2f}×, "
                f"median {row.ratio(peer)}"
            )
    for row in rows:
        for name, found in row.by.items():
            if found.status not in ("ok", "none", "unavailable"):
                lines.append(f"{row.name}, {name}: {found.status} ({found.detail})")
    memory = [
        f"{row.name} {row.memory_limit / row.ours.least:.0%}"
        for row in rows
        if row.memory_bound and row.memory_limit and row.ours
    ]
    if memory:
        lines.append(f"memory-bound rows, of a copy's bandwidth: {', '.join(memory)}")
    return lines


def load_text(machine: dict[str, Any]) -> str:
    """Say how busy the machine was before the run, where that is known."""
    load = machine.get("load")
    return "" if load is None else f", load average {load:.1f} at the start"


def print_results(document: dict[str, Any], console: Console) -> None:
    """Print a results file as tables."""
    rows, machine = read(document), document["machine"]
    console.print(
        f"{machine['processor']}, {machine['isa']}, {machine['threads']} of {machine['cpus']} CPUs"
        f"{load_text(machine)}",
        highlight=False,
    )
    figures = Table(show_header=False, box=None)
    for name, value in machine["figures"].items():
        figures.add_row(name, f"{value:.1f}")
    console.print(figures)
    for name, found in document["implementations"].items():
        if found["status"] != "ok":
            console.print(f"{name}: {found['status']} ({found.get('detail', '')})")
    console.print(main_table(rows))
    if any(levels(row) for row in rows):
        console.print(level_table(rows))
    console.print(compile_table(rows))
    for line in summary(rows):
        console.print(line, highlight=False)


def print_changes(changes: Sequence[Change], warnings: Sequence[str], console: Console) -> None:
    """Print a comparison of two runs."""
    for warning in warnings:
        console.print(f"not the same conditions: {warning}", highlight=False)
    table = Table(title="new time / old time of the medians [95 %]", title_justify="left")
    for column in ("row", "implementation", "time", "time over NumPy's", ""):
        table.add_column(column)
    for change in changes:
        verdict = "slower" if change.regression else "faster" if change.improvement else ""
        table.add_row(
            change.row,
            change.implementation,
            str(change.absolute),
            "" if change.relative is None else str(change.relative),
            verdict,
            style="bold red" if change.regression else None,
        )
    console.print(table)
    console.print(f"{len(regressions(changes))} significant regressions of {len(changes)}")
