"""The drawn graph: the page, its data, and the exports."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, cast

import networkx
import numpy as np
import pytest
import quickjs

import tracejit as tj
from tracejit import config
from tracejit.errors import ArgumentError, ScriptError, UnsupportedError, ValueArgumentError
from tracejit.frontend.trees import Spec
from tracejit.graph.graph import Graph
from tracejit.graph.node import placeholder
from tracejit.runtime.engine import compile_graph
from tracejit.viz import arguments, command, export, model, page
from tracejit.viz.assets import asset

SVG = "{http://www.w3.org/2000/svg}"


def _block(x: Any, w: Any, names: Any) -> Any:
    """A softmax, a matrix product, a concat, and a step that runs through NumPy."""
    weights = np.exp(x - x.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    both = np.concatenate([weights @ w, x[::2]], axis=0)
    return both, np.sort(names, axis=0)


@pytest.fixture(scope="module")
def traced() -> Any:
    f32 = np.dtype(np.float32)
    return tj.trace(_block, Spec((16, 16), f32), Spec((16, 16), f32), Spec((7,), f32))


@pytest.fixture(scope="module")
def graph(traced: Any) -> model.Digraph:
    return model.view(model.Figure("block", traced.executable))


def _data(html: str) -> dict[str, Any]:
    """Return the data that a page holds."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    return cast("dict[str, Any]", json.loads(found[1]))


# -- the drawn graph ---------------------------------------------------------------------------


def test_every_value_and_step_is_drawn_and_operands_come_first(
    traced: Any, graph: model.Digraph
) -> None:
    values = model.values(graph)
    drawn = {d["number"] for d in values.values()}
    expected = {f"%{i}" for i, _ in enumerate(traced.executable.schedule.graph.nodes)}
    assert drawn == expected
    steps = graph.graph["steps"]
    assert len(steps) == len(traced.schedule.steps)
    assert {d["step"] for d in values.values()} == {None, *(s["id"] for s in steps)}
    position = {name: i for i, name in enumerate(values)}
    assert all(position[a] < position[b] for a, b in graph.edges)
    kinds = {s["kind"] for s in steps}
    assert {"rows", "matrix", "NumPy"} <= kinds
    assert {"input", "output", "op", "view"} <= {d["kind"] for d in values.values()}


def test_no_step_feeds_itself_through_the_outside(graph: model.Digraph) -> None:
    """Boxes that feed each other in a circle could not be laid out in layers."""
    values = model.values(graph)
    boxes: Any = networkx.DiGraph()
    for a, b in graph.edges:
        ends = values[a]["step"] or a, values[b]["step"] or b
        if ends[0] != ends[1]:
            boxes.add_edge(*ends)
    assert networkx.is_directed_acyclic_graph(boxes)


def test_facts_of_a_kernel(graph: model.Digraph) -> None:
    values = model.values(graph)
    facts = graph.graph
    rows = next(s for s in facts["steps"] if s["kind"] == "rows")
    assert "exp" in rows["name"]
    assert "for " in rows["text"]
    assert rows["reads"]
    assert rows["writes"]
    assert rows["lines"][0]["file"] == __file__
    assert any("np.exp" in line["source"] for line in rows["lines"])
    matrix = next(s for s in facts["steps"] if s["kind"] == "matrix")
    assert matrix["detail"] == "16×16 ⊙ 16×16"
    exp = next(d for d in values.values() if d["op"] == "exp")
    assert (exp["dtype"], exp["shape"], exp["type"]) == ("float32", [16, 16], "f32[16, 16]")
    assert facts["arena_bytes"] <= facts["intermediate_bytes"]


def test_a_copy_into_a_concat_is_drawn_in_its_kernel(graph: model.Digraph) -> None:
    values = model.values(graph)
    concat = next(n for n, d in values.items() if d["op"] == "concat")
    feeding = [values[n] for n in graph.predecessors(concat)]
    assert all(d["step"] is not None for d in feeding)
    assert "copy" in {d["op"] for d in feeding}


