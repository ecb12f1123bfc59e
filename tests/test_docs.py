"""Every Python and NeuralScript example in the documents runs, and prints what they show.

A ``python`` block runs after the blocks above it on its page, in one namespace. Where a ``text``
block follows, it is what the block prints. Blocks in HTML comments prepare what readers have::

    <!-- python
    x = np.ones(3)
    -->

and ``<!-- edit: FILE -->`` above a block adds it to the end of a file of a copy of the checkout
(``<!-- edit: FILE after: START -->``: below the line that starts so), in which the other blocks
of the page then run. NeuralScript blocks run as test_neuralscript_docs.py says, which also tests
docs/neuralscript.md in full.
"""

from __future__ import annotations

import io
import linecache
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from test_neuralscript_docs import BLOCK, PAGE, output_of

from tracejit import config

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLE = re.compile(
    r"(?:^<!-- edit: (?P<file>\S+)(?: after: (?P<anchor>[^\n]+?))? -->\n)?"
    r"^```python\n(?P<code>.*?)^```$"
    r"(?:\n\n```text\n(?P<output>.*?)^```$)?"
    r"|^<!-- python\n(?P<hidden>.*?)^-->$",
    re.DOTALL | re.MULTILINE,
)
# What a reader finds in the file that an example's location names.
FILE = "example.py"


class Example(NamedTuple):
    """One block: its line on the page, code, expected output; the file it edits, and where."""

    line: int
    code: str
    output: str | None
    file: str | None
    anchor: str | None


def examples(page: Path) -> Iterator[Example]:
    text = page.read_text(encoding="utf-8")
    for found in EXAMPLE.finditer(text):
        line = text.count("\n", 0, found.start()) + 1
        code = found["hidden"] if found["code"] is None else found["code"]
        yield Example(line, code, found["output"], found["file"], found["anchor"])


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def run_block(example: Example, page: Path, namespace: dict[str, Any]) -> str:
    """Run a block; return what it prints. Its lines are at hand for messages that quote them."""
    linecache.cache[FILE] = (
        len(example.code),
        None,
        example.code.splitlines(keepends=True),
        FILE,
    )
    printed = io.StringIO()
    try:
        with redirect_stdout(printed):
            exec(compile(example.code, FILE, "exec"), namespace)
    except Exception as error:
        error.add_note(f"in the example at {page}:{example.line}")
        raise
    return printed.getvalue()


def run_page(page: Path) -> None:
    """Run the examples of a page in order and compare what they print."""
    namespace: dict[str, Any] = {"__name__": "example"}
    for example in examples(page):
        if example.file is not None:
            continue
        got = run_block(example, page, namespace)
        if example.output is not None:
            assert got.rstrip() == example.output.rstrip(), f"{page}:{example.line} prints\n{got}"


def edited_copy(page: Path, folder: Path) -> Path:
    """Return a copy of the checkout to which the page's additions are made."""
    for part in ("tracejit", "kernels", "tests", "docs", "pyproject.toml"):
        source = ROOT / part
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / part, ignore=ignore)
        else:
            shutil.copy(source, folder / part)
    for example in examples(page):
        if example.file is not None:
            edit(folder / example.file, example)
    return folder


def edit(path: Path, example: Example) -> None:
    """Insert an example below its anchor, which must stand there once, or at the end."""
    lines = path.read_text(encoding="utf-8").splitlines()
    place = len(lines)
    if example.anchor is not None:
        found = [i for i, line in enumerate(lines) if line.strip().startswith(example.anchor)]
        assert len(found) == 1, f"{path.name} has {len(found)} lines {example.anchor!r}"
        place = found[0] + 1
    lines[place:place] = example.code.splitlines()
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def run_in(folder: Path, *arguments: str) -> str:
    """Run Python with ``folder``'s tracejit; return what it prints, or fail with it."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(folder / "tests")])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_python_examples(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if any(example.file for example in examples(page)):
        folder = edited_copy(page, tmp_path)
        call = "import pathlib, sys, test_docs; test_docs.run_page(pathlib.Path(sys.argv[1]))"
        run_in(folder, "-c", call, str(page))
    else:
        run_page(page)


@pytest.mark.parametrize("page", [p for p in PAGES if p != PAGE], ids=name)
def test_neuralscript_examples(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    found = list(BLOCK.finditer(text))
    assert len(found) == text.count("```neuralscript")
    for block in found:
        assert output_of(block[2]) == block[3]


def test_the_op_of_the_walk_through_passes_the_op_matrix(tmp_path: Path) -> None:
    """docs/add-an-op.md says that the tests of a new row follow from the row."""
    folder = edited_copy(ROOT / "docs" / "add-an-op.md", tmp_path)
    printed = run_in(folder, "-m", "pytest", "-q", "tests/test_ops.py", "-k", "smoothstep")
    passed = re.search(r"(\d+) passed", printed)
    assert passed is not None
    assert int(passed[1]) >= 3, printed


# -- tables ----------------------------------------------------------------------------------------


def test_every_environment_variable_is_documented() -> None:
    """docs/environment.md has a row for each variable that the package reads, and no other."""
    page = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\| `([A-Z_]+)` \|", page, re.MULTILINE))
    read = set(re.findall(r'"((?:TRACEJIT|OMP)_[A-Z_]+)"', Path(config.__file__).read_text()))
    elsewhere = {
        found
        for path in Path(config.__file__).parent.rglob("*.py")
        if path != Path(config.__file__)
        for found in re.findall(r"(?:environ|getenv)\S*[\[(]\s*\"(\w+)\"", path.read_text())
    }
    assert rows == read | elsewhere


def test_every_dependency_is_documented() -> None:
    """docs/dependencies.md has the run-time dependencies with their bounds, and every extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\S+) ≥ (\S+) \|", page, re.MULTILINE)
    assert sorted(f"{p}>={bound}" for p, bound in rows) == sorted(project["dependencies"])
    extras = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", page, re.MULTILINE))
    for extra, wanted in project["optional-dependencies"].items():
        packages = re.findall(r"[\w-]+", extras.pop(extra))
        missing = {re.split(r"[\[>=]", one)[0] for one in wanted} - set(packages)
        assert not missing, f"{extra}: {missing}"
    assert not extras


def prose(page: Path) -> str:
    """Return the text of a page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)]*))?\)", prose(page)):
        if "://" not in target:
            linked = page.parent / target if target else page
            assert linked.exists(), f"{name(page)}: {target}"
            assert not anchor or anchor in anchors(linked), f"{name(page)}: {target}#{anchor}"


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=name)
def test_tables_are_whole(page: Path) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", prose(page), re.MULTILINE):
        cells = [len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()]
        assert len(set(cells)) == 1, f"{name(page)}: {table.splitlines()[0]} has rows of {cells}"
