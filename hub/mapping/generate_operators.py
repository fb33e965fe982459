"""Operators to Python: the frequent pairs of types inline, all others by the complete functions."""

from __future__ import annotations

from typing import Final

from hub.mapping import tree
from hub.mapping.annotation import annotation
from hub.mapping.emitter import Code, Emitter, Scope
from hub.mapping.operators import TEXT_MAX
from hub.mapping.tree import Query, literal_of

_INT64: Final = "-9223372036854775808 <= {0} <= 9223372036854775807"
_ORDER: Final = {"<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}
_REAL: Final = "not 1e-5 <= {0} < 1e16 or {0} % 1 == 0"


class Operators(Emitter):
    """Generates operators."""

    # Operators

    def inverse(self, operand: Query, scope: Scope) -> Code:
        value = self.kept(self.query(operand, scope))
        if value.kind == "bool":
            return Code(f"not {value.text}", "bool")
        return self.failing_call(f"inverted({value.text}, {annotation(operand)!r})", None, "bool")

    def _binary(self, node: tree.Binary, scope: Scope) -> Code:
        match node.op:
            case "|":
                return self.coalesce(node.left, node.right, scope)
            case "&&" | "||":
                return self._logical(node, scope)
            case "==" | "!=":
                return self._equality(node, scope)
            case "<" | "<=" | ">" | ">=":
                return self._ordering(node, scope)
            case _:
                return self._arithmetic(node.op, node.left, node.right, scope)

    def _logical(self, node: tree.Binary, scope: Scope) -> Code:
        made = self.temp()
        self._truth(made, node.left, scope)
        with self.block(f"if {made}:" if node.op == "&&" else f"if not {made}:"):
            self._truth(made, node.right, scope)
        return Code(made, "bool")

    def _truth(self, made: str, operand: Query, scope: Scope) -> None:
        value = self.query(operand, scope)
        if value.kind == "bool":
            self.emit(f"{made} = {value.text}")
        else:
            self.failing += 1
            self.emit(f"{made} = truth({value.text})")

    def _equality(self, node: tree.Binary, scope: Scope) -> Code:
        left, right = self.kept(self.query(node.left, scope)), self.kept(self.query(node.right, scope))
        sign, complete = ("==", "equal") if node.op == "==" else ("!=", "not_equal")
        a, b = left.text, right.text
        literal = literal_of(node.right)
        if left.kind == right.kind == "str" or (left.json and literal and type(literal.value) is str):
            return Code(f"{a} {sign} {b}", "bool")
        if literal is not None and type(literal.value) is str:
            return Code(f"({a} {sign} {b} if type({a}) is str else {complete}({a}, {b}))", "bool")
        if literal is not None and type(literal.value) is int:
            return Code(f"({a} {sign} {b} if type({a}) is int else {complete}({a}, {b}))", "bool")
        return Code(f"({a} {sign} {b} if type({a}) is str is type({b}) else {complete}({a}, {b}))", "bool")

    def _handler(self, left: Query, right: Query) -> str:
        return f"between(e, {annotation(left)!r}, {annotation(right)!r})"

    def _ordering(self, node: tree.Binary, scope: Scope) -> Code:
        left, right = self.kept(self.query(node.left, scope)), self.kept(self.query(node.right, scope))
        a, b, made = left.text, right.text, self.temp()
        literal = literal_of(node.right)
        number = literal is not None and type(literal.value) in (int, float)
        fast = f"type({a}) is int or type({a}) is float" if number else f"type({a}) is type({b}) is int"
        self.failing += 1
        with self.block(f"if {fast}:"):
            self.emit(f"{made} = {a} {node.op} {b}")
        with self.block("else:"):
            self.guarded(f"{made} = {_ORDER[node.op]}({a}, {b})", self._handler(node.left, node.right))
        return Code(made, "bool")

    def _arithmetic(self, op: str, left_node: Query, right_node: Query, scope: Scope) -> Code:
        left, right = self.query(left_node, scope), self.query(right_node, scope)
        left, right = (self.named(code) if op == "+" else self.kept(code) for code in (left, right))
        a, b, made = left.text, right.text, self.temp()
        slow = {"+": "add", "-": "subtract", "*": "multiply", "/": "divide", "%": "modulo"}[op]
        handler = self._handler(left_node, right_node)
        self.failing += 1
        head = "if"
        kinds = [
            self._known(node) or ("str" if code.kind == "str" else None)
            for node, code in ((left_node, left), (right_node, right))
        ]
        if op in "+-*":
            for actual in ("float", "int"):
                tests = [
                    f"type({text}) is {actual}"
                    for text, known in ((a, kinds[0]), (b, kinds[1]))
                    if known != actual
                ]
                if any(known not in (None, actual) for known in kinds):
                    continue
                with self.block(f"{head} {' and '.join(tests) or 'True'}:"):
                    self.emit(f"{made} = {a} {op} {b}")
                    if actual == "float":
                        self.emit(f"if {_REAL.format(made)}: {made} = real({made})")
                    else:
                        self.emit(f"if not {_INT64.format(made)}: {made} = {slow}({a}, {b})")
                head = "elif"
        if op == "+" and all(known in (None, "str", "ascii") for known in kinds):
            tests = [
                ("" if known == "str" else f"type({text}) is str and ") + f"{text}.isascii() and "
                for text, known in ((a, kinds[0]), (b, kinds[1]))
                if known != "ascii"
            ]
            with self.block(f"{head} {''.join(tests)}len({a}) + len({b}) <= {TEXT_MAX}:"):
                self.emit(f"{made} = {a} + {b}")
            head = "elif"
        if head == "if":
            self.guarded(f"{made} = {slow}({a}, {b})", handler)
        else:
            with self.block("else:"):
                self.guarded(f"{made} = {slow}({a}, {b})", handler)
        if op == "+":
            return Code(made, "str" if kinds[0] in ("str", "ascii") else "value")
        return Code(made, "num")

    def _known(self, node: Query) -> str | None:
        found = literal_of(node)
        if found is None:
            return None
        if type(found.value) is str:
            return "ascii" if found.value.isascii() else "str"
        return {int: "int", float: "float"}.get(type(found.value), "other")
