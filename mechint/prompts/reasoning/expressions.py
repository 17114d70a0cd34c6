"""Arithmetic as it stands in text: expressions, equations, and chains of equalities, computed exactly.

Nothing is rounded: 1/3 stays a fraction. Text is read with the signs people use (×, ÷, −, thousands commas, dollars).
"""

import ast
import operator
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from mechint.errors import PromptError

NUMBER = r"\d+(?:\.\d+)?"
_SIGNS = {"×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "$": "", r"\times": "*", r"\cdot": "*", r"\div": "/"}
_OPERATIONS: dict[type[ast.operator], tuple[str, Callable[[Fraction, Fraction], Fraction]]] = {
    ast.Add: ("+", operator.add),
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.Div: ("/", operator.truediv),
    ast.Pow: ("^", lambda base, exponent: _power(base, exponent)),
}
_OPERAND = rf"\(?\s*-?{NUMBER}\s*\)?"
_EQUATION = re.compile(
    rf"(?P<expression>{_OPERAND}(?:\s*[-+*/^]\s*{_OPERAND})+)\s*(?:=|equals|is|gives)\s*(?P<result>-?{NUMBER})"
)
_LITERAL = re.compile(r"-?\d+(?:,\d{3}(?!\d))*(?:\.\d+)?")
_ARITHMETIC = re.compile(r"[-+*/^().\d\s]*\d[-+*/^().\d\s]*")
_MOST_POWER = 12  # beyond that a number is no longer what a person writes down
TOLERANCE = Fraction(1, 100)
"""A stated result that is less than this away from the true one is a rounded one, not a wrong one."""


@dataclass(frozen=True)
class Equation:
    """An expression and what a text says that it comes to.

    Examples:
        >>> last_equation("Half of 48 is 24, so 48 + 24 = 62.")
        Equation(expression='48 + 24', stated=Fraction(62, 1), true=Fraction(72, 1))
    """

    expression: str
    """In plain signs: + - * / ^."""
    stated: Fraction
    true: Fraction

    @property
    def wrong(self) -> bool:
        """Whether what is stated is further from the true value than rounding explains."""
        return abs(self.true - self.stated) >= TOLERANCE


def plain(text: str) -> str:
    """Write signs of arithmetic in ASCII, without thousands commas and dollars.

    Examples:
        >>> plain("$1,200 × 3")
        '1200 * 3'
    """
    for sign, written in _SIGNS.items():
        text = text.replace(sign, written)
    return re.sub(r"(?<=\d),(?=\d{3})", "", re.sub(r" [xX] ", "*", text))


def value(expression: str) -> Fraction | None:
    """Return what an expression comes to; None where it is none, divides by zero, or has a power beyond 12.

    Examples:
        >>> value("(3 + 4) / 2"), value("2 apples")
        (Fraction(7, 2), None)
    """
    node = _parse(expression)
    try:
        return None if node is None else _value(node)
    except (ValueError, ZeroDivisionError, RecursionError):
        return None


def operation(expression: str) -> str:
    """Return the operator of an expression, one of + - * / ^; "multi" where it has several, or none.

    Examples:
        >>> operation("3 * -4"), operation("3 + 4 + 5")
        ('*', 'multi')
    """
    node = _parse(expression)
    found = [] if node is None else [part.op for part in ast.walk(node) if isinstance(part, ast.BinOp)]
    return _OPERATIONS[type(found[0])][0] if len(found) == 1 and type(found[0]) in _OPERATIONS else "multi"


def last_equation(text: str) -> Equation | None:
    """Return the last equation of a text that has one number on its right; None where there is none to compute."""
    found = list(_EQUATION.finditer(plain(text)))
    true = value(found[-1]["expression"]) if found else None
    return None if true is None else Equation(found[-1]["expression"].strip(), Fraction(found[-1]["result"]), true)


def equalities(text: str) -> Iterator[tuple[Fraction, Fraction]]:
    """Yield both sides of each equality of plain arithmetic in a text; a chain, 2 + 3 = 5 = 10 / 2, has two.

    A side that holds anything else, such as a letter, is passed over with the equalities that it belongs to.

    Examples:
        >>> [left == right for left, right in equalities("So A = (2 + 3) = 5 = 6. It is 6")]
        [True, False]
    """
    for statement in re.split(r"[.!?]\s+", text):
        sides = [_side(side) for side in statement.split("=")]
        yield from ((a, b) for a, b in pairwise(sides) if a is not None and b is not None)


def literals(text: str) -> Iterator[re.Match[str]]:
    """Yield the numbers of a text as they are written there, commas and decimals included.

    Examples:
        >>> [match.group() for match in literals("From 1,200 to 3.50, or -4.")]
        ['1,200', '3.50', '-4']
    """
    yield from _LITERAL.finditer(text)


def number(literal: str) -> Fraction:
    """Return the value of a number that was written with or without commas.

    Raises:
        PromptError: it is no number.
    """
    try:
        return Fraction(literal.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        raise PromptError(f"{literal!r} is no number. Expected digits, such as '48', '1,200' or '3.50'.") from None


def written_like(true: Fraction, literal: str) -> str | None:
    """Write a value in the form of a literal: as many decimals, commas where it has some; None where that cannot be.

    Examples:
        >>> half = Fraction(5, 2)
        >>> written_like(Fraction(1234), "1,300"), written_like(half, "3.10"), written_like(half, "3")
        ('1,234', '2.50', None)
    """
    decimals = len(literal.partition(".")[2])
    if true.denominator != 1 and not decimals:
        return None
    comma = "," if "," in literal else ""
    return f"{float(true):{comma}.{decimals}f}" if decimals else f"{true.numerator:{comma}}"


def shape(literal: str) -> str:
    """Return a literal with its digits hidden: numbers of one shape have as many digits, at the same places.

    Examples:
        >>> shape("-1,204.5")
        '-0,000.0'
    """
    return re.sub(r"\d", "0", literal)


def _side(text: str) -> Fraction | None:
    bare = plain(text).strip().rstrip(".").strip()
    return value(bare) if _ARITHMETIC.fullmatch(bare) else None


def _parse(expression: str) -> ast.expr | None:
    try:
        return ast.parse(expression.strip().replace("^", "**"), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def _value(node: ast.expr) -> Fraction:
    match node:
        case ast.Constant(value=int() | float()) if not isinstance(node.value, bool):
            return Fraction(str(node.value))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            inner = _value(node.operand)
            return -inner if isinstance(node.op, ast.USub) else inner
        case ast.BinOp() if type(node.op) in _OPERATIONS:
            return _OPERATIONS[type(node.op)][1](_value(node.left), _value(node.right))
        case _:
            raise ValueError


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if abs(exponent) > _MOST_POWER or exponent.denominator != 1:
        raise ValueError
    return base**exponent.numerator
