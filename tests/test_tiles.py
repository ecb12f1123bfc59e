"""Products in tile registers (AMX): edges of tiles, what a process may use, what is left behind."""

from __future__ import annotations

import ctypes
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_narrow import alone, check, extreme, product

import tracejit as tj
from tracejit.codegen.llvm import compile_object
from tracejit.codegen.specialise import specialise
from tracejit.codegen.target import AMX, LEVELS
from tracejit.runtime import amx, cpu
from tracejit.runtime.loader import LoadedObject

pytestmark = pytest.mark.usefixtures("highest")
needs_tiles = pytest.mark.skipif(not cpu.target().tiles, reason="no AMX, or no leave to use it")


@needs_tiles
@pytest.mark.parametrize("signs", [*itertools.product(("i1", "u1"), repeat=2)], ids="x".join)
def test_sizes_around_the_tile(signs: tuple[str, str]) -> None:
    rng = np.random.default_rng(1)
    extents = (8, 15, 16, 17, 31, 32, 33, 48, 63, 65)
    for m, n in itertools.product(extents, extents):
        k = int(rng.choice([32, 63, 64, 65, 127, 128, 129, 260]))
        a, b = extreme(rng, (m, k), signs[0]), extreme(rng, (k, n), signs[1])
        np.testing.assert_array_equal(
            tj.jit(product)(a, b), a.astype(np.int32) @ b.astype(np.int32)
        )
    for x, y in itertools.product((a, np.asfortranarray(a)), (b, np.asfortranarray(b))):
        assert alone(check(product, x, y))


@needs_tiles
def test_many_blocks_batches_and_an_epilogue() -> None:
    rng = np.random.default_rng(2)
    a, b = extreme(rng, (3, 140, 200), "i1"), extreme(rng, (200, 131), "u1")
    scale = rng.random(131, np.float32)

    def layer(a: Any, b: Any, scale: Any) -> Any:
        return np.maximum(product(a, b).astype(np.float32) * scale, 0)

    assert alone(check(product, a, b))
    assert alone(check(layer, a, b, scale))
    assert alone(check(lambda a, b: product(a[:, ::2, ::-1], b), a, b))
    # Deeper than what is summed up at a time.
    a, b = extreme(rng, (33, 9000), "i1"), extreme(rng, (9000, 40), "i1")
    assert alone(check(product, a, b))


@needs_tiles
def test_the_instruction_follows_the_signs() -> None:
    rng = np.random.default_rng(3)
    for first, second in itertools.product("iu", repeat=2):
        a, b = extreme(rng, (32, 64), f"{first}1"), extreme(rng, (64, 32), f"{second}1")
        name = "tdpb" + "".join("s" if s == "i" else "u" for s in (first, second)) + "d"
        text = tj.trace(product, a, b).asm()
        assert name in text
        assert text.index("ldtilecfg") < text.index("tilerelease")
    few = tj.trace(product, extreme(rng, (2, 64), "i1"), b).asm()
    assert "ldtilecfg" not in few


@needs_tiles
def test_nothing_stays_in_the_registers() -> None:
    """A thread that leaves something there has it saved whenever another one runs."""
    rng = np.random.default_rng(4)
    a, b = extreme(rng, (64, 64), "i1"), extreme(rng, (64, 64), "i1")
    text = """
        define i32 @in_use() {
          %both = call {i32, i32} asm sideeffect "xgetbv", "={eax},={edx},{ecx}"(i32 1)
          %low = extractvalue {i32, i32} %both, 0
          ret i32 %low
        }"""
    loaded = LoadedObject(compile_object(text, cpu.target()), ("in_use",))
    in_use = ctypes.CFUNCTYPE(ctypes.c_uint32)(loaded.address("in_use"))
    with tj.num_threads(1):
        np.testing.assert_array_equal(tj.jit(product)(a, b), a.astype(np.int32) @ b)
    assert in_use() >> 17 & 3 == 0  # components 17 and 18: how the tiles are set up, and their data


@needs_tiles
def test_with_constant_sizes() -> None:
    rng = np.random.default_rng(5)
    a, b = extreme(rng, (40, 130), "i1"), extreme(rng, (130, 50), "u1")
    traced = tj.trace(product, a, b)
    wanted = a.astype(np.int32) @ b.astype(np.int32)
    with tj.num_threads(1):
        f = tj.jit(product, optimize=3)
        np.testing.assert_array_equal(f(a, b), wanted)
    module = specialise(traced.llvm(), "kernel", [0] * 64, None)
    assert compile_object(module, cpu.target(), 4)


PROGRAM = """
import os, sys
import numpy as np
import tracejit as tj
from tracejit.runtime import cpu
f = tj.jit(lambda a, b: np.matmul(a, b, dtype=np.int32), compile="now")
a = np.arange(-2048, 2048).astype(np.int8).reshape(64, 64)
def right():
    return bool((f(a, a) == a.astype(np.int32) @ a.astype(np.int32)).all())
answers = [cpu.target().tiles, right()]
child = os.fork()
if not child:
    os._exit(0 if right() else 1)
answers.append(os.waitpid(child, 0)[1] == 0)
print(*answers)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.parametrize("wanted", ["0", "1"])
def test_a_process_asks_and_its_children_may(wanted: str, tmp_path: Path) -> None:
    environ = dict(os.environ, TRACEJIT_AMX=wanted, TRACEJIT_CACHE_DIR=str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=environ, capture_output=True, text=True, check=True
    )
    tiles = wanted == "1" and cpu.target().tiles
    assert done.stdout.split() == [str(tiles), "True", "True"]


def test_where_the_system_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amx, "permitted", lambda: False)
    assert not AMX.keys() & cpu.detect().flags


def test_which_levels_have_tiles() -> None:
    flags = LEVELS["avx512"].flags | {*AMX}
    found = LEVELS["avx512"].extended(flags)
    assert found.tiles
    assert found.flags == flags
    assert "+amx-int8" in found.features
    assert not LEVELS["avx512"].extended(flags - {"amx_int8"}).tiles
    assert not LEVELS["avx2"].extended(flags).tiles
