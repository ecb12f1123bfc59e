"""Vector math in IR: elementary and special functions for f32 and f64 on every level.

``FUNCTIONS`` maps NumPy's ufunc names to emitters; ``call(b, name, *arguments)`` uses one in a
kernel. The whole range is covered: NaN, infinities, signed zeros and subnormals behave as C99
Annex F says. Measured errors stand in ``docs/numerics.md`` (written by ``benchmarks/ulp.py``).
No result depends on the lane that computes it. Status flags are not maintained.
"""

from __future__ import annotations

from tracejit.codegen.math import exponential as _exponential
from tracejit.codegen.math import gamma as _gamma
from tracejit.codegen.math import hyperbolic as _hyperbolic
from tracejit.codegen.math import logarithm as _logarithm
from tracejit.codegen.math import power as _power
from tracejit.codegen.math import roots as _roots
from tracejit.codegen.math import special as _special
from tracejit.codegen.math import trigonometric as _trigonometric
from tracejit.codegen.math.registry import FUNCTIONS, MathFunction, call

__all__ = ["FUNCTIONS", "MathFunction", "call"]

# Importing a file registers its functions.
_FILES = (_exponential, _logarithm, _hyperbolic, _power, _trigonometric, _special, _gamma, _roots)
