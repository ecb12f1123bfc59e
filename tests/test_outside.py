"""What a function reads from outside: changed values are noticed, by native calls as well."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from entries import native_calls

import tracejit as tj
from tracejit.errors import RecompileError
from tracejit.frontend import outside
from tracejit.frontend.jitted import Jitted
from tracejit.runtime import watches
from tracejit.runtime.watches import ABSENT, Place

pytestmark = pytest.mark.counts_native
X = np.arange(12, dtype=np.float32)

# Run as a module of its own, whose globals the tests change.
MODULE = """
import numpy as np

RATE, FLAG, NAME, W = 0.5, True, "tanh", np.ones(12, np.float32)
TABLE = {"rate": 2.0, "inner": {"rate": 3.0}}

class Settings:
    size = 4.0

    def __init__(self):
        self.rate = 1.5

    @property
    def double(self):
        return 2 * self.rate

    def scaled(self, x):
        return x * self.rate

    def __call__(self, x):
        return x + self.rate

settings = Settings()

def helper(x):
    return x * RATE

number = lambda x: x * RATE
boolean = lambda x: x + 1 if FLAG else x - 1
text = lambda x: getattr(np, NAME)(x)
rare = lambda x: np.cbrt(getattr(np, NAME)(np.cbrt(x)))  # code that no other test needs
array = lambda x: x + W
item = lambda x: x * TABLE["rate"]
nested = lambda x: x * TABLE["inner"]["rate"]
attribute = lambda x: x * settings.rate
of_class = lambda x: x * Settings.size
inherited = lambda x: x * settings.size
computed = lambda x: x * settings.double
method = lambda x: settings.scaled(x)
called = lambda x: settings(x)
through = lambda x: helper(x) - 1
inner = lambda x: [x * RATE for _ in range(1)][0]
"""


@pytest.fixture
def module() -> Iterator[Any]:
    made = ModuleType("outside_of_a_test")
    made.__dict__["__file__"] = "outside_of_a_test.py"
    exec(MODULE, vars(made))
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


def jitted(function: Callable[..., Any]) -> Jitted:
    made = tj.jit(function, compile="now")
    assert isinstance(made, Jitted)
    return made


def check(f: Jitted, function: Callable[..., Any]) -> None:
    """Calls are right, and native from the third on."""
    for _ in range(3):
        before = native_calls(f)
        np.testing.assert_allclose(f(X), function(X), rtol=1e-6)
    if f._surroundings.told:
        assert native_calls(f) == before + 1  # pyright: ignore[reportPossiblyUnboundVariable]


def set_rate(m: Any) -> None:
    m.RATE = 0.25


def set_function(m: Any) -> None:
    m.helper = lambda x: x + 7


CHANGES: list[tuple[str, Callable[[Any], object], str]] = [
    ("number", set_rate, "RATE is 0.25, was 0.5"),
    ("boolean", lambda m: setattr(m, "FLAG", False), "FLAG is False, was True"),
    ("text", lambda m: setattr(m, "NAME", "exp"), "NAME is 'exp', was 'tanh'"),
    ("array", lambda m: setattr(m, "W", m.W + 1), "another float32[12]"),
    ("item", lambda m: m.TABLE.update(rate=5.0), "TABLE['rate'] is 5.0, was 2.0"),
    ("nested", lambda m: m.TABLE["inner"].update(rate=5.0), "TABLE['inner']['rate'] is 5.0"),
    ("nested", lambda m: m.TABLE.update(inner={"rate": 9.0}), "TABLE['inner']"),
    ("attribute", lambda m: setattr(m.settings, "rate", 0.0), "settings.rate is 0.0, was 1.5"),
    ("attribute", lambda m: setattr(m, "settings", m.Settings()), "another Settings"),
    ("of_class", lambda m: setattr(m.Settings, "size", 8.0), "Settings.size is 8.0, was 4.0"),
    ("inherited", lambda m: setattr(m.Settings, "size", 8.0), "settings.size is 8.0, was 4.0"),
    ("inherited", lambda m: setattr(m.settings, "size", 8.0), "settings.size is 8.0, was 4.0"),
    ("computed", lambda m: setattr(m.settings, "rate", 4.0), "self.rate is 4.0, was 1.5"),
    ("method", lambda m: setattr(m.settings, "rate", 4.0), "self.rate is 4.0, was 1.5"),
    ("called", lambda m: setattr(m.settings, "rate", 4.0), "self.rate is 4.0, was 1.5"),
    ("through", set_rate, "RATE is 0.25, was 0.5"),
    ("through", set_function, "helper is another"),
    ("inner", set_rate, "RATE is 0.25, was 0.5"),
]


@pytest.mark.parametrize(("name", "change", "told"), CHANGES)
def test_a_change_is_noticed(
    module: Any, name: str, change: Callable[[Any], object], told: str
) -> None:
    function = getattr(module, name)
    f = jitted(function)
    check(f, function)
    change(module)
    check(f, function)
    stats = f.stats()
    assert stats["guard_failures"] == {"changed outside": 1}
    assert stats["compiles"] == 2
    assert told in str(tj.explain(f, X))


def test_closures_partials_and_other_modules_are_watched(module: Any) -> None:
    rate = 2.0

    def closed(x: Any) -> Any:
        return x * rate + module.RATE

    def scaled(scale: Any, x: Any) -> Any:
        return x * rate

    for function in (closed, partial(scaled, None)):
        f = jitted(function)
        check(f, function)
        rate += 1
        check(f, function)
        assert f.stats()["compiles"] == 2
    module.RATE = 9.0
    f = jitted(closed)
    check(f, closed)
    module.RATE = 10.0
    check(f, closed)


def test_values_that_come_back_are_not_traced_again(module: Any) -> None:
    f = jitted(module.boolean)
    for n in range(8):
        module.FLAG = n % 2 == 0
        check(f, module.boolean)
    assert f.stats()["compiles"] == 2
    assert f.stats()["calls"] == 24


def test_switches_beside_functions_and_tables_come_back(module: Any) -> None:
    f = jitted(lambda x: module.through(x) + module.item(x))
    for n in range(8):
        module.RATE = float(n % 2) + 0.5
        check(f, f.__wrapped__)
    assert f.stats()["compiles"] == 2


def test_equal_values_are_not_traced_again(module: Any) -> None:
    f = jitted(module.number)
    for _ in range(4):
        module.RATE = float("0.5")
        check(f, module.number)
    assert f.stats()["compiles"] == 1
    module.RATE = 0.0
    check(f, module.number)
    module.RATE = -0.0
    assert np.signbit(f(X + 1)).all()


def test_the_table_of_globals_may_grow_and_lose_names(module: Any) -> None:
    f = jitted(module.number)
    check(f, module.number)
    for count in (10, 100, 1000):
        vars(module).update({f"name{n}": n for n in range(count)})
        check(f, module.number)
    for n in range(1000):
        delattr(module, f"name{n}")
    del module.RATE
    with pytest.raises(NameError, match="RATE"):
        f(X)
    module.RATE = 4.0
    check(f, module.number)


def changing(f: Jitted, module: Any, name: str, values: list[Any]) -> None:
    for value in values:
        setattr(module, name, value)
        np.testing.assert_allclose(f(X), getattr(module, f.__name__)(X))


def test_what_was_replaced_is_not_kept_alive(module: Any) -> None:
    module.array.__name__, module.number.__name__ = "array", "number"
    f, g = jitted(module.array), jitted(module.number)
    arrays = [np.full(12, n, np.float32) for n in range(40)]
    with pytest.warns(RuntimeWarning, match="array reads W, which has changed often"):
        changing(f, module, "W", arrays)
    assert len(f._compiled) == len(f._families) == 1
    assert f.stats()["compiles"] == 40
    with pytest.warns(RuntimeWarning, match="number reads RATE, which has changed often"):
        changing(g, module, "RATE", [n + 0.25 for n in range(40)])
    assert len(g._compiled) == outside.OUTSIDES_KEPT + 1


def test_plans_for_ranges_of_sizes_are_of_their_values(module: Any) -> None:
    f = jitted(module.number)
    for rate in (0.5, 0.75, 0.5):
        module.RATE = rate
        for n in range(2, 12):
            np.testing.assert_allclose(f(X[:n].copy()), X[:n] * rate)
    assert f.stats()["compiles"] <= 6


def test_a_stance_against_recompiling_names_what_changed(module: Any) -> None:
    f, g = jitted(module.number), jitted(module.rare)
    f(X)
    g(X)
    module.RATE, module.NAME = 0.125, "arctan"
    with tj.set_stance("fail_on_recompile"):
        # The kernel takes the number as an argument: nothing has to be compiled.
        np.testing.assert_allclose(f(X), X * 0.125)
        with pytest.raises(RecompileError, match="NAME is 'arctan', was 'tanh'"):
            g(X)


def test_names_that_libraries_own_are_not_watched() -> None:
    def f(x: Any) -> Any:
        return np.sqrt(x) * np.pi + tj.exp(x) + len(x.shape)

    assert outside.look(f).watches == []


def test_reads_are_those_of_the_code() -> None:
    table = {"a": {"b": 1}}

    def f(self: Any, x: Any) -> Any:
        y = [table["a"]["b"] for _ in x]
        return X.size.real, self.part.whole, y, table.get("a")

    assert set(outside.reads(f.__code__)) == {
        outside.Read("global", "X", ((True, "size"), (True, "real"))),
        outside.Read("first", "self", ((True, "part"), (True, "whole"))),
        outside.Read("cell", "table", ((False, "a"), (False, "b"))),
        outside.Read("cell", "table", ((True, "get"),)),
    }


class Slotted:
    __slots__ = ("rate",)


class Answering:
    def __getattr__(self, name: str) -> float:
        return 2.0


@pytest.mark.parametrize("owner", [Slotted(), Answering()])
def test_attributes_that_no_dict_decides_are_left_alone(owner: Any) -> None:
    owner.rate = 3.0

    def f(x: Any) -> Any:
        return x * owner.rate

    labels = [w.label for w in outside.look(f).watches]
    assert labels == (["owner"] if isinstance(owner, Slotted) else ["owner", "owner.rate"])
    np.testing.assert_array_equal(jitted(f)(X), X * 3)


def holds(table: Any) -> bool:
    count, rows = int(table[0]), table[1:].reshape(-1, 3).tolist()
    assert count == len(rows)
    return watches._hold(rows)


def test_rows_hold_until_something_changes() -> None:
    mixed: dict[Any, Any] = {1: 2, "a": 3.5}  # a table of another kind
    for holder in ({"a": 3.5, "b": 1}, mixed, vars(Settings())):
        place = Place(holder, "a")
        table = watches.table_of([(place, holder["a"])])
        absent = watches.table_of([(Place(holder, "z"), ABSENT)])
        assert table is not None
        assert absent is not None
        assert holds(table)
        assert holds(absent)
        holder["z"] = 1
        assert not holds(absent)
        holder["a"] = 4.5
        assert not holds(table)
    assert watches.table_of([(Place({"a": 1}, "b"), 1)]) is None


class Settings:
    def __init__(self) -> None:
        self.a, self.b = 3.5, 1


def test_without_a_known_layout_python_looks(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "table_of", lambda places: None)
    f = jitted(module.number)
    check(f, module.number)
    module.RATE = 0.25
    check(f, module.number)
    assert native_calls(f) == 0
