"""Convert and inspect Keras and TensorFlow models, exactly, fast, without TensorFlow.

>>> import modelio
>>> sorted(modelio.formats())
['frozen-graph', 'hdf5-json', 'keras-h5', 'keras-json', 'keras-zip', 'safetensors', 'saved-model', 'tfjs-layers']
"""

from modelio._version import VERSION as __version__
from modelio.api import convert, formats, from_keras, identify, inspect, read, to_callable, to_keras, write
from modelio.errors import (
    AmbiguousFormat,
    ConversionError,
    FormatError,
    LossyConversion,
    MissingDependency,
    ModelioError,
    ReadError,
    UnknownFormat,
    UnsafeInput,
    WriteError,
)
from modelio.format import Format
from modelio.model import GraphModel, LayerModel, Signature, Tensor, TensorSpec

__all__ = [
    "AmbiguousFormat",
    "ConversionError",
    "Format",
    "FormatError",
    "GraphModel",
    "LayerModel",
    "LossyConversion",
    "MissingDependency",
    "ModelioError",
    "ReadError",
    "Signature",
    "Tensor",
    "TensorSpec",
    "UnknownFormat",
    "UnsafeInput",
    "WriteError",
    "__version__",
    "convert",
    "formats",
    "from_keras",
    "identify",
    "inspect",
    "read",
    "to_callable",
    "to_keras",
    "write",
]
