"""Convert and inspect Keras and TensorFlow models, exactly, fast, without TensorFlow.

>>> import modelio
>>> [name for name, format in sorted(modelio.formats().items()) if format.level == "layers"]
['hdf5-json', 'keras-h5', 'keras-json', 'keras-zip', 'safetensors', 'tfjs-layers']
>>> [name for name, format in sorted(modelio.formats().items()) if format.level != "layers"]
['checkpoint', 'frozen-graph', 'saved-model']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from modelio._version import VERSION as __version__
from modelio.api import (
    convert,
    formats,
    from_keras,
    identify,
    inspect,
    read,
    rule,
    to_callable,
    to_keras,
    verify,
    write,
)
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
from modelio.transfer import attach, share

if TYPE_CHECKING:
    from modelio.inspection.compare import Comparison
    from modelio.inspection.report import Report
    from modelio.routes import Conversion
    from modelio.transfer.memory import Shared

__all__ = [
    "AmbiguousFormat",
    "Comparison",
    "Conversion",
    "ConversionError",
    "Format",
    "FormatError",
    "GraphModel",
    "LayerModel",
    "LossyConversion",
    "MissingDependency",
    "ModelioError",
    "ReadError",
    "Report",
    "Shared",
    "Signature",
    "Tensor",
    "TensorSpec",
    "UnknownFormat",
    "UnsafeInput",
    "WriteError",
    "__version__",
    "attach",
    "convert",
    "formats",
    "from_keras",
    "identify",
    "inspect",
    "read",
    "rule",
    "share",
    "to_callable",
    "to_keras",
    "verify",
    "write",
]

_RESULTS = {
    "Comparison": "modelio.inspection.compare",
    "Conversion": "modelio.routes",
    "Report": "modelio.inspection.report",
    "Shared": "modelio.transfer.memory",
}
"""What functions return, and nobody makes: imported when it is asked for, so that ``import modelio`` stays light."""


def __getattr__(name: str) -> Any:
    if name not in _RESULTS:
        raise AttributeError(f"module 'modelio' has no attribute {name!r}")
    return getattr(importlib.import_module(_RESULTS[name]), name)
