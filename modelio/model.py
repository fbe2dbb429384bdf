"""The two kinds of model, and the tensor: plain data, no behaviour that belongs to a format.

* :class:`LayerModel`: what Keras means. Its architecture is the Keras JSON itself, its weights are lazy tensors.
* :class:`GraphModel`: what TensorFlow runs. Its graph is the protobuf message itself.

Neither knows where it came from or where it goes; what one format alone knows travels in ``meta`` and ``extra``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pickle import PickleBuffer
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from modelio.source import Source
from modelio.wire.window import CHUNK

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Dialect", "GraphModel", "LayerModel", "Message", "Signature", "Tensor", "TensorSpec"]

Dialect = Literal["keras1", "keras2", "keras3"]

Message = Any
"""A protobuf message of :mod:`modelio.wire.messages`. The classes are made at run time from a descriptor set, so static
types would have to be kept by hand; the message's own checks are stricter than those."""


class Tensor:
    """A dtype and a shape now, the numbers when asked. Nothing is cached: asking twice reads twice.

    Args:
        dtype: element type; ``bfloat16`` and the float8 types are those of ``ml_dtypes``; strings are ``object`` arrays
            of ``bytes``.
        shape: sizes of the dimensions; ``()`` for a scalar.
        load: returns the array, C-contiguous, in native byte order, of just that dtype and shape.
        stream: yields the C-order little-endian bytes piece by piece, for copies that never hold the whole tensor;
            left out, the loaded array is cut up.

    >>> t = Tensor.of(np.arange(6, dtype="float32").reshape(2, 3))
    >>> t
    Tensor(float32, (2, 3))
    >>> t.nbytes, float(t.numpy()[1, 2])
    (24, 5.0)
    """

    __slots__ = ("_load", "_stream", "dtype", "shape")

    def __init__(
        self,
        dtype: npt.DTypeLike,
        shape: tuple[int, ...],
        load: Callable[[], npt.NDArray[Any]],
        stream: Callable[[], Iterator[bytes | memoryview]] | None = None,
    ) -> None:
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.shape = tuple(int(size) for size in shape)
        self._load = load
        self._stream = stream

    @classmethod
    def of(cls, array: npt.ArrayLike) -> Tensor:
        """A tensor over an array in memory; the array is shared, not copied."""
        values = np.asarray(array)
        if values.dtype.byteorder == ">" or (values.dtype.byteorder == "=" and not _LITTLE):
            values = values.astype(values.dtype.newbyteorder("="))
        return cls(values.dtype, values.shape, lambda: values)

    @property
    def size(self) -> int:
        """Number of elements."""
        total = 1
        for length in self.shape:
            total *= length
        return total

    @property
    def nbytes(self) -> int:
        """Bytes of all elements; for strings, those of the pointers, as in NumPy."""
        return self.size * self.dtype.itemsize

    def numpy(self) -> npt.NDArray[Any]:
        """The numbers, read now."""
        return self._load()

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The C-order little-endian bytes of the elements, at most about a megabyte at a time."""
        if self._stream is not None:
            yield from self._stream()
            return
        array = np.ascontiguousarray(self.numpy())
        flat: memoryview = array.reshape(-1).view(np.uint8).data if array.nbytes else memoryview(b"")
        for offset in range(0, flat.nbytes, CHUNK):
            yield flat[offset : offset + CHUNK]

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            if copy is False:
                raise ValueError(f"a {self.dtype} tensor has no {np.dtype(dtype)} view; allow a copy")
            return array.astype(dtype)
        return array.copy() if copy else array

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        """Pickled by its numbers; with protocol 5 they go out of band, and the receiver's array is a view of them."""
        array = np.ascontiguousarray(self.numpy())
        if self.dtype == object or protocol < 5:
            return Tensor.of, (array.reshape(self.shape),)
        return _of_buffer, (self.dtype.name, self.shape, PickleBuffer(array.reshape(-1).view(np.uint8).data))

    def __repr__(self) -> str:
        return f"Tensor({self.dtype.name}, {self.shape})"


