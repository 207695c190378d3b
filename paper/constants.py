"""Decimal numbers that main.tex may hold outside a macro: settings and published values, each with where it is from."""

from __future__ import annotations

MACRO_PREFIX = "gc"
"""How the macros of results begin."""
CONSTANTS: dict[str, str] = {}
