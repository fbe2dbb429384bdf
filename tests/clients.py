"""Real clients of what modelio writes: each takes a file and arrays, and gives what that client computes.

TensorFlow's Python loaders, its C API (``TF_LoadSessionFromSavedModel``: the C++ loader that TensorFlow Serving runs),
Keras' TFSMLayer, OpenVINO, and TensorFlow 1.15 as a process of its own. Every client returns a list of arrays in the order
of the signature's outputs (``outputs``), or a mapping by output key where the client itself speaks of keys.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

Arrays = Mapping[str, np.ndarray]


def tensorflow2(folder: str, inputs: Arrays, signature: str = "serving_default") -> dict[str, np.ndarray]:
    """``tf.saved_model.load(folder).signatures[...]``."""
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)
    answers = loaded.signatures[signature](**{key: tf.constant(value) for key, value in inputs.items()})
    return {key: value.numpy() for key, value in answers.items()}


def keras_layer(folder: str, inputs: Arrays, signature: str = "serving_default") -> dict[str, np.ndarray]:
    """``keras.layers.TFSMLayer``."""
    import keras

    layer = keras.layers.TFSMLayer(folder, call_endpoint=signature)
    if len(inputs) == 1:
        answers = layer(next(iter(inputs.values())))
    else:  # Keras 3.15 passes one argument by position, and a signature of several takes them by keyword only
        answers = layer.call_endpoint_fn(**inputs)
    return {key: np.asarray(value) for key, value in answers.items()}


def session(folder: str, feeds: Arrays, fetches: Sequence[str], tags: Sequence[str] = ("serve",)) -> list[np.ndarray]:
    """TensorFlow 1's loader; ``feeds`` and ``fetches`` are tensor names."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as running:
        tf.compat.v1.saved_model.loader.load(running, list(tags), folder)
        return running.run(list(fetches), dict(feeds))


def frozen(graph: bytes, feeds: Arrays, fetches: Sequence[str]) -> list[np.ndarray]:
    """A serialized GraphDef, imported and run."""
    import tensorflow as tf

    with tf.Graph().as_default(), tf.compat.v1.Session() as running:
        tf.graph_util.import_graph_def(tf.compat.v1.GraphDef.FromString(graph), name="")
        return running.run(list(fetches), dict(feeds))


def openvino(path: str, inputs: Arrays) -> dict[str, np.ndarray]:
    """OpenVINO on a SavedModel's folder or a frozen graph; it names the ends of the former by the signature's keys."""
    import openvino as ov

    compiled = ov.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    answers = compiled(dict(inputs))
    return {name: answers[output] for output in compiled.outputs for name in output.get_names()}


class _Output(ctypes.Structure):
    _fields_ = (("operation", ctypes.c_void_p), ("index", ctypes.c_int))


@cache
def _library() -> ctypes.CDLL:
    """libtensorflow's C API, from the installed wheel, without importing the Python package."""
    from importlib.util import find_spec

    spec = find_spec("tensorflow")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent
    ctypes.CDLL(str(folder / "libtensorflow_framework.so.2"), ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(str(folder / "libtensorflow_cc.so.2"), ctypes.RTLD_GLOBAL)
    for name in [
        "TF_NewSessionOptions",
        "TF_NewGraph",
        "TF_NewStatus",
        "TF_NewBuffer",
        "TF_LoadSessionFromSavedModel",
        "TF_AllocateTensor",
        "TF_TensorData",
        "TF_GraphOperationByName",
        "TF_StringGetDataPointer",
    ]:
        getattr(library, name).restype = ctypes.c_void_p
    library.TF_Message.restype = ctypes.c_char_p
    library.TF_Dim.restype = ctypes.c_int64
    library.TF_TensorByteSize.restype = library.TF_StringGetSize.restype = ctypes.c_size_t
    return library


_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 9: np.int64, 10: np.bool_, 19: np.float16}
_STRING, _STRING_SIZE = 7, 24
"""DataType of strings, and bytes of a TF_TString (tensorflow/core/platform/ctstring_internal.h)."""


