"""Getting ready to compile, where nothing has been compiled before.

With an empty cache on disk, a program that asks for ``jit`` is going to compile. What all kernels
wait for is made then, rather than beside the first call, which needs the cores and Python's lock
for itself: a worker starts while modules are imported, and compiles the runtime's own code.
"""

from __future__ import annotations

from tracejit import config
from tracejit.runtime import cache, service


def begin() -> None:
    """Start what the first kernel needs; nothing happens where kernels have been kept on disk."""
    if config.disable_jit() or config.compile_mode() == "never" or cache.disk().exists():
        return
    service.start_ahead()
    from tracejit.runtime import cpu, memory, native
    from tracejit.runtime.costs import model

    cpu.target()
    native.prepare()
    memory.prepare()
    from tracejit.codegen import emitters  # noqa: F401 # pyright: ignore[reportUnusedImport]

    model.observe_start()
