"""A linker for the object files of kernels: ELF, x86-64, nothing but code and constants.

Loading through LLVM would initialise LLVM in a process that needs nothing else of it (40 ms), and
wait for llvmlite's lock while something compiles. What the code generator emits is simple enough
to be linked here: read-only sections, references relative to the program counter, and calls of C
functions. ``Unlinkable`` says that a file holds more than that; LLVM's linker then serves.

The format: System V ABI, chapters 4 and 5, and its AMD64 supplement (version 1.0), section 4.4.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from tracejit.record import record

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_IDENT = b"\x7fELF\x02\x01\x01"  # 64 bits, little-endian, version 1
_RELOCATABLE, _X86_64 = 1, 62
_PROGBITS, _SYMTAB, _RELA, _NOBITS, _REL, _UNWIND = 1, 2, 4, 8, 9, 0x70000001
_WRITE, _ALLOC = 1, 2
_UNDEFINED = 0
# Relocation types: absolute address, distance, distance of a function, distance of a slot that
# holds the address.
_R_64, _R_PC32, _R_PLT32, _R_SLOT = 1, 2, 4, (9, 41, 42)
# jmp *0(%rip), then the address that it jumps to.
_JUMP = b"\xff\x25\0\0\0\0"
_STUB = 16
_MAX_BYTES = 1 << 26


class Unlinkable(Exception):
    """The object file holds what this linker does not know."""


class Malformed(Unlinkable):
    """The object file is damaged: no linker should see it."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry: int


class _Symbol(NamedTuple):
    name: str
    section: int
    value: int


class _Relocation(NamedTuple):
    section: int  # that it changes
    offset: int
    kind: int
    symbol: int
    addend: int


@record(frozen=True)
class ObjectFile:
    """A parsed object file: where each section will stand, and what there is to fill in.

    ``size`` is the memory it needs. ``link`` writes it there.
    """

    image: bytes
    sections: list[_Section]
    places: dict[int, int]  # section number → offset in memory
    symbols: list[_Symbol]
    relocations: list[_Relocation]
    stubs: dict[int, int]  # symbol number → offset of its jump and address
    size: int

    def link(self, base: int, external: Callable[[str], int]) -> bytearray:
        """Return the bytes to stand at address ``base``; ``external`` finds C functions."""
        memory = bytearray(self.size)
        for number, place in self.places.items():
            s = self.sections[number]
            if s.kind != _NOBITS:
                memory[place : place + s.size] = self.image[s.offset : s.offset + s.size]
        for number, place in self.stubs.items():
            symbol = self.symbols[number]
            undefined = symbol.section == _UNDEFINED
            target = external(symbol.name) if undefined else base + self._offset(symbol)
            memory[place : place + _STUB] = _JUMP + struct.pack("<Q", target) + b"\xcc\xcc"
        for r in self.relocations:
            place = self.places[r.section] + r.offset
            symbol = self.symbols[r.symbol]
            if r.kind in _R_SLOT:
                target = self.stubs[r.symbol] + len(_JUMP)
            elif symbol.section == _UNDEFINED:
                target = self.stubs[r.symbol]
            else:
                target = self._offset(symbol)
            if r.kind == _R_64:
                value = (base + target + r.addend) % (1 << 64)
                _write(memory, place, "<Q", value)
            else:
                _write(memory, place, "<i", target + r.addend - place)
        return memory

    def offset(self, name: str) -> int:
        """Return where a function of the object stands in its memory."""
        for symbol in self.symbols:
            if symbol.name == name and symbol.section in self.places:
                return self._offset(symbol)
        raise Unlinkable(f"no symbol {name}")

    def _offset(self, symbol: _Symbol) -> int:
        place = self.places.get(symbol.section)
        if place is None:
            raise Unlinkable(f"the symbol {symbol.name!r} stands in no section")
        return place + symbol.value


def _write(memory: bytearray, place: int, form: str, value: int) -> None:
    try:
        struct.pack_into(form, memory, place, value)
    except (struct.error, IndexError):
        raise Malformed("a reference does not fit its place") from None


def parse(image: bytes) -> ObjectFile:
    """Read an object file. Raises ``Unlinkable``, and ``Malformed`` for one that is damaged."""
    try:
        return _parse(image)
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise Malformed(f"not a whole object file: {error}") from error


def _parse(image: bytes) -> ObjectFile:
    ident, kind, machine, *_ = header = _HEADER.unpack_from(image)
    if not ident.startswith(_IDENT) or kind != _RELOCATABLE or machine != _X86_64:
        raise Unlinkable("not a relocatable object file for x86-64")
    at, count = header[6], header[12]
    sections = [_Section(*_SECTION.unpack_from(image, at + 64 * i)) for i in range(count)]
    places, size = _lay_out(sections, len(image))
    tables = [s for s in sections if s.kind == _SYMTAB]
    if len(tables) != 1:
        raise Unlinkable("not one table of symbols")
    symbols = _symbols(image, tables[0], sections)
    relocations = [r for s in sections for r in _relocations(image, s, places)]
    stubs: dict[int, int] = {}
    size = -(-size // _STUB) * _STUB
    for r in relocations:
        if r.kind not in (_R_64, _R_PC32, _R_PLT32, *_R_SLOT):
            raise Unlinkable(f"relocation of type {r.kind}")
        outside = symbols[r.symbol].section == _UNDEFINED
        if (outside or r.kind in _R_SLOT) and r.symbol not in stubs:
            stubs[r.symbol] = size
            size += _STUB
    return ObjectFile(image, sections, places, symbols, relocations, stubs, size)


def _lay_out(sections: list[_Section], length: int) -> tuple[dict[int, int], int]:
    """Place the sections that are loaded one after the other; tables for unwinding are not."""
    places: dict[int, int] = {}
    size = 0
    for number, s in enumerate(sections):
        if not s.flags & _ALLOC or s.kind == _UNWIND:
            continue
        if s.flags & _WRITE or s.kind not in (_PROGBITS, _NOBITS):
            raise Unlinkable(f"a section of type {s.kind}, flags {s.flags}")
        if s.kind == _PROGBITS and s.offset + s.size > length:
            raise Malformed("a section that is cut off")
        if size + s.size > _MAX_BYTES or s.alignment > 4096:
            raise Malformed("a section out of all bounds")
        alignment = max(s.alignment, 1)
        places[number] = size = -(-size // alignment) * alignment
        size += s.size
    return places, size


def _symbols(image: bytes, table: _Section, sections: list[_Section]) -> list[_Symbol]:
    names = sections[table.link].offset
    found: list[_Symbol] = []
    for at in range(table.offset, table.offset + table.size, _SYMBOL.size):
        name, _, _, section, value, _ = _SYMBOL.unpack_from(image, at)
        start = names + name
        found.append(_Symbol(image[start : image.index(b"\0", start)].decode(), section, value))
    return found


def _relocations(image: bytes, s: _Section, places: dict[int, int]) -> list[_Relocation]:
    if s.kind == _REL and s.info in places:
        raise Unlinkable("relocations without addends")
    if s.kind != _RELA or s.info not in places:
        return []
    found: list[_Relocation] = []
    for at in range(s.offset, s.offset + s.size, _RELOCATION.size):
        offset, info, addend = _RELOCATION.unpack_from(image, at)
        found.append(_Relocation(s.info, offset, info & 0xFFFFFFFF, info >> 32, addend))
    return found
