"""Blocking of products as measured: kept, validated, used; and how the fastest is searched."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gemm_harness import bind

import tracejit as tj
from tracejit import config, errors
from tracejit.codegen.target import BY_RULE, Blocking
from tracejit.record import replace
from tracejit.runtime import cache, cpu, tuner, tuning
from tracejit.runtime.tuner import Trial
from tracejit.runtime.tuning import Tuned

# Cuts even products of a few dozen rows: see ``test_gemm`` for what that is compared with.
SMALL = Blocking(1, 1, 1, 64, 64, 1, 1 << 12, 4)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """Keep what is measured in a folder of the test's own."""
    tuning.forget()
    with config.override(cache_dir=tmp_path):
        yield tmp_path
    tuning.forget()


def keep(blocking: Blocking, gain: float = 1.5) -> Path:
    return Path(tuning.keep(cpu.target().name, Tuned(blocking, gain), cpu.host()))


def test_what_is_kept_is_what_products_are_cut_by(folder: Path) -> None:
    assert cpu.target().blocking == BY_RULE
    by_rule = cpu.target()
    keep(SMALL)
    assert cpu.target().blocking == SMALL
    assert cpu.target() == by_rule.with_blocking(SMALL)
    names = {cache.name_of("gemm", target, 2) for target in (by_rule, cpu.target())}
    assert len(names) == 2  # kernels of one are not taken for those of the other


def test_products_are_right_and_explained(folder: Path) -> None:
    keep(SMALL)
    rng = np.random.default_rng(1)
    a, b = rng.standard_normal((150, 140)), rng.standard_normal((140, 130))
    function = tj.jit(lambda a, b: a @ b, compile="now")
    results = []
    for threads in (1, 2, 3):
        with tj.num_threads(threads):
            results.append(function(a, b))
    np.testing.assert_allclose(results[0], a @ b, rtol=1e-12, atol=1e-12)
    assert {r.tobytes() for r in results} == {results[0].tobytes()}
    explained = tj.explain(function, a, b)
    assert "ahead_columns 64" in explained.blocking
    assert "tracejit tune" in str(explained)
    assert tj.explain(tj.jit(lambda a: a + 1), a).blocking == ""


def test_which_numbers_decide_bits() -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((400, 1500), (1500, 520)))

    def product(blocking: Blocking) -> bytes:
        c = np.empty((400, 520), np.float32)
        bind(
            cpu.target().with_blocking(blocking).with_caches(32 << 10, 256 << 10, 8 << 20), a, b, c
        )()
        return c.tobytes()

    by_rule = product(BY_RULE)
    for knob in ("tile_panels", "share_panels", "direct_panels", "tile_work", "prefetch"):
        least, _ = tuning.LIMITS[knob]
        assert product(BY_RULE._replace(**{knob: least})) == by_rule, knob
    assert product(BY_RULE._replace(depth=1)) != by_rule  # so the others were not compared in vain


def test_levels_are_kept_side_by_side(folder: Path) -> None:
    keep(SMALL)
    tuning.keep("generic", Tuned(Blocking(depth=3), 1.1), cpu.host())
    assert cpu.target().blocking == SMALL
    if cpu.target().name != "generic":
        assert cpu.target("generic").blocking == Blocking(depth=3)


def test_nothing_of_another_processor_or_other_code_is_used(folder: Path) -> None:
    place = keep(SMALL)
    other = replace(cpu.host(), brand="another")
    assert tuning.stored(other) == {}
    kept = json.loads(place.read_text())
    place.write_text(json.dumps({**kept, "code": "0" * 40}))
    tuning.forget()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cpu.target().blocking == BY_RULE


@pytest.mark.parametrize("damage", [
    b"", b"{", b"[]", b"\x80\x04K\x01.", b"[" * 100_000,
    {"levels": 3}, {"levels": {"avx2": 1}}, {"levels": {"avx2": {"depth": 2, "gain": 1.0}}},
    {"depth": 0}, {"depth": "2"}, {"depth": True}, {"depth": 1 << 60}, {"gain": None},
    {"another": 1},
], ids=str)  # fmt: skip
def test_a_damaged_file_is_ignored_with_one_warning(folder: Path, damage: Any) -> None:
    place = keep(SMALL)
    if isinstance(damage, bytes):
        place.write_bytes(damage)
    else:
        kept = json.loads(place.read_text())
        level = kept["levels"][cpu.target().name]
        (kept if "levels" in damage else level).update(damage)
        place.write_text(json.dumps(kept))
    tuning.forget()
    with pytest.warns(RuntimeWarning, match="tracejit tune") as caught:
        first, second = cpu.target(), cpu.target()
    assert first.blocking == second.blocking == BY_RULE
    assert len(caught) == 1
    keep(SMALL)
    assert cpu.target().blocking == SMALL


def test_reset_brings_the_rules_back(folder: Path) -> None:
    keep(SMALL)
    assert tuning.reset(cpu.host())
    assert cpu.target().blocking == BY_RULE
    assert not tuning.reset(cpu.host())


def test_what_cannot_be_told_from_other_code_is_not_kept(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "fingerprint", lambda: None)
    with pytest.raises(errors.UnsupportedError, match="other code"):
        keep(SMALL)
    assert list(folder.iterdir()) == []


def _search(monkeypatch: pytest.MonkeyPatch, speeds: dict[Blocking, list[float]]) -> list[Any]:
    """Search with comparisons that give these ratios, one after the other; 1 for all others."""

    def compare(programs: Any, target: Any, tried: Sequence[Blocking], seconds: float):
        return [speeds.get(b, [1.0]).pop(0) if speeds.get(b) else 1.0 for b in tried]

    monkeypatch.setattr(tuner, "_compare", compare)
    return list(tuner.search([], cpu.target().with_blocking(BY_RULE), 0.0))


def test_what_is_faster_twice_is_taken_and_gains_multiply(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = BY_RULE._replace(ahead_columns=256)
    both = wide._replace(prefetch=8)
    *trials, best = _search(monkeypatch, {wide: [1.2, 1.25], both: [1.1, 1.1]})
    assert best.blocking == both
    assert best.gain == pytest.approx(1.2 * 1.1)
    assert [t for t in trials if t.taken] == [
        Trial("ahead_columns", 256, 1.2, taken=True), Trial("prefetch", 8, 1.1, taken=True)
    ]  # fmt: skip


def test_what_is_faster_once_only_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    *trials, best = _search(monkeypatch, {BY_RULE._replace(depth=3): [1.3, 1.01]})
    assert best == Tuned(BY_RULE, 1.0)
    assert not any(t.taken for t in trials)


def test_candidates_are_within_the_limits() -> None:
    assert set(tuner.CANDIDATES) == set(tuning.LIMITS) == set(Blocking._fields)
    for knob, values in tuner.CANDIDATES.items():
        assert getattr(BY_RULE, knob) in values
        least, largest = tuning.LIMITS[knob]
        assert all(least <= v <= largest for v in values)
