"""Fixtures shared by all tests."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Tests of kernels want them at the first call; those of the runtime say what they want.
os.environ.setdefault("TRACEJIT_COMPILE", "now")
# Tests count what is compiled; those of specialised code ask for it.
os.environ.setdefault("TRACEJIT_SPECIALISE", "0")

from tracejit import config
from tracejit.codegen.target import LEVELS
from tracejit.runtime import cpu

# Code that an earlier run left on disk must not decide what a test sees. Before anything reads it.
if "TRACEJIT_CACHE_DIR" not in os.environ:
    os.environ["TRACEJIT_CACHE_DIR"] = tempfile.mkdtemp(prefix="tracejit-tests-")
    atexit.register(shutil.rmtree, os.environ["TRACEJIT_CACHE_DIR"], ignore_errors=True)

# A first call compiles, so that examples differ in time by orders of magnitude. In CI a run tries
# the same programs each time; elsewhere new ones. `make fuzz` takes the profile of that name.
settings.register_profile(
    "tracejit",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.register_profile(
    "fuzz", settings.get_profile("tracejit"), max_examples=20_000, derandomize=False
)
settings.load_profile("tracejit")

NATIVE = cpu.levels()
# A level that the machine lacks is tested through its code shape in the machine's instructions.
EMULATED = tuple(f"{name}-on-{cpu.host_level()}" for name in LEVELS if name not in NATIVE)


@pytest.fixture(params=NATIVE)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run the test once for each instruction set of this machine, with that one in force.

    The value is the level's name; ``cpu.target()`` inside the test is its ``Target``.
    """
    with cpu.isa(request.param):
        yield request.param


@pytest.fixture(params=NATIVE + EMULATED)
def any_level(request: pytest.FixtureRequest) -> Iterator[str]:
    """Like ``level``, and for wider levels the shape of their code (``avx512-on-avx2``)."""
    with cpu.isa(request.param):
        yield request.param


@pytest.fixture
def highest() -> Iterator[None]:
    """Run the test with the highest level of this machine in force, whatever TRACEJIT_ISA says."""
    with cpu.isa(cpu.host_level()):
        yield


@pytest.fixture
def interpreted() -> Iterator[None]:
    """Compute with NumPy, for tests that are not about compiled code: that takes longer."""
    with config.override(disable_jit=True):
        yield


@pytest.fixture
def cache_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for code on disk of the test's own, in force and not made yet."""
    path = tmp_path / "cache"
    with config.override(cache_dir=path, disk_cache=1 << 28):
        yield path


@pytest.fixture(autouse=True)
def undisturbed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave native calls to tests that count them, whatever ``TRACEJIT_STRESS_DEOPT`` says."""
    if request.node.get_closest_marker("counts_native") is not None:
        monkeypatch.setattr(config, "stress_deopt", lambda: 0)
        monkeypatch.delenv("TRACEJIT_STRESS_DEOPT", raising=False)  # of child processes


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Name the fault that a test provokes in its report, for ``benchmarks.runtime``.

    A test that provokes several says so: ``record_property("faults", number)``.
    """
    for item in items:
        marker = item.get_closest_marker("fault")
        if marker is not None:
            item.user_properties.append(("fault", marker.args[0]))
