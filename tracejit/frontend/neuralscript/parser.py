"""Statements, items and programs; recovery at statement ends, so one run finds several errors."""

from __future__ import annotations

from collections.abc import Callable

from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript.diagnostics import Diagnostic, Fault, fault
from tracejit.frontend.neuralscript.lexer import tokenize
from tracejit.frontend.neuralscript.parse_macros import MacroParser
from tracejit.frontend.neuralscript.source import Source, Span
from tracejit.frontend.neuralscript.tokens import LEFT_OUT

_BLOCK_LIKE = (s.IfExpr, s.ForExpr, s.WhileExpr, s.LoopExpr, s.MatchExpr, s.BlockExpr)
_BLOCK_WORDS = frozenset(("if", "for", "while", "loop", "match", "{"))
_BUILTIN_MODULES = frozenset(("std", "core", "math", "neuralscript"))


class Parser(MacroParser):
    """Reads a whole program."""

    def program(self) -> s.Program:
        """program = { item | statement } ."""
        statements: list[s.Syntax] = []
        self.skip_newlines()
        while self.token.kind != "end":
            statement = self.guarded()
            if statement is not None:
                statements.append(statement)
            if self.sees("}"):  # left over from a faulty construct
                self.advance()
            self.skip_newlines()
        whole = Span(self.source, 0, len(self.source.text))
        return s.Program(whole, tuple(statements))

    def guarded(self) -> s.Syntax | None:
        """Read one statement; on an error keep the finding, skip to the next one."""
        nesting, struct, start = self.nesting, self.allow_struct, self.at
        try:
            return self.statement()
        except Fault as failure:
            self.nesting, self.allow_struct = nesting, struct
            self.recover(failure, start)
            return None

    def statement(self) -> s.Syntax:
        while self.sees("#"):
            self.attribute()
        self.take("pub")
        token = self.token
        if token.kind == "name":
            if token.text in LEFT_OUT and token.text not in ("gpu", "spawn", "actor"):
                raise self.left_out(token)
            if token.text in ("gpu", "actor") and (
                self.peek().text == "{" or self.peek().kind == "name"
            ):
                raise self.left_out(token)
            reader = self.item_readers().get(token.text)
            if reader is not None:
                return reader()
        return self.expression_statement()

    def item_readers(self) -> dict[str, Callable[[], s.Syntax]]:
        return {
            "let": self.let,
            "const": self.const,
            "fn": self.function,
            "struct": self.struct_item,
            "enum": self.enum_item,
            "impl": self.impl_item,
            "use": self.use_item,
            "import": self.use_item,
            "type": self.alias_item,
        }

    def attribute(self) -> None:
        """Accept ``#[differentiable]`` and its kin; they change nothing."""
        self.advance()
        self.expect("[", "after `#`")
        depth = 1
        while depth and self.token.kind != "end":
            token = self.advance()
            depth += (token.text == "[") - (token.text == "]")
        self.skip_newlines()

    def expression_statement(self) -> s.Syntax:
        start = self.token.start
        starts_block = self.token.text in _BLOCK_WORDS
        value = self.primary() if starts_block else self.expression()
        if isinstance(value, _BLOCK_LIKE) and starts_block:
            return s.ExprStatement(self.since(start), value)
        self.statement_end()
        return s.ExprStatement(self.since(start), value)

    def statement_end(self) -> None:
        if self.token.kind in ("newline", "end") or self.sees("}"):
            return
        raise self.expected("the end of the statement")

    # --- statements ---------------------------------------------------------------------------

    def let(self) -> s.Syntax:
        """let = "let" pattern [":" type] ["=" expression] ."""
        start = self.advance().start
        pattern = self.pattern(alternatives=False)
        annotation = self.type() if self.take(":") else None
        value = None
        if self.take("="):
            self.skip_newlines()
            value = self.expression()
        elif self.sees("+=", "-=", "==", ":="):
            raise self.expected("`=`")
        self.statement_end()
        return s.LetStatement(self.since(start), pattern, annotation, value)

    def const(self) -> s.Syntax:
        start = self.advance()
        if self.sees("fn"):
            return self.function()
        name = self.name("the constant's name").text
        annotation = self.type() if self.take(":") else None
        self.expect("=", "and the constant's value")
        self.skip_newlines()
        value = self.expression()
        self.statement_end()
        return s.ConstItem(self.since(start.start), name, annotation, value)

    def block(self) -> s.BlockExpr:
        start = self.token.start
        self.expect("{")
        self.enter()
        outer, self.allow_struct = self.allow_struct, True
        statements: list[s.Syntax] = []
        ended = True  # whether the last statement was closed by `;`
        self.skip_newlines()
        while not self.sees("}") and self.token.kind != "end":
            statement = self.guarded()
            ended = self.sees(";") or statement is None
            if statement is not None:
                statements.append(statement)
            self.skip_newlines()
        self.expect("}", "to close the block")
        self.allow_struct = outer
        self.leave()
        value = None
        if statements and not ended and isinstance(statements[-1], s.ExprStatement):
            last = statements.pop()
            assert isinstance(last, s.ExprStatement)
            value = last.value
        return s.BlockExpr(self.since(start), tuple(statements), value)

    def keyword_readers(self) -> dict[str, Callable[[], s.Expr]]:
        return {
            **super().keyword_readers(),
            "if": self.if_expr,
            "match": self.match_expr,
            "for": self.for_expr,
            "while": self.while_expr,
            "loop": self.loop_expr,
            "return": self.jump,
            "break": self.jump,
            "continue": self.jump,
        }

    def if_expr(self) -> s.Expr:
        start = self.advance().start
        condition = self.head()
        then = self.body("`if`")
        otherwise: s.Expr | None = None
        at = self.at
        self.skip_newlines()
        if self.take("else"):
            otherwise = self.if_expr() if self.sees("if") else self.body("`else`")
        else:
            self.at = at
        return s.IfExpr(self.since(start), condition, then, otherwise)

    def body(self, what: str) -> s.BlockExpr:
        if not self.sees("{"):
            help = ""
            if self.sees("=", ":", "then"):
                help = (
                    "write `==` to compare" if self.sees("=") else f"{what} takes a block `{{ … }}`"
                )
            raise self.expected(f"`{{` after {what}", help)
        return self.block()

    def match_expr(self) -> s.Expr:
        start = self.advance().start
        subject = self.head()
        self.expect("{", "after the value to match")
        self.skip_newlines()
        arms: list[s.MatchArm] = []
        while not self.sees("}") and self.token.kind != "end":
            at = self.token.start
            pattern = self.pattern()
            guard = self.expression() if self.take("if") else None
            self.expect("=>", "after the pattern")
            self.skip_newlines()
            body = self.expression()
            arms.append(s.MatchArm(self.since(at), pattern, guard, body))
            if (
                not self.take(",")
                and self.token.kind != "newline"
                and not self.sees("}")
                and not isinstance(body, s.BlockExpr)
            ):
                raise self.expected("`,` or a new line after the arm")
            self.skip_newlines()
        self.expect("}", "to close the match")
        return s.MatchExpr(self.since(start), subject, tuple(arms))

    def for_expr(self) -> s.Expr:
        start = self.advance().start
        pattern = self.pattern()
        self.expect("in", "after the loop variable")
        iterable = self.head()
        return s.ForExpr(self.since(start), pattern, iterable, self.body("`for`"))

    def while_expr(self) -> s.Expr:
        start = self.advance().start
        condition = self.head()
        return s.WhileExpr(self.since(start), condition, self.body("`while`"))

    def loop_expr(self) -> s.Expr:
        start = self.advance().start
        return s.LoopExpr(self.since(start), self.body("`loop`"))

    def jump(self) -> s.Expr:
        token = self.advance()
        value = None
        ends = self.token.kind in ("newline", "end", "close") or self.sees(",")
        if token.text != "continue" and not ends:
            value = self.expression()
        return s.JumpExpr(self.since(token.start), token.text, value)

    # --- items --------------------------------------------------------------------------------

    def function(self, owner: str | None = None) -> s.FunctionItem:
        """function = "fn" name [generics] "(" parameters ")" ["->" type] block ."""
        start = self.advance().start
        doc = self.doc(start)
        name = self.name("the function's name")
        generics = self.generics()
        self.expect("(", "to open the parameters")
        parameters: list[s.Parameter] = []
        while not self.sees(")"):
            parameters.append(self.parameter(owner))
            if not self.take(","):
                break
        self.expect(")", "to close the parameters")
        result = self.type() if self.take("->") else None
        generics = self.where(generics)
        self.skip_newlines()
        body = self.body(f"the head of `{name.text}`")
        return s.FunctionItem(
            self.since(start),
            name.text,
            self.span(name),
            generics,
            tuple(parameters),
            result,
            body,
            owner,
            doc,
        )

    def doc(self, start: int) -> str:
        """Return the text of the ``///`` lines above an offset."""
        number = self.source.position(start)[0] - 1
        lines: list[str] = []
        while number > 0:
            line = self.source.line(number).strip()
            if line.startswith("///"):
                lines.insert(0, line.removeprefix("///").strip())
            elif lines or not line.startswith("#["):
                break
            number -= 1
        return "\n".join(lines)

    def parameter(self, owner: str | None) -> s.Parameter:
        start = self.token.start
        mutable = reference = False
        if self.sees("&") and owner is not None:
            self.advance()
            reference = True
        if self.sees("mut"):
            self.advance()
            mutable = True
        if self.sees("self"):
            token = self.advance()
            if owner is None:
                raise fault("N011", "`self` outside an `impl` block", self.span(token))
            here = self.since(start)
            annotation: s.TypeSyntax = s.NamedType(here, "Self")
            if reference:
                annotation = s.ReferenceType(here, annotation, mutable)
            return s.Parameter(here, s.NamePattern(here, "self", mutable), annotation)
        pattern = self.pattern(alternatives=False)
        if mutable and isinstance(pattern, s.NamePattern):
            pattern = s.NamePattern(pattern.span, pattern.name, True)
        annotation_given = self.type() if self.take(":") else None
        default = self.expression() if self.take("=") else None
        return s.Parameter(self.since(start), pattern, annotation_given, default)

    def where(self, generics: tuple[s.Generic, ...]) -> tuple[s.Generic, ...]:
        """Read ``where T: Float, …`` and add its bounds to the generics."""
        at = self.at
        self.skip_newlines()
        if not self.take("where"):
            self.at = at
            return generics
        bounds: dict[str, list[s.TypeSyntax]] = {}
        while self.sees_name():
            name = self.advance().text
            self.expect(":", "in `where`")
            found = bounds.setdefault(name, [])
            found.append(self.type_atom())
            while self.take("+"):
                found.append(self.type_atom())
            if not self.take(","):
                break
            self.skip_newlines()
        return tuple(
            s.Generic(g.span, g.name, g.const, (*g.bounds, *bounds.get(g.name, [])))
            for g in generics
        )

    def struct_item(self) -> s.Syntax:
        start = self.advance().start
        name = self.name("the struct's name").text
        generics = self.generics()
        self.skip_newlines()
        self.expect("{", "to open the struct")
        self.skip_newlines()
        found: list[s.FieldItem] = []
        while not self.sees("}"):
            self.take("pub")
            field = self.name("a field")
            self.expect(":", "and the field's type")
            annotation = self.type()
            found.append(s.FieldItem(self.since(field.start), field.text, annotation))
            if not self.take(",") and self.token.kind != "newline" and not self.sees("}"):
                raise self.expected("`,` or `}`")
            self.skip_newlines()
        self.expect("}", "to close the struct")
        return s.StructItem(self.since(start), name, generics, tuple(found))

    def enum_item(self) -> s.Syntax:
        start = self.advance().start
        name = self.name("the enum's name").text
        generics = self.generics()
        self.skip_newlines()
        self.expect("{", "to open the enum")
        self.skip_newlines()
        found: list[s.VariantItem] = []
        while not self.sees("}"):
            variant = self.name("a variant")
            items: list[s.TypeSyntax] = []
            if self.take("("):
                while not self.sees(")"):
                    items.append(self.type())
                    if not self.take(","):
                        break
                self.expect(")", "to close the variant")
            found.append(s.VariantItem(self.since(variant.start), variant.text, tuple(items)))
            if not self.take(",") and self.token.kind != "newline" and not self.sees("}"):
                raise self.expected("`,` or `}`")
            self.skip_newlines()
        self.expect("}", "to close the enum")
        return s.EnumItem(self.since(start), name, generics, tuple(found))

    def impl_item(self) -> s.Syntax:
        start = self.advance().start
        generics = self.generics()
        target = self.named_type()
        assert isinstance(target, s.NamedType)
        if self.sees("for"):
            raise self.left_out(self.token._replace(text="trait"))
        self.skip_newlines()
        self.expect("{", "to open the impl block")
        self.skip_newlines()
        found: list[s.FunctionItem] = []
        while not self.sees("}") and self.token.kind != "end":
            while self.sees("#"):
                self.attribute()
            self.take("pub")
            if not self.sees("fn"):
                raise self.expected("`fn`")
            begin = self.at
            try:
                found.append(self.function(target.name))
            except Fault as failure:
                self.recover(failure, begin)
            self.skip_newlines()
        self.expect("}", "to close the impl block")
        return s.ImplItem(self.since(start), target.name, generics, tuple(found))

    def use_item(self) -> s.Syntax:
        """use = ("use" | "import") name { ("::" | ".") name } [("::" | ".") "{" names "}"] ."""
        start = self.advance().start
        parts = [self.name("a module").text]
        names: list[str] | None = None
        while self.take("::", "."):
            if self.take("*"):
                names = ["*"]
                break
            if self.take("{"):
                names = []
                while not self.sees("}"):
                    self.skip_newlines()
                    names.append(self.name("a name to import").text)
                    self.skip_newlines()
                    if not self.take(","):
                        break
                self.expect("}", "to close the names")
                break
            parts.append(self.name("a name").text)
        self.statement_end()
        builtin = parts[0] in _BUILTIN_MODULES
        if names is None and len(parts) > 1 and not builtin:
            names = [parts.pop()]
        module = "/".join(parts)
        found = None if names is None else tuple(names)
        return s.UseItem(self.since(start), module, found, builtin)

    def alias_item(self) -> s.Syntax:
        start = self.advance().start
        name = self.name("the type's name").text
        generics = self.generics()
        self.expect("=", "and the type")
        target = self.type()
        self.statement_end()
        return s.AliasItem(self.since(start), name, generics, target)


def parse(source: Source) -> tuple[s.Program, list[Diagnostic]]:
    """Return the syntax tree of a source, and what was wrong with it, in source order."""
    tokens, diagnostics = tokenize(source)
    parser = Parser(source, tokens, diagnostics)
    program = parser.program()
    return program, sorted(parser.diagnostics, key=lambda item: item.span.start)
