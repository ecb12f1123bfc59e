"""The reader of the graph's text form; ``graph.text.parse`` is the way in."""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np

from tracejit.errors import InternalError, TracejitError, ValueArgumentError
from tracejit.graph.graph import Graph, reachable
from tracejit.graph.node import Node, constant, data, iota, make, placeholder
from tracejit.graph.text import type_text
from tracejit.ops.dtypes import named
from tracejit.ops.table import OPS, Array, DType, Shape

_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|\#[^\n]*)
    | (?P<newline>\n)
    | (?P<value>%[0-9]+)
    | (?P<external>@[A-Za-z_][A-Za-z0-9_]*)
    | (?P<number>-?(?:[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|inf\b|nan\b(?:\(0x[0-9a-f]{16}\))?))
    | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
    | (?P<string>"(?:[^"\\\n]|\\.)*")
    | (?P<mark>[()\[\]{}=:,])""",
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u\{([0-9a-f]+)\}|(.))")
# Tuples nest; a text of brackets only must not exhaust the stack.
_DEPTH = 64


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class Parser:
    """Recursive descent over the tokens of one graph."""

    def __init__(self, text: str, arrays: Mapping[str, Array]):
        self.text = text
        self.arrays = arrays
        self.tokens = self._tokenise()
        self.at = 0
        self.values: dict[str, Node] = {}

    # -- tokens ------------------------------------------------------------------------------------

    def _tokenise(self) -> list[_Token]:
        tokens: list[_Token] = []
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                self._fail(f"unexpected character {self.text[position]!r}", position)
            kind = match.lastgroup or ""
            if kind not in ("space", "newline"):
                tokens.append(_Token(kind, match.group(), position))
            position = match.end()
        tokens.append(_Token("end", "end of text", position))
        return tokens

    def _fail(self, message: str, position: int) -> NoReturn:
        line = self.text.count("\n", 0, position) + 1
        begin = self.text.rfind("\n", 0, position) + 1
        source = self.text[begin:].split("\n", 1)[0]
        column = position - begin + 1
        pointer = " " * (column - 1) + "^"
        raise ValueArgumentError(
            f"graph text, line {line}, column {column}: {message}\n  {source}\n  {pointer}"
        )

    @property
    def token(self) -> _Token:
        return self.tokens[self.at]

    def _take(self, kind: str, wanted: str) -> str:
        token = self.token
        if token.kind != kind:
            self._fail(f"expected {wanted}, found {token.text!r}", token.start)
        self.at += 1
        return token.text

    def _mark(self, text: str) -> None:
        if not self._accept(text):
            self._fail(f"expected {text!r}, found {self.token.text!r}", self.token.start)

    def _accept(self, text: str) -> bool:
        if self.token.text == text and self.token.kind in ("mark", "name"):
            self.at += 1
            return True
        return False

    # -- grammar -----------------------------------------------------------------------------------

    def graph(self) -> Graph:
        """``graph ::= "graph" "(" parameters ")" "{" statement* "return" values "}"``"""
        self._mark("graph")
        self._mark("(")
        inputs: list[Node] = []
        while not self._accept(")"):
            if inputs:
                self._mark(",")
            inputs.append(self._parameter(len(inputs)))
        self._mark("{")
        while not self._accept("return"):
            self._statement()
        outputs: list[Node] = []
        while not self._accept("}"):
            if outputs:
                self._mark(",")
            outputs.append(self._value())
        if self.token.kind != "end":
            self._fail(f"unexpected {self.token.text!r} after the graph", self.token.start)
        graph = Graph(inputs, outputs)
        needed = set(reachable(outputs))
        # Interned nodes may be older than the text; its own order is the one to keep.
        graph.nodes = [n for n in dict.fromkeys(self.values.values()) if n in needed]
        return graph

    def _parameter(self, index: int) -> Node:
        start = self.token.start
        name = self._take("value", "a value such as %0")
        label = self._string() if self.token.kind == "string" else ""
        self._mark(":")
        dtype, shape = self._type()
        return self._define(name, placeholder(index, dtype, shape, label), start)

    def _statement(self) -> None:
        """``statement ::= value "=" op operands? payload? attributes? ":" type``"""
        start = self.token.start
        name = self._take("value", "a statement (%0 = …) or return")
        self._mark("=")
        op_start = self.token.start
        op = self._take("name", "the name of an op")
        if op not in OPS or op == "input":
            self._fail(f"unknown op {op!r}", op_start)
        operands = self._operands()
        payload_start = self.token.start
        payload = self._payload() if op == "data" else None
        attrs = self._attributes()
        self._mark(":")
        type_start = self.token.start
        dtype, shape = self._type()
        try:
            node = self._make(op, operands, attrs, dtype, shape, payload)
        except (KeyError, TypeError, ValueError, OverflowError, TracejitError) as error:
            if isinstance(error, ValueArgumentError) and "graph text" in error.message:
                raise
            message = error.message if isinstance(error, TracejitError) else str(error)
            self._fail(f"{op}: {message}", payload_start if payload is not None else op_start)
        if (node.dtype, node.shape) != (dtype, shape):
            self._fail(f"{op} gives {type_text(node.dtype, node.shape)}", type_start)
        self._define(name, node, start)

    def _make(
        self,
        op: str,
        operands: list[Node],
        attrs: dict[str, Any],
        dtype: DType,
        shape: Shape,
        payload: Any,
    ) -> Node:
        match op:
            case "constant":
                return _constant(attrs, dtype)
            case "data":
                return data(_array(payload, dtype, shape))
            case "iota":
                return iota(shape, _axis(attrs["axis"], shape), dtype)
            case _:
                return make(op, operands, attrs)

    def _define(self, name: str, node: Node, start: int) -> Node:
        if name in self.values:
            self._fail(f"{name} is defined twice", start)
        self.values[name] = node
        return node

    def _value(self) -> Node:
        start = self.token.start
        name = self._take("value", "a value such as %0")
        if name not in self.values:
            self._fail(f"{name} is not defined above", start)
        return self.values[name]

    def _operands(self) -> list[Node]:
        operands: list[Node] = []
        if self._accept("("):
            while not self._accept(")"):
                if operands:
                    self._mark(",")
                operands.append(self._value())
        return operands

    def _payload(self) -> Any:
        """``payload ::= external | "[" literals "]"``"""
        token = self.token
        if token.kind == "external":
            self.at += 1
            if token.text[1:] not in self.arrays:
                self._fail(f"the array {token.text} is not supplied", token.start)
            return self.arrays[token.text[1:]]
        self._mark("[")
        values: list[Any] = []
        while not self._accept("]"):
            if values:
                self._mark(",")
            values.append(self._literal(0))
        return values

    def _attributes(self) -> dict[str, Any]:
        attrs: dict[str, Any] = {}
        if self._accept("{"):
            while not self._accept("}"):
                if attrs:
                    self._mark(",")
                start = self.token.start
                name = self._take("name", "the name of an attribute")
                if name in attrs:
                    self._fail(f"attribute {name} stands twice", start)
                self._mark("=")
                attrs[name] = self._literal(0)
        return attrs

    def _type(self) -> tuple[DType, Shape]:
        """``type ::= dtype "[" sizes "]"``"""
        start = self.token.start
        quoted = self.token.kind == "string"
        name = self._string() if quoted else self._take("name", "a dtype such as float32")
        try:
            dtype = named(name)
        except TypeError:
            self._fail(f"unknown dtype {name!r}", start)
        self._mark("[")
        sizes: list[int] = []
        while not self._accept("]"):
            if sizes:
                self._mark(",")
            start = self.token.start
            size = self._take("number", "a size")
            if not size.isdigit():
                self._fail(f"a size is a non-negative integer, found {size}", start)
            sizes.append(int(size))
        return dtype, tuple(sizes)

    # -- literals ----------------------------------------------------------------------------------

    def _literal(self, depth: int) -> Any:
        token = self.token
        if depth > _DEPTH:
            self._fail(f"tuples nest deeper than {_DEPTH}", token.start)
        if token.kind == "number":
            self.at += 1
            return _number(token.text)
        if token.kind == "string":
            return self._string()
        if self._accept("("):
            return self._tuple(depth)
        if token.kind == "name" and token.text in _WORDS:
            self.at += 1
            return _WORDS[token.text]
        if self._accept("complex"):
            self._mark("(")
            real = _number(self._take("number", "a number"))
            self._mark(",")
            imaginary = _number(self._take("number", "a number"))
            self._mark(")")
            return complex(real, imaginary)
        self._fail(f"expected a value, found {token.text!r}", token.start)

    def _tuple(self, depth: int) -> tuple[Any, ...]:
        items: list[Any] = []
        while not self._accept(")"):
            items.append(self._literal(depth + 1))
            if not self._accept(","):
                self._mark(")")
                break
        return tuple(items)

    def _string(self) -> str:
        text = self._take("string", "a string")[1:-1]
        return _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else m[2], text)


_WORDS: dict[str, Any] = {"true": True, "false": False, "none": None}


def _number(text: str) -> int | float:
    if "nan(" in text:
        return struct.unpack(">d", bytes.fromhex(text[text.index("x") + 1 : -1]))[0]
    if text == "-nan":
        # float("-nan") keeps the sign on every platform NumPy supports; negation does too.
        return -float("nan")
    return int(text) if text.lstrip("-").isdigit() else float(text)


def _constant(attrs: dict[str, Any], dtype: DType) -> Node:
    value = attrs["value"]
    if dtype.kind in "iu" and not isinstance(value, int):
        raise InternalError(f"{value!r} is not a value of {dtype}")
    return constant(value, dtype)


def _axis(axis: Any, shape: Shape) -> int:
    if not isinstance(axis, int) or not 0 <= axis < len(shape):
        raise InternalError(f"axis {axis!r} is not within rank {len(shape)}")
    return axis


def _array(payload: Any, dtype: DType, shape: Shape) -> Array:
    if isinstance(payload, np.ndarray):
        found = cast(Array, payload)
        if found.dtype != dtype or found.shape != shape:
            raise InternalError(f"the array supplied is {type_text(found.dtype, found.shape)}")
        return found
    array = np.empty(len(payload), dtype)
    for i, item in enumerate(payload):
        array[i] = item
    return array.reshape(shape)
