"""The figures of the runtime: how parts are reported, and what tests tell. No timing."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from benchmarks import growth, tested
from benchmarks import runtime as command
from benchmarks.figures import Figure
from benchmarks.footprint import Footprint
from benchmarks.section import Section

PART = Section(
    "Part", "So and so.", [Figure("cost", 0.5, "%", 1.0)], ["program", "gain"], [["a", "1.5×"]]
)
MISSED = PART._replace(title="Other", figures=[Figure("gain", 1.0, "×", 2.0, at_least=True)])

REPORT = """<testsuites><testsuite>
<testcase name="test_a[x]"><properties>
  <property name="fault" value="damaged file"/><property name="faults" value="600"/>
</properties></testcase>
<testcase name="test_b"><properties><property name="fault" value="killed"/></properties>
  <failure message="no"/></testcase>
<testcase name="test_c"><properties><property name="fault" value="killed"/></properties>
  <skipped message="root"/></testcase>
</testsuite></testsuites>"""


def test_parts_are_kept_as_json_and_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert Section.from_json(PART.to_json()) == PART
    file = tmp_path / "runtime.json"
    file.write_text("{}")
    assert command.main(["--load", str(file)]) == 0
    for part, status in ((PART, 0), (MISSED, 1)):
        file.write_text(json.dumps({"tiers": part.to_json()}))
        assert command.main(["--load", str(file)]) == status
        assert ("missed" in capsys.readouterr().out) == bool(status)


def test_the_page_has_figures_and_details():
    page = command.text([PART, MISSED])
    assert "| Part | cost | 0.5 % | ≤ 1 % |  |" in page
    assert "| Other | gain | 1 × | ≥ 2 × | missed |" in page
    assert "### Part\n\nSo and so.\n\n| program | gain |" in page
    document = command.PAGE.read_text(encoding="utf-8")
    assert command.BEGIN in document
    assert command.END in document


def test_an_unknown_part_is_refused():
    with pytest.raises(SystemExit):
        command.main(["nothing"])


def test_faults_are_counted_by_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def run(command: list[str], **_: Any) -> None:
        (option,) = [word for word in command if word.startswith("--junit-xml=")]
        Path(option.partition("=")[2]).write_text(REPORT)

    monkeypatch.setattr(tested.subprocess, "run", run)
    section = tested.faults()
    assert section.rows == [
        ["damaged file", "600", "600", "0"],
        ["killed", "1", "0", "1"],
    ]
    assert [figure.value for figure in section.figures] == [600, 600, 1]


def test_marked_tests_name_their_fault(request: pytest.FixtureRequest):
    """The hook in conftest.py reaches the report of marked tests."""
    assert tested._files("mark.fault")  # pyright: ignore[reportPrivateUsage]
    assert "fault" in {line.partition("(")[0] for line in request.config.getini("markers")}


def test_no_two_programs_of_the_growth_are_alike():
    x = np.zeros(4, np.float32)
    numbers = range(0, 32768, 997)
    graphs = {re.sub("  #.*", "", tj.trace(growth.program(n), x).text()) for n in numbers}
    assert len(graphs) == len(numbers)


@pytest.mark.parametrize(
    ("ours", "numpys", "between", "kept"),
    [(70, 100, 3, True), (71, 100, 3, False), (200, 100, 2, True), (None, 100, 9, True)],
)
def test_programs_with_intermediates_have_to_save(
    ours: int | None, numpys: int, between: int, kept: bool
):
    found = Footprint("row", between, {"tracejit": ours, "numpy": numpys})
    assert found.kept == kept
    assert len(found.cells()) == 5
