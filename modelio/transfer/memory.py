"""A model in shared memory: written once, seen by any number of processes, copied by none.

::

    0     8 bytes   "MODELIO1"
    8     8 bytes   length of the head, little-endian
    16    head      see modelio.transfer.buffers
    ...   arrays    in the head's order, each on a multiple of 64 bytes

The sender's :class:`Shared` owns the memory: it is released when that is closed, collected, or its process ends. A
receiver maps it for reading, and holds it for as long as one of its arrays lives, whatever the sender does meanwhile.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing import shared_memory
from typing import TYPE_CHECKING, Any

from modelio.errors import ReadError
from modelio.format import Model
from modelio.transfer import buffers

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

__all__ = ["Shared", "attach", "share"]

MAGIC = b"MODELIO1"
START = 16
ALIGNMENT = 64
"""A cache line, and as much as any vector instruction wants."""

LINUX = "/dev/shm"
"""Where Linux shows shared memory as files (shm_overview(7))."""


class Shared:
    """A model in shared memory, and its owner.

    ``handle`` is a short text that names it to other processes of this machine; a ``Shared`` that is pickled arrives as
    one that owns nothing. Use it in a ``with``, or call :meth:`close`.
    """

    def __init__(self, handle: str, owned: shared_memory.SharedMemory | None = None) -> None:
        self.handle = handle
        self._close = weakref.finalize(self, _release, owned, os.getpid()) if owned is not None else None

    def close(self) -> None:
        """Release the memory; who is attached keeps it, nobody new can attach."""
        if self._close is not None:
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[type[Shared], tuple[str]]:
        return type(self), (self.handle,)

    def __repr__(self) -> str:
        return f"Shared({self.handle!r})"


def share(model: Model) -> Shared:
    """Put a model into shared memory, from where :func:`attach` takes it in any process of this machine.

    Args:
        model: its arrays are streamed there, one after the other; nothing else is kept in memory.

    Raises:
        OSError: there is not enough shared memory (on Linux, ``/dev/shm`` is half of the machine's memory).

    >>> from modelio.model import LayerModel, Tensor
    >>> with share(LayerModel(None, {"dense": {"bias": Tensor.of([1.0, 2.0])}}, "keras3")) as shared:
    ...     attach(shared.handle).weights["dense"]["bias"].numpy()
    array([1., 2.])
    """
    head, tensors = buffers.packed(model)
    places, size = _laid_out(len(head), [tensor.nbytes for tensor in tensors])
    memory = shared_memory.SharedMemory(create=True, size=size)
    shared = Shared(memory.name, memory)
    assert memory.buf is not None  # until it is closed
    memory.buf[:START] = MAGIC + len(head).to_bytes(8, "little")
    memory.buf[START : START + len(head)] = head
    for place, tensor in zip(places, tensors, strict=True):
        for piece in tensor.chunks():
            flat = memoryview(piece).cast("B")
            memory.buf[place : place + flat.nbytes] = flat
            place += flat.nbytes
    return shared


def attach(handle: Shared | str) -> Model:
    """The model that another process shares. Its arrays are views of that memory, and cannot be written to.

    Args:
        handle: what :func:`share` gave, or its ``handle``.

    Raises:
        FileNotFoundError: the sender has released it.
        ReadError: this memory holds no model.
    """
    name = handle.handle if isinstance(handle, Shared) else handle
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,250}", name.removeprefix("/")):
        raise ReadError(f"{name!r} is no handle of shared memory: take that of share(model)")
    view = _mapped(name.removeprefix("/"))
    if view.nbytes < START or view[: len(MAGIC)] != MAGIC:
        raise ReadError("this shared memory holds no model of modelio", where=name)
    length = int.from_bytes(view[len(MAGIC) : START], "little")
    if length > view.nbytes - START:
        raise ReadError(f"the head takes {length:,} bytes, there are {view.nbytes:,}", where=name)
    head = bytes(view[START : START + length])
    sizes = buffers.sizes_of(head)
    places, end = _laid_out(length, sizes)
    if end > view.nbytes:
        raise ReadError(f"the arrays end at {end:,}, the memory at {view.nbytes:,}", where=name)
    return buffers.unpacked(head, [view[place : place + size] for place, size in zip(places, sizes, strict=True)])


def _laid_out(head: int, sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each array starts, and where the last one ends."""

    def steps() -> Iterator[int]:
        end = START + head
        for size in sizes:
            start = -(-end // ALIGNMENT) * ALIGNMENT
            yield start
            end = start + size
        yield end

    *places, end = steps()
    return places, end


def _mapped(name: str) -> memoryview:
    """Shared memory for reading. On Linux the last array over it to go unmaps it."""
    if os.path.isdir(LINUX):
        # Before Python 3.13, SharedMemory(name) has the receiver's resource tracker remove the memory when the receiver
        # ends (python/cpython#82300), so the file is mapped directly.
        with open(os.path.join(LINUX, name), "rb") as file:
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    options: dict[str, Any] = {"track": False} if sys.version_info >= (3, 13) else {}
    memory = shared_memory.SharedMemory(name=name, **options)
    _MAPPED.append(memory)  # it cannot be closed under its views, and has no way to tell when the last one goes
    assert memory.buf is not None  # until it is closed
    return memory.buf.toreadonly()


_MAPPED: list[shared_memory.SharedMemory] = []
"""Elsewhere than on Linux: what stays mapped until the process ends."""


def _release(memory: shared_memory.SharedMemory, owner: int) -> None:
    if os.getpid() == owner:  # a forked process has the object, and not the memory
        memory.close()
        memory.unlink()
