"""Cold starts: when a fresh process has its first result, and when compiling has paid off.

    python -m benchmarks.cold                     twelve programs, three rounds
    python -m benchmarks.cold softmax attention   these rows
    python -m benchmarks.cold --json cold.json    the figures as JSON as well; rows that the file
                                                  has and that are not measured now stay
    python -m benchmarks.cold --load cold.json    print these
    python -m benchmarks.cold --leave-out torch.compile   which takes the longest by far
    python -m benchmarks.cold --page              write the table to docs/performance.md as well

Each figure is from processes of their own with empty caches of compiled code; what is known of the
processor, and Python's bytecode of all libraries, is there as after an installation. Imports and
arguments are made beforehand. The implementations take turns, round by round, and figures are
medians of the rounds; torch.compile takes part in the first round only. What has no first result
after ``--limit`` seconds is stopped, and the table says so: twelve programs that are stopped by
torch.compile take nine minutes.

``first`` is the first call. ``break-even`` is when all calls together, the first included, have
taken less than as many calls of NumPy. ``interpreter`` is tracejit with ``compile="never"``: the
first call of ``tracejit`` may take 1.15 times as long and 2 ms more. Last come the programs on
which so many calls together, the first included, take no longer than a peer's.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from tracejit import config

from . import implementations, page
from .process import ROOT
from .report import time_text
from .rows import ROWS, arguments_of

PROGRAMS = (
    "small", "chain", "black_scholes", "softmax", "layer_norm_gelu", "column_normalise",
    "sum_of_squares", "n_body", "k_means", "gelu", "attention", "dense_relu",
)  # fmt: skip
PEERS = ("jax", "torch.compile")
LIBRARIES = ("numpy", "interpreter", "tracejit", *PEERS)
# How long calls go on after the first, at least and at most: they end once they have paid off.
LEAST_S, MOST_S = 0.3, 3.0
CALLS = 100_000
# After which a process is stopped that has no first result.
LIMIT_S = 45.0
# So many calls are compared in all.
NUMBERS = (1, 2, 3, 5, 10, 20, 50, 100)
# What the first call may take: so many times the interpreter's, and so many seconds more.
FACTOR, MORE_S = 1.15, 2e-3

BEGIN, END = "<!-- cold: begin -->", "<!-- cold: end -->"
PAGE = ROOT / "docs" / "performance.md"


class Run(NamedTuple):
    """What one process measured, in seconds: the first call, a later one, and when it paid off.

    ``first`` and ``totals`` are infinite where there was no result in time.
    """

    first: float
    steady: float
    calls: int | None  # with which the break-even came; None where it does not come
    paid: float | None
    totals: list[float]  # of as many calls as NUMBERS say
    least: float  # the first call, in the best of the rounds


def child(library: str, name: str, numpy: float) -> list[float]:
    """Return the times of successive calls; a call of NumPy takes ``numpy`` seconds."""
    row = ROWS[name]
    arguments = arguments_of(row)
    if library in ("tracejit", "interpreter"):
        import tracejit as tj

        mode: Any = "auto" if library == "tracejit" else "never"
        function = tj.jit(row.tracejit(tj), compile=mode)

        def call() -> Any:
            return function(*arguments)
    else:
        call = implementations.load(library, int(os.environ["OMP_NUM_THREADS"])).bind(
            row, arguments
        )
    times: list[float] = []
    total = begin = 0.0
    while len(times) < CALLS:
        started = time.perf_counter()
        call()
        now = time.perf_counter()
        times.append(now - started)
        total += now - started
        paid = total < len(times) * numpy
        begin = begin or now
        if now - begin > (LEAST_S if paid else MOST_S):
            break
    return times


def measure(
    library: str, name: str, numpy: float, threads: int, bytecode: Path, limit: float = LIMIT_S
) -> Run | None:
    """Run ``child`` in a fresh process; None where the library cannot."""
    with tempfile.TemporaryDirectory(prefix="tracejit-cold-") as folder:
        environ = implementations.environment(library, threads)
        environ["TRACEJIT_CACHE_DIR"] = f"{folder}/tracejit"
        (Path(folder) / "tracejit").mkdir()
        for known in Path(config.cache_dir()).glob("cpu-*.txt"):
            shutil.copy(known, Path(folder) / "tracejit")
        environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/torch"
        environ["PYTHONPYCACHEPREFIX"] = str(bytecode)
        for variable in ("TRACEJIT_COMPILE", "PYTHONDONTWRITEBYTECODE"):
            environ.pop(variable, None)
        command = [sys.executable, "-m", "benchmarks.cold", "--child", library, name, str(numpy)]
        answer = _answer(command, environ, limit)
    if answer is None:
        late = math.inf
        return Run(late, late, None, None, [late] * len(NUMBERS), late)
    if not answer:
        return None
    times: list[float] = json.loads(answer.splitlines()[-1])
    calls, paid = (
        break_even(times, numpy) if library not in ("numpy", "interpreter") else (None,) * 2
    )
    totals = [total(times, number) for number in NUMBERS]
    return Run(times[0], statistics.median(times[-20:]), calls, paid, totals, times[0])


def _answer(command: list[str], environ: dict[str, str], limit: float) -> str | None:
    """Return what a command prints, empty where it fails; None where it is stopped after a while.

    Calls go on for ``MOST_S`` after the first, which is what the limit is for.
    """
    process = subprocess.Popen(
        command, cwd=ROOT, env=environ, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        start_new_session=True,  # torch.compile has helpers: all go when the group is stopped
    )  # fmt: skip
    try:
        answer, _ = process.communicate(timeout=limit + MOST_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return None
    return answer if process.returncode == 0 else ""


def total(times: list[float], number: int) -> float:
    """Return what so many calls take together; the last ones say how it goes on."""
    more = number - len(times)
    return sum(times[:number]) + max(more, 0) * statistics.median(times[-20:])


def break_even(times: list[float], numpy: float) -> tuple[int, float] | tuple[None, None]:
    """Return after how many calls, and seconds, they beat NumPy's together; None if they do not."""
    total = 0.0
    for number, taken in enumerate(times, 1):
        total += taken
        if total < number * numpy:
            return number, total
    # The last calls say how it goes on.
    steady = statistics.median(times[-20:])
    if steady >= numpy:
        return None, None
    more = int((total - len(times) * numpy) / (numpy - steady)) + 1
    return len(times) + more, total + more * steady


