"""Sub-interpreters are refused with a message that says what to do."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from tracejit.errors import SubinterpreterError

CODE = """
try:
    import tracejit
except ImportError as error:
    assert type(error).__name__ == "SubinterpreterError", error
    assert "sub-interpreter" in str(error) and "multiprocessing" in str(error)
    import sys
    assert "numpy" not in sys.modules
    print("refused")
"""


@pytest.mark.fault("import in a sub-interpreter")
def test_an_import_in_a_subinterpreter_is_refused() -> None:
    for name in ("_interpreters", "_xxsubinterpreters"):
        try:
            importlib.import_module(name)
            break
        except ImportError:
            continue
    else:
        pytest.skip("no sub-interpreters here")
    program = (
        f"import {name} as interpreters, tracejit\n"
        f"interpreters.run_string(interpreters.create(), {CODE!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "refused\n", done.stderr


def test_the_error_is_an_import_error() -> None:
    assert issubclass(SubinterpreterError, ImportError)
