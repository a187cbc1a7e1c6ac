"""Formulas of docstrings, written in LaTeX, as plain text for a terminal."""

from __future__ import annotations

import re

SIGNS = {
    "alpha": "α",
    "beta": "β",
    "delta": "δ",
    "Delta": "Δ",
    "epsilon": "ε",
    "varepsilon": "ε",
    "gamma": "γ",
    "lambda": "λ",
    "rho": "ρ",
    "tau": "τ",
    "theta": "θ",
    "nabla": "∇",
    "pi": "π",
    "sigma": "σ",
    "Phi": "Φ",
    "varphi": "φ",
    "ell": "ℓ",
    "sum": "Σ",
    "ne": "≠",
    "le": "≤",
    "ge": "≥",
    "in": "∈",
    "notin": "∉",
    "to": "→",
    "infty": "∞",
    "partial": "∂",
    "cdot": "·",
    "pm": "±",
    "mp": "∓",
    "mapsto": "↦",
    "lVert": "‖",
    "rVert": "‖",
    "Vert": "‖",
    "qquad": "   ",
    "quad": "  ",
    ",": " ",
    " ": " ",
    ";": " ",
    "!": "",
    "_": "_",
    "{": "{",
    "}": "}",
}
"""What a command stands for; all others are written by their names, as in log, max, tanh."""

DROPPED = ("left", "right", "bigl", "bigr", "Bigl", "Bigr", "displaystyle")
FONTS = ("operatorname", "mathrm", "text", "mathtt", "mathbf")
ACCENTS = {"hat": "\N{COMBINING CIRCUMFLEX ACCENT}", "dot": "\N{COMBINING DOT ABOVE}"}
ACCENTS |= dict.fromkeys(("bar", "overline"), "\N{COMBINING MACRON}")
"""Marks behind the letter that they stand above."""

FRACTIONS = ("frac", "tfrac", "dfrac")
_TOKEN = re.compile(r"\\([A-Za-z]+|.)|([{}])|(\s+)|(.)", re.DOTALL)
_ATOM = re.compile(r"[^\W_]*|[^\W_]+_[^\W_]+|\|[^|]*\||\([^()]*\)")


def plain(latex: str) -> str:
    r"""Return a formula in plain text.

    >>> plain(r"\sigma(x) = \frac{1}{1 + e^{-x}}")
    'σ(x) = 1/(1 + e^(-x))'
    """
    return " ".join(_sequence(_tokens(latex))[0].split())


def _tokens(latex: str) -> list[str]:
    """Return the tokens, the next one last; commands keep their backslash."""
    found = [m[0] if m[3] is None else " " for m in _TOKEN.finditer(latex)]
    return found[::-1]


def _sequence(tokens: list[str]) -> tuple[str, list[str]]:
    """Return the text up to a closing brace or the end, and the tokens left."""
    text = ""
    while tokens and tokens[-1] != "}":
        token = tokens[-1]
        if token in "^_" and len(tokens) > 1:
            tokens.pop()
            raised = _argument(tokens)
            simple = raised.isalnum() or (_ATOM.fullmatch(raised) and "_" not in raised)
            text = f"{text.rstrip()}{token}{raised if simple else f'({raised})'}"
        else:
            piece = _argument(tokens)
            joins = token.startswith("\\") and piece[:1].isalpha() and text[-1:].isalnum()
            text += f" {piece}" if joins else piece
    return text, tokens


def _argument(tokens: list[str]) -> str:
    """Return the next token, command or group, and drop it."""
    while len(tokens) > 1 and tokens[-1] == " " and tokens[-2] in ("{", "\\"):
        tokens.pop()
    token = tokens.pop()
    if token == "{":
        text, _ = _sequence(tokens)
        if tokens:
            tokens.pop()
        return text
    if not token.startswith("\\"):
        return token
    name = token[1:]
    if name in FRACTIONS:
        above, below = _argument(tokens), _argument(tokens)
        return f"{_grouped(above)}/{_grouped(below)}"
    if name == "sqrt":
        _skip_space(tokens)
        return f"√{_grouped(_argument(tokens))}"
    if name in ACCENTS:
        _skip_space(tokens)
        under = _argument(tokens)
        return f"{under}{ACCENTS[name]}" if len(under) == 1 else f"{name}({under})"
    if name in FONTS:
        return _argument(tokens)
    if name in DROPPED:
        return ""
    return SIGNS.get(name, name)


def _skip_space(tokens: list[str]) -> None:
    while tokens and tokens[-1] == " ":
        tokens.pop()


def _grouped(text: str) -> str:
    return text if _ATOM.fullmatch(text) else f"({text})"