def median(runs: list[Run]) -> Run:
    """Return the medians of the rounds; without a break-even where most rounds had none."""
    paid = sorted((r.paid, r.calls) for r in runs if r.paid is not None and r.calls is not None)
    point = paid[len(paid) // 2] if 2 * len(paid) > len(runs) else (None, None)
    return Run(
        statistics.median(r.first for r in runs),
        statistics.median(r.steady for r in runs),
        point[1],
        point[0],
        [statistics.median(column) for column in zip(*(r.totals for r in runs), strict=True)],
        min(r.first for r in runs),
    )


def race(
    name: str, libraries: list[str], rounds: int, threads: int, bytecode: Path, limit: float
) -> dict[str, Run]:
    """Measure a program with some implementations, NumPy first, which take turns."""
    found: dict[str, list[Run]] = {}
    numpy = 0.0
    for number in range(rounds):
        for library in libraries:
            if number and library == "torch.compile":
                continue
            run = measure(library, name, numpy, threads, bytecode, limit)
            if run is not None:
                found.setdefault(library, []).append(run)
            if library == "numpy":
                numpy = min(r.steady for r in found["numpy"])
    return {library: median(runs) for library, runs in found.items()}


def prompt(runs: dict[str, Run]) -> bool:
    """Whether tracejit's first call took as little more than the interpreter's as it may."""
    return runs["tracejit"].first <= FACTOR * runs["interpreter"].first + MORE_S


def prompt_at_best(runs: dict[str, Run]) -> bool:
    """Whether it did so in the best of the rounds of each: others may have wanted the cores."""
    return runs["tracejit"].least <= FACTOR * runs["interpreter"].least + MORE_S


def text(figures: dict[str, dict[str, Run]], limit: float = LIMIT_S) -> str:
    """Return the table of the page, and what it says in a few lines, on the peers measured."""
    peers = [p for p in PEERS if any(p in runs for runs in figures.values())]
    header = ["program", "NumPy, a call", "interpreter, first", "tracejit, first"]
    header += [f"{peer}, first" for peer in peers]
    header += [f"{name}, break-even" for name in ("tracejit", *peers)]
    lines: list[list[str]] = []
    for name, runs in figures.items():
        line = [name, time_text(runs["numpy"].steady)]
        timed = ("interpreter", "tracejit", *peers)
        line += [_first(runs[n], limit) if n in runs else "" for n in timed]
        for library in timed[1:]:
            paid = runs[library].paid if library in runs else None
            line.append("" if paid is None else f"{time_text(paid)}, {runs[library].calls} calls")
        lines.append(line)
    ours = sum(map(prompt, figures.values()))
    summary = [
        f"The first call takes at most {FACTOR} times the interpreter's and "
        f"{1e3 * MORE_S:g} ms more on {ours} of {len(figures)} programs by medians, on "
        f"{sum(map(prompt_at_best, figures.values()))} by the least times of the rounds."
    ]
    for peer in peers:
        both = [r for r in figures.values() if peer in r]
        first = sum(r["tracejit"].first < r[peer].first for r in both)
        sooner = sum(_paid(r, "tracejit") <= _paid(r, peer) for r in both)
        summary.append(
            f"Against {peer}: the first result comes sooner on {first} of {len(both)}, "
            f"the break-even no later on {sooner}. All calls together take no longer on "
            + ", ".join(f"{n} ({number})" for number, n in _ahead(both, peer))
            + " programs (calls)."
        )
    return "\n\n".join([page.table(header, lines), "\n".join(f"- {line}" for line in summary)])


def _first(run: Run, limit: float) -> str:
    return time_text(run.first) if run.first < math.inf else f"not in {limit:g} s"


def _ahead(both: list[dict[str, Run]], peer: str) -> list[tuple[int, int]]:
    """Return numbers of calls, and on how many programs ours together take no longer."""
    return [
        (number, sum(r["tracejit"].totals[i] <= r[peer].totals[i] for r in both))
        for i, number in enumerate(NUMBERS)
    ]


def _paid(runs: dict[str, Run], library: str) -> float:
    paid = runs[library].paid
    return float("inf") if paid is None else paid


def load(path: Path) -> dict[str, dict[str, Run]]:
    """Return the figures of a file that ``--json`` wrote; none where there is no such file."""
    if not path.exists():
        return {}
    kept: dict[str, dict[str, list[Any]]] = json.loads(path.read_text(encoding="utf-8"))
    return {name: {k: Run(*run) for k, run in runs.items()} for name, runs in kept.items()}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks.cold", description=__doc__)
    made.add_argument("programs", nargs="*", help="rows of the benchmarks")
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--limit", type=float, default=LIMIT_S, help="seconds to a first result")
    made.add_argument("--leave-out", action="append", default=[], choices=PEERS)
    made.add_argument("--bytecode", type=Path, help="a folder to keep Python's bytecode in")
    made.add_argument("--json", type=Path)
    made.add_argument("--load", type=Path, help="figures to print instead of measuring")
    made.add_argument("--page", action="store_true", help="write the table to the page")
    made.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return made


def measure_all(asked: argparse.Namespace, figures: dict[str, dict[str, Run]]) -> None:
    """Measure what was asked for, into ``figures``."""
    libraries = [name for name in LIBRARIES if name not in asked.leave_out]
    with tempfile.TemporaryDirectory(prefix="tracejit-bytecode-") as folder:
        bytecode = asked.bytecode or Path(folder)
        if not bytecode.exists() or not any(bytecode.iterdir()):
            for library in libraries:  # writes it
                measure(library, "small", 0.0, asked.threads, bytecode)
        for name in asked.programs or PROGRAMS:
            found = race(name, libraries, asked.rounds, asked.threads, bytecode, asked.limit)
            figures[name] = figures.get(name, {}) | found
            print(f"{name}: {found}", file=sys.stderr, flush=True)
            if asked.json is not None:
                asked.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    asked = parser().parse_args()
    if asked.child:
        library, name, numpy = asked.programs
        print(json.dumps(child(library, name, float(numpy))))
        return
    figures = load(asked.load or asked.json) if asked.load or asked.json else {}
    if asked.load is None:
        measure_all(asked, figures)
    print(text(figures, asked.limit))
    if asked.page:
        page.replace(PAGE, BEGIN, END, text(figures, asked.limit))


if __name__ == "__main__":
    main()
