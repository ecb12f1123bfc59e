"""``tracejit tune``: what to measure, and its report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from tracejit.codegen.target import BY_RULE, Blocking
from tracejit.errors import UnsupportedError, ValueArgumentError
from tracejit.runtime import cpu, tuner, tuning
from tracejit.runtime.tuner import Program, Shape
from tracejit.schedule.schedule import ContractionStep
from tracejit.viz import command
from tracejit.viz.arguments import parse

# Products of every kind that is cut in its own way: small ones, wide ones, deep ones, large ones.
SHAPES: tuple[Shape, ...] = (
    (96, 96, 96), (128, 128, 128), (256, 256, 256), (512, 512, 512), (1024, 1024, 1024),
    (64, 1024, 1024), (512, 768, 3072),
)  # fmt: skip
DTYPES = ("float32", "float64")


def shape_of(text: str) -> Shape:
    """Read ``512`` or ``64x10x128`` (m × n × k). Raises ValueArgumentError."""
    if re.fullmatch(r"\d+(x\d+x\d+)?", text):
        numbers = [int(part) for part in text.split("x")]
        m, n, k = numbers if len(numbers) == 3 else numbers * 3
        if min(m, n, k) > 0:
            return m, n, k
    raise ValueArgumentError(
        f"--shape {text} is no size of a product", hint="write n, or m x n x k: --shape 64x10x128"
    )


def dtype_of(text: str) -> str:
    """Read the name of a dtype whose products are cut. Raises ValueArgumentError."""
    if text not in DTYPES:
        raise ValueArgumentError(
            f"products of {text} are not tuned", hint=f"one of {', '.join(DTYPES)}"
        )
    return text


def programs(
    function: str | None, inputs: Iterable[str], shapes: Sequence[str], dtypes: Sequence[str]
) -> list[Program]:
    """Return what to time: the products of a program or function, or those of given sizes.

    Raises UnsupportedError where there is no product, and what ``command.subject`` raises.
    """
    if function is None:
        wanted = [shape_of(s) for s in shapes] or SHAPES
        return [
            tuner.product(s, dtype) for dtype in map(dtype_of, dtypes or DTYPES) for s in wanted
        ]
    found = command.subject(function, parse(inputs)).figures
    kept = [
        tuner.on_examples(figure.title, figure.executable.schedule)
        for figure in found
        if any(isinstance(s, ContractionStep) for s in figure.executable.schedule.steps)
    ]
    if not kept:
        raise UnsupportedError(
            f"{function} has no matrix product", hint="only how products are cut is measured"
        )
    return kept


def tune(chosen: Sequence[Program], seconds: float) -> None:
    """Measure, print each trial, and keep what was fastest. Raises as ``tuning.keep`` does."""
    console, target = Console(), cpu.target()
    console.print(f"{target.name}: {', '.join(p.name for p in chosen)}")
    for found in tuner.search(chosen, target, seconds):
        if isinstance(found, tuning.Tuned):
            place = tuning.keep(target.name, found, cpu.host())
            console.print(f"{found.gain:.2f} times as fast as before; kept in {place}")
        else:
            taken = ", taken" if found.taken else ""
            console.print(f"  {found.knob} = {found.value}: {found.gain:.3f}{taken}")


def show() -> None:
    """Print what was measured on this processor, beside the rules."""
    console, kept = Console(), tuning.stored(cpu.host())
    if not kept:
        console.print("nothing measured with this code: products are cut by rule (tracejit tune)")
        return
    table = Table(box=None)
    for column in ("", "by rule", *kept):
        table.add_column(column, justify="left" if not column else "right")
    for name in Blocking._fields:
        own = (str(getattr(tuned.blocking, name)) for tuned in kept.values())
        table.add_row(name, str(getattr(BY_RULE, name)), *own)
    table.add_row("gain", "", *(f"{tuned.gain:.2f}" for tuned in kept.values()))
    console.print(table)
    console.print(str(tuning.path(cpu.host())))


def reset() -> None:
    """Remove what was measured on this processor."""
    removed = tuning.reset(cpu.host())
    Console().print("removed: products are cut by rule" if removed else "there was nothing")
