"""What a Python expression of a formula names, and whether it is one of a safe formula.

A safe formula has columns, literals, arithmetic, comparisons and calls of known functions, and nothing else.
That is decided by walking the syntax tree of every expression, before anything is evaluated: what is not
listed here is refused.
"""

import ast
import builtins
import math
import re
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

QUOTES = re.compile(r"""`[^`]*`|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'""")

_NUMPY = """
    abs absolute arccos arccosh arcsin arcsinh arctan arctan2 arctanh cbrt ceil clip cos cosh
    deg2rad degrees exp exp2 expm1 fabs floor fmax fmin fmod hypot isfinite isinf isnan log log10
    log1p log2 logaddexp logical_and logical_not logical_or logical_xor max maximum mean median min
    minimum mod power quantile rad2deg radians reciprocal remainder rint round sign sin sinh sqrt
    square std sum tan tanh trunc var where
"""
NUMPY = frozenset(re.findall(r"\w+", _NUMPY))
"""Functions of NumPy that a safe formula may call, as `np.log`."""

NUMBERS = frozenset(("e", "inf", "nan", "pi"))
CONTRASTS = frozenset(("SAS", "custom", "diff", "helmert", "poly", "sum", "treatment"))
MEMBERS = {"np": NUMPY | NUMBERS, "contr": CONTRASTS}
"""Attributes by the name that they are of: `np.log`, `contr.poly`."""

BUILTINS = frozenset(("abs", "max", "min", "round", "sum"))

BASES = frozenset(("bs", "cc", "cr", "cs", "hashed", "ns", "poly"))
"""Functions that make as many columns as their second argument, or another number among them, says."""

_ARGUMENTS = {"np.clip": 3, "np.quantile": 2, "np.round": 2, "np.where": 3}
"""Arguments of NumPy's functions that are no ufuncs, where they are not one."""

INTEGERS = 2.0**63
"""Whole numbers below this one are Python's and NumPy's alike."""

REPEATS = 10**7
"""Most repetitions of a text or list, and numbers of a range."""

REMEDY = "if you trust the formula, allow any Python: safe=False, or --allow-python on the command line"

_KINDS = (
    *(ast.Expression, ast.Call, ast.keyword, ast.Constant, ast.Name, ast.Load, ast.Attribute),
    *(ast.BinOp, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow, ast.BitAnd, ast.BitOr),
    *(ast.UnaryOp, ast.UAdd, ast.USub, ast.Not, ast.Invert, ast.BoolOp, ast.And, ast.Or),
    *(ast.Compare, ast.Eq, ast.NotEq, ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.List, ast.Tuple, ast.Dict),
)
_WORDS = {
    ast.Lambda: "a lambda",
    ast.Subscript: "a subscript",
    ast.JoinedStr: "an f-string",
    ast.NamedExpr: "an assignment",
    ast.IfExp: "an if",
    ast.Starred: "a starred argument",
    ast.MatMult: "a matrix product",
}
_WORDS |= dict.fromkeys((ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp), "a comprehension")