def _of_buffer(name: str, shape: tuple[int, ...], buffer: Any) -> Tensor:
    from modelio.wire.dtypes import dtype_number, numpy_dtype

    return Tensor.of(np.frombuffer(buffer, np.uint8).view(numpy_dtype(dtype_number(name))).reshape(shape))


_LITTLE = np.dtype("<i4") == np.dtype("=i4")


@dataclass(frozen=True)
class TensorSpec:
    """One end of a signature.

    ``tensor`` names the graph's tensor (``"images:0"``), ``dtype`` is TensorFlow's lower-case name, ``shape`` has None
    for an unknown size and is None itself where the rank is unknown.
    """

    tensor: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """What can be asked of a graph: named inputs and outputs, and the method name that TensorFlow Serving looks at."""

    inputs: Mapping[str, TensorSpec]
    outputs: Mapping[str, TensorSpec]
    method: str = ""


@dataclass
class LayerModel:
    """What Keras means: an architecture, weights by layer, and what ``compile`` was told.

    ``weights`` maps the name of a top-level layer to its weights, in the order in which Keras stored them, under the
    names that it gave them; both are kept verbatim. A nested model is one entry that holds all its inner weights.
    ``assets`` are the files of layers that Keras 3 keeps beside the weights, by the layer's path in the model:
    ``"text_vectorization/vocabulary.txt"``.
    """

    architecture: Mapping[str, Any] | None
    weights: Mapping[str, Mapping[str, Tensor]]
    dialect: Dialect
    training: Mapping[str, Any] | None = None
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    assets: Mapping[str, Source] = field(default_factory=dict)

    # These need modelio.layers, which stands above this module, so they import it when they are called.

    @classmethod
    def from_json(
        cls,
        text: str | bytes | Mapping[str, Any],
        arrays: Sequence[npt.ArrayLike | Tensor] | Mapping[str, Any] | None = None,
    ) -> LayerModel:
        """The model of Keras' ``model.to_json()`` and ``get_weights()``: :func:`modelio.layers.document.from_json`."""
        from modelio.layers.document import from_json

        return from_json(text, arrays)

    def to_json(self) -> str:
        """The architecture as JSON text, as Keras' ``model.to_json()`` gives it."""
        from modelio.layers.document import to_json

        return to_json(self)

    def get_weights(self) -> list[npt.NDArray[Any]]:
        """The arrays of Keras' ``model.get_weights()``, in the order of the version that wrote the model."""
        from modelio.layers.binding import get_weights

        return get_weights(self)

    def load(self) -> Self:
        """The same model with every tensor in memory, independent of the file it came from."""
        return replace(
            self,
            weights={layer: _loaded(tensors) for layer, tensors in self.weights.items()},
            optimizer=_loaded(self.optimizer),
            assets=_held(self.assets),
        )


@dataclass
class GraphModel:
    """What TensorFlow runs: a graph, its variables and its signatures.

    ``variables`` is keyed as the checkpoint is; empty means frozen. ``constants`` holds the values of those Const nodes
    whose ``value`` attribute was left without content because it is large, by node name (``"function:node"`` inside a
    function): a frozen graph of any size is read, changed and written without ever being in memory as a whole. Such an
    attribute is marked (:data:`modelio.wire.dtypes.CUT`), so that a lost value is an error and never a zero.
    """

    graph: Message
    variables: Mapping[str, Tensor] = field(default_factory=dict)
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    assets: Mapping[str, Source] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    extra: Mapping[str, bytes] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Self:
        """The same model with every tensor in memory, independent of the file it came from."""
        return replace(
            self,
            variables=_loaded(self.variables),
            constants=_loaded(self.constants),
            assets=_held(self.assets),
        )

    def __getstate__(self) -> dict[str, Any]:
        """For pickle: the graph as bytes, since its class is made at run time."""
        from modelio.wire.messages import serialize

        return {**self.__dict__, "graph": serialize(self.graph)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        from modelio.wire.messages import GraphDef, parse

        self.__dict__ = {**state, "graph": parse(GraphDef, state["graph"], where="graph")}


def _loaded(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: Tensor.of(tensor.numpy()) for name, tensor in tensors.items()}


def _held(files: Mapping[str, Source]) -> dict[str, Source]:
    return {name: Source.of(file.bytes(), name=file.name) for name, file in files.items()}
