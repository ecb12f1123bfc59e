"""The workloads. Importing this package registers all rows in ``ROWS``, in the table's order."""

# ruff: noqa: I001  (the imports are in the order of the table)
from .base import ROWS, WARM_UP, Row, arguments_of, check, leaves, reference
from . import elementwise, reductions, pairs, stencils, gathers, records, products, convolution
from . import networks, kernels

__all__ = [
    "ROWS",
    "WARM_UP",
    "Row",
    "arguments_of",
    "check",
    "convolution",
    "elementwise",
    "gathers",
    "kernels",
    "leaves",
    "networks",
    "pairs",
    "products",
    "records",
    "reductions",
    "reference",
    "stencils",
]
