"""Figures that tests report: faults that were provoked, and kernels compiled for new sizes.

The tests provoke and count; here they are run and their reports are summed up. They are in a
checkout only.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from .figures import Figure
from .process import ROOT
from .section import Section

TESTS = ROOT / "tests"


class Outcome(NamedTuple):
    """A test that ran: its name, how it ended, and the properties that it recorded."""

    name: str
    result: str  # passed, failed or skipped
    properties: dict[str, str]


def run(*arguments: str) -> list[Outcome]:
    """Run tests in a process of their own. Raises FileNotFoundError outside a checkout."""
    if not TESTS.is_dir():
        raise FileNotFoundError(f"{TESTS}: these figures are measured in a checkout")
    with tempfile.TemporaryDirectory(prefix="tracejit-tests-") as folder:
        report = Path(folder) / "report.xml"
        options = ["-q", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
        subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--junit-xml={report}", *arguments],
            cwd=ROOT, stdout=sys.stderr, check=False,
        )  # fmt: skip
        return list(_outcomes(report))


def _outcomes(report: Path) -> Iterator[Outcome]:
    for case in ElementTree.parse(report).iter("testcase"):
        properties = {p.get("name", ""): p.get("value", "") for p in case.iter("property")}
        tags = {child.tag for child in case}
        result = "skipped" if "skipped" in tags else "failed" if tags & {"failure", "error"} else ""
        yield Outcome(case.get("name", ""), result or "passed", properties)


def _files(word: str) -> list[str]:
    return [str(f) for f in sorted(TESTS.glob("test_*.py")) if word in f.read_text("utf-8")]


def faults() -> Section:
    """Count what was provoked, by kind, and whether the program went on as it should."""
    outcomes = run("-m", "fault and not slow", *_files("mark.fault"))
    counts: dict[str, Counter[str]] = {}
    for outcome in outcomes:
        number = int(outcome.properties.get("faults", "1"))
        counts.setdefault(outcome.properties["fault"], Counter())[outcome.result] += number
    total = Counter[str]()
    for counted in counts.values():
        total += counted
    corruptions = sum(c["passed"] for kind, c in counts.items() if kind.startswith("damaged"))
    return Section(
        "Faults",
        "Provoked by the tests that are marked `fault`: right answers, no crash, nothing left.",
        [
            Figure("faults survived", total["passed"], "", 500, at_least=True),
            Figure("damaged files among them", corruptions, "", 500, at_least=True),
            Figure("faults that made a test fail", total["failed"], "", 0),
        ],
        ["fault", "provoked", "survived", "left out here"],
        [
            [kind, *(str(n) for n in (c["passed"] + c["failed"], c["passed"], c["skipped"]))]
            for kind, c in sorted(counts.items(), key=lambda item: -item[1].total())
        ],
    )


def sizes() -> Section:
    """Count the kernels that are compiled anew while an argument's size varies."""
    outcomes = run("-k", "recompile_at_most_once", str(TESTS / "test_dynamic.py"))
    measured = [o for o in outcomes if "recompiles" in o.properties]
    found = [int(o.properties["recompiles"]) for o in measured]
    return Section(
        "Sizes that vary",
        "Each program is called with 50 sizes of its batch, rising from 1, and with 20 in mixed "
        "order; kernels compiled after the first size, none of which is a second's.",
        [
            Figure("most recompiles of a program", max(found, default=0), "", 1),
            Figure("programs and orders", len(found), "", 20, at_least=True),
        ],
        ["program and order", "sizes", "recompiles"],
        _rows(measured),
    )


def _rows(measured: Sequence[Outcome]) -> list[list[str]]:
    return [
        [o.name.partition("[")[2].rstrip("]"), o.properties["sizes"], o.properties["recompiles"]]
        for o in measured
    ]
