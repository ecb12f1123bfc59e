"""The run: prepare every implementation of a row, then time them in turns."""

from __future__ import annotations

import os
import platform
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tracejit.runtime import cpu, threads

from . import implementations
from .process import Process
from .rows import ROWS, WARM_UP, Row, reference

SCHEMA = 1


@dataclass(frozen=True)
class Options:
    """What to measure, and how long.

    ``limit``: seconds that an implementation may take for its first calls of a row. ``samples``
    for a turn, of which there are ``rounds``. ``cold`` starts a fresh process for each first call.
    """

    rows: tuple[str, ...]
    implementations: tuple[str, ...]
    threads: int
    rounds: int
    samples: int
    limit: float
    cold: bool
    seed: int = 0


# ``progress(what, share)``: what goes on, and how much of the run that completed.
Progress = Callable[[str, float], None]


def run(options: Options, progress: Progress) -> dict[str, Any]:
    """Measure; return the results as they go into the JSON file (docs/performance.md)."""
    with tempfile.TemporaryDirectory(prefix="tracejit-bench-") as folder:
        log = Path(folder) / "log"
        names = dict.fromkeys([*options.implementations, *implementations.COPIES])
        workers = {name: Process(name, options.threads, log) for name in names}
        try:
            return _run(options, workers, Path(folder), progress)
        finally:
            for worker in workers.values():
                worker.stop()


def _run(
    options: Options, workers: dict[str, Process], folder: Path, progress: Progress
) -> dict[str, Any]:
    started = time.perf_counter()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # what others do here
    progress("start", 0)
    versions = {name: worker.ask(0) for name, worker in workers.items()}
    progress("bandwidth and peak", 0)
    before = machine_figures(workers, options)
    for name, worker in workers.items():
        # So that a row's first call does not pay for what only a process's first call needs.
        progress(f"{name}: warm up", 0)
        warm_up(worker, folder, options)
    rows = [measure_row(ROWS[name], options, workers, folder, progress) for name in options.rows]
    after = machine_figures(workers, options)
    # What the machine can do is the best that it was seen to do.
    figures = {name: max(value, after.get(name, 0.0)) for name, value in before.items()}
    host = cpu.host()
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": time.perf_counter() - started,
        "machine": {
            "processor": host.brand,
            "isa": cpu.target().name,
            "levels": list(host.levels),
            "threads": options.threads,
            "cpus": threads.available(),
            "python": platform.python_version(),
            "load": load,
            "figures": figures,
        },
        "implementations": {
            name: {key: answer[key] for key in ("status", "version", "detail") if key in answer}
            | ({"import": answer["seconds"]} if "seconds" in answer else {})
            for name, answer in versions.items()
        },
        "options": {
            key: getattr(options, key)
            for key in ("threads", "rounds", "samples", "limit", "cold", "seed")
        },
        "rows": rows,
    }


def machine_figures(workers: dict[str, Process], options: Options) -> dict[str, float]:
    """Return bandwidth and peak flops as they are now."""
    answer = workers[implementations.COPIES[0]].ask(120, do="machine", threads=options.threads)
    return answer.get("figures", {})


def warm_up(worker: Process, folder: Path, options: Options) -> None:
    """Let a worker compile something."""
    row = ROWS[WARM_UP]
    path = folder / "reference.npz"
    np.savez(path, *reference(row))
    worker.ask(options.limit, do="prepare", row=row.name, reference=str(path))


def measure_row(
    row: type[Row],
    options: Options,
    workers: dict[str, Process],
    folder: Path,
    progress: Progress,
) -> dict[str, Any]:
    """Measure one row; a result for each implementation, with why it has no times if so."""
    share = 1 / (len(workers) + options.rounds)
    path = folder / "reference.npz"
    np.savez(path, *reference(row))
    results: dict[str, dict[str, Any]] = {}
    for name, worker in workers.items():
        progress(f"{row.name}: {name}", share)
        results[name] = prepare(worker, row.name, path, options)
    able = [name for name, result in results.items() if result["status"] == "ok"]
    for name in able:
        results[name]["rounds"] = []
    order = random.Random(f"{options.seed} {row.name}")
    for number in range(options.rounds):
        progress(f"{row.name}: round {number + 1} of {options.rounds}", share)
        take_turns(able, workers, results, order, options.samples)
    return {
        "name": row.name,
        "title": row.title,
        "group": row.group,
        "dtype": row.dtype,
        "bytes": row.bytes,
        "flops": row.flops,
        "memory_bound": row.memory_bound,
        "results": results,
    }


def prepare(worker: Process, row: str, path: Path, options: Options) -> dict[str, Any]:
    """Return the first call's outcome; with ``cold`` also that of a process that did nothing yet.

    What is over the limit in the fresh process is not tried again in the one that stays.
    """
    request = {"do": "prepare", "row": row, "reference": str(path)}
    cold = None
    if options.cold and worker.name not in (*implementations.COPIES, "numpy"):
        fresh = Process(worker.name, worker.threads, worker.log)
        try:
            first = fresh.ask(options.limit, **request)
        finally:
            fresh.stop()
        if first["status"] != "ok":
            return first
        cold = first["first"] - first["seconds"]
    answer = worker.ask(options.limit, **request)
    if answer["status"] == "ok":
        answer["compile"] = max(0.0, answer.pop("first") - answer["seconds"])
        if cold is not None:
            answer["cold"] = max(0.0, cold)
    return answer


def take_turns(
    able: Sequence[str],
    workers: dict[str, Process],
    results: dict[str, dict[str, Any]],
    order: random.Random,
    samples: int,
) -> None:
    """Let each implementation time the row once, in a new order."""
    turns = [name for name in able if results[name]["status"] == "ok"]
    order.shuffle(turns)
    for name in turns:
        # Threads of the one before may still spin for a moment.
        time.sleep(0.003)
        answer = workers[name].ask(120, do="turn", samples=samples)
        if answer["status"] == "ok":
            results[name]["rounds"].append(answer["samples"])
        else:
            results[name].update(answer)
