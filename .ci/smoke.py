"""Run an installed tracejit natively; exits 1 with an assertion if anything fell back to NumPy."""

from pathlib import Path

import numpy as np

import tracejit as tj

here = Path(__file__).resolve().parents[1]
assert here not in Path(tj.__file__).resolve().parents, "this is the checkout, not the wheel"


@tj.jit(compile="now")
def gaussian(x, mean, width):
    return np.exp(-(((x - mean) / width) ** 2) / 2)


x = np.linspace(-4, 4, 1001, dtype=np.float32)
result = gaussian(x, np.float32(0.5), np.float32(1.5))
np.testing.assert_allclose(
    result, np.exp(-(((x.astype(np.float64) - 0.5) / 1.5) ** 2) / 2), rtol=1e-5
)
stats = gaussian.stats()
assert stats["kernels"] >= 1, stats
assert stats["fallbacks"] == 0, stats

rows = np.arange(12.0, dtype=np.float32).reshape(3, 4)
softmax = tj.kernels.softmax(rows)
expected = np.exp(rows.astype(np.float64))
np.testing.assert_allclose(softmax, expected / expected.sum(1, keepdims=True), rtol=1e-5)
print(f"tracejit {tj.__version__}: {stats['kernels']} native kernel, softmax of the wheel: right")
