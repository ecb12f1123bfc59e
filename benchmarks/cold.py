"""Cold starts: when a fresh process has its first result, and when compiling has paid off.

    python -m benchmarks.cold                     twelve programs, tracejit, JAX and torch.compile
    python -m benchmarks.cold softmax attention   these rows
    python -m benchmarks.cold --json cold.json    the figures as JSON as well

Each figure is from a process of its own with empty caches of code (what is known
of the processor is kept), imports and arguments made beforehand.
``first`` is the first call. ``break-even`` is the number of calls after which all calls together,
the first included, have taken less than as many calls of NumPy, and when that was. ``interpreter``
is tracejit with ``compile="never"``: the first call of ``tracejit`` may take 1.15 times as long
and 2 ms more.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tracejit import config

from . import implementations
from .process import ROOT
from .rows import ROWS, arguments_of

PROGRAMS = (
    "small", "chain", "black_scholes", "softmax", "layer_norm_gelu", "column_normalise",
    "sum_of_squares", "n_body", "k_means", "gelu", "attention", "dense_relu",
)  # fmt: skip
LIBRARIES = ("numpy", "interpreter", "tracejit", "jax", "torch.compile")
SECONDS = 3.0
CALLS = 200_000
LIMIT = 240.0


def child(library: str, name: str) -> dict[str, Any]:
    """Return the import's time and those of successive calls, in seconds."""
    row = ROWS[name]
    arguments = arguments_of(row)
    started = time.perf_counter()
    if library in ("tracejit", "interpreter"):
        import tracejit as tj

        mode: Any = "auto" if library == "tracejit" else "never"
        function = tj.jit(row.tracejit(tj), compile=mode)
        imported = time.perf_counter() - started

        def call() -> Any:
            return function(*arguments)
    else:
        loaded = implementations.load(library, int(os.environ["OMP_NUM_THREADS"]))
        imported = time.perf_counter() - started
        call = loaded.bind(row, arguments)
    times: list[float] = []
    begin = time.perf_counter()
    while len(times) < CALLS and (not times or time.perf_counter() - begin < SECONDS):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return {"import": imported, "times": times}


def measure(library: str, name: str, threads: int) -> dict[str, Any] | None:
    """Run ``child`` in a fresh process; None where the library cannot or takes too long."""
    with tempfile.TemporaryDirectory(prefix="tracejit-cold-") as folder:
        environ = implementations.environment(library, threads)
        environ["TRACEJIT_CACHE_DIR"] = f"{folder}/tracejit"
        (Path(folder) / "tracejit").mkdir()
        for known in config.cache_dir().glob("cpu-*.json"):
            shutil.copy(known, Path(folder) / "tracejit")
        environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/torch"
        environ.pop("TRACEJIT_COMPILE", None)
        command = [sys.executable, "-m", "benchmarks.cold", "--child", library, name]
        try:
            done = subprocess.run(
                command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=LIMIT
            )
        except subprocess.TimeoutExpired:
            return None
    return json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None


def break_even(times: list[float], numpy: float) -> tuple[int, float] | None:
    """Return after how many calls, and seconds, they beat NumPy's together; None if they do not."""
    total = 0.0
    for number, taken in enumerate(times, 1):
        total += taken
        if total < number * numpy:
            return number, total
    # The last calls say how it goes on.
    steady = statistics.median(times[-20:])
    if steady >= numpy:
        return None
    more = int((total - len(times) * numpy) / (numpy - steady)) + 1
    return len(times) + more, total + more * steady


def table(names: list[str], threads: int) -> dict[str, Any]:
    """Measure and print a line for each program and library; return the figures."""
    figures: dict[str, Any] = {}
    print(f"{'program':<18} {'library':<14} {'first':>10} {'steady':>10}  break-even")
    for name in names:
        found = {library: measure(library, name, threads) for library in LIBRARIES}
        base = found["numpy"]
        assert base is not None
        numpy = statistics.median(base["times"])
        figures[name] = {}
        for library, result in found.items():
            if result is None:
                print(f"{name:<18} {library:<14} {'-':>10}")
                continue
            times = result["times"]
            steady = statistics.median(times[-20:])
            point = break_even(times, numpy) if library != "numpy" else None
            reached = "" if point is None else f"{point[0]} calls, {point[1] * 1e3:.0f} ms"
            print(
                f"{name:<18} {library:<14} {times[0] * 1e3:>7.1f} ms {steady * 1e3:>7.2f} ms"
                f"  {reached}",
                flush=True,
            )
            figures[name][library] = {"first": times[0], "steady": steady, "break_even": point}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cold", description=__doc__)
    parser.add_argument("programs", nargs="*", help="rows of the benchmarks")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        print(json.dumps(child(*asked.programs)))
        return
    figures = table(asked.programs or list(PROGRAMS), asked.threads)
    if asked.json is not None:
        asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
