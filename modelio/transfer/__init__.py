"""Models between processes: as buffers, through shared memory. No file, and no copy that can be avoided."""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelio.format import Model

if TYPE_CHECKING:
    from modelio.transfer.memory import Shared

__all__ = ["attach", "share"]


def share(model: Model) -> Shared:
    """Put a model into shared memory: :func:`modelio.transfer.memory.share`."""
    from modelio.transfer import memory

    return memory.share(model)


def attach(handle: Shared | str) -> Model:
    """The model that another process shares: :func:`modelio.transfer.memory.attach`."""
    from modelio.transfer import memory

    return memory.attach(handle)
