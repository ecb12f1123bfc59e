"""Records mean what ``dataclasses`` means by the same arguments."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from functools import cached_property
from typing import Any

import pytest

from tracejit.record import as_dict, field, fields, record, replace


@record(frozen=True, slots=True)
class Point:
    x: float
    y: float = 0.0
    tags: list[str] = field(default_factory=list[str], hash=False)


@record(frozen=True, slots=True)
class Named(Point):
    name: str = "here"


@record
class Counter:
    count: int = 0
    hidden: int = field(default_factory=int, repr=False)

    def __post_init__(self) -> None:
        self.hidden += 1


@record(frozen=True)
class Lazy:
    parts: tuple[Point, ...]

    @cached_property
    def total(self) -> float:
        return sum(part.x for part in self.parts)


def test_arguments_by_position_and_name_and_defaults() -> None:
    made = Named(1.0, name="there")
    assert (made.x, made.y, made.tags, made.name) == (1.0, 0.0, [], "there")
    assert Point(1).tags is not Point(1).tags
    assert Counter().hidden == 1
    assert Lazy((Point(1.0), Point(2.0))).total == 3.0
    for wrong in ((), (1, 2, 3, 4)):
        with pytest.raises(TypeError, match=r"Point.__init__\(\)"):
            Point(*wrong)  # pyright: ignore[reportArgumentType]
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        Point(1, z=2)  # pyright: ignore[reportCallIssue]


def test_equality_is_by_class_and_fields_and_frozen_ones_hash() -> None:
    assert Point(1.0) == Point(1.0) != Point(2.0)
    assert Point(1.0) != Named(1.0)
    assert hash(Point(1.0, tags=["a"])) == hash(Point(1.0, tags=["b"]))
    nan = float("nan")
    assert Lazy((Point(nan),)) == Lazy((Point(nan),))  # identity comes first, as in tuples
    with pytest.raises(TypeError, match="unhashable"):
        hash(Counter())


def test_frozen_records_refuse_assignment_and_slots_new_names() -> None:
    for name in ("x", "other"):
        with pytest.raises(AttributeError, match="does not change"):
            setattr(Point(1.0), name, 2.0)
    with pytest.raises(AttributeError, match="does not change"):
        del Lazy(()).parts  # pyright: ignore[reportAttributeAccessIssue]
    assert not hasattr(Point(1.0), "__dict__")

    @record(eq=False, slots=True, weakref_slot=True)
    class Plain:
        value: int

    plain = Plain(1)
    plain.value = 2
    assert plain != Plain(2)
    assert isinstance(hash(plain), int)
    seen = weakref.ref(plain)
    del plain
    gc.collect()
    assert seen() is None


def test_text_fields_copies_and_dicts() -> None:
    assert repr(Named(1.0)) == "Named(x=1.0, y=0.0, tags=[], name='here')"
    assert repr(Counter(3)) == "Counter(count=3)"
    assert fields(Named) == fields(Named(1.0)) == ("x", "y", "tags", "name")
    assert replace(Named(1.0), y=2.0) == Named(1.0, 2.0)
    assert as_dict(Lazy((Point(1.0),))) == {"parts": ({"x": 1.0, "y": 0.0, "tags": []},)}
    match Named(4.0, 5.0):
        case Point(x, y):
            assert (x, y) == (4.0, 5.0)


def test_methods_of_the_class_are_kept() -> None:
    @record(frozen=True)
    class Own:
        value: Any

        def __eq__(self, other: object) -> bool:
            return True

        def __repr__(self) -> str:
            return "own"

    @dataclasses.dataclass(frozen=True)
    class Standard:
        value: Any

        def __eq__(self, other: object) -> bool:
            return True

    assert Own(1) == Own(2)
    assert repr(Own(1)) == "own"
    assert hash(Own(1)) == hash(Standard(1))
