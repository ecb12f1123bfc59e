"""The array functions, by family; ``methods`` gives ``Tensor`` those that are methods too.

A module is loaded when one of its functions is first asked for: a program needs few of them.
"""

import importlib
from typing import TYPE_CHECKING, Any

# The modules need it whole, with its methods.
import tracejit.tensor  # noqa: F401 # pyright: ignore[reportUnusedImport]

if TYPE_CHECKING:
    from tracejit.functions import convolution as convolution
    from tracejit.functions import counting as counting
    from tracejit.functions import creation as creation
    from tracejit.functions import dtypes as dtypes
    from tracejit.functions import elementwise as elementwise
    from tracejit.functions import fft as fft
    from tracejit.functions import gather as gather
    from tracejit.functions import images as images
    from tracejit.functions import indexing as indexing
    from tracejit.functions import joining as joining
    from tracejit.functions import linalg as linalg
    from tracejit.functions import movement as movement
    from tracejit.functions import nn as nn
    from tracejit.functions import ordering as ordering
    from tracejit.functions import products as products
    from tracejit.functions import pytorch as pytorch
    from tracejit.functions import random as random
    from tracejit.functions import reductions as reductions
    from tracejit.functions import sampled as sampled

_MODULES = (
    "convolution", "counting", "creation", "dtypes", "elementwise", "fft", "gather", "images",
    "indexing", "joining", "linalg", "movement", "nn", "ordering", "products", "pytorch", "random",
    "reductions", "sampled",
)  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
