"""Explicit heads, models and flows in float64: what the numeric certificates and counterexamples measure."""
