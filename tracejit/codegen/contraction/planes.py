"""The image under a convolution, as its kernel keeps it: padded, by phases.

Along an axis the window at place o has its tap t at element q = s·o + d·t of the image, stride s
and dilation d. The elements whose q leaves the same rest by s, a *phase*, are kept side by side,
zeros where the image is padded. Then the elements under one tap at all places are neighbours:
place o finds its own at o + d·t div s in phase d·t mod s. So it is along every axis, and with the
lines of a plane behind each other one offset says where a tap is for every place at once.

The depths of the product are channels by taps. An axis may be *folded*: then each of its taps makes
channels of its own, whose planes have just what that tap reads.
"""

from __future__ import annotations

from collections.abc import Set
from itertools import combinations, product
from math import gcd, prod
from typing import NamedTuple

from tracejit.codegen.contraction.blocking import TILE
from tracejit.schedule.merged import Border, Walk, Walks

# Lines that a table describes, three numbers each.
MAX_LINES = 8192

# The table in ``sizes``; behind it the lines of places, the taps, the channels and the lines of
# their planes.
(
    CHANNELS, PHASES, VOLUME, OUTER, OUTER_PLACES, OUTER_PITCH, INNER_LINES, PITCH, STEP, WIDTH,
    LINES, SPAN, TAP_COUNT, TAPS, CHANNEL_TABLE, ROWS, FIRST_LINE,
) = range(17)  # fmt: skip


class Channel(NamedTuple):
    """What has planes of its own: the depth of its first tap, where in B it begins, and the number
    of the first of its planes' lines."""

    depth: int
    start: int
    rows: int


class Tap(NamedTuple):
    """How much deeper than the channel it is, the phase that it reads, and how far on in there."""

    depth: int
    phase: int
    shift: int


class Row(NamedTuple):
    """A line of a plane: where its first element would be, and the range of those that are there,
    from the start of its channel on; the others are zero."""

    offset: int
    start: int
    stop: int


