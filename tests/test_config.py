"""The settings: every variable, every bad value, and who sees an override."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tracejit import config
from tracejit.errors import UserError, ValueArgumentError


def test_an_empty_environment_asks_for_nothing():
    assert config.from_environment({}) == config.Settings()


def test_every_variable_is_read(tmp_path: Path):
    read = config.from_environment(
        {
            "TRACEJIT_ISA": " AVX2 ",
            "TRACEJIT_DISABLE_JIT": "1",
            "TRACEJIT_CACHE_DIR": str(tmp_path),
            "TRACEJIT_NUM_THREADS": "3",
            "OMP_NUM_THREADS": "7",
        }
    )
    assert read == config.Settings("avx2", True, str(tmp_path), 3)


@pytest.mark.parametrize("text", ["1", "true", "YES", "On"])
def test_yes(text: str):
    assert config.from_environment({"TRACEJIT_DISABLE_JIT": text}).disable_jit


@pytest.mark.parametrize("text", ["", " ", "0", "false", "No", "off"])
def test_no(text: str):
    assert not config.from_environment({"TRACEJIT_DISABLE_JIT": text}).disable_jit


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("TRACEJIT_DISABLE_JIT", "maybe"),
        ("TRACEJIT_DISABLE_JIT", "2"),
        ("TRACEJIT_NUM_THREADS", "0"),
        ("TRACEJIT_NUM_THREADS", "-1"),
        ("TRACEJIT_NUM_THREADS", "two"),
        ("TRACEJIT_NUM_THREADS", "1.5"),
        ("TRACEJIT_CACHE_DIR", __file__),
    ],
)
def test_a_bad_value_names_its_variable_and_says_what_to_write(name: str, text: str):
    with pytest.raises(ValueArgumentError) as caught:
        config.from_environment({name: text})
    assert isinstance(caught.value, UserError)
    assert isinstance(caught.value, ValueError)
    assert name in caught.value.message
    assert text in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize(("text", "count"), [("4", 4), ("4,2", 4), (" 2 , 1", 2), ("", None)])
def test_omp_num_threads_counts_where_ours_is_not_set(text: str, count: int | None):
    assert config.from_environment({"OMP_NUM_THREADS": text}).num_threads == count


@pytest.mark.parametrize("text", ["all", "0", "-4"])
def test_a_bad_omp_num_threads_is_ignored_with_a_warning(text: str):
    with pytest.warns(RuntimeWarning, match="OMP_NUM_THREADS"):
        assert config.from_environment({"OMP_NUM_THREADS": text}).num_threads is None


def test_the_cache_folder_follows_xdg(tmp_path: Path):
    if sys.platform != "linux":
        pytest.skip("XDG_CACHE_HOME is a Linux convention")
    code = "from tracejit import config; print(config.cache_dir())"
    environ = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    environ.pop("TRACEJIT_CACHE_DIR", None)
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == tmp_path / "tracejit"


def test_the_cache_folder_expands_home_and_is_absolute(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", "/somewhere")
    read = config.from_environment({"TRACEJIT_CACHE_DIR": "~/kept"})
    assert read.cache_dir == "/somewhere/kept"
    read = config.from_environment({"TRACEJIT_CACHE_DIR": "kept"})
    assert read.cache_dir == str(Path.cwd() / "kept")


def test_override_nests_and_ends(tmp_path: Path):
    before = config.settings()
    with config.override(isa="generic", cache_dir=tmp_path) as outer:
        assert config.isa() == outer.isa == "generic"
        with config.override(num_threads=2, disable_jit=True):
            assert (config.isa(), config.num_threads()) == ("generic", 2)
            assert config.disable_jit()
            assert config.cache_dir() == str(tmp_path)
        assert config.num_threads() == before.num_threads
    assert config.settings() == before


def test_override_ends_with_an_exception():
    before = config.settings()
    with pytest.raises(KeyError), config.override(isa="generic"):
        raise KeyError
    assert config.settings() == before


def test_override_checks_its_values():
    with pytest.raises(ValueArgumentError, match="num_threads"), config.override(num_threads=0):
        pass


def test_override_is_for_one_thread():
    seen: list[str | None] = []
    before = config.isa()
    with config.override(isa="sse4.2"):
        thread = threading.Thread(target=lambda: seen.append(config.isa()))
        thread.start()
        thread.join()
    assert seen == [before]


def test_a_bad_variable_does_not_break_the_import():
    code = (
        "import tracejit\n"
        "from tracejit import config\n"
        "try:\n    config.disable_jit()\n"
        "except ValueError as error:\n    print(error)\n"
    )
    environ = os.environ | {"TRACEJIT_DISABLE_JIT": "perhaps"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True
    )
    assert "TRACEJIT_DISABLE_JIT='perhaps'" in done.stdout
