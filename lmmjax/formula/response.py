"""The way back from a transformed response, such as log(y) or sqrt(y + 1), read off its expression."""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass
from operator import add, mul, sub, truediv

import numpy as np

from lmmjax.formula.text.safety import read_expression

Jet = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""A function at points (k,) with its first three derivatives."""


@dataclass(frozen=True)
class Step:
    """The inverse of one operation: of t in [low, high] the value and three derivatives.

    `kind` is "scale" (t times a number), "shift", "exp" (of t times `factor`) or "other".
    """

    jet: Callable[[np.ndarray], Jet]
    low: float = -np.inf
    high: float = np.inf
    kind: str = "other"
    factor: float = 1.0


@dataclass(frozen=True)
class BackTransform:
    """h with y = h(η) for a response that was transformed; `text` is the response as in the formula."""

    text: str
    steps: tuple[Step, ...]

    def jet(self, eta: np.ndarray) -> Jet:
        """h, h′, h″ and h‴ (k,) at η (k,); NaN where η is no value that the transformation takes."""
        eta = np.asarray(eta, float)
        v, d1, d2, d3 = eta, np.ones_like(eta), np.zeros_like(eta), np.zeros_like(eta)
        for step in self.steps:
            inside = (v >= step.low) & (v <= step.high)
            with np.errstate(all="ignore"):
                f, f1, f2, f3 = step.jet(np.where(inside, v, np.nan))
                # derivatives of f(g(η)): f₁g₁, f₂g₁² + f₁g₂, f₃g₁³ + 3f₂g₁g₂ + f₁g₃
                d3 = f3 * d1**3 + 3.0 * f2 * d1 * d2 + f1 * d3
                d2 = f2 * d1**2 + f1 * d2
                v, d1 = f, f1 * d1
        return v, d1, d2, d3

    def at_ends(self, eta: np.ndarray) -> np.ndarray:
        """η (k,) moved to the nearest values that the transformation takes, for limits."""
        eta = np.asarray(eta, float)
        low, high = -np.inf, np.inf
        for k in range(len(self.steps)):
            ends = np.array([self.steps[k].low, self.steps[k].high])
            if k and np.all(np.isinf(ends)):
                continue
            # the domain of a later step in η, through the increasing or decreasing steps before it
            own = _solved(self.steps[:k], ends)
            low, high = max(low, own.min()), min(high, own.max())
        return np.clip(eta, low, high)

    @property
    def ratio(self) -> float | None:
        """c where a difference δ of η is a ratio exp(cδ) of y, as for logarithms; None for others."""
        factor, seen = 1.0, False
        for step in self.steps:
            if step.kind == "exp" and not seen:
                factor, seen = factor * step.factor, True
            elif step.kind == "scale":
                factor = factor if seen else factor * step.factor
            elif not (step.kind == "shift" and not seen):
                return None
        return factor if seen else None


def back_transform(text: str | None, sample: np.ndarray) -> BackTransform | None:
    """The inverse of a response's expression; None for a plain column.

    Parameters
    ----------
    sample : (n,) the transformed response, whose sign says which branch of 1/y is meant.

    Raises
    ------
    ValueError : the expression is not one function after another of one column.
    """
    if text is None:
        return None
    try:
        node: ast.AST = read_expression(text).tree.body
    except SyntaxError:
        # a column whose name is no expression
        return None
    steps: list[Step] = []
    values = np.asarray(sample, float)
    while not isinstance(node, ast.Name):
        found = _outermost(node, values)
        if found is None:
            raise ValueError(
                f"the response {text!r} is no invertible function of one column: its results stay on the "
                "scale of the model"
            )
        step, node = found
        if step is not None:
            with np.errstate(all="ignore"):
                values = step.jet(values)[0]
            steps.append(step)
    return BackTransform(text, tuple(steps)) if steps else None


def _solved(before: tuple[Step, ...], ends: np.ndarray) -> np.ndarray:
    """η at which monotone steps reach `ends` (2,), by bisection on [-1e6, 1e6]; ±inf where they do not."""
    out = []
    for end in ends:
        if not before or np.isinf(end):
            out.append(end)
            continue
        own = BackTransform("", before)
        low, high = max(before[0].low, -1e6), min(before[0].high, 1e6)
        reach = np.array([own.jet(np.array([e]))[0][0] for e in (low, high)])
        rising = reach[1] >= reach[0]
        if not min(reach) < end < max(reach):
            out.append(np.inf if (end >= max(reach)) == rising else -np.inf)
            continue
        for _ in range(200):
            middle = 0.5 * (low + high)
            below = own.jet(np.array([middle]))[0][0] < end
            low, high = (middle, high) if below == rising else (low, middle)
        out.append(high if end == ends[0] else low)
    return np.array(out)


_ARITHMETIC = {ast.Add: add, ast.Sub: sub, ast.Mult: mul, ast.Div: truediv, ast.Pow: pow}


def _number(node: ast.AST) -> float | None:
    """The value of arithmetic on numbers, None of anything else."""
    if isinstance(node, ast.Constant):
        number = isinstance(node.value, int | float) and not isinstance(node.value, bool)
        return float(node.value) if number else None  # pyright: ignore[reportArgumentType]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = _number(node.operand)
        return None if value is None else -value
    if not isinstance(node, ast.BinOp) or type(node.op) not in _ARITHMETIC:
        return None
    left, right = _number(node.left), _number(node.right)
    if left is None or right is None:
        return None
    try:
        return float(_ARITHMETIC[type(node.op)](left, right))
    except (TypeError, ZeroDivisionError, OverflowError):
        return None


def _outermost(node: ast.AST, values: np.ndarray) -> tuple[Step | None, ast.AST] | None:
    """The inverse of the outermost operation and what it is applied to."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        return (_scale(-1.0) if isinstance(node.op, ast.USub) else None), node.operand
    if isinstance(node, ast.BinOp):
        left, right = _number(node.left), _number(node.right)
        if right is not None:
            step = _right(node.op, right)
            return None if step is None else (step, node.left)
        if left is not None:
            step = _left(node.op, left, values)
            return None if step is None else (step, node.right)
        return None
    if not isinstance(node, ast.Call) or node.keywords or not node.args:
        return None
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name in ("I", "Q") and len(node.args) == 1:
        return (None, node.args[0]) if name == "I" else (None, ast.Name("Q"))
    if name == "power" and len(node.args) == 2 and (power := _number(node.args[1])):
        return _power(power), node.args[0]
    known = _FUNCTIONS.get(name)
    return None if known is None or len(node.args) != 1 else (known, node.args[0])