class Planes(NamedTuple):
    """How elements of B are laid out before the product reads them.

    ``places`` and ``extents`` have, for each axis (two at least, the last one in vector lanes), how
    many windows there are and how many elements a plane has. The elements of a line are ``step``
    apart in memory. ``rows`` are the lines of all phases in order, for channels that have the same.
    Where ``split``, tile registers read them, as pairs of channels (``direct_tiles``).
    """

    places: tuple[int, ...]
    extents: tuple[int, ...]
    phases: int
    step: int
    channels: tuple[Channel, ...]
    taps: tuple[Tap, ...]
    rows: tuple[Row, ...]
    split: bool = False

    @property
    def planes(self) -> int:
        return len(self.channels) * self.phases

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

    def flat(self, height: int, lanes: int) -> int:
        """Return how many places are computed at ``height`` outermost ones: whole vectors."""
        return -(-((height - 1) * self.outer_pitch + self.span) // lanes) * lanes

    @property
    def more(self) -> int:
        """How many lines beyond those of its places a tile reads along the outermost axis."""
        return self.extents[0] - self.places[0]

    def pair_pitch(self, height: int) -> int:
        """Return how many elements the planes of pairs of channels are apart, of the lines for
        ``height`` outermost places and what tiles may read beyond. An odd number of cache lines:
        the rows of a tile are in as many planes."""
        elements = (height + self.more) * self.outer_pitch + 2 * TILE
        return TILE * (-(-elements // TILE) | 1)

    @property
    def blocks(self) -> int:
        """How many blocks of channels there are: a tile has a pair in each of its rows."""
        return -(-len(self.channels) // (2 * TILE))

    def offsets(self) -> tuple[int, ...]:
        """Return where place 0 finds its element of each depth, in planes behind each other."""
        volume = prod(self.extents)
        found = {
            channel.depth + tap.depth: (i * self.phases + tap.phase) * volume + tap.shift
            for i, channel in enumerate(self.channels)
            for tap in self.taps
        }
        return tuple(found[k] for k in range(len(found)))

    def table(self) -> tuple[int, ...]:
        """Return the numbers that the kernel reads."""
        inside = zip(self.places[1:-1], self._pitches()[1:-1], strict=True)
        lines = _sums([[i * pitch for i in range(n)] for n, pitch in inside])
        taps = [n for tap in self.taps for n in tap] if self.split else self.offsets()
        first = FIRST_LINE + len(lines)
        places = first, first + len(taps), first + len(taps) + 3 * len(self.channels)
        header = (
            len(self.channels), self.phases, prod(self.extents), self.extents[0], self.places[0],
            self.outer_pitch, prod(self.extents[1:-1]), self.extents[-1], self.step,
            self.places[-1], len(lines), self.span, len(self.taps), *places,
        )  # fmt: skip
        channels = (n for channel in self.channels for n in channel)
        return (*header, *lines, *taps, *channels, *(n for row in self.rows for n in row))


class _Axis(NamedTuple):
    """One axis of the image: ``places``, stride and dilation; element q is q·``unit`` on in memory
    and there where 0 ≤ start + scale·q < extent (``edge``); ``walk`` is the walk of its taps,
    ``folded`` whether these are channels. A place of an axis with a ``width`` is as many places of
    the last axis, which has ``whole`` of them altogether (``_in_lines``)."""

    places: int
    stride: int = 1
    dilation: int = 1
    taps: int = 1
    unit: int = 0
    walk: int | None = None
    edge: tuple[int, int, int] | None = None
    folded: bool = False
    width: int = 0
    whole: int = 0

    def phases(self, folded_tap: int) -> list[int]:
        """Return where its planes begin, those of one tap where it is folded."""
        if self.folded:
            return [self.dilation * folded_tap]
        return sorted({self.dilation * t % self.stride for t in range(self.taps)})

    @property
    def extent(self) -> int:
        if self.folded:
            return self.places
        return self.places + self.dilation * (self.taps - 1) // self.stride

    def tap(self, t: int) -> tuple[int, int]:
        """Return the number of a tap's phase, and how far on it is in there."""
        shift, phase = divmod(self.dilation * t, self.stride)
        return self.phases(0).index(phase), shift

    def inside(self, phase: int) -> range:
        """Return which elements are there of the plane that begins at ``phase``."""
        last = self.stride * (max(self.places, self.whole) - 1) + self.dilation * (self.taps - 1)
        low, high = 0, last
        if self.edge is not None:
            extent, start, scale = self.edge
            low = max(low, -(start // scale))
            high = min(high, (extent - 1 - start) // scale)
        first = -((phase - low) // self.stride)
        stop = min(self.extent, (high - phase) // self.stride + 1)
        return range(max(0, first), max(0, first, stop))


def planes_of(
    walks: Walks, folded: Set[int] = frozenset(), *, split: bool = False
) -> Planes | None:
    """Return the planes of what ``walks`` lead through, None where it is no image and windows.

    ``folded`` are walks of taps that are to be channels.
    """
    axes = _axes_of(walks)
    if axes is None:
        return None
    axes = [axis._replace(folded=axis.walk in folded) for axis in axes]
    taps = [axis.walk for axis in axes if axis.walk is not None and not axis.folded]
    channels = [i for i in range(len(walks.depths)) if i not in taps]
    extents = tuple(axis.extent for axis in axes)
    phases = prod(len(axis.phases(0)) for axis in axes)
    alike = prod(axis.taps for axis in axes if axis.folded)  # channels with different lines
    if phases * alike * prod(extents[:-1]) > MAX_LINES or _many(walks, channels):
        return None
    rows: list[Row] = []
    begins: dict[tuple[int, ...], int] = {}
    for tap in product(*(range(axis.taps if axis.folded else 1) for axis in axes)):
        begins[tap] = len(rows)
        lists = [axis.phases(t) for axis, t in zip(axes, tap, strict=True)]
        rows += (row for phase in product(*lists) for row in _rows(axes, phase, walks.start))
    return Planes(
        tuple(axis.places for axis in axes),
        extents,
        phases,
        axes[-1].unit * axes[-1].stride,
        tuple(_channels(walks, axes, channels, begins)),
        tuple(_taps(walks, axes, taps)),
        tuple(rows),
        split,
    )


class Shape(NamedTuple):
    """What planes would be like, with the walks ``folded`` of taps."""

    folded: frozenset[int]
    channels: int
    phases: int
    taps: int
    places: tuple[int, ...]
    extents: tuple[int, ...]


def shapes(walks: Walks) -> list[Shape]:
    """Return the shapes of all planes that there are for ``walks``: without, and with any axes
    folded; none where it is no image and windows."""
    axes = _axes_of(walks) or []
    walks_of_taps = [axis.walk for axis in axes if axis.walk is not None and axis.taps > 1]
    found: list[Shape] = []
    for count in range(len(walks_of_taps) + 1 if axes else 0):
        for folded in combinations(walks_of_taps, count):
            own = [axis._replace(folded=axis.walk in folded) for axis in axes]
            taps = prod(axis.taps for axis in own if not axis.folded)
            found.append(
                Shape(
                    frozenset(folded),
                    prod(walk.extent for walk in walks.depths) // taps,
                    prod(len(axis.phases(0)) for axis in own),
                    taps,
                    tuple(axis.places for axis in own),
                    tuple(axis.extent for axis in own),
                )
            )
    return found


def _many(walks: Walks, channels: list[int]) -> bool:
    return prod(walks.depths[w].extent for w in channels) > MAX_LINES


def _pitches(walks: Walks) -> list[int]:
    """Return how many depths a step along each walk of them is."""
    return [prod(w.extent for w in walks.depths[i + 1 :]) for i in range(len(walks.depths))]


def _channels(
    walks: Walks, axes: list[_Axis], channels: list[int], begins: dict[tuple[int, ...], int]
) -> list[Channel]:
    """Return the positions along the walks ``channels``; ``begins`` says where the lines are."""
    pitches, folded = _pitches(walks), {axis.walk for axis in axes if axis.folded}
    found: list[Channel] = []
    for place in product(*(range(walks.depths[w].extent) for w in channels)):
        at = dict(zip(channels, place, strict=True))
        found.append(
            Channel(
                sum(i * pitches[w] for w, i in at.items()),
                sum(i * walks.depths[w].stride for w, i in at.items() if w not in folded),
                begins[tuple(at[a.walk] if a.folded and a.walk is not None else 0 for a in axes)],
            )
        )
    return found


def _taps(walks: Walks, axes: list[_Axis], taps: list[int]) -> list[Tap]:
    pitches = _pitches(walks)
    found: list[Tap] = []
    for place in product(*(range(walks.depths[w].extent) for w in taps)):
        at: dict[int | None, int] = dict(zip(taps, place, strict=True))
        phase, offset = 0, 0
        for axis in axes:
            number, shift = (0, 0) if axis.folded else axis.tap(at.get(axis.walk, 0))
            phase = phase * len(axis.phases(0)) + number
            offset = offset * axis.extent + shift
        depth = sum(i * pitches[w] for w, i in zip(taps, place, strict=True))
        found.append(Tap(depth, phase, offset))
    return found


def _rows(axes: list[_Axis], phases: tuple[int, ...], start: int) -> list[Row]:
    """Return the lines of one plane."""
    *outer, last = axes
    insides = [axis.inside(phase) for axis, phase in zip(outer, phases[:-1], strict=True)]
    found: list[Row] = []
    for place in product(*(range(axis.extent) for axis in outer)):
        ahead = sum(i * axis.width for axis, i in zip(outer, place, strict=True)) * last.stride
        there = last.inside(phases[-1] + ahead)
        if there and all(i in inside for i, inside in zip(place, insides, strict=True)):
            places = zip(outer, phases[:-1], place, strict=True)
            offset = sum((phase + i * axis.stride) * axis.unit for axis, phase, i in places)
            begin = start + (phases[-1] + ahead) * last.unit
            found.append(Row(begin + offset, there.start, there.stop))
        else:
            found.append(Row(0, 0, 0))
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
    return axes if len(axes) > 1 else _in_lines(axes[0])


# Places from which on a single axis is cut into lines, and how many one has at least.
_LONG, _LINE = 512, 128


def _in_lines(axis: _Axis) -> list[_Axis]:
    """Return the axis with one before it: of equal parts that threads can share, where it is long
    and has any."""
    parts = axis.places // _LINE if axis.places >= _LONG else 1
    parts = next(n for n in range(parts, 0, -1) if axis.places % n == 0)
    width = axis.places // parts
    return [_Axis(parts, width=width), axis._replace(places=width, whole=axis.places)]


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
