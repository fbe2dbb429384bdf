"""Names of nodes: what TensorFlow takes as one."""

from __future__ import annotations

import re

__all__ = ["legal_name"]


def legal_name(name: str) -> str:
    """A node name that TensorFlow takes (node_def_util.cc, ``ValidateOpName``): other characters become ``_``.

    >>> legal_name("my layer/é"), legal_name("_private")
    ('my_layer/_', '._private')
    """
    legal = re.sub(r"[^A-Za-z0-9_./\-]", "_", name)
    return legal if re.match(r"[A-Za-z0-9.]", legal) else "." + legal
