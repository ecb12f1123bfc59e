"""The lexer and the parser: tokens, precedence, statement ends, recovery, speed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies
from work import calls_of

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.lexer import Number, tokenize
from tracejit.frontend.neuralscript.parser import parse
from tracejit.frontend.neuralscript.source import Source


def texts(text: str) -> list[str]:
    tokens, found = tokenize(Source(text))
    assert not found
    return [token.text for token in tokens[:-1]]


def number(text: str) -> Number:
    tokens, found = tokenize(Source(text))
    assert not found
    assert [token.kind for token in tokens] == ["number", "end"]
    assert isinstance(tokens[0].value, Number)
    return tokens[0].value


def expression(text: str) -> str:
    """Parse one expression and show it fully bracketed."""
    program, found = parse(Source(text))
    assert not [item for item in found if item.is_error], found
    statement = program.statements[0]
    assert isinstance(statement, s.ExprStatement)
    return show(statement.value)


def show(node: s.Expr | None) -> str:
    match node:
        case None:
            return ""
        case s.NameExpr(_, name):
            return name
        case s.BinaryExpr(_, operator, left, right):
            return f"({show(left)} {operator} {show(right)})"
        case s.UnaryExpr(_, operator, operand):
            return f"({operator} {show(operand)})"
        case s.PowerExpr(_, base, exponent):
            return f"({show(base)} pow {exponent})"
        case s.TransposeExpr(_, operand):
            return f"({show(operand)} T)"
        case s.CastExpr(_, operand, target):
            return f"({show(operand)} as {target.span.text})"
        case s.RangeExpr(_, start, stop, inclusive, step):
            dots = "..=" if inclusive else ".."
            return f"({show(start)}{dots}{show(stop)}{';' + show(step) if step else ''})"
        case s.CallExpr(_, function, arguments):
            inner = ", ".join(f"{a.name}: " * bool(a.name) + show(a.value) for a in arguments)
            return f"{show(function)}({inner})"
        case s.MethodExpr(_, receiver, name, arguments):
            return f"{show(receiver)}.{name}({', '.join(show(a.value) for a in arguments)})"
        case s.FieldExpr(_, base, name):
            return f"{show(base)}.{name}"
        case s.IndexExpr(_, base, indices):
            return f"{show(base)}[{', '.join(map(show, indices))}]"
        case s.AbsExpr(_, operand):
            return f"abs({show(operand)})"
        case s.ClosureExpr(_, parameters, _, body):
            return f"fn({', '.join(p.name for p in parameters)}) {show(body)}"
        case s.AssignExpr(_, place, operator, value):
            return f"({show(place)} {operator} {show(value)})"
        case s.TupleExpr(_, items):
            return f"<{', '.join(map(show, items))}>"
        case s.GradientExpr(_, function, order, wrt):
            return f"grad{order}({show(function)}{', ' + show(wrt) if wrt else ''})"
        case _:
            return node.span.text


@pytest.mark.parametrize(
    ("text", "value", "suffix", "imaginary", "unit"),
    [
        ("42", 42, "", False, ""),
        ("1_000", 1000, "", False, ""),
        ("0xFF", 255, "", False, ""),
        ("0b101", 5, "", False, ""),
        ("3.14", 3.14, "", False, ""),
        ("6.6e-34", 6.6e-34, "", False, ""),
        ("2.7f32", 2.7, "f32", False, ""),
        ("1_f64", 1, "f64", False, ""),
        ("7usize", 7, "usize", False, ""),
        ("4.0i", 4.0, "", True, ""),
        ("2i", 2, "", True, ""),
        ("1.", 1.0, "", False, ""),
        ("9.81_m/s²", 9.81, "", False, "m/s²"),
        ("50_kg", 50, "", False, "kg"),
        ("6.674e-11_N⋅m²/kg²", 6.674e-11, "", False, "N⋅m²/kg²"),
        ("½", 0.5, "", False, ""),
        ("∞", float("inf"), "", False, ""),
        ("25_°C", 25, "", False, "°C"),
    ],
)
def test_number(text: str, value: float, suffix: str, imaginary: bool, unit: str) -> None:
    assert number(text) == Number(value, suffix, imaginary, unit)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a/*x/*y*/z*/b // c", ["a", "b"]),
        ("θ₁+Δt", ["θ₁", "+", "Δt"]),
        ("Aᵀ⊙B", ["A", "ᵀ", "⊙", "B"]),
        ("x²⁻", None),
        ("0..=n", ["0", "..=", "n"]),
        ("1..2", ["1", "..", "2"]),
        ("f(a,\nb)", ["f", "(", "a", ",", "b", ")"]),
        ("a\nb;c", ["a", "\n", "b", ";", "c"]),
        ("{a\nb}", ["{", "a", "\n", "b", "}"]),
        ("é́x", ["é́x"]),
    ],
)
def test_tokens(text: str, expected: list[str] | None) -> None:
    if expected is None:
        assert tokenize(Source(text))[1]
    else:
        assert texts(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a + b * c", "(a + (b * c))"),
        ("a * b ^ c ^ d", "(a * (b ^ (c ^ d)))"),
        ("-x²", "(- (x pow 2))"),
        ("-x ^ 2", "((- x) ^ 2)"),
        ("√x²", "(sqrt (x pow 2))"),
        ("2 ** -1", "(2 ^ (- 1))"),
        ("1/2π", "(1 / (2 * π))"),
        ("2π^2", "(2 * (π ^ 2))"),
        ("a ⊙ bᵀ / √d", "((a @ (b T)) / (sqrt d))"),
        ("a ÷ b ⊕ c ⊖ d", "(((a / b) + c) - d)"),
        ("a < b && c ≥ d || e", "(((a < b) && (c >= d)) || e)"),
        ("x ∈ 0..n + 1", "(x ∈ (0..(n + 1)))"),
        ("¬a ∧ b", "((! a) && b)"),
        ("x as f32 * y", "((x as f32) * y)"),
        ("-x as f32", "((- x) as f32)"),
        ("∑ x * y", "((sum x) * y)"),
        ("∑(x, axis: 1)²", "(sum(x, axis: 1) pow 2)"),
        ("∑(x)²", "(sum (x pow 2))"),
        ("|a - b|² * 2", "((abs((a - b)) pow 2) * 2)"),
        ("|x| x * 2", "fn(x) (x * 2)"),
        ("|x| - 1", "(abs(x) - 1)"),
        ("|x| (-x)", "fn(x) (- x)"),
        ("|a, b| a + b", "fn(a, b) (a + b)"),
        ("|| 1", "fn() 1"),
        ("(|x| x)(2)", "fn(x) x(2)"),
        ("m[1..-1, .., a..b; 2]", "m[(1..(- 1)), (..), (a..b;2)]"),
        ("m[..=3]", "m[(..=3)]"),
        ("t.0.1", "t.0.1"),
        ("a.b(c).d[0]", "a.b(c).d[0]"),
        ("a\n  .b()\n  .c()", "a.b().c()"),
        ("a = b += c", "(a = (b += c))"),
        ("(a, b)", "<a, b>"),
        ("(a,)", "<a>"),
        ("(a)", "a"),
        ("a +\n\n b", "(a + b)"),
        ("∇f(x)", "grad1(f)(x)"),
        ("∇²f(x)", "grad2(f)(x)"),
        ("∇(f, wrt: 0)", "grad1(f, 0)"),
        ("∂f/∂x", "grad1(f, x)"),
        ("3.0+4.0i", "(3.0 + 4.0i)"),
        ("f(x)(y)", "f(x)(y)"),
        ("a @ b • c", "((a @ b) ⋅ c)"),
    ],
)
def test_expression(text: str, expected: str) -> None:
    assert expression(text) == expected


def test_a_block_ends_a_statement() -> None:
    program, found = parse(Source("if a { 1 } else { 2 } -3\nfor i in 0..3 { f(i) } g()"))
    assert not found
    assert len(program.statements) == 4


def test_else_may_stand_on_the_next_line() -> None:
    program, found = parse(Source("if a { 1 }\nelse if b { 2 }\n\nelse { 3 }"))
    assert not found
    assert len(program.statements) == 1


def test_struct_literals_and_heads() -> None:
    program, found = parse(
        Source("let p = P { x: 1, y }\nif a == B { f() }\nmatch p { P { x, y } => x }")
    )
    assert not found
    assert len(program.statements) == 3


def test_format_holes_hold_expressions() -> None:
    program, found = parse(Source('f"{a + 1:.3} {{x}} {m[0, 1]}"'))
    assert not found
    statement = program.statements[0]
    assert isinstance(statement, s.ExprStatement)
    assert isinstance(statement.value, s.FormatExpr)
    holes = [piece for piece in statement.value.pieces if isinstance(piece, s.FormatHole)]
    assert [(show(hole.value), hole.spec) for hole in holes] == [("(a + 1)", ".3"), ("m[0, 1]", "")]


def test_doc_comments_belong_to_their_function() -> None:
    program, _ = parse(
        Source("/// One.\n/// Two.\n#[differentiable]\npub fn f(x) { x }\nfn g(x) { x }")
    )
    first, second = program.statements
    assert isinstance(first, s.FunctionItem)
    assert isinstance(second, s.FunctionItem)
    assert (first.doc, second.doc) == ("One.\nTwo.", "")


def test_recovery_keeps_the_good_statements() -> None:
    text = "let a = 1\nlet b = )\nfn f(x { x }\nlet c = 2\nfn g(x) { let y = ;\n x }\nlet d = 3"
    program, found = parse(Source(text))
    names = [n.pattern.span.text for n in program.statements if isinstance(n, s.LetStatement)]
    assert {"a", "c", "d"} <= set(names)
    assert len([item for item in found if item.is_error]) >= 3


def test_spans_cover_their_text() -> None:
    text = "let y = f(a + b, axis: 1) * 2"
    program, _ = parse(Source(text))
    statement = program.statements[0]
    assert statement.span.text == text
    assert isinstance(statement, s.LetStatement)
    assert isinstance(statement.value, s.BinaryExpr)
    assert statement.value.left.span.text == "f(a + b, axis: 1)"


@given(strategies.text(alphabet="let fn x=+-*/(){}[]|²ᵀ√∑π∂∇12.0_m\"\n;,:<>&!#'f", max_size=60))
def test_any_text_gives_a_tree_or_findings(text: str) -> None:
    program, found = parse(Source(text))
    assert isinstance(program, s.Program)
    for item in found:
        assert str(item)


def test_parsing_is_linear() -> None:
    folder = Path(__file__).parent.parent / "kernels"
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.ns")))
    once = calls_of(lambda: parse(Source(text)))
    assert calls_of(lambda: parse(Source("\n".join([text] * 4)))) <= 4.1 * once
    assert once < 700 * text.count("\n")
