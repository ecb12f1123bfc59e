"""When to compile: the mode of a function, the process's default, and a stance over both."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Literal, cast

from tracejit import config, gate
from tracejit.errors import ValueArgumentError
from tracejit.runtime import monitor

Mode = Literal["auto", "now", "background", "never"]

# What PyTorch calls these; ours say the same with other words.
_ALIASES = {"force_eager": "never", "eager_on_recompile": "never_on_recompile"}
STANCES = ("default", "now", "background", "never", "never_on_recompile", "fail_on_recompile")

_lock = threading.Lock()
_current = "default"
# Read at each op of a tensor (``immediate.py``): whether the gate alone can keep a small one from
# being computed at once. None until somebody has asked.
prompt: bool | None = None
# Read on the fast path of every call that Python answers.
interpreting = False


def current() -> str:
    """Return the stance in force."""
    return _current


def mode_of(mode: Mode | None) -> Mode:
    """Return when a function of mode ``mode`` (None: the default) compiles at this moment."""
    if mode == "never" or _current == "never" or config.disable_jit():
        return "never"
    if monitor.active is not None and monitor.active.everything:
        return "now"  # a drawing shows kernels
    if _current in ("now", "background"):
        return cast(Mode, _current)
    return mode or cast(Mode, config.compile_mode())


def settle() -> bool:
    """Return, and remember in ``prompt``, whether small ops are computed at once by default."""
    global prompt
    with _lock:
        found = mode_of(None) != "now"
        if not gate.closed:
            prompt = found
        return found


def _set(stance: str) -> None:
    global _current, prompt, interpreting
    with _lock:
        _current, prompt = stance, None
        wanted = stance == "never"
        # Native entries know nothing of stances: they are shut while every call is interpreted.
        if wanted and not interpreting:
            gate.shut()
        elif interpreting and not wanted:
            gate.reopen()
        interpreting = wanted


class set_stance:  # noqa: N801 - used as a function and in a with statement
    """Decide for the whole process when jitted functions compile; also a ``with`` block.

    ============================  =================================================================
    ``"default"``                 as each function's ``compile=`` says
    ``"now"``                     a new signature is compiled at once, and the call waits
    ``"background"``              a call never waits: NumPy answers until the kernels are ready
    ``"never"``                   NumPy answers every call (also ``"force_eager"``)
    ``"never_on_recompile"``      compiled signatures run; NumPy answers new ones of a function
                                  that has some (also ``"eager_on_recompile"``)
    ``"fail_on_recompile"``       the same, but new ones raise ``RecompileError``
    ============================  =================================================================

    A function that was made with ``compile="never"`` stays interpreted under all of them.
    """

    def __init__(self, stance: str):
        name = _ALIASES.get(stance, stance)
        if name not in STANCES:
            raise ValueArgumentError(
                f"set_stance({stance!r}) is not one of {', '.join(STANCES)}",
            )
        self._outer = _current
        _set(name)

    def __enter__(self) -> str:
        return _current

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        _set(self._outer)
