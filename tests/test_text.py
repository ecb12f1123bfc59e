"""The text form of graphs: it prints, it parses, and nothing is lost on the way."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracejit.ops
from tracejit.errors import Location, UnsupportedError, ValueArgumentError
from tracejit.graph.emit import Emit
from tracejit.graph.graph import Graph
from tracejit.graph.node import Node, constant, data, iota, make, placeholder
from tracejit.graph.passes.order import fingerprint
from tracejit.graph.text import externals, node_text, parse, to_text, value_text
from tracejit.graph.verify import verify
from tracejit.runtime.interpreter import run_graph

assert tracejit.ops
e = Emit()


def round_trip(graph: Graph) -> Graph:
    """Return the graph read back; its text, structure and data are the same."""
    text = to_text(graph)
    back = parse(text, externals(graph))
    assert to_text(back, locations=False) == to_text(graph, locations=False)
    assert fingerprint(back) == fingerprint(graph)
    verify(back)
    return back


def test_the_documented_example() -> None:
    text = (
        'graph(%0 "x": float32[4, 3]) {\n'
        "  %1 = constant {value=2.0} : float32[]\n"
        "  %2 = multiply(%0, %1) : float32[4, 3]\n"
        "  %3 = sum(%2) {axis=(1,), keepdims=false} : float32[4]\n"
        "  return %3\n"
        "}\n"
    )
    graph = parse(text)
    assert to_text(graph) == text
    np.testing.assert_array_equal(run_graph(graph, [np.ones((4, 3), np.float32)])[0], [6.0] * 4)


def test_inputs_without_use_and_outputs_used_twice() -> None:
    x, y = placeholder(0, np.float32, (2,)), placeholder(1, np.int8, (), 'a "name" \\ with ünicode')
    back = round_trip(Graph([x, y], [x, x, e.exp(x)]))
    assert back.inputs[1].attrs["name"] == y.attrs["name"]
    assert back.outputs[0] is back.outputs[1] is back.inputs[0]
    round_trip(Graph([], []))


def test_locations_are_comments() -> None:
    x = placeholder(0, np.float32, (2,))
    y = make("tanh", (x,), None, Location("model.py", 12))
    assert "# model.py:12" in to_text(Graph([x], [y]))
    assert "#" not in to_text(Graph([x], [y]), locations=False)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (0.1, "float32"),
        (-0.0, "float64"),
        (float("inf"), "float16"),
        (float("-inf"), "float32"),
        (float("nan"), "float64"),
        (-float("nan"), "float32"),
        (5e-324, "float64"),
        (1.7976931348623157e308, "float64"),
        (2**64 - 1, "uint64"),
        (-(2**63), "int64"),
        (-128, "int8"),
        (True, "bool"),
        (complex(-0.0, float("nan")), "complex128"),
        (complex(float("inf"), -0.0), "complex64"),
    ],
)
def test_constants_keep_their_bits(value: Any, dtype: str) -> None:
    node = constant(value, dtype)
    # A constant is interned by its bits, so that the same bits give the same node.
    assert round_trip(Graph([], [node])).outputs[0] is node


def test_a_nan_keeps_its_payload() -> None:
    payload = struct.unpack(">d", bytes.fromhex("7ff8000000abcdef"))[0]
    node = constant(payload, "float64")
    assert "nan(0x7ff8000000abcdef)" in to_text(Graph([], [node]))
    assert round_trip(Graph([], [node])).outputs[0] is node


def test_small_data_stands_in_the_text() -> None:
    arrays = [
        np.array([1.5, -0.0, np.nan, -np.inf], np.float32),
        np.array([[True], [False]]),
        np.array(3, np.uint64),
        np.zeros((0, 3), np.int16),
        np.array([1 + 2j, complex(np.nan, -0.0)]),
    ]
    back = round_trip(Graph([], [data(a) for a in arrays]))
    for output, array in zip(back.outputs, arrays, strict=True):
        value = output.value
        assert value is not None
        assert (value.dtype, value.shape) == (array.dtype, array.shape)
        assert value.tobytes() == array.tobytes()


def test_large_data_is_external() -> None:
    array = np.arange(1000.0).reshape(10, 100)
    graph = Graph([], [e.exp(data(array))])
    text = to_text(graph)
    assert "@d0" in text
    assert len(text) < 200
    assert round_trip(graph).nodes[0].value is array
    with pytest.raises(ValueArgumentError, match="@d0 is not supplied"):
        parse(text)
    with pytest.raises(ValueArgumentError, match=r"supplied is float64\[3\]"):
        parse(text, {"d0": np.zeros(3)})


def test_every_kind_of_attribute() -> None:
    x = placeholder(0, np.float32, (4, 6))
    window = {"start": (3, 0), "size": (2, 6), "step": (-2, 1)}
    nodes: list[Node] = [
        e.slice(x, **window),
        e.cast(x, np.complex64),
        e.permute(x, axes=(1, 0)),
        e.argmax(x, axis=(0, 1), keepdims=True),
        iota((2, 3), 1, np.int32),
        e.concat(x, x, axis=1),
    ]
    round_trip(Graph([x], nodes))
    with pytest.raises(UnsupportedError, match="no text form"):
        value_text(frozenset())


literals = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=8,
)


@given(literals)
@settings(max_examples=200)
def test_literals_round_trip(value: Any) -> None:
    from tracejit.graph.text_parser import Parser

    parser = Parser(value_text(value), {})
    back = parser._literal(0)  # pyright: ignore[reportPrivateUsage]
    assert value_text(back) == value_text(value)
    assert type(back) is type(value)
    assert parser.token.kind == "end"


ERRORS = {
    "graph(%0": (1, 9, "expected ':'"),
    'graph(%0 "x": float32[4]) {\n  return %9\n}': (2, 10, "%9 is not defined above"),
    "graph() {\n  %0 = frobnicate : float32[]\n  return %0 }": (2, 8, "unknown op"),
    "graph(%0: float32[4]) {\n  %1 = exp(%0) : float64[4]\n return %1 }": (2, 18, "float32[4]"),
    "graph(%0: float32[4]) {\n  %0 = exp(%0) : float32[4]\n return %0 }": (2, 3, "defined twice"),
    "graph(%0: float32[4]) {\n  %1 = add(%0) : float32[4]\n return %1 }": (2, 8, "takes 2"),
    "graph(%0: nonsense[4]) { return %0 }": (1, 11, "unknown dtype"),
    "graph(%0: float32[-1]) { return %0 }": (1, 19, "non-negative"),
    "graph() { return } extra": (1, 20, "after the graph"),
    "graph() {\n  $ }": (2, 3, "unexpected character"),
    "graph() {\n  %0 = constant {value=1.5} : int32[]\n return %0 }": (2, 8, "not a value"),
    "graph() {\n  %0 = constant : int32[]\n return %0 }": (2, 8, "value"),
    "graph() {\n  %0 = iota {axis=3} : int32[2]\n return %0 }": (
        2,
        8,
        "axis 3 is not within rank 1",
    ),
    "graph() { %0 = constant {value=" + "(" * 500 + "} : int8[] return %0 }": (1, 97, "deeper"),
    "": (1, 1, "expected 'graph'"),
}


@pytest.mark.parametrize("text", ERRORS)
def test_errors_point_at_the_place(text: str) -> None:
    line, column, what = ERRORS[text]
    with pytest.raises(ValueArgumentError) as caught:
        parse(text)
    message = str(caught.value)
    assert f"line {line}, column {column}:" in message
    assert what in message
    shown = message.splitlines()
    assert shown[2].index("^") == column + 1


@given(st.text(alphabet='graph(%01:float32[4]){}="x" returnadd,+-.e#@\n\\', max_size=60))
@settings(max_examples=200)
def test_any_text_parses_or_raises_its_error(text: str) -> None:
    for candidate in (text, "graph(%0: float32[4]) {\n %1 = " + text):
        with suppress(ValueArgumentError):  # and nothing else
            parse(candidate)


def test_a_node_prints_alone() -> None:
    x = placeholder(0, np.float32, (2,))
    assert node_text(e.exp(x), {}) == "%? = exp(%?) : float32[2]"


def test_the_grammar_of_the_documentation_is_the_parser_s() -> None:
    """The example in docs/ir.md parses, and prints as it stands there."""
    page = (Path(__file__).parents[1] / "docs" / "ir.md").read_text(encoding="utf-8")
    block = page.split("```text\n")[1].split("```")[0]
    assert to_text(parse(block)) == block
