"""Events: what the runtime decides, told to the log and to callbacks.

Topics are ``recompiles`` (a function met arguments it had no signature for, and why), ``tiers`` (a
program moved to kernels, or failed to) and ``cache`` (a kernel was compiled, or loaded from disk).
The stdlib logger ``tracejit`` has a child for each. ``TRACEJIT_LOGS="recompiles,cache,tiers"``
prints these to stderr.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tracejit import config
from tracejit.record import field, record

if TYPE_CHECKING:
    from logging import Logger


@record(frozen=True, slots=True)
class Event:
    """One decision. ``seconds`` is how long what it reports took, ``end`` when that was over.

    ``end`` is ``time.perf_counter()``; ``details`` are plain values by name.
    """

    topic: str
    message: str
    end: float
    seconds: float = 0.0
    thread: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


Callback = Callable[[Event], Any]
_callbacks: list[Callback] = []
_lock = threading.Lock()
_configured = False


def emit(topic: str, message: str, seconds: float = 0.0, **details: Any) -> None:
    """Tell whoever listens. What a callback raises is logged, and does not reach the program."""
    if not _configured:
        _configure()
    # Nobody listens to a log in a process that has not imported logging, which takes 2 ms.
    if "logging" in sys.modules:
        _logger(topic).info("%s", message)
    for callback in tuple(_callbacks):
        name = threading.current_thread().name
        event = Event(topic, message, time.perf_counter(), seconds, name, details)
        try:
            callback(event)
        except Exception:
            _logger().exception("a callback for events failed")


def _logger(*topic: str) -> Logger:
    import logging

    return logging.getLogger(".".join(("tracejit", *topic)))


def subscribe(callback: Callback) -> Callable[[], None]:
    """Call ``callback(event)`` for each event from now on; returns a function that ends it."""
    with _lock:
        _callbacks.append(callback)

    def unsubscribe() -> None:
        with _lock:
            if callback in _callbacks:
                _callbacks.remove(callback)

    return unsubscribe


def _configure() -> None:
    """Print the topics of ``TRACEJIT_LOGS``, once."""
    global _configured
    with _lock:
        if _configured:
            return
        wanted = config.log_topics()
        if wanted:
            import logging

            handler = logging.StreamHandler()
            handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
            for topic in wanted:
                _logger(topic).setLevel(logging.INFO)
                _logger(topic).addHandler(handler)
        _configured = True  # last: another thread's event waits for the handlers
