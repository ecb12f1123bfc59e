"""Places that hold objects outside a function, and how native code looks whether they still do.

A place is an item of a dict with text as keys, or a closure's cell. What is there is compared by
identity, for which generated code needs nothing but words of memory: an entry of a dict does not
move while the dict keeps its table. For each place there are rows of (address, mask, word); a row
may be looked at where the rows before it hold. CPython's layout of dicts is not promised: rows are
made for the versions whose layout is known, and where they read what Python says is there.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterable, Sequence
from types import CellType
from typing import Any, NamedTuple, cast

import numpy as np

ABSENT = object()
"""Stands for what is not there."""

# The first version of CPython whose dicts have not been looked at.
_UNKNOWN = (3, 15)
_ALL = -1
# The sizes and the kind of a table; what stands above changes by itself.
_HEADER = (1 << 24) - 1
# Offsets in a dict: how many items, its table, and the values where instances share that.
_USED, _TABLE, _VALUES = 16, 32, 40
# In a table: the header, the number of entries, the first index.
_SIZES, _ENTRIES, _INDICES = 8, 24, 32
_GENERAL, _TEXT, _SHARED = 0, 1, 2  # kinds of table
_CELL_CONTENTS = 16
# Entries after the expected one that are looked at: those of deleted items stay.
_HOLES = 64

Row = tuple[int, int, int]


class Place(NamedTuple):
    """An item of a dict by its key, or the contents of a cell (``name`` None)."""

    holder: dict[str, Any] | CellType
    name: str | None

    def get(self) -> Any:
        """Return what is there, ``ABSENT`` for nothing."""
        holder, name = self
        if not isinstance(holder, CellType):
            return holder.get(cast(str, name), ABSENT)
        try:
            return holder.cell_contents
        except ValueError:
            return ABSENT


def table_of(places: Iterable[tuple[Place, Any]]) -> np.ndarray[Any, np.dtype[np.int64]] | None:
    """Return the number of rows, and the rows, that hold while all places have these objects.

    None where memory is not, or may not be, laid out as expected. Holder and objects must be kept
    alive.
    """
    if sys.version_info >= _UNKNOWN:
        return None
    rows: list[Row] = []
    for place, value in places:
        found = _rows(place, value)
        if found is None:
            return None
        rows += found
    return np.array([len(rows), *(word for row in rows for word in row)], np.int64)


def _rows(place: Place, value: Any) -> Sequence[Row] | None:
    holder, name = place
    if isinstance(holder, CellType):
        rows = [(id(holder) + _CELL_CONTENTS, _ALL, id(value))]
        return rows if _hold(rows) else None
    table = _word(id(holder) + _TABLE)
    if value is ABSENT:
        used = [(id(holder) + _USED, _ALL, len(holder)), (id(holder) + _TABLE, _ALL, table)]
        rows = [*used, (table + _ENTRIES, _ALL, _word(table + _ENTRIES))]
        return rows if name not in holder and _hold(rows) else None
    order = list(holder)
    if name not in order:
        return None
    position = order.index(name)
    head = _word(table + _SIZES) & _HEADER
    kind, entries = head >> 16, _word(table + _ENTRIES)
    size = 24 if kind == _GENERAL else 16
    first = table + _INDICES + (1 << (head >> 8 & 0xFF))
    rows = [(id(holder) + _TABLE, _ALL, table), (table + _SIZES, _HEADER, head)]
    if kind == _SHARED:
        positions = range(entries)
    elif kind in (_GENERAL, _TEXT):
        positions = range(position, min(entries, position + _HOLES))
    else:
        return None
    for index in positions:
        entry = first + size * index + (8 if kind == _GENERAL else 0)
        if _word(entry) != id(order[position]):
            continue
        rows.append((entry, _ALL, _word(entry)))
        if kind != _SHARED:
            rows.append((entry + 8, _ALL, id(value)))
            return rows if _hold(rows) else None
        values = _word(id(holder) + _VALUES)
        rows.append((id(holder) + _VALUES, _ALL, values))
        for offset in (0, 8):  # from Python 3.13 on, sizes stand before the values
            if values and _word(values + offset + 8 * index) == id(value):
                return [*rows, (values + offset + 8 * index, _ALL, id(value))]
    return None


def _hold(rows: Sequence[Row]) -> bool:
    return all(_word(address) & mask == word for address, mask, word in rows)


def _word(address: int) -> int:
    return ctypes.c_int64.from_address(address).value
