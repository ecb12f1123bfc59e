"""A process that finds its code on disk compiles nothing, and loads nothing that would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from code_on_disk import run

import tracejit as tj
from tracejit.codegen.llvm import compile_object
from tracejit.runtime import code as codes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX files")

PROGRAM = """
import numpy as np
import tracejit as tj
from tracejit.codegen import llvm
from tracejit.runtime import service

def program(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return (e / e.sum(axis=1, keepdims=True)) @ x.T

x = np.linspace(0, 1, 64 * 48).reshape(64, 48)
f = tj.jit(program, compile="now")
for _ in range(3):
    result = f(x)
assert np.allclose(result, program(x))
stats = service.stats()
print(stats["compiled"], stats["disk_hits"], llvm.loaded())
"""


def test_a_second_process_compiles_nothing_and_does_not_load_llvm(cache_folder: Path) -> None:
    # Without workers, in which LLVM would be loaded otherwise.
    compiled, hits, llvm = run(PROGRAM, cache_folder, TRACEJIT_COMPILE_WORKERS="0").stdout.split()
    assert int(compiled) >= 2
    assert (hits, llvm) == ("0", "True")
    done = run(PROGRAM, cache_folder)
    assert done.stdout.split() == ["0", compiled, "False"], done.stderr
    # Of another level nothing is used.
    assert run(PROGRAM, cache_folder, TRACEJIT_ISA="generic").stdout.split()[1] == "0"


# What writes code: none of it is for a process that finds its code on disk.
EMITTING = {
    "tracejit.codegen.attention.kernel",
    "tracejit.codegen.builder",
    "tracejit.codegen.contraction.gemm",
    "tracejit.codegen.elementwise",
    "tracejit.codegen.emitters",
    "tracejit.codegen.loops",
    "tracejit.codegen.math",
}


# What plans: none of it is for a process that finds its plans on disk.
PLANNING = {
    "tracejit.codegen.contraction",
    "tracejit.codegen.driver",
    "tracejit.codegen.entry",
    "tracejit.graph.passes",
    "tracejit.runtime.engine",
    "tracejit.schedule.fusion",
    "tracejit.schedule.kernel",
    "tracejit.schedule.schedule",
}


# What no such program needs; of Python's own what takes long to import.
OTHERS = {"dataclasses", "hashlib", "json", "pathlib", "tracejit.frontend.dynamic"}


EMITTERS = """
import sys
import numpy as np
import tracejit as tj

def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)

def dense(x, w):
    return np.maximum(x @ w, 0) + 1

def attention(q, k, v):
    return tj.attention(q, k, v)

# (Random numbers would load some of what is not to be loaded.)
x, w = np.linspace(0, 1, 3072).reshape(64, 48), np.linspace(-1, 2, 3072).reshape(48, 64)
heads = [np.sin(np.arange(2048.0) * n).reshape(2, 64, 16) for n in range(1, 4)]
programs = (softmax, [x]), (np.matmul, [x, w]), (dense, [x, w]), (attention, heads)
for function, arguments in programs:
    compiled = tj.jit(function, compile="now")
    assert np.allclose(compiled(*arguments), np.asarray(function(*arguments)))
    assert compiled.stats()["tier"] == 1, compiled.stats()
from tracejit.runtime import service
print(service.stats()["compiled"], *sys.modules)
"""


def test_a_full_cache_loads_nothing_that_plans_or_emits(cache_folder: Path) -> None:
    def loaded() -> tuple[int, set[str]]:
        # (Expressions hold arrays: where they are compiled at once, they are planned each time.)
        done = run(
            EMITTERS, cache_folder, TRACEJIT_COMPILE_WORKERS="0", TRACEJIT_STRESS_COMPILE="0"
        )
        assert done.returncode == 0, done.stderr
        compiled, *modules = done.stdout.split()
        return int(compiled), set(modules)

    compiled, modules = loaded()
    assert compiled >= 4
    assert modules >= EMITTING | PLANNING
    compiled, modules = loaded()
    assert compiled == 0
    assert not modules & (EMITTING | {"networkx", "cpuinfo", "rich", "typer"})
    assert not modules & (PLANNING | OTHERS)


SCRIPT = """
import sys
import numpy as np
import tracejit as tj

x = np.linspace(0, 1, 3072).reshape(64, 48)
e = np.exp(x - x.max(axis=1, keepdims=True))
softmax = tj.kernels.softmax
assert np.allclose(softmax(x), e / e.sum(axis=1, keepdims=True))
print(*sys.modules)
"""


def test_a_known_neuralscript_kernel_loads_what_it_needs(cache_folder: Path) -> None:
    for _ in range(2):
        done = run(SCRIPT, cache_folder, TRACEJIT_COMPILE="now", TRACEJIT_COMPILE_WORKERS="0")
        assert done.returncode == 0, done.stderr
    modules = set(done.stdout.split())
    assert not modules & (EMITTING | PLANNING | {"dataclasses", "importlib.resources", "pkgutil"})
    families = {name for name in modules if name.startswith("tracejit.functions.")}
    assert not families & {f"tracejit.functions.{n}" for n in ("linalg", "joining", "gather")}


def test_two_processes_fill_the_same_cache(cache_folder: Path) -> None:
    command = [sys.executable, "-c", PROGRAM]
    environ = os.environ | {"TRACEJIT_CACHE_DIR": str(cache_folder)}
    both = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    for process in both:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    assert run(PROGRAM, cache_folder).stdout.split()[::2] == ["0", "False"]


def test_kernels_from_disk_give_the_same_bits(cache_folder: Path, level: str) -> None:
    x = np.random.default_rng(5).normal(size=(37, 53)).astype(np.float32)

    def program(x: np.ndarray) -> tuple[np.ndarray, ...]:
        return np.sin(x).sum(axis=0), x @ x.T, np.cumsum(x, axis=1), np.fmod(x, 0.3)

    first = tj.jit(program, compile="now")(x)
    codes.clear()
    second = tj.jit(program, compile="now")(x)
    assert all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))
    traced = tj.trace(program, x)
    assert traced.kernels
    for kernel in traced.kernels:
        assert kernel.text.count("define")
        assert compile_object(kernel.text, kernel.target, kernel.level, passes=0)
