"""Shared memory and pickle: a model in a second process is the sender's, to the last bit, and no number is copied."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time

import ml_dtypes
import numpy as np
import pytest

import modelio
from modelio.errors import ReadError
from modelio.source import Source
from modelio.transfer import buffers
from modelio.transfer.memory import ALIGNMENT
from modelio.wire import messages
from tests.corpus import cases


def layers(**more):
    weights = {
        "dense": {"kernel": np.arange(6, dtype="float32").reshape(2, 3), "scale": np.ones(3, ml_dtypes.bfloat16)},
        "lookup": {"words": np.array([[b"one", b"\xff\x00", b""]], object)},
        "empty": {"none": np.zeros((0, 4), "int64"), "one": np.array(7, "int64")},
    }
    tensors = {layer: {name: modelio.Tensor.of(a) for name, a in named.items()} for layer, named in weights.items()}
    return modelio.LayerModel({"class_name": "Sequential", "config": []}, tensors, "keras3", **more)


def plain(model):
    """All of a model in values that compare."""

    def numbers(tensors):
        return [(name, t.dtype.name, t.shape, t.numpy().tolist()) for name, t in tensors.items()]

    assets = {name: source.bytes() for name, source in model.assets.items()}
    if isinstance(model, modelio.LayerModel):
        weights = [(layer, numbers(tensors)) for layer, tensors in model.weights.items()]
        texts = (model.architecture, model.dialect, model.training, model.meta)
        return weights, texts, numbers(model.optimizer), assets
    graph = messages.serialize(model.graph)
    texts = (model.signatures, model.tags, dict(model.extra), dict(model.meta))
    return numbers(model.variables), numbers(model.constants), texts, graph, assets


def graphs():
    return [modelio.read(case / "saved_model_tf1") for case in cases(file="saved_model_tf1")[:2]] + [
        modelio.read(case / "saved_model") for case in cases(file="saved_model")[:2]
    ]


def models():
    return [layers(optimizer={"iterations": modelio.Tensor.of(np.int64(3))}, training={"loss": "mse"}), *graphs()]


@pytest.mark.parametrize("number", range(5))
def test_what_is_attached_is_what_was_shared(number):
    model = models()[number]
    with modelio.share(model) as shared:
        assert plain(modelio.attach(shared)) == plain(model)
        assert plain(modelio.attach(shared.handle)) == plain(model)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("number", range(5))
def test_pickled_and_back(number, protocol):
    model = models()[number]
    assert plain(pickle.loads(pickle.dumps(model, protocol))) == plain(model)


def test_protocol_5_copies_no_number():
    kernel = np.arange(1 << 20, dtype="float32")
    model = modelio.LayerModel(None, {"dense": {"kernel": modelio.Tensor.of(kernel)}}, "keras3")
    outside: list[pickle.PickleBuffer] = []
    text = pickle.dumps(model, 5, buffer_callback=outside.append)
    assert len(text) < 1000
    assert sum(buffer.raw().nbytes for buffer in outside) == kernel.nbytes
    back = pickle.loads(text, buffers=outside)
    assert np.shares_memory(back.weights["dense"]["kernel"].numpy(), kernel)


def test_assets_travel():
    model = graphs()[0]
    model.assets = {"words.txt": Source.of(b"one\ntwo")}
    with modelio.share(model) as shared:
        assert modelio.attach(shared).assets["words.txt"].bytes() == b"one\ntwo"
    assert pickle.loads(pickle.dumps(model)).assets["words.txt"].bytes() == b"one\ntwo"


def test_attached_arrays_are_views_that_cannot_be_written_to():
    with modelio.share(layers()) as shared:
        one, other = (modelio.attach(shared).weights["dense"]["kernel"].numpy() for _ in range(2))
    assert not one.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        one[0, 0] = 1
    assert one.ctypes.data % ALIGNMENT == 0
    assert other.tolist() == one.tolist()


def test_an_attached_model_outlives_the_sender_and_nobody_new_can_attach():
    with modelio.share(layers()) as shared:
        model = modelio.attach(shared)
    assert model.weights["dense"]["kernel"].numpy().sum() == 15
    with pytest.raises(FileNotFoundError):
        modelio.attach(shared)
    shared.close()  # a second time is nothing


def test_memory_goes_with_the_last_owner():
    shared = modelio.share(layers())
    handle = shared.handle
    del shared
    with pytest.raises(FileNotFoundError):
        modelio.attach(handle)


def test_attaching_takes_no_longer_for_a_large_model():
    """10 ms is the budget of ``make bench``; here only: it does not touch the numbers. 256 MB take far more to copy."""
    zeros = np.zeros(1 << 26, "float32")
    model = modelio.LayerModel(None, {"dense": {"kernel": modelio.Tensor.of(zeros)}}, "keras3")
    with modelio.share(model) as shared:
        before = _resident()
        start = time.perf_counter()
        attached = modelio.attach(shared)
        assert time.perf_counter() - start < 1
        assert _resident() - before < zeros.nbytes / 8
        assert attached.weights["dense"]["kernel"].numpy()[-1] == 0


def _resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


RECEIVER = """
import sys, json, modelio
model = modelio.attach(sys.argv[1])
print(json.dumps([model.to_json(), [w.tolist() for w in model.get_weights()]]))
"""


def test_another_process_attaches_and_leaves_the_memory_alone():
    """A process that has nothing to do with the sender; before Python 3.13 its end removed the memory."""
    model = modelio.LayerModel(ARCHITECTURE, {"dense": {"kernel": modelio.Tensor.of(np.eye(3))}}, "keras3")
    with modelio.share(model) as shared:
        for _ in range(2):
            done = subprocess.run(
                [sys.executable, "-c", RECEIVER, shared.handle], capture_output=True, text=True, check=True, timeout=60
            )
            assert done.stderr == ""
            architecture, weights = json.loads(done.stdout)
            assert json.loads(architecture) == ARCHITECTURE
            assert weights == [np.eye(3).tolist()]


ARCHITECTURE = {
    "class_name": "Sequential",
    "config": {
        "name": "s",
        "layers": [
            {"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [None, 3]}},
            {"class_name": "Dense", "config": {"name": "dense", "units": 3, "use_bias": False}},
        ],
    },
}


def _total(queue, answers):
    model = modelio.attach(queue.get())
    answers.put(float(model.weights["dense"]["kernel"].numpy().sum()))


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_a_shared_model_goes_through_a_queue_as_its_handle(method):
    context = multiprocessing.get_context(method)
    with modelio.share(layers()) as shared:
        queue, answers = context.Queue(), context.Queue()
        process = context.Process(target=_total, args=(queue, answers))
        process.start()
        queue.put(shared)
        assert answers.get(timeout=60) == 15
        process.join(60)
        assert process.exitcode == 0
        assert modelio.attach(shared).weights["dense"]["kernel"].numpy().sum() == 15


@pytest.mark.parametrize("handle", ["../../etc/passwd", "a/b", "", "no such handle"])
def test_a_handle_is_no_path(handle):
    with pytest.raises(ReadError, match="no handle"):
        modelio.attach(handle)


def test_other_shared_memory_is_refused():
    from multiprocessing.shared_memory import SharedMemory

    memory = SharedMemory(create=True, size=4096)
    try:
        with pytest.raises(ReadError, match="no model of modelio"):
            modelio.attach(memory.name)
        memory.buf[:16] = b"MODELIO1" + (1 << 40).to_bytes(8, "little")
        with pytest.raises(ReadError, match="the head takes"):
            modelio.attach(memory.name)
    finally:
        memory.close()
        memory.unlink()


HEAD = {"model": "layers", "arrays": [["float32", [2], 8]], "fields": {}}


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model": "else"}, "not the head"),
        ({"arrays": [["float32", [2], 9]]}, "9 bytes are no float32 array"),
        ({"arrays": [["float33", [2], 8]]}, "no element type"),
        ({"arrays": [["float32", [-2], 8]]}, "no number of things"),
        ({"arrays": 3}, "are wanted"),
        ({"fields": []}, "not one that modelio writes"),
    ],
)
def test_a_damaged_head_is_refused(change, sentence):
    with pytest.raises(ReadError, match=sentence):
        buffers.unpacked(json.dumps({**HEAD, **change}).encode(), [bytes(8)])


def test_strings_that_lie_about_their_lengths_are_refused():
    for data in (b"\xff\xff\xff\xff", b"\x01\x00\x00\x00ab", b""):
        head = {**HEAD, "arrays": [["|S", [1], len(data)]]}
        with pytest.raises(ReadError, match="strings"):
            buffers.unpacked(json.dumps(head).encode(), [data])
