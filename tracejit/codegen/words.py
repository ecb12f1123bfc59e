"""Numbers with names that generated code and the runtime share: places in blocks of memory."""

from __future__ import annotations

from collections.abc import Iterator


class Words:
    """A class of such numbers. An ``IntEnum`` would take 15 µs of every start for each of them."""

    @classmethod
    def items(cls) -> Iterator[tuple[str, int]]:
        """Yield names and numbers, in order."""
        return ((name, value) for name, value in vars(cls).items() if name.isupper())
