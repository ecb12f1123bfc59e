"""The process of one implementation: it prepares rows and times them as it is told.

Requests and answers are lines of JSON on standard input and output; ``process.py`` is the other
end. What a library prints goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from . import implementations
from .rows import ROWS, arguments_of, check

# A call shorter than this is timed several at a time: the clock's own cost is 0.05 µs.
LEAST_SECONDS = 0.0005
# A call longer than this needs no other one before it to fill caches and wake threads.
WARM_SECONDS = 0.02


class Worker:
    """One implementation, with the row that it has prepared."""

    def __init__(self, name: str, threads: int):
        self.name = name
        self.threads = threads
        self.call: Callable[[], Any] = lambda: None
        self.seconds = 0.0
        self.loaded: implementations.Loaded

    def start(self) -> dict[str, Any]:
        """Import the library; the answer has its version and the seconds that took."""
        started = time.perf_counter()
        try:
            self.loaded = implementations.load(self.name, self.threads)
        except implementations.Unavailable as error:
            return {"status": "unavailable", "detail": str(error)}
        seconds = time.perf_counter() - started
        return {"status": "ok", "version": self.loaded.version, "seconds": seconds}

    def prepare(self, row: str, reference: str) -> dict[str, Any]:
        """Bind a row and call it for the first time; compare with the reference in a .npz file."""
        definition = ROWS[row]
        arguments = arguments_of(definition)
        started = time.perf_counter()
        try:
            self.call = self.loaded.bind(definition, arguments)
            result = self.call()
        except implementations.NotWritten:
            return {"status": "none"}
        first = time.perf_counter() - started
        if self.name not in implementations.COPIES:
            with np.load(reference) as file:
                expected = [file[key] for key in file.files]
            wrong = check(definition, self.loaded.fetch(result), expected)
            if wrong:
                return {"status": "wrong", "detail": wrong}
        del result
        # The second call may still warm up; the least of the next few is what a call takes.
        self.seconds = min(self._once() for _ in range(3))
        return {"status": "ok", "first": first, "seconds": self.seconds}

    def _once(self) -> float:
        started = time.perf_counter()
        self.call()
        return time.perf_counter() - started

    def turn(self, samples: int) -> dict[str, Any]:
        """Time the row; a sample is the seconds of a call, a mean of several if it is short."""
        inner = max(1, int(LEAST_SECONDS / max(self.seconds, 1e-7)))
        if self.seconds < WARM_SECONDS:
            self.call()
        else:
            samples = 1
        call, times = self.call, []
        gc.disable()
        for _ in range(samples):
            started = time.perf_counter()
            for _ in range(inner):
                call()
            times.append((time.perf_counter() - started) / inner)
        gc.enable()
        return {"status": "ok", "samples": times}

    def machine(self, threads: int) -> dict[str, Any]:
        """Measure bandwidth and peak flops."""
        from . import machine

        return {"status": "ok", "figures": machine.measure(threads)}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        method = getattr(self, request.pop("do"))
        try:
            return method(**request)
        except Exception as error:  # a peer may fail in any way; the run goes on without it
            traceback.print_exc()
            lines = str(error).strip().splitlines() or [""]
            return {"status": "error", "detail": f"{type(error).__name__}: {lines[0]}"}


def main() -> None:
    # A copy of standard output for the answers; what libraries print joins standard error.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
