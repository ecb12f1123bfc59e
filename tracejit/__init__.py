"""tracejit: a tracing tensor JIT for CPUs. ``import tracejit as tj``."""

from __future__ import annotations

from tracejit.functions.creation import *  # noqa: F403
