"""The variables of a ``.keras`` file by their paths: one HDF5 file, several with a map, or a plain ``.npz``.

::

    model.weights.h5            layers/dense/vars/          @name "dense" (since Keras 3.6)
                                layers/dense/vars/0         a dataset; of bfloat16 with @dtype "bfloat16" (since 3.0.3)

    large.weights.json          {"metadata": {"total_size": 123},
                                 "weight_map": {"/layers/dense/vars": "large_00000.weights.h5",
                                                "/layers/dense_1/vars": ["large_00000.weights.h5", ...]}}
    large_00000.weights.h5 ...  the same in pieces; a group may be spread over several

Every group is kept with its attributes, also one without variables: a layer without weights has one. Source: Keras 3.15
``src/saving/saving_lib.py`` (``H5IOStore``, ``ShardedH5IOStore``, ``NpzIOStore``).
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from modelio.errors import ReadError, UnsafeInput, WriteError
from modelio.layers.weight_paths import natural
from modelio.model import Tensor
from modelio.sink import Sink
from modelio.source import Source, member_name
from modelio.wire import jsontext
from modelio.wire.hdf5_objects import OtherKind

if TYPE_CHECKING:
    from modelio.wire import hdf5

__all__ = ["ALONE", "MAP", "Variables", "packed", "unpacked"]

ALONE, MAP = ".weights.h5", ".weights.json"
"""What the names of files with weights alone end in, and those of the maps of shards."""

Attributes = dict[str, Any]
"""Attributes of a group or a dataset: text and lists as they are, arrays :func:`packed`."""


@dataclass
class Variables:
    """Variables and groups by path.

    Args:
        tensors: the variables.
        groups: every group, and every variable with attributes of its own, with them.
        leaves: the groups that hold nothing.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    groups: dict[str, Attributes] = field(default_factory=dict)
    leaves: set[str] = field(default_factory=set)

    def objects(self) -> dict[str, str]:
        """The objects that have a group ``vars``, and their names; ``""`` where the file has none."""
        named = {path: attributes.get("name") for path, attributes in self.groups.items() if path.endswith("/vars")}
        return {path.removesuffix("/vars"): name if isinstance(name, str) else "" for path, name in named.items()}

    def surprising(self, implied: Mapping[str, Attributes]) -> dict[str, Attributes]:
        """The groups that neither variables in them nor ``implied`` tell of."""
        return {
            path: attributes
            for path, attributes in self.groups.items()
            if (attributes or path in self.leaves) and implied.get(path) != attributes
        }

    # -- reading -------------------------------------------------------------------------------------------------------

    @classmethod
    def of_hdf5(cls, source: Source, where: str | None = None) -> Variables:
        """All that is in an HDF5 file; ``where`` is its name inside something else, for errors."""
        from modelio.wire import hdf5

        found = cls()
        with _inside(where), hdf5.File(source.window()) as file:
            waiting = [""]
            while waiting:
                path = waiting.pop()
                members = file.members(path)
                if path and not members and file.is_dataset(path):
                    found._add(file, path)
                    continue
                found.groups[path] = _attributes(file, path)
                if not members:
                    found.leaves.add(path)
                waiting += [f"{path}/{name}" if path else name for name in reversed(members)]
        return found

    def _add(self, file: hdf5.File, path: str) -> None:
        values = file.dataset(path)
        self.tensors[path] = Tensor(values.dtype, values.shape, values.numpy, values.chunks)
        attributes = _attributes(file, path)
        if values.dtype.isbuiltin == 2:  # bfloat16 and its like, which the attribute names
            attributes.pop("dtype", None)
        if attributes:
            self.groups[path] = attributes

    @classmethod
    def of_shards(cls, source: Source, beside: Mapping[str, Source], where: str | None = None) -> Variables:
        """The shards of a map as one.

        Args:
            source: the map.
            beside: what lies in the same place.
            where: the map's name, for errors.
        """
        listing = jsontext.parse(source.bytes(jsontext.SIZE), where=where)
        weight_map = listing.get("weight_map") if isinstance(listing, dict) else None
        if not isinstance(weight_map, dict):
            raise ReadError("weight_map is missing: this is no map of sharded weights", where=where)
        shards: dict[str, Variables] = {}
        for group, listed in weight_map.items():
            for name in listed if isinstance(listed, list) else [listed]:
                if not isinstance(name, str) or not name or "/" in member_name(name):
                    raise ReadError(f"{json.dumps(name)[:60]} names no file beside the map", where=group)
                if name not in beside:
                    raise ReadError(f"the shard {name} is not beside the map; keep all files together", where=where)
                if name not in shards:
                    shards[name] = cls.of_hdf5(beside[name], name)
                if group.strip("/") not in shards[name].groups:
                    raise ReadError(f"the map says that {name} has this group, and it has not", where=group)
        whole = cls()
        for name in sorted(shards):
            whole._join(shards[name], name)
        return whole

    def _join(self, shard: Variables, name: str) -> None:
        twice = sorted(set(self.tensors) & set(shard.tensors), key=natural)
        if twice:
            raise ReadError(f"this variable is in {name}, and in a shard before it", where=twice[0])
        self.tensors |= shard.tensors
        for path, attributes in shard.groups.items():
            self.groups[path] = {**self.groups.get(path, {}), **attributes}
        self.leaves |= shard.leaves

    @classmethod
    def of_npz(cls, source: Source, where: str) -> Variables:
        """The arrays of an ``.npz`` that are named by their paths. What Keras itself writes is pickled, and refused."""
        from modelio.wire import npz

        if source.tree is None:
            raise ReadError("this is not an .npz: it is no zip", where=where)
        found = cls()
        for member, content in source.tree.items():
            try:
                values = npz.read_npy(content.window(), where=f"{where}/{member}")
            except UnsafeInput as error:
                raise UnsafeInput(
                    f'{error.reason}; load the model in Keras and save it without weights_format="npz"',
                    where=error.where,
                ) from None
            path = member.removesuffix(".npy")
            found.tensors[path] = Tensor(values.dtype, values.shape, values.numpy, values.chunks)
            found.groups[path.rpartition("/")[0]] = {}
        return found

    # -- writing -------------------------------------------------------------------------------------------------------

    def nbytes(self) -> int:
        """Bytes of all variables."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def write_hdf5(self, stream: BinaryIO) -> None:
        from modelio.wire import hdf5

        with hdf5.Writer(stream) as file:
            for path in self.groups:
                if path and path not in self.tensors:
                    file.group(path)
            for path in sorted(self.tensors, key=natural):
                file.dataset(path, self.tensors[path])
            for path, attributes in self.groups.items():
                for name, value in attributes.items():
                    file.attribute(path, name, unpacked(value, path) if isinstance(value, dict) else value)

    def write_shards(self, sink: Sink, limit: int, name: str = "model") -> None:
        """Write a map and files of ``limit`` bytes of variables at most: ``model.weights.json``, ``model_00000...``."""
        weight_map: dict[str, list[str]] = {}
        for number, shard in enumerate(self._divided(limit)):
            file = f"{name}_{number:05d}{ALONE}"
            for group in dict.fromkeys(f"/{path.rpartition('/')[0]}" for path in shard.tensors):
                weight_map.setdefault(group, []).append(file)
            with sink.file(file) as stream:
                shard.write_hdf5(stream)
        listing = {
            "metadata": {"total_size": self.nbytes()},
            "weight_map": {group: files[0] if len(files) == 1 else files for group, files in weight_map.items()},
        }
        with sink.file(name + MAP) as stream:
            stream.write(json.dumps(listing, indent=4).encode())

    def _divided(self, limit: int) -> Iterator[Variables]:
        """The variables in the order of the walk, in pieces; groups without variables are in the first."""
        filled = {path.rpartition("/")[0] for path in self.tensors}
        shard = Variables(groups={path: own for path, own in self.groups.items() if path not in filled})
        size = 0
        for path in sorted(self.tensors, key=natural):
            tensor = self.tensors[path]
            if tensor.nbytes > limit:
                raise WriteError(f"{tensor.nbytes:,} bytes do not go into a shard of {limit:,}: allow more", where=path)
            if size + tensor.nbytes > limit:
                yield shard
                shard, size = Variables(), 0
            group = path.rpartition("/")[0]
            shard.tensors[path] = tensor
            shard.groups.setdefault(group, self.groups.get(group, {}))
            size += tensor.nbytes
        yield shard


@contextlib.contextmanager
def _inside(where: str | None) -> Iterator[None]:
    try:
        yield
    except ReadError as error:
        error.where = "/".join(filter(None, (where, error.where))) or None
        raise


def _attributes(file: hdf5.File, path: str) -> Attributes:
    attributes: Attributes = {}
    for name in file.attributes(path):
        with contextlib.suppress(OtherKind):  # nothing that a text could keep
            value = file.attribute(path, name)
            attributes[name] = packed(value) if isinstance(value, np.ndarray) else value
    return attributes


# -- arrays as JSON ----------------------------------------------------------------------------------------------------


def packed(array: npt.NDArray[Any]) -> dict[str, Any]:
    """An array as a value of JSON, bit for bit."""
    data = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode("ascii")
    return {"dtype": array.dtype.name, "shape": list(array.shape), "data": data}


def unpacked(value: Any, where: str) -> npt.NDArray[Any]:
    """The array that :func:`packed` was given; :class:`~modelio.errors.WriteError` where it is something else."""
    import ml_dtypes

    try:
        dtype = np.dtype(getattr(ml_dtypes, value["dtype"], value["dtype"]))
        array: npt.NDArray[Any] = np.frombuffer(base64.b64decode(value["data"]), dtype).reshape(value["shape"])
        return array
    except (LookupError, TypeError, ValueError, binascii.Error) as error:
        raise WriteError(f"this is no array as reading a .keras file gives it: {error}", where=where) from error
