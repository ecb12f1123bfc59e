"""The driver: native code that runs a list of kernels, the same for every schedule.

A record is five i64: the kernel's address, the index of its first pointer, the address of its
sizes, and the chunk [begin, end). One call from Python runs a whole stretch of the schedule.
"""

from __future__ import annotations

from tracejit.codegen.builder import I64, PTR, VOID, Module, Value, const
from tracejit.codegen.target import Target

DRIVER = "driver"
RECORD = 5


def emit_driver(target: Target) -> str:
    """Return the module of ``void driver(ptr records, i64 count, ptr pointers)``."""
    module = Module(target)
    parameters = [("records", PTR), ("count", I64), ("pointers", PTR)]
    b = module.define(DRIVER, VOID, parameters)
    records, count, pointers = b.parameters

    def body(index: Value, _: list[Value]) -> list[Value]:
        first = b.mul(index, const(RECORD, I64))
        fields = [
            b.load(b.element(records, b.add(first, const(i, I64)), I64), I64)
            for i in range(RECORD)
        ]
        function, sizes = (
            b.emit(PTR, f"inttoptr i64 {fields[i].text} to ptr") for i in (0, 2)
        )
        mine = b.element(pointers, fields[1], I64)
        b.effect(
            f"call void {function.text}(ptr {mine.text}, ptr {sizes.text}, "
            f"i64 {fields[3].text}, i64 {fields[4].text})"
        )
        return []

    b.loop(const(0, I64), count, 1, [], body)
    b.ret()
    return module.text()
