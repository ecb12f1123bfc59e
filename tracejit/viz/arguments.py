"""Example arguments: ``--arg f32[8,8]``, and those that a NeuralScript signature implies."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterable
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tracejit.errors import ArgumentError, ValueArgumentError
from tracejit.frontend.python import spec
from tracejit.frontend.trees import Spec

_DTYPES: dict[str, str] = {
    "bool": "bool", "usize": "int64",
    **{f"f{n}": f"float{n}" for n in (16, 32, 64)},
    **{f"{kind[0]}{n}": f"{kind}{n}" for kind in ("int", "uint") for n in (8, 16, 32, 64)},
    **{f"c{n}": f"complex{n}" for n in (64, 128)},
}  # fmt: skip
_NAMES = {**_DTYPES, **{long: long for long in _DTYPES.values()}}

_SPEC = re.compile(r"(?P<dtype>\w+)\s*(?:\[(?P<sizes>[^\]]*)\])?")
_EXAMPLE = "for example --arg 'f32[8,8]', --arg 0.5, --arg x=i64[10] or --arg x.npy"


class Examples(NamedTuple):
    """Arguments of a call: by position, and by name."""

    positional: tuple[Any, ...]
    named: dict[str, Any]


def parse(items: Iterable[str]) -> Examples:
    """Read ``--arg`` items: ``f32[8,8]``, a Python literal, ``FILE.npy``, each perhaps ``NAME=…``.

    Raises ValueArgumentError for what is none of these.
    """
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if equals and name.strip().isidentifier():
            named[name.strip()] = value(text.strip(), item)
        elif named:
            raise ValueArgumentError(
                f"--arg {item}: an argument without a name stands after a named one",
                hint="put the named arguments last",
            )
        else:
            positional.append(value(item.strip(), item))
    return Examples(tuple(positional), named)


def value(text: str, item: str) -> Any:
    """Return one example argument: a ``Spec``, an array from a file, or a literal."""
    found = _SPEC.fullmatch(text)
    if found is not None and found["dtype"] in _NAMES:
        return spec(_sizes(found["sizes"] or "", item), _NAMES[found["dtype"]])
    if found is not None and found["sizes"] is not None:
        raise ValueArgumentError(
            f"--arg {item}: no dtype {found['dtype']!r}; there are {', '.join(_DTYPES)}",
            hint=_EXAMPLE,
        )
    if text.endswith(".npy"):
        if not Path(text).is_file():
            raise ValueArgumentError(f"--arg {item}: no file {text}", hint=_EXAMPLE)
        return np.load(text, allow_pickle=False)
    if text in ("true", "false"):
        return text == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueArgumentError(
            f"--arg {item}: not a dtype with a shape, a number, or a file", hint=_EXAMPLE
        ) from None


def _sizes(text: str, item: str) -> tuple[int, ...]:
    parts = [p.strip() for p in text.split(",")] if text.strip() else []
    if parts and not parts[-1]:
        parts.pop()  # f32[8,]
    if not all(p.isdecimal() for p in parts):
        raise ValueArgumentError(
            f"--arg {item}: sizes are non-negative integers, separated by commas", hint=_EXAMPLE
        )
    return tuple(int(p) for p in parts)


def filled(example: Any) -> Any:
    """Return an array of ones for a ``Spec``: what a program is run with when nothing is given."""
    return np.ones(example.shape, example.dtype) if isinstance(example, Spec) else example


# -- from a signature ------------------------------------------------------------------------------

# Sizes for the const generics of a signature, each another, so that axes can be told apart.
_EXAMPLE_SIZES = (64, 48, 32, 24, 16)
_ARRAY = re.compile(r"&?\s*(?:mut\s+)?(Vector|Matrix|Tensor)\s*<\s*(\w+)\s*(?:,\s*(.*))?>")
_INTEGERS = re.compile(r"usize|isize|[iu](8|16|32|64)")


def implied(function: Callable[..., Any]) -> Examples:
    """Return example arguments for a NeuralScript function, from its declared types.

    A generic element type is f32, generic sizes are small numbers, parameters with a default
    keep it. Raises ArgumentError for a type that no example is known for.
    """
    supply = cycle(_EXAMPLE_SIZES)
    sizes: dict[str, int] = {}

    def size(name: str) -> int:
        if name.isdecimal():
            return int(name)
        if name not in sizes:
            sizes[name] = next(supply)
        return sizes[name]

    examples: list[Any] = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.default is not inspect.Parameter.empty:
            break
        declared = "" if parameter.annotation is parameter.empty else str(parameter.annotation)
        array = _ARRAY.fullmatch(declared.strip())
        if array is not None:
            kind, element, rest = array.groups()
            default = {"Vector": "N", "Matrix": "M, N", "Tensor": "M, N"}[kind]
            names = [n.strip() for n in (rest or default).strip("[] ").split(",")]
            shape = tuple(size(n) for n in names if re.fullmatch(r"\w+", n))
            if len(shape) == len(names):
                examples.append(spec(shape, _DTYPES.get(element, "float32")))
                continue
        elif _INTEGERS.fullmatch(declared):
            examples.append(4)
            continue
        elif re.fullmatch(r"\w+", declared) and declared != "bool":
            examples.append(0.5)
            continue
        raise ArgumentError(
            f"no example is known for the parameter {parameter.name}: {declared}",
            hint=f"give every argument by --arg; {_EXAMPLE}",
        )
    return Examples(tuple(examples), {})
