"""Names: what TensorFlow takes as a node's, and what a variable is known by."""

from __future__ import annotations

import re

from modelio.model import Message

__all__ = ["VARIABLES", "legal_name", "shared_name"]

VARIABLES = ("VarHandleOp", "Variable", "VariableV2")
"""Ops that are a variable: a resource, or a reference as TensorFlow 1 had them."""


def legal_name(name: str) -> str:
    """A node name that TensorFlow takes (node_def_util.cc, ``ValidateOpName``): other characters become ``_``.

    >>> legal_name("my layer/é"), legal_name("_private")
    ('my_layer/_', '._private')
    """
    legal = re.sub(r"[^A-Za-z0-9_./\-]", "_", name)
    return legal if re.match(r"[A-Za-z0-9.]", legal) else "." + legal


def shared_name(node: Message) -> str:
    """What a resource or a variable is known by: nodes of one shared name are one variable, or one table."""
    shared = node.attr["shared_name"].s.decode("utf-8", "replace") if "shared_name" in node.attr else ""
    return shared or str(node.name)
