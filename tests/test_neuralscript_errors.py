"""Error messages, word for word: tests/neuralscript_errors/NAME.ns gives NAME.txt.

After a wanted change: ``python tests/test_neuralscript_errors.py --update``, and read the diff.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tracejit.frontend.neuralscript import Program, load, loads
from tracejit.frontend.neuralscript.diagnostics import CODES, ProgramError
from tracejit.frontend.neuralscript.source import Source

FOLDER = Path(__file__).parent / "neuralscript_errors"
NAMES = sorted(path.stem for path in FOLDER.glob("*.ns"))


def messages(name: str) -> str:
    """Return the messages of one program, with the folder of the kernels left out."""
    path = FOLDER / f"{name}.ns"
    found = Program(Source(path.read_text(encoding="utf-8"), path.name)).diagnostics
    texts = [str(item) for item in found]
    lines = "\n\n".join(texts).splitlines()
    return "\n".join(line for line in lines if "looked for" not in line) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_messages(name: str) -> None:
    assert messages(name) == (FOLDER / f"{name}.txt").read_text(encoding="utf-8")


def test_codes_are_known() -> None:
    text = "".join((FOLDER / f"{name}.txt").read_text(encoding="utf-8") for name in NAMES)
    used = {code for code in CODES if f"[{code}]" in text}
    assert len(used) > 25


def test_a_program_error_is_a_syntax_error_with_all_findings(tmp_path: Path) -> None:
    path = tmp_path / "wrong.ns"
    path.write_text("let a = 1 +\nlet b = )\n", encoding="utf-8")
    with pytest.raises(SyntaxError) as caught:
        load(path)
    assert isinstance(caught.value, ProgramError)
    assert len(caught.value.diagnostics) >= 2
    assert str(path) in str(caught.value)


def test_wide_characters_and_tabs_keep_the_carets_in_place() -> None:
    with pytest.raises(ProgramError) as caught:
        loads("\tlet 变量 = 未知 + 1\n")
    marks = [line for line in str(caught.value).splitlines() if "^" in line]
    assert marks == ["  |             ^^^^ not defined here"]


def test_nesting_is_limited_rather_than_fatal() -> None:
    with pytest.raises(ProgramError, match="N013"):
        loads("let a = " + "(" * 500 + "1" + ")" * 500)


def test_a_long_chain_of_operators_is_fine() -> None:
    loads("let a = " + " + ".join(["1.0"] * 3000))


@pytest.mark.parametrize(
    "text",
    [
        "fn",
        "fn f(",
        "let",
        "struct S {",
        "match x {",
        '"',
        "/*",
        "|",
        "∂",
        "f(a:",
        "x[1;",
        "{",
        "}",
        "#[",
        "impl X {",
        "use",
        "√",
    ],
)
def test_unfinished_text_is_an_error(text: str) -> None:
    with pytest.raises(ProgramError):
        loads(text)


if __name__ == "__main__" and "--update" in sys.argv:
    for each in NAMES:
        (FOLDER / f"{each}.txt").write_text(messages(each), encoding="utf-8")
