"""The experiments: one config and main each, on the shared training loop."""