def _right(op: ast.operator, c: float) -> Step | None:
    """t = y op c."""
    if isinstance(op, ast.Add | ast.Sub):
        return _shift(-c if isinstance(op, ast.Add) else c)
    if isinstance(op, ast.Mult | ast.Div) and c:
        return _scale(1.0 / c if isinstance(op, ast.Mult) else c)
    return _power(c) if isinstance(op, ast.Pow) and c else None


def _left(op: ast.operator, c: float, values: np.ndarray) -> Step | None:
    """t = c op y."""
    if isinstance(op, ast.Add):
        return _shift(-c)
    if isinstance(op, ast.Mult) and c:
        return _scale(1.0 / c)
    if isinstance(op, ast.Sub):
        return Step(lambda t: (c - t, -np.ones_like(t), 0.0 * t, 0.0 * t))
    if isinstance(op, ast.Div) and c and (np.all(values > 0) or np.all(values < 0)):
        ends = (0.0, np.inf) if values[0] > 0 else (-np.inf, 0.0)
        return Step(lambda t: (c / t, -c / t**2, 2 * c / t**3, -6 * c / t**4), *ends)
    if isinstance(op, ast.Pow) and c > 0 and c != 1:
        a = 1.0 / np.log(c)
        return Step(lambda t: (a * np.log(t), a / t, -a / t**2, 2 * a / t**3), 0.0)
    return None


def _shift(c: float) -> Step:
    return Step(lambda t: (t + c, np.ones_like(t), 0.0 * t, 0.0 * t), kind="shift")


def _scale(c: float) -> Step:
    return Step(lambda t: (c * t, c + 0.0 * t, 0.0 * t, 0.0 * t), kind="scale", factor=c)


def _exponential(c: float, shift: float = 0.0) -> Step:
    """exp(ct) + shift."""

    def jet(t: np.ndarray) -> Jet:
        e = np.exp(c * t)
        return e + shift, c * e, c**2 * e, c**3 * e

    return Step(jet, kind="other" if shift else "exp", factor=c)


def _power(p: float) -> Step:
    """t = y**p for y ≥ 0."""
    q = 1.0 / p
    coefficients = (1.0, q, q * (q - 1.0), q * (q - 1.0) * (q - 2.0))

    def jet(t: np.ndarray) -> Jet:
        # no power where its coefficient is zero: 0 · 0⁻¹
        value, d1, d2, d3 = (c * t ** (q - k) if c else 0.0 * t for k, c in enumerate(coefficients))
        return value, d1, d2, d3

    return Step(jet, 0.0)


_FUNCTIONS = {
    "log": _exponential(1.0),
    "log10": _exponential(float(np.log(10.0))),
    "log2": _exponential(float(np.log(2.0))),
    "log1p": _exponential(1.0, -1.0),
    "exp": Step(lambda t: (np.log(t), 1 / t, -1 / t**2, 2 / t**3), 0.0),
    "expm1": Step(lambda t: (np.log1p(t), 1 / (1 + t), -1 / (1 + t) ** 2, 2 / (1 + t) ** 3), -1.0),
    "sqrt": _power(0.5),
    "square": _power(2.0),
    "reciprocal": _power(-1.0),
    "cbrt": Step(lambda t: (t**3, 3 * t**2, 6 * t, 6.0 + 0.0 * t)),
    "arcsin": Step(lambda t: (np.sin(t), np.cos(t), -np.sin(t), -np.cos(t)), -np.pi / 2, np.pi / 2),
    "arcsinh": Step(lambda t: (np.sinh(t), np.cosh(t), np.sinh(t), np.cosh(t))),
}
"""Inverses of functions by name."""