def test_a_view_inside_a_kernel_stays_inside() -> None:
    def turned(x: Any) -> Any:
        return np.exp(x).T + x

    traced = tj.trace(turned, np.ones((5, 5)))
    drawn = model.values(model.view(model.Figure("turned", traced.executable)))
    assert len(traced.schedule.steps) == 1
    assert {d["step"] for d in drawn.values() if d["op"] == "permute"} == {"s0"}


def test_a_constant_is_drawn_beside_each_user_as_its_dtype_shows_it() -> None:
    traced = tj.trace(lambda x: (x + np.float32(1e-5)) * np.float32(1e-5), np.ones(4, np.float32))
    drawn = model.values(model.view(model.Figure("f", traced.executable)))
    labels = [d["label"] for d in drawn.values() if d["kind"] == "constant"]
    assert labels == ["1e-05", "1e-05"]


def test_a_graph_without_steps_is_drawn() -> None:
    x = placeholder(0, np.float64, (3,), "x")
    drawn = model.view(model.Figure("same", compile_graph(Graph([x], [x]), [None])))
    assert [d["kind"] for d in model.values(drawn).values()] == ["input", "output"]
    ElementTree.fromstring(export.to_svg([drawn]))


# -- the page ----------------------------------------------------------------------------------


def test_the_page_holds_everything_and_loads_nothing(traced: Any, tmp_path: Path) -> None:
    path = traced.show(tmp_path / "block.html")
    html = path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["block.html"]
    outside = re.sub(r'<script type="application/json".*?</script>', "", html, flags=re.S)
    assert not re.search(r"""(src|href)\s*=|@import|url\(\s*['"]?(?!#)|fetch\(|XMLHttp""", outside)
    assert set(re.findall(r"https?://[^\s\"'<)]*", outside)) <= {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in html
    data = _data(html)
    (graph,) = data["graphs"]
    assert len(graph["nodes"]) == len(model.view(model.Figure("", traced.executable)))
    assert len(graph["graph"]["steps"]) == len(traced.schedule.steps)
    assert len(data["texts"]) == len(traced.kernels)
    for code in graph["graph"]["codes"]:
        text = data["texts"][code["text"]]
        assert "define" in text["llvm"]
        assert "ret" in text["assembly"]


def test_the_script_of_the_page_parses() -> None:
    # The SVG export runs draw.js; only browsers run page.js.
    quickjs.Context().eval(f"new Function({json.dumps(asset('page.js'))})")


def test_what_the_user_wrote_cannot_become_markup(tmp_path: Path) -> None:
    evil = '</script><script>alert(1)</script>&"<!--'
    namespace: dict[str, Any] = {}
    exec("def f(x):\n    return x + 1\n", namespace)
    function = namespace["f"]
    function.__name__ = evil
    traced = tj.trace(function, np.ones(3))
    html = page.write(traced, tmp_path / "evil.html").read_text(encoding="utf-8")
    assert "<script>alert" not in html
    assert html.count("</script>") == 4  # ours: the data and three scripts
    assert _data(html)["title"] == evil
    graph = model.view(model.Figure(evil, traced.executable))
    for _, data in graph.nodes(data=True):
        data["label"] = data["op"] = evil
    for step in graph.graph["steps"]:
        step["name"] = evil
    svg = export.to_svg([graph])
    root = ElementTree.fromstring(svg)
    assert not root.findall(f".//{SVG}script")
    assert evil in "".join(root.itertext())
    assert "<script" not in svg


def test_the_default_file_is_named_after_the_function(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert tj.trace(lambda x: x + 1, np.ones(2)).show() == Path("lambda.html")
    assert (tmp_path / "lambda.html").is_file()


def test_the_suffix_chooses_what_is_written(tmp_path: Path) -> None:
    traced = tj.trace(lambda x: x + 1, np.ones(2))
    assert traced.show(tmp_path / "a.dot").read_text().startswith("digraph")
    assert json.loads(traced.show(tmp_path / "a.json").read_text())
    with pytest.raises(ValueArgumentError, match=r"a\.png: pages and pictures end in \.html"):
        traced.show(tmp_path / "a.png")


def test_an_interpreted_function_says_why_it_has_no_page(tmp_path: Path) -> None:
    with config.override(disable_jit=True):
        traced = tj.trace(lambda x: x + 1, np.ones(2))
        with pytest.raises(UnsupportedError, match="interpreted"):
            traced.show(tmp_path / "page.html")
    assert not list(tmp_path.iterdir())


# -- exports -----------------------------------------------------------------------------------


def test_json_goes_through_networkx_and_back(graph: model.Digraph) -> None:
    text = export.to_json([graph])
    back: Any = networkx.node_link_graph(json.loads(text), edges="edges")
    assert networkx.utils.graphs_equal(back, graph)
    assert back.graph["format"] == "tracejit-graph"
    assert len(json.loads(export.to_json([graph, graph]))) == 2


def test_svg_is_well_formed_and_shows_every_step(graph: model.Digraph) -> None:
    root = ElementTree.fromstring(export.to_svg([graph]))
    assert root.tag == f"{SVG}svg"
    shown = {e.get("data-step") for e in root.iter(f"{SVG}g")} - {None}
    assert shown == {s["id"] for s in graph.graph["steps"]}
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    for rect in root.iter(f"{SVG}rect"):
        assert 0 <= float(rect.get("x", 0)) <= width
        assert 0 <= float(rect.get("y", 0)) <= height


def test_boxes_do_not_overlap(graph: model.Digraph) -> None:
    root = ElementTree.fromstring(export.to_svg([graph]))
    boxes = [
        tuple(float(r.attrib[k]) for k in ("x", "y", "width", "height"))
        for r in root.iter(f"{SVG}rect")
        if r.get("class") == "box"
    ]
    for i, (x, y, w, h) in enumerate(boxes):
        for left, top, width, height in boxes[i + 1 :]:
            assert x + w <= left or left + width <= x or y + h <= top or top + height <= y


def test_long_schedules_are_drawn_in_parts() -> None:
    def steps(x: Any) -> Any:
        for _ in range(130):
            x = np.sort(x, axis=0) * 2.0
        return x

    traced = tj.trace(steps, np.ones(8))
    graph = model.view(model.Figure("steps", traced.executable))
    root = ElementTree.fromstring(export.to_svg([graph]))
    shown = {e.get("data-step") for e in root.iter(f"{SVG}g")} - {None}
    assert len(graph.graph["steps"]) == 260
    assert len(shown) == 260
    stubs = [e for e in root.iter(f"{SVG}g") if e.get("data-part") is not None]
    assert {e.get("data-part") for e in stubs} == {"0", "1", "2"}


_DOT_TOKEN = re.compile(r'\s+|"(?:[^"\\]|\\.)*"|->|[{}\[\],=;]|\w+', re.S)


def test_dot_is_lexically_sound_with_a_cluster_for_each_step(graph: model.Digraph) -> None:
    graph = graph.copy()
    graph.nodes[next(iter(graph))]["label"] = 'a "b" \\ c\nd'
    text = export.to_dot([graph])
    tokens = _DOT_TOKEN.findall(text)
    assert "".join(tokens) == text
    assert text.count("subgraph ") == len(graph.graph["steps"])
    assert tokens.count("->") == graph.number_of_edges()
    depth = 0
    for token in tokens:
        depth += {"{": 1, "}": -1, "[": 1, "]": -1}.get(token, 0)
        assert depth >= 0
    assert depth == 0
    assert r'label="a \"b\" \\ c\nd"' in text


def test_the_same_graph_gives_the_same_files(graph: model.Digraph) -> None:
    assert export.to_svg([graph]) == export.to_svg([graph])
    assert export.to_dot([graph]) == export.to_dot([graph])


# -- what to draw --------------------------------------------------------------------------------


def test_example_arguments() -> None:
    given = arguments.parse(["f32[8,8]", "i64[]", "bool[3,]", "0.5", "(1, 2)", "n=usize", "k='a'"])
    f32 = np.dtype(np.float32)
    assert given.positional[0] == Spec((8, 8), f32)
    assert given.positional[1] == Spec((), np.dtype(np.int64))
    assert given.positional[2] == Spec((3,), np.dtype(bool))
    assert given.positional[3:] == (0.5, (1, 2))
    assert given.named == {"n": Spec((), np.dtype(np.int64)), "k": "a"}


@pytest.mark.parametrize(
    "text", ["f33[8]", "f32[8,x]", "f32[-1]", "f32[8", "lambda: 0", "missing.npy", "", "x="]
)
def test_a_bad_example_is_a_typed_error_with_a_hint(text: str) -> None:
    with pytest.raises(ValueArgumentError) as caught:
        arguments.parse([text])
    assert text in str(caught.value)
    assert caught.value.hint is not None


def test_examples_of_a_neuralscript_signature() -> None:
    specs = arguments.implied(tj.kernels.layer_norm).positional
    assert [s.shape for s in specs] == [(64, 48), (48,), (48,)]
    assert {str(s.dtype) for s in specs} == {"float32"}


@pytest.mark.parametrize("name", sorted(set(dir(tj.kernels)) - {"digits"}))
def test_every_shipped_kernel_can_be_drawn(name: str) -> None:
    found = command.subject(f"{name}.ns:{name}", arguments.parse([]))
    assert len(model.values(model.view(found.figures[0]))) > 2


def test_a_program_shows_the_graphs_that_ran_in_order(tmp_path: Path) -> None:
    program = tmp_path / "two.ns"
    program.write_text(
        "fn main() {\n"
        "    let x = arange(6) as f64\n"
        '    println!("{sum(exp(x))}")\n'
        '    println!("{max(x)}")\n'
        "}\n"
    )
    found = command.subject(str(program), arguments.parse([]))
    assert len(found.figures) == 2
    assert [f.calls for f in found.figures] == [1, 1]
    assert "sum" in found.figures[0].title
    assert found.figures[0].title.startswith("two.ns:")


def test_a_library_shows_its_functions(tmp_path: Path) -> None:
    library = tmp_path / "lib.ns"
    library.write_text(
        "fn double<const N: usize>(x: Vector<f64, N>) -> Vector<f64, N> { x * 2.0 }\n"
        "fn total<const N: usize>(x: Vector<f64, N>) -> f64 { sum(x) }\n"
    )
    found = command.subject(str(library), arguments.parse([]))
    assert [f.title for f in found.figures] == ["double", "total"]


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("nothing", ArgumentError, "names no program"),
        ("no.such.module:f", ArgumentError, "no module"),
        ("numpy:no_such_function", ArgumentError, "has no"),
        ("numpy:pi", ArgumentError, "not a function"),
        ("missing.py:f", ArgumentError, "no file"),
        ("softmax.ns:other", ArgumentError, "no function"),
        ("missing.ns", OSError, "missing.ns"),
    ],
)
def test_what_cannot_be_drawn_is_a_typed_error(
    what: str, error: type[Exception], says: str, tmp_path: Path
) -> None:
    output = tmp_path / "page.html"
    with pytest.raises(error, match=re.escape(says)):
        command.visualise(what, output, [])
    assert not output.exists()


def test_a_wrong_program_is_not_drawn(tmp_path: Path) -> None:
    program = tmp_path / "wrong.ns"
    program.write_text("let x = y + 1\n")
    with pytest.raises(ScriptError):
        command.visualise(str(program), tmp_path / "page.html", [])
    assert [p.name for p in tmp_path.iterdir()] == ["wrong.ns"]


def test_a_function_needs_its_arguments(tmp_path: Path) -> None:
    source = tmp_path / "mine.py"
    source.write_text("def twice(x):\n    return x * 2\n")
    with pytest.raises(ArgumentError, match="argument") as caught:
        command.visualise(f"{source}:twice", tmp_path / "page.html", [])
    assert "--arg" in str(caught.value)
    written = command.visualise(f"{source}:twice", tmp_path / "page.html", ["f32[4]"])
    assert _data(written.read_text(encoding="utf-8"))["title"] == "twice"


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueArgumentError, match=r"\.svg"):
        command.visualise("softmax.ns", tmp_path / "page.png", [])
