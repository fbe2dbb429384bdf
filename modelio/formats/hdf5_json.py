"""Keras HDF5 as a JSON document: what ``h5tojson`` makes of a ``.h5``, and ``jsontoh5`` turns back into one.

::

    {"apiVersion": "1.1.1",
     "root": ID,
     "groups": {ID: {"alias": ["/"],
                     "attributes": [{"name": "model_config", ..., "value": "{...}"}, ...],
                     "links": [{"title": "model_weights", "collection": "groups", "id": ID, ...}]},
                ID: {"alias": ["/model_weights"],
                     "attributes": [{"name": "layer_names", ..., "value": ["dense_1", ...]}], ...},
                ...},
     "datasets": {ID: {"alias": ["/model_weights/dense_1/dense_1/kernel:0"], ..., "value": [[0.25, ...], ...]},
                  ...}}

The groups and attributes are those of ``keras-h5``, drawn in :mod:`modelio.layers.hdf5_tree`; what a document is, and
why one of any size is read and written in little memory, says :mod:`modelio.wire.hdf5_json`.
"""

from __future__ import annotations

import re

from modelio.errors import ReadError
from modelio.format import Format
from modelio.model import LayerModel
from modelio.sink import Sink
from modelio.source import Source
from modelio.wire.window import chunks

HEAD = 4096
"""Bytes in which a document has to show what it is."""

_TELLING = re.compile(rb'"(?:model_config|model_weights|layer_names0?|nb_layers|nb_params)"')
"""A name that every document of a Keras model has, and that is short enough to be found anywhere in it."""


def sniff(source: Source) -> bool:
    if source.head(HEAD).lstrip()[:1] != b"{":
        return False
    from modelio.wire import hdf5_json

    if not hdf5_json.is_document(source.head(HEAD)):
        return False
    before = b""
    for piece in chunks(source.window()):
        text = before + bytes(piece)
        if _TELLING.search(text):
            return True
        before = text[-20:]
    return False


def read(source: Source) -> LayerModel:
    """Read a whole model, or weights alone (``architecture`` is then None).

    Raises:
        ReadError: an attribute or a weight is missing, surplus, or is not what it has to be.
    """
    from modelio.layers import hdf5_tree
    from modelio.wire import hdf5_json

    file = hdf5_json.File(source.window())
    if not hdf5_tree.is_keras(file):
        raise ReadError("this is an HDF5/JSON document in which no Keras model is found")
    return hdf5_tree.read(file)


def write(model: LayerModel, sink: Sink) -> None:
    """Write a whole model, or, where it has no architecture, its weights alone, as the Keras of its version does."""
    from modelio.layers import hdf5_tree
    from modelio.wire import hdf5_json

    with sink.file() as stream, hdf5_json.Writer(stream) as file:
        hdf5_tree.write(model, file)


FORMAT = Format(
    name="hdf5-json",
    level="layers",
    summary="Keras HDF5 as a JSON document (HDF5/JSON, h5json)",
    shape="blob",
    suffixes=(".json",),
    keeps=frozenset({"architecture", "weights", "training", "optimizer"}),
    sniff=sniff,
    read=read,
    write=write,
)
