"""The arena: intermediates share one block of memory, by liveness.

A buffer is live from the first step that writes it to the last that reads it. Buffers are placed
largest first, each at the lowest offset that is free during its whole life (greedy by size:
Pisarchyk & Lee 2020, "Efficient Memory Management for Deep Neural Net Inference"); for schedules
with very many buffers, in order of time with a free list, which is near-linear.

The memory of a result is free until a step writes to it, and takes in such buffers before that
(``lodge``). Sweeps over a grid need one more grid beside the result, not two.
"""

from __future__ import annotations

from bisect import bisect, insort
from collections.abc import Sequence
from typing import NamedTuple

from tracejit.sizes import frozen, hint, is_size

ALIGNMENT = 64
MANY = 512


class Life(NamedTuple):
    """A buffer's size in bytes, and the first and last step at which it is live."""

    nbytes: int
    first: int
    last: int


class Room(NamedTuple):
    """The memory of a result, in bytes, and the first step that writes the result."""

    nbytes: int
    until: int


class Plan(NamedTuple):
    """Offsets by buffer, the arena's size, and the largest sum of sizes live at one step."""

    offsets: list[int]
    nbytes: int
    largest_live: int


def aligned(nbytes: int) -> int:
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def lodge(lives: Sequence[Life], rooms: Sequence[Room]) -> dict[int, int]:
    """Return the room of each buffer that finds one, where buffers take turns.

    Of equally large ones the last chooses first. Of a chain, each of whose buffers is read to write
    the next, that leaves every second one, up to the one that the result is made of.
    """
    guests: list[list[tuple[int, int]]] = [[] for _ in rooms]  # when each room is taken
    found: dict[int, int] = {}
    for number in sorted(range(len(lives)), key=lambda i: (-hint(lives[i].nbytes), -lives[i].last)):
        life = lives[number]
        for room, (nbytes, until) in enumerate(rooms):
            if life.last >= until or not _fits(life.nbytes, nbytes):
                continue
            taken = guests[room]
            at = bisect(taken, (life.first, life.last))
            if (at and taken[at - 1][1] >= life.first) or (
                at < len(taken) and taken[at][0] <= life.last
            ):
                continue
            taken.insert(at, (life.first, life.last))
            found[number] = room
            break
    return found


def _fits(nbytes: int, room: int) -> bool:
    """Whether a buffer is no larger than a room; of symbolic sizes only if they are the same.

    To compare those would leave a guard, and part sizes that could share a plan.
    """
    if is_size(nbytes) or is_size(room):
        return frozen(nbytes) == frozen(room)
    return nbytes <= room


def plan(lives: Sequence[Life]) -> Plan:
    """Return offsets such that buffers that live at the same step do not overlap."""
    offsets = _by_time(lives) if len(lives) > MANY else _by_size(lives)
    end = max((o + aligned(v.nbytes) for o, v in zip(offsets, lives, strict=True)), default=0)
    return Plan(offsets, end, largest_live(lives))


def largest_live(lives: Sequence[Life]) -> int:
    """Return the largest number of bytes (rounded up to the alignment) live at one step."""
    change: dict[int, int] = {}
    for life in lives:
        change[life.first] = change.get(life.first, 0) + aligned(life.nbytes)
        change[life.last + 1] = change.get(life.last + 1, 0) - aligned(life.nbytes)
    live = most = 0
    for step in sorted(change):
        live += change[step]
        most = max(most, live)
    return most


def _by_size(lives: Sequence[Life]) -> list[int]:
    offsets = [0] * len(lives)
    placed: list[tuple[int, int, int]] = []  # offset, end, buffer; by offset
    for number in sorted(range(len(lives)), key=lambda i: (-lives[i].nbytes, lives[i].first)):
        life = lives[number]
        size = aligned(life.nbytes)
        offset = 0
        for start, end, other in placed:
            clash = lives[other].first <= life.last and life.first <= lives[other].last
            if clash and start < offset + size and offset < end:
                offset = end
        offsets[number] = offset
        insort(placed, (offset, offset + size, number))
    return offsets


def _by_time(lives: Sequence[Life]) -> list[int]:
    offsets = [0] * len(lives)
    free: list[tuple[int, int]] = []  # offset, size; by offset, never adjacent
    top = 0
    starting = sorted(range(len(lives)), key=lambda i: (lives[i].first, -lives[i].nbytes))
    ending = sorted(range(len(lives)), key=lambda i: lives[i].last)
    expired = 0
    for number in starting:
        while expired < len(ending) and lives[ending[expired]].last < lives[number].first:
            gone = ending[expired]
            _release(free, offsets[gone], aligned(lives[gone].nbytes))
            expired += 1
        size = aligned(lives[number].nbytes)
        fitting = [(s, o) for o, s in free if s >= size]
        if fitting:
            room, offset = min(fitting)
            free.remove((offset, room))
            if room > size:
                insort(free, (offset + size, room - size))
        else:
            offset = top
            if free and sum(free[-1]) == top:  # grow the last hole
                offset = free.pop()[0]
            top = offset + size
        offsets[number] = offset
    return offsets


def _release(free: list[tuple[int, int]], offset: int, size: int) -> None:
    """Add a hole and merge it with its neighbours."""
    if size == 0:
        return
    merged = (offset, size)
    for hole in [h for h in free if h[0] + h[1] == offset or offset + size == h[0]]:
        free.remove(hole)
        merged = (min(merged[0], hole[0]), merged[1] + hole[1])
    insort(free, merged)
