"""What kernels do not compute is what docs/numerics.md says: every op, every dtype, planned."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import op_convolution  # noqa: F401 (adds cases)
import op_structured  # noqa: F401 (adds cases)
from op_cases import TESTED, Case, cases

from tracejit.errors import DTypeError
from tracejit.ops.table import OPS
from tracejit.runtime import engine
from tracejit.schedule.steps import OpaqueStep

DOC = Path(__file__).parents[1] / "docs" / "numerics.md"
MARKS = "<!-- numpy: begin -->\n", "<!-- numpy: end -->"
SINGLE, HALF = np.dtype(np.float32), np.dtype(np.float16)


def kinds_of_operands(name: str) -> Iterator[Case]:
    """Yield a case for each combination of dtypes and attributes, and float16 for float32."""
    seen: set[object] = set()
    for case in cases(name):
        if any(a.size == 0 for a in case.arrays):
            continue
        forms = [case]
        if any(a.dtype == SINGLE for a in case.arrays):
            with np.errstate(over="ignore"):
                halves = [a.astype(HALF) if a.dtype == SINGLE else a for a in case.arrays]
            forms.append(replace(case, arrays=tuple(halves)))
        for form in forms:
            strings = tuple(v for v in form.attrs.values() if isinstance(v, str))
            key = (*(a.dtype for a in form.arrays), *form.attrs, *strings)
            if key not in seen:
                seen.add(key)
                yield form


def through_numpy() -> dict[str, set[str]]:
    """Return the ops of opaque steps, each with the dtypes of its first operands."""
    found: dict[str, set[str]] = defaultdict(set)
    for name in TESTED:
        for case in kinds_of_operands(name):
            try:
                graph = case.graph()
            except DTypeError:  # no float16 for this row
                continue
            schedule = engine.plan_graph(graph, [None] * len(case.arrays))
            for step in schedule.steps:
                if isinstance(step, OpaqueStep):
                    operands = step.node.inputs
                    found[step.node.op.name].add(operands[0].dtype.name if operands else "")
    return found


def table() -> str:
    """Return the table of the page: one line for each set of dtypes, with its ops."""
    everything = through_numpy()
    by_dtypes: dict[str, list[str]] = defaultdict(list)
    for name, dtypes in sorted(everything.items()):
        some = bool(dtypes & {"float16", "complex128"}) and not dtypes & {"float32", "int32"}
        key = ", ".join(sorted(dtypes)) if some else OPS[name].family.value
        by_dtypes[key].append(name)
    lines = ["| which | ops |", "| --- | --- |"]
    for key, names in sorted(by_dtypes.items()):
        lines.append(f"| {key} | {', '.join(f'`{n}`' for n in names)} |")
    return "\n".join(lines) + "\n"


def test_what_runs_through_numpy_is_documented() -> None:
    text, (begin, end) = DOC.read_text(), MARKS
    found = re.search(f"{begin}(.*){end}", text, re.DOTALL)
    assert found is not None
    assert found[1].strip() == table().strip()
