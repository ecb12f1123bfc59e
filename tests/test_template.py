"""Templates of IR: holes, and loops that nest, leave early and carry what they counted."""

from __future__ import annotations

import ctypes

import pytest

from tracejit.codegen import template
from tracejit.codegen.target import LEVELS
from tracejit.errors import InternalError
from tracejit.runtime.service import Service

# The sum of i · j over i below n and j between i and n, or −1 once it is more than {MOST}.
SUM = """
define i64 @f(i64 %n) {
entry:
  %sum = alloca i64
  store i64 0, ptr %sum
  for 0 <= %i < %n
  for %i <= %j < %n
  %product = mul i64 %i, %j
  %before = load i64, ptr %sum
  %after = add i64 %before, %product
  store i64 %after, ptr %sum
  %much = icmp sgt i64 %after, {MOST}
  br i1 %much, label %stop, label %j.next
  next %j
  br label %i.next
  next %i
  %result = load i64, ptr %sum
  ret i64 %result
stop:
  ret i64 -1
}
"""


def test_loops_count_nest_and_leave_early() -> None:
    text = template.fill(SUM, {"MOST": 5000})
    code = Service().obtain(text, lambda: text, "f", LEVELS["generic"])
    f = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(code.address)
    for n in (-1, 0, 1, 2, 9):
        assert f(n) == sum(i * j for i in range(n) for j in range(i, n))
    assert f(100) == -1


def test_a_hole_that_nothing_fills_is_a_bug() -> None:
    assert template.fill("{i64, i1} {A}", {"A": 1}) == "{i64, i1} 1"
    with pytest.raises(InternalError, match="MOST"):
        template.fill(SUM, {})
