"""What HDF5 is to those who read or write a model: groups, attributes and datasets at paths, whatever the encoding.

:mod:`modelio.wire.hdf5` has them in HDF5 itself, :mod:`modelio.wire.hdf5_json` in a JSON document. Paths are relative
to the root, which is ``""``.

A list of names that does not fit into one attribute of an HDF5 file is spread over ``name0``, ``name1``, ..., as Keras
does since 2.1.5 (``keras/src/legacy/saving/legacy_h5_format.py``, Keras 3.15).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, WriteError
from modelio.wire.raw import Values

__all__ = ["Attribute", "OtherKind", "Reader", "Writer"]

HEADER_LIMIT = 64512
"""Bytes of one attribute: libhdf5's 64 KB for an object header's message, less what Keras leaves for the rest of it."""

Attribute = str | list[str] | npt.NDArray[Any]
"""The values that attributes of model files have."""


class OtherKind(ReadError):
    """A value of a kind that no model is made of, such as a reference or a structure; nothing is wrong with it."""


class Reader:
    """Groups, attributes and datasets that are there. The datasets that it gave can be read after it is closed.

    Raises:
        ReadError: something is missing, or is not what it has to be; from every method.
    """

    def has(self, name: str) -> bool:
        """Whether the root has a member of this name; looks at nothing else."""
        raise NotImplementedError

    def __contains__(self, path: object) -> bool:
        raise NotImplementedError

    def members(self, path: str = "") -> list[str]:
        """The names in a group, sorted; none for a dataset."""
        raise NotImplementedError

    def leaves(self, path: str = "") -> Iterator[str]:
        """The paths of all that has no members at or below a path: datasets and empty groups."""
        waiting = [path]
        while waiting:
            path = waiting.pop()
            names = self.members(path)
            waiting += [f"{path}/{name}" if path else name for name in reversed(names)]
            if not names:
                yield path

    def is_dataset(self, path: str) -> bool:
        """Whether it is a dataset, and not a group."""
        raise NotImplementedError

    def attributes(self, path: str = "") -> list[str]:
        """The names of an object's attributes, sorted."""
        raise NotImplementedError

    def attribute(self, path: str, name: str) -> Attribute | None:
        """An attribute: a text, a list of texts, or an array of numbers; None where there is none of this name.

        :class:`OtherKind` where it is something else: a reference, a structure.
        """
        raise NotImplementedError

    def names(self, path: str, name: str) -> list[str] | None:
        """A list of names, joined where it is spread over ``name0``, ``name1``, ...; None where there is none."""
        part = self.attribute(path, name)
        if part is not None:
            return _names(part, f"{path}@{name}")
        joined: list[str] = []
        count = 0
        while (part := self.attribute(path, f"{name}{count}")) is not None:
            joined += _names(part, f"{path}@{name}{count}")
            count += 1
        return joined if count else None

    def dataset(self, path: str) -> Values:
        """A dataset of numbers, to be read when asked; what it declares is checked now."""
        raise NotImplementedError


def _names(value: Attribute, where: str) -> list[str]:
    if isinstance(value, list):
        return value
    if isinstance(value, str):
        raise ReadError("this is one text, and a list of names is wanted", where=where)
    if value.size:
        raise ReadError("this holds numbers, and a list of names is wanted", where=where)
    return []  # an empty list of names has lost its type: Keras writes it as no floats


class Writer:
    """Groups, attributes and datasets to be. The same calls give the same bytes.

    Raises:
        WriteError: HDF5 cannot hold this; from every method.
    """

    def group(self, path: str) -> None:
        """Make a group, and those above it; one that is there already stays."""
        raise NotImplementedError

    def attribute(self, path: str, name: str, value: Attribute) -> None:
        """Give a group an attribute: a text, a list of texts, or an array of numbers."""
        raise NotImplementedError

    def names(self, path: str, name: str, values: Sequence[str]) -> None:
        """Give a group a list of names, spread over ``name0``, ``name1``, ... where one attribute cannot hold it."""
        longest = max((len(value.encode("utf-8", "surrogatepass")) for value in values), default=0)
        if longest > HEADER_LIMIT:
            reason = f"a name of {longest:,} bytes; HDF5 takes {HEADER_LIMIT:,} at most"
            raise WriteError(reason, where=f"{path}@{name}")
        room = HEADER_LIMIT // max(1, longest)
        if len(values) <= room:
            self.attribute(path, name, list(values))
            return
        for number, part in enumerate(np.array_split(np.array(values, object), -(-len(values) // room))):
            self.attribute(path, f"{name}{number}", part.tolist())

    def dataset(self, path: str, values: Values) -> None:
        """Make a dataset, and the groups above it; its numbers are read when the file is closed."""
        raise NotImplementedError
