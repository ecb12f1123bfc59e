"""The checker: types and sizes of expressions, generics, units, and what it accepts."""

from __future__ import annotations

import pytest

from tracejit.frontend.neuralscript import Program, ProgramError
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.source import Source

PRELUDE = """
let a: Matrix<f32, 3, 4> = zeros(3, 4)
let v: Vector<f32, 4> = zeros(4)
let w: Vector<f32, 3> = zeros(3)
let x: f64 = 1.5
let n: i64 = 3
let z = 3.0+4.0i
"""


def type_of(text: str, prelude: str = PRELUDE) -> str:
    """Return the type of an expression, with open literals at their defaults."""
    program = Program(Source(f"{prelude}\nlet it_is = {text}\n"))
    program.raise_errors()
    body = program.module.body
    assert body is not None
    last = program.module.program.statements[-1]
    assert isinstance(last, s.LetStatement)
    assert last.value is not None
    kind = body.types[last.value]
    if isinstance(kind, t.Array):
        kind = t.Array(t.default(kind.element), kind.shape, kind.unit)
    return str(kind)


def codes(text: str) -> list[str]:
    return [item.code for item in Program(Source(text)).diagnostics]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 * a", "Matrix<f32, 3, 4>"),
        ("a + v", "Matrix<f32, 3, 4>"),
        ("a ⊙ v", "Vector<f32, 3>"),
        ("w ⊙ a", "Vector<f32, 4>"),
        ("a ⊙ aᵀ", "Matrix<f32, 3, 3>"),
        ("v • v", "f32"),
        ("w × w", "Vector<f32, 3>"),
        ("v ⊗ w", "Matrix<f32, 4, 3>"),
        ("a ⊗ a", "Matrix<f32, 9, 16>"),
        ("sum(a)", "f32"),
        ("sum(a, axis: 1)", "Vector<f32, 3>"),
        ("sum(a, axis: -1, keepdims: true)", "Matrix<f32, 3, 1>"),
        ("max(a, axis: (0, 1))", "f32"),
        ("max(a, 0.0)", "Matrix<f32, 3, 4>"),
        ("argmin(a, axis: 0)", "Vector<usize, 4>"),
        ("a > 0.5", "Matrix<bool, 3, 4>"),
        ("a[0]", "Vector<f32, 4>"),
        ("a[1, 2]", "f32"),
        ("a[.., 1]", "Vector<f32, 3>"),
        ("a[1.., ..-1]", "Matrix<f32, 2, 3>"),
        ("a[.., ..; 2]", "Matrix<f32, 3, 2>"),
        ("a[0..=1]", "Matrix<f32, 2, 4>"),
        ("a[a > 0.0]", "Vector<f32, _>"),
        ("a[[0, 2, 2]]", "Matrix<f32, 3, 4>"),
        ("reshape(a, (2, -1))", "Matrix<f32, 2, 6>"),
        ("concat(a, a)", "Matrix<f32, 6, 4>"),
        ("concat((a, a), axis: 1)", "Matrix<f32, 3, 8>"),
        ("stack(v, v, v)", "Matrix<f32, 3, 4>"),
        ("a as f64", "Matrix<f64, 3, 4>"),
        ("exp(a)²", "Matrix<f32, 3, 4>"),
        ("where(a > 0.0, a, 0)", "Matrix<f32, 3, 4>"),
        ("len(a)", "usize"),
        ("shape(a)", "(usize, usize)"),
        ("softmax(a)", "Matrix<f32, 3, 4>"),
        ("1 + 2", "i64"),
        ("1 + 2.0", "f64"),
        ("x^2", "f64"),
        ("n / 2", "i64"),
        ("|z|", "f64"),
        ("z * x", "Complex<f64>"),
        ("z.re", "f64"),
        ("2i", "Complex<f64>"),
        ("n as f32", "f32"),
        ("matrix![[1, 2], [3, 4]]", "Matrix<i64, 2, 2>"),
        ("[0.0; 10]", "Vector<f64, 10>"),
        ("[[1.0; 2]; 3]", "Matrix<f64, 3, 2>"),
        ("linspace(0.0, 1.0, 5)", "Vector<f64, 5>"),
        ("eye(3)", "Matrix<f64, 3, 3>"),
        ("vec![1.0]", "Vec<{float}>"),
        ("if x > 1.0 { x } else { 0 }", "f64"),
        ("(x, n, true)", "(f64, i64, bool)"),
        ("loop { break x }", "f64"),
        ("{ let y = 2 * x; y }", "f64"),
        ("(|y| y * 2.0)(x)", "f64"),
        ("det(eye(2))", "f64"),
        ("9.81_m/s² * 2_s", "m/s"),
        ("√(16_m²)", "m"),
        ("2_km / 1_h", "m/s"),
        ("(1_kg * 9.81_m/s²) * 1_m", "J"),
        ("3_m ∈ [1_m, 3_m]", "bool"),
        ('f"{x}"', "str"),
        ("Some(x)", "Option<f64>"),
        ("(0..3).map(|i| i * 2)", "Vec<{integer}>"),
        ("one_hot([0, 1], 4)", "Matrix<f64, 2, 4>"),
    ],
)
def test_type(text: str, expected: str) -> None:
    assert type_of(text) == expected


