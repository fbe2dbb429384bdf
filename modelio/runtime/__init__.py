"""The live frameworks. Named by strings elsewhere, imported inside functions."""
