"""Running programs: builtins against NumPy, control flow, files, settings, errors at run time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.special

import tracejit.frontend.neuralscript as ns
from tracejit.errors import (
    ArgumentError,
    IndexOutOfRange,
    LimitError,
    RangeError,
    ShapeError,
    TraceError,
    ValueArgumentError,
)
from tracejit.frontend.neuralscript.program import run
from tracejit.frontend.neuralscript.source import Source

X = np.array([[0.5, -1.25, 2.0], [3.0, 0.125, -0.75]])
P = np.abs(X) / 4
M = np.array([[4.0, 1.0, 0.5], [1.0, 3.0, 0.25], [0.5, 0.25, 2.0]])
V = np.array([1.0, 2.0, 4.0])
W = np.array([0.5, -1.0, 0.25])
GIVEN = {"x": X, "p": P, "m": M, "v": V, "w": W}


def result_of(text: str, **inputs: Any) -> Any:
    """Run a program and return its variable ``out``."""
    program = ns.Program(Source(text, "test.ns"), tuple(inputs))
    program.raise_errors()
    return run(program, {}, inputs, write=lambda _: None)["out"]


def printed_by(text: str) -> str:
    program = ns.Program(Source(text, "test.ns"))
    program.raise_errors()
    printed: list[str] = []
    run(program, {}, {}, write=printed.append)
    return "".join(printed)


BUILTIN_CASES: list[tuple[str, Any]] = [
    *[
        (f"{name}(x)", getattr(np, name)(X))
        for name in (
            "exp",
            "expm1",
            "sin",
            "cos",
            "tan",
            "atan",
            "sinh",
            "cosh",
            "tanh",
            "abs",
            "sign",
            "floor",
            "ceil",
            "round",
            "cbrt",
        )
    ],
    *[
        (f"{name}(p)", getattr(np, name)(P))
        for name in ("sqrt", "log2", "log10", "log1p", "asin", "acos")
    ],
    ("ln(p)", np.log(P)),
    ("log(p)", np.log(P)),
    ("erf(x)", scipy.special.erf(X)),
    ("gamma(p)", scipy.special.gamma(P)),
    ("atan2(x, p)", np.arctan2(X, P)),
    ("hypot(x, p)", np.hypot(X, P)),
    ("pow(p, x)", P**X),
    ("p ^ x", P**X),
    ("x²", X**2),
    ("x⁻²", X**-2.0),
    ("√p", np.sqrt(P)),
    ("∑ x", X.sum()),
    ("∏ x", X.prod()),
    ("|x|", np.abs(X)),
    ("clamp(x, -1.0, 1.0)", np.clip(X, -1, 1)),
    ("where(x > 0.0, x, 0)", np.maximum(X, 0)),
    ("min(x, p)", np.minimum(X, P)),
    ("max(x, 0.5)", np.maximum(X, 0.5)),
    ("x % 0.75", np.fmod(X, 0.75)),
    ("is_nan(x)", np.isnan(X)),
    ("x ≈ x", np.full((2, 3), True)),
    *[
        (f"{name}(x, axis: 1)", getattr(np, name)(X, axis=1))
        for name in (
            "sum",
            "prod",
            "mean",
            "var",
            "std",
            "min",
            "max",
            "argmin",
            "argmax",
            "median",
            "cumsum",
            "sort",
            "argsort",
        )
    ],
    ("sum(x, axis: 0, keepdims: true)", X.sum(0, keepdims=True)),
    ("norm(x)", np.linalg.norm(X)),
    ("norm(x, axis: 1)", np.linalg.norm(X, axis=1)),
    ("any(x > 2.5)", True),
    ("all(x > 2.5)", False),
    ("logsumexp(x, axis: 1)", scipy.special.logsumexp(X, axis=1)),
    ("x.mean(axis: 0)", X.mean(0)),
    ("dot(v, w)", V @ W),
    ("v • w", V @ W),
    ("cross(v, w)", np.cross(V, W)),
    ("v × w", np.cross(V, W)),
    ("outer(v, w)", np.outer(V, W)),
    ("v ⊗ w", np.outer(V, W)),
    ("x ⊗ m", np.kron(X, M)),
    ("xᵀ", X.T),
    ("transpose(x, axes: (1, 0))", X.T),
    ("x ⊙ m", X @ M),
    ("m @ v", M @ V),
    ("trace(m)", np.trace(M)),
    ("det(m)", np.linalg.det(M)),
    ("inv(m)", np.linalg.inv(M)),
    ("solve(m, v)", np.linalg.solve(M, V)),
    ("cholesky(m)", np.linalg.cholesky(M)),
    ("eigenvalues(m)", np.linalg.eigvals(M)),
    ("{ let (u, s, vt) = svd(x); u * s ⊙ vt }", X),
    ("{ let (q, r) = qr(m); q ⊙ r }", M),
    ("len(x)", 2),
    ("shape(x)", (2, 3)),
    ("reshape(x, (3, -1))", X.reshape(3, -1)),
    ("concat(x, x)", np.concatenate([X, X])),
    ("concat((x, p), axis: 1)", np.hstack([X, P])),
    ("stack(v, w)", np.stack([V, W])),
    ("take(m, [2, 0])", M[[2, 0]]),
    ("zeros(2)", np.zeros(2)),
    ("ones(2, 3)", np.ones((2, 3))),
    ("full((2, 2), 7.5)", np.full((2, 2), 7.5)),
    ("eye(3)", np.eye(3)),
    ("linspace(0.0, 1.0, 5)", np.linspace(0, 1, 5)),
    ("arange(5)", np.arange(5)),
    ("arange(1.0, 2.0, 0.25)", np.arange(1, 2, 0.25)),
    ("zeros_like(x)", np.zeros((2, 3))),
    ("ones_like(x)", np.ones((2, 3))),
    ("relu(x)", np.maximum(X, 0)),
    ("sigmoid(x)", scipy.special.expit(X)),
    ("silu(x)", X * scipy.special.expit(X)),
    ("softmax(x)", scipy.special.softmax(X, axis=1)),
    ("gelu(x)", 0.5 * X * (1 + scipy.special.erf(X / math.sqrt(2)))),
    ("log_softmax(x)", scipy.special.log_softmax(X, axis=1)),
    ("mse(x, p)", ((X - P) ** 2).mean()),
    ("layer_norm(x)", (X - X.mean(1, keepdims=True)) / np.sqrt(X.var(1, keepdims=True) + 1e-5)),
    ("one_hot([0, 2], 3)", np.eye(3)[[0, 2]]),
    ("cross_entropy(x, [0, 2])", -scipy.special.log_softmax(X, axis=1)[[0, 1], [0, 2]].mean()),
    ("conj(2.0+1.0i)", 2 - 1j),
    ("re(3.0+4.0i)", 3.0),
    ("(3.0+4.0i).im", 4.0),
    ("arg(2i)", math.pi / 2),
    ("is_finite(∞)", False),
    ("x[1, -1]", -0.75),
    ("x[-1]", X[-1]),
    ("x[.., 1]", X[:, 1]),
    ("x[0, ..; 2]", X[0, ::2]),
    ("x[0, ..; -1]", X[0, ::-1]),
    ("x[x > 0.0]", X[X > 0]),
    ("x[.., [2, 0]]", X[:, [2, 0]]),
    ("m[1..-1, ..=1]", M[1:-1, :2]),
    ("select(x > 0.0, x, p)", np.where(X > 0, X, P)),
    ("v ∈ 0..3", None),
    ("2.0 ∈ v", True),
]


@pytest.mark.parametrize(("text", "expected"), [c for c in BUILTIN_CASES if c[1] is not None])
def test_builtin(text: str, expected: Any) -> None:
    found = result_of(f"let out = {text}", **GIVEN)
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-12, atol=1e-12)


def test_random_numbers_are_seeded() -> None:
    one, two, three = (result_of(f"let out = random_normal((50, 3), seed: {s})") for s in (1, 1, 2))
    assert one.shape == (50, 3)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
    assert 0 <= result_of("let out = min(random_uniform(100))") < 0.2


@pytest.mark.parametrize(
    ("text", "dtype"),
    [
        ("let a: f32 = 2.0\nlet out = a * zeros(3)", "float32"),
        ("let out = zeros(3)", "float64"),
        ("let out = [1, 2]", "int64"),
        ("let out: Vector<u8, 2> = [1, 2]", "uint8"),
        ("let out = zeros(2) as f32 * 0.5", "float32"),
        (
            "fn f<T: Float>(x: Vector<T>) -> Vector<T> { x + ones(2) * 0.1 }\n"
            "let out = f(zeros(2) as f32)",
            "float32",
        ),
        ("fn f(x) { 0.5 * x }\nlet out = f([1.0f32, 2.0])", "float32"),
        ("let out = sum([true, false])", "int64"),
        ("let out = [1.0, 2.0] * 2i", "complex128"),
    ],
)
def test_dtype(text: str, dtype: str) -> None:
    assert np.asarray(result_of(text)).dtype == dtype


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('println!("{} {} {}", 1, 2.0, true)', "1 2.0 true\n"),
        (
            'println!("{:.2} {:>6} {:04} {:e}", 3.14159, 42, 7, 12.5)',
            "3.14     42 0007 1.250000e+01\n",
        ),
        ('println!("{:.1}", [1.25, 2.0])', "[1.2, 2.0]\n"),
        ("print(1.5)", "1.5\n"),
        ('let a: f32 = 0.1\nprintln!("{a} {}", a * a)', "0.1 0.010000001\n"),
        ('print!("a")\nprint!("b\\n")', "ab\n"),
        ('println!("π ≈ {π:.3}")', "π ≈ 3.142\n"),
        ("let mut s = 0\nfor i in 0..=4 { if i == 3 { break }; s += i }\nprint(s)", "3\n"),
        ("let mut v = vec![3, 1]\nv.push(2)\nprint(v.len())\nprint(v.pop().unwrap())", "3\n2\n"),
        (
            "let a = [1.0, 2.0]\nlet mut b = a\nb[0] = 9.0\nprint(a)\nprint(b)",
            "[1., 2.]\n[9., 2.]\n",
        ),
        (
            "fn f(x: &mut Vector<f64, 2>) { x[1] = 5.0 }\nlet mut a = [1.0, 2.0]\n"
            "f(&mut a)\nprint(a)",
            "[1., 5.]\n",
        ),
        ("let mut n = 0\nlet add = |k| k + n\nn = 10\nprint(add(1))", "11\n"),
        (
            "fn f(x: i64) -> Option<i64> { if x > 0 { Some(x) } else { None } }\n"
            "fn g(x: i64) -> Option<i64> { let y = f(x)?; Some(y * 2) }\nprint(g(4))\nprint(g(-1))",
            "Some(8)\nNone\n",
        ),
        (
            "print(-7 / 2)\nprint(-7 % 3)\nprint(1.0 / 0.0)\nprint((-8.0) ^ (1.0 / 3.0))",
            "-3\n-1\ninf\nnan\n",
        ),
        ("let t = (1, (2.5, true))\nlet (a, (b, c)) = t\nprint(b)\nprint(t.1.0)", "2.5\n2.5\n"),
        (
            'let x = match 5 { 0 => "zero", 1..=5 => "few", n if n > 100 => "lots", _ => "many" }\n'
            "print(x)",
            "few\n",
        ),
        ("for row in [[1, 2], [3, 4]] { print(sum(row)) }", "3\n7\n"),
        ("let c = 25_°C\nprint(c)\nprint(5_km / 2_h < 1_m/s)", "298.15 K\ntrue\n"),
        ("const N: usize = 3\nlet a = zeros(N, N + 1)\nprint(shape(a))", "(3, 4)\n"),
        ("assert!(1 + 1 == 2)\nassert_eq!([1, 2], [1, 2])", ""),
        (
            "let mut x = 1.0\nlet mut k = 0\n"
            "while |x² - 2.0| > 1e-12 { x = ½ * (x + 2.0/x)\nk += 1 }\n"
            'println!("{x:.6} {k}")',
            "1.414214 5\n",
        ),
    ],
)
def test_printed(text: str, expected: str) -> None:
    assert printed_by(text) == expected


def test_a_traced_if_is_a_choice() -> None:
    module = ns.loads(
        "fn f(x: f64, v: Vector<f64>) { if x > 0.0 { v } else if x < -1.0 { -v } else { 0 * v } }"
    )
    v = np.arange(3.0)
    for x, factor in ((2.0, 1), (-0.5, 0), (-2.0, -1)):
        np.testing.assert_array_equal(module.f(np.float64(x), v), factor * v)
    assert module.f.stats()["compiles"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fn f(x: f64) { let mut y = 0.0; if x > 0.0 { y = 1.0 } else { y = 2.0 }; y }", "where"),
        ("fn f(x: f64) { let mut y = x; while y > 1.0 { y = y / 2.0 }; y }", "while"),
        ('fn f(x: f64) { println!("{x}"); x }', "program level"),
        ("fn f(x: f64) { if x > 0.0 { return 1.0 }; x }", "no `else`"),
    ],
)
def test_a_traced_decision_is_explained(text: str, message: str) -> None:
    with pytest.raises(TraceError, match=message) as caught:
        ns.loads(text).f(np.float64(2.0))
    assert "N061" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "let n = 4\nlet i = n * 2\nlet v = [1, 2]\nlet k = len(args()) + 5\nprint(v[k])",
            IndexOutOfRange,
            "test.ns:5",
        ),
        ("fn f(n: i64) -> i64 { f(n + 1) }\nprint(f(0))", LimitError, "recursion"),
        ("let a: i8 = 200", RangeError, "200 does not fit into `i8`"),
        ("let a: u8 = 255\nlet b = a + 1", RangeError, "256 does not fit into `u8`"),
        ("let mut a: i8 = -128\na -= 1", RangeError, "-129 does not fit into `i8`"),
        ("let mut f = 1\nfor i in 0..99 { f = f * 3 }", RangeError, "`i64` holds"),
        ("let n = 3\nprint((n + 99)^n^4)", RangeError, "does not fit into an integer"),
        ("let n: i32 = 99999\nprint(n²)", RangeError, "9999800001 does not fit into `i32`"),
        ("let z = len(args())\nprint(1 / z)", ValueArgumentError, "division by zero"),
        ("let o: Option<i64> = None\nprint(o.unwrap())", ValueArgumentError, "unwrap"),
        ("let x: f64\nprint(x)", ValueArgumentError, "no value yet"),
        ('panic!("stop {}", 3)', ValueArgumentError, "stop 3"),
        ('assert!(1 > 2, "never")', ValueArgumentError, "never"),
        ('let a = load("nothing.npy")', ValueArgumentError, "cannot find"),
    ],
)
def test_an_error_at_run_time_shows_the_line(
    text: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        printed_by(text)
    assert "-->" in str(caught.value)


def test_files_settings_inputs_and_outputs(tmp_path: Path) -> None:
    (tmp_path / "helper.ns").write_text("pub fn double(x) { 2.0 * x }\nconst LIMIT: f64 = 3.0\n")
    (tmp_path / "data").mkdir()
    np.save(tmp_path / "data" / "a.npy", np.arange(4.0))
    np.savez(tmp_path / "data" / "b.npz", first=np.ones(2), second=np.zeros(3))
    (tmp_path / "c.csv").write_text("a,b\n1,2\n3,4\n")
    (tmp_path / "prog.ns").write_text(
        "use helper::{double, LIMIT}\nuse helper\n"
        "const scale: f64 = 1.0\nlet size = 2\n"
        'let a = load("data/a.npy")\nlet b = load("data/b.npz")\nlet c = load("c.csv")\n'
        "let out = double(a) * scale + LIMIT\nlet more = helper.double(b.first)\n"
        "let total = sum(c) + sum(given)\nlet z = zeros(size, size)\n"
    )
    given = {"given": np.array([1.0, 2.0])}
    outputs = ns.run_program(tmp_path / "prog.ns", {"scale": 10.0, "size": 3}, given)
    np.testing.assert_array_equal(outputs["out"], 20 * np.arange(4.0) + 3)
    np.testing.assert_array_equal(outputs["more"], [2, 2])
    assert outputs["total"] == 13
    assert outputs["z"].shape == (3, 3)
    with pytest.raises(ArgumentError, match="did you mean scale"):
        ns.run_program(tmp_path / "prog.ns", {"scal": 1.0}, given)
    with pytest.raises(KeyError, match="no output"):
        _ = outputs["nothing"]


def test_main_takes_inputs_and_gives_a_struct(tmp_path: Path) -> None:
    path = tmp_path / "main.ns"
    path.write_text(
        "struct Result_ { twice: Vector<f64>, count: usize }\n"
        "fn main(x: Vector<f64>, k: f64 = 2.0) { Result_ { twice: k * x, count: len(x) } }\n"
    )
    outputs = ns.run_program(path, {}, {"x": np.arange(3.0)})
    np.testing.assert_array_equal(outputs["twice"], [0, 2, 4])
    assert outputs["count"] == 3
    outputs = ns.run_program(path, {"k": 5.0}, {"x": np.arange(3.0)})
    np.testing.assert_array_equal(outputs["twice"], [0, 5, 10])
    with pytest.raises(ArgumentError, match="needs a value for x"):
        ns.run_program(path)


def test_save(tmp_path: Path) -> None:
    path = tmp_path / "prog.ns"
    path.write_text(
        f'let a = [[1.0, 2.0], [3.0, 4.0]]\nsave("{tmp_path}/a.npy", a)\n'
        f'save("{tmp_path}/a.csv", a)\n'
    )
    ns.run_program(path)
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), [[1, 2], [3, 4]])
    assert (tmp_path / "a.csv").read_text().startswith("1.0")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.npy", "prog.ns"]


def test_a_wrong_program_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "wrong.ns"
    path.write_text(f'save("{tmp_path}/a.npy", [1.0])\nlet x = 1 + true\n')
    with pytest.raises(ns.ProgramError):
        ns.run_program(path)
    assert not (tmp_path / "a.npy").exists()


def test_cyclic_imports_end(tmp_path: Path) -> None:
    (tmp_path / "a.ns").write_text("use b\nfn f(x) { x }\n")
    (tmp_path / "b.ns").write_text("use a\nfn g(x) { x }\n")
    assert ns.load(tmp_path / "a.ns").f(np.ones(2)).tolist() == [1, 1]


def test_unknown_sizes_are_checked_when_they_are_known() -> None:
    module = ns.loads("fn f(a: Vector<f64>, b: Vector<f64>) { a + b }")
    np.testing.assert_array_equal(module.f(np.ones(3), np.ones(3)), [2, 2, 2])
    with pytest.raises(ShapeError, match=r"Vector<f64, 3>.* and `Vector<f64, 4>"):
        module.f(np.ones(3), np.ones(4))
    np.testing.assert_array_equal(module.f(np.ones(4), np.ones(4)), [2, 2, 2, 2])


def test_a_loop_at_program_level_keeps_its_graph_small() -> None:
    text = "let mut u = zeros(8)\nfor i in 0..2000 { u = 0.5 * u + 1.0 }\nlet out = u"
    np.testing.assert_allclose(result_of(text), np.full(8, 2.0))