@pytest.mark.parametrize(
    ("declaration", "call", "expected"),
    [
        (
            "fn f<const M: usize, const N: usize>(a: Matrix<f64, M, N>) -> Vector<f64, M> "
            "{ sum(a, axis: 1) }",
            "f(zeros(2, 5))",
            "Vector<f64, 2>",
        ),
        (
            "fn f<T: Float, const N: usize>(a: Vector<T, N>) -> Vector<T, N - 2> { a[1..-1] }",
            "f(vector![1.0f32, 2.0, 3.0])",
            "Vector<f32, 1>",
        ),
        (
            "fn f<const N: usize>(a: Vector<f64, N>, b: Vector<f64, N + 1>) -> f64 { a[0] + b[0] }",
            "f(zeros(2), zeros(3))",
            "f64",
        ),
        ("fn f(a, b) { a * b }", "f(2, zeros(3))", "Vector<f64, 3>"),
        ("fn f(a: Vector<f64>) { a + 1.0 }", "f(zeros(7))", "Vector<f64, 7>"),
        ("fn f(a: Tensor<f64>) -> Tensor<f64> { a }", "f(zeros(2, 3))", "Matrix<f64, 2, 3>"),
        ("fn f<F: Fn(f64) -> f64>(g: F) -> f64 { g(1.0) }", "f(|x| x + 1.0)", "f64"),
        ("fn f(n: i64) -> i64 { if n < 2 { n } else { f(n - 1) + f(n - 2) } }", "f(9)", "i64"),
        ("fn f<A, B>(a: A, b: B) -> (B, A) { (b, a) }", "f(1.0, true)", "(bool, f64)"),
        ("const N: usize = 4\nfn f() -> Vector<f64, N> { zeros(N) }", "f()", "Vector<f64, 4>"),
        ("type Row = Vector<f32, 3>\nfn f(r: Row) -> Row { r }", "f(zeros(3))", "Vector<f32, 3>"),
        ("struct P<T> { x: T }\nfn f(p: P<f32>) -> f32 { p.x }", "f(P { x: 1.5 })", "f32"),
        ("fn f<const N: usize>() -> Vector<f64, N> { zeros(N) }", "f::<3>()", "Vector<f64, 3>"),
        ("fn f(v: Meter/Second, t: Second) { v * t }", "f(3_m/s, 2_s)", "m"),
        ("fn f(x) { let y = x²; y }", "f(3_m)", "m²"),
    ],
)
def test_call(declaration: str, call: str, expected: str) -> None:
    assert type_of(call, declaration) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("fn f<const N: usize>(a: Vector<f64, N>) -> Vector<f64, N> { a[1..] }", "N032"),
        (
            "fn f<const M: usize, const N: usize>(a: Vector<f64, M>, b: Vector<f64, N>) { a + b }",
            "N032",
        ),
        ("fn f<T: Float>(x: T) -> f64 { x }", "N031"),
        ("fn f(a: Vector<f64>) { a + zeros(3) }\nlet y = f(zeros(4))", "N032"),
        ("fn f(a, b) { a + b }\nlet y = f(1_m, 1_s)", "N050"),
        ("let a: i32 = 1\nlet b: i64 = 2\nlet c = a + b", "N031"),
        ("let a: f32 = 1.0\nlet b: f64 = 2.0\nlet c = a * b", "N031"),
        ("fn f<T: Float>(x: T) -> T { x }\nlet y = f(3_m)", "N050"),
        ("let f = |x| x + 1\nlet y = f(1, 2)", "N036"),
        ("let x = 3\nx += 1", "N040"),
        ("let v = vec![1]\nv.push(2)", "N040"),
        ("let mut v = vec![1]\nv.push(2.5)", "N031"),
        ("fn f() -> i64 { return 1.5 }", "N031"),
        ("fn f() -> i64 { }", "N030"),
        ("let x = 300u8.y", "N023"),
        ("for i in 0.0..1.0 { }", "N031"),
        ("while 1 { }", "N034"),
        ("let (a, b) = 3", "N043"),
        ("let y = solve(eye(3), zeros(4))", "N032"),
        ("let y = inv(zeros(2, 3))", "N032"),
        ("let y = 1 / 0", "N033"),
    ],
)
def test_refused(text: str, code: str) -> None:
    assert code in codes(text)


def test_several_errors_in_one_run() -> None:
    text = (
        "let a = 1 + true\nlet b = unknown\nfn f(x: f64) -> i64 { x }\nlet c = zeros(2) + zeros(3)"
    )
    assert sorted(codes(text)) == ["N020", "N031", "N031", "N032"]


def test_an_error_does_not_cascade() -> None:
    assert codes('let a = unknown + 1\nlet b = a * 2\nlet c = b[0].x(1)\nprintln!("{c}")') == [
        "N020"
    ]


def test_an_error_in_a_shared_body_is_reported_once() -> None:
    assert codes("fn f(x) { x + missing }\nlet a = f(1)\nlet b = f(2.0)") == ["N020"]


def test_recursion_without_end_of_types_is_cut_off() -> None:
    text = "fn f(x) { f((x, x)) }\nlet y = f(1)"
    assert codes(text) == []


def test_size_arithmetic_prints() -> None:
    n = t.Size(0, (("N", 1),))
    assert str(n.plus(t.Size(2), -1)) == "N - 2"
    assert str(n.times(2).plus(t.Size(1))) == "2*N + 1"
    assert str(t.Size(5)) == "5"


def test_warnings_do_not_stop_a_program() -> None:
    program = Program(Source("let x = 2.0\nlet y = -x^2"))
    program.raise_errors()
    assert [item.code for item in program.diagnostics] == ["N101"]
    with pytest.raises(ProgramError):
        Program(Source("let y = -x^2")).raise_errors()
