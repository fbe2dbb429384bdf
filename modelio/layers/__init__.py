"""What Keras means: architectures in one normal form, their dialects, and where each weight belongs. Pure."""
