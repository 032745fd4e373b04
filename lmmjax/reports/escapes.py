"""Text for LaTeX and Markdown: what means something to them is escaped."""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "|": r"\textbar{}",
    "<": r"$<$",
    ">": r"$>$",
    "−": r"$-$",
    "×": r"$\times$",
    "²": r"\textsuperscript{2}",
    '"': r"\textquotedbl{}",
    **{c: "\\" + c for c in "&%$#_{}"},
}
_GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "theta": "θ", "lambda": "λ", "mu": "μ", "nu": "ν",
    "pi": "π", "rho": "ρ", "sigma": "σ", "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
    "Delta": "Δ", "Sigma": "Σ", "Phi": "Φ", "leq": "≤", "geq": "≥", "infty": "∞",
}  # fmt: skip
_LATEX |= {letter: f"$\\{name}$" for name, letter in _GREEK.items()}

_NEGATIVE = re.compile(r"(?<![\w.)\]-])-(?=[\d.])")
_POWER = re.compile(r"(?<![\w.])([\d.]+)e([-+])0*(\d+)(?!\w)")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|~$#])")
_MINUS, _TIMES, _SIGN = "\ue000", "\ue001", "\ue002"


def latex_text(text: str) -> str:
    """Text with LaTeX's special characters escaped; minus signs and powers of ten as in print."""

    def power(found: re.Match) -> str:
        sign = _SIGN if found.group(2) == "-" else ""
        return f"{found.group(1)}{_TIMES}{sign}{found.group(3)}{_TIMES}"

    marked = _NEGATIVE.sub(_MINUS, _POWER.sub(power, " ".join(text.split("\n"))))
    out = "".join(_LATEX.get(c, c) for c in marked).replace(_MINUS, "$-$")
    out = re.sub(f"{_TIMES}({_SIGN}?\\d+){_TIMES}", r"$\\times 10^{\1}$", out)
    return out.replace(_SIGN, "-")


def markdown_text(text: str) -> str:
    """Text with Markdown's special characters escaped, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split("\n")))
