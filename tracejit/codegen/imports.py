"""Addresses that a module learns when it is loaded, so that its object code suits every process."""

from __future__ import annotations

from collections.abc import Iterable


def symbol(name: str) -> str:
    """Return the linker's name of an address; apart from those of C functions."""
    return f"at.{name}"


def declarations(names: Iterable[str]) -> str:
    """Return the declarations of addresses. They may be null."""
    return "".join(f"@{symbol(name)} = extern_weak global i8\n" for name in names)


def reference(name: str) -> str:
    """Return what stands for an address in IR: an i64."""
    return f"ptrtoint (ptr @{symbol(name)} to i64)"
