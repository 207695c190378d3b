"""Modular arithmetic: every equation f(x, y) = c mod p, split by seed into train and test.

The operation is written as an expression in x and y: ``x+y``, ``x-y``, ``x*y``, ``x/y``, ``x^2+x*y+y^2``.
Division multiplies by the inverse mod p, so it needs a prime p and leaves out equations whose divisor is 0.
"""

from __future__ import annotations

import ast
import warnings

import numpy as np
from numpy.typing import NDArray

from grokcore.data.split import Split, split_equations
from grokcore.errors import UsageError

_ALIASES = {"+": "x+y", "-": "x-y", "*": "x*y", "/": "x/y", "add": "x+y", "sub": "x-y", "mul": "x*y"}
_ALIASES |= {"div": "x/y"}
_MAX_EXPONENT = 1000
_MAX_LENGTH = 200
# All p^2 equations are held in memory: 10^8 of them take several GB.
_MAX_MODULUS = 10_007


def modular_arithmetic(
    operation: str = "x+y",
    p: int = 97,
    *,
    train_fraction: float = 0.5,
    label_noise: float = 0.0,
    seed: int = 0,
) -> Split:
    """All defined equations of an operation mod p, split at random.

    Args:
        operation: an expression in x and y with ``+ - * / ^`` and integers (or ``+ - * /`` alone).
        p: the modulus; must be prime where the operation divides.
        train_fraction: share of the equations that is trained on, rounded to whole equations.
        label_noise: share of the train labels replaced by another class drawn uniformly; the test set
            keeps its true labels.
        seed: decides the split and the noise, by streams of their own.

    Raises:
        UsageError: an expression that cannot be read, a modulus that is not prime where it must be, a
            split without train or test data, noise outside [0, 1).
    """
    x, y, c = equations(operation, p)
    return split_equations(x, y, c, p, train_fraction=train_fraction, label_noise=label_noise, seed=seed)


def equations(operation: str, p: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(x, y, f(x, y) mod p) over all pairs on which the operation is defined, in lexicographic order."""
    if not 2 <= p <= _MAX_MODULUS:
        raise UsageError(f"the modulus must lie between 2 and {_MAX_MODULUS}, got {p}")
    tree = _parse(operation)
    if any(isinstance(node, ast.Div) for node in ast.walk(tree)) and not is_prime(p):
        raise UsageError(f"{operation} divides, which needs a prime modulus, and {p} is not prime")
    x, y = (a.ravel() for a in np.meshgrid(np.arange(p), np.arange(p), indexing="ij"))
    defined = np.ones(p * p, dtype=bool)
    values = _evaluate(tree, {"x": x, "y": y}, p, defined)
    if not defined.any():
        raise UsageError(f"{operation} is defined nowhere mod {p}")
    return x[defined], y[defined], values[defined]


def is_prime(p: int) -> bool:
    """Trial division."""
    return p >= 2 and all(p % d for d in range(2, int(p**0.5) + 1))


def _parse(operation: str) -> ast.expr:
    text = _ALIASES.get(operation.strip(), operation.strip())
    if len(text) > _MAX_LENGTH:
        raise UsageError(f"the operation is longer than {_MAX_LENGTH} characters")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            tree = ast.parse(text.replace("^", "**").replace("\u00d7", "*"), mode="eval").body
    except (SyntaxError, ValueError):
        raise UsageError(f"cannot read the operation {operation!r}; write it like x+y or x^2+x*y") from None
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if names != {"x", "y"}:
        raise UsageError(f"the operation {operation!r} must use x and y and nothing else")
    return tree


def _evaluate(
    node: ast.expr, variables: dict[str, NDArray[np.int64]], p: int, defined: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Value mod p of an expression tree; clears `defined` where a divisor is 0."""
    match node:
        case ast.Name(id=name) if name in variables:
            return variables[name]
        case ast.Constant(value=int(value)) if not isinstance(value, bool):
            return np.full_like(variables["x"], value % p)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_evaluate(operand, variables, p, defined) % p
        case ast.BinOp(left=base, op=ast.Pow(), right=ast.Constant(value=int(exponent))):
            if not 0 <= exponent <= _MAX_EXPONENT:
                raise UsageError(f"exponents must lie between 0 and {_MAX_EXPONENT}, got {exponent}")
            return _power(_evaluate(base, variables, p, defined), exponent, p)
        case ast.BinOp(left=left, op=op, right=right):
            a = _evaluate(left, variables, p, defined)
            b = _evaluate(right, variables, p, defined)
            match op:
                case ast.Add():
                    return (a + b) % p
                case ast.Sub():
                    return (a - b) % p
                case ast.Mult():
                    return a * b % p
                case ast.Div():
                    defined &= b != 0
                    return a * _power(b, p - 2, p) % p if p > 2 else a * b % p
    raise UsageError("operations may use x, y, integers and + - * / ^ with a fixed exponent")


def _power(base: NDArray[np.int64], exponent: int, p: int) -> NDArray[np.int64]:
    result = np.ones_like(base)
    while exponent:
        if exponent & 1:
            result = result * base % p
        base = base * base % p
        exponent >>= 1
    return result
