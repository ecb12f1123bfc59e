"""Blocking of products as it was measured on this machine: kept on disk, read at first need.

``tracejit tune`` (``runtime/tuner.py``) writes ``products-<cpu>.json`` into the cache folder: for
each instruction-set level a ``Blocking``. The name is a hash of the processor, so machines of
different kinds can share a home folder. What other code has measured is ignored, as it may cut
products in other ways; what is damaged too, with one warning. Nothing is unpickled, and values
outside of ``LIMITS`` count as damage. With no file a process pays one failed ``open``.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from tracejit import config
from tracejit.codegen.target import BY_RULE, Blocking
from tracejit.digest import blake2b
from tracejit.errors import UnsupportedError
from tracejit.runtime import cache

if TYPE_CHECKING:
    from tracejit.runtime.cpu import Cpu

FORMAT = 1
# The least and the largest value of each number.
LIMITS: dict[str, tuple[int, int]] = {
    "depth": (1, 16),
    "tile_panels": (1, 256),
    "share_panels": (1, 256),
    "direct_panels": (1, 256),
    "ahead_rows": (1, 1 << 20),
    "ahead_columns": (1, 1 << 20),
    "tile_work": (1 << 10, 1 << 40),
    "prefetch": (1, 256),
}


class Tuned(NamedTuple):
    """What was measured for one level: the blocking, and how much faster it was (geometric mean
    over the programs that it was measured on)."""

    blocking: Blocking
    gain: float


def described(blocking: Blocking) -> str:
    """Return what a blocking has that differs from the rules; empty where nothing does."""
    pairs = zip(Blocking._fields, blocking, BY_RULE, strict=True)
    return ", ".join(f"{name} {own}" for name, own, rule in pairs if own != rule)


def stored(cpu: Cpu) -> Mapping[str, Tuned]:
    """Return what was measured on this processor with this code, by level."""
    return _read(path(cpu))


def path(cpu: Cpu) -> str:
    """Return the file of this processor; it need not exist."""
    return os.path.join(config.cache_dir(), f"products-{_identity(cpu)}.json")


@lru_cache(maxsize=4)
def _identity(cpu: Cpu) -> str:
    parts = [cpu.brand, cpu.vendor, cpu.machine, *sorted(cpu.flags)]
    sizes = (cpu.l1_bytes, cpu.l2_bytes, cpu.l3_bytes)
    return blake2b("\n".join([*parts, str(sizes)]).encode(), digest_size=16).hexdigest()


@lru_cache(maxsize=8)
def _read(place: str) -> Mapping[str, Tuned]:
    try:
        with open(place, "rb") as file:
            text = file.read()
    except FileNotFoundError:
        return {}
    except OSError as error:
        return _ignored(place, str(error))
    try:
        import json  # for those who have measured: 1 ms

        return _parsed(json.loads(text))
    except (ValueError, RecursionError) as error:
        return _ignored(place, str(error))


def _ignored(place: str, why: str) -> Mapping[str, Tuned]:
    warnings.warn(
        f"{place} is damaged and ignored ({why}); `tracejit tune` writes it anew, and "
        "`tracejit tune --reset` removes it",
        RuntimeWarning,
        stacklevel=2,
    )
    return {}


def _parsed(kept: Any) -> Mapping[str, Tuned]:
    """Return what a file holds, nothing where other code wrote it; ValueError for damage."""
    if not isinstance(kept, dict):
        raise ValueError("not an object")
    items = cast("dict[str, Any]", kept)
    if items.get("format") != FORMAT or items.get("code") != _code():
        return {}
    levels = items.get("levels")
    if not isinstance(levels, dict):
        raise ValueError("no levels")
    return {name: _tuned(entry) for name, entry in cast("dict[str, Any]", levels).items()}


def _tuned(entry: Any) -> Tuned:
    if not isinstance(entry, dict):
        raise ValueError("a level is not an object")
    values = dict(cast("dict[str, Any]", entry))
    gain = values.pop("gain", None)
    if not isinstance(gain, float) or set(values) != set(LIMITS):
        raise ValueError(f"a level has {', '.join(values) or 'nothing'}")
    for name, (least, largest) in LIMITS.items():
        if type(values[name]) is not int or not least <= values[name] <= largest:
            raise ValueError(f"{name} is {values[name]!r}")
    return Tuned(Blocking(**values), gain)


def _code() -> str | None:
    """Return the code generator's version; None where it cannot be told."""
    found = cache.fingerprint()
    return None if found is None else found.hex()


def keep(level: str, found: Tuned, cpu: Cpu) -> str:
    """Write down what was measured for a level, beside that of others; return the file.

    Raises UnsupportedError where the version of the code cannot be told, and OSError.
    """
    import json
    from pathlib import Path

    from tracejit.files import atomic

    code = _code()
    if code is None:
        raise UnsupportedError(
            "what is measured now could not be told from what other code has measured",
            hint="tracejit's sources have changed since this process has started: run it again",
        )
    levels = {**stored(cpu), level: found}
    place = Path(path(cpu))
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    text = {
        "format": FORMAT,
        "code": code,
        "processor": cpu.brand,
        "levels": {name: {**t.blocking._asdict(), "gain": t.gain} for name, t in levels.items()},
    }
    with atomic(place, "w") as stream:
        stream.write(json.dumps(text, indent=1))
    forget()
    return str(place)


def reset(cpu: Cpu) -> bool:
    """Remove what was measured on this processor; return whether there was something."""
    removed = False
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path(cpu))
        removed = True
    forget()
    return removed


def forget() -> None:
    """Let the file be read again. Programs that are compiled keep the blocking that they have."""
    _read.cache_clear()
