"""Instruction-set levels as data.

A level is a named, cumulative set of CPU features with what the emitter has to know of it:
register width and count, whether multiply-add is fused, whether masks are registers. Detection
lives in ``runtime/cpu.py``; nothing here looks at the machine. The emitter takes a ``Target`` as
an argument and never asks for more than these fields, so one emitter serves all levels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from tracejit.record import field, record, replace


class Blocking(NamedTuple):
    """How matrix products are cut, where no rule that follows from the hardware says it better.

    ``depth``: how many times the depth whose panel of B stays near the first-level cache is packed
    ahead; ``tile_panels``: the most row panels of a tile then, ``share_panels`` the fewest that
    tiles are cut to for threads to share; ``ahead_rows``, ``ahead_columns``: how many there are
    where B is packed ahead; ``direct_panels``: the row panels up to which a small B is read in
    place; ``tile_work``: multiply-adds that a tile should have; ``prefetch``: steps that panels
    are fetched ahead.

    The defaults were measured on Zen 3 and Sapphire Rapids; ``tracejit tune`` measures others
    (``runtime/tuning.py``). The depth of a block decides bits, and so do ``depth`` and the two
    numbers that say what is packed ahead; the others do not.
    """

    depth: int = 2
    tile_panels: int = 18
    share_panels: int = 9
    ahead_rows: int = 384
    ahead_columns: int = 512
    direct_panels: int = 16
    tile_work: int = 1 << 20
    prefetch: int = 16


BY_RULE = Blocking()

# What tiles need, and LLVM's names for it. The operating system must have granted it besides
# (``runtime/amx.py``).
AMX = {f"amx_{part}": f"amx-{part}" for part in ("tile", "int8", "bf16")}


@record(frozen=True, slots=True)
class Target:
    """What code generation may assume of the processor.

    ``vector_bits``: width of a vector register; ``registers``: how many there are; ``fma``: fused
    multiply-add; ``masks``: predicate registers (AVX-512); ``rounding``: a vector instruction for
    floor/ceil/round (SSE4.1); ``dot``: instructions that sum products of neighbouring narrow
    integers: "words" (pmaddwd), "bytes" (VNNI too), or none; ``cpu`` and ``features``: what LLVM
    is told; ``flags``: the ``/proc/cpuinfo`` names that a machine must have to run the code;
    ``tiles``: registers that hold 16 rows of 64 bytes, and their products (AMX).
    """

    name: str
    vector_bits: int
    registers: int
    fma: bool
    masks: bool
    rounding: bool
    cpu: str
    features: str = ""
    dot: Literal["none", "words", "bytes"] = "none"
    flags: frozenset[str] = field(default_factory=frozenset[str])
    tiles: bool = False
    l1_bytes: int = 32 * 1024
    l2_bytes: int = 512 * 1024
    l3_bytes: int = 8 * 1024 * 1024
    blocking: Blocking = BY_RULE

    def lanes(self, bits: int) -> int:
        """Return how many elements of ``bits`` bits fit in one vector register."""
        return max(1, self.vector_bits // max(bits, 8))

    def extended(self, flags: frozenset[str]) -> Target:
        """Return the same level with VNNI in its vectors' width, and AMX beside AVX-512, where
        ``flags`` have them."""
        found = self
        vnni = {256: "avx_vnni", 512: "avx512_vnni"}.get(self.vector_bits)
        if self.dot == "words" and vnni in flags:
            found = replace(found._and({vnni: vnni.replace("_", "")}), dot="bytes")
        if self.vector_bits == 512 and flags >= AMX.keys():
            found = replace(found._and(AMX), tiles=True)
        return found

    def _and(self, more: Mapping[str, str]) -> Target:
        """Return the same level with more flags, each with the name that LLVM has for it."""
        features = filter(None, (self.features, *(f"+{name}" for name in more.values())))
        return replace(self, features=",".join(features), flags=self.flags | {*more})

    def with_caches(self, l1: int, l2: int, l3: int) -> Target:
        """Return the same level with the cache sizes (bytes) of a particular machine."""
        return replace(self, l1_bytes=l1, l2_bytes=l2, l3_bytes=l3)

    def with_blocking(self, blocking: Blocking) -> Target:
        """Return the same level with products cut in another way."""
        return replace(self, blocking=blocking)


# All that LLVM's cpu of that level may use, not only what the emitter asks for.
_SSE42 = frozenset({"cx16", "lahf_lm", "pni", "ssse3", "sse4_1", "sse4_2", "popcnt"})
_AVX2 = _SSE42 | {"avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}
_AVX512 = _AVX2 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}

# Cumulative, lowest first: a machine of one level runs the code of every level before it.
LEVELS: dict[str, Target] = {
    "generic": Target("generic", 128, 16, False, False, False, "x86-64", dot="words"),
    "sse4.2": Target("sse4.2", 128, 16, False, False, True, "x86-64-v2", "", "words", _SSE42),
    "avx2": Target("avx2", 256, 16, True, False, True, "x86-64-v3", "", "words", _AVX2),
    # LLVM's x86-64-v4 prefers 256-bit vectors; the emitter's functions ask for 512 by attribute.
    "avx512": Target(
        "avx512", 512, 32, True, True, True, "x86-64-v4", "-prefer-256-bit", "words", _AVX512
    ),
}


def legalised(level: str, host: str) -> Target:
    """Return ``level``'s vector shapes compiled with ``host``'s instructions.

    LLVM splits the wide vectors and masks, so the code that the emitter writes for a level can
    be executed, and tested, on a machine that lacks it.
    """
    wide, narrow = LEVELS[level], LEVELS[host]
    return replace(
        wide,
        name=f"{level}-on-{host}",
        cpu=narrow.cpu,
        features=narrow.features,
        flags=narrow.flags,
        fma=narrow.fma,
        rounding=narrow.rounding,
        dot="none",
        tiles=False,
    )
