"""The image under a convolution that has few outputs, as its kernel keeps it: padded, by phases.

Along an axis the window at place o has its tap t at element q = s·o + d·t of the image, stride s
and dilation d. The elements whose q leaves the same rest by s, a *phase*, are kept side by side,
zeros where the image is padded. Then the elements under one tap at all places are neighbours:
place o finds its own at o + d·t div s in phase d·t mod s. So it is along every axis, and with the
lines of a plane behind each other one offset says where a tap is for every place at once.
"""

from __future__ import annotations

from itertools import product
from math import gcd, prod
from typing import NamedTuple

from tracejit.schedule.merged import Border, Walk, Walks

# Lines that a table describes, three numbers each.
MAX_LINES = 8192

# The table in ``sizes``; the lines of places, the taps and the lines of the planes follow.
(
    PLANES, VOLUME, OUTER, OUTER_PLACES, OUTER_PITCH, INNER_LINES, PITCH, STEP, WIDTH, LINES,
    SPAN, TAPS, ROWS, FIRST_LINE,
) = range(14)  # fmt: skip


class Planes(NamedTuple):
    """How elements of B are laid out before the product reads them.

    ``places`` and ``extents`` have, for each axis (two at least, the last one in vector lanes), how
    many windows there are and how many elements a plane has; ``planes`` of them follow each other.
    Depth k of place o is at taps[k] + o in them, o counted in the extents. ``rows`` are the lines
    of all planes in order: where in B the first element would be, and the range of elements that
    are there, ``step`` apart in memory; the others are zero.
    """

    places: tuple[int, ...]
    extents: tuple[int, ...]
    planes: int
    step: int
    taps: tuple[int, ...]
    rows: tuple[tuple[int, int, int], ...]

    @property
    def outer_pitch(self) -> int:
        """Elements of a plane from one place of the outermost axis to the next."""
        return prod(self.extents[1:])

    @property
    def span(self) -> int:
        """Elements from the first to the last place of all that share the outermost one."""
        inside = zip(self.places[1:], self._pitches()[1:], strict=True)
        return sum((n - 1) * pitch for n, pitch in inside) + 1

    def _pitches(self) -> list[int]:
        return [prod(self.extents[i + 1 :]) for i in range(len(self.extents))]

    def elements(self, rows: int, height: int, lanes: int) -> tuple[int, int]:
        """Return the elements of ``rows`` results at ``height`` outermost places, and of planes."""
        flat = -(-((height - 1) * self.outer_pitch + self.span) // lanes) * lanes
        return rows * flat, self.planes * prod(self.extents) + 2 * lanes

    def table(self) -> tuple[int, ...]:
        """Return the numbers that the kernel reads."""
        inside = zip(self.places[1:-1], self._pitches()[1:-1], strict=True)
        lines = _sums([[i * pitch for i in range(n)] for n, pitch in inside])
        taps = FIRST_LINE + len(lines)
        header = (
            self.planes, prod(self.extents), self.extents[0], self.places[0], self.outer_pitch,
            prod(self.extents[1:-1]), self.extents[-1], self.step, self.places[-1], len(lines),
            self.span, taps, taps + len(self.taps),
        )  # fmt: skip
        return (*header, *lines, *self.taps, *(number for row in self.rows for number in row))


class _Axis(NamedTuple):
    """One axis of the image: ``places``, stride and dilation; element q is q·``unit`` on in memory
    and there where 0 ≤ start + scale·q < extent (``edge``); ``walk`` is the walk of its taps."""

    places: int
    stride: int = 1
    dilation: int = 1
    taps: int = 1
    unit: int = 0
    walk: int | None = None
    edge: tuple[int, int, int] | None = None

    @property
    def phases(self) -> list[int]:
        return sorted({self.dilation * t % self.stride for t in range(self.taps)})

    @property
    def extent(self) -> int:
        return self.places + self.dilation * (self.taps - 1) // self.stride

    def tap(self, t: int) -> tuple[int, int]:
        """Return the number of a tap's phase, and how far on it is in there."""
        shift, phase = divmod(self.dilation * t, self.stride)
        return self.phases.index(phase), shift

    def inside(self, phase: int) -> range:
        """Return which elements of a phase are there."""
        last = self.stride * (self.places - 1) + self.dilation * (self.taps - 1)
        low, high = 0, last
        if self.edge is not None:
            extent, start, scale = self.edge
            low = max(low, -(start // scale))
            high = min(high, (extent - 1 - start) // scale)
        first = -((phase - low) // self.stride)
        return range(max(0, first), max(0, first, (high - phase) // self.stride + 1))


def planes_of(walks: Walks) -> Planes | None:
    """Return the planes of what ``walks`` lead through, None where it is no image and windows."""
    axes = _axes_of(walks)
    if axes is None:
        return None
    taps = {axis.walk for axis in axes}
    leads = [i for i in range(len(walks.depths)) if i not in taps]
    extents = tuple(axis.extent for axis in axes)
    phases = [axis.phases for axis in axes]
    starts = _sums(
        [[i * walks.depths[w].stride for i in range(walks.depths[w].extent)] for w in leads]
    )
    count = len(starts) * prod(len(p) for p in phases)
    if count * prod(extents[:-1]) > MAX_LINES:
        return None
    return Planes(
        tuple(axis.places for axis in axes),
        extents,
        count,
        axes[-1].unit * axes[-1].stride,
        _taps(walks, axes, leads),
        tuple(
            row
            for start in starts
            for phase in product(*phases)
            for row in _rows(axes, phase, walks.start + start)
        ),
    )


def _taps(walks: Walks, axes: list[_Axis], leads: list[int]) -> tuple[int, ...]:
    """Return where place 0 finds its element of each depth."""
    extents = [axis.extent for axis in axes]
    found: list[int] = []
    for place in product(*(range(w.extent) for w in walks.depths)):
        plane, offset = 0, 0
        for walk in leads:
            plane = plane * walks.depths[walk].extent + place[walk]
        for axis, extent in zip(axes, extents, strict=True):
            phase, shift = axis.tap(0 if axis.walk is None else place[axis.walk])
            plane, offset = plane * len(axis.phases) + phase, offset * extent + shift
        found.append(plane * prod(extents) + offset)
    return tuple(found)


def _rows(axes: list[_Axis], phases: tuple[int, ...], start: int) -> list[tuple[int, int, int]]:
    """Return the lines of one plane."""
    *outer, last = axes
    there = last.inside(phases[-1])
    begin = start + phases[-1] * last.unit
    insides = [axis.inside(phase) for axis, phase in zip(outer, phases[:-1], strict=True)]
    found: list[tuple[int, int, int]] = []
    for place in product(*(range(axis.extent) for axis in outer)):
        if there and all(i in inside for i, inside in zip(place, insides, strict=True)):
            places = zip(outer, phases[:-1], place, strict=True)
            offset = sum((phase + i * axis.stride) * axis.unit for axis, phase, i in places)
            found.append((begin + offset, there.start, there.stop))
        else:
            found.append((0, 0, 0))
    return found


def _axes_of(walks: Walks) -> list[_Axis] | None:
    """Pair the walks of places and of taps along the same axis of the image.

    The borders say which belong together. Elsewhere it is those with the strides that are most
    alike: any choice is right, and a bad one only makes large planes.
    """
    columns: dict[int, _Axis] = {}
    alone: list[_Axis] = []
    for border in walks.borders:
        places = [i for i, step in enumerate(border.columns) if step]
        taps = [i for i, step in enumerate(border.depths) if step]
        if len(places) > 1 or len(taps) > 1 or not (places or taps):
            return None
        axis = _bordered(walks, border, *places[:1] or [None], *taps[:1] or [None])
        if axis is None or any(i in columns for i in places):
            return None
        if places:
            columns[places[0]] = axis
        else:
            alone.append(axis)
    taken = {axis.walk for axis in (*columns.values(), *alone)}
    free = [i for i in range(len(walks.depths)) if i not in taken]
    for i in reversed(range(len(walks.columns))):
        if i not in columns:
            columns[i] = _paired(walks, i, free)
    axes = [*alone, *(columns[i] for i in range(len(walks.columns)))]
    if len({a.walk for a in axes if a.walk is not None}) < sum(a.walk is not None for a in axes):
        return None
    return axes if len(axes) > 1 else [_Axis(1), *axes]


def _bordered(walks: Walks, border: Border, column: int | None, depth: int | None) -> _Axis | None:
    places = Walk(1, 0) if column is None else walks.columns[column]
    taps = Walk(1, 0) if depth is None else walks.depths[depth]
    stride = 0 if column is None else border.columns[column]
    dilation = 0 if depth is None else border.depths[depth]
    scale = gcd(stride, dilation)
    stride, dilation = stride // scale, dilation // scale
    unit = places.stride // stride if stride else taps.stride // dilation
    if (
        min(stride, dilation) < 0
        or unit * stride != places.stride
        or unit * dilation != taps.stride
    ):
        return None
    edge = border.extent, border.start, scale
    return _Axis(places.extent, stride or 1, dilation, taps.extent, unit, depth, edge)


def _paired(walks: Walks, column: int, free: list[int]) -> _Axis:
    """Return the axis of a walk of places, and take its taps from the ``free`` walks."""
    places = walks.columns[column]
    best, found = 8.0, None
    for i in free:
        step = walks.depths[i].stride
        if places.stride * step > 0:
            unlike = max(places.stride / step, step / places.stride)
            if unlike < best:
                best, found = unlike, i
    if found is None:
        return _Axis(places.extent, unit=places.stride)
    free.remove(found)
    taps = walks.depths[found]
    unit = gcd(places.stride, taps.stride) * (1 if places.stride > 0 else -1)
    return _Axis(
        places.extent, places.stride // unit, taps.stride // unit, taps.extent, unit, found
    )


def _sums(parts: list[list[int]]) -> list[int]:
    """Return the sums of one number of each part, in C order."""
    return [sum(numbers) for numbers in product(*parts)]
