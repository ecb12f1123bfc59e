"""Getting ready to compile, where nothing has been compiled before.

With an empty cache on disk, a program that asks for ``jit`` is going to compile. What all kernels
wait for is made then, rather than beside the first call, which needs the cores and Python's lock
for itself: a worker starts while modules are imported, and compiles the runtime's own code; what
plans and writes code is loaded, and tried once.
"""

from __future__ import annotations

import numpy as np

from tracejit import config
from tracejit.runtime import background, cache, service


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
    _exercise()
    background.start_ahead()
    model.observe_start()


def _exercise() -> None:
    """Load what plans and writes code, and have it do so once, for a softmax.

    The first time takes twice as long: constructors of records and tables are made (measured: 2 ms
    to plan a softmax, then 0.8; 4 ms to write it, then 3).
    """
    from tracejit.graph.graph import Graph
    from tracejit.graph.node import make, placeholder
    from tracejit.runtime import cpu, engine

    x = placeholder(0, np.float32, (64, 64))
    rows = {"axis": (1,), "keepdims": True}
    e = make("exp", [make("subtract", [x, make("max", [x], rows)])])
    softmax = make("divide", [e, make("sum", [e], rows)])
    schedule = engine.plan_graph(Graph([x], [softmax]), [None])
    engine.texts(schedule, cpu.target())
