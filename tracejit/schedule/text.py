"""Kernels and schedules as text: the loop nest as a person would write it.

kernel 0: max subtract exp sum divide  (softmax.py:3)
  parallel for i < 4096:
    for j < 1024 (vector):
      r1 = max(r1, a0[i, j])
    for j < 1024 (vector):
      t3 = exp(a0[i, j] - r1)
      …
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from tracejit.schedule.bands import Band
from tracejit.schedule.kernel import (
    SCRATCH,
    Apply,
    Attend,
    Block,
    Bound,
    Const,
    Contract,
    Expr,
    Gather,
    Index,
    Kernel,
    Load,
    Natural,
    Nest,
    Reduce,
    Scan,
    operands,
)
from tracejit.schedule.schedule import (
    BandStep,
    ContractionStep,
    KernelStep,
    OpaqueStep,
    Schedule,
    View,
    touched,
)

_INFIX = {
    "add": "+", "subtract": "-", "multiply": "*", "divide": "/", "less": "<", "greater": ">",
    "less_equal": "<=", "greater_equal": ">=", "equal": "==", "not_equal": "!=",
    "logical_and": "and", "logical_or": "or", "bitwise_and": "&", "bitwise_or": "|",
}  # fmt: skip
_AXES = "ijklmnopq"


class _Printer:
    def __init__(self, kernel: Kernel):
        self.kernel = kernel
        self.lines: list[str] = []
        self.known: dict[int, str] = {}
        self.uses: dict[int, int] = {}
        for expr in kernel.exprs:
            for below in operands(expr):
                self.uses[below] = self.uses.get(below, 0) + 1
        self.strips = {target: source for source, target in kernel.unpacks}
        for store in kernel.stores:
            for used in store.operands:
                self.uses[used] = self.uses.get(used, 0) + 1

    def text(self) -> list[str]:
        depth = 0
        for source, target in self.kernel.copies:
            self._line(depth, f"{self._place(target)} = {self._place(source)}  # copied first")
        for axis in self.kernel.parallel:
            vector = ", vector" if axis == self.kernel.vector_parallel else ""
            self._line(
                depth, f"for {_AXES[axis]} < {self.kernel.extents[axis]} (parallel{vector}):"
            )
            depth += 1
        for source, target in self.kernel.packs:
            self._line(
                depth, f"{self._place(target)} = {self._place(source)}  # for all inner axes"
            )
        self._block(self.kernel.block, depth)
        for source, target in self.kernel.unpacks:
            self._line(
                depth, f"{self._place(target)} = {self._place(source)}  # for all inner axes"
            )
        return self.lines

    def _line(self, depth: int, text: str) -> None:
        self.lines.append("  " * depth + text)

    def _block(self, block: Block, depth: int) -> None:
        for nest in block.nests:
            self._nest(nest, depth)
        for number in block.stores:
            store = self.kernel.stores[number]
            value = self._value(store.value, depth)
            beyond = [
                self._moved(self._value(p, depth), self._value(s, depth))
                for p, s in zip(store.places, store.steps, strict=True)
            ]
            place = self._place(self.strips.get(store.access, store.access), beyond)
            if store.op:
                value = self._applied(store.op, (place, value))
            self._line(depth, f"{place} = {value}")

    def _nest(self, nest: Nest, depth: int) -> None:
        before = dict(self.known)
        for kept in nest.reuses:
            self.known[kept.value] = self._place(kept.access)
        for number in nest.reduces:
            self._line(depth, f"r{number} = {self._op(number)}.identity")
        inner = depth
        for axis in nest.axes:
            vector = " (vector)" if axis == nest.vector else ""
            self._line(inner, f"for {_AXES[axis]} < {self.kernel.extents[axis]}{vector}:")
            inner += 1
        self._block(nest.body, inner)
        for kept in nest.saves:
            self._line(inner, f"{self._place(kept.access)} = {self._value(kept.value, inner)}")
        for number in nest.reduces:
            expr = self.kernel.exprs[number]
            assert isinstance(expr, Reduce)
            argument = self._value(expr.arg, inner)
            self._line(inner, f"r{number} = {expr.op}(r{number}, {argument})")
        self.known = before
        for number in nest.reduces:
            self.known[number] = f"r{number}"

    def _op(self, number: int) -> str:
        expr = self.kernel.exprs[number]
        return expr.op if isinstance(expr, Reduce) else ""

    def _place(self, access: int, beyond: Sequence[str] = ()) -> str:
        memory = self.kernel.accesses[access]
        name = "row" if memory.buffer == SCRATCH else f"b{memory.buffer}"
        parts = [
            _AXES[axis] if stride == 1 else f"{stride}*{_AXES[axis]}"
            for axis, stride in enumerate(memory.strides)
            if stride
        ]
        parts += [f"{s.jump}*({_AXES[s.axis]} >= {s.position})" for s in memory.seams]
        parts += beyond
        if memory.offset or not parts:
            parts.append(str(memory.offset))
        return f"{name}[{' + '.join(parts)}]"

    def _moved(self, place: str, step: str) -> str:
        return place if step == "1" else f"{step}*{place}"

    def _applied(self, op: str, arguments: Sequence[str], extra: Sequence[str] = ()) -> str:
        if op in _INFIX and len(arguments) == 2:
            return f"({arguments[0]} {_INFIX[op]} {arguments[1]})"
        return f"{op}({', '.join((*arguments, *extra))})"

    def _value(self, wanted: int, depth: int) -> str:
        """Return the text of a value; values used more than once get a line of their own."""
        stack = [wanted]
        while stack:
            position = stack[-1]
            missing = (
                [p for p in operands(self.kernel.exprs[position]) if p not in self.known]
                if position not in self.known
                else []
            )
            if missing:
                stack += missing
                continue
            stack.pop()
            if position in self.known:
                continue
            text = self._expression(self.kernel.exprs[position])
            if self.uses.get(position, 0) > 1 and isinstance(self.kernel.exprs[position], Apply):
                self._line(depth, f"t{position} = {text}")
                text = f"t{position}"
            self.known[position] = text if len(text) < 60 else self._named(position, text, depth)
        return self.known[wanted]

    def _named(self, position: int, text: str, depth: int) -> str:
        self._line(depth, f"t{position} = {text}")
        return f"t{position}"

    def _expression(self, expr: Expr) -> str:
        match expr:
            case Const():
                return f"{expr.value!r}"
            case Load():
                return self._place(expr.access)
            case Index():
                terms = [
                    _AXES[a] if c == 1 else f"{c}*{_AXES[a]}"
                    for a, c in enumerate(expr.coefficients)
                    if c
                ]
                return "(" + " + ".join([*terms, str(expr.offset)]) + ")"
            case Bound():
                return f"bound({self.known[expr.arg]}, {self.known[expr.extent]})"
            case Natural():
                return f"natural({self.known[expr.arg]})"
            case Gather():
                beyond = [
                    self._moved(self.known[p], self.known[s])
                    for p, s in zip(expr.places, expr.steps, strict=True)
                ]
                return self._place(expr.access, beyond)
            case Apply():
                extra = [str(v) for v in expr.attrs.values()]
                return self._applied(expr.op, [self.known[a] for a in expr.args], extra)
            case Contract():
                left, right = self.known[expr.left], self.known[expr.right]
                if expr.gather is not None:
                    right = f"walk({right}, {_AXES[expr.over]}, {_AXES[expr.columns]})"
                over = f"{_AXES[expr.over]} < {self.kernel.extents[expr.over]}"
                return f"sum({left} * {right} for {over})"
            case Attend():
                over = f"{_AXES[expr.over]} < {self.kernel.extents[expr.over]}"
                scores, values = self.known[expr.scores], self.known[expr.values]
                return f"attend({scores}, {values} for {over})"
            case Scan():
                return f"{expr.op}({self.known[expr.arg]}, {_AXES[expr.axis]})"
            case _:
                return "?"


def kernel_text(kernel: Kernel, number: int = 0, reader: Kernel | None = None) -> str:
    """Return the loop nest of ``kernel`` as readable pseudocode, then that of its reader."""
    title = " ".join(kernel.labels) or "copy"
    where = f"  # {', '.join(kernel.lines[:3])}" if kernel.lines else ""
    nests = [kernel] if reader is None else [kernel, reader]
    return "\n".join(
        [f"kernel {number}: {title}{where}", *("  " + x for k in nests for x in _Printer(k).text())]
    )


def band_text(band: Band, number: int = 0) -> str:
    """Return a band: its kernels, and which of their groups run for a block of rows [a, b)."""
    kernel = band.kernel
    where = f"  # {', '.join(kernel.lines[:3])}" if kernel.lines else ""
    lines = [f"kernel {number}: {' '.join(kernel.labels) or 'copy'}{where}"]
    lines.append(f"  for rows [a, b) of {band.rows}, {band.height} at a time (parallel):")
    for part in band.parts:
        lines.append(f"    by {part.unit} from a{part.before:+d} to b{part.after:+d}:")
        lines += ["      " + line for line in _Printer(part.kernel).text()]
    return "\n".join(lines)


def _view(view: View) -> str:
    return f"b{view.buffer}[{view.offset}; {', '.join(map(str, view.strides))}]"


def schedule_text(schedule: Schedule) -> str:
    """Return buffers and steps of ``schedule`` as text, kernels as loop nests."""
    lines = ["buffers:"]
    used = set[int]().union(*map(touched, schedule.steps))
    for number, buffer in enumerate(schedule.buffers):
        if buffer.kind == "temp" and number not in used:
            continue  # joined to another
        place = ""
        if buffer.kind == "temp":
            place = f" at {buffer.offset}" if buffer.host is None else f" in b{buffer.host}"
        lines.append(f"  b{number}: {buffer.kind} {buffer.dtype}{list(buffer.shape)}{place}")
    lines.append(
        f"arena: {schedule.arena.nbytes} bytes (largest live set {schedule.arena.largest_live})"
    )
    numbers = count()
    for step in schedule.steps:
        match step:
            case KernelStep(kernel):
                lines.append(kernel_text(kernel, next(numbers)))
            case ContractionStep(kernel, reader=reader):
                lines.append(kernel_text(kernel, next(numbers), reader))
            case BandStep(band):
                lines.append(band_text(band, next(numbers)))
            case OpaqueStep(node, views, buffer):
                lines.append(f"opaque {node.op.name}: b{buffer} = ({_list(views)})")
    return "\n".join(lines)


def _list(views: Sequence[View]) -> str:
    return ", ".join(_view(v) for v in views)


__all__ = ["band_text", "kernel_text", "schedule_text"]