@dataclass(frozen=True)
class Expression:
    """A Python expression of a formula.

    `text` is its source; `tree` its syntax, in which names in backticks are stood for by those that `hidden`
    translates; `values` and `functions` are the names it refers to.
    """

    text: str
    tree: ast.Expression
    hidden: dict[str, str]

    @property
    def calls(self) -> list[ast.Call]:
        return [node for node in ast.walk(self.tree) if isinstance(node, ast.Call)]

    @property
    def functions(self) -> set[str]:
        called = [node.func.id for node in self.calls if isinstance(node.func, ast.Name)]
        return {self.shown(name) for name in called} - self._local

    @property
    def values(self) -> set[str]:
        called = {id(node.func) for node in self.calls}
        nodes = [node for node in ast.walk(self.tree) if isinstance(node, ast.Name)]
        literals = [n.args[0] for n in self.calls if getattr(n.func, "id", "") == "Q" and n.args]
        quoted = {str(node.value) for node in literals if isinstance(node, ast.Constant)}
        return {self.shown(node.id) for node in nodes if id(node) not in called} - self._local | quoted

    @property
    def _local(self) -> set[str]:
        """Arguments of lambdas, and what comprehensions assign to."""
        nodes = list(ast.walk(self.tree))
        stored = [node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
        return {*stored, *(node.arg for node in nodes if isinstance(node, ast.arg))}

    def shown(self, name: str) -> str:
        """The name as the formula has it."""
        return self.hidden.get(name, name)


def read_expression(text: str) -> Expression:
    """The syntax of a Python expression in which names may be in backticks; SyntaxError as Python's."""
    stand_ins: dict[str, str] = {}

    def hide(match: re.Match) -> str:
        if not match.group().startswith("`"):
            return match.group()
        return stand_ins.setdefault(match.group()[1:-1], f" _hidden{len(stand_ins)}_ ")

    tree = ast.parse(QUOTES.sub(hide, text).strip(), mode="eval")
    return Expression(text, tree, {stand_in.strip(): name for name, stand_in in stand_ins.items()})


def require_sound(label: str, expression: Expression, context: Mapping[str, Any], n: int) -> None:
    """ValueError for what would end in overflow, in no answer, or in a column that is overwritten.

    `context` has what an expression may name besides columns; n is the number of rows.
    """
    for node in ast.walk(expression.tree):
        of = getattr(node.value, "id", "") if isinstance(node, ast.Attribute) else ""
        if isinstance(node, ast.Attribute) and of == "contr" and node.attr not in CONTRASTS:
            known = ", ".join(sorted(CONTRASTS))
            raise ValueError(f"{label}: unknown contrasts 'contr.{node.attr}': there are: {known}")
        value = _number(node)
        if isinstance(value, int) and abs(value) >= INTEGERS:
            raise ValueError(
                f"{label}: a whole number in {expression.text!r} is beyond 2**63: write it as 1e30"
            )
        size = _repeats(node)
        if size is not None and size > REPEATS:
            raise ValueError(
                f"{label}: {expression.text!r} repeats or counts to {size:.3g}, which would not end: "
                "take the expression away, or make the column beforehand"
            )
    for call in expression.calls:
        name, function = _callee(call, context)
        sizes = [*call.args[1:], *(pair.value for pair in call.keywords)] if name in BASES else []
        for size in map(_number, sizes):
            if name == "poly" and isinstance(size, int) and size < 1:
                raise ValueError(f"{label}: poly(..., {size}) has no columns: give a degree of at least 1")
            if isinstance(size, int) and size > n:
                raise ValueError(
                    f"{label}: {name}(..., {size}) has more columns than the data have rows: {n}"
                )
        # what comes after its inputs is where a ufunc writes
        if isinstance(function, np.ufunc) and (len(call.args) > function.nin or call.keywords):
            takes = "one argument" if function.nin == 1 else f"{function.nin} arguments"
            raise ValueError(f"{label}: {name}() takes {takes} in {expression.text!r}")


def require_safe(
    label: str, expression: Expression, context: Mapping[str, Any], columns: Container[str]
) -> None:
    """ValueError unless an expression is one of a safe formula.

    `columns` are those of the data. Names that are neither columns, nor in `context`, nor Python's, are left
    to those who look them up.
    """
    for what in _unsafe(expression, context, columns):
        raise ValueError(
            f"{label}: {expression.text!r} has {what}; a safe formula has columns, numbers, texts, "
            f"arithmetic, comparisons and known functions: {REMEDY}"
        )


def _callee(call: ast.Call, context: Mapping[str, Any]) -> tuple[str, Any]:
    """(name, function) that is called, as far as it is a known one."""
    if isinstance(call.func, ast.Attribute) and getattr(call.func.value, "id", "") == "np":
        return f"np.{call.func.attr}", getattr(np, call.func.attr, None)
    name = getattr(call.func, "id", "")
    return name, context.get(name)


def _unsafe(expression: Expression, context: Mapping[str, Any], columns: Container[str]) -> Iterator[str]:
    """What a safe formula may not have, in words."""
    # formulaic looks for backticks in its own way
    for quote in QUOTES.findall(expression.text):
        if set("`'\"\\") & set(quote[1:-1]):
            yield f"a quote or backslash within {quote}"
    nodes = list(ast.walk(expression.tree))
    called = {id(call.func) for call in expression.calls}
    owners = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
    for node in nodes:
        if not isinstance(node, _KINDS):
            yield _WORDS.get(type(node), f"Python's {type(node).__name__}")
        elif isinstance(node, ast.Constant) and not isinstance(node.value, str | int | float | None):
            yield f"the literal {node.value!r}"
        elif isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", "")
            # log(dot.ted) is told of backticks by those who look columns up
            dotted = f"{owner}.{node.attr}" in columns and owner not in columns
            unknown = dotted and owner not in context and not hasattr(builtins, owner)
            if node.attr not in MEMBERS.get(owner, ()) and not unknown:
                yield f"the attribute .{node.attr}"
        elif isinstance(node, ast.Name):
            name = expression.shown(node.id)
            if name in MEMBERS:
                allowed = id(node) in owners or (name in columns and id(node) not in called)
            elif id(node) in called:
                allowed = name in BUILTINS or name in context
            else:
                allowed = name in columns or name in context
            if not allowed and (name in MEMBERS or name.startswith("_") or hasattr(builtins, name)):
                yield f"the name {name}"
        elif isinstance(node, ast.Call):
            if not isinstance(node.func, ast.Name | ast.Attribute):
                yield "a call of what is no function's name"
            if any(pair.arg is None for pair in node.keywords):
                yield "a starred argument"
            name, function = _callee(node, context)
            others = name.startswith("np.") and not isinstance(function, np.ufunc)
            if others and (
                len(node.args) > _ARGUMENTS.get(name, 1) or {pair.arg for pair in node.keywords} - {"ddof"}
            ):
                yield f"further arguments of {name}()"
        elif isinstance(node, ast.BinOp):
            for side in (node.left, node.right):
                text = isinstance(side, ast.Constant) and isinstance(side.value, str)
                if text or isinstance(side, ast.List | ast.Tuple | ast.Dict):
                    yield "arithmetic with a text or list"


def _repeats(node: ast.AST) -> int | float | None:
    """How often a text or list is repeated, or how far a range counts; None of anything else."""
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            text = isinstance(one, ast.Constant) and isinstance(one.value, str | bytes)
            if text or isinstance(one, ast.List | ast.Tuple):
                return _number(other)
    if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "range":
        return max((abs(n) for n in map(_number, node.args) if n is not None), default=None)
    return None


def _number(node: ast.AST) -> int | float | None:
    """The value of arithmetic on literals, None of anything else; whole beyond 2**63 as some such number."""
    if isinstance(node, ast.Constant):
        value = node.value
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if isinstance(node, ast.UnaryOp):
        value = _number(node.operand)
        return -value if isinstance(node.op, ast.USub) and value is not None else value
    if not isinstance(node, ast.BinOp):
        return None
    left, right = _number(node.left), _number(node.right)
    operation = _ARITHMETIC.get(type(node.op))
    if left is None or right is None or operation is None:
        return None
    whole = isinstance(left, int) and isinstance(right, int) and not (operation is math.pow and right < 0)
    try:
        value = operation(float(left), float(right))
    except (OverflowError, ValueError):
        return 2**64 if whole else math.inf
    if not whole:
        return value
    return int(value) if abs(value) < INTEGERS else 2**64


_ARITHMETIC = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Pow: math.pow,
    ast.LShift: lambda a, b: a * 2.0**b,
}
