"""Softmax outputs in rational numbers: masses e^z instead of logits."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import strategies as st

fractions = st.fractions(min_value=Fraction(1, 50), max_value=50)


def impurity(masses: list[Fraction]) -> Fraction:
    """1 - ||p||^2 of the output proportional to the masses, as a sum over pairs."""
    pairs, total = Fraction(0), Fraction(0)
    for mass in masses:
        pairs, total = pairs + total * mass, total + mass
    return 2 * pairs / total**2
