"""Results as pictures: bars against the peers, and a roofline chart."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .implementations import PEERS
from .results import Result, read, roof

# Colours that colour-blind readers can tell apart (Okabe, Ito 2008).
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00")


def draw(
    document: dict[str, Any], folder: Path, kinds: Sequence[str] = ("png", "svg")
) -> list[Path]:
    """Write both charts into ``folder``; raises ImportError without matplotlib."""
    matplotlib: Any = importlib.import_module("matplotlib")
    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "tracejit"  # the same results give the same file
    plt: Any = importlib.import_module("matplotlib.pyplot")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [row for row in read(document) if row.ours]
    written: list[Path] = []
    for name, figure in (
        ("peers", bars(plt, rows)),
        ("roofline", roofline(plt, rows, document["machine"])),
    ):
        for kind in kinds:
            path = folder / f"{name}.{kind}"
            metadata = {"Date": None} if kind == "svg" else None
            figure.savefig(path, bbox_inches="tight", dpi=120, metadata=metadata)
            written.append(path)
        plt.close(figure)
    return written


def bars(plt: Any, rows: Sequence[Result]) -> Any:
    """For each row, how many times tracejit's each peer's least time is (logarithmic)."""
    figure, axes = plt.subplots(figsize=(9, 1 + 0.55 * len(rows)))
    names = [peer for peer in PEERS if any(peer in row.timed for row in rows)]
    height = 0.85 / max(1, len(names))
    for number, peer in enumerate(names):
        places = [i for i, row in enumerate(rows) if peer in row.timed]
        ratios = [rows[i].least_ratio(rows[i].timed[peer]) for i in places]
        offsets = np.array(places) - 0.425 + (number + 0.5) * height
        colour = COLOURS[PEERS.index(peer) % len(COLOURS)]
        axes.barh(offsets, np.array(ratios) - 1, height, left=1, label=peer, color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("time / tracejit's time: right of 1 tracejit is faster")
    axes.legend(
        fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=len(PEERS), frameon=False
    )
    axes.grid(axis="x", which="major", alpha=0.3)
    return figure


def roofline(plt: Any, rows: Sequence[Result], machine: dict[str, Any]) -> Any:
    """Operations a second over operations a byte, under the measured roofs.

    Points above the memory's roof are rows that the caches hold.
    """
    figure, axes = plt.subplots(figsize=(9, 6))
    shown = [row for row in rows if row.flops and row.bytes]
    intensity = np.array([row.flops / row.bytes for row in shown])
    rate = np.array([row.flops / row.ours.least / 1e9 for row in shown if row.ours])
    low, high = min(intensity.min(), 0.05) / 2, intensity.max() * 3
    x = np.geomspace(low, high, 100)
    bandwidth = roof(machine["figures"], "GB/s")
    for dtype, style in (("f32", "-"), ("f64", "--")):
        peak = roof(machine["figures"], f"{dtype} GF/s")
        if peak and bandwidth:
            label = f"{dtype}: {peak:.0f} GF/s, {bandwidth:.1f} GB/s"
            axes.plot(x, np.minimum(peak, x * bandwidth), style, color="black", label=label)
    for dtype, colour, marker in (("f32", COLOURS[0], "o"), ("f64", COLOURS[5], "s")):
        mask = np.array([row.dtype == dtype for row in shown])
        axes.scatter(intensity[mask], rate[mask], color=colour, marker=marker)
    for row, i, r in zip(shown, intensity, rate, strict=True):
        axes.annotate(row.name, (i, r), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("operations / byte of arguments and results")
    axes.set_ylabel("GF/s")
    axes.legend(fontsize=8)
    axes.grid(which="major", alpha=0.3)
    return figure
