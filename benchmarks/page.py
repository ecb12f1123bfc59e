"""docs/performance.md: the tables of a run, between the page's markers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .report import cell, load_text, peers_of, summary, time_text
from .results import Result, level_ratio, levels, read

BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main_table(rows: Sequence[Result]) -> str:
    peers = peers_of(rows)
    header = ["row", "tracejit", "NeuralScript", *peers, "best peer, least", "median [95 %]"]
    lines: list[list[str]] = []
    for row in rows:
        line = [row.title, cell(row, row.ours), cell(row, row.by.get("neuralscript"))]
        line += [cell(row, row.by.get(peer)) for peer in peers]
        if row.ours and row.peers:
            line += [f"{row.least_ratio(row.peers[0]):.2f}×", str(row.ratio(row.peers[0]))]
        else:
            line += ["", ""]
        lines.append([*line, f"{row.share:.0%}" if row.share else ""])
    return table([*header, "of the limit"], lines)


def compile_table(rows: Sequence[Result]) -> str:
    names = ["tracejit", *[p for p in peers_of(rows) if p in ("jax", "torch.compile", "numba")]]
    header, lines = ["row"], []
    for name in names:
        header += [f"{name}, warm", "cold"]
    for row in rows:
        line = [row.name]
        for name in names:
            found = row.by.get(name)
            line += [time_text(found.compile), time_text(found.cold)] if found else ["", ""]
        lines.append(line)
    return table(header, lines)


def level_table(rows: Sequence[Result]) -> str:
    names = list(dict.fromkeys(m.name for row in rows for m in levels(row)))
    lines: list[list[str]] = []
    for row in rows:
        if row.ours is None:
            continue
        cells = {
            m.name: f"{time_text(m.least)} ({level_ratio(row, number):.2f}×)"
            for number, m in enumerate(levels(row))
        }
        lines.append([row.name, time_text(row.ours.least), *(cells.get(n, "") for n in names)])
    return table(["row", "tracejit", *names], lines)


def text(document: dict[str, Any]) -> str:
    """Return the page's generated part."""
    rows, machine, options = read(document), document["machine"], document["options"]
    versions = ", ".join(
        f"{name} {found['version']}"
        for name, found in document["implementations"].items()
        if found["status"] == "ok" and found["version"] and "@" not in name
    )
    parts = [
        f"{machine['processor']}, level `{machine['isa']}`, {machine['threads']} of "
        f"{machine['cpus']} CPUs, Python {machine['python']}; {options['rounds']} rounds of "
        f"{options['samples']} samples{load_text(machine)}. {document['date']}. {versions}.",
        table(["limit", "measured"], [[k, f"{v:.1f}"] for k, v in machine["figures"].items()]),
        "## Against each peer",
        "![times of the peers, as multiples of tracejit's](performance/peers.svg)",
        main_table(rows),
        "\n".join(f"- {line}" for line in summary(rows)),
        "![the rows under the machine's roofline](performance/roofline.svg)",
        "## Compile time",
        compile_table(rows),
    ]
    if any(levels(row) for row in rows):
        parts += ["## Instruction sets", level_table(rows)]
    return "\n\n".join(parts)


def write(document: dict[str, Any], path: Path) -> None:
    """Write a run's part of the page; raises ValueError without its markers."""
    replace(path, BEGIN, END, text(document))


def replace(path: Path, begin: str, end: str, new: str) -> None:
    """Replace what stands between two markers of a page; raises ValueError without them."""
    page = path.read_text(encoding="utf-8")
    before, begins, rest = page.partition(begin)
    _, ends, after = rest.partition(end)
    if not begins or not ends:
        raise ValueError(f"{path} lacks the markers {begin} and {end}")
    path.write_text(f"{before}{begin}\n\n{new}\n\n{end}{after}", encoding="utf-8")
