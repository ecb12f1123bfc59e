"""How long a new process takes whose kernels are all on disk, and what it spends that on."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from typing import NamedTuple

from .figures import Figure
from .process import ROOT
from .report import time_text
from .section import Section

# Prints a ``Start`` as JSON. Nothing is imported that a program would not import.
PROGRAM = """
import sys, time
now = time.perf_counter
begun = now()
import numpy as np
numpy = now()
import tracejit as tj
imported = now()
tj.jit
ready = now()

def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def other(x):
    return np.sqrt(x * x + 1.0) / (1.0 + np.abs(x))

x = np.linspace(0, 1, 6400, dtype=np.float32).reshape(64, 100)
first = tj.jit(softmax, compile="now")
before = now()
first(x)
called = now()
first(x)
entered = now()
second = tj.jit(other, compile="now")
before_other = now()
second(x)
other_called = now()

from tracejit.codegen import llvm
from tracejit.runtime import service, workers
stats = service.stats()
import json
print(json.dumps([
    numpy - begun, imported - numpy, ready - imported, called - before, entered - called,
    called - numpy, other_called - before_other, stats["compiled"], stats["disk_hits"],
    llvm.loaded() or bool(workers.pids()),
    sum(name.partition(".")[0] == "tracejit" for name in sys.modules),
]))
"""


class Start(NamedTuple):
    """Seconds of the parts, and what was done in them."""

    numpy: float
    tracejit: float
    jit: float
    first: float
    second: float
    total: float  # to the first result, without NumPy's import
    another: float  # the first call of another function
    compiled: int
    loaded: int
    llvm: bool
    modules: int


def runs(count: int) -> list[Start]:
    """Start processes with one cache of code, and of bytecode, which the first of them fill."""
    with tempfile.TemporaryDirectory(prefix="tracejit-warm-") as folder:
        environ = os.environ | {
            "TRACEJIT_CACHE_DIR": f"{folder}/cache",
            "PYTHONPYCACHEPREFIX": f"{folder}/bytecode",
        }
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        found = [_run(environ) for _ in range(count + 2)]
    return found[2:]


def _run(environ: dict[str, str]) -> Start:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environ, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return Start(*json.loads(done.stdout))


PARTS = {
    "numpy": "`import numpy`, for comparison",
    "tracejit": "`import tracejit`",
    "jit": "`tj.jit`, which imports the rest",
    "first": "first call of a softmax",
    "second": "second call",
    "total": "to the first result, without NumPy's import",
    "another": "first call of another function",
}


def measure(count: int) -> Section:
    found = runs(count)
    columns = {part: [getattr(start, part) for start in found] for part in PARTS}
    best = {part: min(values) for part, values in columns.items()}
    return Section(
        "Warm start",
        f'{count} processes, whose code and bytecode are on disk; compile="now". '
        f"{found[0].modules} modules of tracejit are loaded.",
        [
            Figure("import to first result, beyond NumPy's import", 1e3 * best["total"], "ms", 45),
            Figure("a further function: trace, plan, load", 1e3 * best["another"], "ms", 5),
            Figure("kernels compiled by them", sum(s.compiled for s in found), "", 0),
            Figure("processes that loaded LLVM", sum(s.llvm for s in found), "", 0),
        ],
        ["part", "least", "median"],
        [
            [text, time_text(best[part]), time_text(statistics.median(columns[part]))]
            for part, text in PARTS.items()
        ],
    )
