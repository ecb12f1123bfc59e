"""Asking for small functions as a process with the code cache on disk would."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

from tracejit.codegen.target import LEVELS, Target
from tracejit.runtime import code as codes
from tracejit.runtime.service import Service

TARGET = LEVELS["generic"]


def text(number: int) -> str:
    """Return the module of ``f``, a function that returns ``number``."""
    return f"define i64 @f() {{\n  ret i64 {number}\n}}\n"


def ask(number: int, target: Target = TARGET, service: Service | None = None) -> int:
    """Return what a function that returns ``number`` returns, as a new process would get it."""
    codes.clear()
    code = (service or Service()).obtain(f"f {number}", lambda: text(number), "f", target)
    return ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)()


def files(folder: Path) -> list[Path]:
    """Return the entries of a cache folder."""
    return sorted((folder / "code").iterdir())


def origin(number: int, service: Service) -> str:
    """Return where a new process would get the function that returns ``number`` from."""
    codes.clear()
    return service.obtain(f"f {number}", lambda: text(number), "f", TARGET).origin


def run(program: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with this cache folder."""
    return subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"TRACEJIT_CACHE_DIR": str(folder)} | environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
