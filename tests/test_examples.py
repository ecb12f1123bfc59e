"""The examples in docstrings of public names run, and give what they show."""

from __future__ import annotations

import doctest
import types
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tracejit as tj

SPACES = [tj, tj.errors, tj.fft, tj.linalg, tj.nn, tj.profiler, tj.random]


def documented() -> Iterator[doctest.DocTest]:
    """Yield the examples of each public function, class and method, once."""
    finder = doctest.DocTestFinder(recurse=False)
    seen: set[int] = set()
    for space in SPACES:
        for name in dir(space):
            value: Any = getattr(space, name)
            if isinstance(value, types.ModuleType) or id(value) in seen:
                continue
            seen.add(id(value))
            inner = vars(value).values() if isinstance(value, type) else ()
            for part in (value, *inner):
                if ">>>" in (getattr(part, "__doc__", None) or ""):
                    label = f"{space.__name__}.{name}"
                    yield from finder.find(part, label, module=False, globs={"np": np, "tj": tj})


@pytest.mark.parametrize("example", [*documented()], ids=lambda example: example.name)
def test_examples_of_public_names(example: doctest.DocTest) -> None:
    said: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(example, out=said.append).failed
    assert not failed, "".join(said)


def test_a_star_import_brings_public_names_alone() -> None:
    names: dict[str, Any] = {}
    exec("from tracejit import *", names)
    brought = set(names) - {"__builtins__"}
    assert not {name for name in brought if name.startswith("_")}
    assert {"jit", "load", "Tensor", "sum", "linalg", "float32"} <= brought
