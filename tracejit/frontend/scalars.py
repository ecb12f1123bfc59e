"""Traced scalars: arguments that were Python or NumPy scalars.

Python's floats are weak in NumPy's promotion (NEP 50): ``float32_array * 0.5`` stays float32.
A traced float keeps that: it is a 0-d float64 tensor that promotes like the Python type, and
arithmetic of weak scalars alone stays weak, as float with float is a float. Scalars never change
in place; ``x += 1`` binds ``x`` anew.
"""

from __future__ import annotations

from typing import Any

from tracejit.graph.node import Node
from tracejit.tensor import Tensor, wrap
from tracejit.tracing import Trace

_PYTHON = (bool, int, float, complex)


class ScalarTensor(Tensor):
    """A traced NumPy scalar: a 0-d tensor that in-place operators rebind."""

    __slots__ = ()

    @classmethod
    def of(cls, node: Node, trace: Trace | None) -> ScalarTensor:
        """Return a handle on a 0-d node."""
        handle = wrap(node, trace)
        scalar: ScalarTensor = object.__new__(cls)
        for name in ("_birth", "_node", "_trace", "_version", "_view"):
            setattr(scalar, name, getattr(handle, name))
        return scalar

    def _inplace(self, name: str, other: Any) -> Tensor:
        return self._binary(name, other)


class WeakScalar(ScalarTensor):
    """A traced Python float or complex. ``weak`` is the type it promotes as."""

    __slots__ = ()

    @property
    def weak(self) -> type:
        return complex if self.dtype.kind == "c" else float

    def _unary(self, name: str) -> Tensor:
        return _weak(super()._unary(name))

    def _binary(self, name: str, other: Any) -> Tensor:
        result = super()._binary(name, other)
        return _weak(result) if isinstance(other, (WeakScalar, *_PYTHON)) else result

    def _reflected(self, name: str, other: Any) -> Tensor:
        result = super()._reflected(name, other)
        return _weak(result) if isinstance(other, (WeakScalar, *_PYTHON)) else result


def _weak(result: Tensor) -> Tensor:
    """Return ``result`` as a weak scalar where Python's would be a float or complex."""
    if result is NotImplemented or result.dtype.kind not in "fc":
        return result
    return WeakScalar.of(result.node, result.traced_in)
