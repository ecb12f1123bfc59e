"""Patterns and `match`: what they bind, and whether every case is covered."""

from __future__ import annotations

from tracejit.frontend.neuralscript import matching
from tracejit.frontend.neuralscript import syntax as s
from tracejit.frontend.neuralscript import types as t
from tracejit.frontend.neuralscript.check_calls import CallChecker
from tracejit.frontend.neuralscript.diagnostics import Label, fault
from tracejit.frontend.neuralscript.scope import Binding, Scope, VariantRef


class PatternChecker(CallChecker):
    """Rules for everything that takes values apart."""

    def variant(self, owner: str | None, name: str) -> VariantRef | None:
        """Find a variant: of a named enum, or of Option and Result without their name."""
        refs = (
            [self.find_type(owner)]
            if owner is not None
            else list(self.prelude.types.values() if self.prelude is not None else ())
        )
        for ref in refs:
            if ref is not None and isinstance(ref.item, s.EnumItem):
                for entry in ref.item.variants:
                    if entry.name == name:
                        return VariantRef(ref, entry)
        return None

    def bind(self, pattern: s.Pattern, kind: t.Type, scope: Scope) -> None:
        """Bind the names of a pattern. Errors: N043."""
        match pattern:
            case s.NamePattern(span, name, mutable):
                if name != "_":
                    scope.names[name] = Binding(kind, span, mutable)
            case s.TuplePattern(span, items):
                kinds: tuple[t.Type, ...] = (t.UNKNOWN,) * len(items)
                if isinstance(kind, t.Tuple):
                    kinds = kind.items
                    if len(kinds) != len(items):
                        for item in items:
                            self.bind(item, t.UNKNOWN, scope)
                        raise fault("N043", f"a pattern of {len(items)} for `{kind}`", span)
                elif not isinstance(kind, t.Unknown | t.Never):
                    for item in items:
                        self.bind(item, t.UNKNOWN, scope)
                    raise fault("N043", f"`{kind}` is not a tuple", span)
                for item, inner in zip(items, kinds, strict=True):
                    self.bind(item, inner, scope)
            case s.LiteralPattern(span, value):
                self.coerce(self.expr(value), kind, span, "the pattern")
            case s.RangePattern(_, range):
                self.expr(range)
            case s.OrPattern(_, options):
                for option in options:
                    self.bind(option, kind, scope)
            case s.VariantPattern():
                self.bind_variant(pattern, kind, scope)
            case _:
                raise fault("N043", "this pattern is not understood", pattern.span)

    def bind_variant(self, pattern: s.VariantPattern, kind: t.Type, scope: Scope) -> None:
        if pattern.fields is not None:
            for name, inner in pattern.fields:
                found = self.field_type(kind, name) if isinstance(kind, t.Named) else t.UNKNOWN
                if found is None:
                    raise fault("N023", f"`{kind}` has no field `{name}`", inner.span)
                self.bind(inner, found, scope)
            return
        *owners, name = pattern.path
        owner = owners[-1] if owners else None
        if owner is None and isinstance(kind, t.Named):
            owner = kind.name
        if owner == "Self" and isinstance(self.body.self_type, t.Named):
            owner = self.body.self_type.name
        ref = self.variant(owner, name)
        if ref is None:
            raise fault(
                "N043", f"`{'::'.join(pattern.path)}` is not a variant of `{kind}`", pattern.span
            )
        if isinstance(kind, t.Named) and kind.item is not ref.owner.item:
            raise fault("N043", f"`{ref.name}` does not match `{kind}`", pattern.span)
        items = pattern.items or ()
        if len(items) != len(ref.item.items):
            raise fault(
                "N043",
                f"`{ref.name}` holds {len(ref.item.items)} values, the pattern {len(items)}",
                pattern.span,
            )
        inner_types = self.member_types(ref.owner, ref.item.items)
        names = [generic.name for generic in ref.owner.item.generics]
        arguments = kind.arguments if isinstance(kind, t.Named) else ()
        found_args = dict(zip(names, arguments, strict=False))
        for item, inner_type in zip(items, inner_types, strict=True):
            self.bind(item, matching.substitute(inner_type, found_args), scope)

    def match(self, node: s.MatchExpr, expected: t.Type | None) -> t.Type:
        subject = self.expr(node.subject)
        result: t.Type = t.NEVER
        outer = self.scope
        for arm in node.arms:
            self.scope = Scope(outer)
            try:
                self.bind(arm.pattern, subject, self.scope)
                if arm.guard is not None:
                    self.condition(arm.guard, self.scope)
                kind = self.expr(arm.body, expected)
            finally:
                self.scope = outer
            joined = t.VOID if expected is t.VOID else matching.join(result, kind)
            if joined is None:
                raise fault(
                    "N030",
                    f"the arms of `match` differ: `{result}` and `{kind}`",
                    arm.body.span,
                    f"this is `{kind}`",
                    Label(node.arms[0].body.span, f"this is `{result}`"),
                )
            result = joined
        self.exhaustive(node, subject)
        return result

    def exhaustive(self, node: s.MatchExpr, subject: t.Type) -> None:
        """Refuse a match that leaves a case open."""
        open_cases: set[str] | None = None
        if isinstance(subject, t.Named) and isinstance(subject.item, s.EnumItem):
            open_cases = {entry.name for entry in subject.item.variants}
        elif isinstance(subject, t.Array) and t.kind_of(subject.element) == "bool":
            open_cases = {"true", "false"}
        for arm in node.arms:
            options = (
                arm.pattern.options if isinstance(arm.pattern, s.OrPattern) else (arm.pattern,)
            )
            for option in options:
                if arm.guard is None and _irrefutable(option):
                    return
                if arm.guard is None and open_cases is not None:
                    open_cases.discard(_covered(option))
        if isinstance(subject, t.Unknown) or open_cases == set():
            return
        missing = ", ".join(f"`{name}`" for name in sorted(open_cases or {"_"}))
        raise fault(
            "N043",
            f"the match leaves {missing} open",
            node.subject.span,
            help="add an arm `_ => …`",
        )


def _irrefutable(pattern: s.Pattern) -> bool:
    if isinstance(pattern, s.TuplePattern):
        return all(map(_irrefutable, pattern.items))
    if isinstance(pattern, s.VariantPattern):
        return pattern.fields is not None and all(_irrefutable(p) for _, p in pattern.fields)
    return isinstance(pattern, s.NamePattern)


def _covered(pattern: s.Pattern) -> str:
    """Return the case that a pattern covers wholly, or ""."""
    if isinstance(pattern, s.VariantPattern) and all(map(_irrefutable, pattern.items or ())):
        return pattern.path[-1]
    if isinstance(pattern, s.LiteralPattern) and isinstance(pattern.value, s.BoolExpr):
        return str(pattern.value.value).lower()
    return ""
