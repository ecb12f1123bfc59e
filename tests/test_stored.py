"""Plans on disk: found again they run what they ran, and nothing is planned for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit import config
from tracejit.errors import InternalError
from tracejit.record import replace
from tracejit.runtime import cache, cpu, engine, stored
from tracejit.runtime import code as codes
from tracejit.schedule.text import schedule_text

RNG = np.random.default_rng(11)
X = RNG.standard_normal((33, 17)).astype(np.float32)
W = RNG.standard_normal((17, 20)).astype(np.float32)
SERIES = RNG.standard_normal((3, 20_000))
PLACES = np.array([[0, -1, 5], [32, 7, 7]])


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def several(x: Any) -> Any:
    return {"sum": x.sum(axis=0), "both": (x * 0.3 + 1, x.max())}


def layer(x: Any, w: Any) -> Any:
    return np.maximum(x @ w + 0.5, 0)


def rows_of_a_product(x: Any, w: Any) -> Any:
    return softmax(x @ w)


def attention(x: Any) -> Any:
    return tj.attention(x, x * 2, x + 1)


def image(x: Any) -> Any:
    return tj.conv2d(x[None, None], np.float32(0.5) + x[None, None, :3, :3], padding=1)


def sweeps(x: Any) -> Any:
    for _ in range(4):
        x[1:-1, 1:-1] = 0.25 * (x[:-2, 1:-1] + x[2:, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:])
    return x


def taken(x: Any, places: Any) -> Any:
    return x[places] + 1


def turned(x: Any) -> Any:
    return np.sqrt(np.abs(x.T)) + x.T * x.T


def scanned(x: Any) -> Any:
    return np.cumsum(x, axis=1)


def nan_of_its_own(x: Any) -> Any:
    return np.where(x > 0, x, np.float32(np.nan)) * np.float32(-0.0)


CASES: list[tuple[Callable[..., Any], list[Any]]] = [
    (softmax, [X]), (softmax, [X.astype(float)[:, ::2]]), (several, [X]), (layer, [X, W]),
    (layer, [X[:0], W]), (rows_of_a_product, [X, W]), (attention, [X]), (image, [X]),
    (sweeps, [X.copy()]), (taken, [X, PLACES]), (turned, [X]), (turned, [X[::3, 1:]]),
    (scanned, [SERIES]), (nan_of_its_own, [X]), (np.hypot, [X, 2.5]), (several, [X[:1, :1]]),
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "cache"
    with config.override(cache_dir=path, disk_cache=1 << 28):
        yield path


def plans() -> list[cache.Stored]:
    return [s for s in cache.disk().entries() if s.entry and s.entry.symbol == "plan"]


def copies(arguments: list[Any]) -> list[Any]:
    return [a.copy(order="K") if isinstance(a, np.ndarray) else a for a in arguments]


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("this was planned")


def called(function: Callable[..., Any], arguments: list[Any]) -> tuple[Any, Any]:
    """Return what a new process would get, and the executable that made it."""
    codes.clear()
    compiled = tj.jit(function, compile="now")
    given = copies(arguments)
    result = compiled(*given), given
    (form,) = compiled._compiled.values()
    assert form.executable is not None, compiled.stats()
    return result, form.executable


def leaves(value: Any) -> Iterator[np.ndarray[Any, Any]]:
    if isinstance(value, dict):
        value = list(value.values())  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if isinstance(value, list | tuple):
        for part in value:  # pyright: ignore[reportUnknownVariableType]
            yield from leaves(part)
    else:
        yield np.asarray(value)


@pytest.mark.parametrize(("function", "arguments"), CASES)
def test_a_plan_from_disk_runs_what_was_planned(
    function: Callable[..., Any], arguments: list[Any], folder: Path, monkeypatch: Any, level: str
) -> None:
    wanted, planned = called(function, arguments)
    with monkeypatch.context() as context:
        context.setattr(engine, "plan_graph", refuse)
        found, restored = called(function, arguments)
    assert restored is not planned
    for a, b in zip(leaves(wanted), leaves(found), strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    # What people ask for, and what specialised code is made of, is there all the same.
    assert schedule_text(restored.schedule) == schedule_text(planned.schedule)
    for mine, other in zip(restored.calls, planned.calls, strict=True):
        assert (mine.kernel.key, mine.loops) == (other.kernel.key, other.loops)
        assert mine.code.text == other.code.text


def test_positions_out_of_range_are_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called(taken, [X, PLACES])
    with monkeypatch.context() as context:
        context.setattr(engine, "plan_graph", refuse)
        codes.clear()
        compiled = tj.jit(taken, compile="now")
        compiled(X, PLACES)
    with pytest.raises(IndexError):
        compiled(X, PLACES + 30)


def test_only_plans_of_kernels_alone_are_kept(folder: Path) -> None:
    table = X.copy()
    called(lambda x: x + table, [X])  # holds an array
    called(lambda x: np.linalg.inv(x @ x.T + 1), [X])  # runs NumPy
    assert not plans()
    called(softmax, [X])
    assert len(plans()) == 1
    called(softmax, [X])
    assert len(plans()) == 1


def test_whatever_decides_a_plan_is_part_of_its_name(folder: Path) -> None:
    graph, target = tj.trace(softmax, X).source, cpu.target()
    problem = stored.Problem(graph, (None,), target, 2, False)
    names = {
        problem.name(),
        problem._replace(layouts=((34, 2),)).name(),
        problem._replace(level=3).name(),
        problem._replace(fast_math=True).name(),
        problem._replace(target=replace(target, l2_bytes=target.l2_bytes * 2)).name(),
        problem._replace(graph=tj.trace(softmax, X[:, 1:]).source).name(),
        problem._replace(graph=tj.trace(lambda x: softmax(x) * 2.0, X).source).name(),
        problem._replace(graph=tj.trace(lambda x: softmax(x) * 3.0, X).source).name(),
    }
    assert len(names) == 8
    assert None not in names
    assert problem.name() == problem._replace(graph=tj.trace(softmax, X).source).name()


def test_a_plan_that_is_not_planned_any_more_says_so(folder: Path) -> None:
    graph = tj.trace(softmax, X).source
    planned = stored.Planned(stored.Problem(graph, (None,), cpu.target(), 2, False))
    assert planned.kernel(0).key
    with pytest.raises(InternalError, match="the plan on disk of max subtract exp") as raised:
        planned.text("a structure of another planner")
    assert "tracejit cache clear" in str(raised.value)
    with pytest.raises(InternalError, match="not what is planned"):
        planned.kernel(7)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda b: b"",
        lambda b: b[: len(b) // 2],
        lambda b: b.replace(b" ", b"  "),
        lambda b: b.replace(b"float32", b"floating").replace(b"<f4", b"<q9"),
        lambda b: b"\xff" + b,
        lambda b: b.partition(b"\0")[0],
        lambda b: b.partition(b"\n")[2],
    ],
)
def test_a_whole_entry_that_makes_no_sense_is_dropped(
    spoil: Callable[[bytes], bytes], folder: Path
) -> None:
    wanted, _ = called(softmax, [X])
    (plan,) = plans()
    assert plan.entry is not None
    cache.disk().store(plan.name, plan.entry._replace(image=spoil(plan.entry.image)))
    found, _ = called(softmax, [X])
    assert next(leaves(found)).tobytes() == next(leaves(wanted)).tobytes()
    (again,) = plans()  # planned and kept anew
    assert again.entry == plan.entry


def test_a_plan_whose_code_is_gone_is_planned(folder: Path) -> None:
    wanted, _ = called(softmax, [X])
    for entry in cache.disk().entries():
        if entry.entry and entry.entry.symbol != "plan":
            cache.disk().drop(entry.name)
    found, executable = called(softmax, [X])
    assert executable.fresh == 1
    assert next(leaves(found)).tobytes() == next(leaves(wanted)).tobytes()
