"""Slots: what a native entry compares of a call, and which of them kernels read.

The arguments come first, then the values of keywords, then what containers among the slots hold
(``codegen/spread.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tracejit.codegen.forms import Holds


class Opened:
    """Stands in a slot for a container, whose contents have slots of their own."""


OPENED = Opened()


class Box(NamedTuple):
    """A container among the slots: where it stands, its type, its length, and its keys."""

    slot: int
    holds: Holds
    type: type
    length: int
    keys: tuple[Any, ...] | None


class Slots(NamedTuple):
    """The slots of a call. ``inputs`` says which slot each input of the executable is.

    The first ``positional`` are arguments, followed by those of the keywords ``names``.
    """

    values: Sequence[Any]
    inputs: Sequence[int]
    positional: int
    names: tuple[str, ...] = ()
    boxes: Sequence[Box] = ()

    @classmethod
    def of(cls, args: Sequence[Any], inputs: Sequence[int] | None = None) -> Slots:
        """Return the slots of arguments without containers; by default each is an input."""
        return cls(args, range(len(args)) if inputs is None else inputs, len(args))

    def layout(self) -> np.ndarray[Any, np.dtype[np.int64]] | None:
        """Return the layout as generated code reads it; None where slots are just arguments."""
        if not self.names and not self.boxes:
            return None
        names = id(self.names) if self.names else 0
        words = [self.positional, names, self.positional + len(self.names), len(self.boxes)]
        for box in self.boxes:
            keys = 0 if box.keys is None else id(box.keys)
            words += [box.slot, int(box.holds), id(box.type), box.length, keys]
        return np.array(words, np.int64)
