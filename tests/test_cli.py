"""The command ``tracejit``: what it prints and writes, and how it fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tracejit import cli, config
from tracejit.ops.table import OPS
from tracejit.runtime import cache, cpu, tuner, tuning

PROGRAM = """
const scale: f64 = 2.0

fn main(x: Vector<f64, 3>, shift: f64 = 1.0) {
    let y = exp(x) * scale + shift
    println!("sum {sum(y):.3}")
    y
}
"""


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the command in this process."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tracejit", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
        caught = capsys.readouterr()
        return Outcome(code, caught.out, caught.err)

    return call


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "scaled.ns"
    path.write_text(PROGRAM)
    np.save(tmp_path / "x.npy", np.array([0.0, 1.0, 2.0]))
    return path


# -- run ---------------------------------------------------------------------------------------


def test_run_prints_and_saves(run: Run, program: Path) -> None:
    folder = program.parent
    done = run("run", program, "--input", f"x={folder / 'x.npy'}", "--set", "shift=0.5",
               "--set", "scale=3.0", "--output", f"result={folder / 'out' / 'y.npy'}",
               "--no-report")  # fmt: skip
    assert (done.code, done.err) == (0, "")
    expected = np.exp([0.0, 1.0, 2.0]) * 3.0 + 0.5
    assert done.out == f"sum {expected.sum():.3f}\n"
    np.testing.assert_allclose(np.load(folder / "out" / "y.npy"), expected, rtol=1e-15)


def test_run_reports_what_was_compiled(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "large.ns"
    path.write_text(
        'fn main() {\n    println!("{sum(exp(arange(3000000) as f64 * 1e-6)):.1}")\n}\n'
    )
    done = run("run", path)
    assert done.code == 0
    for word in ("Kernels", "exp", "arena", "compile time", "interpreted"):
        assert word in done.out
    first = f"{np.exp(np.arange(3000000) * 1e-6).sum():.1f}"
    assert done.out.count(first) == 1  # running it again for the times prints nothing


def test_the_report_compiles_what_the_run_did_not_need(run: Run, program: Path) -> None:
    done = run("run", program, "--input", f"x={program.parent / 'x.npy'}")
    assert done.code == 0
    assert "exp" in done.out


def test_the_report_says_that_nothing_may_be_compiled(run: Run, program: Path) -> None:
    with config.override(disable_jit=True):
        done = run("run", program, "--input", f"x={program.parent / 'x.npy'}")
    assert done.code == 0
    assert "none was compiled" in done.out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--set", "shift"], "NAME=VALUE"),
        (["--input", "x=missing.npy"], "missing.npy"),
        (["--set", "shfit=2.0"], "shift"),
        ([], "--input x"),
    ],
)
def test_run_refuses_bad_settings(run: Run, program: Path, arguments: list[str], says: str) -> None:
    done = run("run", program, "--no-report", *arguments)
    assert done.code == 1
    assert done.err.startswith("error: ")
    assert says in done.err
    assert "Traceback" not in done.err
    assert done.out == ""


def test_run_saves_all_outputs_or_none(run: Run, program: Path) -> None:
    folder = program.parent
    before = sorted(p.name for p in folder.iterdir())
    done = run("run", program, "--no-report", "--input", f"x={folder / 'x.npy'}",
               "--output", f"result={folder / 'y.npy'}",
               "--output", f"other={folder / 'z.npy'}")  # fmt: skip
    assert done.code == 1
    assert "no output 'other'" in done.err
    assert "result" in done.err
    assert sorted(p.name for p in folder.iterdir()) == before


def test_run_of_a_program_that_fails_writes_nothing(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "fails.ns"
    path.write_text('fn main() {\n    let x = load("missing.npz")\n    x.a\n}\n')
    done = run("run", path, "--output", f"result={tmp_path / 'y.npy'}")
    assert done.code == 1
    assert "missing.npz" in done.err
    assert [p.name for p in tmp_path.iterdir()] == ["fails.ns"]


def test_run_of_a_missing_program(run: Run, tmp_path: Path) -> None:
    done = run("run", tmp_path / "none.ns")
    assert done.code == 1
    assert "none.ns" in done.err


# -- check ---------------------------------------------------------------------------------------


def test_check(run: Run, program: Path, tmp_path: Path) -> None:
    done = run("check", program)
    assert (done.code, done.err) == (0, "")
    assert "no errors" in done.out
    wrong = tmp_path / "wrong.ns"
    wrong.write_text("fn main() {\n    let y = x + 1\n}\n")
    done = run("check", wrong)
    assert done.code == 1
    assert "wrong.ns:2" in done.err
    assert "let y = x + 1" in done.err


# -- viz -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["graph.html", "graph.svg", "graph.dot", "graph.json"])
def test_viz_writes_by_suffix(run: Run, tmp_path: Path, name: str) -> None:
    output = tmp_path / "made" / name
    done = run("viz", "softmax.ns:softmax", "-o", output, "--arg", "f32[8,8]")
    assert (done.code, done.err) == (0, "")
    assert done.out == f"wrote {output}\n"
    text = output.read_text(encoding="utf-8")
    assert "softmax" in text
    assert "f32[8, 8]" in text
    if name.endswith(".json"):
        assert json.loads(text)["graph"]["steps"]


def test_viz_prints_a_tree(run: Run) -> None:
    done = run("viz", "softmax.ns:softmax", "--tree", "--arg", "f32[8,8]")
    assert done.code == 0
    assert "1 rows  max subtract exp sum divide" in done.out
    assert "%5 divide(%3, %4)  f32[8, 8]  softmax.ns:5" in done.out
    assert done.out.index("arguments") < done.out.index("1 rows") < done.out.index("results")


def test_viz_runs_a_program(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "prints.ns"
    path.write_text('fn main() {\n    println!("{sum(exp(arange(9) as f64))}")\n}\n')
    done = run("viz", path, "-o", tmp_path / "page.html")
    assert done.code == 0
    assert done.out == f"wrote {tmp_path / 'page.html'}\n"  # and not what the program prints


@pytest.mark.parametrize(
    "arguments",
    [
        ["nothing"],
        ["softmax.ns:other"],
        ["softmax.ns:softmax", "--arg", "f32[x]"],
        ["softmax.ns:softmax", "--arg", "f32[8]"],
        ["numpy:pi"],
    ],
)
def test_viz_errors_have_a_message_and_leave_no_file(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    done = run("viz", *arguments, "-o", tmp_path / "page.html")
    assert done.code == 1
    assert done.err.startswith(("error: ", "error[N"))
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


# -- info and the rest -------------------------------------------------------------------------


def test_info(run: Run) -> None:
    done = run("info")
    assert done.code == 0
    for word in ("processor", "level generic", "← used", "cache folder", version("numpy")):
        assert word in done.out


def test_info_lists_every_op(run: Run) -> None:
    done = run("info", "--ops")
    assert done.code == 0
    listed = {line.split("│")[1].strip() for line in done.out.splitlines() if line.startswith("│")}
    assert set(OPS) <= listed


def test_version(run: Run) -> None:
    assert run("--version") == Outcome(0, f"tracejit {version('tracejit')}\n", "")


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    assert run("rum").code == 2


def test_the_installed_command_runs_in_a_process_of_its_own(program: Path) -> None:
    command = [sys.executable, "-m", "tracejit.cli", "run", str(program), "--no-report"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: main needs a value for x")


# -- cache -----------------------------------------------------------------------------------------


def test_cache_lists_verifies_and_clears(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with config.override(cache_dir=folder, disk_cache=1 << 20):
        assert run("cache", "path").out.strip() == str(folder)
        assert "0 entries" in run("cache", "list").out
        disk = cache.disk()
        names = ["ab" * 20, "cd" * 20]
        for name in names:
            disk.store(name, cache.Entry(bytes(3000), "f", "avx2", "exp sum", 0.025))
        listed = run("cache", "list").out
        assert "exp sum" in listed
        assert "25.0 ms" in listed
        assert "2 entries, 6." in listed
        assert run("cache", "verify") == (0, "2 entries, 0 damaged\n", "")
        (folder / "code" / names[0]).write_bytes(b"")
        assert "damaged" in run("cache", "list").out
        outcome = run("cache", "verify")
        assert (outcome.code, outcome.out) == (1, "2 entries, 1 damaged\n")
        assert names[0] in outcome.err
        assert run("cache", "verify", "--remove").code == 0
        assert run("cache", "verify").out == "1 entries, 0 damaged\n"
        assert run("cache", "clear").out == "removed 1 entries\n"
        assert "0 entries" in run("cache", "list").out


@pytest.fixture
def measured_folder(tmp_path: Path) -> Iterator[Path]:
    """Keep what is measured in a folder of the test's own."""
    tuning.forget()
    with config.override(cache_dir=tmp_path / "cache"):
        yield tmp_path
    tuning.forget()


