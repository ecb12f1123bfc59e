"""The command: ``tracejit bench``, ``python -m benchmarks``, ``make bench``."""

from __future__ import annotations

import argparse
import fnmatch
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tracejit import errors
from tracejit.runtime import cpu, threads

from . import compare, page, plots, report
from .implementations import OURS, PEERS
from .rows import ROWS
from .run import Options, run

DEFAULT_OUTPUT = Path("tracejit-bench")
PAGE = Path("docs") / "performance.md"
# (rounds, samples in each, seconds for the first calls of a row)
FULL, QUICK = (31, 5, 300.0), (7, 3, 60.0)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="tracejit bench",
        description="Time tracejit against the array libraries that are installed.",
    )
    add = made.add_argument
    add(
        "rows",
        nargs="*",
        help="rows to run, * and ? allowed; groups: table kernels matmul conv memory",
    )
    add("--list", action="store_true", help="list the rows and exit")
    add("--quick", action="store_true", help="fewer rounds, no cold compile times")
    add("--dtype", choices=("f32", "f64"), help="rows of this type only")
    add("--threads", type=int, help="threads of every implementation; all CPUs if left out")
    add(
        "--isa",
        action="append",
        default=[],
        metavar="LEVEL",
        help="also time tracejit on this lower level (repeatable; 'all' takes each)",
    )
    add("--only", metavar="NAMES", help=f"implementations, of {','.join((*OURS, *PEERS))}")
    add("--rounds", type=int)
    add("--samples", type=int, help="samples of each implementation in a round")
    add("--limit", type=float, help="seconds for an implementation's first calls of a row")
    add("--seed", type=int, default=0, help="of the order within the rounds")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help="folder of results.json and the plots")
    add("--no-plots", action="store_true")
    add("--compare", type=Path, metavar="OLD.json", help="exit with 1 if a row became slower")
    add("--load", type=Path, metavar="FILE.json", help="report these results, measure nothing")
    add("--write", action="store_true", help=f"write {PAGE} and its plots")
    return made


def pick_rows(patterns: Sequence[str], dtype: str | None) -> tuple[str, ...]:
    """Return the rows that the patterns name; raises ``ValueArgumentError`` if one names none."""
    shown = {name: row for name, row in ROWS.items() if row.group != "hidden"}
    chosen: set[str] = set()
    for pattern in patterns or ["*"]:
        found = {
            name
            for name, row in shown.items()
            if fnmatch.fnmatch(name, pattern) or row.group == pattern
        }
        if not found:
            raise errors.ValueArgumentError(
                f"no row is called {pattern}", hint=f"the rows: {', '.join(shown)}"
            )
        chosen |= found
    return tuple(n for n, row in shown.items() if n in chosen and dtype in (None, row.dtype))


def pick_levels(wanted: Sequence[str]) -> list[str]:
    """Return the lower levels to time, the highest first; raises ``TargetError``."""
    current, known = cpu.target().name, list(cpu.levels())
    if "all" in wanted:
        lower = known[: known.index(current)] if current in known else known
        return lower[::-1]
    for level in wanted:
        cpu.target(level)
    rank = {level: number for number, level in enumerate(known)}
    chosen = [level for level in dict.fromkeys(wanted) if level != current]
    return sorted(chosen, key=lambda level: rank.get(level, len(rank)), reverse=True)


def pick_implementations(only: str | None, levels: Sequence[str]) -> tuple[str, ...]:
    """Return the implementations to run, tracejit always and first."""
    names = [*OURS, *PEERS]
    if only is not None:
        wanted = [name.strip() for name in only.split(",")]
        for name in wanted:
            if name not in names:
                raise errors.ValueArgumentError(
                    f"no implementation is called {name}", hint=f"one of {', '.join(names)}"
                )
        names = [name for name in names if name in wanted or name == "tracejit"]
    return (names[0], *(f"tracejit@{level}" for level in levels), *names[1:])


def options_of(given: argparse.Namespace) -> Options:
    rounds, samples, limit = QUICK if given.quick else FULL
    for name in ("threads", "rounds", "samples", "limit"):
        value = getattr(given, name)
        if value is not None and value <= 0:
            raise errors.ValueArgumentError(f"--{name} {value}: give a positive number")
    return Options(
        rows=pick_rows(given.rows, given.dtype),
        implementations=pick_implementations(given.only, pick_levels(given.isa)),
        threads=min(given.threads or threads.get_num_threads(), threads.available()),
        rounds=given.rounds or rounds,
        samples=given.samples or samples,
        limit=given.limit or limit,
        cold=not given.quick,
        seed=given.seed,
    )


def measure(options: Options, console: Console) -> dict[str, Any]:
    """Run with a progress bar in the terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
        # The bar counts rows; it redraws rarely, so that it does not disturb what is measured.
        task = bar.add_task("", total=len(options.rows))

        def progress(what: str, share: float) -> None:
            bar.update(task, description=what.ljust(44)[:44], advance=share)

        return run(options, progress)


def read_results(path: Path) -> dict[str, Any]:
    """Return a results file; raises ``ValueArgumentError`` if it is none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise errors.ValueArgumentError(f"{path} cannot be read: {error}") from error
    if not isinstance(document, dict) or document.get("schema") != 1:
        raise errors.ValueArgumentError(f"{path} is not a results file of this version")
    return document


def save(document: dict[str, Any], folder: Path, with_plots: bool, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    written = [path]
    if with_plots:
        try:
            written += plots.draw(document, folder)
        except ImportError:
            console.print("no plots: matplotlib is not installed (pip install '.[bench]')")
    console.print(f"wrote {', '.join(map(str, written))}", highlight=False, soft_wrap=True)


def list_rows(console: Console) -> None:
    for name in pick_rows([], None):
        row = ROWS[name]
        console.print(f"{row.group:8} {row.dtype}  {name:24} {row.title}", highlight=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Raises TracejitError for wrong arguments."""
    given = parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if given.list:
        list_rows(console)
        return 0
    if given.write and not PAGE.is_file():
        raise errors.ValueArgumentError(
            f"--write: no file {PAGE} here", hint="run it in the root folder of a checkout"
        )
    old = read_results(given.compare) if given.compare else None
    if given.load:
        document = read_results(given.load)
    else:
        document = measure(options_of(given), console)
        save(document, given.output, not given.no_plots, console)
    report.print_results(document, console)
    if given.write:
        page.write(document, PAGE)
        plots.draw(document, PAGE.parent / "performance", ("svg",))
    if old is None:
        return 0
    changes = compare.compare(document, old)
    report.print_changes(changes, compare.differences(document, old), console)
    return 1 if compare.regressions(changes) else 0
