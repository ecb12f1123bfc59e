"""The parent's end of a worker: start it, ask it with a time limit, stop it."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tracejit import config

from . import implementations

# The folder that this package is imported from: a checkout's root, or site-packages.
ROOT = Path(__file__).parents[len((__package__ or "").split("."))]


class Process:
    """A worker process. It starts at the first request, and again after it was stopped.

    Caches on disk are its own and start empty, so that a first call really compiles; only what
    is known about the processor is copied. ``log`` takes what it prints.
    """

    def __init__(self, name: str, threads: int, log: Path):
        self.name, self.threads, self.log = name, threads, log
        self._process: subprocess.Popen[bytes] | None = None
        self._caches: tempfile.TemporaryDirectory[str] | None = None
        self._buffer = b""
        self.started: dict[str, Any] = {}

    def ask(self, limit: float, **request: Any) -> dict[str, Any]:
        """Return the answer; status "overdue" or "died" where none came, and the worker is gone."""
        if self._process is None:
            self._start()
            # Importing is not what the limit is for, and a loaded machine makes it slow.
            self.started = self._exchange({"do": "start"}, 120)
        if self.started["status"] != "ok":
            return self.started
        return self._exchange(request, limit) if request else self.started

    def _start(self) -> None:
        self._caches = tempfile.TemporaryDirectory(prefix="tracejit-bench-")
        folder = Path(self._caches.name)
        (folder / "tracejit").mkdir()
        for known in Path(config.cache_dir()).glob("cpu-*.txt"):
            shutil.copy(known, folder / "tracejit")
        environ = implementations.environment(self.name, self.threads)
        environ["TRACEJIT_CACHE_DIR"] = str(folder / "tracejit")
        environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder / "torch")
        environ["PYTHONPATH"] = os.pathsep.join(
            [str(ROOT), *filter(None, [environ.get("PYTHONPATH")])]
        )
        command = [sys.executable, "-m", f"{__package__}.worker", self.name, str(self.threads)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environ,
                # torch.compile has helpers of its own; all go when the group is stopped.
                start_new_session=True,
            )
        self._buffer = b""

    def _exchange(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = self._line(limit)
        except BrokenPipeError:
            line = b""
        if line:
            return json.loads(line)
        self.stop()
        if line is None:
            return {"status": "overdue", "detail": f"stopped after {limit:g} s"}
        return {"status": "died", "detail": f"exit status {process.returncode}"}

    def _line(self, limit: float) -> bytes | None:
        """Return the next line; None when the limit passed, empty when the worker ended."""
        assert self._process is not None
        assert self._process.stdout is not None
        end = time.monotonic() + limit
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, end - time.monotonic())):
                    return None
                piece = os.read(self._process.stdout.fileno(), 1 << 16)
                if not piece:
                    return b""
                self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def stop(self) -> None:
        """End the worker and what it started."""
        process, self._process = self._process, None
        if process is not None:
            # Its session is its own, so that this reaches nothing else.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        if self._caches is not None:
            self._caches.cleanup()
            self._caches = None
