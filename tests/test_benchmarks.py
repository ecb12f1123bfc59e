"""The microbenchmarks' own logic: rows, ratios, processes, comparison, reports. No timing."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import tracejit as tj
from benchmarks import command, compare, page, plots, report, samples
from benchmarks.implementations import OURS, PEERS, environment, split
from benchmarks.process import Process
from benchmarks.results import best_ratios, level_ratio, levels, read, roof
from benchmarks.rows import ROWS, WARM_UP, Row, arguments_of, check, leaves, reference
from benchmarks.run import take_turns
from tracejit import cli, errors
from tracejit.frontend.neuralscript import kernels_path


def rounds(center: float, *, spread: float = 0.02, count: int = 15, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    return (center * (1 + spread * rng.random((count, 3)))).tolist()


def document(**times: dict[str, float]) -> dict[str, Any]:
    """Return a results file: row → implementation → about how long it takes."""
    return {
        "schema": 1,
        "date": "2026-01-01T00:00:00+00:00",
        "machine": {
            "processor": "P",
            "isa": "avx2",
            "threads": 2,
            "cpus": 2,
            "python": "3.11",
            "figures": {"copy GB/s, 1 thread(s)": 10.0, "f32 GF/s, 1 thread(s)": 100.0},
        },
        "implementations": {n: {"status": "ok", "version": "1"} for n in (*OURS, *PEERS)},
        "options": {"rounds": 15, "samples": 3},
        "rows": [
            {
                "name": row,
                "title": row,
                "group": "table",
                "dtype": "f32",
                "bytes": 1 << 20,
                "flops": 1 << 20,
                "memory_bound": True,
                "results": {
                    name: {"status": "ok", "rounds": rounds(t, seed=len(name)), "compile": 0.1}
                    for name, t in found.items()
                },
            }
            for row, found in times.items()
        ],
    }


# -- rows ------------------------------------------------------------------------------------------

FAST = [name for name, row in ROWS.items() if row.group != "memory"]


@pytest.mark.parametrize("name", FAST)
def test_tracejit_and_the_kernels_pass_the_check(name: str):
    row = ROWS[name]
    expected, arguments = reference(row), arguments_of(row)
    assert check(row, leaves(row.numpy(*arguments)), expected) is None
    jitted = tj.jit(row.tracejit(tj), compile="now")
    assert check(row, leaves(jitted(*arguments)), expected) is None
    assert jitted.stats()["fallbacks"] == 0
    script = row.neuralscript(tj)
    if script is not None:
        assert check(row, leaves(script(*arguments)), expected) is None


def test_every_kernel_has_a_row():
    programs = {path.stem for path in Path(kernels_path()).glob("*.ns")}
    covered = {row.kernel for row in ROWS.values()} | {
        name for name, row in ROWS.items() if row.neuralscript(tj) is not None
    }
    assert programs <= covered


@pytest.mark.parametrize("name", ROWS)
def test_a_row_says_what_it_moves_and_computes(name: str):
    row = ROWS[name]
    assert row.title
    assert row.bytes > 0
    assert row.flops > 0
    for peer in ("jax", "torch", "numba", "numexpr"):
        builder = getattr(row, peer)
        assert builder is None or callable(builder)


def test_the_check_tells_wrong_from_right():
    class Plain(Row):
        rtol, atol, differing = 1e-3, 0.0, 0.1

    expected = [np.ones(100)]
    assert check(Plain, [np.full(100, 1.0005, np.float32)], expected) is None
    few = np.ones(100)
    few[:10] = 2
    assert check(Plain, [few], expected) is None
    few[10] = 2
    assert "11.00% of the values differ" in str(check(Plain, [few], expected))
    assert "shape" in str(check(Plain, [np.ones(99)], expected))
    assert "2 results instead of 1" in str(check(Plain, [few, few], expected))
    assert check(Plain, [np.full(100, np.nan)], expected) is not None


def test_two_rows_cannot_share_a_name():
    with pytest.raises(ValueError, match="two rows are called softmax"):
        type("Again", (Row,), {"name": "softmax"})


# -- ratios ----------------------------------------------------------------------------------------


def test_a_ratio_lies_in_its_interval():
    found = samples.ratio(rounds(3.0), rounds(1.0, seed=1))
    assert found.low <= found.value <= found.high
    assert found.low > 2.9
    assert found.high < 3.1


def test_a_disturbed_round_disturbs_both_sides_of_a_ratio():
    ours, theirs = rounds(1.0), rounds(2.0, seed=1)
    for number in range(0, 15, 2):
        ours[number] = [10 * t for t in ours[number]]
        theirs[number] = [10 * t for t in theirs[number]]
    found = samples.ratio(theirs, ours)
    assert found.value == pytest.approx(2, rel=0.05)
    assert samples.least(ours) == pytest.approx(1, rel=0.02)


def test_a_control_takes_out_how_busy_the_machine_is():
    slow = samples.change(rounds(2.0), rounds(1.0, seed=1))
    assert slow.value == pytest.approx(2, rel=0.05)
    same = samples.change(
        rounds(2.0), rounds(1.0, seed=1), rounds(6.0, seed=2), rounds(3.0, seed=3)
    )
    assert same.low < 1.02
    assert same.high > 0.98


def test_geometric_mean():
    assert samples.geometric_mean([1.0, 4.0]) == pytest.approx(2)
    assert samples.geometric_mean([]) == 1


# -- results ---------------------------------------------------------------------------------------


def test_results_name_the_best_peer_and_those_that_win():
    file = document(
        good={"tracejit": 1, "numpy": 9, "jax": 4, "copy": 0.5},
        bad={"tracejit": 1, "numpy": 9, "numba": 0.5, "copy": 0.5},
    )
    file["rows"][0]["results"]["torch"] = {"status": "overdue", "detail": "stopped after 60 s"}
    good, bad = read(file)
    assert [m.name for m in good.peers] == ["jax", "numpy"]
    assert good.slower_than == []
    assert good.share == pytest.approx(0.5, rel=0.05)
    assert bad.slower_than == ["numba"]
    assert best_ratios([good, bad]) == pytest.approx([4, 0.5], rel=0.05)
    lines = "\n".join(report.summary([good, bad]))
    assert "slower than numba: bad" in lines
    assert "good, torch: overdue (stopped after 60 s)" in lines


def test_levels_are_compared_with_the_one_above():
    (row,) = read(document(r={"tracejit": 1, "tracejit@avx2": 2, "tracejit@sse4.2": 6}))
    assert [m.name for m in levels(row)] == ["tracejit@avx2", "tracejit@sse4.2"]
    assert level_ratio(row, 0) == pytest.approx(2, rel=0.05)
    assert level_ratio(row, 1) == pytest.approx(3, rel=0.05)


def test_the_roof_is_the_best_figure():
    figures = {"copy GB/s, 1 thread(s)": 9.0, "triad GB/s, 2 thread(s)": 8.0, "f32 GF/s": 1.0}
    assert roof(figures, "GB/s") == 9
    assert roof(figures, "f64 GF/s") is None


# -- comparison ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "numpy_now", "verdict"),
    [
        (1.0, 5.0, "same"),
        (1.3, 5.0, "slower"),
        (0.7, 5.0, "faster"),
        (1.3, 6.5, "same"),  # the machine is busier
        (1.0, 3.0, "same"),  # NumPy was disturbed
        (1.01, 5.0, "same"),  # within the tolerance
    ],
)
def test_a_change_counts_if_time_and_ratio_agree(now: float, numpy_now: float, verdict: str):
    old = document(row={"tracejit": 1.0, "numpy": 5.0})
    (change,) = compare.compare(document(row={"tracejit": now, "numpy": numpy_now}), old)
    assert change.regression is (verdict == "slower")
    assert change.improvement is (verdict == "faster")


def test_without_numpy_the_times_alone_count():
    (change,) = compare.compare(document(row={"tracejit": 2.0}), document(row={"tracejit": 1.0}))
    assert change.relative is None
    assert change.regression


def test_another_numpy_is_no_control():
    new = document(row={"tracejit": 2.0, "numpy": 10.0})
    new["implementations"]["numpy"]["version"] = "2"
    old = document(row={"tracejit": 1.0, "numpy": 5.0})
    (change,) = compare.compare(new, old)
    assert change.relative is None


def test_noise_is_no_regression():
    old = document(row={"tracejit": 1.0})
    new = document(row={"tracejit": 1.0})
    new["rows"][0]["results"]["tracejit"]["rounds"] = [[(0.8, 1.3)[n % 2]] for n in range(1, 16)]
    (change,) = compare.compare(new, old)
    assert change.absolute.value > compare.TOLERANCE
    assert not change.regression


@pytest.mark.parametrize(("now", "code"), [(2.0, 1), (1.0, 0)])
def test_compare_exits_with_1_for_a_regression(
    now: float, code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for name, time in (("old", 1.0), ("new", now)):
        (tmp_path / name).write_text(json.dumps(document(row={"tracejit": time, "numpy": 5.0})))
    new, old = str(tmp_path / "new"), str(tmp_path / "old")
    assert command.main(["--load", new, "--compare", old]) == code
    assert f"{code} significant regressions of 1" in capsys.readouterr().out


def test_different_conditions_are_named():
    old, new = document(), document()
    new["machine"]["isa"] = "sse4.2"
    assert compare.differences(new, old) == ["isa: avx2 then, sse4.2 now"]


# -- the command -----------------------------------------------------------------------------------


def test_rows_are_picked_by_name_pattern_group_and_type():
    assert set(command.pick_rows([], None)) == {*ROWS} - {WARM_UP}
    assert command.pick_rows(["soft*", "jacobi"], None) == ("softmax", "jacobi")
    assert set(command.pick_rows(["memory"], None)) == {"copy", "triad"}
    assert all(ROWS[name].dtype == "f64" for name in command.pick_rows([], "f64"))
    with pytest.raises(errors.ValueArgumentError, match="no row is called sofmax"):
        command.pick_rows(["sofmax"], None)


def test_implementations_are_picked_with_tracejit_first():
    assert command.pick_implementations("jax", ["sse4.2"]) == ("tracejit", "tracejit@sse4.2", "jax")
    assert command.pick_implementations(None, [])[1:] == (OURS[1], *PEERS)
    with pytest.raises(errors.ValueArgumentError, match="no implementation is called cupy"):
        command.pick_implementations("cupy", [])
    assert split("tracejit@sse4.2") == ("tracejit", "sse4.2")


def test_unknown_levels_are_refused():
    with pytest.raises(errors.TargetError):
        command.pick_levels(["avx9000"])
    assert "generic" in command.pick_levels(["all"])


def test_all_libraries_get_the_same_threads():
    environ = environment("tracejit@generic", 3)
    assert environ["TRACEJIT_ISA"] == "generic"
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "TRACEJIT_NUM_THREADS", "NPROC")
    assert {environ[name] for name in names} == {"3"}


@pytest.mark.parametrize("arguments", [["--rounds", "0"], ["--limit", "-1"]])
def test_numbers_must_be_positive(arguments: list[str]):
    with pytest.raises(errors.ValueArgumentError, match="positive"):
        command.options_of(command.parser().parse_args(arguments))


def test_a_broken_results_file_is_an_error(tmp_path: Path):
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "b.json").write_text("{")
    for name in ("a.json", "b.json", "missing.json"):
        with pytest.raises(errors.ValueArgumentError):
            command.read_results(tmp_path / name)


def test_the_page_is_looked_for_before_measuring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(errors.ValueArgumentError, match="checkout"):
        command.main(["--write"])


def test_the_command_of_the_package_reaches_the_benchmarks(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as done:
        cli.app(["bench", "--list"])
    assert done.value.code == 0
    assert "softmax" in capsys.readouterr().out


# -- reports ---------------------------------------------------------------------------------------


def full_document() -> dict[str, Any]:
    file = document(
        a={"tracejit": 1e-3, "neuralscript": 1e-3, "numpy": 5e-3, "copy": 5e-4},
        b={"tracejit": 1e-6, "tracejit@sse4.2": 2e-6, "jax": 5e-7},
    )
    file["rows"][0]["results"]["jax"] = {"status": "wrong", "detail": "1% differ"}
    file["rows"][0]["results"]["numba"] = {"status": "none"}
    return file


def test_the_terminal_shows_every_row():
    console = Console(record=True, width=200, file=io.StringIO())
    report.print_results(full_document(), console)
    text = console.export_text()
    for expected in ("5 ms (5×)", "wrong", "slower than jax: b", "tracejit@sse4.2"):
        assert expected in text


def test_the_page_keeps_what_surrounds_the_markers(tmp_path: Path):
    path = tmp_path / "page.md"
    path.write_text(f"before\n{page.BEGIN}\nstale\n{page.END}\nafter\n")
    page.write(full_document(), path)
    text = path.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "stale" not in text
    assert "| a |" in text
    page.write(full_document(), path)
    assert path.read_text() == text
    path.write_text("no markers")
    with pytest.raises(ValueError, match="markers"):
        page.write(full_document(), path)


def test_the_page_in_docs_has_the_markers():
    text = (Path(__file__).parents[1] / "docs" / "performance.md").read_text(encoding="utf-8")
    assert text.count(page.BEGIN) == text.count(page.END) == 1


def test_plots_come_as_png_and_svg(tmp_path: Path):
    pytest.importorskip("matplotlib")
    written = plots.draw(full_document(), tmp_path)
    assert {path.name for path in written} == {
        "peers.png", "peers.svg", "roofline.png", "roofline.svg",
    }  # fmt: skip
    assert all(path.stat().st_size > 1000 for path in written)


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.5e-7, "0.15 µs"), (2e-3, "2 ms"), (12.34, "12.3 s"), (None, "")]
)
def test_times_have_fitting_units(seconds: float | None, text: str):
    assert report.time_text(seconds) == text


# -- processes -------------------------------------------------------------------------------------


@pytest.fixture
def process(tmp_path: Path) -> Any:
    started: list[Process] = []

    def start(name: str) -> Process:
        started.append(Process(name, 1, tmp_path / "log"))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_a_worker_prepares_and_times(process: Callable[[str], Process], tmp_path: Path):
    path = tmp_path / "reference.npz"
    np.savez(path, *reference(ROWS["small"]))
    worker = process("numpy")
    first = worker.ask(60, do="prepare", row="small", reference=str(path))
    assert first["status"] == "ok"
    assert len(worker.ask(60, do="turn", samples=2)["samples"]) == 2
    np.savez(path, np.zeros(16))
    wrong = worker.ask(60, do="prepare", row="small", reference=str(path))
    assert wrong["status"] == "wrong"
    assert worker.ask(60, do="prepare", row="no such row", reference="")["status"] == "error"


def test_a_row_that_a_library_lacks_has_no_status_to_report(
    process: Callable[[str], Process], tmp_path: Path
):
    path = tmp_path / "reference.npz"
    np.savez(path, *reference(ROWS["small"]))
    answer = process("neuralscript").ask(60, do="prepare", row="small", reference=str(path))
    assert answer == {"status": "none"}


def test_an_overdue_worker_is_stopped_and_starts_again(process: Callable[[str], Process]):
    worker = process("numpy")
    assert worker.ask(60)["status"] == "ok"
    late = worker.ask(0.0, do="machine", threads=1)
    assert late["status"] == "overdue"
    assert worker.ask(60)["status"] == "ok"


def test_turns_are_shuffled_and_stop_with_the_first_failure():
    log: list[str] = []

    class Fake:
        def __init__(self, name: str, works: bool = True):
            self.name, self.works = name, works

        def ask(self, limit: float, **request: Any) -> dict[str, Any]:
            log.append(self.name)
            return {"status": "ok", "samples": [1.0]} if self.works else {"status": "died"}

    workers: Any = {name: Fake(name, name != "c") for name in "abcde"}
    results: dict[str, Any] = {name: {"status": "ok", "rounds": []} for name in workers}
    order = random.Random(0)
    for _ in range(6):
        take_turns(list(workers), workers, results, order, 1)
    assert log.count("c") == 1
    assert results["c"] == {"status": "died", "rounds": []}
    assert all(len(results[name]["rounds"]) == 6 for name in "abde")
    later = [tuple(log[n : n + 4]) for n in range(5, len(log), 4)]
    assert len(set(later)) > 1
