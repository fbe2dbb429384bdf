"""Layers to graph: a rule per layer class, a file per family.

``rules.py`` says what a rule is, ``assemble.py`` walks a network and applies them, every other module is a family.
"""

from modelio.lowering.assemble import lower

__all__ = ["lower"]
