"""Graph to layers: the stored architecture first, patterns where there is none."""
