"""What constant sizes gain (tier 2): the same program with sizes as arguments, and in the code."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

import tracejit as tj
from tracejit.runtime import specialise
from tracejit.runtime.executable import Executable

from .figures import Figure
from .report import time_text
from .section import Section

F32 = np.float32
# Seconds that a sample takes, of as many calls as fit.
SAMPLE_S = 2e-4

Program = tuple[Callable[..., Any], tuple[Any, ...]]


def normal(*shape: int, dtype: Any = F32) -> Any:
    return np.random.default_rng(0).normal(size=shape).astype(dtype)


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x: Any) -> Any:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + F32(1e-5))


def stencil(u: Any) -> Any:
    around = u[:-2, 1:-1] + u[2:, 1:-1] + u[1:-1, :-2] + u[1:-1, 2:]
    return u[1:-1, 1:-1] + F32(0.1) * (around - 4 * u[1:-1, 1:-1])


def k_means(points: Any, centres: Any) -> Any:
    return ((points[:, None, :] - centres[None, :, :]) ** 2).sum(axis=2).argmin(axis=1)


def mlp(x: Any, *weights: Any) -> Any:
    for w in weights[:-1]:
        x = np.maximum(x @ w, 0)
    return x @ weights[-1]


def normalise_columns(x: Any) -> Any:
    return (x - x.mean(axis=0)) / x.std(axis=0)


def forces(p: Any) -> Any:
    d = p[None, :, :] - p[:, None, :]
    r2 = (d * d).sum(axis=2) + 0.01
    return (d / (r2 * np.sqrt(r2))[:, :, None]).sum(axis=1)


def attention(q: Any, k: Any, v: Any) -> Any:
    return softmax(q @ k.swapaxes(-1, -2) * F32(0.18)) @ v


def depthwise(x: Any, w: Any) -> Any:
    return tj.conv2d(x, w, padding=1, groups=8)


def convolution(x: Any, w: Any) -> Any:
    return tj.conv2d(x, w, padding=1)


PROGRAMS: dict[str, Program] = {
    "mean of rows, 100×30": (lambda x: x.mean(axis=1), (normal(100, 30),)),
    "depthwise 3×3, 8×28×28": (depthwise, (normal(1, 8, 28, 28), normal(8, 1, 3, 3))),
    "5-point stencil, 64×64": (stencil, (normal(64, 64),)),
    "transpose, 33×70": (lambda x: x.T + 0, (normal(33, 70),)),
    "100 products of 4×4": (np.matmul, (normal(100, 4, 4), normal(100, 4, 4))),
    "softmax, 64×100": (softmax, (normal(64, 100),)),
    "softmax, 512×16": (softmax, (normal(512, 16),)),
    "k-means, 500×8 to 10": (k_means, (normal(500, 8), normal(10, 8))),
    "cumulative sums, 20×50": (lambda x: np.cumsum(x, axis=1), (normal(20, 50),)),
    "layer norm, 32×768": (layer_norm, (normal(32, 768),)),
    "MLP, 8×64 → 32 → 10": (mlp, (normal(8, 64), normal(64, 32), normal(32, 10))),
    "MLP, 32×784 → 128 → 10": (mlp, (normal(32, 784), normal(784, 128), normal(128, 10))),
    "attention, 4×64×32": (attention, (normal(4, 64, 32),) * 3),
    "convolution 3×3, 8 → 16, 28×28": (convolution, (normal(1, 8, 28, 28), normal(16, 8, 3, 3))),
    "n-body, 64 bodies f64": (forces, (normal(64, 3, dtype=np.float64),)),
    "a·2 + b, 1000": (lambda a, b: a * 2 + b, (normal(1000), normal(1000))),
    "columns normalised, 200×20": (normalise_columns, (normal(200, 20),)),
}


class Raced:
    """A program's two kinds of code, and the least time of each so far."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]):
        self.arrays = list(arguments)
        self.executable: Executable = tj.trace(function, *arguments).executable
        self.tickets = [specialise.request(call) for call in self.executable.calls]
        self.least = [float("inf"), float("inf")]

    def race(self) -> None:
        """Time each kind of code once."""
        special = [ticket.result() for ticket in self.tickets]
        for number, codes in enumerate(((), special)):
            self.executable.use(codes)
            self.least[number] = min(self.least[number], self._seconds())

    def _seconds(self) -> float:
        run, arrays, calls = self.executable.run, self.arrays, 0
        run(arrays)
        started = now = time.perf_counter()
        while now - started < SAMPLE_S:
            run(arrays)
            calls += 1
            now = time.perf_counter()
        return (now - started) / calls


def measure(rounds: int) -> Section:
    with tj.num_threads(1):
        raced = {name: Raced(*program) for name, program in PROGRAMS.items()}
        for one in raced.values():
            one.race()
        for _ in range(rounds):
            for one in raced.values():
                one.race()
    gains = {name: one.least[0] / one.least[1] for name, one in raced.items()}
    order = sorted(gains, key=lambda name: -gains[name])
    kept = sum(gain >= specialise.GAIN for gain in gains.values())
    return Section(
        "Constant sizes",
        f"One thread, float32 unless it says so; least times of {rounds} interleaved rounds. What "
        f"is less than {specialise.GAIN} times as fast is dropped after its trial.",
        [
            Figure(f"programs of {len(gains)} that keep their specialised code", kept, "", 1, True),
            Figure("the largest gain", max(gains.values()), "×", specialise.GAIN, at_least=True),
        ],
        ["program", "sizes as arguments", "constant", "gain"],
        [[n, *map(time_text, raced[n].least), f"{gains[n]:.2f}×"] for n in order],
    )
