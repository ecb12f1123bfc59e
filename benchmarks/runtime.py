"""The figures of the runtime: what its parts cost, save and survive, each against its bound.

    python -m benchmarks.runtime                     all, about five minutes
    python -m benchmarks.runtime start overhead      these parts
    python -m benchmarks.runtime --quick             fewer rounds and programs
    python -m benchmarks.runtime --json runtime.json the figures as JSON as well; parts that the
                                                     file has and that are not measured now stay
    python -m benchmarks.runtime --load runtime.json print these
    python -m benchmarks.runtime --page              write docs/performance.md's part as well

Parts: overhead (of the profiler), start (of a process whose kernels are on disk), sizes (that vary:
what is compiled for them), footprint (peak memory of calls), growth (memory of a process that
compiles much), faults, tiers (what constant sizes gain). Timed parts run alone, the others side by
side. The exit code is 1 where a bound is missed. Linux, in a checkout with its test tools.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tracejit.runtime import cpu

from . import footprint, growth, overhead, page, tested, tiers, warm_start
from .figures import Figure
from .process import ROOT
from .rows import ROWS
from .section import Section

BEGIN, END = "<!-- runtime: begin -->", "<!-- runtime: end -->"
PAGE = ROOT / "docs" / "performance.md"


def footprints() -> Section:
    """Measure the programs of kernels/."""
    libraries = ("tracejit", "numpy")
    names = [name for name, row in ROWS.items() if row.kernel or row.group == "kernels"]
    found = [footprint.footprint(name, libraries) for name in names]
    least = min(one.saved or 0.0 for one in found if one.between >= footprint.FEW)
    return Section(
        "Peak memory of a call",
        "The programs of `kernels/`: by how much one call raises the resident memory of a fresh "
        "process at its peak, results included, code and arguments not.",
        [
            Figure(
                f"least saving of a program with {footprint.FEW} intermediates and more",
                100 * least, "%", 100 * footprint.GOAL, at_least=True,
            )
        ],
        footprint.header(libraries),
        [one.cells() for one in found],
    )  # fmt: skip


# Parts by name: (full, quick). Those that time something run alone.
Measure = Callable[[], Section]
TIMED: dict[str, tuple[Measure, Measure]] = {
    "overhead": (lambda: overhead.measure(1000), lambda: overhead.measure(200)),
    "start": (lambda: warm_start.measure(20), lambda: warm_start.measure(5)),
    "tiers": (lambda: tiers.measure(80), lambda: tiers.measure(15)),
}
COUNTED: dict[str, tuple[Measure, Measure]] = {
    "growth": (lambda: growth.measure(10_000), lambda: growth.measure(1000)),
    "sizes": (tested.sizes, tested.sizes),
    "footprint": (footprints, footprints),
    "faults": (tested.faults, tested.faults),
}
PARTS = ("overhead", "start", "sizes", "footprint", "growth", "faults", "tiers")


def measure(parts: Sequence[str], quick: bool) -> dict[str, Section]:
    """Measure these parts."""
    timed = {part: TIMED[part][quick]() for part in parts if part in TIMED}
    with ThreadPoolExecutor() as pool:  # each in processes of its own
        running = {part: pool.submit(COUNTED[part][quick]) for part in parts if part in COUNTED}
    return timed | {part: future.result() for part, future in running.items()}


def _number(value: float) -> str:
    return f"{round(value):,}" if value >= 1000 else f"{value:.3g}"


def figures_of(sections: Sequence[Section]) -> list[list[str]]:
    """Return the rows of the table of all figures."""
    return [
        [
            section.title,
            figure.name,
            f"{_number(figure.value)} {figure.unit}".rstrip(),
            f"{'≥' if figure.at_least else '≤'} {_number(figure.bound)} {figure.unit}".rstrip(),
            "" if figure.kept else "missed",
        ]
        for section in sections
        for figure in section.figures
    ]


HEADER = ("part", "figure", "measured", "bound", "")


def text(sections: Sequence[Section]) -> str:
    """Return the part of the page."""
    today = datetime.datetime.now(tz=datetime.UTC).date()
    parts = [
        f"{cpu.host().brand}, level `{cpu.target().name}`, {today}.",
        page.table(HEADER, figures_of(sections)),
    ]
    for section in sections:
        parts += [f"### {section.title}", section.how]
        if section.rows:
            parts.append(page.table(section.header, section.rows))
    return "\n\n".join(parts)


def show(sections: Sequence[Section]) -> None:
    """Print the tables."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    for section in sections:
        console.print(f"\n{section.title}. {section.how}", highlight=False, markup=False)
        if section.rows:
            table = Table(*section.header)
            for row in section.rows:
                table.add_row(*row)
            console.print(table)
    table = Table(*HEADER)
    for row in figures_of(sections):
        table.add_row(*row)
    console.print(table)


def load(path: Path) -> dict[str, Section]:
    """Return the parts of a file that ``--json`` wrote; none where there is no such file."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    return {part: Section.from_json(section) for part, section in kept.items()}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.runtime", description=__doc__)
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    made.add_argument("--quick", action="store_true", help="fewer rounds and programs")
    made.add_argument("--json", type=Path)
    made.add_argument("--load", type=Path, help="figures to print instead of measuring")
    made.add_argument("--page", action="store_true", help="write the tables to the page")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return 1 where a bound is missed."""
    asked = parser().parse_args(arguments)
    unknown = [part for part in asked.parts if part not in PARTS]
    if unknown:
        parser().error(f"no part is called {unknown[0]}; one of {', '.join(PARTS)}")
    kept = asked.load or asked.json
    found = load(kept) if kept else {}
    if asked.load is None:
        found |= measure(asked.parts or PARTS, asked.quick)
    sections = [found[part] for part in PARTS if part in found]
    if asked.json is not None:
        written = {part: section.to_json() for part, section in found.items()}
        asked.json.write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
    show(sections)
    if asked.page:
        page.replace(PAGE, BEGIN, END, text(sections))
    return int(not all(figure.kept for section in sections for figure in section.figures))


if __name__ == "__main__":
    sys.exit(main())
