"""An expression as Python is to evaluate it: in arithmetic all numbers are doubles.

NumPy's sum of two bools is their "or", and products of small integers (codes of categories, days of the year)
wrap around. Names in backticks get stand-ins that are the same for every evaluation, under which formulaic
finds the state of its transforms again.
"""

from __future__ import annotations

import ast
from functools import lru_cache
from typing import Any

import numpy as np

from lmmjax.formula.text.safety import read_expression

DOUBLE = "_double_"
"""Name of `double` in what is evaluated."""

_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
_SIGNS = (ast.UAdd, ast.USub)
_SCOPES = (ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
_FUNCTIONS = frozenset(("abs", "absolute", "add", "divide", "float_power", "floor_divide", "fmod", "mod")) | {
    *("multiply", "negative", "positive", "pow", "power", "reciprocal", "remainder", "square", "subtract"),
    "true_divide",
}


def double(values: Any) -> Any:
    """Arrays and Series of bools and integers as doubles, all else as it is."""
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    return values.astype(np.float64) if kind in ("b", "i", "u") and np.ndim(values) else values


@lru_cache(maxsize=256)
def evaluable(text: str) -> tuple[str, dict[str, str]]:
    """The expression with doubles in its arithmetic, and the names that stand-ins in it stand for."""
    expression = read_expression(text)
    tree = ast.fix_missing_locations(_Doubles().visit(expression.tree))
    return ast.unparse(tree), expression.hidden


class _Doubles(ast.NodeTransformer):
    """Puts `double` around operands of arithmetic that may be no doubles.

    Not in lambdas and comprehensions, which do not see what surrounds them.
    """

    def visit(self, node: ast.AST) -> ast.AST:
        return node if isinstance(node, _SCOPES) else super().visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, _ARITHMETIC):
            node.left, node.right = _doubled(node.left), _doubled(node.right)
        return node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.op, _SIGNS):
            node.operand = _doubled(node.operand)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        name, owner = getattr(node.func, "attr", ""), getattr(getattr(node.func, "value", None), "id", "")
        if getattr(node.func, "id", "") in ("abs", "pow") or (owner == "np" and name in _FUNCTIONS):
            node.args = [_doubled(argument) for argument in node.args]
        return node


def _doubled(node: ast.expr) -> ast.expr:
    arithmetic = isinstance(node, ast.BinOp | ast.UnaryOp) and isinstance(node.op, (*_ARITHMETIC, *_SIGNS))
    if arithmetic or isinstance(node, ast.Constant | ast.Starred):
        return node
    return ast.Call(ast.Name(DOUBLE, ast.Load()), [node], [])
