"""Specialised code: a kernel's module with its sizes, strides and constants known.

A kernel reads its sizes from an array that its caller passes. Here the same module gets a constant
array in its place, and LLVM's passes do the rest: trip counts, masks and strides become constants,
loops of a few steps are written out, remainder loops that never run disappear. The arithmetic is
the same, element by element, and so are the bits::

    define void @kernel(ptr %ptrs, ptr %sizes, i64 %begin, i64 %end) {
      call void @kernel.generic(ptr %ptrs, ptr @kernel.sizes, i64 0, i64 64)
      ret void
    }
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracejit.errors import InternalError

_SIGNATURE = r"^define void @{name}\((?P<parameters>[^)]*)\)(?P<attributes>[^{{\n]*)\{{$"


def specialise(text: str, name: str, sizes: Sequence[int], trips: int | None) -> str:
    """Return the module ``text`` with function ``name`` specialised on its ``sizes``.

    ``trips`` is the end of its only chunk, None where it is called for several. Raises
    InternalError for a module that does not define ``name`` as kernels are defined.
    """
    found = re.search(_SIGNATURE.format(name=re.escape(name)), text, re.MULTILINE)
    if found is None:
        raise InternalError(f"a module defines no kernel {name}")
    generic, table = f"@{name}.generic", f"@{name}.sizes"
    inner = f"define internal void {generic}({found['parameters']}) alwaysinline"
    body = text[: found.start()] + inner + found["attributes"] + "{" + text[found.end() :]
    values = ", ".join(f"i64 {value}" for value in sizes)
    chunk = "i64 %begin, i64 %end" if trips is None else f"i64 0, i64 {trips}"
    return f"""{body}
{table} = private unnamed_addr constant [{len(sizes)} x i64] [{values}], align 64

define void @{name}(ptr %ptrs, ptr %sizes, i64 %begin, i64 %end){found["attributes"]}{{
  call void {generic}(ptr %ptrs, ptr {table}, {chunk})
  ret void
}}
"""


def structure(generic: str, sizes: Sequence[int], trips: int | None) -> str:
    """Return the structure that decides the code: that of ``generic``, and what is constant."""
    return f"{generic}\nsizes {','.join(map(str, sizes))} trips {trips}"
