"""docs/neuralscript.md is executed, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracejit.frontend.neuralscript import Program, ProgramError
from tracejit.frontend.neuralscript.builtins import BUILTINS
from tracejit.frontend.neuralscript.diagnostics import CODES
from tracejit.frontend.neuralscript.program import run
from tracejit.frontend.neuralscript.runs import missing
from tracejit.frontend.neuralscript.source import Source

PAGE = Path(__file__).parent.parent / "docs" / "neuralscript.md"
TEXT = PAGE.read_text(encoding="utf-8")
BLOCK = re.compile(r"```neuralscript( error)?\n(.*?)```\n\n```text\n(.*?)```", re.DOTALL)
EXAMPLES = [
    pytest.param(*found.groups(), id=f"line{TEXT[: found.start()].count(chr(10)) + 1}")
    for found in BLOCK.finditer(TEXT)
]


def output_of(text: str) -> str:
    program = Program(Source(text, "example.ns"))
    program.raise_errors()
    printed: list[str] = []
    run(program, {}, {}, write=printed.append)
    return "".join(printed)


@pytest.mark.parametrize(("wrong", "text", "expected"), EXAMPLES)
def test_example(wrong: str | None, text: str, expected: str) -> None:
    if wrong:
        with pytest.raises(ProgramError) as caught:
            output_of(text)
        assert str(caught.value) == expected.rstrip("\n")
    else:
        assert output_of(text) == expected


def test_every_block_is_followed_by_its_output() -> None:
    assert len(EXAMPLES) == TEXT.count("```neuralscript") >= 10


@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_builtin_is_documented(name: str) -> None:
    row = BUILTINS[name]
    assert f"| `{row.signature()}` | {row.doc.replace('|', chr(92) + '|')} |" in TEXT


def test_every_builtin_runs_something() -> None:
    assert missing() == []


@pytest.mark.parametrize("code", sorted(CODES))
def test_error_is_documented(code: str) -> None:
    assert f"| {code} | {CODES[code]} |" in TEXT