def c_api(folder: str, feeds: Arrays, fetches: Sequence[str], tags: Sequence[str] = ("serve",)) -> list[np.ndarray]:
    """The C++ loader behind TensorFlow Serving; only what is in ``feeds`` is fed. Raises RuntimeError as it reports."""
    library = _library()
    pointer = ctypes.c_void_p
    status, graph = pointer(library.TF_NewStatus()), pointer(library.TF_NewGraph())

    def check() -> None:
        if library.TF_GetCode(status):
            raise RuntimeError(library.TF_Message(status).decode())

    names = (ctypes.c_char_p * len(tags))(*(tag.encode() for tag in tags))
    running = pointer(
        library.TF_LoadSessionFromSavedModel(
            pointer(library.TF_NewSessionOptions()), None, folder.encode(), names, len(tags), graph, None, status
        )
    )
    check()

    def end(tensor: str) -> _Output:
        name, _, index = tensor.partition(":")
        operation = library.TF_GraphOperationByName(graph, name.encode())
        if not operation:
            raise RuntimeError(f"no operation {name}")
        return _Output(operation, int(index or 0))

    def strings(array: np.ndarray) -> int:
        sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
        made = library.TF_AllocateTensor(_STRING, sizes, array.ndim, ctypes.c_size_t(_STRING_SIZE * array.size))
        data = library.TF_TensorData(pointer(made))
        for index, item in enumerate(array.reshape(-1).tolist()):
            library.TF_StringInit(pointer(data + _STRING_SIZE * index))
            library.TF_StringCopy(pointer(data + _STRING_SIZE * index), item, ctypes.c_size_t(len(item)))
        return made

    def tensor(array: np.ndarray) -> int:
        if array.dtype.kind in "OS":
            return strings(array)
        array = np.ascontiguousarray(array)
        number = next(number for number, dtype in _DTYPES.items() if dtype == array.dtype)
        sizes = (ctypes.c_int64 * array.ndim)(*array.shape)
        made = library.TF_AllocateTensor(number, sizes, array.ndim, ctypes.c_size_t(array.nbytes))
        ctypes.memmove(library.TF_TensorData(pointer(made)), array.ctypes.data, array.nbytes)
        return made

    ins = (_Output * len(feeds))(*(end(name) for name in feeds))
    values = (pointer * len(feeds))(*(tensor(value) for value in feeds.values()))
    outs = (_Output * len(fetches))(*(end(name) for name in fetches))
    results = (pointer * len(fetches))()
    library.TF_SessionRun(running, None, ins, values, len(feeds), outs, results, len(fetches), None, 0, None, status)
    check()
    answers = []
    for result in results:
        shape = [library.TF_Dim(pointer(result), axis) for axis in range(library.TF_NumDims(pointer(result)))]
        if library.TF_TensorType(pointer(result)) == _STRING:
            first = library.TF_TensorData(pointer(result))
            places = [pointer(first + _STRING_SIZE * index) for index in range(int(np.prod(shape)))]
            texts = [
                ctypes.string_at(library.TF_StringGetDataPointer(place), library.TF_StringGetSize(place))
                for place in places
            ]
            answers.append(np.array(texts, object).reshape(shape))
            continue
        dtype = _DTYPES[library.TF_TensorType(pointer(result))]
        data = ctypes.string_at(library.TF_TensorData(pointer(result)), library.TF_TensorByteSize(pointer(result)))
        answers.append(np.frombuffer(data, dtype).reshape(shape))
    library.TF_CloseSession(running, status)
    library.TF_DeleteSession(running, status)
    return answers


TENSORFLOW_1 = """
import json, sys
import numpy as np, tensorflow as tf
for job in json.load(open(sys.argv[1])):
    data = np.load(job["inputs"])
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        if job["kind"] == "saved-model":
            tf.compat.v1.saved_model.loader.load(session, ["serve"], job["path"])
        else:
            graph = tf.compat.v1.GraphDef()
            graph.ParseFromString(open(job["path"], "rb").read())
            tf.import_graph_def(graph, name="")
        answers = session.run(job["fetches"], {name: data[name] for name in data.files})
        np.savez(job["outputs"], *(answer.astype("S") if answer.dtype == object else answer for answer in answers))
"""


def tensorflow1(python: str, folder: Path, jobs: Sequence[dict[str, Any]]) -> list[list[np.ndarray]]:
    """Jobs for TensorFlow 1.15 in one process: ``{"kind", "path", "feeds", "fetches"}`` each."""
    listed = []
    for index, job in enumerate(jobs):
        inputs, outputs = folder / f"in{index}.npz", folder / f"out{index}.npz"
        feeds = {name: np.asarray(value) for name, value in job["feeds"].items()}
        # Strings go as arrays of bytes, which both NumPys read without a pickle.
        np.savez(inputs, **{name: feed.astype("S") if feed.dtype == object else feed for name, feed in feeds.items()})
        listed.append(
            {**{k: job[k] for k in ("kind", "path", "fetches")}, "inputs": str(inputs), "outputs": str(outputs)}
        )
    (folder / "jobs.json").write_text(json.dumps(listed))
    done = subprocess.run(
        [python, "-W", "ignore", "-c", TENSORFLOW_1, str(folder / "jobs.json")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answers = []
    for job in listed:
        with np.load(job["outputs"]) as data:
            answers.append([data[name] for name in data.files])
    return answers
