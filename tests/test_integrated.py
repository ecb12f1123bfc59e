"""The integrated interface: one registry for NeuralScript, graph texts and Python functions."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import tracejit as tj
from tracejit.errors import ArgumentError, ShapeError, ValueArgumentError
from tracejit.frontend.neuralscript import ProgramError
from tracejit.graph.text import to_text
from tracejit.runtime import cpu

SOFTMAX = """
fn softmax<const M: usize, const N: usize>(x: Matrix<f32, M, N>) -> Matrix<f32, M, N> {
    let e = exp(x - max(x, axis: 1, keepdims: true))
    e / sum(e, axis: 1, keepdims: true)
}
"""


def softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def matrix(rows: int = 33, columns: int = 65) -> Any:
    return np.random.default_rng(0).normal(size=(rows, columns)).astype(np.float32)


@pytest.fixture
def compiler() -> Iterator[Any]:
    made = tj.get_integrated_jit_compiler()
    yield made
    for name in list(made):
        made.remove(name)


def forms() -> dict[str, Any]:
    graph = tj.trace(softmax, matrix()).source
    return {
        "neuralscript": SOFTMAX,
        "text": to_text(graph),
        "commented text": "# recorded today\n\n" + to_text(graph),
        "graph": graph,
        "traced": tj.trace(softmax, matrix()),
        "jitted": tj.jit(softmax),
        "python": softmax,
    }


@pytest.mark.parametrize("form", forms())
def test_every_form_runs_compiled_and_is_measured(form: str, compiler: Any) -> None:
    x = matrix()
    jitted = compiler.compile_with_optimizations(
        function_name="softmax", ir_code=forms()[form], profile={"arguments": [(x,)]}
    )
    was_jit, result, metrics = compiler.execute_with_monitoring("softmax", x)
    assert was_jit
    assert isinstance(result, np.ndarray)
    np.testing.assert_allclose(result, softmax(x), rtol=1e-5)
    assert metrics["tier"] >= 1
    assert metrics.kernels == 1
    assert metrics.compiles == 0  # the profile's arguments were compiled before
    assert metrics.result_bytes == x.nbytes
    assert metrics.intermediate_bytes > metrics.arena_bytes == 0
    assert metrics.simd_level == cpu.target().name
    assert 0 < metrics.seconds < 60
    assert metrics.calls == 1 == jitted.stats()["calls"]
    assert json.loads(json.dumps(metrics.as_dict()))["calls"] == 1
    assert set(metrics) == set(metrics.as_dict())


@pytest.mark.parametrize("form", ["text", "graph"])
def test_a_graph_is_compiled_before_its_first_call(form: str, compiler: Any) -> None:
    x = matrix()
    jitted = compiler.compile_with_optimizations("softmax", forms()[form])
    assert (jitted.stats()["compiles"], jitted.stats()["tier"]) == (1, 1)
    was_jit, result, metrics = compiler.execute_with_monitoring("softmax", x)
    assert was_jit
    assert metrics.compiles == 0
    np.testing.assert_allclose(result, softmax(x), rtol=1e-5)


@pytest.mark.parametrize("level", [0, 3])
def test_llvms_level_is_the_profiles_to_choose(level: int, compiler: Any) -> None:
    x = matrix(5, 7)
    profile = {"arguments": [(x,)], "optimize": level}
    jitted = compiler.compile_with_optimizations("softmax", SOFTMAX, profile)
    assert jitted.optimize == level
    was_jit, result, _ = compiler.execute_with_monitoring("softmax", x)
    assert was_jit
    np.testing.assert_allclose(result, softmax(x), rtol=1e-5)
    with pytest.raises(ValueArgumentError, match="0 to 3"):
        compiler.compile_with_optimizations("softmax", SOFTMAX, {"optimize": 4})


def test_metrics_read_as_a_line(compiler: Any) -> None:
    x = matrix()
    compiler.compile_with_optimizations("softmax", forms()["graph"])
    text = str(compiler.execute_with_monitoring("softmax", x)[2])
    assert f": tier 1, 1 kernel ({cpu.target().name}); 0 compiled, " in text
    assert text.endswith("memory between steps 0 B, result 8.4 KiB")
    with tj.set_stance("never"):
        text = str(compiler.execute_with_monitoring("softmax", x)[2])
    assert ": tier 0, NumPy; " in text


def test_an_interpreted_call_says_so(compiler: Any) -> None:
    compiler.compile_with_optimizations(function_name="softmax", ir_code=softmax)
    with tj.set_stance("never"):
        was_jit, result, metrics = compiler.execute_with_monitoring("softmax", matrix())
    assert not was_jit
    assert metrics.tier == metrics.kernels == 0
    np.testing.assert_allclose(result, softmax(matrix()), rtol=1e-5)


def test_it_is_one_compiler_for_the_process(compiler: Any) -> None:
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(tj.get_integrated_jit_compiler()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {id(c) for c in found} == {id(compiler)}


def test_twenty_threads_compile_and_run_at_once(compiler: Any) -> None:
    x = matrix()
    wrong: list[Any] = []

    def work(number: int) -> None:
        try:
            name = f"scale{number}"
            compiler.compile_with_optimizations(
                function_name=name,
                ir_code=lambda x: np.tanh(x) * number + softmax(x) ** (number % 3 + 1),
                profile=tj.FunctionProfile(arguments=[(x,)]),
            )
            for _ in range(5):
                was_jit, result, _ = compiler.execute_with_monitoring(name, x)
                assert was_jit
                expected = np.tanh(x) * number + softmax(x) ** (number % 3 + 1)
                np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(compiler) == 24
    assert set(compiler.stats()) == {f"scale{n}" for n in range(24)}


def test_a_name_can_be_replaced_and_removed(compiler: Any) -> None:
    x = matrix(3, 4)
    compiler.compile_with_optimizations("f", lambda x: x + 1)
    compiler.compile_with_optimizations("f", lambda x: x + 2)
    np.testing.assert_array_equal(compiler.execute_with_monitoring("f", x)[1], x + 2)
    compiler.remove("f")
    assert "f" not in compiler
    with pytest.raises(ArgumentError, match="no function 'f'"):
        compiler.execute_with_monitoring("f", x)


def test_mistakes_are_told(compiler: Any) -> None:
    with pytest.raises(ProgramError):
        compiler.compile_with_optimizations("f", "fn f(x: Vector<f64>) -> Vector<f64> { y }")
    with pytest.raises(ValueArgumentError, match="line 1"):
        compiler.compile_with_optimizations("f", "graph(%0 nonsense")
    with pytest.raises(ArgumentError, match="no function 'g'"):
        compiler.compile_with_optimizations("g", SOFTMAX + "fn other(x: f64) -> f64 { x }")
    with pytest.raises(ArgumentError, match="ir_code is a int"):
        compiler.compile_with_optimizations("f", 3)
    with pytest.raises(ArgumentError, match="no field 'hotness'"):
        compiler.compile_with_optimizations("f", softmax, profile={"hotness": 1})
    assert not list(compiler)
    compiler.compile_with_optimizations("softmax", forms()["text"])
    with pytest.raises(ArgumentError, match="did you mean 'softmax'"):
        compiler.execute_with_monitoring("softmx", matrix())
    with pytest.raises(ShapeError, match=r"float32\[2, 65\].*float32\[33, 65\]"):
        compiler.execute_with_monitoring("softmax", matrix(2))
