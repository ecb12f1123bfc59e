"""How much a process grows that compiles thousands of different programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

import tracejit as tj
from tracejit.runtime import code, service

from .figures import Figure
from .process import ROOT
from .section import Section

# Programs compiled beforehand: they load all that every later one needs.
WARM = 300
OPS = ("sqrt", "abs", "negative", "square", "floor", "ceil", "trunc", "sign")
LENGTH = 5  # 8^5 programs
# Far less than they take together, so that code has to go.
CODE_CACHE = 8 << 20


def program(number: int) -> Any:
    """Return a function that no other number gives: its steps are the octal digits."""

    def run(x: Any) -> Any:
        rest = number
        for _ in range(LENGTH):
            rest, digit = divmod(rest, len(OPS))
            x = getattr(np, OPS[digit])(x) + x
        return x

    return run


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def compile_all(count: int) -> tuple[int, int, int]:
    """Compile and call so many programs; return bytes grown, kernels compiled, bytes of code kept.

    Each is dropped after its call, as a program drops a function that it made.
    """
    x = np.linspace(0, 1, 64, dtype=np.float32)
    before = compiled = 0
    with np.errstate(all="ignore"):
        for number in range(WARM + count):
            if number == WARM:
                before, compiled = resident(), service.compiles()
            function: Any = tj.jit(program(number), compile="now", dynamic=False)
            function(x)
    return resident() - before, service.compiles() - compiled, code.cache.bytes


def measure(count: int) -> Section:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.growth", str(count)],
        env=os.environ | {"TRACEJIT_DISK_CACHE": "0", "TRACEJIT_CODE_CACHE": str(CODE_CACHE)},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    grown, compiled, kept = json.loads(done.stdout)
    return Section(
        "Memory of a process that compiles much",
        f"{count:,} functions of {LENGTH} steps, no two alike, are traced, compiled, called and "
        f"dropped, after {WARM} others, without a cache on disk. The one in memory may have "
        f"{CODE_CACHE >> 20} MiB (`TRACEJIT_CODE_CACHE`), and has {kept / 2**20:.1f} at the end.",
        [
            Figure("kernels compiled", compiled, "", count, at_least=True),
            Figure("growth of resident memory", grown / 1e6, "MB", 50),
        ],
    )


if __name__ == "__main__":
    print(json.dumps(compile_all(int(sys.argv[1]))))
