"""Keras HDF5 (``.h5``): whole models and weights alone, from Keras 0.3 to 3.

::

    HDF5
      @model_config  @training_config      the architecture and what compile() was told, as JSON
      model_weights/
        @layer_names
        dense_1/
          @weight_names
          dense_1/kernel:0                 a dataset for each weight
      optimizer_weights/
        @weight_names ...

:mod:`modelio.layers.hdf5_tree` draws the groups of all versions, and reads and writes them; here is what they are in:
HDF5, by :mod:`modelio.wire.hdf5`. ``.keras`` files that TensorFlow 2.1 to 2.11 wrote are in this format too; the
``.weights.h5`` of Keras 3 are not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from modelio.errors import ReadError
from modelio.format import Format
from modelio.model import LayerModel
from modelio.sink import Sink
from modelio.source import Source

if TYPE_CHECKING:
    from modelio.wire import hdf5

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""As in :mod:`modelio.wire.hdf5`, which is not imported for files that are not HDF5: it brings h5py along."""


def sniff(source: Source) -> bool:
    if source.head(len(SIGNATURE)) != SIGNATURE:
        return False
    from modelio.layers import hdf5_tree
    from modelio.wire import hdf5

    try:
        with hdf5.File(source.window()) as file:
            return hdf5_tree.is_keras(file)
    except ReadError:
        return True  # HDF5, and damaged: reading says where


def read(source: Source) -> LayerModel:
    """Read a whole model, or weights alone (``architecture`` is then None).

    Raises:
        ReadError: an attribute or a weight is missing, surplus, or is not what it has to be.
    """
    from modelio.layers import hdf5_tree
    from modelio.wire import hdf5

    with hdf5.File(source.window()) as file:
        if not hdf5_tree.is_keras(file):
            raise ReadError(_what_else(file))
        return hdf5_tree.read(file)


def _what_else(file: hdf5.File) -> str:
    if any(file.has(name) for name in ("vars", "layers", "_layer_checkpoint_dependencies")):
        return (
            "this is a .weights.h5, whose weights are named by their paths through the model's attributes: it is of "
            "the format keras-zip"
        )
    return "no Keras model is in this HDF5 file: it has neither layer_names nor model_weights nor nb_layers"


def write(model: LayerModel, sink: Sink) -> None:
    """Write a whole model, or, where it has no architecture, its weights alone, as the Keras of its version does."""
    from modelio.layers import hdf5_tree
    from modelio.wire import hdf5

    with sink.file() as stream, hdf5.Writer(stream) as file:
        hdf5_tree.write(model, file)


FORMAT = Format(
    name="keras-h5",
    level="layers",
    summary="Keras HDF5 (.h5): whole models and weights alone, Keras 0.3 to 3",
    shape="blob",
    suffixes=(".h5", ".hdf5", ".hd5"),
    keeps=frozenset({"architecture", "weights", "training", "optimizer"}),
    sniff=sniff,
    read=read,
    write=write,
)
