"""Units through pint, loaded only where a program uses one.

A unit becomes a factor to SI base units and seven exponents. Programs compute in SI; no unit
exists after checking.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache, lru_cache
from typing import Any

from tracejit.frontend.neuralscript.lexer import SUPERSCRIPTS
from tracejit.frontend.neuralscript.types import BASE_UNITS, NO_UNIT, Unit

_DIMENSIONS = (
    "[length]",
    "[mass]",
    "[time]",
    "[current]",
    "[temperature]",
    "[substance]",
    "[luminosity]",
)
# Coherent derived units by their exponents of m, kg, s, A: used to print.
_DERIVED = {
    (1, 1, -2, 0): "N",
    (2, 1, -2, 0): "J",
    (2, 1, -3, 0): "W",
    (-1, 1, -2, 0): "Pa",
    (0, 0, 1, 1): "C",
    (2, 1, -3, -1): "V",
    (2, 1, -3, -2): "Ω",
    (-2, -1, 4, 2): "F",
    (0, 1, -2, -1): "T",
    (2, 1, -2, -1): "Wb",
    (2, 1, -2, -2): "H",
}
_WORDS = re.compile(r"[A-Z][a-z]+")
_FACTOR = re.compile(r"([^⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)([⁻⁰¹²³⁴⁵⁶⁷⁸⁹]*)")


class UnknownUnit(Exception):
    """``name`` is no unit. Internal: the checker turns it into a diagnostic."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


@cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry()  # pyright: ignore[reportUnknownVariableType]
    return registry


@lru_cache(maxsize=512)
def literal_unit(text: str) -> tuple[float, float, Unit]:
    """Return (factor, offset, unit) of a literal's unit: SI = value · factor + offset.

    ``text`` is factors with superscripts, joined by ``/``, ``⋅`` or ``·``; each ``/`` divides by
    the one factor after it. Errors: UnknownUnit.
    """
    parts = re.split(r"([/⋅·])", text)
    spelled = ""
    for part in parts:
        if part in "/⋅·":
            spelled += "/" if part == "/" else "*"
            continue
        found = _FACTOR.fullmatch(part)
        if found is None:
            raise UnknownUnit(part)
        name, exponent = found.groups()
        power = "".join(SUPERSCRIPTS[c] for c in exponent)
        spelled += f"{_spelling(name)}**({power})" if power else _spelling(name)
    return _convert(spelled, text)


def _spelling(name: str) -> str:
    return {"°C": "degC", "°F": "degF", "°": "degree", "Ω": "ohm", "%": "percent"}.get(name, name)


def _convert(spelled: str, shown: str) -> tuple[float, float, Unit]:
    registry = _registry()
    try:
        unit = registry.parse_units(spelled)
        zero = registry.Quantity(0.0, unit).to_base_units()
        one = registry.Quantity(1.0, unit).to_base_units()
        dimensions = dict(unit.dimensionality)
    except Exception as error:  # pint raises its own, tokenizer and attribute errors alike
        raise UnknownUnit(shown) from error
    if any(name not in _DIMENSIONS for name in dimensions):
        raise UnknownUnit(shown)
    exponents = tuple(
        Fraction(dimensions.get(name, 0)).limit_denominator(64) for name in _DIMENSIONS
    )
    offset = float(zero.magnitude)
    factor = _exact(float(one.magnitude) - offset)
    return factor, offset, exponents


def _exact(factor: float) -> float:
    """Drop the last-bit noise of a product of powers of ten (0.001 * 1000 and the like)."""
    return float(f"{factor:.15g}")


@lru_cache(maxsize=512)
def named_unit(name: str) -> Unit | None:
    """Return the unit that a type name such as ``Meter`` or ``MeterPerSecondSquared`` means."""
    words = _WORDS.findall(name)
    if not words or "".join(words) != name:
        return None
    spelled, divide = "", False
    for word in words:
        if word == "Per":
            divide = True
        elif word in ("Squared", "Cubed") and spelled:
            spelled += "**2" if word == "Squared" else "**3"
        else:
            spelled += ("/" if divide else "*" if spelled else "") + word.lower()
            divide = False
    try:
        factor, _, unit = _convert(spelled, name)
    except UnknownUnit:
        return None
    del factor  # a type names a dimension: the values are in SI
    return unit


def multiply(left: Unit, right: Unit, sign: int = 1) -> Unit:
    return tuple(a + sign * b for a, b in zip(left, right, strict=True))


def power(unit: Unit, exponent: Fraction) -> Unit:
    return tuple(a * exponent for a in unit)


def show_unit(unit: Unit) -> str:
    """Return the SI spelling: a derived unit where one fits, else base units, "" for none."""
    if unit == NO_UNIT:
        return ""
    key = tuple(int(e) if e.denominator == 1 else e for e in unit)
    if key[4:] == (0, 0, 0) and key[:4] in _DERIVED:
        return _DERIVED[key[:4]]  # pyright: ignore[reportArgumentType]
    above = [_factor(n, e) for n, e in zip(BASE_UNITS, unit, strict=True) if e > 0]
    below = [(n, e) for n, e in zip(BASE_UNITS, unit, strict=True) if e < 0]
    text = "⋅".join(above)
    if not above:
        return "⋅".join(_factor(n, e) for n, e in below)
    return text + "".join(f"/{_factor(n, -e)}" for n, e in below)


def _factor(name: str, exponent: Fraction) -> str:
    if exponent == 1:
        return name
    if exponent.denominator != 1:
        return f"{name}^({exponent})"
    back = {value: key for key, value in SUPERSCRIPTS.items()}
    return name + "".join(back[c] for c in str(exponent.numerator))