def test_tune_measures_shows_and_resets(
    run: Run, measured_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "CANDIDATES", {"prefetch": (8, 16)})
    assert "by rule" in run("tune", "--show").out
    measured = run("tune", "--shape", "16", "--shape", "9x33x20", "--seconds", "0.01")
    assert measured.code == 0
    assert "9x33x20 float64" in measured.out
    assert "prefetch = 8" in measured.out
    assert os.path.isfile(tuning.path(cpu.host()))
    shown = run("tune", "--show")
    assert cpu.target().name in shown.out
    assert "gain" in shown.out
    assert "by rule" in run("tune", "--reset").out
    assert not os.path.exists(tuning.path(cpu.host()))


def test_tune_measures_a_function(
    run: Run,
    measured_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(tuner, "CANDIDATES", {"prefetch": (8, 16)})
    source = tmp_path / "layers.py"
    source.write_text(
        "import numpy as np\n"
        "def layer(x, w):\n    return np.maximum(x @ w, 0)\n"
        "def half(x):\n    return x / 2\n"
    )
    of_layer = run(
        "tune", f"{source}:layer", "--arg", "f32[30,40]", "--arg", "f32[40,20]",
        "--seconds", "0.01", "--threads", "1",
    )  # fmt: skip
    assert of_layer.code == 0, of_layer.err
    assert "layer" in of_layer.out
    no_product = run("tune", f"{source}:half", "--arg", "f32[30,40]")
    assert no_product.code == 1
    assert "no matrix product" in no_product.err


@pytest.mark.parametrize(
    ("option", "value"), [("--shape", "3x4"), ("--shape", "0"), ("--dtype", "int8")]
)
def test_tune_refuses(run: Run, measured_folder: Path, option: str, value: str) -> None:
    refused = run("tune", option, value)
    assert refused.code == 1
    assert value in refused.err
    assert "hint" in refused.err
